/** Checks the core images of tasks and threads. */

import { imageName } from "../kinds.ts";
import {
  type core_entry,
  core_entry_march,
  type itimer_entry,
  seccomp_mode,
  type signal_queue_entry,
  type task_core_entry,
  type task_timers_entry,
  type thread_core_entry,
  type thread_info_x86,
} from "../schema.gen.ts";
import type { Findings } from "./findings.ts";
import { TASK_STATE, type TreeTask } from "./tree.ts";

const SIGINFO_SIZE = 128;
const SIGACTIONS = 62;
const LAST_SIGNAL = 64;

/** Notes something about a field of the entry at hand. */
type Wrong = (field: string, why: string) => void;

export function checkCores(findings: Findings, tasks: TreeTask[]): void {
  const cgroupSets = knownCgroupSets(findings);
  const filters = checkSeccomp(findings);
  for (const task of tasks) {
    const { pid, threads } = task.entry;
    const leader = findings.read("core", pid);
    if (leader === undefined) continue;
    const wrong = wrongIn(findings, pid);
    checkMachine(wrong, leader);
    if (leader.tc === undefined) wrong("tc", "is missing");
    else checkTask(wrong, leader.tc, task);
    if (task.dead) continue;
    const ended = findings.read("ckpt-task", pid)?.ended_leader !== undefined;
    for (const tid of threads) {
      const core = tid === pid ? leader : findings.require("core", tid);
      if (core === undefined) continue;
      const wrong = wrongIn(findings, tid);
      if (tid !== pid) checkOtherThread(wrong, core);
      checkThread(wrong, core, ended && tid === pid, cgroupSets, filters);
    }
  }
}

function wrongIn(findings: Findings, tid: number): Wrong {
  const file = imageName("core", tid);
  return (field, why) => findings.add(file, 0, field, why);
}

function checkMachine(wrong: Wrong, core: core_entry): void {
  if (core.mtype !== core_entry_march.X86_64) {
    wrong("mtype", `is ${core.mtype}: not of this machine, x86_64`);
  }
}

function checkOtherThread(wrong: Wrong, core: core_entry): void {
  checkMachine(wrong, core);
  if (core.tc) wrong("tc", "belongs to the leader, not to another thread");
  if (core.ids) wrong("ids", "belongs to the leader, not to another thread");
}

// ---------------------------------------------------------------- process

function checkTask(wrong: Wrong, tc: task_core_entry, task: TreeTask): void {
  const states: readonly number[] = Object.values(TASK_STATE);
  if (!states.includes(tc.task_state)) {
    wrong("tc.task_state", `is ${tc.task_state}, not alive, dead or stopped`);
  }
  if (task.dead) {
    if (!isFinalStatus(tc.exit_code)) {
      wrong("tc.exit_code", `0x${tc.exit_code.toString(16)} is no wait status`);
    }
    return;
  }
  if (tc.timers === undefined) wrong("tc.timers", "is missing");
  else checkTimers(wrong, tc.timers, task.entry.threads);
  if (tc.rlimits === undefined) wrong("tc.rlimits", "is missing");
  else if (tc.rlimits.rlimits.length > 16) {
    wrong("tc.rlimits.rlimits", "has more than 16 elements");
  }
  if (tc.sigactions.length !== SIGACTIONS) {
    wrong("tc.sigactions", `has ${tc.sigactions.length} elements, not 62`);
  }
  checkSignals(wrong, "tc.signals_s", tc.signals_s);
  const { oom_score_adj = 0, stop_signo } = tc;
  if (Math.abs(oom_score_adj) > 1000) {
    wrong("tc.oom_score_adj", `${oom_score_adj} is beyond 1000`);
  }
  const stopped = tc.task_state === TASK_STATE.stopped;
  if (stopped && stop_signo !== undefined && !STOPPING.has(stop_signo)) {
    wrong("tc.stop_signo", `signal ${stop_signo} stops no process`);
  }
}

/** SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU. */
const STOPPING: ReadonlySet<number> = new Set([19, 20, 21, 22]);
/** SIGCHLD, SIGCONT, SIGURG, SIGWINCH: their default action is nothing. */
const HARMLESS: ReadonlySet<number> = new Set([17, 18, 23, 28]);

/** Whether wait(2) can give such a status of a process that has ended. */
function isFinalStatus(status: number): boolean {
  const signal = status & 0x7f;
  // Either the low byte of exit(2), or a signal and the mark of a core file.
  if (signal === 0) return (status & ~0xff00) === 0;
  return status < 0x100 && signal <= LAST_SIGNAL &&
    !STOPPING.has(signal) && !HARMLESS.has(signal);
}

function checkTimers(
  wrong: Wrong,
  timers: task_timers_entry,
  threads: number[],
): void {
  for (const name of ["real", "virt", "prof"] as const) {
    const { iusec, vusec }: itimer_entry = timers[name];
    if (iusec >= 1_000_000n || vusec >= 1_000_000n) {
      wrong(`tc.timers.${name}`, "has a million microseconds or more");
    }
  }
  const ids = new Set<number>();
  timers.posix.forEach((timer, i) => {
    const field = `tc.timers.posix[${i}]`;
    if (timer.insec >= 1_000_000_000n || timer.vnsec >= 1_000_000_000n) {
      wrong(field, "has a thousand million nanoseconds or more");
    }
    if (timer.it_id > 0x7fffffff || ids.has(timer.it_id)) {
      wrong(`${field}.it_id`, `${timer.it_id} is there twice, or no timer id`);
    }
    ids.add(timer.it_id);
    if (timer.si_signo > LAST_SIGNAL) {
      wrong(`${field}.si_signo`, `${timer.si_signo} is no signal`);
    }
    // SIGEV_SIGNAL, SIGEV_NONE, SIGEV_THREAD_ID of sigevent(3type).
    if (![0, 1, 4].includes(timer.it_sigev_notify)) {
      wrong(`${field}.it_sigev_notify`, `${timer.it_sigev_notify} is unknown`);
    }
    const { notify_thread_id } = timer;
    if (
      timer.it_sigev_notify === 4 &&
      (notify_thread_id === undefined || !threads.includes(notify_thread_id))
    ) {
      wrong(
        `${field}.notify_thread_id`,
        `${notify_thread_id} is no thread of the process`,
      );
    }
  });
}

function checkSignals(
  wrong: Wrong,
  field: string,
  queue: signal_queue_entry | undefined,
): void {
  queue?.signals.forEach(({ siginfo }, i) => {
    if (siginfo.length === SIGINFO_SIZE) return;
    wrong(`${field}.signals[${i}]`, `is ${siginfo.length} bytes, not 128`);
  });
}

// ---------------------------------------------------------------- thread

function checkThread(
  wrong: Wrong,
  core: core_entry,
  ended: boolean,
  cgroupSets: Set<number>,
  filters: number,
): void {
  if (core.thread_info !== undefined) checkRegisters(wrong, core.thread_info);
  else if (!ended) wrong("thread_info", "is missing");
  const thread = core.thread_core;
  if (thread === undefined) {
    wrong("thread_core", "is missing");
    return;
  }
  checkSignals(wrong, "thread_core.signals_p", thread.signals_p);
  checkScheduling(wrong, thread);
  checkCredentials(wrong, thread);
  // The size of struct robust_list_head, 64-bit or 32-bit; 0 for none.
  if (![0, 12, 24].includes(thread.futex_rla_len)) {
    wrong(
      "thread_core.futex_rla_len",
      `${thread.futex_rla_len} is not the size of a list head`,
    );
  }
  const { pdeath_sig = 0, cg_set = 0, rseq_entry, sas } = thread;
  if (pdeath_sig > LAST_SIGNAL) {
    wrong("thread_core.pdeath_sig", `${pdeath_sig} is no signal`);
  }
  if (cg_set !== 0 && !cgroupSets.has(cg_set)) {
    wrong("thread_core.cg_set", `${cg_set} is not in cgroup.img`);
  }
  if (rseq_entry !== undefined && rseq_entry.rseq_abi_pointer !== 0n) {
    const { rseq_abi_pointer, rseq_abi_size } = rseq_entry;
    if (rseq_abi_size < 32 || rseq_abi_pointer % 32n !== 0n) {
      wrong("thread_core.rseq_entry", "is smaller than 32 bytes or unaligned");
    }
  }
  if (sas !== undefined && (sas.ss_flags & ~0x80000003) !== 0) {
    wrong("thread_core.sas.ss_flags", `${sas.ss_flags} is unknown`);
  }
  if (thread.seccomp_mode === seccomp_mode.filter) {
    const { seccomp_filter = 0 } = thread;
    if (seccomp_filter >= filters) {
      wrong(
        "thread_core.seccomp_filter",
        `${seccomp_filter}, but seccomp.img has ${filters} filters`,
      );
    }
  } else if (thread.seccomp_mode !== undefined && thread.seccomp_mode > 2) {
    wrong("thread_core.seccomp_mode", `${thread.seccomp_mode} is unknown`);
  }
}

const SCHED_RESET_ON_FORK = 0x40000000;

function checkScheduling(wrong: Wrong, thread: thread_core_entry): void {
  const { sched_nice = 0, sched_policy = 0, sched_prio = 0 } = thread;
  if (sched_nice < -20 || sched_nice > 19) {
    wrong("thread_core.sched_nice", `${sched_nice} is not within -20 to 19`);
  }
  const policy = sched_policy & ~SCHED_RESET_ON_FORK;
  // OTHER, FIFO, RR, BATCH, IDLE, DEADLINE, EXT of include/uapi/linux/sched.h.
  if (![0, 1, 2, 3, 5, 6, 7].includes(policy)) {
    wrong("thread_core.sched_policy", `${sched_policy} is unknown`);
  }
  const realtime = policy === 1 || policy === 2;
  const fits = realtime
    ? sched_prio >= 1 && sched_prio <= 99
    : sched_prio === 0;
  if (!fits) {
    wrong(
      "thread_core.sched_prio",
      `${sched_prio} does not fit policy ${policy}`,
    );
  }
}

function checkCredentials(wrong: Wrong, thread: thread_core_entry): void {
  const { creds } = thread;
  if (creds === undefined) {
    wrong("thread_core.creds", "is missing");
    return;
  }
  for (
    const set of [
      "cap_inh",
      "cap_prm",
      "cap_eff",
      "cap_bnd",
      "cap_amb",
    ] as const
  ) {
    const { length } = creds[set];
    if (length !== 0 && length !== 2) {
      wrong(`thread_core.creds.${set}`, `has ${length} words, not 2`);
    }
  }
}

/** How many elements each register array needs when it is there at all. */
const XSAVE_ELEMENTS = {
  ymmh_space: 64,
  bndreg_state: 8,
  bndcsr_state: 8,
  opmask_reg: 8,
  zmm_upper: 64,
  hi16_zmm: 128,
  pkru: 2,
} as const;

function checkRegisters(wrong: Wrong, info: thread_info_x86): void {
  const { gpregs: { cs }, fpregs } = info;
  // __USER_CS and __USER32_CS; with any other the task dies at once.
  if (cs !== 0x33n && cs !== 0x23n) {
    wrong("thread_info.gpregs.cs", `0x${cs.toString(16)} is no user segment`);
  }
  const tooFew = (name: string, count: number, least: number) =>
    wrong(`thread_info.fpregs.${name}`, `has ${count} of ${least} elements`);
  const { st_space, xmm_space, xsave } = fpregs;
  if (st_space.length < 32) tooFew("st_space", st_space.length, 32);
  if (xmm_space.length < 64) tooFew("xmm_space", xmm_space.length, 64);
  if (xsave === undefined) return;
  for (const [name, least] of Object.entries(XSAVE_ELEMENTS)) {
    const { length } = xsave[name as keyof typeof XSAVE_ELEMENTS];
    if (length > 0 && length < least) tooFew(`xsave.${name}`, length, least);
  }
}

// ---------------------------------------------------------------- shared

/** The sets a thread may name: those of cgroup.img, and the dumper's. */
function knownCgroupSets(findings: Findings): Set<number> {
  const sets = findings.read("cgroup", undefined)?.sets ?? [];
  const known = new Set(sets.map((set) => set.id));
  const { root_cg_set } = findings.set.inventory;
  if (root_cg_set !== undefined) known.add(root_cg_set);
  return known;
}

/** @returns how many filters there are */
function checkSeccomp(findings: Findings): number {
  const filters = findings.read("seccomp", undefined)?.seccomp_filters ?? [];
  filters.forEach(({ filter, prev }, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(
        imageName("seccomp"),
        0,
        `seccomp_filters[${i}].${field}`,
        why,
      );
    // struct sock_filter has 8 bytes; BPF_MAXINSNS is 4096.
    if (
      filter.length === 0 || filter.length % 8 !== 0 ||
      filter.length > 4096 * 8
    ) {
      wrong("filter", `${filter.length} bytes are no program`);
    }
    // Chains are stored newest first and prev leads to the newer one.
    if (prev !== undefined && prev >= i) {
      wrong("prev", `${prev} does not come before it`);
    }
  });
  return filters.length;
}
