/**
 * POSIX timers: timer_create(2), timer_settime(2), timer_getoverrun(2), and
 * `posix_timer_entry`. Times are nanoseconds.
 *
 * What /proc/PID/timers tells (lib/proc/timers.ts) has no times; the task is
 * asked for those.
 */
import type { Reason } from "../error.ts";
import { EINVAL } from "../ffi/errno.ts";
import type { Data, Outcome, Program, Result } from "../ffi/program.ts";
import { syscall, syscallBuffer1, SyscallError } from "../ffi/syscall.ts";
import type { posix_timer_entry, siginfo_entry } from "../image/schema.gen.ts";
import type { PosixTimer } from "../proc/timers.ts";
import { pendingSignal, timerExpiry } from "./pending_signals.ts";

const SECOND = 1_000_000_000n;
const MILLISECOND = 1_000_000n;

const ITIMERSPEC_BYTES = 32;
const SIGEVENT_BYTES = 64;
const TIMESPEC_BYTES = 16;
const MASK_BYTES = 8;

const SIGEV_SIGNAL = 0;
const SIGEV_NONE = 1;
const SIGEV_THREAD = 2;
const SIGEV_THREAD_ID = 4;

const TIMER_ABSTIME = 1;
const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;
const CLOCK_PROCESS_CPUTIME_ID = 2;
const CLOCK_THREAD_CPUTIME_ID = 3;
const CLOCK_BOOTTIME = 7;
const CLOCK_REALTIME_ALARM = 8;
const CLOCK_BOOTTIME_ALARM = 9;
const CLOCK_TAI = 11;

const WALL_CLOCKS: readonly number[] = [
  CLOCK_REALTIME,
  CLOCK_MONOTONIC,
  CLOCK_BOOTTIME,
  CLOCK_REALTIME_ALARM,
  CLOCK_BOOTTIME_ALARM,
  CLOCK_TAI,
];

const PR_TIMER_CREATE_RESTORE_IDS = 77;
const RESTORE_IDS_OFF = 0;
const RESTORE_IDS_ON = 1;
const RESTORE_IDS_GET = 2;

const SIGKILL = 9;
const SIGSTOP = 19;
const LAST_SIGNAL = 64;
const MOST_SECONDS = 2n ** 63n / SECOND;
/** Ids that can be reached by creating and deleting one timer after another. */
const MOST_COUNTED_ID = 20_000;

/** Whether a clock runs on while the program does not. */
export function isWallClock(clock: number): boolean {
  return WALL_CLOCKS.includes(clock);
}

/**
 * What a negative clock id means (include/linux/posix-timers.h): the inverted
 * pid in the upper bits, then one bit for "a thread", two for the kind.
 */
interface CpuClock {
  /** 0: whoever created the timer. */
  pid: number;
  ofThread: boolean;
  /** The clock of a descriptor (a network card's, for example) instead. */
  ofDescriptor: boolean;
}

function cpuClock(id: number): CpuClock | undefined {
  if (id === CLOCK_PROCESS_CPUTIME_ID || id === CLOCK_THREAD_CPUTIME_ID) {
    const ofThread = id === CLOCK_THREAD_CPUTIME_ID;
    return { pid: 0, ofThread, ofDescriptor: false };
  }
  if (id >= 0) return undefined;
  return {
    pid: ~(id >> 3),
    ofThread: (id & 4) !== 0,
    ofDescriptor: (id & 7) === 3,
  };
}

/** A timer on the CPU clock of "the creating thread", whichever that was. */
function isOfCreatingThread(clock: number): boolean {
  const cpu = cpuClock(clock);
  return cpu !== undefined && cpu.ofThread && cpu.pid === 0;
}

/** The process a timer belongs to, as numbers of its own pid namespace. */
export interface TimerOwner {
  pid: number;
  tids: readonly number[];
}

function clockProblem(clock: number, owner: TimerOwner): string | undefined {
  const cpu = cpuClock(clock);
  if (cpu === undefined) {
    return isWallClock(clock) ? undefined : `clock ${clock} is not known`;
  }
  if (cpu.ofDescriptor) return "its clock is that of a device";
  if (cpu.pid === 0) return undefined;
  const own = cpu.ofThread
    ? owner.tids.includes(cpu.pid)
    : cpu.pid === owner.pid;
  return own ? undefined : `its clock is the CPU time of task ${cpu.pid}, ` +
    "which is another process";
}

/**
 * The timers that cannot be saved.
 *
 * @param timers from /proc/PID/timers
 */
export function timersThatCannotBeSaved(
  timers: readonly PosixTimer[],
  owner: TimerOwner,
): Reason[] {
  return timers.flatMap(({ id, clockId }) => {
    const why = clockProblem(clockId, owner);
    return why === undefined
      ? []
      : [{ object: `timer ${id} of task ${owner.pid}`, why }];
  });
}

/** What the process answered about its timers. */
export interface PosixTimerAnswers {
  /** Ascending by id. */
  timers: posix_timer_entry[];
  /** Timers that cannot be restored as they are. */
  reasons: Reason[];
}

/**
 * Asks for the times and overruns. The program has to run in the leader.
 *
 * @param timers from /proc/PID/timers
 * @param localTid the id of a thread, given as /proc numbers it, in the
 * task's own pid namespace
 */
export function askPosixTimers(
  program: Program,
  timers: readonly PosixTimer[],
  localTid: (tid: number) => number,
): (outcome: Outcome) => PosixTimerAnswers {
  const asked = timers.toSorted((a, b) => a.id - b.id).map((timer) => {
    const times = askTimes(program, timer.id);
    return {
      timer,
      times,
      again: isOfCreatingThread(timer.clockId)
        ? askTimes(program, timer.id)
        : undefined,
      overrun: program.call(
        "timer_getoverrun",
        [timer.id],
        `reading the overrun of timer ${timer.id}`,
      ),
    };
  });
  return (outcome) => ({
    timers: asked.map(({ timer, times, overrun }) =>
      entryOf(timer, outcome.data(times), outcome.result(overrun), localTid)
    ),
    reasons: asked.flatMap(({ timer, times, again }) => {
      if (again === undefined) return [];
      // The leader's CPU clock ran on between the two calls; that of a thread
      // that is stopped stood still.
      const first = left(outcome.data(times));
      return first === 0n || first !== left(outcome.data(again)) ? [] : [{
        object: `timer ${timer.id}`,
        why: "it measures the CPU time of a thread other than the first, and " +
          "the kernel does not tell of which",
      }];
    }),
  });
}

function askTimes(program: Program, id: number): Data {
  const place = program.reserve(ITIMERSPEC_BYTES);
  program.call("timer_gettime", [id, place], `reading timer ${id}`);
  return place;
}

function left(times: DataView): bigint {
  return times.getBigUint64(16, true) * SECOND + times.getBigUint64(24, true);
}

function entryOf(
  timer: PosixTimer,
  times: DataView,
  overrun: bigint,
  localTid: (tid: number) => number,
): posix_timer_entry {
  // A timer outlives the thread it notifies; then it notifies nobody.
  const orphan = timer.toThread && timer.target === 0;
  return {
    it_id: timer.id,
    clock_id: timer.clockId >>> 0,
    si_signo: timer.signal,
    it_sigev_notify: orphan ? SIGEV_NONE : timer.sigevNotify,
    sival_ptr: timer.value,
    overrun: Number(overrun),
    isec: times.getBigUint64(0, true),
    insec: times.getBigUint64(8, true),
    vsec: times.getBigUint64(16, true),
    vnsec: times.getBigUint64(24, true),
    notify_thread_id: timer.toThread && !orphan
      ? localTid(timer.target)
      : undefined,
  };
}

/**
 * A timer of which the kernel itself has told, and not the task.
 *
 * @param interval and what is left, in nanoseconds
 */
export function entryOfTimes(
  timer: PosixTimer,
  interval: bigint,
  left: bigint,
  overrun: bigint,
): posix_timer_entry {
  const times = new DataView(new ArrayBuffer(ITIMERSPEC_BYTES));
  [interval, left].forEach((time, i) => {
    times.setBigUint64(16 * i, time / SECOND, true);
    times.setBigUint64(16 * i + 8, time % SECOND, true);
  });
  return entryOf(timer, times, overrun, (tid) => tid);
}

/**
 * Whether this kernel creates a timer with a wanted id
 * (PR_TIMER_CREATE_RESTORE_IDS, since 6.15).
 */
export function canCreateTimersById(): boolean {
  try {
    syscall(
      "prctl",
      BigInt(PR_TIMER_CREATE_RESTORE_IDS),
      BigInt(RESTORE_IDS_GET),
    );
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.errno === EINVAL) return false;
    throw error;
  }
}

/** The time of a clock, as ckpt itself sees it. */
export function clockNow(clock: number): bigint {
  const time = new Uint8Array(TIMESPEC_BYTES);
  syscallBuffer1("clock_gettime", BigInt.asUintN(64, BigInt(clock)), time);
  const view = new DataView(time.buffer);
  return view.getBigInt64(0, true) * SECOND + view.getBigInt64(8, true);
}

/**
 * What of an image's timers cannot be restored.
 *
 * @param exactIds {@link canCreateTimersById}
 * @param object "core-12.img, entry 0, field tc.timers"
 */
export function posixTimerProblems(
  timers: readonly posix_timer_entry[],
  owner: TimerOwner,
  exactIds: boolean,
  object: string,
): Reason[] {
  const ids = new Set<number>();
  return timers.flatMap((timer, i) => {
    const why = problemOf(timer, owner, exactIds) ??
      (ids.has(timer.it_id)
        ? `there are two timers with the id ${timer.it_id}`
        : undefined);
    ids.add(timer.it_id);
    return why === undefined ? [] : [{ object: `${object}.posix[${i}]`, why }];
  });
}

function problemOf(
  timer: posix_timer_entry,
  owner: TimerOwner,
  exactIds: boolean,
): string | undefined {
  const { it_id, it_sigev_notify, si_signo, notify_thread_id } = timer;
  if (it_id > 0x7fff_ffff) return `${it_id} is no id of a timer`;
  if (!exactIds && it_id > MOST_COUNTED_ID) {
    return `the id ${it_id} cannot be had from this kernel, which hands out ` +
      "ids one by one; Linux 6.15 or later can";
  }
  if (
    timer.insec >= SECOND || timer.vnsec >= SECOND ||
    timer.isec > MOST_SECONDS || timer.vsec > MOST_SECONDS
  ) {
    return `an interval of ${timer.isec} s ${timer.insec} ns with ` +
      `${timer.vsec} s ${timer.vnsec} ns left is no valid time`;
  }
  switch (it_sigev_notify) {
    case SIGEV_NONE:
      break;
    case SIGEV_THREAD_ID:
      if (
        notify_thread_id === undefined || !owner.tids.includes(notify_thread_id)
      ) {
        return `it notifies thread ${notify_thread_id}, which is not in the ` +
          "image";
      }
      // falls through: a signal as well
    case SIGEV_SIGNAL:
    case SIGEV_THREAD:
      if (si_signo < 1 || si_signo > LAST_SIGNAL) {
        return `there is no signal ${si_signo}`;
      }
      break;
    default:
      return `${it_sigev_notify} is no known way of notification`;
  }
  return clockProblem(timer.clock_id | 0, owner);
}

export interface RestoreTimersOptions {
  /** {@link canCreateTimersById} */
  exactIds: boolean;
  /** The leader, which runs the program, in its own pid namespace. */
  pid: number;
  /**
   * The time of a clock as the task sees it, at the moment of this call;
   * {@link clockNow} unless the task is in another time namespace.
   */
  now: (clock: number) => bigint;
  /** All signals that will be queued: `signals_s`, and `signals_p` of each. */
  pending: readonly (readonly siginfo_entry[])[];
}

export interface RestoredTimers {
  /**
   * The queues without the signals that the timers have put there; to be given
   * to {@link restoreProcessSignals} and {@link restoreThreadSignals}.
   */
  pending: siginfo_entry[][];
  /** To be called once the program has run: the timers that got a wrong id. */
  wrongIds: (outcome: Outcome) => Reason[];
}

/**
 * Creates and arms the timers. Runs in the leader, once all threads are there,
 * with all signals blocked, before any signal is queued and before the
 * interval timers. The program has to run soon after this call: time left is
 * counted from the call where a timer has overruns, else from the moment it is
 * armed.
 *
 * @param timers without {@link posixTimerProblems}
 */
export function restorePosixTimers(
  program: Program,
  timers: readonly posix_timer_entry[],
  options: RestoreTimersOptions,
): RestoredTimers {
  if (timers.length === 0) {
    return {
      pending: options.pending.map((queue) => [...queue]),
      wrongIds: () => [],
    };
  }
  const created = createTimers(program, timers, options.exactIds);
  const kinds = timers.map((timer) => ({
    timer,
    start: startOf(timer, options),
  }));

  // Overruns are counted when an expiry is taken off the queue. First those
  // that were taken; nothing else may be in the queues then.
  const delivered = kinds.filter(({ start }) => start.kind === "delivered");
  for (const { timer, start } of delivered) arm(program, timer, start);
  if (delivered.length > 0) {
    sleepUntil(program, options.now(CLOCK_MONOTONIC) + DELIVERY_DELAY);
    for (const { timer } of delivered) takeExpiry(program, timer);
  }
  for (const { timer, start } of kinds) {
    if (start.kind !== "delivered") arm(program, timer, start);
  }

  const own = new Set(
    kinds.filter(({ start }) => start.kind === "pending")
      .map(({ timer }) => timer.it_id),
  );
  return {
    pending: options.pending.map((queue) =>
      queue.filter(({ siginfo }) => {
        const expiry = timerExpiry(siginfo);
        return expiry === undefined || !own.has(expiry.timerId);
      })
    ),
    wrongIds: (outcome) =>
      created.flatMap(({ id, place }) => {
        const got = outcome.data(place).getInt32(0, true);
        return got === id ? [] : [{
          object: `timer ${id}`,
          why: `the kernel gave it the id ${got}`,
        }];
      }),
  };
}

function createTimers(
  program: Program,
  timers: readonly posix_timer_entry[],
  exactIds: boolean,
): { id: number; place: Data }[] {
  const created: { id: number; place: Data }[] = [];
  const create = (id: number, timer?: posix_timer_entry): void => {
    const place = program.bytes(new Uint8Array(new Int32Array([id]).buffer));
    created.push({ id, place });
    program.call(
      "timer_create",
      [
        timer === undefined ? CLOCK_MONOTONIC : timer.clock_id | 0,
        program.bytes(sigevent(timer)),
        place,
      ],
      `creating timer ${id}`,
    );
    if (timer === undefined) {
      program.call("timer_delete", [id], `passing over timer ${id}`);
    }
  };

  const ascending = timers.toSorted((a, b) => a.it_id - b.it_id);
  if (exactIds) setRestoreIds(program, RESTORE_IDS_ON);
  let next = 0;
  for (const timer of ascending) {
    if (!exactIds) { while (next < timer.it_id) create(next++); }
    create(timer.it_id, timer);
    next = timer.it_id + 1;
  }
  if (exactIds) setRestoreIds(program, RESTORE_IDS_OFF);
  return created;
}

function setRestoreIds(program: Program, mode: number): void {
  program.call(
    "prctl",
    [PR_TIMER_CREATE_RESTORE_IDS, mode, 0, 0, 0],
    mode === RESTORE_IDS_ON
      ? "choosing the ids of timers"
      : "leaving the ids of timers to the kernel",
  );
}

/** struct sigevent: +0 value   +8 signal   +12 notify   +16 thread */
function sigevent(timer?: posix_timer_entry): Uint8Array {
  const view = new DataView(new ArrayBuffer(SIGEVENT_BYTES));
  view.setBigUint64(0, timer?.sival_ptr ?? 0n, true);
  view.setInt32(8, timer?.si_signo ?? 0, true);
  view.setInt32(12, timer?.it_sigev_notify ?? SIGEV_NONE, true);
  view.setInt32(16, timer?.notify_thread_id ?? 0, true);
  return new Uint8Array(view.buffer);
}

/**
 * How a timer is started:
 * - idle: not at all;
 * - relative: it expires after `value`;
 * - pending: at the time `value` in the past, so that it has an expiry in the
 *   queue and the kernel counts overruns from then until it is delivered;
 * - delivered: the same, but its expiry is taken off the queue at once, which
 *   leaves the overrun that timer_getoverrun(2) tells.
 */
type Start =
  | { kind: "idle" }
  | { kind: "relative" | "pending" | "delivered"; value: bigint };

/**
 * From the building of a program to its run. Taking an expiry waits for this,
 * so that the overrun depends only on how exactly a sleep ends.
 */
const DELIVERY_DELAY = 20n * MILLISECOND;
/**
 * A sleep ends no later than this on a busy host, or an overrun is counted one
 * too high. A timer that has less time left gets this much, at most half of
 * its interval.
 */
const LATEST_WAKEUP = 50n * MILLISECOND;

function startOf(
  timer: posix_timer_entry,
  { now, pid, pending }: RestoreTimersOptions,
): Start {
  const interval = timer.isec * SECOND + timer.insec;
  const value = timer.vsec * SECOND + timer.vnsec;
  if (value === 0n) return { kind: "idle" };
  const relative = { kind: "relative", value } as const;

  const { si_signo, it_sigev_notify, overrun } = timer;
  const clock = timer.clock_id | 0;
  if (
    interval === 0n || value > interval || !isWallClock(clock) ||
    it_sigev_notify === SIGEV_NONE || si_signo === SIGKILL ||
    si_signo === SIGSTOP
  ) {
    return relative;
  }

  const past = (expiries: bigint, left: bigint, at: bigint) =>
    at + left - expiries * interval;
  const waiting = pendingOverrun(timer, pending);
  if (waiting !== undefined) {
    const at = past(BigInt(waiting) + 1n, value, now(clock));
    return at > 0n ? { kind: "pending", value: at } : relative;
  }

  // Only the thread that is notified can take an expiry off its queue.
  const reachable = it_sigev_notify !== SIGEV_THREAD_ID ||
    timer.notify_thread_id === pid;
  if (overrun === 0 || !reachable) return relative;
  const least = min(LATEST_WAKEUP, interval / 2n);
  const at = past(
    BigInt(overrun) + 1n,
    value > least ? value : least,
    now(clock) + DELIVERY_DELAY,
  );
  return at > 0n ? { kind: "delivered", value: at } : relative;
}

/**
 * The overrun of the expiry that waits in a queue; undefined when there is
 * none, or when other signals of the same number are there too: then their
 * order is kept instead, and the expiry is queued like any signal.
 */
function pendingOverrun(
  timer: posix_timer_entry,
  pending: RestoreTimersOptions["pending"],
): number | undefined {
  let overrun: number | undefined;
  for (const queue of pending) {
    const same = queue.filter(({ siginfo }) =>
      pendingSignal(siginfo).signal === timer.si_signo
    );
    const expiries = same.map(({ siginfo }) => timerExpiry(siginfo))
      .filter((expiry) => expiry?.timerId === timer.it_id);
    if (expiries.length === 0) continue;
    if (same.length > 1 || overrun !== undefined) return undefined;
    overrun = Math.max(expiries[0]!.overrun, 0);
  }
  return overrun;
}

function min(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** Arms a timer, or leaves it as it was created. */
function arm(program: Program, timer: posix_timer_entry, start: Start): void {
  if (start.kind === "idle") return;
  armTimer(program, timer, start.value, start.kind !== "relative");
}

/**
 * @param value when it expires first
 * @param absolute `value` is a time of the timer's clock, else a duration
 */
export function armTimer(
  program: Program,
  { it_id, isec, insec }: posix_timer_entry,
  value: bigint,
  absolute: boolean,
): void {
  program.call(
    "timer_settime",
    [
      it_id,
      absolute ? TIMER_ABSTIME : 0,
      program.words([isec, insec, value / SECOND, value % SECOND]),
      0,
    ],
    `arming timer ${it_id}`,
  );
}

function sleepUntil(program: Program, time: bigint): void {
  program.call(
    "clock_nanosleep",
    [
      CLOCK_MONOTONIC,
      TIMER_ABSTIME,
      program.words([time / SECOND, time % SECOND]),
      0,
    ],
    "waiting for the expiry of timers",
  );
}

/** The expiry is there already; the second only spares a race with the clock. */
function takeExpiry(program: Program, timer: posix_timer_entry): Result {
  return program.call(
    "rt_sigtimedwait",
    [signalMask(program, timer.si_signo), 0, program.words([1, 0]), MASK_BYTES],
    `taking the expiry of timer ${timer.it_id} off the queue`,
  );
}

/** A set with one signal, in the program's data. */
export function signalMask(program: Program, signal: number): Data {
  return program.words([1n << BigInt(signal - 1)]);
}
