/**
 * Threads that wait in vfork(2) until a child in their memory executes a program
 * or ends. A thread gets there only by making that child: so all that it has for
 * itself comes before. Then it stands in its call, at the tracer's event: its
 * registers, which are set there, are those with which the call returns.
 */
import type { Reason } from "../error.ts";
import { type Data, Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import { restoreDirectories } from "../files/restore_descriptors.ts";
import { AF_UNIX, SOCK } from "../files/socket_kind.ts";
import { SOL_SOCKET } from "../files/sockopt.ts";
import { statusAt } from "../ghost/calls.ts";
import type { creds_entry } from "../image/schema.gen.ts";
import { bornFrom } from "../task/births/step.ts";
import { areAlike, hasAllRights } from "../task/credentials.ts";
import { pendingSignal } from "../task/pending_signals.ts";
import { restoreSignalActions } from "../task/signal_actions.ts";
import {
  restoreProcessSignals,
  restoreThreadSignals,
} from "../task/pending_signals.ts";
import { sparePids, waiterFor } from "./births.ts";
import { reapHelper } from "./deliver.ts";
import type { Host, TreePlan } from "./plan.ts";
import type { ServiceNumbers } from "./services.ts";
import { earlyThreadProgram, threadProgram } from "./thread_programs.ts";
import {
  regularFile,
  type TaskImages,
  type ThreadImage,
  type TreeImages,
} from "./task_images.ts";

const SIGCHLD = 17;

/** Why those that wait could not be brought back to that. */
export function vforkProblems(
  images: Pick<TreeImages, "processes" | "tree" | "locks" | "sockets">,
  { births: { steps }, host }: Pick<TreePlan, "births" | "host">,
): Reason[] {
  const { processes } = images;
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
      : hasRing(parent)
      ? "whose process has an io_uring"
      : seccomp_mode !== 0
      ? "which has seccomp filters"
      : hasAllRights(creds!, host.credentials)
      ? undefined
      : withoutRightsProblem(images, parent, process, creds!);
    taken.add(tid);
    return why === undefined ? [] : [{
      object: `process ${pid}`,
      why: `thread ${tid} waits for it in vfork(2), ${why}; that is not ` +
        "supported",
    }];
  });
}

/**
 * Why a child could not become what it was that is born with the credentials of
 * who waits for it, which are not those of root.
 */
function withoutRightsProblem(
  { tree, locks, sockets }: Pick<TreeImages, "tree" | "locks" | "sockets">,
  parent: TaskImages,
  child: TaskImages,
  creds: creds_entry,
): string | undefined {
  const { pid, ids, threads, files, fs } = child;
  const [{ core }] = threads;
  const peers = [...sockets.unix.values()].map(({ extension }) =>
    extension.peer?.pid
  );
  const rootOf = (id: number) => files.get(id)?.reg?.name;
  return !areAlike(core.thread_core!.creds!, creds)
    ? "which has other credentials, none of root"
    : (core.thread_core!.seccomp_mode ?? 0) !== 0
    ? "and it has seccomp filters, without the rights of root"
    : threads.length > 1 || tree.some(({ ppid }) => ppid === pid)
    ? "and it has threads or children, without the rights of root"
    : [fs.root_id, parent.fs.root_id].some((id) => rootOf(id) !== "/")
    ? "and one has another root directory, without the rights of root"
    : locks.some((lock) => lock.pid === pid) || peers.includes(pid)
    ? "and it has file locks or connections of its own, without the rights " +
      "of root"
    : (core.tc!.loginuid ?? 0) !== (parent.threads[0].core.tc!.loginuid ?? 0)
    ? "and it has another login uid"
    : hasRing(child)
    ? "and it has an io_uring, without the rights of root"
    : ids.files_id === parent.ids.files_id
    ? "and has its descriptors, without the rights of root"
    : statusAt(LAST_PID) === undefined
    ? `and this kernel has no ${LAST_PID}, by which it would get its pid`
    : undefined;
}

/** One may have to be made by a thread that waits. */
function hasRing({ set, pid }: TaskImages): boolean {
  const rings = set.read("ckpt-rings", undefined) ?? [];
  return rings.some((ring) => ring.pid === pid);
}

/** The pid before the next one that is given (CONFIG_CHECKPOINT_RESTORE). */
const LAST_PID = "/proc/sys/kernel/ns_last_pid";

/**
 * Lets the next process have a pid, if no other one comes first.
 *
 * @returns what lets the kernel go on where it was: those that come after would
 * have the pids of the tree
 */
export function choosePid(pid: number): Disposable {
  const last = Deno.readTextFileSync(LAST_PID);
  Deno.writeTextFileSync(LAST_PID, `${pid - 1}`);
  return {
    [Symbol.dispose]: () => Deno.writeTextFileSync(LAST_PID, last),
  };
}

/**
 * Children that are born without the rights to get their descriptors, as those
 * are that wait for them. Others, with pids that nobody has, hold them in their
 * stead, and hand them over.
 *
 * @returns the pids of those, by the children's
 */
export function holdersFor(
  { processes, tree }: Pick<TreeImages, "processes" | "tree">,
  { credentials }: Host,
): ReadonlyMap<number, number> {
  const spares = sparesFor(tree);
  return new Map(processes.flatMap((process) => {
    const { creds } = process.threads[0].core.thread_core!;
    return waiterFor(process) === undefined || hasAllRights(creds!, credentials)
      ? []
      : [[process.pid, spares()]];
  }));
}

/** Pids that are free, and nobody's of the tree, each once. */
export function sparesFor(
  tree: TreeImages["tree"],
  more: readonly number[] = [],
): () => number {
  const used = new Set([
    ...tree.flatMap(({ pid, pgid, sid, threads }) => [
      ...[pid, pgid, sid],
      ...threads,
    ]),
    ...more,
  ]);
  const next = sparePids();
  return () => {
    let pid = next();
    while (used.has(pid)) pid = next();
    return pid;
  };
}

/**
 * What a child without rights is to have from its birth on, and the channel.
 *
 * @param channel the number of its first end
 */
export function programForBirth(
  child: TaskImages,
  madePaths: ServiceNumbers["madePaths"],
  channel: number,
): Program {
  const program = new Program();
  const { fs } = child;
  restoreDirectories(
    program,
    regularFile(child, fs.cwd_id),
    regularFile(child, fs.root_id),
    madePaths,
  );
  const purpose = "making a channel for descriptors";
  // Two numbers, and zeros.
  const ends = program.reserve(16);
  program.call("socketpair", [AF_UNIX, SOCK.SEQPACKET, 0, ends], purpose);
  const second = program.call("load", [program.at(ends, 4)], purpose);
  program.call("store", [program.at(ends, 4), 0, 4], purpose);
  const first = program.call("load", [ends], purpose);
  [first, second].forEach((end, i) => {
    program.call("dup3", [end, channel + i, O.CLOEXEC], purpose);
    program.call("close", [end], purpose);
  });
  return program;
}

/** SCM_MAX_FD */
const MOST_RIGHTS = 253;

/**
 * Programs that hand descriptors over: one sends, then the other receives.
 *
 * @param base all numbers below are those of the program
 * @param channel the number of the end that sends; the next is the other's
 */
export function handOver(
  { descriptors }: Pick<TaskImages, "descriptors">,
  base: number,
  channel: number,
): { send: Program; receive: Program }[] {
  const sorted = descriptors.toSorted((a, b) => a.fd - b.fd);
  const count = Math.max(1, Math.ceil(sorted.length / MOST_RIGHTS));
  const parts = Array.from({ length: count }, (_, i) => {
    const part = sorted.slice(i * MOST_RIGHTS, (i + 1) * MOST_RIGHTS);
    const fds = part.map(({ fd }) => fd);
    return { send: new Program(), receive: new Program(), fds };
  });
  const purpose = "taking over descriptors";
  parts[0].receive.call("close_range", [0, base - 1, 0], purpose);
  for (const { send, receive, fds } of parts) {
    if (fds.length === 0) continue;
    send.call(
      "sendmsg",
      [channel, message(send, fds), 0],
      "handing over descriptors",
    );
    receive.call(
      "recvmsg",
      [channel + 1, message(receive, fds), 0],
      purpose,
    );
  }
  // They came in their order, with the lowest numbers there are.
  const last = parts[count - 1].receive;
  for (let i = sorted.length - 1; i >= 0; i--) {
    const { fd, flags } = sorted[i];
    const closes = (flags & FD_CLOEXEC) !== 0;
    if (fd === i) {
      last.call("fcntl", [fd, F_SETFD, closes ? FD_CLOEXEC : 0], purpose);
    } else {
      last.call("dup3", [i, fd, closes ? O.CLOEXEC : 0], purpose);
      last.call("close", [i], purpose);
    }
  }
  return parts;
}

const FD_CLOEXEC = 1;
const F_SETFD = 2;
const SCM_RIGHTS = 1;

/** struct msghdr with one byte and, as struct cmsghdr has them, descriptors. */
function message(program: Program, fds: readonly number[]): Data {
  const HEADER = 16;
  const length = HEADER + 4 * fds.length;
  const control = program.reserve((length + 7) & ~7);
  program.setInt32(control, 0, length);
  program.setInt32(control, 8, SOL_SOCKET);
  program.setInt32(control, 12, SCM_RIGHTS);
  fds.forEach((fd, i) => program.setInt32(control, HEADER + 4 * i, fd));
  const part = program.words([program.bytes(Uint8Array.of(1)), 1]);
  return program.words([0, 0, part, 1, control, control.length, 0]);
}

/** What there is for one that has its credentials from birth. */
export function withoutRights(host: Host, { threads }: TaskImages): Host {
  const { oom_score_adj = 0, loginuid } = threads[0].core.tc!;
  return {
    ...host,
    isWithoutRights: true,
    readings: {
      ...host.readings,
      oomScoreAdj: oom_score_adj,
      loginuid,
      // It belongs to the memory that it has in common.
      coredumpFilter: undefined,
    },
  };
}

/** Takes a child that got another pid off its parent, and what it said of it. */
export function forgetChild(pid: number, takesSignal: boolean): Program {
  const program = new Program();
  reapHelper(program, pid);
  if (takesSignal) {
    program.call(
      "rt_sigtimedwait",
      [program.words([1n << BigInt(SIGCHLD - 1)]), 0, program.words([0, 0]), 8],
      "taking the signal of a child",
      { mayFail: true },
    );
  }
  return program;
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
