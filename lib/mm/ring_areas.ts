/**
 * Areas that show an io_uring (io_uring(7)) or the rings of a packet socket
 * (packet(7)): memory of the kernel, shared by all that map the same file.
 * `shmid` is the id of the file.
 */
import { CkptError, EXIT } from "../error.ts";
import type { Argument, Program } from "../ffi/program.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import type { StoredRange } from "./stored_pages.ts";
import { HIGHEST, LOWEST } from "./hole.ts";
import { difference, joined, type Range } from "./ranges.ts";
import { MAP } from "./vma.ts";

export function isRingArea({ status }: Pick<vma_entry, "status">): boolean {
  return (status & VMA_STATUS.IO_URING) !== 0;
}

/**
 * Free address space, in parts of at least `length` bytes.
 *
 * @param taken in any order
 */
export function freeRanges(taken: readonly Range[], length: bigint): Range[] {
  const sorted = taken.toSorted((a, b) => a.start < b.start ? -1 : 1);
  const all = { start: BigInt(LOWEST), end: BigInt(HIGHEST) };
  return difference([all], joined(sorted))
    .filter(({ start, end }) => end - start >= length);
}

/**
 * Maps rings where they were, and fills them: only when no child is to be made
 * by fork any more, and descriptors are in their places. The kernel does not
 * let anybody say where it maps a ring (io_uring_get_unmapped_area in
 * io_uring/memmap.c), nor move it: so it gets one place to choose from.
 *
 * @param areas of rings; @param taken all other areas, and the agent
 * @param numbers of the descriptors of rings, by the ids of their files
 * @param pagesFd descriptor of the page image, in the agent
 * @param isFilled whether it is this process that fills an area
 */
export function mapRings(
  program: Program,
  areas: readonly vma_entry[],
  taken: readonly Range[],
  numbers: ReadonlyMap<number, number>,
  stored: readonly StoredRange[],
  pagesFd: Argument,
  isFilled: (area: vma_entry) => boolean,
): void {
  const lengths = areas.map(({ start, end }) => end - start);
  const least = lengths.reduce((least, one) => one < least ? one : least);
  const reserved = freeRanges([...taken, ...areas], least);
  for (const { start, end } of [...reserved, ...areas]) {
    program.call(
      "mmap",
      [start, end - start, 0, RESERVED, -1, 0],
      "reserving what is no place for an io_uring",
    );
  }
  for (const area of areas) {
    const { start, end, prot, pgoff, shmid, madv } = area;
    const what = `the io_uring at ${start.toString(16)}`;
    program.call("munmap", [start, end - start], `making room for ${what}`);
    program.call(
      "mmap",
      [0, end - start, prot, MAP.shared, numbers.get(Number(shmid))!, pgoff],
      `mapping ${what}`,
    );
    const from = pgoff === OFF_SQES ? start : start + COUNTED_BYTES;
    if (isFilled(area)) fill(program, { start: from, end }, stored, pagesFd);
    advise(program, { start, end, madv }, what);
  }
  // A thread of the kernel may take requests as soon as it sees them.
  const counted = new Set<bigint>();
  for (const { start, shmid, pgoff } of areas.filter(isFilled)) {
    if (pgoff === OFF_SQES || counted.has(shmid)) continue;
    counted.add(shmid);
    const end = start + COUNTED_BYTES;
    fill(program, { start, end }, stored, pagesFd);
  }
  for (const { start, end } of reserved) {
    program.call("munmap", [start, end - start], "giving free what was kept");
  }
}

/** IORING_OFF_SQES, where the requests are; elsewhere is all else. */
const OFF_SQES = 0x1000_0000n;
/** How far requests were put and taken, at the beginning (struct io_rings). */
const COUNTED_BYTES = 128n;

function fill(
  program: Program,
  { start, end }: Range,
  stored: readonly StoredRange[],
  pagesFd: Argument,
): void {
  for (const range of stored) {
    const from = range.start > start ? range.start : start;
    const to = range.end < end ? range.end : end;
    if (from >= to) continue;
    program.call(
      "pread64",
      [pagesFd, from, to - from, range.offset + from - range.start],
      `filling the io_uring at ${start.toString(16)}`,
      { whole: true },
    );
  }
}

function advise(
  program: Program,
  { start, end, madv = 0n }: Pick<vma_entry, "start" | "end" | "madv">,
  what: string,
): void {
  for (let advice = 0; advice < 64; advice++) {
    if ((madv >> BigInt(advice) & 1n) === 0n) continue;
    program.call("madvise", [start, end - start, advice], `advising ${what}`);
  }
}

/**
 * Maps the rings of packet sockets, which have their content already.
 *
 * @param numbers of the descriptors of the sockets, by the ids of their files
 */
export function mapPacketRings(
  program: Program,
  areas: readonly vma_entry[],
  numbers: ReadonlyMap<number, number>,
): void {
  for (const area of areas) {
    const { start, end, prot, shmid } = area;
    const what = `the rings of a packet socket at ${start.toString(16)}`;
    const number = numbers.get(Number(shmid));
    if (number === undefined) {
      throw new CkptError(EXIT.image, `mapping ${what}`, [{
        object: `files.img, id ${shmid}`,
        why: "the process has no descriptor of it",
      }]);
    }
    program.call(
      "mmap",
      [
        ...[start, end - start, prot, MAP.shared | MAP.fixedNoreplace],
        ...[number, 0],
      ],
      `mapping ${what}`,
    );
    advise(program, area, what);
  }
}

const RESERVED = MAP.private | MAP.anonymous | MAP.noreserve |
  MAP.fixedNoreplace;
