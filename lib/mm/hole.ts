/** Finds free address space for the agent while a task is rebuilt. Pure. */

export interface AddressRange {
  readonly start: number;
  readonly end: number;
}

/** Addresses below are kept free by vm.mmap_min_addr on usual hosts. */
export const LOWEST = 0x10000;
/** End of user space with four-level page tables (mm.rst of x86_64). */
export const HIGHEST = 0x7fff_ffff_f000;
/**
 * Kept free around the hole: a stack that grows down needs its guard gap (256
 * pages by default) below it.
 */
const MARGIN = 4 * 1024 * 1024;

/**
 * The lowest address of a hole of `length` bytes that touches none of the
 * ranges; undefined when there is none.
 */
export function findHole(
  taken: readonly AddressRange[],
  length: number,
): number | undefined {
  const sorted = [...taken].sort((a, b) => a.start - b.start);
  let free = LOWEST;
  for (const { start, end } of [...sorted, { start: HIGHEST, end: HIGHEST }]) {
    if (free + MARGIN + length + MARGIN <= Math.min(start, HIGHEST)) {
      return free + MARGIN;
    }
    free = Math.max(free, end);
  }
  return undefined;
}
