/**
 * The text of /proc/locks. The kernel tells it when it has seen every processor
 * pause (locks_start in fs/locks.c takes a percpu_rwsem to write): some 10 ms,
 * but at once when it was asked a moment ago. So it is asked beside JavaScript
 * first, and again when the program stands still.
 */
import { readSmallFile } from "../ffi/small_files.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscallBeside,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";

const PATH = "/proc/locks";
/** Here, so that it stays while it is read into. */
const FIRST_BYTE = new Uint8Array(1);

/** Has the kernel wait now, while something else is done. */
export async function expectLocks(): Promise<void> {
  let fd: number | undefined;
  try {
    fd = open(PATH, O.RDONLY);
    await syscallBeside("read", BigInt(fd), addressOf(FIRST_BYTE), 1n);
  } catch (error) {
    // Who reads it will say so.
    if (!(error instanceof SyscallError)) throw error;
  } finally {
    if (fd !== undefined) close(fd);
  }
}

/** @throws SyscallError */
export function readLocks(): string {
  return decodeText(readSmallFile(PATH));
}
