/**
 * Writes the program that turns the memory a process inherited from its parent
 * by fork(2) into its own, with as few calls as possible: what both have is
 * kept, so that its pages stay shared until one of them writes.
 *
 * What fork gives a child (dup_mmap in mm/mmap.c): every area of the parent
 * with its protection, advice, name and guard pages, but no locks; not areas
 * with MADV_DONTFORK; those with MADV_WIPEONFORK empty.
 */
import type { Program } from "../ffi/program.ts";
import type {
  ckpt_area_entry,
  mm_entry,
  pagemap_entry,
  vma_entry,
} from "../image/schema.gen.ts";
import { isPrivate, VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import {
  advise,
  adviseOne,
  areasWithPages,
  guardRanges,
  hasAdvice,
  installGuards,
  isVdso,
  isVvar,
  lockAreas,
  MADV,
  mapAreas,
  nameArea,
  nameOf,
  openMode,
  protect,
  realAreas,
  type RebuildInput,
  wouldMerge,
} from "./areas.ts";
import { difference, intersection, joined, type Range } from "./ranges.ts";
import { fill } from "./rebuild.ts";
import { isRing } from "./aio.ts";
import { isRingArea } from "./ring_areas.ts";
import { storedPages, type StoredRange } from "./stored_pages.ts";
import { isPrivateHuge, isSegment, MAP } from "./vma.ts";

export interface InheritInput extends RebuildInput {
  /** The parent, all of it in its final place, not sealed yet. */
  parent: {
    mm: mm_entry;
    pages: readonly pagemap_entry[];
    extensions: ReadonlyMap<bigint, ckpt_area_entry>;
  };
  /** Pages known to be those of the parent; ascending. */
  inherited: readonly Range[];
}

/**
 * Whether a child should get its memory from its parent: when it has not
 * executed another program since it was forked. Any other child is rebuilt.
 */
export function inheritsMemory(parent: mm_entry, child: mm_entry): boolean {
  return parent.exe_file_id === child.exe_file_id &&
    parent.mm_start_code === child.mm_start_code &&
    parent.mm_start_brk === child.mm_start_brk &&
    parent.mm_start_stack === child.mm_start_stack &&
    startOf(parent, isVdso) === startOf(child, isVdso);
}

function startOf(
  { vmas }: mm_entry,
  which: (vma: vma_entry) => boolean,
): bigint | undefined {
  return vmas.find(which)?.start;
}

/** An area of the child of which at least the beginning is inherited. */
interface KeptArea {
  readonly vma: vma_entry;
  /** The area of the parent it is in. */
  readonly from: vma_entry;
  /** Where the inherited part ends; the rest is grown. */
  readonly end: bigint;
}

/** What is to be done, as plain data. */
export interface Inheritance {
  readonly kept: readonly KeptArea[];
  readonly unmapped: readonly Range[];
  /** Areas to be mapped anew. */
  readonly made: readonly vma_entry[];
  /** Guard pages to be taken away. */
  readonly unguarded: readonly Range[];
  readonly guarded: readonly Range[];
  /** Ranges whose pages are the parent's only. */
  readonly dropped: readonly Range[];
  /** Pages to be compared with those inherited. */
  readonly compared: readonly StoredRange[];
  readonly filled: readonly StoredRange[];
}

/** Decides how the memory of a forked child becomes what is wanted. */
export function planInheritance(input: InheritInput): Inheritance {
  const { parent, agent } = input;
  const ours = realAreas(input.mm);
  const theirs = realAreas(parent.mm).filter((vma) =>
    !hasAdvice(vma, MADV.dontfork)
  );
  const kept = keptAreas(ours, theirs, input);
  const keptOf = new Map(kept.map((area) => [area.vma, area]));
  const keptRanges = kept.map(({ vma, end }) => ({ start: vma.start, end }));
  const withPages = joined(
    kept.filter(({ vma, from }) =>
      isPrivate(vma) && !hasAdvice(from, MADV.wipeonfork) &&
      (from.flags & MAP.droppable) === 0
    ).map(({ vma, end }) => ({ start: vma.start, end })),
  );
  const stored = storedPages(input.pages);
  // The kernel's own, and what is filled later.
  const others = input.mm.vmas.filter((vma) =>
    isVdso(vma) || isRing(vma) || isRingArea(vma)
  );
  const wanted = difference(stored, others);
  const got = intersection(
    difference(joined(storedPages(parent.pages)), others),
    withPages,
  );
  const both = intersection(wanted, got);
  const guards = joined(guardRanges(input.mm));
  const gotGuards = intersection(joined(guardRanges(parent.mm)), withPages);
  return {
    kept,
    unmapped: unmappedRanges(theirs, keptRanges, {
      start: BigInt(agent.start),
      end: BigInt(agent.end),
    }),
    made: ours.filter((vma) => !keptOf.has(vma)),
    unguarded: difference(gotGuards, guards),
    guarded: difference(guards, gotGuards),
    dropped: droppedRanges(got, difference(withPages, wanted)),
    compared: located(difference(both, input.inherited), stored),
    filled: located(difference(wanted, got), stored),
  };
}

/** Finds the areas that fork has put where they are wanted. */
function keptAreas(
  ours: readonly vma_entry[],
  theirs: readonly vma_entry[],
  input: InheritInput,
): KeptArea[] {
  const found: KeptArea[] = [];
  const inUse = areasWithPages(ours, storedPages(input.pages));
  let at = 0;
  for (const vma of ours) {
    while (at < theirs.length && theirs[at].end <= vma.start) at++;
    const from = theirs[at];
    if (from === undefined || !canKeep(vma, from)) continue;
    // What could be written once counts as memory in use for ever
    // (VM_ACCOUNT); the guard page of a stack never did.
    const couldWrite = (from.prot & ~vma.prot & PROT.write) !== 0;
    if (couldWrite && isPrivate(vma) && !inUse.has(vma)) continue;
    const end = vma.end < from.end ? vma.end : from.end;
    const last = found.at(-1);
    if (
      end < vma.end && !canGrow(vma) ||
      last !== undefined && wouldBecomeOne(last, { vma, from, end })
    ) continue;
    found.push({ vma, from, end });
  }
  return withWholeVdso(found, input.parent.mm);
}

/** Bits of vma_entry.status that make a kind. */
const KIND = VMA_STATUS.VDSO | VMA_STATUS.VVAR | VMA_STATUS.FILE_PRIVATE |
  VMA_STATUS.FILE_SHARED | VMA_STATUS.ANON_SHARED | VMA_STATUS.ANON_PRIVATE |
  VMA_STATUS.SYSVIPC | VMA_STATUS.MEMFD;

const NOT_ANONYMOUS = VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED |
  VMA_STATUS.ANON_SHARED;

/** Whether an area begins in one of the parent's and is of the same kind. */
function canKeep(vma: vma_entry, from: vma_entry): boolean {
  // Attached anew: that its parts are one, shmdt(2) has to know.
  if (isSegment(vma)) return false;
  // A child that writes into what it has from its parent needs further pages,
  // and is killed where there are none.
  if (isPrivateHuge(vma)) return false;
  if (
    vma.start < from.start || (vma.status & KIND) !== (from.status & KIND) ||
    (vma.flags & ~MAP.locked) !== (from.flags & ~MAP.locked)
  ) return false;
  if (
    (vma.status & NOT_ANONYMOUS) !== 0 &&
    (vma.shmid !== from.shmid || openMode(vma) !== openMode(from) ||
      vma.pgoff - from.pgoff !== vma.start - from.start)
  ) return false;
  // No advice takes these two back.
  const huge = (of: vma_entry) =>
    hasAdvice(of, MADV.hugepage) || hasAdvice(of, MADV.nohugepage);
  return !huge(from) || huge(vma);
}

/** What mremap(2) makes longer in its place, as one area. */
function canGrow({ status, flags }: vma_entry): boolean {
  return (status & VMA_STATUS.ANON_PRIVATE) !== 0 &&
    (status & (VMA_STATUS.VDSO | VMA_STATUS.VVAR)) === 0 &&
    (flags & MAP.growsdown) === 0;
}

/** Neighbours in the child that are alike, but were one area in the parent. */
function wouldBecomeOne(a: KeptArea, b: KeptArea): boolean {
  return wouldMerge(a.vma, b.vma) &&
    (a.from === b.from || !wouldMerge(a.from, b.from));
}

/** The kernel maps [vvar] and [vdso] together: both are kept, or none. */
function withWholeVdso(kept: KeptArea[], parent: mm_entry): KeptArea[] {
  const special = kept.filter(({ vma, from }) =>
    (isVdso(vma) || isVvar(vma)) && vma.start === from.start &&
    vma.end === from.end
  );
  const all = parent.vmas.filter((vma) => isVdso(vma) || isVvar(vma)).length;
  const whole = special.length === 2 && all === 2;
  return kept.filter((area) =>
    !isVdso(area.vma) && !isVvar(area.vma) || whole && special.includes(area)
  );
}

/**
 * What has to go: between two areas that are kept, everything in one call,
 * but for the agent.
 */
function unmappedRanges(
  theirs: readonly vma_entry[],
  kept: readonly Range[],
  agent: Range,
): Range[] {
  const stay = [...kept, agent].sort((a, b) => a.start < b.start ? -1 : 1);
  return spans(difference(theirs, stay), stay);
}

/** Of each range without wanted pages the part with pages of the parent. */
function droppedRanges(
  got: readonly Range[],
  free: readonly Range[],
): Range[] {
  return spans(intersection(got, free), free);
}

/** Joins parts that follow each other, unless a mark ends between them. */
function spans(parts: readonly Range[], marks: readonly Range[]): Range[] {
  const found: { start: bigint; end: bigint }[] = [];
  let at = 0;
  for (const { start, end } of parts) {
    const before = at;
    while (at < marks.length && marks[at].end <= start) at++;
    const last = found.at(-1);
    if (last !== undefined && at === before) last.end = end;
    else found.push({ start, end });
  }
  return found;
}

/** Parts of what is stored, with their places in the page image. */
function located(
  parts: readonly Range[],
  stored: readonly StoredRange[],
): StoredRange[] {
  let at = 0;
  return parts.map(({ start, end }) => {
    while (stored[at].end <= start) at++;
    return { start, end, offset: stored[at].offset + start - stored[at].start };
  });
}

/**
 * Makes a forked child's memory what it is to be. Seals are for later
 * (sealMemory), as in the parent.
 */
export function inheritMemory(program: Program, input: InheritInput): void {
  const plan = planInheritance(input);
  const { kept, made, compared, filled } = plan;
  const ours = realAreas(input.mm);
  for (const { start, end } of plan.unmapped) {
    program.call(
      "munmap",
      [start, end - start],
      `unmapping ${start.toString(16)} of the parent`,
    );
  }
  for (const { vma, end } of kept) {
    if (end === vma.end) continue;
    program.call(
      "mremap",
      [vma.start, end - vma.start, vma.end - vma.start, 0],
      `growing ${nameOf(vma, input)}`,
    );
  }
  const written = areasWithPages(ours, joinedInOrder(compared, filled));
  const isMade = new Set(made);
  mapAreas(program, ours, isMade, written, input);
  for (const { start, end } of plan.unguarded) {
    program.call(
      "madvise",
      [start, end - start, MADV.guardRemove],
      `removing the guard pages ${start.toString(16)}`,
    );
  }
  for (const { start, end } of plan.dropped) {
    program.call(
      "madvise",
      [start, end - start, MADV.dontneed],
      `dropping pages of the parent at ${start.toString(16)}`,
    );
  }
  const protection = new Map([
    ...kept.map(({ vma, from }) => [vma, from.prot] as const),
    ...made.map((vma) => [vma, vma.prot] as const),
  ]);
  const writable = PROT.read | PROT.write;
  for (const vma of written) {
    const now = protection.get(vma)!;
    if ((now & writable) === writable) continue;
    protection.set(vma, vma.prot | writable);
    // What is made is made writable.
    if (!isMade.has(vma)) protect(program, vma, vma.prot | writable, input);
  }
  update(program, compared, input);
  fill(program, filled, input);
  for (const vma of ours) {
    if (protection.get(vma) !== vma.prot) {
      protect(program, vma, vma.prot, input);
    }
  }
  installGuards(program, plan.guarded);
  for (const vma of made) {
    if (!isVvar(vma) && !isVdso(vma)) advise(program, vma, input);
  }
  for (const area of kept) correctAdvice(program, area, input);
  lockAreas(program, ours, input);
}

function joinedInOrder(a: readonly Range[], b: readonly Range[]): Range[] {
  return [...a, ...b].sort((x, y) => x.start < y.start ? -1 : 1);
}

/** Bytes of the page image that are read at once to be compared. */
const SCRATCH = 64 * 1024;

/** Stores the pages that differ from what is there. */
function update(
  program: Program,
  ranges: readonly StoredRange[],
  { pagesFd }: InheritInput,
): void {
  if (ranges.length === 0) return;
  const scratch = program.reserve(SCRATCH);
  for (const { start, end, offset } of ranges) {
    program.call(
      "update",
      [pagesFd, start, end - start, offset, scratch, SCRATCH],
      `comparing memory at ${start.toString(16)}`,
    );
  }
}

/** Advice and the one that takes it back. */
const OPPOSITES = [
  [MADV.mergeable, MADV.unmergeable],
  [MADV.dontdump, MADV.dodump],
  [MADV.wipeonfork, MADV.keeponfork],
] as const;

/** Gives an inherited area its own advice and name. */
function correctAdvice(
  program: Program,
  { vma, from }: KeptArea,
  input: InheritInput,
): void {
  if (isVvar(vma) || isVdso(vma)) return;
  const has = (advice: number) => hasAdvice(vma, advice);
  const had = (advice: number) => hasAdvice(from, advice);
  const give = (advice: number) => adviseOne(program, vma, advice, input);
  // The kernel takes what a droppable area has by nature from nobody.
  if ((vma.flags & MAP.droppable) === 0) {
    for (const [advice, opposite] of OPPOSITES) {
      if (had(advice) && !has(advice)) give(opposite);
    }
  }
  const order = [MADV.random, MADV.sequential] as const;
  if (order.some((advice) => had(advice) && !has(advice))) give(MADV.normal);
  for (let advice = 0; advice < 64; advice++) {
    if (has(advice) && !had(advice)) give(advice);
  }
  const name = input.extensions.get(vma.start)?.name;
  if (name !== input.parent.extensions.get(from.start)?.name) {
    nameArea(program, vma, name, input);
  }
}
