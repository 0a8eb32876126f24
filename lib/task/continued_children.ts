/**
 * Children that SIGCONT has let go on after a stop, and whose parent has not
 * been told yet by wait(2) with WCONTINUED: SIGNAL_STOP_CONTINUED in the kernel.
 * Only the parent can see it.
 */
import type { Outcome, Program } from "../ffi/program.ts";

/** waitid(2). */
const P_PID = 1;
const WNOHANG = 0x1;
const WCONTINUED = 0x8;
const WNOWAIT = 0x1000000;
/** Also children that tell of their end by another signal than SIGCHLD. */
const WALL = 0x40000000;

/** What is written of struct siginfo_t; si_pid is at +16. */
const SIGINFO_BYTES = 32;
const SI_PID = 16;

/**
 * Asks the parent, which is told again when it asks itself.
 *
 * @param children of the process that runs the program
 * @returns those of them that have gone on
 */
export function askContinuedChildren(
  program: Program,
  children: readonly number[],
): (outcome: Outcome) => number[] {
  const places = children.map((child) => {
    const place = program.reserve(SIGINFO_BYTES);
    program.call(
      "waitid",
      [P_PID, child, place, WCONTINUED | WNOHANG | WNOWAIT | WALL, 0],
      `asking whether task ${child} has gone on`,
      { mayFail: true }, // a child that somebody else took by now
    );
    return place;
  });
  return (outcome) =>
    children.filter((child, i) =>
      outcome.data(places[i]).getInt32(SI_PID, true) === child
    );
}
