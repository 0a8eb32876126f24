/** Flags of an open file that only fcntl(2) sets on what was not opened. */
import { type Program, type Purpose, textOf } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";

/** A command of fcntl(2). */
export const F_SETFL = 4;
/** What it sets on a socket or pipe; O_ASYNC comes with the owner, last. */
export const SETTABLE_FLAGS = O.APPEND | O.NONBLOCK | O.DIRECT | O.NOATIME;
/** O_ASYNC comes with the owner, last. */
const SETTABLE = O.APPEND | O.NONBLOCK | O.NOATIME;

/** @param made the flags it has already */
export function setOtherFlags(
  program: Program,
  fd: number,
  flags: number,
  what: Purpose,
  made: number = O.NONBLOCK,
): void {
  const wanted = flags & SETTABLE;
  if ((wanted & ~made) === 0) return;
  program.call(
    "fcntl",
    [fd, F_SETFL, wanted],
    () => `setting the flags of ${textOf(what)}`,
  );
}
