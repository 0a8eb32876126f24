/**
 * What belongs to one thread and fits in no other file: its name, the address
 * cleared at its end, the robust list, the parent-death signal, the timer
 * slack, the I/O priority, and the modes of prctl(2) and arch_prctl(2).
 *
 * Most of it only the thread itself can tell. {@link THREAD_QUESTIONS} says
 * which calls it has to make, however they are made.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import type { OwnCall, Scratch } from "../ffi/call_code.ts";
import { describeErrno } from "../ffi/errno.ts";
import type { Outcome, Program } from "../ffi/program.ts";
import { syscall } from "../ffi/syscall.ts";
import type {
  ckpt_thread_entry,
  thread_core_entry,
  thread_sas_entry,
} from "../image/schema.gen.ts";
import { encodeText } from "../ffi/text.ts";
import {
  ALTERNATE_STACK_BYTES,
  parseAlternateStack,
} from "./alternate_stack.ts";

const PR_SET_PDEATHSIG = 1;
const PR_GET_PDEATHSIG = 2;
const PR_SET_NAME = 15;
const PR_GET_TSC = 25;
const PR_SET_TSC = 26;
const PR_GET_SECUREBITS = 27;
const PR_SET_TIMERSLACK = 29;
const PR_MCE_KILL = 33;
const PR_MCE_KILL_SET = 1;
const PR_MCE_KILL_GET = 34;
const PR_GET_TID_ADDRESS = 40;
const PR_GET_SPECULATION_CTRL = 52;
const PR_SET_SPECULATION_CTRL = 53;
const PR_SET_IO_FLUSHER = 57;
const ARCH_GET_CPUID = 0x1011;
const ARCH_SET_CPUID = 0x1012;
const IOPRIO_WHO_PROCESS = 1;

const PR_TSC_ENABLE = 1;
const PR_MCE_KILL_DEFAULT = 2;
/** PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE (include/linux/sched.h). */
const IO_FLUSHER_FLAGS = 0x0018_0000;
/** TASK_COMM_LEN without the terminator. */
const NAME_BYTES = 15;
const LAST_SIGNAL = 64;
/** init_task's, which all inherit. */
const DEFAULT_TIMER_SLACK_NS = 50_000n;

/** PR_SPEC_*: which misfeature, and the states of each. */
const SPECULATION = [
  { field: "speculation_store_bypass", which: 0, standard: 2 },
  { field: "speculation_indirect_branch", which: 1, standard: 2 },
  { field: "speculation_l1d_flush", which: 2, standard: 4 },
] as const;
/** The state can be set by prctl(2). */
const PR_SPEC_PRCTL = 1;

interface Question extends OwnCall {
  /** For errors: what is asked for. */
  readonly about: string;
  /** Not every kernel or processor has it. */
  readonly mayFail?: boolean;
}

const TID_ADDRESS: Scratch = { scratch: 32 };
const DEATH_SIGNAL: Scratch = { scratch: 40 };
const TSC_MODE: Scratch = { scratch: 44 };
const MEMORY_POLICY: Scratch = { scratch: 48 };
const SCRATCH_BYTES = 64;

/** Results are looked up by the position in this list. */
const QUESTIONS: readonly Question[] = [
  {
    name: "sigaltstack",
    args: [0, { scratch: 0 }],
    about: "the alternate signal stack",
  },
  {
    name: "prctl",
    args: [PR_GET_TID_ADDRESS, TID_ADDRESS],
    about: "the address cleared at its end",
  },
  {
    name: "prctl",
    args: [PR_GET_PDEATHSIG, DEATH_SIGNAL],
    about: "the parent-death signal",
  },
  { name: "prctl", args: [PR_GET_TSC, TSC_MODE], about: "the TSC mode" },
  { name: "prctl", args: [PR_GET_SECUREBITS], about: "the securebits" },
  { name: "arch_prctl", args: [ARCH_GET_CPUID, 0], about: "the CPUID mode" },
  {
    name: "prctl",
    args: [PR_MCE_KILL_GET, 0, 0, 0, 0],
    about: "the machine check policy",
  },
  ...SPECULATION.map(({ which }) => ({
    name: "prctl" as const,
    args: [PR_GET_SPECULATION_CTRL, which, 0, 0, 0],
    about: "the speculation control",
    mayFail: true,
  })),
  {
    name: "get_mempolicy",
    args: [MEMORY_POLICY, 0, 0, 0, 0],
    about: "the memory policy",
    mayFail: true, // a kernel without NUMA
  },
];
const SECUREBITS = 4;
const CPUID = 5;
const MACHINE_CHECK = 6;
const FIRST_SPECULATION = 7;

/** What a thread told about itself. */
export interface ThreadAnswers {
  readonly alternateStack: thread_sas_entry;
  /** set_tid_address(2); 0n: none. */
  readonly tidAddress: bigint;
  /** 0: none. */
  readonly parentDeathSignal: number;
  readonly securebits: number;
  /** PR_TSC_ENABLE or PR_TSC_SIGSEGV. */
  readonly tscMode: number;
  readonly cpuidForbidden: boolean;
  /** PR_MCE_KILL_LATE, _EARLY or _DEFAULT. */
  readonly machineCheckKill: number;
  /** PR_SPEC_* of each misfeature; undefined where the kernel knows none. */
  readonly speculation: readonly (number | undefined)[];
  /** MPOL_* of set_mempolicy(2), with its flags; 0: the default. */
  readonly memoryPolicy: number;
}

/** System calls for a thread to make, and what their results mean. */
export interface ThreadQuestions {
  /** Their arguments may name the thread's scratch space. */
  readonly calls: readonly OwnCall[];
  readonly scratchLength: number;
  /**
   * @param results of the calls, in order; negative is a -errno
   * @param scratch the scratch space after the calls
   * @throws CkptError naming what could not be read
   */
  read(results: readonly bigint[], scratch: DataView): ThreadAnswers;
}

/** The questions to a thread that makes the calls without an agent. */
export const THREAD_QUESTIONS: ThreadQuestions = {
  calls: QUESTIONS,
  scratchLength: SCRATCH_BYTES,
  read: readAnswers,
};

/** The same questions to the thread that runs a program. */
export function askThread(
  program: Program,
): (outcome: Outcome) => ThreadAnswers {
  const space = program.reserve(SCRATCH_BYTES);
  const results = QUESTIONS.map(({ name, args, about, mayFail }) =>
    program.call(
      name,
      args.map((argument) =>
        typeof argument === "object"
          ? { data: space.data + argument.scratch, length: 0 }
          : argument
      ),
      `reading ${about}`,
      { mayFail },
    )
  );
  return (outcome) =>
    readAnswers(
      results.map((result) => outcome.result(result)),
      outcome.data(space),
    );
}

function readAnswers(
  results: readonly bigint[],
  scratch: DataView,
): ThreadAnswers {
  const failed: Reason[] = QUESTIONS.flatMap(({ about, mayFail }, i) =>
    results[i] < 0n && !mayFail
      ? [{ object: about, why: describeErrno(Number(results[i])) }]
      : []
  );
  if (failed.length > 0) {
    throw new CkptError(EXIT.failed, "asking a thread", failed);
  }
  return {
    alternateStack: parseAlternateStack(
      new DataView(scratch.buffer, scratch.byteOffset, ALTERNATE_STACK_BYTES),
    ),
    tidAddress: scratch.getBigUint64(TID_ADDRESS.scratch, true),
    parentDeathSignal: scratch.getInt32(DEATH_SIGNAL.scratch, true),
    securebits: Number(results[SECUREBITS]),
    tscMode: scratch.getInt32(TSC_MODE.scratch, true),
    cpuidForbidden: results[CPUID] === 0n,
    machineCheckKill: Number(results[MACHINE_CHECK]),
    speculation: SPECULATION.map((_, i) => {
      const state = results[FIRST_SPECULATION + i];
      return state < 0n ? undefined : Number(state);
    }),
    memoryPolicy: scratch.getInt32(MEMORY_POLICY.scratch, true),
  };
}

/** What of the answers cannot be saved. */
export function threadAnswerProblems(
  { memoryPolicy }: ThreadAnswers,
  tid: number,
): Reason[] {
  return memoryPolicy === 0 ? [] : [{
    object: `thread ${tid}`,
    why: "it has a memory policy of its own (set_mempolicy), which is not " +
      "supported yet",
  }];
}

/** What is read of a thread from the outside. */
export interface ThreadReadings {
  tid: number;
  /** /proc/TID/timerslack_ns. */
  timerSlackNs: bigint;
  /** {@link readIoPriority} */
  ioPriority: number;
  /** `flags` of /proc/TID/stat. */
  taskFlags: number;
}

/** ioprio_get(2) of a thread: class in the bits above 13, then data. */
export function readIoPriority(tid: number): number {
  return Number(syscall("ioprio_get", BigInt(IOPRIO_WHO_PROCESS), BigInt(tid)));
}

/**
 * What CRIU's format has no field for, as far as it is not the default. The
 * caller adds affinity, registers and system call dispatch.
 */
export function dumpThreadExtension(
  answers: ThreadAnswers,
  readings: ThreadReadings,
): ckpt_thread_entry {
  const entry: ckpt_thread_entry = { tid: readings.tid };
  const { timerSlackNs, ioPriority, taskFlags } = readings;
  // Real-time threads have none.
  if (timerSlackNs !== DEFAULT_TIMER_SLACK_NS && timerSlackNs !== 0n) {
    entry.timer_slack_ns = timerSlackNs;
  }
  if (ioPriority !== 0) entry.io_priority = ioPriority;
  if ((taskFlags & IO_FLUSHER_FLAGS) === IO_FLUSHER_FLAGS) {
    entry.io_flusher = true;
  }
  if (answers.tscMode !== PR_TSC_ENABLE) entry.tsc_mode = answers.tscMode;
  if (answers.cpuidForbidden) entry.cpuid_forbidden = true;
  if (answers.machineCheckKill !== PR_MCE_KILL_DEFAULT) {
    entry.machine_check_kill = answers.machineCheckKill;
  }
  SPECULATION.forEach(({ field, standard }, i) => {
    const state = answers.speculation[i];
    if (state === undefined || (state & PR_SPEC_PRCTL) === 0) return;
    const control = state & ~PR_SPEC_PRCTL;
    if (control !== standard) entry[field] = control;
  });
  return entry;
}

/** Names the thread that runs the program. @param comm at most 15 bytes count */
export function restoreThreadName(program: Program, comm: string): void {
  const bytes = encodeText(comm).subarray(0, NAME_BYTES);
  program.call(
    "prctl",
    [PR_SET_NAME, program.text(bytes)],
    `naming the thread ${JSON.stringify(comm)}`,
  );
}

/** set_tid_address(2): the kernel clears and wakes it when the thread ends. */
export function restoreTidAddress(program: Program, address: bigint): void {
  program.call(
    "set_tid_address",
    [address],
    `setting the address cleared at its end to 0x${address.toString(16)}`,
  );
}

/** set_robust_list(2); a length of 0 is none. */
export function restoreRobustList(
  program: Program,
  { futex_rla, futex_rla_len }: thread_core_entry,
): void {
  if (futex_rla_len === 0) return;
  program.call(
    "set_robust_list",
    [futex_rla, futex_rla_len],
    `setting the robust list to 0x${futex_rla.toString(16)}`,
  );
}

/**
 * PR_SET_PDEATHSIG. Has to come after the credentials, a change of which
 * clears it (`commit_creds` in kernel/cred.c).
 */
export function restoreParentDeathSignal(
  program: Program,
  { pdeath_sig = 0 }: thread_core_entry,
): void {
  if (pdeath_sig === 0) return;
  program.call(
    "prctl",
    [PR_SET_PDEATHSIG, pdeath_sig],
    `setting the parent-death signal to ${pdeath_sig}`,
  );
}

/** @param object "core-12.img, entry 0, field thread_core" */
export function threadAttributeProblems(
  { pdeath_sig = 0 }: thread_core_entry,
  object: string,
): Reason[] {
  return pdeath_sig >= 0 && pdeath_sig <= LAST_SIGNAL ? [] : [{
    object: `${object}.pdeath_sig`,
    why: `there is no signal ${pdeath_sig}`,
    remedy: "dump the program again; the image is damaged",
  }];
}

/**
 * Sets what {@link dumpThreadExtension} saved, in the thread that runs the
 * program. Comes before {@link restoreScheduling}: a real-time thread has no
 * timer slack to set. Needs root's capabilities still.
 *
 * @param extension undefined: all defaults
 */
export function restoreThreadExtension(
  program: Program,
  extension: ckpt_thread_entry | undefined,
): void {
  // What a new agent inherits from ckpt is set even to its default.
  program.call(
    "prctl",
    [PR_SET_TIMERSLACK, extension?.timer_slack_ns ?? DEFAULT_TIMER_SLACK_NS],
    "setting the timer slack",
  );
  program.call(
    "ioprio_set",
    [IOPRIO_WHO_PROCESS, 0, extension?.io_priority ?? 0],
    "setting the I/O priority",
  );
  program.call(
    "prctl",
    [
      PR_MCE_KILL,
      PR_MCE_KILL_SET,
      extension?.machine_check_kill ?? PR_MCE_KILL_DEFAULT,
      0,
      0,
    ],
    "setting the machine check policy",
  );
  if (extension === undefined) return;

  if (extension.io_flusher) {
    program.call(
      "prctl",
      [PR_SET_IO_FLUSHER, 1, 0, 0, 0],
      "marking the thread as one that flushes I/O",
    );
  }
  if (extension.tsc_mode !== undefined) {
    program.call(
      "prctl",
      [PR_SET_TSC, extension.tsc_mode],
      "setting the TSC mode",
    );
  }
  for (const { field, which } of SPECULATION) {
    const control = extension[field];
    if (control === undefined) continue;
    program.call(
      "prctl",
      [PR_SET_SPECULATION_CTRL, which, control, 0, 0],
      `setting the speculation control ${which}`,
    );
  }
  if (extension.cpuid_forbidden) {
    program.call(
      "arch_prctl",
      [ARCH_SET_CPUID, 0],
      "forbidding the CPUID instruction",
    );
  }
}

/**
 * The system call user dispatch as PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG
 * (0x4210) takes it (struct ptrace_sud_config: mode, selector, offset, len).
 * The tracer sets it last of all: from then on system calls of the agent are
 * dispatched too.
 *
 * @returns undefined when it is off
 */
export function syscallUserDispatch(
  { sud_mode = 0n, sud_selector = 0n, sud_offset = 0n, sud_len = 0n }:
    ckpt_thread_entry,
): Uint8Array<ArrayBuffer> | undefined {
  if (sud_mode === 0n) return undefined;
  return new Uint8Array(
    new BigUint64Array([sud_mode, sud_selector, sud_offset, sud_len]).buffer,
  );
}
