/**
 * Reads the files of `/proc` and gives them to their parsers. All functions
 * are synchronous and throw CkptError:
 *
 * - EXIT.gone when the task, its memory or the descriptor no longer exists;
 * - EXIT.permission when the kernel does not let this process read the file;
 * - EXIT.failed when this kernel has no such file, or its text is malformed.
 *
 * `pid` is a process, or any thread, as the pid namespace of the mounted
 * `/proc` numbers it. `/proc/TID` answers for the thread where the kernel
 * keeps the state by thread.
 */
import { CkptError, EXIT } from "../error.ts";
import { type AuxvEntry, parseAuxv } from "./auxv.ts";
import { EACCES, EINVAL, ENOENT, EPERM, ESRCH } from "../ffi/errno.ts";
import {
  listNumbers,
  readLinks,
  readSmallFile,
  readSmapsFile,
} from "../ffi/small_files.ts";
import { readLink, SyscallError } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { type CapabilityName, maskHasCapability } from "./capability.ts";
import { type CgroupMembership, parseCgroup } from "./cgroup.ts";
import { parseComm } from "./comm.ts";
import { type FdInfo, parseFdInfo } from "./fdinfo.ts";
import { type Limit, parseLimits } from "./limits.ts";
import { type Mapping, parseMaps } from "./maps.ts";
import { type MountInfo, parseMountInfo } from "./mountinfo.ts";
import { parseChildren } from "./pids.ts";
import {
  parseLoginuid,
  parseOomScoreAdj,
  parsePersonality,
  parseTimerslackNs,
} from "./single_value.ts";
import { parseSmaps, type SmapsMapping } from "./smaps.ts";
import { parseStat, type Stat } from "./stat.ts";
import { parseStatus, parseVmLocked, type Status } from "./status.ts";
import { type CurrentSyscall, parseSyscall, parseWchan } from "./syscall.ts";
import {
  parseSysvQueues,
  parseSysvSegments,
  parseSysvSemaphores,
  type SysvQueue,
  type SysvSegment,
  type SysvSemaphores,
} from "./sysvipc.ts";
import { parseTimers, type PosixTimer } from "./timers.ts";

export function readMaps(pid: number): readonly Mapping[] {
  return readAlike(pid, "maps", parseMaps);
}

/** The text that {@link readMaps} parses: to see whether anything changed. */
export function readMapsText(pid: number): string {
  return decodeText(readBytes(pid, pathOf(pid, "maps")));
}

/**
 * What decides something in smaps: the line that begins each record, as in
 * maps, and the VmFlags.
 */
export function readSmapsText(pid: number): string {
  const path = pathOf(pid, "smaps");
  try {
    return decodeText(readSmapsFile(path));
  } catch (error) {
    throw readFailure(error, pid, path);
  }
}

export function readSmaps(pid: number): SmapsMapping[] {
  return parseSmaps(readSmapsText(pid), pathOf(pid, "smaps"));
}

export function readStatus(pid: number): Status {
  return readWith(pid, "status", parseStatus);
}

export function readVmLocked(pid: number): number | undefined {
  return readWith(pid, "status", parseVmLocked);
}

export function readStat(pid: number): Stat {
  return readWith(pid, "stat", parseStat);
}

/**
 * Of one thread alone; of a leader, too, whose {@link readStat} tells of the
 * process: how that was stopped instead of how the leader ended (do_task_stat
 * in fs/proc/array.c).
 */
export function readThreadStat(pid: number, tid: number): Stat {
  return readWith(pid, `task/${tid}/stat`, parseStat);
}

export function readLimits(pid: number): readonly Limit[] {
  return readAlike(pid, "limits", parseLimits);
}

export function readTimers(pid: number): PosixTimer[] {
  return readWith(pid, "timers", parseTimers);
}

export function readFdInfo(pid: number, fd: number): FdInfo {
  return readWith(pid, `fdinfo/${fd}`, parseFdInfo);
}

export function readAuxv(pid: number): AuxvEntry[] {
  const path = pathOf(pid, "auxv");
  return parseAuxv(readBytes(pid, path), path);
}

export function readMountInfo(pid: number): MountInfo[] {
  return readWith(pid, "mountinfo", parseMountInfo);
}

export function readCgroup(pid: number): readonly CgroupMembership[] {
  return readAlike(pid, "cgroup", parseCgroup);
}

export function readComm(pid: number): string {
  return readWith(pid, "comm", parseComm);
}

export function readPersonality(pid: number): number {
  return readWith(pid, "personality", parsePersonality);
}

export function readOomScoreAdj(pid: number): number {
  return readWith(pid, "oom_score_adj", parseOomScoreAdj);
}

/** undefined when the kernel was built without auditing. */
export function readLoginuid(pid: number): number | undefined {
  const path = pathOf(pid, "loginuid");
  try {
    return parseLoginuid(decodeText(readSmallFile(path)), path);
  } catch (error) {
    if (
      error instanceof SyscallError && error.errno === ENOENT &&
      stateOf(pid) !== undefined
    ) {
      return undefined;
    }
    throw readFailure(error, pid, path);
  }
}

export function readTimerslackNs(pid: number): bigint {
  return readWith(pid, "timerslack_ns", parseTimerslackNs);
}

export function readSyscall(pid: number): CurrentSyscall {
  return readWith(pid, "syscall", parseSyscall);
}

export function readWchan(pid: number): string | undefined {
  return readWith(pid, "wchan", parseWchan);
}

/**
 * {@link readNamespace} of several, each with a newline.
 *
 * @param names as {@link readLinks} takes them
 */
export function readNamespaces(
  pid: number,
  names: Uint8Array<ArrayBuffer>,
): string {
  const path = pathOf(pid, "ns");
  try {
    return decodeText(readLinks(path, names));
  } catch (error) {
    throw readFailure(error, pid, path);
  }
}

/** What stands for a namespace: "net:[4026531840]" (namespaces(7)). */
export function readNamespace(pid: number, name: string): string {
  const path = pathOf(pid, `ns/${name}`);
  try {
    return decodeText(readLink(path));
  } catch (error) {
    throw readFailure(error, pid, path);
  }
}

/**
 * Children of all threads of a process, ascending. Complete only while the
 * process and its children are stopped.
 */
export function readChildren(pid: number): number[] {
  return listThreads(pid)
    .flatMap((tid) => readWith(pid, `task/${tid}/children`, parseChildren))
    .sort((a, b) => a - b);
}

/** Thread ids of a process, ascending. */
export function listThreads(pid: number): number[] {
  return list(pid, "task");
}

/** Open descriptors of a process, ascending. */
export function listDescriptors(pid: number): number[] {
  return list(pid, "fd");
}

/** All processes that `/proc` shows, ascending; threads are not in it. */
export function listProcesses(): number[] {
  return listNumbers("/proc");
}

/** Of ckpt's own ipc namespace; none where the kernel has no such objects. */
export function readSysvSegments(): SysvSegment[] {
  return readSysvObjects("shm", parseSysvSegments);
}

/** As {@link readSysvSegments}. */
export function readSysvQueues(): SysvQueue[] {
  return readSysvObjects("msg", parseSysvQueues);
}

/** As {@link readSysvSegments}. */
export function readSysvSemaphores(): SysvSemaphores[] {
  return readSysvObjects("sem", parseSysvSemaphores);
}

function readSysvObjects<T>(
  file: string,
  parse: (text: string, path: string) => T[],
): T[] {
  const path = `/proc/sysvipc/${file}`;
  try {
    return parse(decodeText(readSmallFile(path)), path);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOENT) return [];
    throw error;
  }
}

/** A new one with every call (random(4)); Deno's own takes longer to load. */
export function readRandomUuid(): string {
  return decodeText(readSmallFile("/proc/sys/kernel/random/uuid")).trimEnd();
}

/** Whether ckpt itself has the capability in its effective set. */
export function hasCapability(name: CapabilityName): boolean {
  return maskHasCapability(readStatus(Deno.pid).capEff, name);
}

function pathOf(pid: number, file: string): string {
  return `/proc/${pid}/${file}`;
}

function readWith<T>(
  pid: number,
  file: string,
  parse: (text: string, source: string) => T,
): T {
  const path = pathOf(pid, file);
  return parse(decodeText(readBytes(pid, path)), path);
}

/** The last text of a file, by its name, and what it says. */
const alike = new Map<string, { text: string; parsed: unknown }>();

/** Where most processes have the same text: it is parsed once. */
function readAlike<T>(
  pid: number,
  file: string,
  parse: (text: string, source: string) => T,
): T {
  const path = pathOf(pid, file);
  const text = decodeText(readBytes(pid, path));
  const last = alike.get(file);
  if (last?.text === text) return last.parsed as T;
  const parsed = parse(text, path);
  alike.set(file, { text, parsed });
  return parsed;
}

/** The bytes are good until the next file is read. */
function readBytes(pid: number, path: string): Uint8Array<ArrayBuffer> {
  try {
    return readSmallFile(path);
  } catch (error) {
    throw readFailure(error, pid, path);
  }
}

function list(pid: number, directory: string): number[] {
  const path = pathOf(pid, directory);
  try {
    return listNumbers(path);
  } catch (error) {
    throw readFailure(error, pid, path);
  }
}

/** What to do about a task that is not there, or not any more. */
export const NAME_ONE_THAT_RUNS = "name a process that runs: ps -e lists them";

/** Turns what the kernel said into the error of ckpt; passes others through. */
function readFailure(error: unknown, pid: number, path: string): unknown {
  if (!(error instanceof SyscallError)) return error;
  const fail = (
    exit: typeof EXIT[keyof typeof EXIT],
    object: string,
    why: string,
    remedy?: string,
  ) =>
    new CkptError(exit, `reading ${path}`, [{ object, why, remedy }], {
      cause: error,
    });

  // A zombie answers each file in its own way: an empty text, ESRCH, ENOENT, or
  // EINVAL (mountinfo).
  const { errno } = error;
  const denied = errno === EACCES || errno === EPERM;
  const notFound = errno === ENOENT;
  const noSuchProcess = errno === ESRCH;
  const invalid = errno === EINVAL;
  if (notFound || noSuchProcess || invalid) {
    const state = stateOf(pid);
    if (state === undefined) {
      return fail(
        EXIT.gone,
        `task ${pid}`,
        "it does not exist (any more)",
        NAME_ONE_THAT_RUNS,
      );
    }
    if (state === "Z" || state === "X") {
      return fail(EXIT.gone, `task ${pid}`, "it has ended and is a zombie");
    }
  }
  if (noSuchProcess) {
    return fail(
      EXIT.gone,
      `task ${pid}`,
      "it has no memory: it is a kernel thread or has just ended",
    );
  }
  if (notFound) {
    const descriptor = /\/fdinfo\/([0-9]+)$/.exec(path);
    if (descriptor !== null) {
      return fail(
        EXIT.gone,
        `descriptor ${descriptor[1]} of task ${pid}`,
        "it was closed",
      );
    }
    const thread = /\/task\/([0-9]+)\//.exec(path);
    if (thread !== null && stateOf(Number(thread[1])) === undefined) {
      return fail(
        EXIT.gone,
        `thread ${thread[1]} of task ${pid}`,
        "it does not exist any more",
      );
    }
    return fail(
      EXIT.failed,
      path,
      "this kernel has no such file",
      "use a kernel built with CONFIG_CHECKPOINT_RESTORE, " +
        "CONFIG_PROC_CHILDREN and CONFIG_PROC_PAGE_MONITOR",
    );
  }
  if (denied) {
    return fail(
      EXIT.permission,
      `task ${pid}`,
      `the kernel does not allow reading ${path}`,
      "run ckpt as root, or with CAP_SYS_PTRACE and CAP_CHECKPOINT_RESTORE " +
        "in the user namespace of the task",
    );
  }
  return fail(EXIT.failed, path, error.message);
}

/** The letter of the task's state, undefined when there is no such task. */
function stateOf(pid: number): string | undefined {
  const path = pathOf(pid, "stat");
  try {
    return parseStat(decodeText(readSmallFile(path)), path).state;
  } catch {
    return undefined;
  }
}
