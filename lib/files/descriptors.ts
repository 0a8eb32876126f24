/**
 * The descriptors of a process: what each one is, which share one open file
 * description, also with other processes, and which cannot be saved. Reads
 * only.
 */
import type { Reason } from "../error.ts";
import { getDescriptor, openPidfd } from "../ffi/pidfd.ts";
import {
  close,
  deviceNumbers,
  type FileStatus,
  O,
  S_IF,
  syscallBuffer0,
} from "../ffi/syscall.ts";
import { taskExists } from "../ffi/task_exists.ts";
import type { fown_entry } from "../image/schema.gen.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { readFdInfo } from "../proc/read.ts";
import {
  type DescriptorFacts,
  FactTable,
  NO_STATUS,
} from "./descriptor_facts.ts";
import {
  DescriptionIndex,
  type DescriptorPlace,
  nameOf,
  numberOf,
} from "./description_index.ts";
import { type BpfMap, bpfMapProblem, parseBpfMap } from "./bpf_map.ts";
import type { Watched } from "./epoll.ts";
import {
  isKernelObject,
  type KernelObject,
  parseKernelObject,
  TIMERFD_LINK,
  type WatchedFiles,
} from "./kernel_objects.ts";
import { deviceProblem, isDevice } from "./devices.ts";
import { isOfDescription, lockProblem, locksOf } from "./file_locks.ts";
import { KINDS, refusalOfLink } from "./kinds.ts";
import { isPlainMemfd, memfdName, memfdPageSize } from "./memfd.ts";
import { isTun, lookAtTun, type SeenTun, tunProblem } from "./tun.ts";
import { namespaceProblem, namespaceType } from "./namespaces.ts";
import { countExpiries, waitsForRead } from "./timerfd.ts";
import { pendingBytes } from "./lost_events.ts";
import {
  FANOTIFY_LINK,
  INOTIFY_LINK,
  TreeTargets,
  watchProblem,
} from "./watched_files.ts";
import type { FileUse } from "../ghost/files_in_use.ts";
import type { FoundTarget } from "../ghost/watch_targets.ts";
import { NO_OWNER } from "./file_table.ts";
import {
  type Holder,
  holderOfWatched,
  isFifo,
  isPipe,
  type OutsideHolders,
  type PipeIdentity,
  pipeKey,
} from "./outside_holders.ts";
import { readOwner } from "./owner.ts";
import { sorted } from "./sorted_descriptors.ts";
import { UnixSocketsAtOnce } from "./sock_diag.ts";
import type { WayToRoot } from "./unix_socket.ts";
import { lookAtQueue, mayBeQueue, type Queue, queueProblem } from "./queue.ts";
import type { PipeEnd } from "./pipe_contents.ts";
import {
  isPty,
  lookAtTerminal,
  type MasterState,
  type SeenTerminal,
  slavePath,
  type Terminal,
} from "./terminal.ts";
import {
  isSocket,
  lookAtSockets,
  type SeenSocket,
  TreeSockets,
} from "./sockets.ts";

export const FD_CLOEXEC = 1;

/** One open file description (struct file), perhaps behind several numbers. */
export interface Description {
  readonly kind:
    | "named"
    | "device"
    /** A queue of a network device: `tun` tells of it. */
    | "tun"
    | "terminal"
    /** An end of a pseudo terminal of the tree: `terminal` tells of it. */
    | "pty"
    /** A slave whose master is closed. */
    | "dead pty"
    | "pipe"
    /** A pipe that leads outside: the outside gives another at restore. */
    | "external pipe"
    | "fifo"
    | "pidfd"
    /** A kernel object without a name: `object` tells of it. */
    | "object"
    | "memfd"
    | "namespace"
    /** `map` tells of it. */
    | "bpf map"
    /** A POSIX message queue: `queue` tells of it. */
    | "queue"
    | "io_uring"
    /** `socket` tells of it. */
    | "socket"
    | "external";
  /** What /proc/PID/fd/N leads to. */
  readonly link: string;
  /** O_* flags without O_CLOEXEC. */
  readonly flags: number;
  readonly pos: bigint;
  readonly owner: fown_entry;
  readonly status: FileStatus;
  readonly mountId: number;
  /** A reader of a fifo whose poll(2) does not tell that there is no writer. */
  readonly unconnected: boolean;
  /**
   * Of a pidfd: the task it stands for, {@link GONE} when it is gone. Of a file
   * below /proc: the process it tells of, when that is gone.
   */
  readonly target: number | undefined;
  /** Where it was first seen. */
  readonly place: DescriptorPlace;
  readonly object?: KernelObject;
  readonly socket?: SeenSocket;
  readonly terminal?: Terminal;
  readonly map?: BpfMap;
  readonly queue?: Queue | undefined;
  readonly tun?: SeenTun | undefined;
  /** What an epoll watches. */
  readonly watched?: readonly Watched[];
  /** Of an epoll that waits for network cards itself: struct epoll_params. */
  readonly busyPolling?: Uint8Array | undefined;
  /** What an inotify or fanotify watches. */
  readonly targets?: readonly FoundTarget[];
  /** Of these two: bytes of events that the program has not read. */
  readonly unread?: number;
}

/** What fdinfo tells as the pid of a process that was waited for. */
export const GONE = -1;

export interface Descriptor {
  readonly fd: number;
  readonly closeOnExec: boolean;
  readonly description: Description;
}

export interface DescriptorPlan {
  readonly descriptors: readonly Descriptor[];
  readonly reasons: readonly Reason[];
  /** Options that would make refused descriptors saveable. */
  readonly neededOptions: readonly string[];
}

export interface DescriptorOptions {
  shellJob: boolean;
  /** Device of the process's controlling terminal (tty_nr of stat); 0: none. */
  controllingTerminal: number;
  /** As given by --external. */
  external: readonly string[];
  /** Consent to locks that processes outside have, too. */
  fileLocks?: boolean;
}

/** Major numbers of terminals: tty, /dev/tty and console, pty slaves. */
const TERMINAL_MAJORS = new Set([4, 5, 136, 137, 138, 139, 140, 141, 142, 143]);

/** What the kernel tells of one descriptor. */
export interface SeenDescriptor {
  readonly fd: number;
  readonly link: string;
  readonly info: FdInfo;
  readonly status: FileStatus;
  /** This and the next: asked of the first descriptor of a description. */
  readonly owner: fown_entry;
  /** The end of a fifo, and poll(2) does not tell POLLHUP. */
  readonly unconnected: boolean;
  /** Of a socket, like the two above. */
  readonly socket?: SeenSocket | undefined;
  /** Of a pseudo terminal, likewise. */
  readonly terminal?: SeenTerminal | undefined;
  /** Of a POSIX message queue, like the others. */
  readonly queue?: Queue | undefined;
  /** Of /dev/net/tun, like the others. */
  readonly tun?: SeenTun | undefined;
  /** Of an epoll, see {@link Description.busyPolling}. */
  readonly busyPolling?: Uint8Array | undefined;
  /** Of an inotify or fanotify, see {@link Description.unread}. */
  readonly unread?: number;
  /** One that was seen before and has the same open file description. */
  readonly sameAs: DescriptorPlace | undefined;
}

/** What one look at all processes of a tree has in common. */
export class TreeLook {
  readonly index = new DescriptionIndex();
  readonly unixSockets = new UnixSocketsAtOnce();

  /** @param wayToRoot where the tree has mount namespaces of its own */
  constructor(
    readonly wayToRoot?: WayToRoot,
    readonly standsStill = false,
  ) {}
}

/** The descriptors of a process at one moment. */
export interface DescriptorLook {
  readonly descriptors: readonly SeenDescriptor[];
  /** The same in the same order, as the kernel told it. */
  readonly facts: FactTable;
}

/**
 * Looks at every descriptor.
 *
 * @param pid of the process, or of a thread of it: places have this number
 * @param tree the same for all processes of a tree
 * @param before an earlier look at the same process, of which is taken what has
 * not changed
 * @param fds those to look at, ascending, where that is not all
 * @throws CkptError or SyscallError when one is closed meanwhile
 */
export function lookAgainAtDescriptors(
  pid: number,
  tree: TreeLook,
  before?: DescriptorLook,
  fds?: readonly number[],
): DescriptorLook {
  const pidfd = openPidfd(pid);
  try {
    const facts = fds === undefined
      ? FactTable.askAll(pid, pidfd, before?.facts, tree.standsStill)
      : FactTable.ask(pid, pidfd, fds, before?.facts);
    const places = tree.index.find(pid, facts);
    const count = facts.fds.length;
    const descriptors: SeenDescriptor[] = new Array(count);
    const changed: { i: number; told: DescriptorFacts }[] = [];
    const toAsk: { fd: number; ino: bigint }[] = [];
    for (let i = 0; i < count; i++) {
      const same = facts.same(i);
      const was = same === undefined ? undefined : before?.descriptors[same];
      if (was !== undefined && isSettled(was, places[i])) {
        descriptors[i] = was;
        continue;
      }
      const told = facts.get(i);
      changed.push({ i, told });
      const { fd, info, status } = told;
      if (isSocket(status) && !isKnown({ info, sameAs: places[i] })) {
        toAsk.push({ fd, ino: status.ino });
      }
    }
    const sockets = lookAtSockets(
      pidfd,
      toAsk,
      tree.unixSockets,
      tree.wayToRoot,
    );
    for (const { i, told } of changed) {
      const socket = sockets.get(told.fd);
      const hasOwner = facts.hasOwner(i);
      descriptors[i] = ask(pid, pidfd, told, places[i], hasOwner, socket);
    }
    return { descriptors, facts };
  } finally {
    close(pidfd);
  }
}

/** The same for the first time. */
export function lookAtDescriptors(
  pid: number,
  tree: TreeLook,
  fds?: readonly number[],
): readonly SeenDescriptor[] {
  return lookAgainAtDescriptors(pid, tree, undefined, fds).descriptors;
}

/** Whether nothing can be different of one of which the facts are the same. */
function isSettled(
  { link, info, status, owner, sameAs }: SeenDescriptor,
  place: DescriptorPlace | undefined,
): boolean {
  if (sameAs?.pid !== place?.pid || sameAs?.fd !== place?.fd) return false;
  return isKnown({ info, sameAs }) ||
    owner === NO_OWNER && !isSocket(status) && !isPty(status) &&
      !isTun(status) && !isFifo({ link, status }) &&
      !isAskedMore({ link, status });
}

/** Known by another descriptor, or there is nothing more to be known. */
function isKnown(
  { info, sameAs }: Pick<SeenDescriptor, "info" | "sameAs">,
): boolean {
  return sameAs !== undefined || (info.flags & O.PATH) !== 0;
}

/** What fdinfo does not tell. */
function ask(
  pid: number,
  pidfd: number,
  { fd, link, info, status, busyPolling }: DescriptorFacts,
  sameAs: DescriptorPlace | undefined,
  hasOwner: boolean | undefined,
  socket: SeenSocket | undefined,
): SeenDescriptor {
  const known = isKnown({ info, sameAs });
  const fifo = isFifo({ link, status });
  const { owner, unconnected } = known || hasOwner === false && !fifo
    ? NOTHING
    : askOwn(pidfd, fd, fifo);
  const seen = {
    fd,
    link,
    info,
    status,
    owner,
    unconnected,
    socket,
    terminal: !known && isPty(status)
      ? askTerminal(pidfd, fd, status)
      : undefined,
    tun: !known && isTun(status) ? askTun(pidfd, fd) : undefined,
    busyPolling,
    sameAs,
  };
  return known || !isAskedMore(seen)
    ? seen
    : { ...seen, ...askObject(seen, pidfd, pid) };
}

const NOTHING = { owner: NO_OWNER, unconnected: false };

/** Kinds of kernel objects of which fdinfo does not tell all at once. */
function isAskedMore(
  seen: Pick<SeenDescriptor, "link" | "status">,
): boolean {
  const { link } = seen;
  return link === FANOTIFY_LINK || link === INOTIFY_LINK ||
    link === TIMERFD_LINK || mayBeQueue(link) && !isPlainMemfd(seen);
}

function askObject(
  { fd, link, info }: Pick<SeenDescriptor, "fd" | "link" | "info">,
  pidfd: number,
  pid: number,
): Pick<SeenDescriptor, "info" | "unread" | "queue"> {
  const notifies = link === FANOTIFY_LINK || link === INOTIFY_LINK;
  const timer = link === TIMERFD_LINK
    ? parseKernelObject({ link, info })
    : undefined;
  const waits = timer?.kind === "timerfd" && waitsForRead(timer);
  const isQueue = mayBeQueue(link);
  if (!notifies && !waits && !isQueue) return { info };
  const own = getDescriptor(pidfd, fd);
  try {
    if (isQueue) return { info, queue: lookAtQueue(own, link) };
    if (notifies) return { info, unread: pendingBytes(own) };
    countExpiries(own);
    return { info: readFdInfo(pid, fd) };
  } finally {
    close(own);
  }
}

function askTun(pidfd: number, fd: number): SeenTun {
  const own = getDescriptor(pidfd, fd);
  try {
    return lookAtTun(own, poll(own));
  } finally {
    close(own);
  }
}

function askTerminal(
  pidfd: number,
  fd: number,
  status: FileStatus,
): SeenTerminal {
  const own = getDescriptor(pidfd, fd);
  try {
    return lookAtTerminal(own, status);
  } finally {
    close(own);
  }
}

/** All descriptors of one pipe or fifo in the tree. */
export interface SeenPipe {
  readonly key: string;
  readonly link: string;
  readonly status: FileStatus;
  /** One per open file description. */
  readonly ends: readonly PipeEnd[];
}

/** The descriptors of a process. */
export interface SeenTable {
  readonly pid: number;
  /** The thread by which it was looked at, where that is another. */
  readonly tid?: number;
  readonly descriptors: readonly SeenDescriptor[];
}

/** The pipes and fifos that the processes of a tree have open. */
export function pipesAmong(processes: readonly SeenTable[]): SeenPipe[] {
  const pipes = new Map<string, SeenPipe & { ends: PipeEnd[] }>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, info, status } of sorted(descriptors).pipes) {
      if (!isOpenPipe({ link, info, status })) continue;
      const key = pipeKey({ link, status });
      const pipe = pipes.get(key) ?? { key, link, status, ends: [] };
      pipes.set(key, pipe);
      pipe.ends.push({ pid: tid, fd, flags: info.flags });
    }
  }
  return [...pipes.values()];
}

/** O_PATH opens the name of a fifo, not the fifo. */
function isOpenPipe(
  { link, info, status }: Pick<SeenDescriptor, "link" | "info" | "status">,
): boolean {
  const pipe = { link, status };
  return isPipe(pipe) && !(isFifo(pipe) && (info.flags & O.PATH) !== 0);
}

/** Descriptors with locks that belong to the open file description. */
export function lockedAmong(
  processes: readonly SeenTable[],
): PipeIdentity[] {
  return processes.flatMap(({ pid, tid = pid, descriptors }) =>
    descriptors.filter(({ sameAs, info }) =>
      sameAs === undefined && info.locks.length > 0 &&
      locksOf(info).some((lock) => lock !== undefined && isOfDescription(lock))
    ).map(({ fd, link, status }) => ({
      link,
      status,
      description: { pid: tid, fd },
    }))
  );
}

/** Those of which lib/dump/object_contents.ts reads what is in them. */
export function withOwnContents(
  descriptors: readonly SeenDescriptor[],
): readonly SeenDescriptor[] {
  const { named, devices, unnamed } = sorted(descriptors);
  return [
    ...named.filter(({ queue }) => queue !== undefined),
    ...devices.filter(({ tun }) => tun?.name !== undefined),
    ...unnamed.filter(({ link }) =>
      KINDS["bpf map"].link.test(link) || KINDS.io_uring.link.test(link)
    ),
  ];
}

/** Message queues, which processes outside may have, too. */
export function queuesAmong(processes: readonly SeenTable[]): PipeIdentity[] {
  return processes.flatMap(({ descriptors }) =>
    sorted(descriptors).named.filter(({ queue }) => queue !== undefined)
      .map(({ link, status }) => ({ link, status }))
  );
}

/** What is known of a whole tree while its processes are planned. */
export class TreeDescriptions {
  /** Undefined for what is refused. By the first place of each. */
  readonly #known = new Map<number, Description | undefined>();

  /** @param pids all processes of the tree; @param tids and their threads */
  constructor(
    readonly pids: ReadonlySet<number>,
    readonly outside: OutsideHolders,
    readonly watched: WatchedFiles = new Map(),
    readonly sockets = new TreeSockets([]),
    readonly tids: ReadonlySet<number> = pids,
    readonly targets = new TreeTargets(),
    readonly masters: ReadonlyMap<number, MasterState> = new Map(),
  ) {}

  has(place: DescriptorPlace): boolean {
    return this.#known.has(numberOf(place));
  }

  get(place: DescriptorPlace): Description | undefined {
    return this.#known.get(numberOf(place));
  }

  set(place: DescriptorPlace, description: Description | undefined): void {
    this.#known.set(numberOf(place), description);
  }
}

/**
 * Decides for every descriptor how it is saved. What is refused is told once,
 * with its first descriptor.
 *
 * @param pid by which it was looked at
 * @param tree the same for all processes of a tree, which come in the order in
 * which they were looked at
 */
export function planDescriptors(
  pid: number,
  seen: readonly SeenDescriptor[],
  options: DescriptorOptions,
  tree: TreeDescriptions,
): DescriptorPlan {
  const reasons: Reason[] = [];
  const needed = new Set<string>();
  const descriptors: Descriptor[] = [];
  for (const descriptor of seen) {
    const { fd, link, info, status, owner, unconnected, sameAs } = descriptor;
    const first = sameAs ?? { pid, fd };
    if (!tree.has(first)) {
      const verdict = classify(pid, descriptor, options, tree);
      if ("why" in verdict) {
        if (verdict.option !== undefined) needed.add(verdict.option);
        reasons.push({
          object: `descriptor ${fd} (${link}) of task ${pid}`,
          why: verdict.why,
          remedy: verdict.remedy,
        });
      }
      tree.set(
        first,
        "why" in verdict ? undefined : {
          kind: verdict.kind,
          link,
          flags: info.flags & ~O.CLOEXEC,
          pos: info.pos,
          owner,
          status,
          mountId: info.mntId,
          unconnected,
          target: verdict.target,
          place: first,
          object: verdict.object,
          socket: verdict.kind === "socket" ? descriptor.socket : undefined,
          terminal: verdict.terminal,
          map: verdict.map,
          queue: descriptor.queue,
          tun: descriptor.tun,
          watched: verdict.watched,
          busyPolling: descriptor.busyPolling,
          targets: verdict.targets,
          unread: descriptor.unread,
        },
      );
    }
    const description = tree.get(first);
    if (description === undefined) continue;
    const closeOnExec = (info.flags & O.CLOEXEC) !== 0;
    descriptors.push({ fd, closeOnExec, description });
  }
  return { descriptors, reasons, neededOptions: [...needed] };
}

const POLLIN = 0x1;
const POLLHUP = 0x10;

/** What only a descriptor of ckpt's own can be asked. */
function askOwn(
  pidfd: number,
  fd: number,
  fifo: boolean,
): Pick<SeenDescriptor, "owner" | "unconnected"> {
  const own = getDescriptor(pidfd, fd);
  try {
    return {
      owner: readOwner(own),
      unconnected: fifo && (poll(own) & POLLHUP) === 0,
    };
  } finally {
    close(own);
  }
}

/** poll(2) of one descriptor, without waiting: revents. */
function poll(fd: number): number {
  const pollfd = new Int16Array(4);
  new Int32Array(pollfd.buffer)[0] = fd;
  pollfd[2] = POLLIN;
  syscallBuffer0("poll", new Uint8Array(pollfd.buffer), 1n, 0n);
  return pollfd[3];
}

type Verdict =
  | {
    kind: Description["kind"];
    target?: number;
    object?: KernelObject;
    watched?: readonly Watched[];
    targets?: readonly FoundTarget[];
    terminal?: Terminal;
    map?: BpfMap;
  }
  | { why: string; remedy?: string; option?: string };

function classify(
  pid: number,
  descriptor: SeenDescriptor,
  options: DescriptorOptions,
  tree: TreeDescriptions,
): Verdict {
  const { link, info, status } = descriptor;
  if (info.locks.length > 0) {
    const problem = locksProblem(pid, descriptor, options, tree);
    if (problem !== undefined) return problem;
  }
  if (
    options.external.length > 0 &&
    options.external.includes(externalKey(descriptor))
  ) return { kind: "external" };
  if (isOpenPipe({ link, info, status })) {
    const holder = tree.outside.holder({ link, status });
    return isFifo({ link, status })
      ? classifyFifo(externalKey(descriptor), holder)
      : classifyPipe(link, options, holder);
  }
  if (descriptor.socket !== undefined) {
    const { outside, sockets } = tree;
    const problem = sockets.problem(descriptor, descriptor.socket, outside);
    return problem ?? { kind: "socket" };
  }
  if (!link.startsWith("/")) {
    if (KINDS.pidfd.link.test(link)) return classifyPidfd(info, tree);
    if (isKernelObject(link)) return classifyObject(pid, descriptor, tree);
    if (namespaceType(link) !== undefined) {
      return namespaceProblem(link) ?? { kind: "namespace" };
    }
    if ((info.flags & O.PATH) !== 0) return ONLY_NAMED;
    if (KINDS["bpf map"].link.test(link)) {
      const map = parseBpfMap(info.extra);
      const why = bpfMapProblem(map);
      return why === undefined ? { kind: "bpf map", map } : { why };
    }
    if (KINDS.io_uring.link.test(link)) return { kind: "io_uring" };
  } else if (memfdName(link) !== undefined) {
    const path = `/proc/${pid}/fd/${descriptor.fd}`;
    return memfdPageSize(path, status) !== undefined
      ? { kind: "memfd" }
      : { why: "it is called like a memfd, but is none" };
  }
  if (descriptor.queue !== undefined) {
    const outside = tree.outside.holder({ link, status }) !== undefined;
    return queueProblem(descriptor.queue, outside) ?? { kind: "queue" };
  }
  const refusal = refusalOfLink(link);
  if (refusal !== undefined) return refusal;
  if ((info.flags & O.PATH) === 0 && isDevice(status)) {
    return classifyDevice(pid, descriptor, options, tree);
  }
  return classifyNamed(link, tree);
}

/** By which --external names a file. */
function externalKey(
  { info, status }: Pick<SeenDescriptor, "info" | "status">,
): string {
  return `file[${info.mntId.toString(16)}:${status.ino}]`;
}

const ONLY_NAMED = {
  why: "it only names a kernel object (O_PATH), which is not supported",
};

function classifyDevice(
  pid: number,
  descriptor: SeenDescriptor,
  options: DescriptorOptions,
  tree: TreeDescriptions,
): Verdict {
  const { info, status, tun } = descriptor;
  if (tun !== undefined) return tunProblem(tun) ?? { kind: "tun" };
  if (isTerminal(status)) {
    return classifyPty(pid, descriptor, tree) ??
      classifyTerminal(status, options);
  }
  const why = deviceProblem(status);
  if (why === undefined) return { kind: "device" };
  const key = externalKey({ info, status });
  return {
    why,
    remedy: `if the outside gives it again at restore: --external ${key}, ` +
      `and then ckpt restore --inherit-fd fd[N]:${key}`,
  };
}

function isTerminal({ mode, rdev }: FileStatus): boolean {
  return (mode & S_IF.MT) === S_IF.CHR &&
    TERMINAL_MAJORS.has(deviceNumbers(rdev).major);
}

/** Locks that belong to the description; of others there is no problem. */
function locksProblem(
  pid: number,
  { fd, info, status, link }: SeenDescriptor,
  { fileLocks }: DescriptorOptions,
  { outside }: TreeDescriptions,
): { why: string; remedy?: string; option?: string } | undefined {
  const locks = locksOf(info);
  for (const lock of locks) {
    const problem = lockProblem(lock, status.nlink);
    if (problem !== undefined) return problem;
  }
  if (fileLocks || !locks.some((lock) => isOfDescription(lock!))) return;
  const holder = outside.holder({ link, status, description: { pid, fd } });
  if (holder === undefined) return;
  return {
    why: `it holds a file lock, and ${outsider(holder)} has the same open ` +
      `file, too, as descriptor ${holder.fd}`,
    remedy: "give --file-locks, if the outside gives the lock up before the " +
      "restore",
    option: "--file-locks",
  };
}

function classifyObject(
  pid: number,
  { fd, link, info }: SeenDescriptor,
  tree: TreeDescriptions,
): Verdict {
  if ((info.flags & O.PATH) !== 0) return ONLY_NAMED;
  const known = link === INOTIFY_LINK || link === FANOTIFY_LINK
    ? tree.targets.byPlace.get(nameOf({ pid, fd }))
    : undefined;
  const object = known?.object ?? parseKernelObject({ link, info })!;
  if (object.kind === "inotify" || object.kind === "fanotify") {
    const targets = known?.targets ?? [];
    return watchProblem(object, targets) ??
      { kind: "object", object, targets };
  }
  if (object.kind !== "epoll") return { kind: "object", object };
  const found = tree.watched.get(nameOf({ pid, fd }))!;
  const watched = found.filter((one) => one !== undefined);
  if (watched.length === found.length) {
    return { kind: "object", object, watched };
  }
  const index = found.indexOf(undefined);
  const line = object.watched[index];
  const before = object.watched.slice(0, index);
  const nth = before.filter(({ number }) => number === line.number).length;
  const holder = holderOfWatched({ pid, fd }, line, nth);
  const place = holder === undefined
    ? ""
    : `, but ${outsider(holder)}, as descriptor ${holder.fd}`;
  return {
    why: `it watches a file that was descriptor ${line.number} and that no ` +
      `process of the tree has open any more${place}`,
    remedy: `dump again when the file is closed everywhere`,
  };
}

/**
 * A descriptor of a file that has, or had, a path.
 *
 * @param pid by which it was looked at; @param task the process
 */
export function fileUse(
  pid: number,
  { fd, link, info, status }: SeenDescriptor,
  task = pid,
): FileUse {
  return {
    link,
    status,
    at: `/proc/${pid}/fd/${fd}`,
    holder: `descriptor ${fd}`,
    task,
    writes: (info.flags & O.ACCMODE) !== O.RDONLY,
  };
}

/** Whether a descriptor is of a file that has, or had, a path. */
export function hasPath(
  { link, info, status, queue }: SeenDescriptor,
): boolean {
  return status !== NO_STATUS && queue === undefined && link.startsWith("/") &&
    !(link.startsWith("/proc/") && /^\/proc\/\d/.test(link)) &&
    !link.startsWith("/memfd:") &&
    ((info.flags & O.PATH) !== 0 || !isTerminal(status));
}

/**
 * Files below /proc come back with the tasks they tell of. For one of a process
 * that has ended, or of a thread of a process of the tree, another stands in
 * while the file is opened.
 */
function classifyNamed(
  link: string,
  { pids, tids }: TreeDescriptions,
): Verdict {
  const found = /^\/proc\/(\d+)(?:\/task\/(\d+))?(?:\/| |$)/.exec(link);
  if (found === null) return { kind: "named" };
  const [pid, tid] = [Number(found[1]), Number(found[2] ?? found[1])];
  if (pids.has(pid) ? tids.has(tid) || tid === pid : taskExists(tid)) {
    return { kind: "named" };
  }
  if (tid === pid || pids.has(pid)) return { kind: "named", target: tid };
  return {
    why:
      `it tells of thread ${tid} of process ${pid}, which both have ended; ` +
      "saving such files is not supported",
  };
}

function classifyPipe(
  link: string,
  { external }: DescriptorOptions,
  holder: Holder | undefined,
): Verdict {
  if (external.includes(link) || external.includes(link.replace(":", ""))) {
    return { kind: "external pipe" };
  }
  if (holder === undefined) return { kind: "pipe" };
  return {
    why: `${
      outsider(holder)
    } has an end of it, too, as descriptor ${holder.fd}`,
    remedy: `if the outside gives a pipe again at restore: --external ` +
      `${link}, and then ckpt restore --inherit-fd fd[N]:${link}`,
    option: `--external ${link}`,
  };
}

function classifyFifo(
  external: string,
  holder: Holder | undefined,
): Verdict {
  if (holder === undefined) return { kind: "fifo" };
  return {
    why: `${outsider(holder)} has it open, too, as descriptor ${holder.fd}`,
    remedy: `if the outside gives it again at restore: --external ` +
      `${external}, and then ckpt restore --inherit-fd fd[N]:${external}`,
    option: `--external ${external}`,
  };
}

function outsider({ pid, name }: Holder): string {
  return `task ${pid} (${name}) outside of the program`;
}

function classifyPidfd(
  { flags, extra }: FdInfo,
  { pids, tids }: TreeDescriptions,
): Verdict {
  // PIDFD_THREAD of pidfd_open(2) is kept as O_EXCL.
  const known = (flags & O.EXCL) === 0 ? pids : tids;
  const line = extra.find((line) => line.startsWith("Pid:\t"));
  const target = Number(line?.slice("Pid:\t".length));
  if (target === GONE || known.has(target)) return { kind: "pidfd", target };
  return {
    why: target > 0
      ? `it is a pidfd of process ${target}, which is not part of what is ` +
        "dumped"
      : "it is a pidfd of a process of another pid namespace",
  };
}

/** CRIU's key for a terminal, of the device and the file system it is on. */
export function terminalKey(status: FileStatus): string {
  return `tty[${status.rdev.toString(16)}:${status.dev.toString(16)}]`;
}

/** An end of a terminal whose master the tree has; undefined: of another. */
function classifyPty(
  pid: number,
  { fd, link, status, terminal }: SeenDescriptor,
  { outside, masters }: TreeDescriptions,
): Verdict | undefined {
  if (terminal === undefined) return undefined;
  const { end, index, isExclusive } = terminal;
  if (terminal.isDead) {
    return end === "slave" ? { kind: "dead pty" } : {
      why: "it is /dev/tty of a terminal whose master is closed, which is " +
        "not supported",
    };
  }
  if (index === undefined) return undefined;
  const master = masters.get(index);
  if (master === undefined) return undefined;
  const { slave } = master;
  if (end === "master") {
    if (terminal.master!.slave.status.dev !== slave.status.dev) {
      return {
        why: `it is terminal ${index} of one file system of terminals, and ` +
          "the tree has another of this number, which is not supported",
      };
    }
    if (slave.path !== slavePath(link, index)) {
      return {
        why: `its slave is ${slave.path}, not ${slavePath(link, index)}, ` +
          "which is not supported",
      };
    }
  } else if (end === "slave") {
    if (status.dev !== slave.status.dev || link !== slave.path) {
      return undefined;
    }
  } else if (master.session === 0) {
    return {
      why: `it is /dev/tty, opened when that was ${slave.path}, which ` +
        "controls no session any more; that is not supported",
    };
  }
  const holder = outside.holder(
    end === "master"
      ? { link, status, description: { pid, fd } }
      : { link: slave.path, status: slave.status },
  );
  if (holder !== undefined) {
    return {
      why: `${outsider(holder)} has it open, too, as descriptor ${holder.fd}`,
      remedy: "end that process, or let it close the terminal",
    };
  }
  if (master.lineDiscipline !== 0) {
    return {
      why: `it is a terminal with line discipline ${master.lineDiscipline}, ` +
        "which is not supported",
    };
  }
  return { kind: "pty", terminal: { end, index, isExclusive, master } };
}

/** /dev/tty. */
const OWN_TERMINAL = { major: 5, minor: 0 };

function classifyTerminal(
  status: FileStatus,
  options: DescriptorOptions,
): Verdict {
  if (options.external.includes(terminalKey(status))) {
    return { kind: "terminal" };
  }
  const is = ({ major, minor }: { major: number; minor: number }) => {
    const numbers = deviceNumbers(status.rdev);
    return numbers.major === major && numbers.minor === minor;
  };
  const controlling = is(OWN_TERMINAL) ||
    is(deviceNumbers(BigInt(options.controllingTerminal)));
  if (!controlling) {
    return {
      why: "it is another terminal than the one that controls the program, " +
        "which is not supported yet",
      remedy: `if the outside gives it again at restore: --external ${
        terminalKey(status)
      }, and then ckpt restore --inherit-fd fd[N]:${terminalKey(status)}`,
    };
  }
  if (options.shellJob) return { kind: "terminal" };
  return {
    why: "it is a terminal that belongs to the outside",
    remedy: "give --shell-job, and restore on the terminal the program " +
      "shall use",
    option: "--shell-job",
  };
}
