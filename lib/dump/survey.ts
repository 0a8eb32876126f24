/**
 * Looks at a process from outside, without stopping it: what /proc tells, and
 * every reason why it cannot be saved. Done once before the process is stopped,
 * so that nothing is stopped in vain, and again when it stands still.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EPERM } from "../ffi/errno.ts";
import {
  type FileStatus,
  O,
  readLink,
  stat,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  type DescriptorLook,
  type DescriptorPlan,
  fileUse,
  hasPath,
  lookAgainAtDescriptors,
  planDescriptors,
  type SeenDescriptor,
  type SeenTable,
  type TreeDescriptions,
  TreeLook,
} from "../files/descriptors.ts";
import { sorted } from "../files/sorted_descriptors.ts";
import type { FilesInUse, FileUse } from "../ghost/files_in_use.ts";
import { statx } from "../ghost/calls.ts";
import { explainUntold } from "../ghost/untold.ts";
import { DELETED_MARK } from "../proc/maps.ts";
import { describeMapping, type Vma, type VmaPlan } from "../mm/vma.ts";
import { type Areas, readAreas, readMappings } from "../mm/known_areas.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import { tracerPid } from "../ffi/tracer_pid.ts";
import type { SmapsMapping } from "../proc/smaps.ts";
import {
  listThreads,
  NAME_ONE_THAT_RUNS,
  readMapsText,
  readNamespace,
  readNamespaces,
  readStat,
  readStatus,
  readThreadStat,
  readTimers,
} from "../proc/read.ts";
import type { Stat } from "../proc/stat.ts";
import type { Status } from "../proc/status.ts";
import type { PosixTimer } from "../proc/timers.ts";
import { expectedNamespace, isEntered } from "../ns/inside.ts";
import type { NamespaceKind } from "../ns/kinds.ts";
import { KCMP } from "../task/shared_objects.ts";
import { livingThread } from "../task/process_tree.ts";
import type { SeenNamespaces, TreeNamespace } from "../mnt/tree_namespaces.ts";
import type { DumpOptions } from "./options.ts";

/** A file the process uses without a descriptor. */
export interface UsedFile {
  path: string;
  status: FileStatus;
  /** Of its mount; only where the process has a mount namespace of its own. */
  mountId?: number;
}

/** What was seen of a process at one moment; nothing is judged yet. */
export interface Sighting extends Areas {
  readonly pid: number;
  readonly threads: readonly number[];
  /** The thread that was asked: the leader, unless that has ended. */
  readonly tid: number;
  readonly stat: Stat;
  readonly status: Status;
  /** Those of the tree that have not ended. */
  readonly children: readonly number[];
  /** What is left of the leader where only that has ended. */
  readonly endedLeader: EndedLeader | undefined;
  readonly descriptors: readonly SeenDescriptor[];
  /** The look by which these were found. */
  readonly look: DescriptorLook;
  readonly exe: UsedFile;
  readonly cwd: UsedFile;
  readonly root: UsedFile;
  readonly timers: readonly PosixTimer[];
  /** Mapped files by path and inode, each with one of its areas. */
  readonly mappedFiles: readonly MappedFile[];
  /** What cannot be told from the rest, only asked while it stands still. */
  readonly reasons: readonly Reason[];
  /** Its mount namespace, where that is not ckpt's own. */
  readonly namespace?: TreeNamespace;
}

/** A thread that has ended, but leads the process still. */
export interface EndedLeader {
  readonly stat: Stat;
  readonly status: Status;
}

export interface MappedFile {
  readonly vma: Vma;
  /** As /proc/PID/map_files leads to it; undefined when that was refused. */
  readonly status: FileStatus | undefined;
  /** As of {@link UsedFile}. */
  readonly mountId?: number;
}

/** What is to be known of a process in a mount namespace of its own. */
export function inNamespace(
  seen: Sighting,
  namespace: TreeNamespace,
): Sighting {
  const { tid, mappedFiles } = seen;
  const at = (name: string) => Number(statx(`/proc/${tid}/${name}`).mountId);
  const used = (name: "exe" | "cwd" | "root") => ({
    ...seen[name],
    mountId: at(name),
  });
  return {
    ...seen,
    namespace,
    exe: used("exe"),
    cwd: used("cwd"),
    root: used("root"),
    mappedFiles: mappedFiles.map((file) =>
      file.status === undefined
        ? file
        : { ...file, mountId: at(`map_files/${file.vma.link}`) }
    ),
  };
}

export interface Survey extends Omit<Sighting, "descriptors"> {
  readonly descriptors: DescriptorPlan;
  /** Its mount namespace is another one, and was not looked at. */
  readonly hasOtherMounts: boolean;
  readonly neededOptions: readonly string[];
}

export interface SurveyOptions extends
  Pick<
    DumpOptions,
    | "shellJob"
    | "external"
    | "fileLocks"
    | "freezeCgroup"
    | "linkRemap"
    | "ghostLimit"
    | "irmapScanPaths"
    | "forceIrmap"
    | "tcpEstablished"
    | "tcpClose"
    | "skipInFlight"
    | "extUnixSk"
  > {
  /** The root of the tree. */
  root: number;
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
  const stat = readStat(pid);
  if (stat.flags & PF_KTHREAD) refuse("it is a thread of the kernel");
  if (livingThread(stat) === undefined) {
    refuse("it has ended already (a zombie)", NAME_ONE_THAT_RUNS);
  }
  const { tgid } = readStatus(pid);
  if (tgid !== pid) {
    refuse(
      `it is a thread of process ${tgid}`,
      `name the process: ckpt dump -t ${tgid}`,
    );
  }
}

/** What is known already of a process that is looked at. */
interface Known {
  /**
   * An earlier look, whose areas are taken where they are still the same: the
   * flags of areas are only in smaps, for which the kernel walks all pages
   * (150 ms for a GiB). To be confirmed by {@link confirmAreas}.
   */
  readonly before?: Sighting | undefined;
  /** The same for all processes of a tree. */
  readonly treeLook?: TreeLook;
  /** An earlier look at its descriptors. */
  readonly lookBefore?: DescriptorLook | undefined;
  /** A thread of it that has not ended, the leader where that has not. */
  readonly tid?: number;
  /** Of the leader, read a moment ago. */
  readonly stat?: Stat;
  /** Those of the tree that have not ended. */
  readonly children?: readonly number[];
}

/**
 * Reads everything that /proc tells. Short, because the process may stand
 * still for it.
 */
export function lookAtProcess(pid: number, known: Known = {}): Sighting {
  const { treeLook = new TreeLook(), tid = pid, children = [] } = known;
  const endedLeader = tid === pid
    ? undefined
    : { stat: readThreadStat(pid, pid), status: readStatus(pid) };
  const stat = {
    ...tid === pid && known.stat || readStat(tid),
    // What only the leader has.
    ...endedLeader && { pid, exitSignal: endedLeader.stat.exitSignal },
  };
  const status = readStatus(tid);
  const { smaps, mappings, vmas } = sameAreas(known.before, tid, status) ??
    readAreas(pid, tid);
  const threads = tid === pid && stat.numThreads === 1
    ? [pid]
    : listThreads(pid);
  const look = lookAgainAtDescriptors(tid, treeLook, known.lookBefore);
  return {
    pid,
    tid,
    stat,
    status,
    endedLeader,
    children,
    smaps,
    mappings,
    vmas,
    look,
    descriptors: look.descriptors,
    exe: usedFile(tid, "exe"),
    cwd: usedFile(tid, "cwd"),
    root: usedFile(tid, "root"),
    timers: readTimers(tid),
    mappedFiles: lookAtMappedFiles(tid, vmas),
    threads,
    reasons: threadsApart(pid, tid, threads),
  };
}

/** What an earlier look says of the areas, where they did not change since. */
function sameAreas(
  before: Sighting | undefined,
  tid: number,
  { vmLocked }: Status,
): Areas | undefined {
  return before !== undefined && vmLocked === before.status.vmLocked &&
      readMapsText(tid) === before.smaps.replaceAll(/^VmFlags:.*\n/gm, "")
    ? before
    : undefined;
}

/** VmFlags that a copy made by fork has not, or not for the same reason. */
const FLAGS_NOT_COPIED: ReadonlySet<string> = new Set(["lo", "lf", "sd"]);

/**
 * Makes sure that areas had the flags that an earlier look gave them, by those
 * of the copy that was made when the process stood still. Only a change of
 * advice (madvise(2)) between the two looks can differ.
 *
 * @throws CkptError naming the area
 */
export function confirmAreas({ pid, mappings }: Sighting, copy: number): void {
  const copied = readMappings(copy);
  if (confirmed.get(copied) === mappings) return;
  const plain = (flags: ReadonlySet<string>) =>
    [...flags].filter((flag) => !FLAGS_NOT_COPIED.has(flag)).join(" ");
  let at = 0;
  for (const mapping of mappings) {
    while (at < copied.length && copied[at].end <= mapping.start) at++;
    // The agent's memory is in the copy, too, and may have grown together with
    // an area beside it; and parts of an area may differ by now.
    const parts: SmapsMapping[] = [];
    for (let i = at; i < copied.length; i++) {
      if (copied[i].start >= mapping.end) break;
      parts.push(copied[i]);
    }
    const flags = plain(mapping.vmFlags);
    if (
      mapping.vmFlags.has("dc") ? parts.length === 0 : parts.length > 0 &&
        parts.every((part) => plain(part.vmFlags) === flags)
    ) continue;
    throw new ChangedMeanwhile(EXIT.failed, `dumping task ${pid}`, [{
      object: describeMapping(pid, mapping),
      why: "the program changed it (madvise) at the moment of the dump",
      remedy: "dump again",
    }]);
  }
  confirmed.set(copied, mappings);
}

/** Areas of copies, with those that they confirm. */
const confirmed = new WeakMap<
  readonly SmapsMapping[],
  readonly SmapsMapping[]
>();

/** Two looks at a program do not fit together; the next two may. */
export class ChangedMeanwhile extends CkptError {}

/**
 * Finds every reason why a process cannot be saved.
 *
 * @param tree the same for all processes of a tree
 * @param copy of the process, where it may go on meanwhile; else its thread
 */
export function judge(
  seen: Sighting,
  options: SurveyOptions,
  tree: TreeDescriptions,
  copy = seen.tid,
): Survey {
  const { pid, stat, status, vmas } = seen;
  const reasons: Reason[] = [];
  const needed = new Set<string>();
  const object = `task ${pid}`;
  const add = (why: string, remedy?: string) =>
    reasons.push({ object, why, remedy });

  // Once it is stopped, ckpt itself is the tracer.
  if (status.tracerPid !== 0 && status.tracerPid !== tracerPid()) {
    add(
      `it is traced by task ${status.tracerPid}`,
      "end the debugger or tracer first",
    );
  }
  if (options.root === pid && stat.session !== pid && !options.shellJob) {
    needed.add("--shell-job");
    add(
      `it belongs to session ${stat.session} of the outside`,
      "give --shell-job, or start the program with setsid",
    );
  }
  if (status.x86ThreadFeatures?.includes("shstk")) {
    add("it uses a shadow stack, which is not supported yet");
  }
  const namespaces = otherNamespaces(pid, copy, options.root).filter((
    { name },
  ) => name !== "mnt" || seen.namespace === undefined);
  reasons.push(...namespaces.map(({ reason }) => reason), ...seen.reasons);
  reasons.push(...vmas.reasons, ...unknownMappedFiles(seen));
  const descriptors = planDescriptors(seen.tid, seen.descriptors, {
    ...options,
    controllingTerminal: stat.ttyNr,
  }, tree);
  reasons.push(...descriptors.reasons);
  for (const option of descriptors.neededOptions) needed.add(option);
  return {
    ...seen,
    descriptors,
    reasons,
    neededOptions: [...needed],
    hasOtherMounts: namespaces.some(({ name }) => name === "mnt"),
  };
}

function usedFile(pid: number, name: string): UsedFile {
  const link = `/proc/${pid}/${name}`;
  try {
    return { path: decodeText(readLink(link)), status: stat(link) };
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    const explained = explainUntold(error, link);
    if (explained !== error) throw explained;
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

/** Of a process that is where it has to be; asked by one call. */
let usual: ReturnType<typeof usualNamespaces> | undefined;

function usualNamespaces(): {
  names: Uint8Array<ArrayBuffer>;
  links: string;
} {
  const known = NAMESPACES.filter((name) =>
    expectedNamespace(name) !== undefined
  );
  const end = "\0";
  return {
    names: encodeText(known.map((name) => name + end).join("") + end),
    links: known.map((name) => `${expectedNamespace(name)}\n`).join(""),
  };
}

/**
 * A tree may be in namespaces of its own of those kinds that ckpt enters; all
 * of it in the same.
 *
 * @throws CkptError when the copy is gone, or may not be looked at
 */
function otherNamespaces(
  pid: number,
  copy: number,
  root: number,
): { name: string; reason: Reason }[] {
  usual ??= usualNamespaces();
  if (readNamespaces(copy, usual.names) === usual.links) return [];
  const others: { name: string; reason: Reason }[] = [];
  for (const name of NAMESPACES) {
    const expected = expectedNamespace(name);
    if (expected === undefined) continue;
    const theirs = readNamespace(copy, name);
    if (theirs === expected) continue;
    // All of a tree may be in one that is not ckpt's; see lib/ns/cgroup.ts.
    const isTrees = name === "cgroup" && (pid === root ||
      theirs === readNamespace(livingThread(readStat(root)) ?? root, name));
    if (!isTrees) {
      const reason = {
        object: `task ${pid}`,
        why: `its ${name} namespace ${theirs} is not the one of ` +
          (isEntered(name as NamespaceKind) ? "the root" : "ckpt") +
          ` (${expected})`,
        remedy: "run ckpt in the same namespaces as the program: " +
          `nsenter -t ${pid} -a ckpt ...`,
      };
      others.push({ name, reason });
    }
  }
  return others;
}

/** Threads that left the descriptor table or directories of their process. */
function threadsApart(
  pid: number,
  first: number,
  threads: readonly number[],
): Reason[] {
  const reasons: Reason[] = [];
  for (const tid of threads) {
    if (tid === pid || tid === first) continue;
    for (const type of ["files", "fs"] as const) {
      try {
        if (
          syscall("kcmp", BigInt(first), BigInt(tid), KCMP[type]) !== 0n &&
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

/** Each mapped file once. */
function lookAtMappedFiles(pid: number, plan: VmaPlan): MappedFile[] {
  const seen = new Set<string>();
  const files: MappedFile[] = [];
  for (const vma of plan.vmas) {
    if (vma.path === undefined) continue;
    const key = mappedFileKey(vma);
    if (seen.has(key)) continue;
    seen.add(key);
    try {
      const status = stat(`/proc/${pid}/map_files/${vma.link}`);
      files.push({ vma, status });
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const object = `${nameOfMapping(vma)} (${vma.path}) of task ${pid}`;
      const explained = explainUntold(error, object);
      if (explained !== error) throw explained;
      // EPERM; or the program changes its mappings while we look.
      if (error.errno === EPERM) files.push({ vma, status: undefined });
    }
  }
  return files;
}

/**
 * The same for mappings of one file. Of two that are deleted, or on two
 * subvolumes, path and inode number may be the same, and the device tells them
 * apart only in their status (btrfs, overlayfs).
 */
export function mappedFileKey({ inode, path, link }: Vma): string {
  return path?.endsWith(DELETED_MARK)
    ? `${inode} ${path} ${link}`
    : `${inode} ${path}`;
}

function nameOfMapping({ entry }: Vma): string {
  return `mapping ${entry.start.toString(16)}`;
}

function unknownMappedFiles({ pid, mappedFiles }: Sighting): Reason[] {
  return mappedFiles.flatMap(({ vma, status }) =>
    status !== undefined ? [] : [{
      object: `${nameOfMapping(vma)} (${vma.path}) of task ${pid}`,
      why: "the kernel does not say which file it is (map_files)",
      remedy: "ckpt needs the capability CAP_CHECKPOINT_RESTORE or " +
        "CAP_SYS_ADMIN in the first user namespace",
    }]
  );
}

/** What a process uses but for descriptors: program, directories, mappings. */
function filesWithoutDescriptor(
  { pid, tid, exe, cwd, root, mappedFiles }: Sighting,
): (FileUse & { mountId?: number })[] {
  const used = (
    what: string,
    name: string,
    { path, status, mountId }: UsedFile,
  ) => ({
    link: path,
    status,
    mountId,
    at: `/proc/${tid}/${name}`,
    holder: what,
    task: pid,
    writes: false,
  });
  return [
    used("the program file", "exe", exe),
    used("the working directory", "cwd", cwd),
    used("the root directory", "root", root),
    ...mappedFiles.flatMap(({ vma, status, mountId }) =>
      status === undefined ? [] : [{
        link: vma.path!,
        status,
        mountId,
        at: `/proc/${tid}/map_files/${vma.link}`,
        holder: nameOfMapping(vma),
        task: pid,
        writes: vma.entry.fdflags === O.RDWR,
      }]
    ),
  ];
}

/**
 * Notes all files that a process uses by a path, or once did.
 *
 * @param external as given by --external: files of the outside
 * @param namespaces where processes have mount namespaces of their own
 */
export function noteFiles(
  seen: Sighting,
  files: FilesInUse,
  external: readonly string[],
  namespaces?: SeenNamespaces,
): void {
  noteDescriptors(seen, files, external, namespaces);
  for (const { mountId, ...use } of filesWithoutDescriptor(seen)) {
    files.look({
      ...use,
      way: mountId === undefined
        ? undefined
        : namespaces?.wayIn(mountId, use.link, use.at),
    });
  }
}

/** Notes the files behind descriptors, see {@link noteFiles}. */
export function noteDescriptors(
  { pid, tid = pid, descriptors }: SeenTable,
  files: FilesInUse,
  external: readonly string[],
  namespaces?: SeenNamespaces,
): void {
  for (const descriptor of sorted(descriptors).named) {
    const { fd, link, info, status } = descriptor;
    if (
      !hasPath(descriptor) ||
      external.length > 0 &&
        external.includes(`file[${info.mntId.toString(16)}:${status.ino}]`)
    ) continue;
    const way = namespaces?.wayIn(info.mntId, link, `/proc/${tid}/fd/${fd}`);
    if (way === undefined && files.noteNameless(descriptor, tid, pid)) continue;
    files.look({ ...fileUse(tid, descriptor, pid), way });
  }
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
