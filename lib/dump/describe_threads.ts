/** The threads of a process as core-TID.img. */
import {
  type ckpt_thread_entry,
  type core_entry,
  core_entry_march,
  type task_core_entry,
} from "../image/schema.gen.ts";
import { hostXsaveLayout } from "../ffi/thread_state.ts";
import { credentialsEntry } from "../task/credentials.ts";
import { extraComponents, fpuEntry } from "../task/fpu.ts";
import { registersEntry } from "../task/registers.ts";
import { rseqEntry } from "../task/rseq.ts";
import { dumpScheduling } from "../task/scheduling.ts";
import type { SeccompFields } from "../task/seccomp.ts";
import type { CollectedThread } from "./collect.ts";
import type { EndedLeader } from "./survey.ts";

/** The set of cgroups ckpt itself is in: restored threads stay in it. */
export const OWN_CGROUP_SET = 1;

/** @param process what belongs to the process; for the leader only */
export function describeThread(
  thread: CollectedThread,
  seccomp: SeccompFields,
  process?: task_core_entry,
): core_entry {
  const { tid, state, status, imageRegisters, pending, answers } = thread;
  return {
    mtype: core_entry_march.X86_64,
    thread_info: {
      clear_tid_addr: answers.tidAddress,
      gpregs: registersEntry(imageRegisters, tid),
      fpregs: fpuEntry(state.xsave, hostXsaveLayout()),
      tls: [],
    },
    tc: process,
    thread_core: {
      futex_rla: state.robustList,
      futex_rla_len: state.robustLength,
      // sched_getattr(2) does not tell the nice value of real-time threads.
      ...dumpScheduling({ ...state.scheduling, nice: thread.nice }),
      blk_sigset: process === undefined ? state.signalMask : undefined,
      sas: answers.alternateStack,
      pdeath_sig: answers.parentDeathSignal || undefined,
      signals_p: { signals: pending },
      creds: credentialsEntry(status, answers.securebits),
      ...seccomp,
      comm: status.name,
      rseq_entry: rseqEntry(state.rseq, thread.criticalSection),
      cg_set: OWN_CGROUP_SET,
    },
  };
}

/**
 * The leader of a process that goes on without it. Whose it was, its name and
 * priority are still to be seen.
 */
export function describeEndedLeader(
  { stat, status }: EndedLeader,
  process: task_core_entry,
): core_entry {
  return {
    mtype: core_entry_march.X86_64,
    tc: process,
    thread_core: {
      futex_rla: 0n,
      futex_rla_len: 0,
      sched_policy: stat.policy,
      sched_nice: stat.nice,
      sched_prio: stat.rtPriority,
      creds: credentialsEntry(status, NO_SECUREBITS),
      comm: status.name,
      cg_set: OWN_CGROUP_SET,
    },
  };
}

/** They count for calls that it makes: none. */
const NO_SECUREBITS = 0;

/** What of a thread's registers only an image of our own can hold. */
export function extraRegisters(
  { state }: CollectedThread,
): ckpt_thread_entry["xsave"] {
  return extraComponents(state.xsave, hostXsaveLayout());
}
