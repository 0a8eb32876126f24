/** What a process does for an io_uring: io_uring_register(2) and others. */
import type { Argument, Program } from "../ffi/program.ts";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";

/** IORING_SETUP_*, linux/io_uring.h */
export const SETUP = {
  IOPOLL: 0x1,
  SQPOLL: 0x2,
  SQ_AFF: 0x4,
  CQSIZE: 0x8,
  CLAMP: 0x10,
  ATTACH_WQ: 0x20,
  R_DISABLED: 0x40,
  SUBMIT_ALL: 0x80,
  COOP_TASKRUN: 0x100,
  TASKRUN_FLAG: 0x200,
  SQE128: 0x400,
  CQE32: 0x800,
  SINGLE_ISSUER: 0x1000,
  DEFER_TASKRUN: 0x2000,
  NO_MMAP: 0x4000,
  NO_SQARRAY: 0x10000,
  HYBRID_IOPOLL: 0x20000,
  CQE_MIXED: 0x40000,
} as const;
/** Whether one thread alone may use it, from the moment it is enabled on. */
export function isBound({ flags }: Pick<ckpt_ring_entry, "flags">): boolean {
  return (flags & SETUP.SINGLE_ISSUER) !== 0 &&
    (flags & SETUP.R_DISABLED) === 0;
}

/** Whether its process has to make it: for its memory, or a thread in it. */
export function isMadeByProcess(
  { flags }: Pick<ckpt_ring_entry, "flags">,
): boolean {
  return (flags & (SETUP.SQPOLL | SETUP.NO_MMAP)) !== 0;
}

/** io_uring_register(2) */
const REGISTER = {
  buffers: 0,
  files: 2,
  eventfd: 4,
  eventfdAsync: 7,
} as const;

/** @param fd of the ring in the process */
export function registerAll(
  program: Program,
  fd: number,
  { files, buffers, eventfd, eventfd_async }: ckpt_ring_entry,
): void {
  const register = (what: number, data: Argument, count: number) =>
    program.call(
      "io_uring_register",
      [fd, what, data, count],
      `registering with the io_uring, descriptor ${fd}`,
    );
  if (files.length > 0) {
    const numbers = program.bytes(
      new Uint8Array(Int32Array.from(files).buffer),
    );
    register(REGISTER.files, numbers, files.length);
  }
  if (buffers.length > 0) {
    const vectors = program.words(
      buffers.flatMap(({ start, length }) => [start, BigInt(length)]),
    );
    register(REGISTER.buffers, vectors, buffers.length);
  }
  if (eventfd !== undefined) {
    const number = program.reserve(4);
    program.setInt32(number, 0, eventfd);
    register(
      eventfd_async ? REGISTER.eventfdAsync : REGISTER.eventfd,
      number,
      1,
    );
  }
}

/** IORING_ENTER_SQ_WAKEUP */
const WAKEUP = 2;

/**
 * The thread of the kernel may sleep where the program believes it awake. It
 * does nothing for a ring that is disabled.
 *
 * @param fd of the ring in the process
 */
export function wakePoller(program: Program, fd: number): void {
  program.call(
    "io_uring_enter",
    [fd, 0, 0, WAKEUP, 0, 0],
    "waking the thread of an io_uring",
    { mayFail: true },
  );
}
