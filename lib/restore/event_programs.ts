/** The last programs of a process: timers and signals. */
import type { Reason } from "../error.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import { restoreIntervalTimers } from "../task/interval_timers.ts";
import {
  restoreProcessSignals,
  restoreThreadSignals,
} from "../task/pending_signals.ts";
import { clockNow, restorePosixTimers } from "../task/posix_timers.ts";
import type { Host } from "./plan.ts";
import type { TaskImages } from "./task_images.ts";

export interface EventPrograms {
  /** One per thread, the leader first; may be empty. */
  programs: Program[];
  /** Timers that did not get their id. */
  wrongTimers: (outcome: Outcome) => Reason[];
}

const SIGCHLD = 17;
const SIGCONT = 18;
const SIGNAL_SET_BYTES = 8;
/** waitid(2). */
const P_PID = 1;
const WNOHANG = 1;
const WSTOPPED = 2;

/**
 * Timers and pending signals: last, because time runs and queues fill.
 *
 * @param stoppedChildren children whose stop the program has waited for
 * @param childrenChanged whether children of it have ended or stopped by now:
 * that they sent SIGCHLD is nothing the program shall see
 * @param continued whether it was stopped and let go on by now: SIGCONT is
 * nothing it shall see either
 */
export function eventProgram(
  images: TaskImages,
  host: Host,
  stoppedChildren: readonly number[],
  childrenChanged: boolean,
  continued: boolean,
): EventPrograms {
  const { pid, threads } = images;
  const task = threads[0].core.tc!;
  const programs = threads.map(() => new Program());
  const [leader] = programs;
  for (const child of stoppedChildren) {
    leader.call(
      "waitid",
      [P_PID, child, 0, WSTOPPED | WNOHANG, 0],
      `waiting for the stop of task ${child}`,
    );
  }
  const takeSignal = (signal: number, purpose: string, mayFail: boolean) =>
    leader.call(
      "rt_sigtimedwait",
      [
        leader.words([1n << BigInt(signal - 1)]),
        0,
        leader.words([0, 0]),
        SIGNAL_SET_BYTES,
      ],
      purpose,
      { mayFail },
    );
  if (childrenChanged) {
    takeSignal(SIGCHLD, "taking the signals of children", true);
  }
  if (continued) takeSignal(SIGCONT, "taking the signal to go on", false);
  const queues = [
    task.signals_s?.signals ?? [],
    ...threads.map(({ core }) => core.thread_core?.signals_p?.signals ?? []),
  ];
  const timers = restorePosixTimers(leader, task.timers?.posix ?? [], {
    exactIds: host.exactTimerIds,
    pid,
    now: clockNow,
    pending: queues,
  });
  const [shared, ...own] = timers.pending;
  restoreProcessSignals(leader, shared);
  own.forEach((signals, i) => restoreThreadSignals(programs[i], signals));
  if (task.timers !== undefined) restoreIntervalTimers(leader, task.timers);
  return { programs, wrongTimers: timers.wrongIds };
}
