/** Flags of an open file that only fcntl(2) sets on what was not opened. */
import type { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";

const F_SETFL = 4;
/** O_ASYNC comes with the owner, last. */
const SETTABLE = O.APPEND | O.NONBLOCK | O.NOATIME;

/** @param made the flags it has already */
export function setOtherFlags(
  program: Program,
  fd: number,
  flags: number,
  what: string,
  made: number = O.NONBLOCK,
): void {
  const wanted = flags & SETTABLE;
  if ((wanted & ~made) === 0) return;
  program.call("fcntl", [fd, F_SETFL, wanted], `setting the flags of ${what}`);
}
