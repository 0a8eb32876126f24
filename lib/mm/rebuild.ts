/**
 * Writes the program that rebuilds an address space from inside: everything
 * but the agent is unmapped, then each area is mapped at its place, filled,
 * and given its final protection.
 */
import type { Argument, Program } from "../ffi/program.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { PROT } from "../proc/maps.ts";
import {
  advise,
  areasWithPages,
  guardRanges,
  installGuards,
  isVdso,
  isVvar,
  lockAreas,
  mapAreas,
  nameOf,
  protect,
  realAreas,
  type RebuildInput,
} from "./areas.ts";
import { isRing } from "./aio.ts";
import { isRingArea } from "./ring_areas.ts";
import type { AddressRange } from "./hole.ts";
import type { Range } from "./ranges.ts";
import { rangeOf, storedPages, type StoredRange } from "./stored_pages.ts";

export type { RebuildInput } from "./areas.ts";

/** End of what munmap(2) accepts: TASK_SIZE with four-level page tables. */
const TASK_END = 0x7fff_ffff_f000;

/** Unmaps all that the agent was started with, or got by fork. */
export function unmapAllBut(program: Program, agent: AddressRange): void {
  program.call("munmap", [0, agent.start], "unmapping the agent's start");
  program.call(
    "munmap",
    [agent.end, TASK_END - agent.end],
    "unmapping the agent's start",
  );
}

/**
 * Maps, fills and protects everything in `input.mm`, where nothing else is
 * mapped but the agent. Seals are for later ({@link sealMemory}).
 */
export function rebuildMemory(program: Program, input: RebuildInput): void {
  mapMemory(program, input);
  fill(program, pagesToFill(input), input);
  settleMemory(program, input);
}

/** The first part of {@link rebuildMemory}: areas, writable where filled. */
export function mapMemory(program: Program, input: RebuildInput): void {
  const real = realAreas(input.mm);
  mapAreas(program, real, new Set(real), filledAreas(real, input), input);
}

/** The second part: what is to be read to its place. */
export function pagesToFill({ mm, pages }: RebuildInput): StoredRange[] {
  // The kernel's own, and what is filled later.
  const others = mm.vmas.filter((vma) =>
    isVdso(vma) || isRing(vma) || isRingArea(vma)
  );
  return others.reduce(without, storedPages(pages));
}

/** The last part: protection, guards, advice, locks. */
export function settleMemory(program: Program, input: RebuildInput): void {
  const real = realAreas(input.mm);
  const written = filledAreas(real, input);
  const vdso = real.find(isVdso);
  for (const vma of real) {
    if (
      written.has(vma) && vma !== vdso &&
      vma.prot !== (vma.prot | PROT.read | PROT.write)
    ) protect(program, vma, vma.prot, input);
  }
  installGuards(program, guardRanges(input.mm));
  for (const vma of real) {
    // The kernel sets up vvar and vdso as they must be.
    if (!isVvar(vma) && !isVdso(vma)) advise(program, vma, input);
  }
  lockAreas(program, real, input);
}

function filledAreas(
  real: readonly vma_entry[],
  { pages }: RebuildInput,
): ReadonlySet<vma_entry> {
  return areasWithPages(real, pages.map(rangeOf));
}

/**
 * Seals what was sealed (mseal(2)). Only when no child is to be made by fork
 * any more: a child inherits seals, and could not change its memory.
 */
export function sealMemory(
  program: Program,
  input: Pick<RebuildInput, "mm" | "extensions" | "files">,
): void {
  for (const vma of realAreas(input.mm)) {
    if (!input.extensions.get(vma.start)?.sealed) continue;
    program.call(
      "mseal",
      [vma.start, vma.end - vma.start, 0],
      `sealing ${nameOf(vma, input)}`,
    );
  }
}

/** Stored pages that are not in a range, such as that of the vdso. */
function without(stored: readonly StoredRange[], except: Range): StoredRange[] {
  return stored.flatMap((range) =>
    range.end <= except.start || except.end <= range.start ? [range] : [
      { ...range, end: except.start },
      {
        start: except.end,
        end: range.end,
        offset: range.offset + except.end - range.start,
      },
    ].filter(({ start, end }) => start < end)
  );
}

/** Reads stored pages to their places. */
export function fill(
  program: Program,
  stored: readonly StoredRange[],
  { pagesFd }: { pagesFd: Argument },
): void {
  for (const { start, end, offset } of stored) {
    program.call(
      "pread64",
      [pagesFd, start, end - start, offset],
      `filling memory at ${start.toString(16)}`,
      { whole: true },
    );
  }
}
