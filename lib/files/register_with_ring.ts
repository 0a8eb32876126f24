/** What a process registers with an io_uring (io_uring_register(2)). */
import type { Argument, Program } from "../ffi/program.ts";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";

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
