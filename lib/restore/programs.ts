/**
 * The programs by which the agent becomes the task, in the order they run.
 * Order matters: each function says why.
 */
import type { Reason } from "../error.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import {
  type GivenDescriptor,
  restoreDescriptors,
  restoreDirectories,
} from "../files/restore_descriptors.ts";
import type { AddressRange } from "../mm/hole.ts";
import { restoreMemoryMap } from "../mm/memory_map.ts";
import { rebuildMemory, unmapAllBut } from "../mm/rebuild.ts";
import { encodeText } from "../ffi/text.ts";
import { restoreAlternateStack } from "../task/alternate_stack.ts";
import { restoreCredentials } from "../task/credentials.ts";
import { restoreFpuPermission } from "../task/fpu.ts";
import { restoreIntervalTimers } from "../task/interval_timers.ts";
import {
  restoreProcessSignals,
  restoreThreadSignals,
} from "../task/pending_signals.ts";
import { clockNow, restorePosixTimers } from "../task/posix_timers.ts";
import { restoreDumpable, restoreProcess } from "../task/process_attributes.ts";
import { restoreFlags } from "../task/registers.ts";
import { restoreResourceLimits } from "../task/resource_limits.ts";
import { restoreRseq } from "../task/rseq.ts";
import { restoreScheduling } from "../task/scheduling.ts";
import { isForAllThreads, restoreSeccomp } from "../task/seccomp.ts";
import { restoreSignalActions } from "../task/signal_actions.ts";
import {
  restoreParentDeathSignal,
  restoreRobustList,
  restoreThreadExtension,
  restoreThreadName,
  restoreTidAddress,
} from "../task/thread_attributes.ts";
import type { Given } from "./given_descriptors.ts";
import type { TaskPlan } from "./plan.ts";
import {
  regularFile,
  type TaskImages,
  type ThreadImage,
} from "./task_images.ts";

const F_DUPFD_CLOEXEC = 1030;
const LAST_DESCRIPTOR = 0xffff_ffff;
const PR_SET_PDEATHSIG_OFF = [1, 0] as const;

/** Descriptors that the agent inherits from ckpt for its work. */
export interface Services {
  pagesFd: number;
  /** Page images of the shared memory objects, in their order. */
  sharedFds: readonly number[];
  givenFds: readonly number[];
}

/**
 * Everything of the process that its threads share. The memory comes first:
 * nothing of it depends on the rest, and the program file can be set only when
 * the agent's own is no longer mapped. What needs paths or /proc comes before
 * the root directory changes.
 */
export function mainProgram(
  images: TaskImages,
  plan: TaskPlan,
  given: Given,
  services: Services,
  agent: AddressRange,
): Program {
  const program = new Program();
  const { mm, fs, pagemap, shared, extension, descriptors } = images;
  const moved = moveServices(program, images, services);
  if (plan.ownSession) program.call("setsid", [], "making a session");
  unmapAllBut(program, agent);
  rebuildMemory(program, {
    mm,
    files: new Map(
      [...images.files].flatMap(([id, { reg }]) =>
        reg === undefined ? [] : [[id, reg] as const]
      ),
    ),
    pages: pagemap.entries,
    pagesFd: moved.get(services.pagesFd)!,
    shared: new Map(shared.map(({ id, size, pagemap }, i) => [id, {
      size,
      pages: pagemap.entries,
      pagesFd: moved.get(services.sharedFds[i])!,
    }])),
    extensions: new Map(extension.areas.map((area) => [area.start, area])),
    agent,
  });
  const exe = regularFile(images, mm.exe_file_id);
  const exeFd = program.call(
    "openat",
    [AT_FDCWD, program.text(encodeText(exe.name)), O.RDONLY | O.CLOEXEC, 0],
    `opening the program file ${exe.name}`,
  );
  restoreMemoryMap(program, mm, exeFd);
  program.call("close", [exeFd], "closing the program file");
  if (extension.lock_future !== undefined) {
    program.call(
      "mlockall",
      [extension.lock_future],
      "locking areas to come in memory",
    );
  }
  restoreDescriptors(
    program,
    descriptors,
    images.files,
    new Map(
      [...given.byFile].map(([id, { fd, reopen }]): [
        number,
        GivenDescriptor,
      ] => [id, { fd: moved.get(fd)!, reopen }]),
    ),
  );
  const leader = images.threads[0].core;
  restoreProcess(
    program,
    { task: leader.tc!, mm, extension, umask: fs.umask },
    plan.readings,
  );
  restoreDirectories(
    program,
    regularFile(images, fs.cwd_id),
    regularFile(images, fs.root_id),
  );
  program.call(
    "close_range",
    [firstServiceNumber(images, services), LAST_DESCRIPTOR, 0],
    "closing the agent's descriptors",
  );
  for (const { xsave } of extension.threads) {
    if (xsave !== undefined) restoreFpuPermission(program, xsave);
  }
  restoreSignalActions(program, leader.tc!.sigactions);
  return program;
}

/** Above all numbers that the task or the services use. */
function firstServiceNumber(images: TaskImages, services: Services): number {
  return 1 + Math.max(
    2,
    services.pagesFd,
    ...services.sharedFds,
    ...services.givenFds,
    images.descriptors.reduce((most, { fd }) => Math.max(most, fd), 0),
  );
}

/** Moves the services out of the way; everything below is closed. */
function moveServices(
  program: Program,
  images: TaskImages,
  services: Services,
): Map<number, number> {
  const base = firstServiceNumber(images, services);
  const moved = new Map<number, number>();
  for (
    const fd of [services.pagesFd, ...services.sharedFds, ...services.givenFds]
  ) {
    moved.set(fd, base + moved.size);
    program.call(
      "fcntl",
      [fd, F_DUPFD_CLOEXEC, base],
      "moving the agent's descriptors",
    );
  }
  program.call("close_range", [0, base - 1, 0], "closing inherited files");
  return moved;
}

/** CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM of clone(2). */
const CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
const CLONE_ARGS_BYTES = 88;

/** Threads with their own ids (clone3(2), set_tid), each with its program. */
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
      wanted,
      1,
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
  plan: TaskPlan,
  thread: ThreadImage,
): Program {
  const program = new Program();
  restoreThread(program, images, plan, thread, false);
  return program;
}

function restoreThread(
  program: Program,
  images: TaskImages,
  plan: TaskPlan,
  { tid, core }: ThreadImage,
  forAllThreads: boolean,
): void {
  const thread = core.thread_core!;
  const extension = images.extension.threads.find((entry) => entry.tid === tid);
  restoreThreadName(program, thread.comm ?? core.tc?.comm ?? "");
  if (thread.sas !== undefined) restoreAlternateStack(program, thread.sas);
  restoreTidAddress(program, core.thread_info!.clear_tid_addr);
  restoreRobustList(program, thread);
  if (thread.rseq_entry !== undefined) {
    restoreRseq(program, thread.rseq_entry);
  }
  restoreThreadExtension(program, extension);
  restoreScheduling(program, thread, extension);
  // Filters need CAP_SYS_ADMIN; ckpt suspends them while it traces the task.
  restoreSeccomp(program, images.seccomp, thread, forAllThreads);
  restoreCredentials(program, thread.creds!, plan.credentials);
  // The kernel clears it when credentials change.
  program.call("prctl", PR_SET_PDEATHSIG_OFF, "clearing the agent's own");
  restoreParentDeathSignal(program, thread);
  restoreFlags(program, core.thread_info!.gpregs);
}

/**
 * The rest of the leader, when all threads exist and are done: filters that
 * hold for all threads, and limits, which could be in the way before.
 */
export function leaderProgram(images: TaskImages, plan: TaskPlan): Program {
  const program = new Program();
  const [leader] = images.threads;
  const task = leader.core.tc!;
  restoreResourceLimits(program, task.rlimits?.rlimits ?? [], plan.limits);
  restoreThread(
    program,
    images,
    plan,
    leader,
    isForAllThreads(images.seccomp, leader.core.thread_core!),
  );
  restoreDumpable(program, images.mm.dumpable);
  return program;
}

export interface EventPrograms {
  /** One per thread, the leader first; may be empty. */
  programs: Program[];
  /** Timers that did not get their id. */
  wrongTimers: (outcome: Outcome) => Reason[];
}

/** Timers and pending signals: last, because time runs and queues fill. */
export function eventProgram(
  images: TaskImages,
  plan: TaskPlan,
): EventPrograms {
  const { pid, threads } = images;
  const task = threads[0].core.tc!;
  const programs = threads.map(() => new Program());
  const [leader] = programs;
  const queues = [
    task.signals_s?.signals ?? [],
    ...threads.map(({ core }) => core.thread_core?.signals_p?.signals ?? []),
  ];
  const timers = restorePosixTimers(leader, task.timers?.posix ?? [], {
    exactIds: plan.exactTimerIds,
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
