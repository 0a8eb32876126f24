/**
 * How a thread is scheduled: sched_setattr(2), sched_setaffinity(2).
 *
 *   struct sched_attr: +0 size   +4 policy   +8 flags   +16 nice
 *   +20 priority   +24 runtime   +32 deadline   +40 period
 *   +48 utilization min   +52 utilization max
 */
import type { Reason } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import { addressOf, syscall, syscallBuffer1 } from "../ffi/syscall.ts";
import type { Scheduling } from "../ffi/thread_state.ts";
import type {
  ckpt_thread_entry,
  thread_core_entry,
} from "../image/schema.gen.ts";

const ATTR_BYTES = 56;
/** As in c/lib/threads.c: 1024 processors. */
const AFFINITY_BYTES = 128;

const SCHED_FIFO = 1;
const SCHED_RR = 2;
const SCHED_DEADLINE = 6;
/** The greatest policy there is: SCHED_EXT. */
const LAST_POLICY = 7;

const PRIO_PROCESS = 0;

const FLAG_RESET_ON_FORK = 1n;
const FLAG_UTIL_CLAMP_MIN = 0x20n;
const FLAG_UTIL_CLAMP_MAX = 0x40n;
/** SCHED_RESET_ON_FORK, as the images and sched_setscheduler(2) have it. */
const RESET_ON_FORK = 0x40000000;

const FULL_UTILIZATION = 1024;

/** The kernel drops those that do not exist; 8192 is the most it can have. */
const ALL_PROCESSORS = new Uint8Array(8192 / 8).fill(0xff);

function isRealTime(policy: number): boolean {
  return policy === SCHED_FIFO || policy === SCHED_RR;
}

/** What a thread has here that never asked for anything. */
export interface StandardScheduling {
  /** Time slice in nanoseconds. */
  readonly runtime: bigint;
  /** The processors it may run on, as sched_getaffinity(2) gives them. */
  readonly affinity: Uint8Array;
}

/** As ckpt's own, but for the processors that it may have been bound to. */
export function readStandardScheduling(): StandardScheduling {
  const attr = new Uint8Array(ATTR_BYTES);
  syscallBuffer1("sched_getattr", 0n, attr, BigInt(ATTR_BYTES));
  const own = readAffinity();
  setAffinity(ALL_PROCESSORS);
  try {
    return {
      runtime: new DataView(attr.buffer).getBigUint64(24, true),
      affinity: readAffinity(),
    };
  } finally {
    setAffinity(own);
  }
}

function readAffinity(): Uint8Array<ArrayBuffer> {
  const cpus = new Uint8Array(AFFINITY_BYTES);
  const size = BigInt(AFFINITY_BYTES);
  const length = syscall("sched_getaffinity", 0n, size, addressOf(cpus));
  return cpus.slice(0, Number(length));
}

/** Of this thread; the kernel leaves out what its cgroup does not let it have. */
function setAffinity(cpus: Uint8Array<ArrayBuffer>): void {
  syscall("sched_setaffinity", 0n, BigInt(cpus.length), addressOf(cpus));
}

/** @param tid for the message */
export function schedulingProblems(
  { policy }: Scheduling,
  tid: number,
): Reason[] {
  if (policy <= LAST_POLICY && policy !== SCHED_DEADLINE) return [];
  return [{
    object: `thread ${tid}`,
    why: policy === SCHED_DEADLINE
      ? "it is scheduled by SCHED_DEADLINE, which cannot be saved: its " +
        "budget is not known to the outside"
      : `its scheduling policy ${policy} is not known`,
    remedy: "give it another policy for the time of the dump (chrt -o -p 0 " +
      `${tid})`,
  }];
}

/**
 * The part of a thread's scheduling that CRIU's format has. sched_getattr(2)
 * tells no nice value of a real-time thread; `nice` of /proc/TID/stat does.
 */
export function dumpScheduling(
  scheduling: Scheduling,
): Pick<thread_core_entry, "sched_policy" | "sched_nice" | "sched_prio"> {
  const { policy, flags, nice, priority } = scheduling;
  return {
    sched_policy: (flags & FLAG_RESET_ON_FORK) !== 0n
      ? policy | RESET_ON_FORK
      : policy,
    sched_nice: nice,
    sched_prio: isRealTime(policy) ? priority : 0,
  };
}

/**
 * The part that CRIU's format has not, as far as it is not the default.
 *
 * @param standard what a thread has that never asked for anything: the length
 * of its time slice is the scheduler's own
 */
export function dumpSchedulingExtension(
  { policy, runtime, utilMin, utilMax }: Scheduling,
  standard: Pick<Scheduling, "runtime">,
): Pick<
  ckpt_thread_entry,
  "utilization_min" | "utilization_max" | "time_slice_ns"
> {
  // A kernel without utilization clamping leaves both 0.
  const clamped = (utilMin !== 0 || utilMax !== FULL_UTILIZATION) &&
    (utilMin !== 0 || utilMax !== 0);
  const ownSlice = !isRealTime(policy) && runtime !== standard.runtime;
  return {
    utilization_min: clamped ? utilMin : undefined,
    utilization_max: clamped ? utilMax : undefined,
    time_slice_ns: ownSlice ? runtime : undefined,
  };
}

/**
 * The processors of a thread; undefined when it may run on all of them.
 *
 * @param affinity bit n of byte n/8 is processor n, as sched_getaffinity(2)
 * gives it
 * @param all the same of a thread that was never bound to any
 */
export function dumpAffinity(
  affinity: Uint8Array,
  all: Uint8Array,
): Uint8Array | undefined {
  const restricted = all.some((byte, i) => (byte & ~(affinity[i] ?? 0)) !== 0);
  return restricted ? withoutZeros(affinity) : undefined;
}

function withoutZeros(affinity: Uint8Array): Uint8Array {
  let length = affinity.length;
  while (length > 0 && affinity[length - 1] === 0) length--;
  return affinity.slice(0, length);
}

/** @param object "core-12.img, entry 0, field thread_core" */
export function schedulingImageProblems(
  { sched_policy = 0, sched_nice = 0, sched_prio = 0 }: thread_core_entry,
  object: string,
): Reason[] {
  const policy = sched_policy & ~RESET_ON_FORK;
  const problem = (field: string, why: string): Reason[] => [{
    object: `${object}.${field}`,
    why,
    remedy: "dump the program again; the image is damaged",
  }];
  if (policy < 0 || policy > LAST_POLICY || policy === SCHED_DEADLINE) {
    return problem("sched_policy", `the policy ${policy} cannot be restored`);
  }
  if (sched_nice < -20 || sched_nice > 19) {
    return problem("sched_nice", `${sched_nice} is no nice value`);
  }
  const valid = isRealTime(policy)
    ? sched_prio >= 1 && sched_prio <= 99
    : sched_prio === 0;
  return valid ? [] : problem(
    "sched_prio",
    `the priority ${sched_prio} does not go with policy ${policy}`,
  );
}

/**
 * Sets the scheduling of the thread that runs the program. As root, or with
 * CAP_SYS_NICE.
 *
 * @param core without {@link schedulingImageProblems}
 */
export function restoreScheduling(
  program: Program,
  core: thread_core_entry,
  extension: ckpt_thread_entry | undefined,
): void {
  const { sched_policy = 0, sched_nice = 0, sched_prio = 0 } = core;
  const { utilization_min, utilization_max, time_slice_ns } = extension ?? {};
  let flags = 0n;
  if ((sched_policy & RESET_ON_FORK) !== 0) flags |= FLAG_RESET_ON_FORK;
  if (utilization_min !== undefined) flags |= FLAG_UTIL_CLAMP_MIN;
  if (utilization_max !== undefined) flags |= FLAG_UTIL_CLAMP_MAX;

  const view = new DataView(new ArrayBuffer(ATTR_BYTES));
  view.setUint32(0, ATTR_BYTES, true);
  view.setUint32(4, sched_policy & ~RESET_ON_FORK, true);
  view.setBigUint64(8, flags, true);
  view.setInt32(16, sched_nice, true);
  view.setUint32(20, sched_prio, true);
  view.setBigUint64(24, time_slice_ns ?? 0n, true);
  view.setUint32(48, utilization_min ?? 0, true);
  view.setUint32(52, utilization_max ?? 0, true);
  program.call(
    "sched_setattr",
    [0, program.bytes(new Uint8Array(view.buffer)), 0],
    "setting the scheduling policy, priority and nice value",
  );

  // Only SCHED_OTHER and SCHED_BATCH take the nice value above; the others
  // keep it for the day their policy changes.
  program.call(
    "setpriority",
    [PRIO_PROCESS, 0, sched_nice],
    `setting the nice value ${sched_nice}`,
  );

  // A new agent has inherited the processors of ckpt, which may be fewer.
  const affinity = extension?.affinity ?? ALL_PROCESSORS;
  program.call(
    "sched_setaffinity",
    [0, affinity.length, program.bytes(affinity)],
    "setting the processors the thread may run on",
  );
}
