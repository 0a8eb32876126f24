/** Turns what was collected into the images of a tree. */
import type { ImageWriter } from "../image/image_writer.ts";
import type { Feature } from "../image/features.ts";
import { describeSegments } from "./describe_segments.ts";
import { sharedMemoryImage } from "./shared_memory.ts";
import {
  type ckpt_area_entry,
  type ckpt_cgroup_namespace_entry,
  type ckpt_ended_entry,
  type ckpt_file_entry,
  type ckpt_ghost_entry,
  type ckpt_semaphore_undo_entry,
  type ckpt_task_entry,
  type core_entry,
  core_entry_march,
  type inventory_entry,
  lsmtype,
  type memfd_inode_entry,
  seccomp_mode,
  type task_core_entry,
  type task_kobj_ids_entry,
  type tty_info_entry,
  TtyType,
  type vma_entry,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { describeMemory } from "../mm/memory_map.ts";
import { describeInherited } from "../mm/inherited_pages.ts";
import type { StoredPages } from "../mm/page_copy.ts";
import { O } from "../ffi/syscall.ts";
import type { Description } from "../files/descriptors.ts";
import { dumpLocks } from "../files/file_locks.ts";
import type { MappedFlocks } from "../files/mapped_flocks.ts";
import type { FileTable } from "../files/file_table.ts";
import type { SocketQueues } from "../files/sockets.ts";
import type { ReadConnections } from "../files/tcp_connection.ts";
import { isEntered } from "../ns/inside.ts";
import { DUMPER_NAMESPACES, type NamespaceIds } from "../ns/kinds.ts";
import type { Stat } from "../proc/stat.ts";
import type { Status } from "../proc/status.ts";
import { dumpResourceLimits } from "../task/resource_limits.ts";
import {
  dumpAffinity,
  dumpSchedulingExtension,
  type StandardScheduling,
} from "../task/scheduling.ts";
import { dumpProcess } from "../task/process_attributes.ts";
import { SeccompTable } from "../task/seccomp.ts";
import { dumpThreadExtension } from "../task/thread_attributes.ts";
import type { Collected } from "./collect.ts";
import type { DescribedFiles, DescribedFlight } from "./describe_files.ts";
import { describeObjects } from "./describe_objects.ts";
import { describePipes, type PipeContents } from "./describe_pipes.ts";
import {
  describeSockets,
  inOrder,
  type MoreOfSockets,
} from "./describe_sockets.ts";
import {
  describeEndedLeader,
  describeThread,
  extraRegisters,
  OWN_CGROUP_SET,
} from "./describe_threads.ts";
import type { ObjectContents } from "./object_contents.ts";
import type { MountWriter } from "./mounts.ts";
import type { WriteNamespaces } from "./namespaces.ts";
import type { SharedContent } from "./shared_memory.ts";
import type { Survey } from "./survey.ts";
import type { SharedObjects, TreeSurvey, Zombie } from "./survey_tree.ts";
import type { ReadTerminals } from "./terminals.ts";

/** ckpt itself has the first number of each kind, as in CRIU's images. */
const DUMPER_IDS: task_kobj_ids_entry = {
  vm_id: 1,
  files_id: 1,
  fs_id: 1,
  sighand_id: 1,
  ...DUMPER_NAMESPACES,
};

/** Values of task_core_entry.task_state. */
const TASK_STATE = { alive: 1, dead: 2, stopped: 3 } as const;

/** The number of the page image of the i-th process. */
export function pagesId(i: number): number {
  return i + 1;
}

/** The first number of a page image that no process has. */
export function firstPagesId(processes: number): number {
  return pagesId(processes);
}

/** Processes after which others get their turn: copies that have ended. */
const WRITTEN_AT_ONCE = 16;

type ProcessAttributes = ReturnType<typeof dumpProcess>;

export interface DescribedProcess {
  survey: Survey;
  /** The signal by which job control had stopped it; 0: it ran. */
  stopSignal: number;
  collected: Collected;
  files: DescribedFiles;
  objects: SharedObjects;
  /** A thread of its parent waits in vfork(2) for it. */
  isAwaited: boolean;
  semaphoreUndos: ckpt_semaphore_undo_entry[] | undefined;
  /** Of files that are only mapped. */
  flocks: MappedFlocks | undefined;
}

export interface Described {
  survey: TreeSurvey;
  /** The root first, parents before children. */
  processes: readonly DescribedProcess[];
  flight: DescribedFlight;
  files: FileTable;
  shared: readonly SharedContent[];
  memfds: readonly memfd_inode_entry[];
  pipes: PipeContents;
  /** What is in other kernel objects; undefined: there are none. */
  contents: ObjectContents | undefined;
  sockets: SocketQueues;
  moreOfSockets: MoreOfSockets;
  connections: ReadConnections;
  /** Undefined: the tree has none of its own. */
  terminals: ReadTerminals | undefined;
  /** The name of this dump, by which its network lock is found. */
  runId: string;
  /** Whether connections are left out, to be closed after the restore. */
  tcpClose: boolean;
  /** CLOCK_MONOTONIC and CLOCK_BOOTTIME at the dump, nanoseconds. */
  clocks: { monotonic: bigint; boottime: bigint };
  /** What ckpt itself has: the defaults of this host. */
  standard: StandardScheduling;
  /** Where the tree has mount namespaces of its own. */
  writeMounts: MountWriter | undefined;
  /** What files are compared with; for ckpt-files.img. */
  validation: readonly ckpt_file_entry[];
  /** Numbers of those that the tree is in. */
  namespaces: NamespaceIds;
  /** Of the tree's own. */
  cgroupNamespace?: ckpt_cgroup_namespace_entry | undefined;
  /** Writes the images of those that are the tree's own. */
  writeNamespaces?: WriteNamespaces;
}

/**
 * Writes everything but the inventory, which it returns.
 *
 * @param saved what was stored of each process's memory: needed last, so that
 * all else is written while memory is copied
 * @param giveWay lets those have their turn who copy it
 */
export async function writeImages(
  writer: ImageWriter,
  described: Described,
  saved: Promise<readonly StoredPages[]>,
  giveWay: () => Promise<void>,
): Promise<inventory_entry> {
  const { survey, processes, files, shared } = described;
  const seccomp = new SeccompTable();
  const features = new Set<Feature>();
  const memories = new Set(processes.map(({ objects }) => objects.vm));
  if (memories.size < processes.length) features.add("ckpt:shared-vm");
  if (processes.some(({ isAwaited }) => isAwaited)) features.add("ckpt:vfork");
  // PIDFD_THREAD is kept as O_EXCL.
  if (files.entries.some(({ pidfd }) => (pidfd?.flags ?? 0) & O.EXCL)) {
    features.add("ckpt:thread-pidfd");
  }
  const terminals = new Map<number, tty_info_entry>();
  const tables = new Set<number>();
  const threads = new Map<number, readonly number[]>();
  const attributes: ProcessAttributes[] = [];
  for (const [i, process] of processes.entries()) {
    if (i > 0 && i % WRITTEN_AT_ONCE === 0) await giveWay();
    const { pid } = process.survey;
    const { collected, objects: { files: files_id } } = process;
    attributes.push(dumpProcess(collected.process, collected.readings));
    writeProcess(
      writer,
      process,
      attributes[i],
      seccomp,
      described.namespaces,
    );
    const { endedLeader } = process.survey;
    const tids = process.collected.threads.map(({ tid }) => tid);
    threads.set(pid, endedLeader === undefined ? tids : [pid, ...tids]);
    for (const terminal of process.files.terminals) {
      terminals.set(terminal.id, terminal);
    }
    if (tables.has(files_id)) continue;
    tables.add(files_id);
    writer.write("fdinfo", files_id, process.files.descriptors);
  }
  for (const terminal of described.flight.terminals) {
    terminals.set(terminal.id, terminal);
  }
  writeTree(writer, survey, threads);
  const descriptions = descriptionsOf(described);
  writeObjects(writer, described, descriptions, features);
  writer.write("files", undefined, inOrder(files.entries));
  if (terminals.size > 0) {
    writer.write("tty-info", undefined, [...terminals.values()]);
    writeTerminals(writer, described.terminals, features);
    // A slave whose master is closed.
    if ([...terminals.values()].some(({ type }) => type === TtyType.UNKNOWN)) {
      features.add("ckpt:terminals");
    }
  }
  writeLocks(writer, described);
  writePipes(writer, described, descriptions, features);
  writeSockets(writer, described, descriptions, features);
  const { segments } = survey.seen.segments;
  if (segments.length > 0) {
    const { shm, extensions } = describeSegments(segments);
    writer.write("ipcns-shm", described.namespaces.ipc_ns_id, shm);
    writer.write("ckpt-segments", undefined, extensions);
    if (!isEntered("ipc")) features.add("ckpt:sysv-shm");
  }
  described.writeMounts?.(writer, features, files.entries);
  const { namespaces } = survey.seen;
  if (namespaces?.all.length && survey.processes[0].namespace === undefined) {
    features.add("ckpt:nested-mounts");
  }
  writer.write("seccomp", undefined, seccomp.entry);
  const { time_ns_id } = described.namespaces;
  writer.write("timens", isEntered("time") ? time_ns_id : 0, {
    monotonic: timespec(described.clocks.monotonic),
    boottime: timespec(described.clocks.boottime),
  });
  described.writeNamespaces?.(writer);
  for (const content of shared) {
    writer.write(
      "pagemap-shmem",
      content.id,
      sharedMemoryImage(content),
    );
  }
  writeMemories(writer, described, attributes, await saved, features);
  await files.saved.described;
  writeGhosts(writer, files, features);
  return inventory([...features], described);
}

/** @param threads ids of those that live, and of leaders, by pid */
function writeTree(
  writer: ImageWriter,
  { seen }: TreeSurvey,
  threads: ReadonlyMap<number, readonly number[]>,
): void {
  const { members, parentThreads } = seen.tree;
  for (const zombie of seen.zombies) {
    const { pid, stat, status } = zombie;
    writer.write("core", pid, describeZombie(zombie));
    writer.write("ckpt-task", pid, {
      threads: [],
      areas: [],
      cgroups: [],
      exit_signal: exitSignal(stat),
      parent_thread: parentThreads?.get(pid),
      ended: describeOwner(status),
    });
  }
  writer.write(
    "pstree",
    undefined,
    members.map(({ pid, stat }, i) => ({
      pid,
      ppid: i === 0 ? 0 : stat.ppid,
      pgid: stat.pgrp,
      sid: stat.session,
      threads: [...threads.get(pid) ?? [pid]],
    })),
  );
}

/** What was stored of the memory of each process, and what else it has. */
function writeMemories(
  writer: ImageWriter,
  { survey, processes, cgroupNamespace, standard }: Described,
  attributes: readonly ProcessAttributes[],
  saved: readonly StoredPages[],
  features: Set<Feature>,
): void {
  const { parentThreads } = survey.seen.tree;
  const continued = new Set(
    processes.flatMap(({ collected }) => collected.continuedChildren),
  );
  for (const [i, pages] of saved.entries()) {
    const { survey: { pid }, semaphoreUndos } = processes[i];
    writeMemory(writer, processes[i], attributes[i], pages, pagesId(i));
    const extension = {
      ...attributes[i].extension,
      continue_unreported: continued.has(pid) || undefined,
      parent_thread: parentThreads?.get(pid),
      awaited: processes[i].isAwaited || undefined,
      semaphore_undos: semaphoreUndos && { sets: semaphoreUndos },
      cgroup_namespace: i === 0 ? cgroupNamespace : undefined,
      inherited: describeInherited(pages),
    };
    writeExtension(
      writer,
      processes[i],
      extension,
      features,
      standard,
    );
  }
}

/** What belongs to memfds, epoll and the like; completes files.img. */
function writeObjects(
  writer: ImageWriter,
  described: Described,
  descriptions: ReadonlySet<Description>,
  features: Set<Feature>,
): void {
  const { processes, flight, files, memfds, contents, validation } = described;
  const objects = describeObjects(
    [
      ...processes.map(({ survey, files: { descriptors } }) => ({
        descriptions: survey.descriptors.descriptors.map(({ description }) =>
          description
        ),
        descriptors,
      })),
      { descriptions: flight.descriptions, descriptors: [] },
    ],
    files,
  );
  const extensions = [...objects.extensions, ...validation];
  const { watches } = objects;
  if (extensions.length > 0) writer.write("ckpt-files", undefined, extensions);
  if (watches.length > 0) writer.write("ckpt-watches", undefined, watches);
  for (const feature of objects.features) features.add(feature);
  const more = contents?.write(descriptions, files, writer);
  for (const feature of more ?? []) features.add(feature);
  if (memfds.length > 0) writer.write("memfd", undefined, [...memfds]);
}

/** Extended attributes that security modules keep their labels in. */
const LABELS = new Set(["security.selinux", "security.SMACK64"]);

/** What is opened where paths mislead; the contents are written already. */
function writeGhosts(
  writer: ImageWriter,
  { remaps, saved }: FileTable,
  features: Set<Feature>,
): void {
  if (remaps.length > 0) writer.write("remap-fpath", undefined, remaps);
  const { ghosts } = saved;
  if (ghosts.length > 0) writer.write("ckpt-ghosts", undefined, ghosts);
  // A label is what a new file in that directory would get anyway.
  const matters = ({ xattrs, inode_flags, project }: ckpt_ghost_entry) =>
    inode_flags !== undefined || project !== undefined ||
    xattrs.some(({ name }) => !LABELS.has(name));
  if (ghosts.some(matters)) features.add("ckpt:ghost-attributes");
}

function writeLocks(
  writer: ImageWriter,
  { survey: { seen } }: Described,
): void {
  const locks = dumpLocks(
    seen.processes.map(({ pid, tid, descriptors }) => ({
      pid,
      filesId: seen.objects.get(pid)!.files,
      descriptors: descriptors.flatMap(({ fd, info, sameAs }) =>
        info.locks.length === 0
          ? []
          : [{ fd, info, place: sameAs ?? { pid: tid, fd } }]
      ),
    })),
  );
  if (locks.length > 0) writer.write("filelocks", undefined, locks);
}

function writePipes(
  writer: ImageWriter,
  described: Described,
  descriptions: ReadonlySet<Description>,
  features: Set<Feature>,
): void {
  const { pipes, fifos, extensions, features: found } = describePipes(
    descriptions,
    described.pipes,
    described.files,
  );
  if (pipes.length > 0) writer.write("pipes-data", undefined, pipes);
  if (fifos.length > 0) writer.write("fifo-data", undefined, fifos);
  if (extensions.length > 0) writer.write("ckpt-pipes", undefined, extensions);
  for (const feature of found) features.add(feature);
}

/** Of all processes, and those in flight; each once. */
function descriptionsOf(
  { processes, flight }: Described,
): ReadonlySet<Description> {
  const all = new Set<Description>();
  for (const { survey } of processes) {
    for (const { description } of survey.descriptors.descriptors) {
      all.add(description);
    }
  }
  for (const description of flight.descriptions) all.add(description);
  return all;
}

function writeTerminals(
  writer: ImageWriter,
  terminals: ReadTerminals | undefined,
  features: Set<Feature>,
): void {
  if (terminals === undefined) return;
  const { data, extensions, beyondCriu } = terminals;
  if (data.length > 0) writer.write("tty-data", undefined, data);
  writer.write("ckpt-terminals", undefined, extensions);
  if (beyondCriu) features.add("ckpt:terminals");
}

function writeSockets(
  writer: ImageWriter,
  described: Described,
  descriptions: ReadonlySet<Description>,
  features: Set<Feature>,
): void {
  const { queues, extensions } = describeSockets(
    descriptions,
    described.sockets,
    described.files,
    described.flight.ids,
    described.moreOfSockets,
  );
  if (queues.length > 0) writer.write("sk-queues", undefined, queues);
  if (extensions.length > 0) {
    writer.write("ckpt-sockets", undefined, extensions);
  }
  if (extensions.some(({ other_names }) => other_names.length > 0)) {
    features.add("ckpt:socket-names");
  }
  if (extensions.some(({ memberships }) => memberships.length > 0)) {
    features.add("ckpt:multicast");
  }
  if (extensions.some(({ shared_port }) => shared_port?.program)) {
    features.add("ckpt:shared-ports");
  }
  if (extensions.some(({ unaccepted }) => unaccepted !== undefined)) {
    features.add("ckpt:unaccepted");
  }
  if (extensions.some(({ waiting }) => waiting.length > 0)) {
    features.add("ckpt:waiting");
  }
  if (extensions.some(({ corked }) => corked !== undefined)) {
    features.add("ckpt:corked");
  }
  if (extensions.some(({ packet_rings }) => packet_rings !== undefined)) {
    features.add("ckpt:packet-rings");
  }
  for (const [ino, { stream }] of described.connections) {
    writer.write("tcp-stream", ino, stream);
  }
}

/** What one process has for itself, but its memory. */
function writeProcess(
  writer: ImageWriter,
  described: DescribedProcess,
  { task: attributes }: ProcessAttributes,
  seccomp: SeccompTable,
  namespaces: NamespaceIds,
): void {
  const { survey, collected, files, objects } = described;
  const { pid } = survey;
  const { threads } = collected;
  // Filters for all threads at once are those of the leader.
  const { endedLeader } = survey;
  const ended = endedLeader === undefined ? [] : [{
    tid: pid,
    mode: 0,
    filters: [],
  }];
  const seccompFields = seccomp.addProcess([
    ...ended,
    ...threads.map(({ tid, status, filters }) => ({
      tid,
      mode: status.seccomp ?? 0,
      filters,
    })),
  ]).slice(ended.length);
  const task = describeProcess(described, attributes);
  threads.forEach((thread, i) => {
    const core = describeThread(
      thread,
      seccompFields[i],
      thread.tid === pid ? task : undefined,
    );
    writer.write("core", thread.tid, core);
  });
  if (endedLeader !== undefined) {
    writer.write("core", pid, describeEndedLeader(endedLeader, task));
  }
  writer.write("ids", pid, {
    vm_id: objects.vm,
    files_id: objects.files,
    fs_id: objects.fs,
    sighand_id: objects.sighand,
    ...namespaces,
    mnt_ns_id: survey.namespace?.number ?? namespaces.mnt_ns_id,
  });
  writer.write("fs", pid, files.fs);
}

function writeMemory(
  writer: ImageWriter,
  { survey, collected, files }: DescribedProcess,
  { mm }: ProcessAttributes,
  pages: StoredPages,
  pages_id: number,
): void {
  const { pid, stat, vmas } = survey;
  writer.write(
    "mm",
    pid,
    describeMemory(
      stat,
      collected.heapEnd,
      collected.auxv,
      files.exeId,
      [...vmas.vmas.map(({ entry }) => entry), ...guardAreas(pages)],
      mm.dumpable ?? 1,
      mm.thp_disabled ?? false,
    ),
  );
  writer.write("pagemap", pid, { pages_id, entries: pages.entries });
}

const SIGCHLD = 17;

/** What its parent is sent when it ends, where that is not the usual. */
function exitSignal({ exitSignal }: Stat): number | undefined {
  return exitSignal === SIGCHLD ? undefined : exitSignal;
}

function describeOwner(
  { uid: [uid, euid, suid], gid: [gid, egid, sgid] }: Status,
): ckpt_ended_entry {
  return { uid, euid, suid, gid, egid, sgid };
}

/** A process that has ended: all that is left of it is its name and status. */
function describeZombie({ stat }: Zombie): core_entry {
  const noTimer = { isec: 0n, iusec: 0n, vsec: 0n, vusec: 0n };
  return {
    mtype: core_entry_march.X86_64,
    tc: {
      task_state: TASK_STATE.dead,
      exit_code: stat.exitCode,
      personality: 0,
      flags: stat.flags >>> 0,
      blk_sigset: 0n,
      comm: stat.comm,
      timers: { real: noTimer, virt: noTimer, prof: noTimer, posix: [] },
      sigactions: [],
    },
  };
}

function timespec(ns: bigint): { tv_sec: bigint; tv_nsec: bigint } {
  return { tv_sec: ns / 1_000_000_000n, tv_nsec: ns % 1_000_000_000n };
}

function describeProcess(
  { survey, collected, stopSignal }: DescribedProcess,
  attributes: Pick<task_core_entry, "personality">,
): task_core_entry {
  const [thread] = collected.threads;
  const leader = survey.endedLeader ?? thread;
  return {
    task_state: stopSignal === 0 ? TASK_STATE.alive : TASK_STATE.stopped,
    stop_signo: stopSignal || undefined,
    exit_code: 0,
    flags: survey.stat.flags >>> 0,
    blk_sigset: thread.state.signalMask,
    comm: leader.status.name,
    timers: collected.timers,
    rlimits: dumpResourceLimits(collected.limits),
    cg_set: OWN_CGROUP_SET,
    signals_s: { signals: collected.pending },
    sigactions: collected.actions,
    ...attributes,
  };
}

/** Ranges with guard pages are listed behind all areas. */
function guardAreas({ guards }: StoredPages): vma_entry[] {
  return guards.map(({ start, end }) => ({
    start,
    end,
    pgoff: 0n,
    shmid: 0n,
    prot: 0,
    flags: 0,
    status: VMA_STATUS.GUARD,
    fd: -1n,
  }));
}

/** Writes what CRIU has no field for; adds what CRIU must not ignore. */
function writeExtension(
  writer: ImageWriter,
  { survey, collected, stopSignal, objects, flocks }: DescribedProcess,
  process: Omit<ckpt_task_entry, "threads" | "areas" | "cgroups">,
  features: Set<Feature>,
  standard: StandardScheduling,
): void {
  if (process.personality !== undefined) features.add("ckpt:personality");
  const threads = collected.threads.map((thread) => {
    const { state, answers, readings } = thread;
    const { dispatch } = state;
    const entry = {
      ...dumpThreadExtension(answers, readings),
      ...dumpSchedulingExtension(state.scheduling, standard),
      affinity: dumpAffinity(state.affinity, standard.affinity),
      xsave: extraRegisters(thread),
    };
    if (dispatch.mode !== 0n) {
      entry.sud_mode = dispatch.mode;
      entry.sud_selector = dispatch.selector;
      entry.sud_offset = dispatch.offset;
      entry.sud_len = dispatch.length;
      features.add("ckpt:syscall-user-dispatch");
    }
    if (entry.affinity !== undefined) features.add("ckpt:affinity");
    if (entry.xsave !== undefined) features.add("ckpt:xsave");
    // Strict mode forbids it by itself.
    const isStrict = thread.status.seccomp === seccomp_mode.strict;
    if (entry.tsc_mode !== undefined && !isStrict) features.add("ckpt:tsc");
    return entry;
  }).filter((entry) => Object.values(entry).filter(isSaid).length > 1);
  const areas = survey.vmas.vmas.flatMap((vma): ckpt_area_entry[] => {
    const entry = {
      start: vma.entry.start,
      lock_on_fault: vma.lockOnFault || undefined,
      sealed: vma.sealed || undefined,
      name: vma.name,
      flock: flocks?.get(vma.entry.start),
    };
    return Object.values(entry).filter(isSaid).length > 1 ? [entry] : [];
  });
  if (areas.some(({ flock }) => flock)) features.add("ckpt:mapped-flocks");
  const extension: ckpt_task_entry = {
    ...process,
    lock_future: collected.lockFuture || undefined,
    exit_signal: exitSignal(survey.stat),
    shares_io_context: objects.ioContext || undefined,
    shares_semaphore_undo: objects.semaphoreUndo || undefined,
    stop_unreported: stopSignal !== 0 && survey.stat.exitCode !== 0 ||
      undefined,
    ended_leader: survey.endedLeader && {
      status: survey.endedLeader.stat.exitCode,
    },
    threads,
    areas,
    cgroups: collected.cgroups,
  };
  if (extension.ended_leader !== undefined) features.add("ckpt:ended-leader");
  if (extension.semaphore_undos) features.add("ckpt:semaphore-undo");
  if (extension.cgroup_namespace !== undefined) {
    features.add("ckpt:cgroup-namespace");
  }
  const { threads: _, areas: __, cgroups, ...rest } = extension;
  if (
    threads.length > 0 || areas.length > 0 || cgroups.length > 0 ||
    Object.values(rest).some(isSaid)
  ) {
    writer.write("ckpt-task", survey.pid, extension);
  }
}

function isSaid(value: unknown): boolean {
  return value !== undefined;
}

/** CRIU's numbers for how the network is locked. */
const NETWORK_LOCK = { nftables: 1, none: 2 } as const;

function inventory(
  features: readonly Feature[],
  { connections, runId, tcpClose }: Described,
): inventory_entry {
  return {
    img_version: 2,
    fdinfo_per_id: true,
    root_ids: DUMPER_IDS,
    ns_per_id: true,
    root_cg_set: OWN_CGROUP_SET,
    lsmtype: lsmtype.NO_LSM,
    network_lock_method: connections.size > 0
      ? NETWORK_LOCK.nftables
      : NETWORK_LOCK.none,
    tcp_close: tcpClose || undefined,
    plugins_entry: { plugins: [...features] },
    dump_criu_run_id: runId,
  };
}
