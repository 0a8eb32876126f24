/**
 * The way of a dump: look, stop, collect, copy the memory, let go, write the
 * images, and only when they are safe, end the programs if asked to.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { syscall } from "../ffi/syscall.ts";
import type { LastingTracer } from "../ffi/lasting_tracer.ts";
import { every } from "../ffi/pause.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { encodeImage } from "../image/framing.ts";
import { ImageWriter } from "../image/image_writer.ts";
import type {
  ckpt_cgroup_namespace_entry,
  ckpt_sysctl_entry,
} from "../image/schema.gen.ts";
import { pagesName } from "../image/kinds.ts";
import { PageCounters, type StoredPages } from "../mm/page_copy.ts";
import { hasCapability, readCgroup, readRandomUuid } from "../proc/read.ts";
import type { Report } from "../report.ts";
import {
  type Description,
  hasOwnContents,
  pipesAmong,
  type SeenTable,
} from "../files/descriptors.ts";
import { keepLocksReady, readLocks } from "../files/all_locks.ts";
import { FileTable } from "../files/file_table.ts";
import { Flight } from "../files/flight.ts";
import {
  anyPacketRings,
  anyWaiting,
  awaitsAccept,
  hasUnread,
  lostPackets,
  mayBeCorked,
  mayShareItsPort,
  TreeSockets,
  unreadMessages,
} from "../files/sockets.ts";
import {
  hasConnections,
  type ReadConnections,
} from "../files/tcp_connection.ts";
import { seenMasters } from "../files/terminals.ts";
import { statusAt } from "../ghost/calls.ts";
import { DumpLinks } from "../ghost/links.ts";
import { SavedFiles, saveLostFiles } from "../ghost/save.ts";
import { enterTree } from "../ns/enter.ts";
import { messageQueues } from "../ns/ipc.ts";
import {
  atTheEnd,
  ending,
  inside,
  isEntered,
  wayToMounts,
} from "../ns/inside.ts";
import { DUMPER_NAMESPACES, type NamespaceIds } from "../ns/kinds.ts";
import { CgroupFreezer } from "../task/cgroup_freezer.ts";
import { FrozenTree } from "../task/frozen_tree.ts";
import { awaitGroupStops } from "../task/group_stop.ts";
import { clockNow } from "../task/posix_timers.ts";
import { readOwnScheduling } from "../task/scheduling.ts";
import { VERSION } from "../version.ts";
import {
  askSnapshot,
  type Collected,
  conclude,
  type Interview,
  interview,
  NeedsLastingTracer,
  prepareQuestions,
  type Questions,
} from "./collect.ts";
import { DumpedConnections } from "./connections.ts";
import type { MappedFlocks } from "../files/mapped_flocks.ts";
import type { MoreOfSockets } from "./describe_sockets.ts";
import { firstPagesId, pagesId, writeImages } from "./describe.ts";
import { endCopies } from "./end_copy.ts";
import { dependedFiles, filesOutside, foundFiles } from "./depended_files.ts";
import { describeFiles, describeFlight } from "./describe_files.ts";
import { type PipeContents, readPipes } from "./describe_pipes.ts";
import {
  DEFAULT_METHODS,
  NO_TIMES,
  readFileTimes,
  recordValidation,
} from "./file_validation.ts";
import type { FileSystemGuards } from "./file_system_guards.ts";
import { caredFiles } from "./lost_files.ts";
import { NO_MEMFDS, saveMemfds } from "./memfds.ts";
import { diesOfCopy, EarlyPages } from "./memory.ts";
import { MemorySaving } from "./memory_saving.ts";
import {
  namespaceIds,
  namespaceProblems,
  readCgroupNamespace,
  readNamespaces,
  readValues,
  type WriteNamespaces,
} from "./namespaces.ts";
import type {
  CheckOptions,
  CheckResult,
  DumpOptions,
  DumpResult,
} from "./options.ts";
import type { ObjectContents } from "./object_contents.ts";
import {
  LazyMounts,
  loadMountWriter,
  saveSuperblocks,
  surveyWithMounts,
  warnOfTrust,
} from "./mounts.ts";
import { rehearse } from "./rehearsal.ts";
import { saveSharedMemory, type SharedContent } from "./shared_memory.ts";
import {
  ChangedMeanwhile,
  confirmAreas,
  refuseFor,
  refuseImpossible,
  type Sighting,
} from "./survey.ts";
import {
  judgeTree,
  lookAtTree,
  type TreeSighting,
  type TreeSurvey,
} from "./survey_tree.ts";
import type { DumpedTerminals, ReadTerminals } from "./terminals.ts";
import { withRemedyForVanished } from "./vanished.ts";

const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;
const SIGSTOP = 19n;

/**
 * Dumps a process tree.
 *
 * @throws CkptError; the program then runs on as if nothing had happened, and
 * the images directory holds what it held before
 */
export async function dump(
  options: DumpOptions,
  report: Report,
): Promise<DumpResult> {
  const action = `dumping task ${options.pid}`;
  requireCapabilities(action);
  const { pid, pidOutside } = placeOf(options.pid, action);
  let lastingTracer = false;
  for (let i = 1;; i++) {
    try {
      const here = { ...options, pid };
      const result = await dumpOnce(here, lastingTracer, report);
      return { ...result, pid: pidOutside };
    } catch (error) {
      if (error instanceof NeedsLastingTracer) {
        lastingTracer = true;
        continue;
      }
      if (!(error instanceof ChangedMeanwhile) || i === TRIES) {
        throw withRemedyForVanished(error, pid);
      }
      report.log(2, `${error.message}; trying again`);
    }
  }
}

/**
 * Goes to the namespaces of the tree, where these are not ckpt's.
 *
 * @returns what the root is called here, and where the user called ckpt
 */
function placeOf(
  pid: number,
  action: string,
): { pid: number; pidOutside: number } {
  if (inside() === undefined) refuseImpossible(pid, action);
  const place = enterTree(pid, action);
  return place === undefined
    ? { pid, pidOutside: pid }
    : { pid: place.root, pidOutside: place.rootOutside };
}

/** How often a dump is begun anew that the program has got in the way of. */
const TRIES = 3;

/** @param lastingTracer whether one is known to be needed */
async function dumpOnce(
  options: DumpOptions,
  lastingTracer: boolean,
  report: Report,
): Promise<DumpResult> {
  const { pid } = options;
  const action = `dumping task ${pid}`;
  refuseImpossible(pid, action);
  report.log(3, `looking at the tree of task ${pid}`);
  using locksReady = keepLocksReady();
  using mounts = new LazyMounts(options);
  const running = await surveyWithMounts(pid, options, mounts);
  if (running === undefined) {
    report.log(3, `the tree of task ${pid} changes too fast to be judged yet`);
  }
  const cgroup = options.freezeCgroup === undefined
    ? undefined
    : CgroupFreezer.open(options.freezeCgroup);
  refuseFor([
    ...refusedRoot(options.root),
    ...running === undefined ? [] : namespaceProblems(running.seen),
    ...running?.reasons ?? [],
    ...cgroup?.reasonsAgainst(pid) ?? [],
  ], pid);
  using guards = await prepareGuards(options, running?.seen, report);
  using writer = ImageWriter.open(options.imagesDirectory, options);
  using links = new DumpLinks(
    options.imagesDirectory,
    options.linkPlace,
    wayToMounts(),
  );
  using connections = new DumpedConnections(readRandomUuid());
  const processes = running?.seen.processes ?? [];
  if (options.tcpEstablished && hasConnections(processes)) {
    connections.prepare(processes);
  }
  await prepareKernelSockets(running?.seen.processes ?? []);
  using terminals = await prepareTerminals(running?.seen.processes ?? []);
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  const prepared = new Map(
    running?.seen.processes.map((seen) => [
      seen.pid,
      prepareQuestions(seen, options.leaveRunning),
    ]),
  );
  const networkValues = readValues();
  const counters = new PageCounters();
  // A program that is to end anyway does not mind how long it stands still.
  if (options.leaveRunning) rehearse(report);
  using tracer = lastingTracer || hasFilters(running?.seen)
    ? await startLastingTracer()
    : undefined;
  // So that it is told at once, and what it needs is loaded, when the program
  // stands still.
  await readFlocks(readLocks(), running?.seen.processes ?? []);
  const clock = new Stopwatch();
  using frozen = await FrozenTree.freeze(
    pid,
    options.timeoutSeconds * 1000,
    cgroup,
    report.signal,
  );
  guards?.begin();
  clock.lap("freezing");
  using still = await whileStopped(
    frozen,
    options,
    running?.seen,
    prepared,
    writer,
    links,
    connections,
    terminals,
    counters,
    report,
    guards,
    mounts,
    networkValues,
  );
  locksReady[Symbol.dispose]();
  const { hasSnapshots } = still;
  if (hasSnapshots) {
    await still.files.copied;
    guards?.confirm();
    still.flight[Symbol.dispose]();
    frozen.thaw();
  }
  clock.lap("interview");
  report.log(
    3,
    hasSnapshots
      ? `${countOf(still)} went on after ${clock.total().toFixed(1)} ms`
      : `${countOf(still)} stay stopped while memory is copied`,
  );
  const unread = [
    ...still.terminals?.reasons ?? [],
    ...unreadMessages(still.tables),
  ];
  if (unread.length > 0) {
    throw new ChangedMeanwhile(EXIT.refused, action, unread);
  }
  const survey = judgeTree(still.seen, options, still.copies);
  refuseFor(survey.reasons, pid);
  for (const { id, attachedOutside } of survey.seen.segments.segments) {
    if (attachedOutside) {
      report.log(
        2,
        `System V segment ${id} is attached to processes outside the tree, ` +
          "too, which may have written to it while it was saved",
      );
    }
  }
  warnOfUnreadEvents(survey, report);
  warnOfTrust(survey.mounts, report);
  const { unseen } = still.moreOfSockets.sharedPorts ?? {};
  if (unseen !== undefined) {
    report.log(
      2,
      "the program shares ports (SO_REUSEPORT): their order, and a program " +
        `that chooses among them (SO_ATTACH_REUSEPORT_CBPF), are lost: ${unseen}`,
    );
  }
  for (const socket of lostPackets(still.tables)) {
    report.log(
      2,
      `${socket}: packets that the program has not read are not part of the ` +
        "image",
    );
  }
  const saving = saveMemory(still, writer, report, counters)
    .then(async (pages) => {
      await still.files.copied;
      if (options.leaveRunning) {
        guards?.confirm();
        still.flight[Symbol.dispose]();
        frozen.thaw();
      }
      clock.lap("memory");
      report.signal.throwIfAborted();
      return pages;
    });
  report.log(3, `writing the images of ${countOf(still)}`);
  const inventory = await untilSaved(saving, async () => {
    const collected = concludeAll(still, report);
    // The sooner it is seen that all is saved, the sooner they go on.
    if (options.leaveRunning && !hasSnapshots) await saving;
    const files = new FileTable(still.files, survey.seen.namespaces);
    const sockets = {
      unix: new TreeSockets(still.tables, options).neighbours(),
      connections: still.connections,
    };
    const depended = dependedFiles(
      survey.seen.processes,
      still.files,
      options.external,
      survey.seen.namespaces,
    );
    const described = {
      survey,
      processes: survey.processes.map((seen, i) => ({
        survey: seen,
        stopSignal: frozen.processes[i].stopSignal,
        collected: collected[i],
        files: describeFiles(seen, files, still.memfds.numbers, sockets),
        objects: survey.seen.objects.get(seen.pid)!,
        flocks: still.flocks.get(seen.pid),
      })),
      flight: describeFlight(survey, files, still.memfds.numbers, sockets),
      files,
      shared: [...still.shared, ...still.memfds.contents],
      memfds: still.memfds.entries,
      pipes: still.pipes,
      contents: still.contents,
      sockets: still.flight.queues,
      moreOfSockets: still.moreOfSockets,
      connections: still.connections,
      terminals: still.terminals,
      runId: connections.runId,
      tcpClose: options.tcpClose ?? false,
      clocks: still.clocks,
      own: readOwnScheduling(),
      writeMounts: await loadMountWriter(survey.mounts),
      namespaces: still.namespaces,
      cgroupNamespace: still.cgroupNamespace,
      writeNamespaces: still.writeNamespaces,
    };
    const validation = await recordValidation(
      files.entries,
      new Set(files.remaps.map(({ orig_id }) => orig_id)),
      depended,
      options.fileValidation ?? DEFAULT_METHODS,
      still.fileTimes,
    );
    return await writeImages(
      writer,
      { ...described, validation },
      saving,
      () => report.letSignalsIn(),
    );
  });
  still.endCopies();
  guards?.describe(writer);
  const bytes = await writer.commit(
    inventory,
    VERSION,
    () => guards?.confirm(),
  );
  links.commit();
  guards?.commit();
  const place = inside();
  if (options.leaveStopped) {
    for (const process of frozen.processes) {
      syscall("kill", BigInt(process.pid), SIGSTOP);
    }
    frozen.thaw();
    if (!frozen.staysFrozen) {
      awaitGroupStops(frozen.processes.flatMap(({ tids }) => [...tids]));
    }
  } else if (!options.leaveRunning) {
    if (place !== undefined && isEntered("pid")) {
      frozen.endWithTracer();
      connections.endWithCkpt();
      tracer?.keep();
      atTheEnd((code) => {
        ending(place, code);
        tracer?.end();
      });
    } else {
      frozen.kill();
      connections.end();
    }
  }
  clock.lap("writing");
  const { freezing, interview: asking, memory, writing } = clock.laps;
  const figures = {
    freezing_time: micros(freezing),
    frozen_time: micros(
      freezing + asking +
        (hasSnapshots ? 0 : memory) +
        (options.leaveRunning ? 0 : writing),
    ),
    memdump_time: micros(memory),
    memwrite_time: micros(writing),
    pages_scanned: counters.scanned,
    pages_skipped_parent: 0n,
    pages_written: counters.written,
    pages_lazy: 0n,
  };
  Deno.writeFileSync(
    `${options.workDirectory}/stats-dump`,
    encodeImage("stats-dump", { dump: figures }),
    { mode: 0o600 },
  );
  report.stats({ ...figures, image_bytes: bytes });
  return { pid, imagesDirectory: options.imagesDirectory };
}

/** Seccomp filters that all threads of a process are likely to have. */
function hasFilters(seen: TreeSighting | undefined): boolean {
  return seen?.processes.some(({ status }) => (status.seccomp ?? 0) !== 0) ??
    false;
}

async function startLastingTracer(): Promise<LastingTracer> {
  const { LastingTracer } = await import("../ffi/lasting_tracer.ts");
  return LastingTracer.start();
}

/** They stay with the program that is dumped; nobody can copy them. */
function warnOfUnreadEvents({ processes }: TreeSurvey, report: Report): void {
  const told = new Set<Description>();
  for (const { pid, descriptors } of processes) {
    for (const { fd, description } of descriptors.descriptors) {
      const { unread = 0, link } = description;
      if (unread === 0 || told.has(description)) continue;
      told.add(description);
      report.log(
        2,
        `descriptor ${fd} (${link}) of task ${pid}: events of ${unread} bytes ` +
          "that the program has not read are not part of the image",
      );
    }
  }
}

async function guardReasons(
  { freezeFs, snapshot, imagesDirectory, workDirectory, external }:
    & CheckOptions
    & { imagesDirectory: string },
  seen: TreeSighting,
): Promise<Reason[]> {
  const reasons: Reason[] = [];
  const { namespaces } = seen;
  const files = filesOutside(foundFiles(seen, external), external, namespaces);
  if (snapshot === "btrfs") {
    const { snapshotProblems } = await import("./take_snapshot.ts");
    reasons.push(...snapshotProblems(files, namespaces));
  }
  if (freezeFs === undefined) return reasons;
  const { freezeProblems } = await import("./freeze_file_systems.ts");
  return [
    ...reasons,
    ...freezeProblems(files, {
      imagesDirectory,
      workDirectory: workDirectory ?? imagesDirectory,
    }, namespaces),
  ];
}

/** Whether a dump into this directory has taken some (lib/ghost/snapshots.ts). */
function hasSnapshots(directory: string): boolean {
  return statusAt(`${directory}/ckpt-snapshots.json`) !== undefined;
}

async function prepareGuards(
  options: DumpOptions,
  running: TreeSighting | undefined,
  report: Report,
): Promise<FileSystemGuards | undefined> {
  const { watchFs, freezeFs, snapshot, replace, imagesDirectory } = options;
  if (
    (watchFs ?? freezeFs ?? snapshot) === undefined &&
    !(replace && hasSnapshots(imagesDirectory))
  ) return undefined;
  const { FileSystemGuards } = await import("./file_system_guards.ts");
  return await FileSystemGuards.prepare(options, running, report);
}

function sharesPorts({ descriptors }: Pick<SeenTable, "descriptors">): boolean {
  return descriptors.some(({ socket }) => mayShareItsPort(socket));
}

/** Those of files that are only mapped, where the tree has any flocks. */
async function readFlocks(
  locks: string,
  processes: readonly Sighting[],
): Promise<ReadonlyMap<number, MappedFlocks>> {
  const pids = new Set(processes.map(({ pid }) => pid));
  const takers = locks.matchAll(/ FLOCK +\S+ +\S+ (\d+) /g);
  if (!takers.some(([, pid]) => pids.has(Number(pid)))) return new Map();
  const { readMappedFlocks } = await import("../files/mapped_flocks.ts");
  return readMappedFlocks(locks, processes);
}

function hasUnaccepted(
  { descriptors }: Pick<SeenTable, "descriptors">,
): boolean {
  return descriptors.some(({ socket }) => awaitsAccept(socket));
}

/** TCP connections that wait to be accepted; packets are blocked. */
async function readUnaccepted(
  { tables, moreOfSockets, connections }: Still,
  dumped: DumpedConnections,
  { skipInFlight }: DumpOptions,
): Promise<void> {
  if (skipInFlight || !tables.some(hasUnaccepted)) return;
  const { readUnaccepted } = await import("../files/unaccepted.ts");
  const found = readUnaccepted(tables, connections);
  moreOfSockets.unaccepted = found;
  dumped.letThrough(new Set(found.keys()));
}

/** Takes its time while the program runs, not when it stands still. */
async function prepareKernelSockets(
  processes: readonly Sighting[],
): Promise<void> {
  const isCorked = ({ descriptors }: Sighting) =>
    descriptors.some(({ socket }) =>
      socket?.family === "inet" && mayBeCorked(socket)
    );
  const areNeeded = processes.some(sharesPorts) || processes.some(isCorked) ||
    processes.some(hasUnaccepted) || anyWaiting(processes);
  if (!areNeeded) return;
  const { kernelSockets } = await import("../files/kernel_sockets.ts");
  kernelSockets();
}

/** Undefined: the tree has no master of a pseudo terminal. */
async function prepareTerminals(
  processes: readonly Sighting[],
): Promise<DumpedTerminals | undefined> {
  if (seenMasters(processes).length === 0) return undefined;
  const { DumpedTerminals } = await import("./terminals.ts");
  return new DumpedTerminals(processes);
}

/** Times of the steps of a dump, in milliseconds. */
class Stopwatch {
  readonly #start = performance.now();
  #last = this.#start;
  readonly laps: Record<string, number> = {};

  lap(name: string): void {
    const now = performance.now();
    this.laps[name] = now - this.#last;
    this.#last = now;
  }

  total(): number {
    return performance.now() - this.#start;
  }
}

function micros(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}

/** What was learnt of one process while the tree stood still. */
interface StillProcess {
  readonly seen: Sighting;
  readonly asked: Interview;
  /** Pages that a snapshot does not have; undefined without a snapshot. */
  readonly early: EarlyPages | undefined;
}

/** What was learnt while the tree stood still, and its copies. */
class Still implements Disposable {
  readonly processes: StillProcess[] = [];
  shared: SharedContent[] = [];
  memfds = NO_MEMFDS;
  pipes: PipeContents = new Map();
  contents: ObjectContents | undefined;
  connections: ReadConnections = new Map();
  moreOfSockets: MoreOfSockets = {};
  flocks: ReadonlyMap<number, MappedFlocks> = new Map();
  terminals: ReadTerminals | undefined;
  files = new SavedFiles();
  fileTimes = NO_TIMES;
  clocks = { monotonic: 0n, boottime: 0n };
  namespaces: NamespaceIds = DUMPER_NAMESPACES;
  cgroupNamespace: ckpt_cgroup_namespace_entry | undefined;
  writeNamespaces: WriteNamespaces | undefined;
  #ended = false;

  constructor(
    readonly seen: TreeSighting,
    readonly report: Report,
    readonly guards: FileSystemGuards | undefined,
  ) {}

  get flight(): Flight {
    return this.seen.flight ?? Flight.none;
  }

  /** The descriptors of all processes, and those in flight. */
  get tables(): readonly SeenTable[] {
    return [...this.seen.processes, this.flight.table];
  }

  /** Whether every process has a copy from which its memory can be read. */
  get hasSnapshots(): boolean {
    return this.processes.every(({ asked }) => asked.snapshot !== undefined);
  }

  /** The pids of the copies, by those of the processes. */
  get copies(): ReadonlyMap<number, number> {
    return new Map(
      this.processes.flatMap(({ seen, asked: { snapshot } }) =>
        snapshot === undefined ? [] : [[seen.pid, snapshot.pid]]
      ),
    );
  }

  /**
   * Ends the copies. Each process has to take the zombie of its own; if it
   * does not, nothing is lost.
   */
  endCopies(): void {
    if (this.#ended) return;
    this.#ended = true;
    endCopies(
      this.processes.flatMap(({ seen: { pid, stat }, asked: { snapshot } }) =>
        snapshot === undefined ? [] : [{ pid, snapshot, pages: stat.rss }]
      ),
      new Set(this.processes.map(({ seen }) => seen.pid)),
      (pid, error) =>
        this.report.log(
          2,
          `the copy of task ${pid} stays as a zombie: ${error.message}`,
        ),
    );
  }

  [Symbol.dispose](): void {
    // What is to go on shall not have to wait for a file system.
    this.guards?.[Symbol.dispose]();
    this.flight[Symbol.dispose]();
    for (const { early } of this.processes) early?.[Symbol.dispose]();
    this.endCopies();
  }
}

function countOf({ processes }: Still): string {
  const [{ seen }] = processes;
  return processes.length === 1
    ? `task ${seen.pid}`
    : `${processes.length} processes`;
}

/** Of kinds that few programs have. */
async function readContents(
  { tables, seen }: Still,
): Promise<ObjectContents | undefined> {
  const queues = isEntered("ipc") ? messageQueues() : [];
  if (
    queues.length === 0 &&
    !tables.some(({ descriptors }) => descriptors.some(hasOwnContents))
  ) return undefined;
  const { ObjectContents } = await import("./object_contents.ts");
  return ObjectContents.read(tables, seen.outsideHolders, queues);
}

/**
 * All that has to happen while the tree stands still. Without snapshots it has
 * to stay so while its memory is copied, too.
 */
async function whileStopped(
  frozen: FrozenTree,
  options: DumpOptions,
  before: TreeSighting | undefined,
  prepared: ReadonlyMap<number, Questions>,
  writer: ImageWriter,
  links: DumpLinks,
  connections: DumpedConnections,
  terminals: DumpedTerminals | undefined,
  counters: PageCounters,
  report: Report,
  guards: FileSystemGuards | undefined,
  mounts: LazyMounts,
  networkValues: readonly ckpt_sysctl_entry[] | undefined,
): Promise<Still> {
  const { tree } = frozen;
  const locks = readLocks();
  // What is to stay frozen does not mind how long it stands still either.
  const goesOn = options.leaveRunning && !frozen.staysFrozen;
  const seen = lookAtTree(
    tree,
    goesOn ? before : undefined,
    options.external,
    options,
    true,
    mounts.namespaces,
    before,
  );
  const still = new Still(seen, report, guards);
  const more = still.moreOfSockets;
  try {
    if (options.tcpEstablished && hasConnections(still.tables)) {
      still.connections = connections.read(still.tables);
      await readUnaccepted(still, connections, options);
      if (options.leaveRunning || options.leaveStopped) connections.letGo();
    }
    const isUnread = ({ descriptors }: SeenTable) =>
      descriptors.some(({ socket }) => hasUnread(socket));
    if (still.tables.some(isUnread)) {
      const { readUnread } = await import("../files/datagrams.ts");
      more.unread = await readUnread(still.tables);
    }
    if (still.tables.some(sharesPorts)) {
      const { readSharedPorts } = await import("../files/shared_ports.ts");
      more.sharedPorts = readSharedPorts(still.tables);
    }
    if (anyPacketRings(still.tables)) {
      const { readPacketRings } = await import("../files/packet_rings.ts");
      more.packetRings = readPacketRings(still.tables);
    }
    if (anyWaiting(still.tables)) {
      const { readWaiting } = await import("../files/waiting_connections.ts");
      more.waiting = readWaiting(still.tables);
    }
    still.flocks = await readFlocks(locks, seen.processes);
    still.pipes = readPipes(pipesAmong(still.tables), options.external);
    still.contents = await readContents(still);
    if (terminals !== undefined) {
      still.terminals = terminals.read(seen.processes);
    } else {
      using late = await prepareTerminals(seen.processes);
      still.terminals = late?.read(seen.processes);
    }
    still.files = saveLostFiles(
      seen.files,
      options,
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
    // A copy of a process is none of those that share its memory.
    const memories = new Set([...seen.objects.values()].map(({ vm }) => vm));
    let wantSnapshot = goesOn && memories.size === seen.processes.length &&
      !seen.processes.some(({ vmas }) => vmas.vmas.some(diesOfCopy));
    for (const [i, process] of seen.processes.entries()) {
      const { pid, tid } = process;
      const { tids, suspendsSeccomp } = frozen.processes[i];
      using memory = TaskMemory.open(pid, tid);
      const asked = interview(
        process,
        tids,
        suspendsSeccomp,
        memory,
        prepared.get(pid),
        wantSnapshot,
        tree.deadSnapshots.get(pid),
      );
      // Without one copy of all, those of the others are of no use.
      wantSnapshot &&= asked.snapshot !== undefined;
      still.processes.push({
        seen: process,
        asked,
        early: asked.snapshot === undefined
          ? undefined
          : await EarlyPages.read(tid, process.vmas.vmas, counters),
      });
    }
    const namespaceReasons = namespaceProblems(seen);
    refuseFor(namespaceReasons, seen.tree.members[0].pid);
    still.cgroupNamespace = readCgroupNamespace(seen.processes[0].tid);
    still.namespaces = namespaceIds(still.cgroupNamespace);
    still.writeNamespaces = readNamespaces(still.namespaces, networkValues);
    still.clocks = {
      monotonic: clockNow(CLOCK_MONOTONIC),
      boottime: clockNow(CLOCK_BOOTTIME),
    };
    still.shared = await saveSharedMemory(
      seen.processes.map(({ tid, vmas }) => ({ pid: tid, vmas: vmas.vmas })),
      firstPagesId(seen.processes.length),
      writer,
      counters,
    );
    const { pid: tid, descriptors } = still.flight.table;
    still.memfds = await saveMemfds(
      [...seen.processes, { tid, descriptors, vmas: { vmas: [] } }],
      new Set(still.shared.map(({ id }) => id)),
      firstPagesId(seen.processes.length) + still.shared.length,
      writer,
      counters,
    );
    return still;
  } catch (error) {
    still[Symbol.dispose]();
    throw error;
  }
}

/**
 * @param work what can be done while memory is saved; when it fails, nothing
 * is being saved any more
 */
async function untilSaved<T>(
  saving: Promise<unknown>,
  work: () => Promise<T>,
): Promise<T> {
  saving.catch(() => {}); // the work will know
  try {
    return await work();
  } catch (error) {
    await Promise.allSettled([saving]);
    throw error;
  }
}

function concludeAll(still: Still, report: Report): Collected[] {
  // From where its namespace begins all have to be moved.
  const moved = (still.cgroupNamespace?.roots.length ?? 0) > 0;
  const ownCgroups = moved ? [] : readCgroup(Deno.pid);
  // All answer side by side.
  for (const { asked } of still.processes) askSnapshot(asked);
  return still.processes.map(({ seen, asked }) => {
    if (asked.snapshot !== undefined) confirmAreas(seen, asked.snapshot.pid);
    const process = conclude(seen, asked, ownCgroups);
    for (const { tid, unknownCall } of process.threads) {
      if (unknownCall) {
        report.log(
          2,
          `thread ${tid} was in a system call that the kernel had ` +
            "interrupted before, which nobody can name any more: it will " +
            "see EINTR",
        );
      }
    }
    return process;
  });
}

const PROGRESS_MS = 100;
/** Below this nobody waits long enough to see progress. */
const PAGES_WORTH_PROGRESS = 16384;

async function saveMemory(
  { seen: { objects }, processes, hasSnapshots }: Still,
  writer: ImageWriter,
  report: Report,
  counters: PageCounters,
): Promise<StoredPages[]> {
  const total = processes.reduce((sum, { seen }) => sum + seen.stat.rss, 0);
  using _shown = total < PAGES_WORTH_PROGRESS
    ? undefined
    : every(PROGRESS_MS, () => {
      report.progress("saving memory (pages)", counters.scanned, total);
    });
  const saving = new MemorySaving(counters, report.signal);
  // Memory that several processes use is stored with the first of them.
  const memories = new Set<number>();
  try {
    for (const [i, { seen, asked, early }] of processes.entries()) {
      const path = writer.createRaw(pagesName(pagesId(i)));
      const { vm } = objects.get(seen.pid)!;
      if (memories.has(vm)) continue;
      memories.add(vm);
      const source = hasSnapshots ? asked.snapshot!.pid : seen.tid;
      await saving.add(seen, source, path, hasSnapshots ? early : undefined);
    }
    const none = { entries: [], guards: [], inherited: [] };
    const saved = await saving.end();
    return processes.map(({ seen }) => saved.get(seen.pid)?.pages ?? none);
  } finally {
    await saving.settle();
  }
}

function refusedRoot(root: string | undefined): Reason[] {
  return root === undefined || root === "/" ? [] : [{
    object: `--root ${root}`,
    why: "a dump finds the root of the program by itself",
    remedy: "leave it out; give it to the restore",
  }];
}

/** Without these nothing can be dumped; told before anything is touched. */
function requireCapabilities(action: string): void {
  const reasons = missingCapabilities();
  if (reasons.length > 0) {
    throw new CkptError(EXIT.permission, action, reasons);
  }
}

function missingCapabilities(): Reason[] {
  const reasons: Reason[] = [];
  for (
    const [name, purpose] of [
      ["CAP_SYS_PTRACE", "to stop and read tasks"],
      ["CAP_SYS_ADMIN", "to read seccomp filters and mapped files"],
    ] as const
  ) {
    if (!hasCapability(name)) {
      reasons.push({
        object: name,
        why: `ckpt does not have this capability, which it needs ${purpose}`,
        remedy: "run ckpt as root",
      });
    }
  }
  return reasons;
}

/**
 * Whether a process could be dumped, and with which options, without stopping
 * it; without a pid, whether this host has what ckpt needs.
 */
export async function check(
  options: CheckOptions,
  report: Report,
): Promise<CheckResult> {
  try {
    const { pid } = options;
    if (pid === undefined) return await checkOnce(options, report);
    const place = placeOf(pid, `checking task ${pid}`);
    const result = await checkOnce({ ...options, pid: place.pid }, report);
    return { ...result, pid: place.pidOutside };
  } catch (error) {
    throw options.pid === undefined
      ? error
      : withRemedyForVanished(error, options.pid);
  }
}

async function checkOnce(
  options: CheckOptions,
  report: Report,
): Promise<CheckResult> {
  await report.letSignalsIn();
  const missing = missingCapabilities();
  const { pid } = options;
  if (pid === undefined) return { reasons: missing, neededOptions: [] };
  refuseImpossible(pid, `checking task ${pid}`);
  using mounts = new LazyMounts(options);
  const survey = await surveyWithMounts(pid, options, mounts);
  if (survey === undefined) {
    throw new CkptError(EXIT.failed, `checking task ${pid}`, [{
      object: `task ${pid}`,
      why:
        "its threads, descriptors or mappings change too fast to be looked " +
        "at while it runs",
      remedy: "ckpt dump looks at it when it is stopped",
    }]);
  }
  const { reasons, neededOptions, seen } = survey;
  const cgroup = options.freezeCgroup === undefined
    ? []
    : CgroupFreezer.open(options.freezeCgroup).reasonsAgainst(pid);
  const { directoryReasons, plannedProcesses } = await import("./dry_run.ts");
  const { imagesDirectory, replace = false } = options;
  const directory = imagesDirectory === undefined ? [] : [
    ...directoryReasons(imagesDirectory, replace),
    ...await guardReasons({ ...options, imagesDirectory }, seen),
  ];
  return {
    pid,
    reasons: [
      ...missing,
      ...refusedRoot(options.root),
      ...reasons,
      ...namespaceProblems(seen),
      ...cgroup,
      ...directory,
    ],
    neededOptions,
    files: caredFiles(seen.files, options),
    processes: plannedProcesses(survey),
  };
}
