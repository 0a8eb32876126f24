/**
 * Looks at a process from outside, without stopping it: what /proc tells, and
 * every reason why it cannot be saved. Done once before the process is stopped,
 * so that nothing is stopped in vain, and again when it stands still.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EPERM } from "../ffi/errno.ts";
import {
  type FileStatus,
  readLink,
  stat,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { type DescriptorPlan, planDescriptors } from "../files/descriptors.ts";
import { whyPathMisleads } from "../files/file_table.ts";
import { planVmas, type VmaPlan } from "../mm/vma.ts";
import { textOfBytes } from "../proc/bytes.ts";
import type { SmapsMapping } from "../proc/smaps.ts";
import {
  listThreads,
  readChildren,
  readLimits,
  readSmaps,
  readStat,
  readStatus,
  readTimers,
} from "../proc/read.ts";
import type { Limit } from "../proc/limits.ts";
import type { Stat } from "../proc/stat.ts";
import type { Status } from "../proc/status.ts";
import type { PosixTimer } from "../proc/timers.ts";
import type { DumpOptions } from "./options.ts";

/** A file the process uses without a descriptor. */
export interface UsedFile {
  path: string;
  status: FileStatus;
}

export interface Survey {
  readonly pid: number;
  readonly stat: Stat;
  readonly status: Status;
  readonly mappings: readonly SmapsMapping[];
  readonly vmas: VmaPlan;
  readonly descriptors: DescriptorPlan;
  readonly exe: UsedFile;
  readonly cwd: UsedFile;
  readonly root: UsedFile;
  readonly limits: readonly Limit[];
  readonly timers: readonly PosixTimer[];
  /** Why it cannot be saved; empty when it can. */
  readonly reasons: readonly Reason[];
  readonly neededOptions: readonly string[];
}

export type SurveyOptions = Pick<DumpOptions, "shellJob" | "external">;

/** How often a program is looked at that changes while we look. */
const TRIES = 5;

/**
 * Surveys a program that runs. Descriptors, threads and mappings may go away
 * between two looks, so it is tried again.
 *
 * @returns undefined when it never stood still for long enough
 */
export function surveyRunning(
  pid: number,
  options: SurveyOptions,
): Survey | undefined {
  for (let i = 0; i < TRIES; i++) {
    try {
      return surveyProcess(pid, options);
    } catch (error) {
      const vanished = error instanceof SyscallError ||
        error instanceof CkptError && error.exit === EXIT.gone;
      if (!vanished) throw error;
      readStat(pid); // throws when it is the process itself that is gone
    }
  }
  return undefined;
}

/** PF_KTHREAD of the kernel's include/linux/sched.h. */
const PF_KTHREAD = 0x200000;

/**
 * Refuses what has no memory to save: kernel threads, zombies, ckpt itself.
 *
 * @throws CkptError
 */
export function refuseImpossible(pid: number, action: string): void {
  const refuse = (why: string, remedy?: string) => {
    throw new CkptError(EXIT.refused, action, [{
      object: `task ${pid}`,
      why,
      remedy,
    }]);
  };
  if (pid === Deno.pid) refuse("this is ckpt itself");
  const { flags, state } = readStat(pid);
  if (flags & PF_KTHREAD) refuse("it is a thread of the kernel");
  if (state === "Z" || state === "X") {
    refuse("it has ended already (a zombie)");
  }
  const { tgid } = readStatus(pid);
  if (tgid !== pid) {
    refuse(
      `it is a thread of process ${tgid}`,
      `name the process: ckpt dump -t ${tgid}`,
    );
  }
}

/**
 * @throws CkptError when the process is gone or may not be looked at; what
 * cannot be saved is returned as reasons, all of them
 */
export function surveyProcess(
  pid: number,
  options: SurveyOptions,
): Survey {
  const stat = readStat(pid);
  const status = readStatus(pid);
  const reasons: Reason[] = [];
  const needed = new Set<string>();
  const object = `task ${pid}`;
  const add = (why: string, remedy?: string) =>
    reasons.push({ object, why, remedy });

  // Once it is stopped, ckpt itself is the tracer.
  if (status.tracerPid !== 0 && status.tracerPid !== Deno.pid) {
    add(
      `it is traced by task ${status.tracerPid}`,
      "end the debugger or tracer first",
    );
  }
  if (status.state === "T") {
    add(
      "it is stopped by a signal, which is not supported yet",
      `let it go on: kill -CONT ${pid}`,
    );
  }
  const children = readChildren(pid);
  if (children.length > 0) {
    add(
      `it has child processes (${children.join(", ")}); process trees are ` +
        "not supported yet",
    );
  }
  if (stat.session !== pid && !options.shellJob) {
    needed.add("--shell-job");
    add(
      `it belongs to session ${stat.session} of the outside`,
      "give --shell-job, or start the program with setsid",
    );
  }
  if (status.x86ThreadFeatures?.includes("shstk")) {
    add("it uses a shadow stack, which is not supported yet");
  }
  reasons.push(...otherNamespaces(pid), ...sharedWithParent(pid, stat.ppid));
  reasons.push(...threadsApart(pid));

  const exe = usedFile(pid, "exe");
  const cwd = usedFile(pid, "cwd");
  const root = usedFile(pid, "root");
  for (
    const [what, { path, status }] of [
      ["the program file", exe],
      ["the working directory", cwd],
      ["the root directory", root],
    ] as const
  ) {
    const why = whyPathMisleads(path, status);
    if (why !== undefined) {
      reasons.push({ object: `${what} ${path} of task ${pid}`, why });
    }
  }

  const mappings = readSmaps(pid);
  const vmas = planVmas(pid, mappings);
  reasons.push(...vmas.reasons, ...mappedFilesThatMislead(pid, vmas));
  const descriptors = planDescriptors(pid, {
    ...options,
    controllingTerminal: stat.ttyNr,
  });
  reasons.push(...descriptors.reasons);
  for (const option of descriptors.neededOptions) needed.add(option);

  return {
    pid,
    stat,
    status,
    mappings,
    vmas,
    descriptors,
    exe,
    cwd,
    root,
    limits: readLimits(pid),
    timers: readTimers(pid),
    reasons,
    neededOptions: [...needed],
  };
}

function usedFile(pid: number, name: string): UsedFile {
  const link = `/proc/${pid}/${name}`;
  try {
    return { path: textOfBytes(readLink(link)), status: stat(link) };
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(
      error.errno === EPERM ? EXIT.permission : EXIT.gone,
      `looking at task ${pid}`,
      [{ object: link, why: error.message }],
      { cause: error },
    );
  }
}

/** Namespaces by the names in /proc/PID/ns, and what they are (namespaces(7)). */
const NAMESPACES = [
  "cgroup",
  "ipc",
  "mnt",
  "net",
  "pid",
  "pid_for_children",
  "time",
  "time_for_children",
  "user",
  "uts",
] as const;

function otherNamespaces(pid: number): Reason[] {
  const reasons: Reason[] = [];
  for (const name of NAMESPACES) {
    let own: string;
    try {
      own = textOfBytes(readLink(`/proc/self/ns/${name}`));
    } catch (error) {
      // A kernel without this kind; or pid_for_children of a namespace in
      // which no process was made yet.
      if (error instanceof SyscallError) continue;
      throw error;
    }
    const theirs = textOfBytes(readLink(`/proc/${pid}/ns/${name}`));
    if (theirs !== own) {
      reasons.push({
        object: `task ${pid}`,
        why: `its ${name} namespace ${theirs} is not the one of ckpt (${own})`,
        remedy: "run ckpt in the same namespaces as the program: " +
          `nsenter -t ${pid} -a ckpt ...`,
      });
    }
  }
  return reasons;
}

/** kcmp(2) types. */
const KCMP = { vm: 1n, files: 2n, fs: 3n, sighand: 4n } as const;

function shares(a: number, b: number, type: bigint): boolean {
  try {
    return syscall("kcmp", BigInt(a), BigInt(b), type) === 0n;
  } catch (error) {
    // A parent outside our pid namespace or without memory shares nothing
    // that we could see.
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

function sharedWithParent(pid: number, ppid: number): Reason[] {
  if (ppid === 0) return [];
  const shared = Object.entries(KCMP)
    .filter(([, type]) => shares(pid, ppid, type)).map(([name]) => name);
  if (shared.length === 0) return [];
  return [{
    object: `task ${pid}`,
    why: `it shares its ${shared.join(", ")} with its parent ${ppid}, which ` +
      "is not supported",
  }];
}

/** Threads that left the descriptor table or directories of their process. */
function threadsApart(pid: number): Reason[] {
  const reasons: Reason[] = [];
  for (const tid of listThreads(pid)) {
    if (tid === pid) continue;
    for (const type of ["files", "fs"] as const) {
      try {
        if (
          syscall("kcmp", BigInt(pid), BigInt(tid), KCMP[type]) !== 0n &&
          !isEnding(tid)
        ) {
          reasons.push({
            object: `thread ${tid} of task ${pid}`,
            why: `it has its own ${
              type === "files" ? "descriptors" : "directories and umask"
            } (unshare), which is not supported`,
          });
        }
      } catch (error) {
        // The thread ended meanwhile.
        if (!(error instanceof SyscallError)) throw error;
      }
    }
  }
  return reasons;
}

/** A thread that ends gives its descriptors and directories away first. */
function isEnding(tid: number): boolean {
  const PF_EXITING = 0x4;
  return (readStat(tid).flags & PF_EXITING) !== 0;
}

/** Mapped files whose path leads to another file, or to none. */
function mappedFilesThatMislead(pid: number, plan: VmaPlan): Reason[] {
  const reasons: Reason[] = [];
  const seen = new Set<string>();
  for (const { path, link, entry, inode } of plan.vmas) {
    if (path === undefined) continue;
    const key = `${inode} ${path}`;
    if (seen.has(key)) continue;
    seen.add(key);
    const object = `mapping ${entry.start.toString(16)} of ${path} in ` +
      `task ${pid}`;
    try {
      const why = whyPathMisleads(
        path,
        stat(`/proc/${pid}/map_files/${link}`),
      );
      if (why !== undefined) reasons.push({ object, why });
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      // The program changes its mappings while we look: seen again when it
      // stands still.
      if (error.errno === EPERM) {
        reasons.push({
          object,
          why: error.message,
          remedy: "ckpt needs the capability CAP_CHECKPOINT_RESTORE or " +
            "CAP_SYS_ADMIN in the first user namespace",
        });
      }
    }
  }
  return reasons;
}

/** @throws CkptError refused, with all reasons, when there are any */
export function refuseFor(
  reasons: readonly Reason[],
  pid: number,
): void {
  if (reasons.length > 0) {
    throw new CkptError(EXIT.refused, `dumping task ${pid}`, reasons);
  }
}
