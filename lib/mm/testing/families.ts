/** Random parents with children that have run on their own for a while. */
import type { pagemap_entry, vma_entry } from "../../image/schema.gen.ts";
import { isPrivate, VMA_STATUS } from "../../image/vma_status.ts";
import { hasAdvice, MADV, realAreas } from "../areas.ts";
import type { InheritInput } from "../inherit.ts";
import { joined, type Range } from "../ranges.ts";
import type { RebuildInput } from "../rebuild.ts";
import { MAP } from "../vma.ts";
import {
  area,
  isKernels,
  PAGE,
  pages,
  PAGES_FD,
  randomInput,
  storedAt,
} from "./layouts.ts";

export const CHILD_PAGES_FD = 91;

/** What is in a stored page: address -> any text. */
export type Contents = Map<bigint, string>;

export interface Family {
  parent: RebuildInput;
  child: InheritInput;
  parentPages: Contents;
  childPages: Contents;
  /** Pages that have to stay shared. */
  shared: Set<bigint>;
}

export function entriesOf(contents: Contents): pagemap_entry[] {
  const sorted = [...contents.keys()].sort((a, b) => a < b ? -1 : 1);
  return joined(sorted.map((at) => ({ start: at, end: at + PAGE })))
    .map(({ start, end }) => pages(start, (end - start) / PAGE));
}

/** A child that has run on its own for a while. */
export function randomFamily(
  random: () => number,
  makeParent: (random: () => number) => RebuildInput = randomInput,
): Family {
  const below = (n: number) => Math.floor(random() * n);
  const chance = (p: number) => random() < p;
  const parent = makeParent(random);
  const extensions = new Map(parent.extensions);
  const origin = new Map<vma_entry, vma_entry>();
  const vmas: vma_entry[] = [];
  const real = realAreas(parent.mm);
  const derive = (from: vma_entry, change: Partial<vma_entry>) => {
    const vma = { ...from, ...change };
    if ((vma.flags & MAP.anonymous) === 0 || vma.pgoff !== 0n) {
      vma.pgoff = from.pgoff + vma.start - from.start;
    }
    if ((vma.status & VMA_STATUS.FILE_SHARED) !== 0 && vma.fdflags === 0) {
      vma.prot &= ~2;
    }
    vmas.push(vma);
    origin.set(vma, from);
    return vma;
  };
  real.forEach((from, i) => {
    const next = real[i + 1]?.start ?? 1n << 46n;
    const length = (from.end - from.start) / PAGE;
    const part = PAGE * BigInt(below(Number(length)));
    const anonymous = (from.flags & MAP.anonymous) !== 0;
    if (isKernels(from)) return vmas.push({ ...from });
    switch (below(10)) {
      case 0: // munmap
        return;
      case 1: // munmap of the end
        if (part > 0n) derive(from, { end: from.start + part });
        return;
      case 2: // munmap of the beginning
        if (part > 0n) derive(from, { start: from.start + part });
        return;
      case 3: // mprotect of a part
        if (part === 0n) return derive(from, { prot: below(8) });
        derive(from, { end: from.start + part });
        return derive(from, {
          start: from.start + part,
          prot: chance(0.3) ? from.prot : below(8),
        });
      case 4: // growth
        return derive(from, {
          end: anonymous && next > from.end + 8n * PAGE &&
              (from.end < 0xf00_0000n || from.end > 0x1100_0000n)
            ? from.end + 2n * PAGE
            : from.end,
        });
      case 5: { // madvise
        if ((from.flags & MAP.droppable) !== 0) return derive(from, {});
        const madv = [1n, 10n, 12n, 14n, 16n, 18n].reduce(
          (all, advice) => chance(0.3) ? all | 1n << advice : all,
          0n,
        );
        if (!anonymous || (from.flags & MAP.shared) !== 0) {
          return derive(from, {
            madv: (madv & ~(1n << 12n | 1n << 18n)) || undefined,
          });
        }
        return derive(from, { madv: madv || undefined });
      }
      case 6: // munmap and mmap
        vmas.push(area(from.start, from.end, { prot: below(8) }));
        return;
      default:
        return derive(from, {
          flags: chance(0.1) && (from.flags & MAP.droppable) === 0
            ? from.flags ^ MAP.locked
            : from.flags,
        });
    }
  });
  for (const [start] of extensions) {
    const vma = vmas.find((vma) => vma.start === start);
    const anonymous = vma !== undefined && (vma.flags & MAP.anonymous) !== 0;
    if (!anonymous || chance(0.3)) {
      extensions.delete(start);
      continue;
    }
    if (chance(0.3)) extensions.set(start, { start, name: "another" });
  }
  const parentPages: Contents = new Map(
    [...storedAt(parent.pages, PAGES_FD).keys()].map((at) => [at, `p${at}`]),
  );
  const childPages: Contents = new Map();
  const guards: vma_entry[] = [];
  const theirGuards = parent.mm.vmas.filter(({ status }) =>
    (status & VMA_STATUS.GUARD) !== 0
  );
  const shared = new Set<bigint>();
  const inherited: Range[] = [];
  let last: vma_entry | undefined;
  for (const vma of vmas) {
    const from = origin.get(vma);
    const alike = last !== undefined && last.end === vma.start &&
      last.prot === vma.prot && last.flags === vma.flags;
    last = vma;
    if (!isPrivate(vma) || (vma.flags & MAP.droppable) !== 0) continue;
    if (isKernels(vma)) {
      for (let at = vma.start; at < vma.end; at += PAGE) {
        if (parentPages.has(at)) childPages.set(at, parentPages.get(at)!);
      }
      continue;
    }
    const got = from !== undefined && !hasAdvice(from, MADV.dontfork) &&
      !hasAdvice(from, MADV.wipeonfork);
    // The kernel gives pages of their own to those who lock them.
    const stays = got && !alike && (vma.flags & MAP.locked) === 0 &&
      (vma.start === from.start || vma.flags === from.flags) &&
      !((hasAdvice(from, 14) || hasAdvice(from, 15)) &&
        !(hasAdvice(vma, 14) || hasAdvice(vma, 15)));
    const changes = chance(0.3) ? 0 : 0.4;
    for (let at = vma.start; at < vma.end; at += PAGE) {
      const theirs = got ? parentPages.get(at) : undefined;
      if (theirs === undefined || chance(changes)) {
        if (chance(changes / 2)) childPages.set(at, `c${at}`);
        continue;
      }
      childPages.set(at, theirs);
      if (stays && at < from!.end) shared.add(at);
      if (chance(0.5)) inherited.push({ start: at, end: at + PAGE });
    }
    const anonymous = (vma.flags & MAP.anonymous) !== 0;
    for (let at = vma.start; at < vma.end && anonymous; at += PAGE) {
      if (childPages.has(at)) continue;
      const theirs = theirGuards.some(({ start, end }) =>
        start <= at && at < end
      );
      if (chance(theirs ? 0.6 : 0.05)) {
        guards.push(area(at, at + PAGE, { status: VMA_STATUS.GUARD }));
      }
    }
  }
  const entries = entriesOf(childPages);
  const child: InheritInput = {
    ...parent,
    mm: { ...parent.mm, vmas: [...vmas, ...guards] },
    pages: entries,
    pagesFd: CHILD_PAGES_FD,
    extensions,
    parent: {
      mm: parent.mm,
      pages: parent.pages,
      extensions: parent.extensions,
    },
    inherited: joined(inherited),
  };
  return { parent, child, parentPages, childPages, shared };
}
