/**
 * The descriptors of a process: what each one is, which share one open file
 * description, also with other processes, and which cannot be saved. Reads
 * only.
 */
import type { Reason } from "../error.ts";
import { ENOENT } from "../ffi/errno.ts";
import {
  close,
  deviceNumbers,
  type FileStatus,
  lstat,
  O,
  readLink,
  S_IF,
  stat,
  syscall,
  syscallBuffer0,
  SyscallError,
} from "../ffi/syscall.ts";
import type { fown_entry } from "../image/schema.gen.ts";
import { decodeText } from "../ffi/text.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { listDescriptors, readFdInfo } from "../proc/read.ts";
import { DescriptionIndex, type DescriptorPlace } from "./description_index.ts";
import { NO_OWNER, whyPathMisleads } from "./file_table.ts";
import {
  type Holder,
  isFifo,
  isPipe,
  type OutsideHolders,
  pipeKey,
} from "./outside_holders.ts";
import { readOwner } from "./owner.ts";
import type { PipeEnd } from "./pipe_contents.ts";

export const FD_CLOEXEC = 1;

/** One open file description (struct file), perhaps behind several numbers. */
export interface Description {
  readonly kind:
    | "named"
    | "terminal"
    | "pipe"
    /** A pipe that leads outside: the outside gives another at restore. */
    | "external pipe"
    | "fifo"
    | "pidfd"
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
  /** Of a pidfd: the process it stands for, {@link GONE} when it is gone. */
  readonly target: number | undefined;
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
}

/** Major numbers of terminals: tty, /dev/tty and console, pty slaves. */
const TERMINAL_MAJORS = new Set([4, 5, 136, 137, 138, 139, 140, 141, 142, 143]);
/** /dev/null, zero, full, random, urandom, kmsg and friends. */
const MEMORY_MAJOR = 1;

/** The words for what /proc/PID/fd/N shows of things that are no files. */
const NAMELESS: readonly (readonly [prefix: string, what: string])[] = [
  ["socket:", "a socket"],
  ["anon_inode:[eventfd]", "an eventfd"],
  ["anon_inode:[eventpoll]", "an epoll instance"],
  ["anon_inode:[signalfd]", "a signalfd"],
  ["anon_inode:[timerfd]", "a timerfd"],
  ["anon_inode:inotify", "an inotify instance"],
  ["anon_inode:[fanotify]", "a fanotify group"],
  ["anon_inode:[userfaultfd]", "a userfaultfd"],
  ["anon_inode:[io_uring]", "an io_uring"],
  ["anon_inode:", "a kernel object"],
  ["/memfd:", "a memfd"],
  ["net:[", "a namespace"],
  ["mnt:[", "a namespace"],
  ["pid:[", "a namespace"],
  ["user:[", "a namespace"],
  ["uts:[", "a namespace"],
  ["ipc:[", "a namespace"],
  ["time:[", "a namespace"],
  ["cgroup:[", "a namespace"],
];

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
  /** One that was seen before and has the same open file description. */
  readonly sameAs: DescriptorPlace | undefined;
}

/**
 * Looks at every descriptor.
 *
 * @param index the same for all processes of a tree
 * @throws CkptError or SyscallError when one is closed meanwhile
 */
export function lookAtDescriptors(
  pid: number,
  index: DescriptionIndex,
): SeenDescriptor[] {
  const pidfd = Number(syscall("pidfd_open", BigInt(pid)));
  try {
    return listDescriptors(pid).map((fd) => {
      const info = readFdInfo(pid, fd);
      const path = `/proc/${pid}/fd/${fd}`;
      const link = decodeText(readLink(path));
      const status = statusOf(path, pidfd, fd);
      const flags = info.flags & ~O.CLOEXEC;
      const sameAs = index.find(
        { pid, fd },
        `${link} ${flags} ${info.pos} ${info.mntId} ${status.ino}`,
      );
      const seen = { fd, link, info, status, sameAs };
      return sameAs !== undefined || (flags & O.PATH) !== 0
        ? { ...seen, owner: NO_OWNER, unconnected: false }
        : { ...seen, ...ask(pidfd, fd, isFifo({ link, status })) };
    });
  } finally {
    close(pidfd);
  }
}

/** The status of an open file, also of one below /proc whose task is gone. */
function statusOf(path: string, pidfd: number, fd: number): FileStatus {
  try {
    return stat(path);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno !== ENOENT) throw error;
  }
  const own = Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)));
  try {
    return stat(own);
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

/** The pipes and fifos that the processes of a tree have open. */
export function pipesAmong(
  processes: readonly {
    readonly pid: number;
    readonly descriptors: readonly SeenDescriptor[];
  }[],
): SeenPipe[] {
  const pipes = new Map<string, SeenPipe & { ends: PipeEnd[] }>();
  for (const { pid, descriptors } of processes) {
    for (const { fd, link, info, status, sameAs } of descriptors) {
      if (sameAs !== undefined || !isOpenPipe({ link, info, status })) continue;
      const key = pipeKey({ link, status });
      const pipe = pipes.get(key) ?? { key, link, status, ends: [] };
      pipes.set(key, pipe);
      pipe.ends.push({ pid, fd, flags: info.flags });
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

/** What is known of a whole tree while its processes are planned. */
export class TreeDescriptions {
  /** Undefined for what is refused. By the first place of each. */
  readonly #known = new Map<string, Description | undefined>();

  /** @param pids all processes of the tree */
  constructor(
    readonly pids: ReadonlySet<number>,
    readonly outside: OutsideHolders,
  ) {}

  has(place: DescriptorPlace): boolean {
    return this.#known.has(nameOf(place));
  }

  get(place: DescriptorPlace): Description | undefined {
    return this.#known.get(nameOf(place));
  }

  set(place: DescriptorPlace, description: Description | undefined): void {
    this.#known.set(nameOf(place), description);
  }
}

function nameOf({ pid, fd }: DescriptorPlace): string {
  return `${pid} ${fd}`;
}

/**
 * Decides for every descriptor how it is saved. What is refused is told once,
 * with its first descriptor.
 *
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
    // Record locks belong to the process, not to the description.
    if (!tree.has(first) || info.locks.length > 0) {
      const verdict = classify(descriptor, options, tree);
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

const POLLHUP = 0x10;

/** What only a descriptor of ckpt's own can be asked. */
function ask(
  pidfd: number,
  fd: number,
  fifo: boolean,
): Pick<SeenDescriptor, "owner" | "unconnected"> {
  const own = Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)));
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
  syscallBuffer0("poll", new Uint8Array(pollfd.buffer), 1n, 0n);
  return pollfd[3];
}

type Verdict =
  | { kind: Description["kind"]; target?: number }
  | { why: string; remedy?: string; option?: string };

function classify(
  { link, info, status }: SeenDescriptor,
  options: DescriptorOptions,
  tree: TreeDescriptions,
): Verdict {
  if (info.locks.length > 0) {
    return { why: "it holds a file lock, which is not supported yet" };
  }
  const external = `file[${info.mntId.toString(16)}:${status.ino}]`;
  if (options.external.includes(external)) return { kind: "external" };
  if (isOpenPipe({ link, info, status })) {
    const holder = tree.outside.holder({ link, status });
    return isFifo({ link, status })
      ? classifyFifo(link, status, external, holder)
      : classifyPipe(link, options, holder);
  }
  if (PIDFD_LINK.test(link)) return classifyPidfd(info, tree.pids);
  for (const [prefix, what] of NAMELESS) {
    if (link.startsWith(prefix)) {
      return { why: `${what} is not supported yet` };
    }
  }
  if ((info.flags & O.PATH) === 0) {
    switch (status.mode & S_IF.MT) {
      case S_IF.CHR: {
        const { major } = deviceNumbers(status.rdev);
        if (TERMINAL_MAJORS.has(major)) {
          return classifyTerminal(status, options);
        }
        if (major !== MEMORY_MAJOR) {
          return {
            why: `the device ${major}:${
              deviceNumbers(status.rdev).minor
            } is not supported`,
          };
        }
        break;
      }
      case S_IF.BLK:
        return { why: "a block device is not supported yet" };
      case S_IF.SOCK:
        return { why: "a socket is not supported yet" };
    }
  }
  const why = whyTaskIsMissing(link) ?? whyPathMisleads(link, status);
  return why === undefined ? { kind: "named" } : { why };
}

/** Files below /proc come back with the processes they tell of. */
function whyTaskIsMissing(link: string): string | undefined {
  const found = /^\/proc\/(\d+)(?:\/task\/(\d+))?(?:\/|$)/.exec(link);
  if (found === null) return undefined;
  const [, pid, tid = pid] = found;
  if (tid !== pid) return "a file of a thread in /proc is not supported yet";
  try {
    lstat(`/proc/${pid}`);
    return undefined;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return `it tells of process ${pid}, which has ended; saving such files ` +
      "is not supported yet";
  }
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
  link: string,
  status: FileStatus,
  external: string,
  holder: Holder | undefined,
): Verdict {
  const why = whyPathMisleads(link, status);
  if (why !== undefined) return { why };
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

/** Some kernels name it by its inode. */
const PIDFD_LINK = /^(anon_inode:\[pidfd\]|pidfd:\[\d+\])$/;

function classifyPidfd(
  { flags, extra }: FdInfo,
  pids: ReadonlySet<number>,
): Verdict {
  // PIDFD_THREAD of pidfd_open(2) is kept as O_EXCL.
  if ((flags & O.EXCL) !== 0) {
    return { why: "a pidfd of a thread is not supported yet" };
  }
  const line = extra.find((line) => line.startsWith("Pid:\t"));
  const target = Number(line?.slice("Pid:\t".length));
  if (target === GONE || pids.has(target)) return { kind: "pidfd", target };
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

/** /dev/ptmx, and /dev/tty. */
const PTY_MASTER = { major: 5, minor: 2 };
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
  if (is(PTY_MASTER)) {
    return {
      why: "a terminal that the program makes itself (pty master) is " +
        "not supported yet",
    };
  }
  const controlling = is(OWN_TERMINAL) ||
    is(deviceNumbers(BigInt(options.controllingTerminal)));
  if (!controlling && options.shellJob) {
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
