/**
 * Makes the tree: starts the first agent, lets agents be born as the plan says,
 * gives each the programs by which it becomes its process, sets the registers
 * of all threads, and lets all go on at one moment.
 */
import { CkptError, EXIT } from "../error.ts";
import { AgentProcess, type AgentThread } from "../ffi/agent_process.ts";
import { pause } from "../ffi/pause.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import { close, O, open, syscall } from "../ffi/syscall.ts";
import type { ckpt_ring_entry, reg_file_entry } from "../image/schema.gen.ts";
import { inside } from "../ns/inside.ts";
import { NAMESPACE_FLAGS } from "../ns/kinds.ts";
import { readMountInfo } from "../proc/read.ts";
import { pagesName } from "../image/kinds.ts";
import { PageCounters } from "../mm/page_copy.ts";
import type { SegmentsPlan } from "../mm/sysv_segments.ts";
import type { Report } from "../report.ts";
import { restoreCgroups } from "../task/cgroups.ts";
import { awaitGroupStops } from "../task/group_stop.ts";
import { SIGNALS_WITH_ACTION } from "../task/signal_actions.ts";
import {
  type AgentLayout,
  type AgentSlot,
  enterHole,
  ProgramRoom,
  rangeOf,
  slotNumbers,
  stackOf,
} from "./agent_layout.ts";
import { readObjectImages } from "../files/object_images.ts";
import { readPipeImages } from "../files/pipe_images.ts";
import {
  canBindAside,
  isElsewhere,
  isSplit,
} from "../files/make_unix_sockets.ts";
import { MadeFiles } from "../ghost/make.ts";
import {
  type DescriptorPrograms,
  restoreDescriptors,
} from "../files/restore_descriptors.ts";
import { armTimerfds } from "../files/timerfd.ts";
import { clockNow } from "../task/posix_timers.ts";
import { waiterFor } from "./births.ts";
import { deliver, forkHelper, reapHelper, type Vfork } from "./deliver.ts";
import {
  type Finishing,
  finishThreads,
  stopAndContinue,
} from "./finish_threads.ts";
import type { Given } from "./given_descriptors.ts";
import type { RestoreOptions } from "./options.ts";
import { giveUpControl, setForeground } from "../files/terminal.ts";
import { Terminals } from "./terminals.ts";
import { fillTask } from "./fill_task.ts";
import { Memfds } from "./memfds.ts";
import { enterMounts } from "./mount_services.ts";
import type { TreeMounts } from "./mounts.ts";
import { announce, parentOf } from "./namespaces.ts";
import { writePidfile } from "./pidfile.ts";
import type { TreePlan } from "./plan.ts";
import {
  cloneThreads,
  earlyThreadProgram,
  endLeaderProgram,
  eventProgram,
  leaderProgram,
  makeTheSame,
  memoryProgram,
  type MemoryPrograms,
  moveServices,
  type OwnMemoryPrograms,
  processProgram,
  ServiceNumbers,
  type Services,
  threadProgram,
} from "./programs.ts";
import { isMadeByProcess } from "../files/register_with_ring.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import type { BoundRings, RingMakers } from "./bound_rings.ts";
import type { RestoredConnections } from "./connections.ts";
import { SharedMemoryObjects } from "./shared_memory.ts";
import { SysvSegments } from "./sysv_segments.ts";
import { Watchers } from "./watches.ts";
import {
  hasOwnObjects,
  livingThreads,
  type TaskImages,
  type TreeImages,
} from "./task_images.ts";

const SIGSTOP = 19;
const RLIMIT_NOFILE = 7;
/** How long signals wait while processes are born; to let them in takes 0.2 ms. */
const DEAF_MS = 20;
/** How often a pid is tried to be had that nobody may ask for. */
const TRIES_FOR_PID = 1000;

/**
 * @param wayTo how ckpt gets at a file, or to where it was
 * @returns the pid of the root, which runs with all its descendants
 */
export async function buildTree(
  images: TreeImages,
  plan: TreePlan,
  given: Given,
  segmentsPlan: SegmentsPlan,
  connections: RestoredConnections,
  mounts: TreeMounts | undefined,
  wayTo: (entry: reg_file_entry) => string,
  options: RestoreOptions,
  report: Report,
): Promise<number> {
  const [rootImages] = images.processes;
  const vfork = images.processes.some(({ extension }) => extension.awaited)
    ? await import("./vfork.ts")
    : undefined;
  const holders = vfork?.holdersFor(images, plan.host) ?? new Map();
  const imagesFd = open(images.set.directory, O.PATH | O.DIRECTORY);
  const ownFd = open("/proc/self/fd", O.PATH | O.DIRECTORY);
  try {
    using made = await MadeFiles.make(
      images.set,
      images.remaps,
      images.files,
      report,
      wayTo,
      mounts?.clone,
    );
    using terminals = await Terminals.make(images.terminals, wayTo);
    using memfds = await Memfds.make(
      images,
      new PageCounters(),
      report.signal,
    );
    using objects = hasOwnObjects(images)
      ? (await import("./own_objects.ts")).OwnObjects.make(images)
      : undefined;
    const split = isSplit(images.processes);
    using places = hasPlaces(images, split)
      ? (await import("./socket_places.ts")).SocketPlaces.make(
        images,
        split,
        (mount) => mounts?.rootOfSocket(mount) ?? "own",
      )
      : undefined;
    using shared = await SharedMemoryObjects.make(
      images,
      new PageCounters(),
      report.signal,
    );
    using segments = await SysvSegments.make(
      images,
      segmentsPlan,
      new PageCounters(),
      report.signal,
    );
    const rings = images.set.read("ckpt-rings", undefined)
      ?.filter(({ id }) => images.open.has(id)) ?? [];
    const services: Services = {
      images: imagesFd,
      shared: shared.fds,
      own: ownFd,
      given: [...new Set([...given.byFile.values()].map(({ fd }) => fd))],
      made: new Map([
        ...made.byFile,
        ...memfds.byFile,
        ...objects?.byFile ?? [],
        ...terminals.byFile,
      ]),
      places: places?.byFile ?? new Map(),
      mounts: mounts?.services,
      roots: mounts?.rootsOf(images.files.values()),
      rings: rings.filter(isMadeByProcess).map(({ id }) => id),
    };
    const numbers = new ServiceNumbers(images, services);
    const place = inside();
    const { started, rootOutside = rootImages.pid } = place ?? {};
    const nofile = plan.host.limits[RLIMIT_NOFILE].hard;
    using builder = new TreeBuilder(
      images,
      plan,
      numbers,
      report,
      planDescriptors(images, given, numbers, rings, holders),
      vfork,
      holders,
      started === undefined
        ? AgentProcess.start({
          pid: rootImages.pid,
          parent: parentOf(options),
          keep: numbers.sources,
          openFiles: [nofile, nofile],
        })
        : AgentProcess.take(rootImages.pid, started.lifeline),
    );
    report.log(3, `started the agent as task ${rootImages.pid}`);
    await builder.beBorn(terminals.bySession);
    await made.filled();
    memfds.seal();
    builder.shareTerminals();
    const filler = await connections.filler(report);
    const boundRings = rings.length === 0
      ? undefined
      : new (await import("./bound_rings.ts")).BoundRings(
        rings,
        numbers,
        plan.host.credentials,
      );
    builder.openDescriptors(
      (made) => connections.makeAll(made, filler),
      boundRings,
    );
    terminals.settle();
    places?.remove();
    using watchers = Watchers.take(plan.watches, images.processes);
    made.settle();
    await builder.letSignalsIn();
    builder.startThreads();
    builder.setFileOwners();
    builder.armTimers();
    builder.endHolders();
    builder.restoreThreads();
    await builder.letSignalsIn();
    using pidfile = writePidfile(options.pidfile, rootOutside);
    builder.finish();
    // Nothing runs from here on: the cgroup may be a frozen one.
    builder.joinCgroups();
    watchers.fill(plan.watches, images, made.byFile, report);
    await builder.letSignalsIn();
    segments.settle();
    connections.goOn();
    if (place !== undefined) announce(place, options);
    builder.release(options.leaveStopped);
    segments.keep();
    objects?.keep();
    pidfile.keep();
    return rootImages.pid;
  } finally {
    close(ownFd);
    close(imagesFd);
  }
}

function hasPlaces(
  { sockets, processes }: TreeImages,
  isSplit: boolean,
): boolean {
  return sockets.unix.values().some((one) => isElsewhere(one, isSplit)) &&
    canBindAside(processes);
}

/** How all processes get their descriptors. */
interface DescriptorPlan {
  /** By pid. */
  readonly programs: ReadonlyMap<number, DescriptorPrograms>;
  /** The number above all that are in use meanwhile. */
  readonly end: number;
}

function planDescriptors(
  images: TreeImages,
  given: Given,
  numbers: ServiceNumbers,
  rings: readonly ckpt_ring_entry[],
  holders: ReadonlyMap<number, number>,
): DescriptorPlan {
  const own = rings.filter(isMadeByProcess);
  const tables = images.processes.map(({ pid, ids, descriptors }) => ({
    pid: holders.get(pid) ?? pid,
    filesId: ids.files_id,
    entries: descriptors,
    absent: own.flatMap((ring) =>
      ring.pid === pid ? [] : [numbers.ring(ring.id)]
    ),
    programs: {
      open: new Program(),
      fetch: new Program(),
      watch: new Program(),
      finish: new Program(),
      disarmed: [],
      connections: [],
    },
  }));
  const end = restoreDescriptors(
    tables,
    {
      files: images.files,
      made: new Map([
        ...[...numbers.services.made].map(([id, { fd, reopen }]) =>
          [
            id,
            reopen
              ? { reopen, path: numbers.madePaths.get(id)! }
              : { reopen, fd: numbers.of(fd) },
          ] as const
        ),
        ...own.map(({ id }) =>
          [id, { reopen: false, fd: numbers.ring(id) }] as const
        ),
      ]),
      sources: numbers.rootedPaths,
      ...readPipeImages(images.set),
      objects: readObjectImages(images.set),
      sockets: images.sockets,
      locks: images.locks,
      exists: taskExists,
      bindsAside: canBindAside(images.processes),
      places: new Map(
        [...numbers.services.places].map(([id, fd]) => [id, numbers.of(fd)]),
      ),
      openers: new Map([
        ...images.terminals.own,
        ...own.map(({ id, pid }) => [id, pid] as const),
      ]),
    },
    new Map(
      [...given.byFile].map(([id, { fd, reopen }]) => [
        id,
        { fd: numbers.of(fd), reopen },
      ]),
    ),
    numbers,
  );
  const programs = new Map(
    tables.map(({ programs }, i) => [images.processes[i].pid, programs]),
  );
  return { programs, end };
}

/** Bytes of the largest program: it holds what was in pipes. */
function largestOf(all: ReadonlyMap<number, DescriptorPrograms>): number {
  return [...all.values()].reduce(
    (most, { open, fetch, watch, finish }) =>
      Math.max(most, open.size, fetch.size, watch.size, finish.size),
    0,
  );
}

/** A process on its way from an agent to what it was. */
interface Member {
  readonly images: TaskImages;
  readonly agent: AgentProcess;
  readonly leader: AgentThread;
}

type VforkModule = typeof import("./vfork.ts");

interface LaterPrograms {
  readonly process: Program;
  /** Of all threads but the leader. */
  readonly threads: readonly Program[];
  readonly leader: Program;
}

class TreeBuilder implements Disposable {
  readonly #agents = new Map<number, AgentProcess>();
  readonly #layout: AgentLayout;
  readonly #slots: Map<number, number>;
  readonly #byPid: ReadonlyMap<number, TaskImages>;
  readonly #descriptors: ReadonlyMap<number, DescriptorPrograms>;
  /** Where two ends of a channel are, to those that hold descriptors. */
  readonly #channel: number;
  /** Those that live, parents before children; complete once all are born. */
  #members: Member[] = [];
  /** The same, but those that hold descriptors in the stead of others. */
  #tables: Member[] = [];
  /** Threads that are there before the others, to fork their children. */
  readonly #early = new Map<number, AgentThread>();
  readonly #laterPrograms = new Map<number, LaterPrograms>();
  /** The first process of those that share directories, by their id. */
  readonly #firstWithDirectories: ReadonlyMap<number, number>;
  /** The first process that has an io_uring mapped, by the id of its file. */
  readonly #ringFillers: ReadonlyMap<number, number>;
  /** Threads that wait in vfork(2), or will. */
  readonly #waiters: ReadonlySet<number>;
  /** Threads that do the work of leaders which wait so, by their pids. */
  readonly #standIns = new Map<number, AgentThread>();

  constructor(
    readonly images: TreeImages,
    readonly plan: TreePlan,
    readonly numbers: ServiceNumbers,
    readonly report: Report,
    { programs, end }: DescriptorPlan,
    /** Loaded where threads wait in vfork(2). */
    readonly vfork: VforkModule | undefined,
    /** Who holds descriptors for those that cannot, by the pids of these. */
    readonly holders: ReadonlyMap<number, number>,
    root: AgentProcess,
  ) {
    this.#descriptors = programs;
    this.#channel = end;
    this.#agents.set(root.pid, root);
    this.#slots = new Map(slotNumbers(images));
    // Those that they do it for stand meanwhile.
    for (const [pid, holder] of holders) {
      this.#slots.set(holder, this.#slots.get(pid)!);
    }
    this.#firstWithDirectories = new Map(
      images.processes.map(({ ids, pid }) => [ids.fs_id, pid] as const)
        .reverse(),
    );
    this.#ringFillers = new Map(
      images.set.read("ckpt-rings", undefined) === undefined
        ? []
        : images.processes.toReversed().flatMap(({ pid, mm }) =>
          mm.vmas.filter(isRingArea).map(({ shmid }) =>
            [Number(shmid), pid] as const
          )
        ),
    );
    this.#byPid = new Map(
      images.processes.map((process) => [process.pid, process]),
    );
    this.#waiters = new Set(
      images.processes.flatMap((process) => waiterFor(process) ?? []),
    );
    try {
      const timers = armTimerfds(images.processes, images.files, clockNow);
      this.#layout = enterHole(
        root,
        images,
        [...timers.values()].reduce(
          (most, { size }) => Math.max(most, size),
          largestOf(programs),
        ),
      );
    } catch (error) {
      root[Symbol.dispose]();
      throw error;
    }
  }

  #heard = performance.now();

  async letSignalsIn(): Promise<void> {
    await this.report.letSignalsIn();
    this.report.signal.throwIfAborted();
    this.#heard = performance.now();
  }

  /** The same, when they have waited for long. */
  async #letWaitingSignalsIn(): Promise<void> {
    if (performance.now() - this.#heard > DEAF_MS) await this.letSignalsIn();
  }

  /** Where an agent has its stacks and programs; helpers have the first. */
  #slot(pid: number): AgentSlot {
    return this.#layout.slots[this.#slots.get(pid) ?? 0];
  }

  /** The leader, or who does its work. */
  #leader(pid: number): AgentThread {
    return this.#standIns.get(pid) ??
      { tid: pid, stack: this.#slot(pid).leaderStack };
  }

  /** Runs one program in one thread of one agent, from start to end. */
  #run(
    agent: AgentProcess,
    program: Program,
    room = 0,
    tid = agent.pid,
  ): Int32Array {
    const thread = tid === agent.pid
      ? this.#leader(tid)
      : this.#earlyThread(agent, tid);
    return this.#start(agent, program, thread)(room);
  }

  /** Lets one thread begin a program. @returns what waits for its end */
  #start(
    agent: AgentProcess,
    program: Program,
    thread: AgentThread,
  ): (room?: number, single?: boolean) => Int32Array {
    const address = new ProgramRoom(this.#slot(agent.pid)).place(program);
    agent.load(thread, program, address);
    agent.resume(thread);
    return (room, single) => agent.wait(thread, program, address, room, single);
  }

  #earlyThread(agent: AgentProcess, tid: number): AgentThread {
    const known = this.#early.get(tid);
    if (known !== undefined) return known;
    const { threads } = this.#byPid.get(agent.pid)!;
    const i = threads.findIndex((thread) => thread.tid === tid);
    const thread = { tid, stack: stackOf(this.#slot(agent.pid), i) };
    const program = new Program();
    cloneThreads(program, [{ ...thread, program: 0n }]);
    this.#run(agent, program, 1);
    this.#early.set(tid, thread);
    return thread;
  }

  /**
   * Runs a program in every process, all at the same time: each is resumed
   * before any is waited for.
   */
  #runAll(
    programOf: (member: Member) => Program,
    look?: (member: Member, outcome: Outcome) => void,
    members: readonly Member[] = this.#members,
  ): void {
    const running = members.flatMap((member) => {
      const program = programOf(member);
      if (program.operationCount === 0) return [];
      const room = new ProgramRoom(this.#slot(member.agent.pid));
      const address = room.place(program);
      member.agent.load(member.leader, program, address);
      member.agent.resume(member.leader);
      return [{ member, program, address }];
    });
    for (const { member, program, address } of running) {
      const { agent, leader } = member;
      agent.wait(leader, program, address);
      look?.(member, agent.outcome(program, address));
    }
  }

  /**
   * Carries out the plan of births: every process exists, with its memory.
   *
   * @param terminals paths of those that control sessions
   */
  async beBorn(terminals: ReadonlyMap<number, string>): Promise<void> {
    const { steps } = this.plan.births;
    const begin = new Program();
    moveServices(begin, this.numbers, inside()?.started && Deno.pid);
    this.#makeCgroupNamespace(begin);
    this.#enterMounts(begin, this.images.tree[0].pid);
    this.#run(this.#root, begin);
    await deliver(steps, {
      agents: this.#agents,
      living: this.#byPid,
      zombies: new Map(
        this.images.zombies.map((zombie) => [zombie.pid, zombie]),
      ),
      terminals,
      memory: (pid) => this.#memoryOf(pid),
      run: (agent, program, room, tid) => this.#run(agent, program, room, tid),
      rebuild: (agent, programs) => this.#rebuild(agent, programs),
      runToEnd: (agent, program) => {
        const leader = this.#leader(agent.pid);
        const address = new ProgramRoom(this.#slot(agent.pid)).place(program);
        agent.load(leader, program, address);
        return agent.runToEnd();
      },
      enter: (program, pid, forkedBy) =>
        this.#enterMounts(program, pid, forkedBy),
      beforeVfork: (agent, tid, child) =>
        this.#beforeVfork(this.vfork!, agent, tid, child),
      letSignalsIn: () => this.#letWaitingSignalsIn(),
    });
    this.#members = this.images.processes.map((images) => ({
      images,
      agent: this.#agents.get(images.pid)!,
      leader: this.#leader(images.pid),
    }));
    this.#tables = this.#members.map((member) => {
      const holder = this.holders.get(member.images.pid);
      return holder === undefined ? member : {
        images: member.images,
        agent: this.#agents.get(holder)!,
        leader: this.#leader(holder),
      };
    });
  }

  /** All that a thread does for itself before it waits in vfork(2). */
  #beforeVfork(
    vfork: VforkModule,
    agent: AgentProcess,
    tid: number,
    child: number,
  ): Vfork {
    const { pid } = agent;
    const images = this.#byPid.get(pid)!;
    const image = images.threads.find((thread) => thread.tid === tid)!;
    const thread = tid === pid
      ? this.#leader(pid)
      : this.#earlyThread(agent, tid);
    // Who does the rest of what has to be done in this process.
    const worker = tid === pid ? this.#makeStandIn(agent) : this.#leader(pid);
    const hasRights = !this.holders.has(child);
    if (!hasRights) this.#makeHolder(vfork, agent, worker, child);
    const { host } = this.plan;
    const { programsBeforeVfork, signalsBeforeVfork } = vfork;
    for (
      const program of programsBeforeVfork(images, host, this.numbers, image)
    ) this.#run(agent, program, 0, tid);
    const signals = signalsBeforeVfork(images, image, !this.#acting.has(pid));
    this.#acting.add(pid);
    const room = new ProgramRoom(this.#slot(pid));
    if (signals.operationCount > 0) {
      agent.step(thread, signals, room.place(signals));
    }
    return {
      choosesPid: hasRights,
      bear: (program) => {
        const born = hasRights
          ? this.#run(agent, program, 1, tid)
          : this.#bearByLuck(vfork, agent, thread, worker, child, program);
        if (tid === pid) this.#standIns.set(pid, worker);
        return born;
      },
    };
  }

  /** A process that gets the descriptors of one that has no rights to. */
  #makeHolder(
    vfork: VforkModule,
    agent: AgentProcess,
    worker: AgentThread,
    child: number,
  ): void {
    const images = this.#byPid.get(child)!;
    const program = vfork.programForBirth(
      images,
      this.numbers.madePaths,
      this.#channel,
    );
    const CLONE_VM = 0x100;
    forkHelper(program, this.holders.get(child)!, CLONE_VM);
    const [pid] = this.#start(agent, program, worker)(1);
    this.#agents.set(pid, agent.adopt(pid));
  }

  /**
   * Makes a child by a thread that may not say which pid it gets: the kernel is
   * told which one it gave last, until nobody comes in between.
   */
  #bearByLuck(
    vfork: VforkModule,
    agent: AgentProcess,
    thread: AgentThread,
    worker: AgentThread,
    child: number,
    program: Program,
  ): Int32Array {
    const images = this.#byPid.get(agent.pid)!;
    const takesSignal = !vfork.hasQueuedChildSignal(images, this.#waiters);
    const address = new ProgramRoom(this.#slot(agent.pid)).place(program);
    const bear = () => {
      agent.load(thread, program, address);
      using _chosen = vfork.choosePid(child);
      agent.resume(thread);
      return agent.wait(thread, program, address, 1);
    };
    for (let i = 0; i < TRIES_FOR_PID; i++) {
      if (taskExists(child)) {
        pause(1);
        continue;
      }
      const born = bear();
      if (born[0] === child) return born;
      agent.adopt(born[0])[Symbol.dispose]();
      agent.resume(thread);
      agent.wait(thread, program, address);
      this.#start(agent, vfork.forgetChild(born[0], takesSignal), worker)();
    }
    throw new CkptError(EXIT.failed, `restoring task ${child}`, [{
      object: `pid ${child}`,
      why: "it is taken, or others start processes so fast that it cannot be " +
        "had by one that may not say which pid it wants",
      remedy: "restore again, or in a new pid namespace: " +
        "unshare --pid --fork --mount-proc ckpt restore ...",
    }]);
  }

  /** Processes that know already what to do with signals. */
  readonly #acting = new Set<number>();

  /** A thread that is there until its process is complete. */
  #makeStandIn(agent: AgentProcess): AgentThread {
    const holders = [...this.holders.values()];
    const tid = this.vfork!.sparesFor(this.images.tree, holders)();
    const thread = { tid, stack: this.#slot(agent.pid).leaderStack };
    const program = new Program();
    cloneThreads(program, [{ ...thread, program: 0n }]);
    this.#run(agent, program, 1);
    return thread;
  }

  /** The numbers of the mount namespaces that agents are in. */
  readonly #namespaces = new Map<number, number>();

  /**
   * Lets an agent go where its process was. Those that share directories with
   * the one that forked them are there.
   */
  #enterMounts(program: Program, pid: number, forkedBy?: number): void {
    const { mounts } = this.numbers.services;
    if (mounts === undefined) return;
    const outside = this.images.set.inventory.root_ids?.mnt_ns_id ?? 0;
    const has = this.#namespaces.get(forkedBy ?? 0) ?? outside;
    const wanted = this.#byPid.get(pid)?.ids.mnt_ns_id ?? has;
    this.#namespaces.set(pid, wanted);
    if (wanted === has) return;
    const made = mounts.namespaces.get(wanted);
    enterMounts(
      program,
      this.numbers.of(made?.namespace ?? mounts.own),
      this.numbers.of(made?.root ?? mounts.outside),
    );
  }

  /**
   * The programs that it runs when it has its memory; written while the agent
   * fills that, which is nothing that needs ckpt.
   */
  #later(images: TaskImages): LaterPrograms {
    const known = this.#laterPrograms.get(images.pid);
    if (known !== undefined) return known;
    const hasRights = !this.holders.has(images.pid);
    const host = hasRights
      ? this.plan.host
      : this.vfork!.withoutRights(this.plan.host, images);
    const programs = {
      process: processProgram(
        images,
        host,
        this.numbers,
        rangeOf(this.#layout),
        {
          ownDirectories: hasRights &&
            this.#firstWithDirectories.get(images.ids.fs_id) === images.pid,
          hasActions: images.threads.some(({ tid }) => this.#waiters.has(tid)),
          ringFillers: this.#ringFillers,
        },
      ),
      threads: images.threads.slice(1)
        .map((thread) => threadProgram(images, host, thread)),
      leader: leaderProgram(images, host, this.#waiters.has(images.pid)),
    };
    this.#laterPrograms.set(images.pid, programs);
    return programs;
  }

  #rebuild(
    agent: AgentProcess,
    { first, halves }: MemoryPrograms,
  ): () => Promise<void> {
    const images = this.#byPid.get(agent.pid)!;
    const leader = this.#leader(agent.pid);
    const { signal } = this.report;
    if (halves !== undefined) this.#run(agent, first);
    const finish = this.#start(agent, halves?.own ?? first, leader);
    const filled = halves && fillTask(images, halves.beside, signal);
    // It is awaited below, if nothing fails before.
    filled?.catch(() => {});
    return async () => {
      this.#later(images);
      await filled;
      finish(0, images.threads.length === 1);
      if (halves !== undefined) this.#run(agent, halves.last);
    };
  }

  #memoryOf(pid: number): MemoryPrograms | undefined {
    if (this.#slots.get(pid) !== 0) return undefined;
    const images = this.#byPid.get(pid)!;
    const parent = this.plan.births.inheriting.has(pid)
      ? this.#byPid.get(images.tree.ppid)
      : undefined;
    const last = this.#lastMemory;
    const memory = last !== undefined && makeTheSame(last, images, parent)
      ? last
      : memoryProgram(images, this.numbers, rangeOf(this.#layout), parent);
    this.#lastMemory = memory;
    memory.first.setText(
      memory.pagesName,
      pagesName(images.pagemap.pages_id),
    );
    return memory;
  }

  /** Siblings are likely to have the like. */
  #lastMemory: OwnMemoryPrograms | undefined;

  /**
   * Threads that a pidfd (PIDFD_THREAD, kept as O_EXCL) or a file below /proc
   * stands for have to be there.
   */
  #makeThreadsOfFiles(): void {
    const owners = new Map(
      this.images.processes.flatMap(({ pid, threads }) =>
        threads.map(({ tid }) => [tid, pid] as const)
      ),
    );
    for (const { pidfd, reg } of this.images.files.values()) {
      const tid = pidfd !== undefined && (pidfd.flags & O.EXCL) !== 0
        ? pidfd.nspid
        : Number(/^\/proc\/\d+\/task\/(\d+)/.exec(reg?.name ?? "")?.[1]);
      const pid = owners.get(tid);
      if (pid === undefined || pid === tid) continue;
      this.#earlyThread(this.#agents.get(pid)!, tid);
    }
  }

  /** Processes with the pids of those that had ended, for a moment. */
  #standInForEnded(): AgentProcess[] {
    const ended = [...this.images.endedTasks].flatMap(([tid, pid]) =>
      tid === pid ? [pid] : []
    );
    if (ended.length === 0) return [];
    const program = new Program();
    for (const pid of ended) forkHelper(program, pid);
    const root = this.#root;
    return [...this.#run(root, program, ended.length)].map((pid) => {
      const helper = root.adopt(pid);
      this.#agents.set(pid, helper);
      return helper;
    });
  }

  /**
   * Threads with the ids of those that had ended, for a moment. They do nothing
   * but end, when their leader does nothing: they can do that on its stack.
   *
   * @returns what ends them
   */
  #standInForEndedThreads(): () => void {
    const threads = [...this.images.endedTasks].flatMap(([tid, pid]) => {
      const agent = this.#agents.get(pid);
      return agent === undefined || tid === pid ? [] : [{ tid, agent }];
    });
    const standing = threads.map(({ tid, agent }) => {
      const thread = { tid, stack: this.#leader(agent.pid).stack };
      const program = new Program();
      cloneThreads(program, [{ ...thread, program: 0n }]);
      this.#run(agent, program, 1);
      return { agent, thread };
    });
    return () => {
      for (const { agent, thread } of standing) this.#endThread(agent, thread);
    };
  }

  #endThread(agent: AgentProcess, thread: AgentThread): void {
    const program = new Program();
    program.call("exit", [0], `ending thread ${thread.tid}`);
    const room = new ProgramRoom(this.#slot(agent.pid));
    agent.endThread(thread, program, room.place(program));
  }

  #end(helpers: readonly AgentProcess[], parent = this.#root): void {
    if (helpers.length === 0) return;
    const program = new Program();
    for (const helper of helpers) {
      helper[Symbol.dispose]();
      this.#agents.delete(helper.pid);
      reapHelper(program, helper.pid);
    }
    this.#run(parent, program);
  }

  get #root(): AgentProcess {
    return this.#agents.get(this.images.tree[0].pid)!;
  }

  /** Who has the terminals that control sessions, and who is in front. */
  shareTerminals(): void {
    for (const { path, master, extension } of this.images.terminals.all) {
      const { sid, pgrp } = master;
      for (const pid of extension?.without ?? []) {
        const program = new Program();
        giveUpControl(program, path);
        this.#run(this.#agents.get(pid)!, program);
      }
      const leader = this.#byPid.get(sid)?.tree;
      if (leader === undefined || leader.pgid === pgrp || pgrp === 0) continue;
      const agent = this.#agents.get(sid)!;
      const exists = this.images.tree.some((process) =>
        process.pgid === pgrp && process.sid === sid
      );
      if (exists) this.#bringToFront(agent, path, pgrp);
      else this.#bringGoneGroupToFront(agent, path, pgrp);
    }
  }

  #bringToFront(agent: AgentProcess, path: string, group: number): void {
    const program = new Program();
    setForeground(program, path, group);
    this.#run(agent, program);
  }

  /** A helper is the group for a moment; then that is gone as it was. */
  #bringGoneGroupToFront(
    agent: AgentProcess,
    path: string,
    group: number,
  ): void {
    if (taskExists(group)) {
      this.report.log(
        2,
        `the group ${group} in the foreground of ${path} is gone, and ` +
          "another task has its number now: the group of the session's " +
          "leader is in the foreground instead",
      );
      return;
    }
    const born = new Program();
    forkHelper(born, group);
    const [pid] = this.#run(agent, born, 1);
    const helper = agent.adopt(pid);
    this.#agents.set(pid, helper);
    const lead = new Program();
    lead.call("setpgid", [0, 0], `making process group ${group}`);
    this.#run(helper, lead);
    this.#bringToFront(agent, path, group);
    this.#end([helper], agent);
  }

  /** Every open file once, then all that share it take it from there. */
  openDescriptors(
    connect: (
      made: readonly {
        readonly pid: number;
        readonly sockets: DescriptorPrograms["connections"];
      }[],
    ) => void,
    rings?: BoundRings,
  ): void {
    this.#makeThreadsOfFiles();
    const ended = this.#standInForEnded();
    const endThreads = this.#standInForEndedThreads();
    const ringMakers = this.#ringMakers();
    if (rings?.needsAllThreads) this.#makeAllThreads();
    rings?.make(ringMakers);
    this.#runInTables(({ images }) => this.#descriptors.get(images.pid)!.open);
    connect(
      [...this.#descriptors].map(([pid, { connections }]) => ({
        pid: this.holders.get(pid) ?? pid,
        sockets: connections,
      })),
    );
    this.#runInTables(({ images }) => this.#descriptors.get(images.pid)!.fetch);
    this.#end(ended);
    endThreads();
    this.#fillEpolls();
    rings?.finish(ringMakers);
    this.#handOver();
  }

  #ringMakers(): RingMakers {
    return {
      agent: (pid) => this.#agents.get(pid)!,
      images: (pid) => this.#byPid.get(pid)!,
      run: (agent, program, tid) => {
        this.#run(agent, program, 0, tid);
      },
      runAside: (agent, program) => {
        const { stack } = this.#leader(agent.pid);
        const birth = new Program();
        cloneThreads(birth, [{ tid: 0, stack, program: 0n }]);
        const [tid] = this.#run(agent, birth, 1);
        this.#start(agent, program, { tid, stack })();
        this.#endThread(agent, { tid, stack });
      },
    };
  }

  #makeAllThreads(): void {
    for (const { images: { threads, pid }, agent } of this.#members) {
      for (const { tid } of threads) {
        if (tid !== pid) this.#earlyThread(agent, tid);
      }
    }
  }

  #runInTables(
    programOf: (member: Member) => Program,
    look?: (member: Member, outcome: Outcome) => void,
  ): void {
    this.#runAll(programOf, look, this.#tables);
  }

  /** Those that were born without rights take what others hold for them. */
  #handOver(): void {
    for (const [pid, holder] of this.holders) {
      const parts = this.vfork!.handOver(
        this.#byPid.get(pid)!,
        this.numbers.base,
        this.#channel,
      );
      for (const { send, receive } of parts) {
        if (send.operationCount > 0) this.#run(this.#agents.get(holder)!, send);
        this.#run(this.#agents.get(pid)!, receive);
      }
    }
  }

  /** Nothing is left that has to be done with what they hold. */
  endHolders(): void {
    for (const [pid, holder] of this.holders) {
      const { ppid } = this.#byPid.get(pid)!.tree;
      this.#end([this.#agents.get(holder)!], this.#agents.get(ppid)!);
    }
  }

  /** What should have fired and could not waits for errors only. */
  #fillEpolls(): void {
    const quieten = new Map<number, Program>();
    this.#runInTables(
      ({ images }) => this.#descriptors.get(images.pid)!.watch,
      ({ images }, outcome) => {
        const program = new Program();
        const { disarmed } = this.#descriptors.get(images.pid)!;
        for (const { fired, quieten } of disarmed) {
          if (outcome.result(fired) === 0n) quieten(program);
        }
        quieten.set(images.pid, program);
      },
    );
    this.#runInTables(({ images }) => quieten.get(images.pid) ?? new Program());
  }

  /** Who gets signals about files: threads that have to exist. */
  setFileOwners(): void {
    this.#runInTables(({ images }) =>
      this.#descriptors.get(images.pid)!.finish
    );
  }

  /** Their time runs; some clocks need rights that go with the credentials. */
  armTimers(): void {
    const { processes, files } = this.images;
    const programs = armTimerfds(processes, files, clockNow);
    this.#runInTables(({ images }) =>
      programs.get(images.pid) ?? new Program()
    );
  }

  /** What a process has as a whole; then its threads are born. */
  startThreads(): void {
    const { host } = this.plan;
    for (const { images, agent } of this.#members) {
      for (const { tid } of images.threads) {
        if (!this.#early.has(tid) || this.#waiters.has(tid)) continue;
        this.#run(
          agent,
          earlyThreadProgram(images, host, this.numbers),
          0,
          tid,
        );
      }
    }
    const running = this.#members.map((member) => {
      const { images, agent, leader } = member;
      const later = this.#later(images);
      const program = later.process;
      const slot = this.#slot(images.pid);
      const room = new ProgramRoom(slot);
      const threads = images.threads.slice(1).flatMap((image, i) => {
        if (this.#waiters.has(image.tid)) return [];
        const program = later.threads[i];
        const address = room.place(program);
        agent.memory.write(address, program.encode(address, 1n));
        const thread = { tid: image.tid, stack: stackOf(slot, i + 1) };
        return [{ thread, program, address }];
      });
      const unborn = threads.filter(({ thread }) =>
        !this.#early.has(thread.tid)
      );
      cloneThreads(
        program,
        unborn.map(({ thread, address }) => ({ ...thread, program: address })),
      );
      const address = room.place(program);
      agent.load(leader, program, address);
      agent.resume(leader);
      return { member, program, address, threads, births: unborn.length };
    });
    for (const { member, program, address, threads, births } of running) {
      const { agent, leader } = member;
      agent.wait(leader, program, address, births);
      for (const { thread, address } of threads) {
        if (this.#early.has(thread.tid)) agent.point(thread, address);
        agent.resume(thread);
      }
      for (const { thread, program, address } of threads) {
        agent.wait(thread, program, address);
      }
    }
    this.#tellApart();
  }

  /**
   * What is set for one process counts for all in its memory, but for those for
   * which others wait in vfork(2): these have their own (__set_oom_adj in
   * fs/proc/base.c).
   */
  #tellApart(): void {
    for (const { pid, extension, threads } of this.images.processes) {
      if (!extension.awaited) continue;
      const score = threads[0].core.tc!.oom_score_adj ?? 0;
      Deno.writeTextFileSync(`/proc/${pid}/oom_score_adj`, `${score}`);
    }
  }

  /** The rest of each leader: limits, credentials, filters. */
  restoreThreads(): void {
    this.#runAll(({ images }) => this.#later(images).leader);
  }

  /** It begins where its first process is when it makes it. */
  #makeCgroupNamespace(begin: Program): void {
    const [{ pid, extension }] = this.images.processes;
    const { cgroup_namespace } = extension;
    if (cgroup_namespace === undefined) return;
    const mounts = readMountInfo(Deno.pid);
    for (const problem of restoreCgroups(pid, cgroup_namespace.roots, mounts)) {
      this.report.log(2, problem);
    }
    begin.call(
      "unshare",
      [NAMESPACE_FLAGS.cgroup],
      "making the cgroup namespace",
    );
  }

  joinCgroups(): void {
    if (this.#members.every(({ images }) => !images.extension.cgroups.length)) {
      return;
    }
    const mounts = readMountInfo(Deno.pid);
    for (const { images: { pid, extension } } of this.#members) {
      for (const problem of restoreCgroups(pid, extension.cgroups, mounts)) {
        this.report.log(2, problem);
      }
    }
  }

  /**
   * Timers and signals, registers, and the end of the agents. Children come
   * before their parents: what a parent is told of their stops is not to be
   * found in its queue.
   */
  finish(): void {
    const children = Map.groupBy(this.images.tree, ({ ppid }) => ppid);
    const running: Finishing[] = [];
    for (const member of this.#members.toReversed()) {
      const { agent, images } = member;
      this.#startEvents(member, children.get(images.pid) ?? []);
      const finishing = {
        agent,
        images,
        // Those that share the memory come later: the first of them is the last.
        isLast: this.#slots.get(images.pid) === 0,
        stopSignal: this.#stopSignalFor(images),
        standIn: this.#standIns.get(images.pid)?.tid,
      };
      if (finishing.stopSignal === 0) running.push(finishing);
      else finishThreads([finishing], this.#layout, this.#waiters);
    }
    finishThreads(running, this.#layout, this.#waiters);
  }

  #startEvents(
    { images, agent, leader }: Member,
    children: readonly { pid: number }[],
  ): void {
    const changed = children.filter(({ pid }) => {
      const child = this.#byPid.get(pid);
      return child?.stopSignal !== 0 || child.extension.continue_unreported;
    });
    const events = eventProgram(
      this.vfork?.withoutQueued(images, this.#waiters) ?? images,
      this.plan.host,
      changed.flatMap(({ pid }) => {
        const child = this.#byPid.get(pid);
        return child === undefined || child.stopSignal === 0 ||
            child.extension.stop_unreported
          ? []
          : [pid];
      }),
      changed.length > 0 &&
        !this.vfork?.hasQueuedChildSignal(images, this.#waiters),
      images.extension.continue_unreported ?? false,
    );
    if (images.extension.continue_unreported) stopAndContinue(images);
    const slot = this.#slot(images.pid);
    const room = new ProgramRoom(slot);
    images.threads.forEach(({ tid }, i) => {
      const program = events.programs[i];
      if (program.operationCount === 0) return;
      const thread = i === 0 ? leader : { tid, stack: stackOf(slot, i) };
      const outcome = agent.step(thread, program, room.place(program));
      const reasons = i === 0 ? events.wrongTimers(outcome) : [];
      if (reasons.length > 0) {
        throw new CkptError(
          EXIT.failed,
          `restoring task ${agent.pid}`,
          reasons,
        );
      }
    });
    const { ended_leader } = images.extension;
    if (ended_leader !== undefined) {
      const program = endLeaderProgram(ended_leader);
      agent.endLeader(leader, program, room.place(program));
    }
  }

  /**
   * The signal to stop a process with: the one it was stopped with, where
   * nothing can keep that from stopping it again, else SIGSTOP; 0: it runs.
   */
  #stopSignalFor({ stopSignal, tree, threads }: TaskImages): number {
    if (stopSignal === 0 || stopSignal === SIGSTOP) return stopSignal;
    const parent = this.#byPid.get(tree.ppid)?.tree;
    // An orphaned group does not stop (is_current_pgrp_orphaned in
    // kernel/exit.c); a handler would run.
    const orphaned = parent === undefined || parent.sid !== tree.sid ||
      parent.pgid === tree.pgid;
    const actions = threads[0].core.tc!.sigactions;
    const action = actions[SIGNALS_WITH_ACTION.indexOf(stopSignal)];
    return orphaned || action?.sigaction !== 0n ? SIGSTOP : stopSignal;
  }

  /** The moment of all or none. */
  release(leaveStopped: boolean): void {
    if (leaveStopped) {
      for (const { images: { pid } } of this.#members) {
        syscall("kill", BigInt(pid), BigInt(SIGSTOP));
      }
    }
    AgentProcess.release(
      this.#members.map(({ agent }) => agent),
      Int32Array.from(
        this.#members.flatMap(({ images }) =>
          livingThreads(images).map(({ tid }) => tid)
        ),
      ),
    );
    awaitGroupStops(
      this.#members.flatMap(({ images }) =>
        images.stopSignal === 0 && !leaveStopped
          ? []
          : livingThreads(images).map(({ tid }) => tid)
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const agent of [...this.#agents.values()].reverse()) {
      agent[Symbol.dispose]();
    }
  }
}
