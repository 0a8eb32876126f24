/**
 * timerfd_create(2): a timer that is read, and `timerfd_entry`. As with POSIX
 * timers, the time that was left is kept, also of an absolute one: what is
 * absolute is set anew at the time it is then, and the time left.
 */
import { Program } from "../ffi/program.ts";
import { O, syscallBuffer1 } from "../ffi/syscall.ts";
import {
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type fown_entry,
  type timerfd_entry,
} from "../image/schema.gen.ts";
import { detail } from "./details.ts";
import type { Wanted } from "./make_descriptions.ts";
import { setOtherFlags } from "./other_flags.ts";
import type { TableProgram } from "./table_program.ts";

/** CLOCK_REALTIME_ALARM and CLOCK_BOOTTIME_ALARM tell no time everywhere. */
const CLOCK_OF_ALARM: ReadonlyMap<number, number> = new Map([[8, 0], [9, 7]]);

/** Times are nanoseconds. */
export interface Timerfd {
  readonly kind: "timerfd";
  readonly clock: number;
  /** Expiries that nobody has read yet. */
  readonly ticks: bigint;
  /** TFD_TIMER_*, as last given to timerfd_settime(2). */
  readonly settimeFlags: number;
  /** 0: it does not run. */
  readonly left: bigint;
  readonly interval: bigint;
}

const SECOND = 1_000_000_000n;
const ITIMERSPEC_BYTES = 32;
const TFD_TIMER_ABSTIME = 1;
const TFD_TIMER_CANCEL_ON_SET = 2;
/** _IOW('T', 0, __u64), linux/timerfd.h */
const TFD_IOC_SET_TICKS = 0x40085400;
const MOST_SECONDS = 2n ** 63n / SECOND;
/** CLOCK_REALTIME, MONOTONIC, BOOTTIME, REALTIME_ALARM, BOOTTIME_ALARM. */
const CLOCKS: ReadonlySet<number> = new Set([0, 1, 7, 8, 9]);

/** @param details of fdinfo (timerfd_show in fs/timerfd.c) */
export function parseTimerfd(details: readonly string[]): Timerfd {
  const time = (key: string) => {
    const [seconds, ns] = detail(details, key, /^\((\d+), (\d+)\)$/);
    return BigInt(seconds) * SECOND + BigInt(ns);
  };
  const [clock] = detail(details, "clockid: ", /^(\d+)$/);
  const [ticks] = detail(details, "ticks: ", /^(\d+)$/);
  const [flags] = detail(details, "settime flags: ", /^0([0-7]+)$/);
  return {
    kind: "timerfd",
    clock: Number(clock),
    ticks: BigInt(ticks),
    settimeFlags: parseInt(flags, 8),
    left: time("it_value: "),
    interval: time("it_interval: "),
  };
}

/**
 * Whether it has expired, and would run on once somebody reads: until then the
 * kernel neither counts on nor tells when it expired (timerfd_tmrproc).
 */
export function waitsForRead({ ticks, left, interval }: Timerfd): boolean {
  return ticks > 0n && left === 0n && interval > 0n;
}

/**
 * Lets the kernel count up the expiries of a timer that waits for a read, as
 * that would: timerfd_gettime(2) does, and takes none away.
 *
 * @param fd a descriptor of ckpt's own for it
 */
export function countExpiries(fd: number): void {
  const times = new Uint8Array(ITIMERSPEC_BYTES);
  syscallBuffer1("timerfd_gettime", BigInt(fd), times);
}

export function dumpTimerfd(
  id: number,
  { clock, ticks, settimeFlags, left, interval }: Timerfd,
  flags: number,
  fown: fown_entry,
): timerfd_entry {
  return {
    id,
    flags,
    fown,
    clockid: clock,
    ticks,
    settime_flags: settimeFlags,
    vsec: left / SECOND,
    vnsec: left % SECOND,
    isec: interval / SECOND,
    insec: interval % SECOND,
  };
}

/** What the kernel would not take; undefined: nothing. */
export function timerfdProblem(entry: timerfd_entry): string | undefined {
  const { clockid, settime_flags, vsec, vnsec, isec, insec } = entry;
  if (!CLOCKS.has(clockid)) {
    return `${clockid} is no clock of timerfd_create(2)`;
  }
  if (
    vnsec >= SECOND || insec >= SECOND || vsec > MOST_SECONDS ||
    isec > MOST_SECONDS
  ) {
    return `an interval of ${isec} s ${insec} ns with ${vsec} s ${vnsec} ns ` +
      "left is no valid time";
  }
  if ((settime_flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) !== 0) {
    return `0${settime_flags.toString(8)} are no flags of timerfd_settime(2)`;
  }
  return undefined;
}

/** Makes the timer; {@link armTimerfds} sets it. */
export function makeTimerfd(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
  { clockid }: timerfd_entry,
): void {
  const what = () => `descriptor ${fd}, a timerfd`;
  table.program.call(
    "timerfd_create",
    [clockid, O.CLOEXEC | (flags & O.NONBLOCK)],
    () => `making ${what()}`,
  );
  table.settle(fd, cloexec);
  setOtherFlags(table.program, fd, flags, what);
}

/**
 * Sets all timers, each by the first process that has it. The programs have to
 * run soon after this call, because time runs; and before credentials change:
 * alarm clocks need CAP_WAKE_ALARM.
 *
 * @param processes in the order of the tree
 * @param now the time of a clock at this moment
 * @returns programs by the pids of those who have something to do
 */
export function armTimerfds(
  processes: readonly {
    readonly pid: number;
    readonly descriptors: readonly fdinfo_entry[];
  }[],
  files: ReadonlyMap<number, file_entry>,
  now: (clock: number) => bigint,
): ReadonlyMap<number, Program> {
  const programs = new Map<number, Program>();
  const done = new Set<number>();
  for (const { pid, descriptors } of processes) {
    for (const { id, fd, type } of descriptors) {
      if (type !== fd_types.TIMERFD || done.has(id)) continue;
      done.add(id);
      const program = programs.get(pid) ?? new Program();
      programs.set(pid, program);
      arm(program, fd, files.get(id)!.tfd!, now);
    }
  }
  return programs;
}

function arm(
  program: Program,
  fd: number,
  { clockid, ticks, settime_flags, vsec, vnsec, isec, insec }: timerfd_entry,
  now: (clock: number) => bigint,
): void {
  const interval = isec * SECOND + insec;
  const left = vsec * SECOND + vnsec;
  // One that waited for a read (as CRIU writes it) runs on with a new round.
  const value = left === 0n && ticks > 0n ? interval : left;
  if (value !== 0n || interval !== 0n || settime_flags !== 0) {
    const absolute = (settime_flags & TFD_TIMER_ABSTIME) !== 0 && value !== 0n;
    const start = absolute
      ? now(CLOCK_OF_ALARM.get(clockid) ?? clockid) + value
      : value;
    program.call(
      "timerfd_settime",
      [
        fd,
        settime_flags,
        program.words([
          isec,
          insec,
          start / SECOND,
          start % SECOND,
        ]),
        0,
      ],
      () => `setting descriptor ${fd}, a timerfd`,
    );
  }
  if (ticks === 0n) return;
  program.call(
    "ioctl",
    [fd, TFD_IOC_SET_TICKS, program.words([ticks])],
    () => `setting the expiries of descriptor ${fd}, a timerfd`,
  );
}
