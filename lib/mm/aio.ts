/**
 * Contexts of asynchronous I/O (io_setup(2)): each is a ring of events in the
 * memory of a process, and known by its address. A restore makes it, moves it
 * to its place (aio_ring_mremap in fs/aio.c), and lets as many requests come to
 * their end as it takes for the kernel to go on where it was.
 *
 *   +0   id (the kernel's) | slots | head | tail | magic | ...   32 bytes
 *   +32  events                                                  32 bytes each
 *
 * Which requests are under way the kernel tells nobody; they are lost.
 */
import type { Reason } from "../error.ts";
import type { Argument, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type {
  aio_ring_entry,
  mm_entry,
  vma_entry,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import type { Vma } from "./vma.ts";

const HEADER_BYTES = 32;
const EVENT_BYTES = 32;
const HEAD_AT = 8;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
/** struct iocb of linux/aio_abi.h. */
const IOCB_BYTES = 64;
const IOCB_FILE_AT = 20;

/** Where a ring is, as its header tells it, and where its page image has it. */
export interface RingState {
  readonly slots: number;
  readonly head: number;
  readonly tail: number;
  /** Bytes. */
  readonly offset: bigint;
}

export function isRing({ status }: Pick<vma_entry, "status">): boolean {
  return (status & VMA_STATUS.AIORING) !== 0;
}

export function ringAreas({ vmas }: Pick<mm_entry, "vmas">): vma_entry[] {
  return vmas.filter(isRing);
}

/**
 * The entries of mm_entry. For so many requests the kernel makes a ring of the
 * same length (ioctx_alloc and aio_setup_ring).
 */
export function describeRings(vmas: readonly vma_entry[]): aio_ring_entry[] {
  return vmas.filter(isRing).map(({ start, end }) => ({
    id: start,
    nr_req: (slotsOf(start, end) - 2) >> 1,
    ring_len: Number(end - start),
  }));
}

function slotsOf(start: bigint, end: bigint): number {
  return Math.floor((Number(end - start) - HEADER_BYTES) / EVENT_BYTES);
}

/** A process that was forked has the memory of a ring, but not the context. */
export function inheritedRings(
  processes: readonly {
    readonly pid: number;
    readonly vmas: { readonly vmas: readonly Vma[] };
  }[],
  memoryOf: (pid: number) => number,
): Reason[] {
  const first = new Map<bigint, number>();
  const reasons: Reason[] = [];
  for (const { pid, vmas: { vmas } } of processes) {
    for (const { entry, inode } of vmas) {
      if (!isRing(entry)) continue;
      const known = first.get(inode);
      if (known === undefined) first.set(inode, pid);
      else if (memoryOf(known) !== memoryOf(pid)) {
        reasons.push({
          object: `task ${pid}`,
          why: "it has got the ring of asynchronous I/O (AIO) of task " +
            `${known} by fork, which is not supported`,
        });
      }
    }
  }
  return reasons;
}

/** @param header the first bytes of a ring */
export function parseRing(header: Uint8Array, offset: bigint): RingState {
  const view = new DataView(header.buffer, header.byteOffset);
  return {
    slots: view.getUint32(4, true),
    head: view.getUint32(HEAD_AT, true),
    tail: view.getUint32(12, true),
    offset,
  };
}

/** What is wrong with a ring; undefined: nothing. */
export function ringProblem(
  { start, end }: vma_entry,
  { slots, head, tail }: RingState,
): string | undefined {
  return slots === slotsOf(start, end) && head < slots && tail < slots
    ? undefined
    : `it is no ring of asynchronous I/O: ${slots} slots, ${head} to ${tail}`;
}

/**
 * Makes the contexts. Only when no child is to be made by fork any more.
 *
 * @param pagesFd descriptor of the page image, in the agent
 */
export function restoreRings(
  program: Program,
  mm: mm_entry,
  states: ReadonlyMap<bigint, RingState>,
  pagesFd: Argument,
): void {
  if (mm.aios.length === 0) return;
  const nothing = program.call(
    "openat",
    [AT_FDCWD, program.text(encodeText("/dev/null")), O.RDONLY | O.CLOEXEC, 0],
    "opening /dev/null",
  );
  const request = program.reserve(IOCB_BYTES);
  program.call(
    "store",
    [program.at(request, IOCB_FILE_AT), nothing, 4],
    "preparing a request",
  );
  for (const ring of mm.aios) {
    restoreRing(program, ring, states.get(ring.id)!, request, pagesFd);
  }
  program.call("close", [nothing], "closing /dev/null");
  for (const { start, end, madv = 0n } of ringAreas(mm)) {
    for (let advice = 0; advice < 64; advice++) {
      if ((madv >> BigInt(advice) & 1n) === 0n) continue;
      program.call(
        "madvise",
        [start, end - start, advice],
        `advising on the ring at ${start.toString(16)}`,
      );
    }
  }
}

function restoreRing(
  program: Program,
  { id, nr_req, ring_len }: aio_ring_entry,
  { slots, head, tail, offset }: RingState,
  request: ReturnType<Program["reserve"]>,
  pagesFd: Argument,
): void {
  const what = `the ring of asynchronous I/O at ${id.toString(16)}`;
  const context = program.reserve(8);
  program.call("io_setup", [nr_req, context], `making ${what}`);
  const address = program.call("load", [context], `making ${what}`);
  program.call(
    "mremap",
    [address, ring_len, ring_len, MREMAP_MAYMOVE | MREMAP_FIXED, id],
    `moving ${what}`,
  );
  // Each processor keeps a part of the free slots for itself.
  const most = Math.max(1, (slots - 1) >> 3);
  const requests = program.words(
    Array.from({ length: Math.min(most, tail) }, () => request),
  );
  for (let done = 0; done < tail;) {
    const some = Math.min(most, tail - done);
    program.call("io_submit", [id, some, requests], `advancing ${what}`);
    done += some;
    program.call("store", [id + BigInt(HEAD_AT), done, 4], `advancing ${what}`);
  }
  program.call(
    "pread64",
    [
      pagesFd,
      id + BigInt(HEADER_BYTES),
      ring_len - HEADER_BYTES,
      offset + BigInt(HEADER_BYTES),
    ],
    `filling ${what}`,
    { whole: true },
  );
  program.call("store", [id + BigInt(HEAD_AT), head, 4], `filling ${what}`);
}
