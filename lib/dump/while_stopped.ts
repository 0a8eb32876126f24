/**
 * All that has to happen while the tree stands still: every line here is stop
 * time. Without snapshots it stays so while its memory is copied, too.
 */
import type { PageCounters } from "../mm/page_copy.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { pipesAmong, withOwnContents } from "../files/descriptors.ts";
import { readLocks } from "../files/all_locks.ts";
import {
  anyPacketRings,
  anySocket,
  anyWaiting,
  awaitsAccept,
  hasUnread,
  mayShareItsPort,
  sendsToGroups,
} from "../files/sockets.ts";
import { hasConnections } from "../files/tcp_connection.ts";
import type { Md5Keys } from "../files/md5_keys.ts";
import type { DumpLinks } from "../ghost/links.ts";
import { saveLostFiles } from "../ghost/save.ts";
import type { SmallFiles } from "../ghost/save_small.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import type { ckpt_sysctl_entry } from "../image/schema.gen.ts";
import { messageQueues } from "../ns/ipc.ts";
import { isEntered } from "../ns/inside.ts";
import { readStat, readStatus } from "../proc/read.ts";
import type { Report } from "../report.ts";
import type { FrozenTree } from "../task/frozen_tree.ts";
import { clockNow } from "../task/posix_timers.ts";
import type { SemaphoreUndos } from "../task/kernel_semaphore_undo.ts";
import { interview, type Questions } from "./collect.ts";
import type { DumpedConnections } from "./connections.ts";
import { dependedFiles } from "./depended_files.ts";
import { firstPagesId } from "./describe.ts";
import { readPipes } from "./describe_pipes.ts";
import { saveDetachedSegments } from "./detached_segments.ts";
import type { FileSystemGuards } from "./file_system_guards.ts";
import { readFileTimes } from "./file_validation.ts";
import { saveMemfds } from "./memfds.ts";
import { diesOfCopy, EarlyPages } from "./memory.ts";
import { type LazyMounts, saveSuperblocks } from "./mounts.ts";
import {
  namespaceIds,
  namespaceProblems,
  readCgroupNamespace,
  readNamespaces,
} from "./namespaces.ts";
import type { ObjectContents } from "./object_contents.ts";
import type { DumpOptions } from "./options.ts";
import { prepareTerminals, readFlocks, readKeys } from "./prepare.ts";
import { saveSharedMemory } from "./shared_memory.ts";
import { Still } from "./still.ts";
import { refuseFor, type Sighting } from "./survey.ts";
import { lookAtTree, type TreeSighting } from "./survey_tree.ts";
import type { DumpedTerminals } from "./terminals.ts";
import type { VforkWaiters } from "./vfork.ts";

const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;

/** What was made ready while the program still ran. */
export interface Prepared {
  readonly options: DumpOptions;
  /** Undefined: the program changed too fast to be looked at. */
  readonly before: TreeSighting | undefined;
  /** By pid. */
  readonly questions: ReadonlyMap<number, Questions>;
  readonly writer: ImageWriter;
  readonly small: SmallFiles;
  readonly links: DumpLinks;
  readonly connections: DumpedConnections;
  readonly terminals: DumpedTerminals | undefined;
  readonly semaphoreUndos: SemaphoreUndos | undefined;
  readonly guards: FileSystemGuards | undefined;
  readonly mounts: LazyMounts;
  /** Undefined: no thread waits in vfork(2). */
  readonly waiters: VforkWaiters | undefined;
  readonly networkValues: readonly ckpt_sysctl_entry[] | undefined;
  readonly counters: PageCounters;
  /** Undefined: there is none. */
  readonly md5Keys: Md5Keys | undefined;
}

/** @returns what was learnt; the caller disposes of it */
export async function whileStopped(
  frozen: FrozenTree,
  prepared: Prepared,
  report: Report,
): Promise<Still> {
  const { options, before } = prepared;
  prepared.small.begin();
  const locks = readLocks();
  // What is to stay frozen does not mind how long it stands still either.
  const goesOn = options.leaveRunning && !frozen.staysFrozen;
  const seen = lookAtTree(
    frozen.tree,
    goesOn ? before : undefined,
    options.external,
    options,
    true,
    prepared.mounts.namespaces,
    before,
  );
  const still = new Still(seen, frozen, report, prepared.guards);
  try {
    await readSockets(still, prepared);
    await readFiles(still, locks, prepared, report);
    await askAll(still, frozen, goesOn, prepared);
    await readSurroundings(still, prepared);
    await saveSharedContents(still, prepared);
    return still;
  } catch (error) {
    await still[Symbol.asyncDispose]();
    throw error;
  }
}

/** What sockets hold that nobody has read, and how they belong together. */
async function readSockets(
  still: Still,
  { options, connections, before, md5Keys }: Prepared,
): Promise<void> {
  const more = still.moreOfSockets;
  more.md5Keys = before === undefined ? await readKeys(still.tables) : md5Keys;
  if (options.tcpEstablished && hasConnections(still.tables)) {
    still.connections = connections.read(still.tables);
    await readUnaccepted(still, connections, options);
    if (options.leaveRunning || options.leaveStopped) connections.letGo();
  }
  if (anySocket(still.tables, hasUnread)) {
    const { readUnread } = await import("../files/datagrams.ts");
    more.unread = await readUnread(still.tables);
  }
  if (anySocket(still.tables, mayShareItsPort)) {
    const { readSharedPorts } = await import("../files/shared_ports.ts");
    more.sharedPorts = readSharedPorts(still.tables);
  }
  if (anySocket(still.tables, sendsToGroups)) {
    const { readMulticastDevices } = await import(
      "../files/multicast_devices.ts"
    );
    more.multicastDevices = readMulticastDevices(still.tables);
  }
  if (anyPacketRings(still.tables)) {
    const { readPacketRings } = await import("../files/packet_rings.ts");
    more.packetRings = readPacketRings(still.tables);
  }
  if (anyWaiting(still.tables)) {
    const { readWaiting } = await import("../files/waiting_connections.ts");
    more.waiting = readWaiting(still.tables);
  }
}

/** TCP connections that wait to be accepted; packets are blocked. */
async function readUnaccepted(
  { tables, moreOfSockets, connections }: Still,
  dumped: DumpedConnections,
  { skipInFlight }: DumpOptions,
): Promise<void> {
  if (skipInFlight || !anySocket(tables, awaitsAccept)) return;
  const { readUnaccepted } = await import("../files/unaccepted.ts");
  const found = readUnaccepted(tables, connections);
  moreOfSockets.unaccepted = found;
  dumped.letThrough(new Set(found.keys()));
}

/** Locks, and what pipes, queues, terminals and lost files hold. */
async function readFiles(
  still: Still,
  locks: string,
  { options, writer, small, links, terminals, semaphoreUndos, guards }:
    Prepared,
  report: Report,
): Promise<void> {
  const { seen } = still;
  still.flocks = await readFlocks(locks, seen.processes);
  still.pipes = readPipes(pipesAmong(still.tables), options.external);
  still.contents = await readContents(still);
  if (terminals !== undefined) {
    still.terminals = terminals.read(seen.processes);
  } else {
    using late = await prepareTerminals(seen.processes);
    still.terminals = late?.read(seen.processes);
  }
  still.semaphoreUndos = readSemaphoreUndos(still, semaphoreUndos);
  still.files = saveLostFiles(
    seen.files,
    options,
    small,
    writer,
    links,
    report,
  );
  // What goes on beside JavaScript begins with a turn of the event loop.
  await report.letSignalsIn();
  await saveSuperblocks(seen.namespaces, options.external, writer);
  await guards?.hold(seen, still.files);
  if (options.fileValidation?.includes("mtime")) {
    still.fileTimes = readFileTimes(
      dependedFiles(
        seen.processes,
        still.files,
        options.external,
        seen.namespaces,
      ),
    );
  }
}

/** Semaphores that the program began to use in the last moment are left out. */
function readSemaphoreUndos(
  { seen: { processes } }: Still,
  undos: SemaphoreUndos | undefined,
): Still["semaphoreUndos"] {
  const found = undos?.read(processes.map(({ tid }) => tid)) ?? [];
  return new Map(
    found.flatMap((sets, i) =>
      sets.length === 0 ? [] : [[processes[i].pid, sets]]
    ),
  );
}

/** Of kinds that few programs have. */
async function readContents(
  { tables, seen }: Still,
): Promise<ObjectContents | undefined> {
  const queues = isEntered("ipc") ? messageQueues() : [];
  if (
    queues.length === 0 &&
    tables.every(({ descriptors }) => withOwnContents(descriptors).length === 0)
  ) return undefined;
  const { ObjectContents } = await import("./object_contents.ts");
  return ObjectContents.read(tables, seen.outsideHolders, queues);
}

/**
 * Asks every process what only it can tell, and copies those that are to go on
 * before their memory is saved.
 *
 * @param goesOn whether they are
 */
async function askAll(
  still: Still,
  frozen: FrozenTree,
  goesOn: boolean,
  { questions, waiters, counters }: Prepared,
): Promise<void> {
  const { seen } = still;
  // A copy of a process is none of those that share its memory.
  const memories = new Set([...seen.objects.values()].map(({ vm }) => vm));
  let wantSnapshot = goesOn && memories.size === seen.processes.length &&
    !seen.processes.some(({ vmas }) => vmas.vmas.some(diesOfCopy));
  if (waiters !== undefined) {
    still.awaited = waiters.awaited(seen, frozen.processes);
  }
  for (const [i, process] of seen.processes.entries()) {
    const { pid, tid } = process;
    const { tids, suspendsSeccomp, waiting } = frozen.processes[i];
    using memory = TaskMemory.open(pid, tid);
    const asked = tids.length === 0 ? undefined : interview(
      waiting.includes(tid) ? askedBy(process, tids[0]) : process,
      tids,
      suspendsSeccomp,
      memory,
      questions.get(pid),
      wantSnapshot,
      frozen.tree.deadSnapshots.get(pid),
    );
    // Without one copy of all, those of the others are of no use.
    wantSnapshot &&= asked?.snapshot !== undefined;
    still.processes.push({
      seen: process,
      asked,
      waiting: waiting.length === 0 ? undefined : waiters!.read(
        process,
        frozen.processes[i],
        still.awaited,
        seen.processes,
      ),
      early: asked?.snapshot === undefined
        ? undefined
        : await EarlyPages.read(tid, process.vmas.vmas, counters),
    });
  }
}

/** A process of whose threads another than the first has to be asked. */
function askedBy(process: Sighting, tid: number): Sighting {
  return { ...process, tid, stat: readStat(tid), status: readStatus(tid) };
}

/** Namespaces, and what their clocks say. */
async function readSurroundings(
  still: Still,
  { networkValues }: Prepared,
): Promise<void> {
  const { seen } = still;
  const namespaceReasons = namespaceProblems(seen);
  refuseFor(namespaceReasons, seen.tree.members[0].pid);
  still.cgroupNamespace = readCgroupNamespace(seen.processes[0].tid);
  still.namespaces = namespaceIds(still.cgroupNamespace);
  still.writeNamespaces = await readNamespaces(
    still.namespaces,
    networkValues,
  );
  still.clocks = {
    monotonic: clockNow(CLOCK_MONOTONIC),
    boottime: clockNow(CLOCK_BOOTTIME),
  };
}

/** Memory that is no process' own: shared areas and memfds. */
async function saveSharedContents(
  still: Still,
  { writer, counters }: Prepared,
): Promise<void> {
  const { seen } = still;
  still.shared = await saveSharedMemory(
    seen.processes.map(({ tid, vmas }) => ({ pid: tid, vmas: vmas.vmas })),
    firstPagesId(seen.processes.length),
    writer,
    counters,
  );
  still.shared.push(
    ...await saveDetachedSegments(
      seen.segments.segments,
      firstPagesId(seen.processes.length) + still.shared.length,
      writer,
      counters,
    ),
  );
  const { pid: tid, descriptors } = still.flight.table;
  still.memfds = await saveMemfds(
    [...seen.processes, { tid, descriptors, vmas: { vmas: [] } }],
    new Set(still.shared.map(({ id }) => id)),
    firstPagesId(seen.processes.length) + still.shared.length,
    writer,
    counters,
  );
}
