/**
 * ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF: getitimer(2), setitimer(2).
 *
 *   struct itimerval: +0 interval   +8 interval us   +16 value   +24 value us
 */
import type { Reason } from "../error.ts";
import type { Outcome, Program } from "../ffi/program.ts";
import type { itimer_entry, task_timers_entry } from "../image/schema.gen.ts";

export type IntervalTimers = Pick<
  task_timers_entry,
  "real" | "virt" | "prof"
>;

/** Numbers of getitimer(2), with a name for errors. */
const TIMERS = [
  { field: "real", which: 0, name: "ITIMER_REAL" },
  { field: "virt", which: 1, name: "ITIMER_VIRTUAL" },
  { field: "prof", which: 2, name: "ITIMER_PROF" },
] as const;

const ITIMERVAL_BYTES = 32;
const MICROSECONDS = 1_000_000n;
/** What fits into the kernel's signed time_t. */
const MOST_SECONDS = 2n ** 63n - 1n;

/** Asks for all three; the time left is that of this moment. */
export function askIntervalTimers(
  program: Program,
): (outcome: Outcome) => IntervalTimers {
  const places = TIMERS.map(({ which, name }) => {
    const place = program.reserve(ITIMERVAL_BYTES);
    program.call("getitimer", [which, place], `reading ${name}`);
    return place;
  });
  return (outcome) => {
    const [real, virt, prof] = places.map((place): itimer_entry => {
      const view = outcome.data(place);
      return {
        isec: view.getBigUint64(0, true),
        iusec: view.getBigUint64(8, true),
        vsec: view.getBigUint64(16, true),
        vusec: view.getBigUint64(24, true),
      };
    });
    return { real, virt, prof };
  };
}

/** @param object "core-12.img, entry 0, field tc.timers" */
export function intervalTimerProblems(
  timers: IntervalTimers,
  object: string,
): Reason[] {
  return TIMERS.flatMap(({ field }) => {
    const { isec, iusec, vsec, vusec } = timers[field];
    const bad = iusec >= MICROSECONDS || vusec >= MICROSECONDS ||
      isec > MOST_SECONDS || vsec > MOST_SECONDS;
    return bad
      ? [{
        object: `${object}.${field}`,
        why: `an interval of ${isec} s ${iusec} us with ${vsec} s ${vusec} ` +
          "us left is no valid time",
        remedy: "dump the program again; the image is damaged",
      }]
      : [];
  });
}

/**
 * Arms the timers; a new agent has none armed.
 *
 * A timer with an interval and no time left has expired, and its signal is
 * still pending: the kernel starts the next period when that is delivered,
 * but setitimer(2) cannot say so. It is armed with its interval.
 *
 * @param timers without {@link intervalTimerProblems}
 */
export function restoreIntervalTimers(
  program: Program,
  timers: IntervalTimers,
): void {
  for (const { field, which, name } of TIMERS) {
    const { isec, iusec, vsec, vusec } = timers[field];
    const noneLeft = vsec === 0n && vusec === 0n;
    if (noneLeft && isec === 0n && iusec === 0n) continue;
    const value = noneLeft ? [isec, iusec] : [vsec, vusec];
    program.call(
      "setitimer",
      [which, program.words([isec, iusec, ...value]), 0],
      `arming ${name}`,
    );
  }
}
