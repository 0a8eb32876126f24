/**
 * How often a timer has expired whose expiry waits in a queue. The kernel
 * counts that only when it delivers the expiry (`posixtimer_deliver_signal`),
 * and tells nobody before. So the expiry is taken off the queue, and then the
 * timer is armed at the time in the past from which the kernel counts the same
 * again and queues the expiry anew: the process is as it was.
 *
 * That takes two programs. The first leaves a copy of the expiry in the queue,
 * so that nothing is lost if ckpt ends between the two.
 */
import type { Outcome, Program } from "../ffi/program.ts";
import type { posix_timer_entry, siginfo_entry } from "../image/schema.gen.ts";
import {
  pendingSignal,
  SIGINFO_BYTES,
  timerExpiry,
} from "./pending_signals.ts";
import { armTimer, isWallClock, signalMask } from "./posix_timers.ts";

const SECOND = 1_000_000_000n;
const TIMESPEC_BYTES = 16;
const ITIMERSPEC_BYTES = 32;
const MASK_BYTES = 8;

const SIGEV_NONE = 1;
const SIGEV_THREAD_ID = 4;

/** Sending these removes others from the queues, or cannot be undone. */
const SIGKILL = 9;
const SIGCONT = 18;
const SIGTTOU = 22;

/** An expiry that was counted. */
export interface CountedExpiry {
  timer: posix_timer_entry;
  overrun: number;
  /** The first expiry that is counted, as a time of the timer's clock. */
  since: bigint;
}

/**
 * The periodic timers whose expiry can be counted: it waits for the process or
 * its leader, alone of its signal number, and the timer has no overrun to show
 * that would be lost.
 *
 * @param shared `signals_s`
 * @param leaders `signals_p` of the leader, whose id is `pid` in its own pid
 * namespace
 */
export function countableExpiries(
  timers: readonly posix_timer_entry[],
  shared: readonly siginfo_entry[],
  leaders: readonly siginfo_entry[],
  pid: number,
): posix_timer_entry[] {
  const all = [...shared, ...leaders];
  return timers.filter((timer) => {
    const { it_id, si_signo, it_sigev_notify, overrun } = timer;
    const waiting = all.filter(({ siginfo }) =>
      pendingSignal(siginfo).signal === si_signo
    );
    return waiting.length === 1 &&
      timerExpiry(waiting[0].siginfo)?.timerId === it_id &&
      (timer.isec !== 0n || timer.insec !== 0n) && overrun === 0 &&
      isWallClock(timer.clock_id | 0) && it_sigev_notify !== SIGEV_NONE &&
      (it_sigev_notify !== SIGEV_THREAD_ID || timer.notify_thread_id === pid) &&
      si_signo !== SIGKILL && (si_signo < SIGCONT || si_signo > SIGTTOU);
  });
}

/**
 * Takes the expiries, and queues copies. Runs in the leader, with all signals
 * blocked and the other threads stopped.
 *
 * @param timers from {@link countableExpiries}
 * @returns a reader of what was counted; an expiry is missing that the kernel
 * drops instead of delivering it, because its timer was armed anew since
 */
export function countExpiries(
  program: Program,
  timers: readonly posix_timer_entry[],
): (outcome: Outcome) => CountedExpiry[] {
  if (timers.length === 0) return () => [];
  const pid = program.call("getpid", [], "asking for the process id");
  const counted = timers.map((timer) => {
    const { it_id, si_signo, it_sigev_notify } = timer;
    const info = program.reserve(SIGINFO_BYTES);
    const now = program.reserve(TIMESPEC_BYTES);
    const times = program.reserve(ITIMERSPEC_BYTES);
    const taken = program.call(
      "rt_sigtimedwait",
      [signalMask(program, si_signo), info, program.words([0, 0]), MASK_BYTES],
      `taking the expiry of timer ${it_id}`,
      { mayFail: true },
    );
    // When nothing was taken, `taken` is no signal and this fails.
    if (it_sigev_notify === SIGEV_THREAD_ID) {
      program.call(
        "rt_tgsigqueueinfo",
        [pid, pid, taken, info],
        `queueing the expiry of timer ${it_id}`,
        { mayFail: true },
      );
    } else {
      program.call(
        "rt_sigqueueinfo",
        [pid, taken, info],
        `queueing the expiry of timer ${it_id}`,
        { mayFail: true },
      );
    }
    program.call(
      "clock_gettime",
      [timer.clock_id | 0, now],
      `reading the clock of timer ${it_id}`,
    );
    program.call("timer_gettime", [it_id, times], `reading timer ${it_id}`);
    return { timer, info, now, times, taken };
  });
  return (outcome) =>
    counted.filter(({ taken }) => outcome.result(taken) > 0n)
      .map(({ timer, info, now, times }) => {
        const overrun = outcome.data(info).getInt32(20, true);
        const next = duration(outcome.data(now), 0) +
          duration(outcome.data(times), 16);
        const interval = timer.isec * SECOND + timer.insec;
        return {
          timer,
          overrun,
          since: next - BigInt(overrun + 1) * interval,
        };
      });
}

function duration(view: DataView, at: number): bigint {
  return view.getBigInt64(at, true) * SECOND + view.getBigInt64(at + 8, true);
}

/**
 * Takes the copies away and lets the timers expire again, as they had. Follows
 * {@link countExpiries} at once, in the same task.
 */
export function returnExpiries(
  program: Program,
  expiries: readonly CountedExpiry[],
): void {
  for (const { timer, since } of expiries) {
    if (since <= 0n) continue; // the copy has to do
    program.call(
      "rt_sigtimedwait",
      [
        signalMask(program, timer.si_signo),
        0,
        program.words([0, 0]),
        MASK_BYTES,
      ],
      `taking the copied expiry of timer ${timer.it_id}`,
    );
    armTimer(program, timer, since, true);
  }
}

/** The queue with the counted overruns in it, as it goes into the image. */
export function withOverruns(
  queue: readonly siginfo_entry[],
  expiries: readonly CountedExpiry[],
): siginfo_entry[] {
  return queue.map((entry) => {
    const id = timerExpiry(entry.siginfo)?.timerId;
    const expiry = expiries.find(({ timer }) => timer.it_id === id);
    if (expiry === undefined) return entry;
    const siginfo = entry.siginfo.slice();
    new DataView(siginfo.buffer).setInt32(20, expiry.overrun, true);
    return { siginfo };
  });
}
