/**
 * The text of /proc/locks. The kernel tells it when it has seen every processor
 * pause (locks_start in fs/locks.c takes a percpu_rwsem to write): some 10 ms,
 * but at once when it was asked a moment ago. So it is asked again and again,
 * beside JavaScript, until it was read of a program that stands still.
 */
import { library } from "../ffi/library.ts";
import { readSmallFile } from "../ffi/small_files.ts";
import { decodeText } from "../ffi/text.ts";

/**
 * Sees to it that {@link readLocks} need not wait.
 *
 * @returns ends that
 */
export function keepLocksReady(): Disposable {
  // A small view of bytes alone would be moved by the collector of garbage.
  const end = new Uint8Array(new ArrayBuffer(1));
  library("pages").ckpt_keep_locks_ready(end);
  return { [Symbol.dispose]: () => void (end[0] = 1) };
}

/** @throws SyscallError */
export function readLocks(): string {
  return decodeText(readSmallFile("/proc/locks"));
}
