/**
 * Where in the memory of a process an io_uring is that the program gave memory
 * for (IORING_SETUP_NO_MMAP): the kernel has it by its pages, and forgets the
 * address. The pages stay where they are, as long as the ring is there.
 */
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBuffer1,
} from "../ffi/syscall.ts";

const PAGE_SIZE = 4096n;
/** End of what a process can have mapped: TASK_SIZE. */
const TASK_END = 0x7fff_ffff_f000n;
/** PAGEMAP_SCAN and its categories, linux/fs.h. */
const PAGEMAP_SCAN = 0xc060_6610n;
const PRESENT_PAGES = 1n << 3n;
const MOST_REGIONS = 512;
const REGION_WORDS = 3;
/** An entry of pagemap (proc_pid_pagemap(5)). */
const FRAME = (1n << 55n) - 1n;

/**
 * @param frames numbers of the pages, in their order
 * @returns the address; undefined: the process has them not mapped so
 */
export function findFrames(
  pid: number,
  frames: readonly bigint[],
): bigint | undefined {
  const pagemap = open(`/proc/${pid}/pagemap`, O.RDONLY);
  try {
    for (const { start, end } of presentRegions(pagemap)) {
      const here = framesAt(pagemap, start, end);
      for (
        let at = here.indexOf(frames[0]);
        at >= 0;
        at = here.indexOf(frames[0], at + 1)
      ) {
        const address = start + BigInt(at) * PAGE_SIZE;
        const length = BigInt(frames.length) * PAGE_SIZE;
        const all = framesAt(pagemap, address, address + length);
        if (frames.every((frame, i) => all[i] === frame)) return address;
      }
    }
    return undefined;
  } finally {
    close(pagemap);
  }
}

function* presentRegions(
  pagemap: number,
): Generator<{ start: bigint; end: bigint }> {
  const regions = new BigUint64Array(MOST_REGIONS * REGION_WORDS);
  const vector = addressOf(new Uint8Array(regions.buffer));
  for (let from = 0n; from < TASK_END;) {
    // struct pm_scan_arg
    const scan = BigUint64Array.of(
      ...[96n, 0n, from, TASK_END, 0n, vector, BigInt(MOST_REGIONS), 0n],
      ...[0n, PRESENT_PAGES, 0n, PRESENT_PAGES],
    );
    const arg = addressOf(new Uint8Array(scan.buffer));
    const count = Number(syscall("ioctl", BigInt(pagemap), PAGEMAP_SCAN, arg));
    for (let i = 0; i < count; i++) {
      const [start, end] = regions.subarray(i * REGION_WORDS);
      yield { start, end };
    }
    if (count < MOST_REGIONS) return;
    from = scan[4];
  }
}

/** Those of pages that are not there are 0. */
function framesAt(pagemap: number, start: bigint, end: bigint): BigUint64Array {
  const entries = new BigUint64Array(Number((end - start) / PAGE_SIZE));
  const bytes = new Uint8Array(entries.buffer);
  const length = BigInt(bytes.length);
  const at = start / PAGE_SIZE * 8n;
  syscallBuffer1("pread64", BigInt(pagemap), bytes, length, at);
  return entries.map((entry) => entry & FRAME);
}
