/**
 * The programs by which the threads of an agent are born, and become those of its
 * process. Order matters: each function says why.
 */
import { Program } from "../ffi/program.ts";
import type { ckpt_ended_leader_entry } from "../image/schema.gen.ts";
import { restoreAlternateStack } from "../task/alternate_stack.ts";
import { restoreCredentials } from "../task/credentials.ts";
import {
  restoreDumpable,
  restoreInherited,
} from "../task/process_attributes.ts";
import { restoreFlags } from "../task/registers.ts";
import { restoreResourceLimits } from "../task/resource_limits.ts";
import { restoreRseq } from "../task/rseq.ts";
import { restoreScheduling } from "../task/scheduling.ts";
import { isForAllThreads, restoreSeccomp } from "../task/seccomp.ts";
import {
  restoreParentDeathSignal,
  restoreRobustList,
  restoreThreadExtension,
  restoreThreadName,
  restoreTidAddress,
} from "../task/thread_attributes.ts";
import type { Host } from "./plan.ts";
import type { ServiceNumbers } from "./services.ts";
import type { TaskImages, ThreadImage } from "./task_images.ts";

const PR_SET_PDEATHSIG_OFF = [1, 0] as const;

/**
 * What a thread would have from its leader if it had not been cloned before
 * that had it. Needs /proc, as {@link processProgram} does.
 */
export function earlyThreadProgram(
  images: TaskImages,
  host: Host,
  numbers: ServiceNumbers,
): Program {
  const program = new Program();
  const task = images.threads[0].core.tc!;
  const { extension } = images;
  restoreInherited(program, { task, extension }, host.readings, numbers.proc);
  return program;
}

/** CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM of clone(2). */
const CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
const CLONE_ARGS_BYTES = 88;

/**
 * Threads with their own ids (clone3(2), set_tid), each with its program; 0:
 * with any id.
 */
export function cloneThreads(
  program: Program,
  threads: readonly { tid: number; stack: bigint; program: bigint }[],
): void {
  for (const { tid, stack, program: address } of threads) {
    const wanted = program.reserve(4);
    program.setInt32(wanted, 0, tid);
    const STACK = 512n;
    const args = program.words([
      CLONE_THREAD_FLAGS,
      0,
      0,
      0,
      0,
      stack - STACK,
      STACK,
      0,
      tid === 0 ? 0 : wanted,
      tid === 0 ? 0 : 1,
      0,
    ]);
    program.call(
      "clone",
      [args, CLONE_ARGS_BYTES, address],
      `starting thread ${tid}`,
    );
  }
}

/** What each thread has for itself; credentials close to last. */
export function threadProgram(
  images: TaskImages,
  host: Host,
  thread: ThreadImage,
): Program {
  const program = new Program();
  restoreThread(program, images, host, thread, false);
  return program;
}

function restoreThread(
  program: Program,
  images: TaskImages,
  host: Host,
  { tid, core }: ThreadImage,
  forAllThreads: boolean,
): void {
  const thread = core.thread_core!;
  const extension = images.extension.threads.find((entry) => entry.tid === tid);
  restoreThreadName(program, thread.comm ?? core.tc?.comm ?? "");
  const isAwaited = tid === images.pid && images.extension.awaited === true;
  if (thread.sas !== undefined) {
    restoreAlternateStack(program, thread.sas, !isAwaited);
  }
  if (core.thread_info !== undefined) {
    restoreTidAddress(program, core.thread_info.clear_tid_addr);
  }
  restoreRobustList(program, thread);
  if (thread.rseq_entry !== undefined) {
    restoreRseq(program, thread.rseq_entry);
  }
  restoreThreadExtension(program, extension);
  restoreScheduling(program, thread, extension);
  // Filters need CAP_SYS_ADMIN; ckpt suspends them while it traces the task.
  restoreSeccomp(program, images.seccomp, thread, forAllThreads);
  if (!host.isWithoutRights) {
    restoreCredentials(
      program,
      thread.creds!,
      isAwaited ? { ...host.credentials, groups: undefined } : host.credentials,
    );
  }
  // The kernel clears it when credentials change.
  program.call("prctl", PR_SET_PDEATHSIG_OFF, "clearing the agent's own");
  restoreParentDeathSignal(program, thread);
  if (core.thread_info !== undefined) {
    restoreFlags(program, core.thread_info.gpregs);
  }
}

/**
 * The rest of the leader, when all threads exist and are done: filters that
 * hold for all threads, and limits, which could be in the way before.
 *
 * @param hasItsOwn it waits in vfork(2), and has all that is not the process's:
 * another thread runs this
 */
export function leaderProgram(
  images: TaskImages,
  host: Host,
  hasItsOwn: boolean,
): Program {
  const program = new Program();
  const [leader] = images.threads;
  const task = leader.core.tc!;
  restoreResourceLimits(program, task.rlimits?.rlimits ?? [], host.limits);
  if (!hasItsOwn) {
    restoreThread(
      program,
      images,
      host,
      leader,
      isForAllThreads(images.seccomp, leader.core.thread_core!),
    );
  }
  restoreDumpable(program, images.mm.dumpable);
  return program;
}

/** The end of a leader that is gone: nothing is left that it could do. */
export function endLeaderProgram(
  { status }: ckpt_ended_leader_entry,
): Program {
  const program = new Program();
  program.call("exit", [status >> 8], "ending the first thread");
  return program;
}
