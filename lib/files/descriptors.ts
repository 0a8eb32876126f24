/**
 * The descriptors of a process: what each one is, which share one open file
 * description, and which cannot be saved. Reads only.
 */
import type { Reason } from "../error.ts";
import {
  close,
  deviceNumbers,
  type FileStatus,
  O,
  readLink,
  S_IF,
  stat,
  syscall,
} from "../ffi/syscall.ts";
import type { fown_entry } from "../image/schema.gen.ts";
import { decodeText } from "../ffi/text.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { listDescriptors, readFdInfo } from "../proc/read.ts";
import { NO_OWNER, whyPathMisleads } from "./file_table.ts";
import { readOwner } from "./owner.ts";

export const FD_CLOEXEC = 1;

/** One open file description (struct file), perhaps behind several numbers. */
export interface Description {
  readonly kind: "named" | "terminal" | "pipe" | "external";
  /** What /proc/PID/fd/N leads to. */
  readonly link: string;
  /** O_* flags without O_CLOEXEC. */
  readonly flags: number;
  readonly pos: bigint;
  readonly owner: fown_entry;
  readonly status: FileStatus;
  readonly mountId: number;
}

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
  ["anon_inode:[pidfd]", "a pidfd"],
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
  readonly owner: fown_entry;
  /** A lower number that stands for the same open file description. */
  readonly sameAs: number | undefined;
}

/**
 * Looks at every descriptor.
 *
 * @throws CkptError or SyscallError when one is closed meanwhile
 */
export function lookAtDescriptors(pid: number): SeenDescriptor[] {
  const alike = new Map<string, number[]>();
  const pidfd = Number(syscall("pidfd_open", BigInt(pid)));
  try {
    return listDescriptors(pid).map((fd) => {
      const info = readFdInfo(pid, fd);
      const path = `/proc/${pid}/fd/${fd}`;
      const link = decodeText(readLink(path));
      const status = stat(path);
      const flags = info.flags & ~O.CLOEXEC;
      const key = `${link} ${flags} ${info.pos} ${status.ino}`;
      const others = alike.get(key) ?? [];
      const sameAs = others.find((other) => sameDescription(pid, other, fd));
      if (sameAs === undefined) alike.set(key, [...others, fd]);
      const owner = sameAs === undefined ? ownerOf(pidfd, fd, flags) : NO_OWNER;
      return { fd, link, info, status, owner, sameAs };
    });
  } finally {
    close(pidfd);
  }
}

/** Decides for every descriptor how it is saved. */
export function planDescriptors(
  pid: number,
  seen: readonly SeenDescriptor[],
  options: DescriptorOptions,
): DescriptorPlan {
  const reasons: Reason[] = [];
  const needed = new Set<string>();
  const descriptors: Descriptor[] = [];
  const descriptions = new Map<number, Description>();
  for (const { fd, link, info, status, owner, sameAs } of seen) {
    const verdict = classify(link, info, status, options);
    if ("why" in verdict) {
      if (verdict.option !== undefined) needed.add(verdict.option);
      reasons.push({
        object: `descriptor ${fd} (${link}) of task ${pid}`,
        why: verdict.why,
        remedy: verdict.remedy,
      });
      continue;
    }
    const description = descriptions.get(sameAs ?? fd) ?? {
      kind: verdict.kind,
      link,
      flags: info.flags & ~O.CLOEXEC,
      pos: info.pos,
      owner,
      status,
      mountId: info.mntId,
    };
    descriptions.set(fd, description);
    const closeOnExec = (info.flags & O.CLOEXEC) !== 0;
    descriptors.push({ fd, closeOnExec, description });
  }
  return { descriptors, reasons, neededOptions: [...needed] };
}

const KCMP_FILE = 0n;

/** kcmp(2): whether two descriptors are one open file description. */
function sameDescription(pid: number, a: number, b: number): boolean {
  const task = BigInt(pid);
  return syscall("kcmp", task, task, KCMP_FILE, BigInt(a), BigInt(b)) === 0n;
}

function ownerOf(pidfd: number, fd: number, flags: number): fown_entry {
  const own = Number(
    syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)),
  );
  try {
    return (flags & O.PATH) !== 0 ? NO_OWNER : readOwner(own);
  } finally {
    close(own);
  }
}

type Verdict =
  | { kind: Description["kind"] }
  | { why: string; remedy?: string; option?: string };

function classify(
  link: string,
  info: FdInfo,
  status: FileStatus,
  options: DescriptorOptions,
): Verdict {
  if (info.locks.length > 0) {
    return { why: "it holds a file lock, which is not supported yet" };
  }
  const external = `file[${info.mntId.toString(16)}:${status.ino}]`;
  if (options.external.includes(external)) return { kind: "external" };
  if (link.startsWith("pipe:[")) {
    if (
      options.external.includes(link) ||
      options.external.includes(link.replace(":", ""))
    ) return { kind: "pipe" };
    return {
      why: "a pipe is not supported yet, unless it leads outside the program",
      remedy: `if the outside gives a pipe again at restore: --external ` +
        `${link}, and then ckpt restore --inherit-fd fd[N]:${link}`,
      option: `--external ${link}`,
    };
  }
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
      case S_IF.IFO:
        return { why: "a named pipe (fifo) is not supported yet" };
      case S_IF.SOCK:
        return { why: "a socket is not supported yet" };
    }
  }
  const why = whyPathMisleads(link, status);
  return why === undefined ? { kind: "named" } : { why };
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
