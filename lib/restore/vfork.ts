/**
 * Threads that wait in vfork(2) until a child in their memory executes a program
 * or ends. A thread gets there only by making that child: so all that it has for
 * itself comes before. Then it stands in its call, at the tracer's event: its
 * registers, which are set there, are those with which the call returns.
 */
import type { Reason } from "../error.ts";
import { Program } from "../ffi/program.ts";
import { bornFrom } from "../task/births/step.ts";
import { hasAllRights } from "../task/credentials.ts";
import { pendingSignal } from "../task/pending_signals.ts";
import { restoreSignalActions } from "../task/signal_actions.ts";
import {
  restoreProcessSignals,
  restoreThreadSignals,
} from "../task/pending_signals.ts";
import { waiterFor } from "./births.ts";
import type { Host, TreePlan } from "./plan.ts";
import {
  earlyThreadProgram,
  type ServiceNumbers,
  threadProgram,
} from "./programs.ts";
import type { TaskImages, ThreadImage, TreeImages } from "./task_images.ts";

const SIGCHLD = 17;

/** Why those that wait could not be brought back to that. */
export function vforkProblems(
  { processes }: Pick<TreeImages, "processes">,
  { births: { steps }, host: { credentials } }: Pick<
    TreePlan,
    "births" | "host"
  >,
): Reason[] {
  const byPid = new Map(processes.map((process) => [process.pid, process]));
  const forkedBy = bornFrom(steps);
  const taken = new Set<number>();
  return processes.flatMap((process): Reason[] => {
    const tid = waiterFor(process);
    if (tid === undefined) return [];
    const { pid, ids, tree: { ppid } } = process;
    const parent = byPid.get(ppid)!;
    const { core } = parent.threads.find((thread) => thread.tid === tid)!;
    const { creds, seccomp_mode = 0 } = core.thread_core!;
    const why = parent.ids.vm_id !== ids.vm_id
      ? "and does not have its memory"
      : taken.has(tid)
      ? "which waits for another one already"
      : forkedBy.get(pid) !== ppid
      ? "but cannot be born from it"
      : parent.stopSignal !== 0 || parent.extension.continue_unreported
      ? "whose process was stopped by job control"
      : seccomp_mode !== 0
      ? "which has seccomp filters"
      : !hasAllRights(creds!, credentials)
      ? "whose credentials are not those of root: it could not make it"
      : undefined;
    taken.add(tid);
    return why === undefined ? [] : [{
      object: `process ${pid}`,
      why: `thread ${tid} waits for it in vfork(2), ${why}; that is not ` +
        "supported",
    }];
  });
}

/** What a thread does for itself before it makes the child. */
export function programsBeforeVfork(
  images: TaskImages,
  host: Host,
  numbers: ServiceNumbers,
  thread: ThreadImage,
): Program[] {
  return [
    earlyThreadProgram(images, host, numbers),
    threadProgram(images, host, thread),
  ];
}

/**
 * The signals that wait for it, and, where it is the first thread, for its
 * process: nobody else could queue them. What the process does with them has to
 * be known before.
 *
 * @param setActions they are not known yet
 */
export function signalsBeforeVfork(
  { pid, threads, extension }: TaskImages,
  { tid, core }: ThreadImage,
  setActions: boolean,
): Program {
  const program = new Program();
  const task = threads[0].core.tc!;
  if (setActions) {
    restoreSignalActions(program, task.sigactions, !extension.awaited);
  }
  if (tid === pid) {
    restoreProcessSignals(program, task.signals_s?.signals ?? []);
  }
  restoreThreadSignals(program, core.thread_core?.signals_p?.signals ?? []);
  return program;
}

/** The same process without the signals that those have queued. */
export function withoutQueued(
  images: TaskImages,
  waiters: ReadonlySet<number>,
): TaskImages {
  const { pid, threads } = images;
  if (!threads.some(({ tid }) => waiters.has(tid))) return images;
  return {
    ...images,
    threads: threads.map((thread) => {
      const { tid, core } = thread;
      if (!waiters.has(tid)) return thread;
      const none = { signals: [] };
      const { tc, thread_core } = core;
      return {
        tid,
        core: {
          ...core,
          tc: tc && (tid === pid ? { ...tc, signals_s: none } : tc),
          thread_core: thread_core && { ...thread_core, signals_p: none },
        },
      };
    }),
  };
}

/** Whether a signal that its process has of a child is queued already. */
export function hasQueuedChildSignal(
  { pid, threads: [{ core }] }: TaskImages,
  waiters: ReadonlySet<number>,
): boolean {
  return waiters.has(pid) && (core.tc!.signals_s?.signals ?? []).some((
    { siginfo },
  ) => pendingSignal(siginfo).signal === SIGCHLD);
}
