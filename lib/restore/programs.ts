/**
 * The programs by which an agent becomes a process, in the order they run.
 * Order matters: each function says why.
 */
import type { Reason } from "../error.ts";
import { type Data, type Outcome, Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { highestWatched, readObjectImages } from "../files/object_images.ts";
import {
  isBound,
  isMadeByProcess,
  registerAll,
  wakePoller,
} from "../files/register_with_ring.ts";
import { restoreDirectories } from "../files/restore_descriptors.ts";
import type { MadeFile } from "../ghost/make.ts";
import { pagesName } from "../image/kinds.ts";
import type {
  ckpt_ended_leader_entry,
  reg_file_entry,
} from "../image/schema.gen.ts";
import { restoreRings } from "../mm/aio.ts";
import type { AddressRange } from "../mm/hole.ts";
import { realAreas } from "../mm/areas.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { isRingArea, mapPacketRings, mapRings } from "../mm/ring_areas.ts";
import {
  bytesIn,
  halve,
  storedPages,
  type StoredRange,
} from "../mm/stored_pages.ts";
import { readRings } from "./aio_rings.ts";
import { inheritedRanges } from "../mm/inherited_pages.ts";
import { inheritMemory } from "../mm/inherit.ts";
import { restoreMemoryMap } from "../mm/memory_map.ts";
import {
  fill,
  mapMemory,
  pagesToFill,
  rebuildMemory,
  sealMemory,
  settleMemory,
  unmapAllBut,
} from "../mm/rebuild.ts";
import { encodeText } from "../ffi/text.ts";
import { restoreAlternateStack } from "../task/alternate_stack.ts";
import { restoreCredentials } from "../task/credentials.ts";
import { restoreFpuPermission } from "../task/fpu.ts";
import { restoreIntervalTimers } from "../task/interval_timers.ts";
import {
  restoreProcessSignals,
  restoreThreadSignals,
} from "../task/pending_signals.ts";
import { clockNow, restorePosixTimers } from "../task/posix_timers.ts";
import {
  restoreDumpable,
  restoreInherited,
  restoreProcess,
} from "../task/process_attributes.ts";
import { restoreFlags } from "../task/registers.ts";
import { restoreResourceLimits } from "../task/resource_limits.ts";
import { restoreRseq } from "../task/rseq.ts";
import { restoreScheduling } from "../task/scheduling.ts";
import { isForAllThreads, restoreSeccomp } from "../task/seccomp.ts";
import { restoreSignalActions } from "../task/signal_actions.ts";
import {
  restoreParentDeathSignal,
  restoreRobustList,
  restoreThreadExtension,
  restoreThreadName,
  restoreTidAddress,
} from "../task/thread_attributes.ts";
import type { FileRoot, MountServices } from "./mount_services.ts";
import type { Host } from "./plan.ts";
import {
  regularFile,
  type TaskImages,
  type ThreadImage,
  type TreeImages,
} from "./task_images.ts";

const F_DUPFD_CLOEXEC = 1030;
const LAST_DESCRIPTOR = 0xffff_ffff;
const PR_SET_PDEATHSIG_OFF = [1, 0] as const;

/** Descriptors of ckpt's that the agents have for their work. */
export interface Services {
  /** The directory of the images. */
  images: number;
  /** Shared memory, by the id of the object. */
  shared: ReadonlyMap<bigint, number>;
  /** What stands in for files of the outside. */
  given: readonly number[];
  /** ckpt's own /proc/PID/fd: what is to be opened anew is found there. */
  own: number;
  /** What stands for files that no path leads to, by their ids. */
  made: ReadonlyMap<number, MadeFile>;
  /** Directories in which Unix sockets are bound, by the ids of these. */
  places: ReadonlyMap<number, number>;
  /** Where the tree has mount namespaces of its own. */
  mounts?: MountServices;
  /** Roots, as descriptors, of files of other namespaces than their users'. */
  roots?: ReadonlyMap<number, FileRoot>;
  /** Ids of io_urings that a process makes before all others. */
  rings: readonly number[];
}

/** Where the agents have them: above all numbers that any process uses. */
export class ServiceNumbers {
  /** Numbers of ckpt's, each once, in the order of their new numbers. */
  readonly sources: readonly number[];
  readonly #places: ReadonlyMap<number, number>;
  /** The first number that belongs to no process. */
  readonly base: number;
  /** What leads to files of other namespaces, by their ids. */
  readonly rootedPaths: ReadonlyMap<number, string>;
  /** ... and to those that no path leads to. */
  readonly madePaths: ReadonlyMap<number, string>;

  constructor(
    { processes, files, set }: TreeImages,
    readonly services: Services,
  ) {
    const { images, shared, given, own, made, places, mounts, roots } =
      services;
    // There may be as many deleted files as a process can have open: the
    // agents only get those that they cannot open by a path.
    this.sources = [
      ...new Set([
        images,
        own,
        ...shared.values(),
        ...given,
        ...[...made.values()].flatMap(({ fd, reopen }) => reopen ? [] : [fd]),
        ...places.values(),
        ...mounts === undefined ? [] : [
          mounts.proc,
          mounts.outside,
          mounts.own,
          ...[...mounts.namespaces.values()].flatMap((
            { namespace, root },
          ) => [namespace, root]),
          ...[...roots?.values() ?? []].map(({ fd }) => fd),
        ],
      ]),
    ];
    this.#places = new Map(this.sources.map((source, i) => [source, i]));
    this.base = 1 + processes.reduce(
      (most, { descriptors }) =>
        descriptors.reduce((most, { fd }) => Math.max(most, fd), most),
      highestWatched(
        files,
        readObjectImages(set),
        Math.max(2, ...this.sources),
      ),
    );
    this.rootedPaths = new Map(
      [...roots ?? []].map(([id, { fd, rest }]) => [
        id,
        `/proc/self/fd/${this.of(fd)}${rest}`,
      ]),
    );
    this.madePaths = new Map([
      ...this.rootedPaths,
      ...[...made].map(([id, { fd, reopen }]) =>
        [
          id,
          reopen
            ? `/proc/self/fd/${this.of(own)}/${fd}`
            : `/proc/self/fd/${this.of(fd)}`,
        ] as const
      ),
    ]);
  }

  /** Where an agent finds /proc: a descriptor, or AT_FDCWD. */
  get proc(): number {
    const { mounts } = this.services;
    return mounts === undefined ? AT_FDCWD : this.of(mounts.proc);
  }

  /** The number in an agent of a descriptor of ckpt's. */
  of(source: number): number {
    return this.base + this.#places.get(source)!;
  }

  /** For the page image of the process itself. */
  get pages(): number {
    return this.base + this.sources.length;
  }

  /** For an io_uring, in the process that makes it. */
  ring(id: number): number {
    return this.pages + 1 + this.services.rings.indexOf(id);
  }

  /** From here on numbers are free. */
  get free(): number {
    return this.pages + 1 + this.services.rings.length;
  }
}

/**
 * Moves what the first agent got from ckpt; everything below is closed.
 *
 * @param from the pid of ckpt, for an agent that was not started by it and has
 * to take them from there
 */
export function moveServices(
  program: Program,
  numbers: ServiceNumbers,
  from?: number,
): void {
  const pidfd = from === undefined
    ? undefined
    : program.call("pidfd_open", [from, 0], "finding ckpt");
  for (const source of numbers.sources) {
    const purpose = "moving the agent's descriptors";
    const here = pidfd === undefined
      ? source
      : program.call("pidfd_getfd", [pidfd, source, 0], purpose);
    program.call("fcntl", [here, F_DUPFD_CLOEXEC, numbers.base], purpose);
    if (typeof here === "object") program.call("close", [here], purpose);
  }
  program.call(
    "close_range",
    [0, numbers.base - 1, 0],
    "closing inherited files",
  );
}

/** How a process gets its memory. */
export interface MemoryPrograms {
  /** All of it; where `halves` are given, all that comes before these. */
  readonly first: Program;
  /** So much that ckpt fills a part of it, while the agent fills the rest. */
  readonly halves?: {
    readonly own: Program;
    readonly beside: readonly StoredRange[];
    /** When both are done. */
    readonly last: Program;
  };
}

/** What others may have the like of. */
export interface OwnMemoryPrograms extends MemoryPrograms {
  /** Where the name of the page image is, in the first. */
  readonly pagesName: Data;
  readonly images: TaskImages;
  readonly parent: TaskImages | undefined;
}

/** From here on a second processor is worth two more stops: 8 MiB. */
const WORTH_HALVING = 8n << 20n;

/** Whether programs, with another page image, make the memory of `images`. */
export function makeTheSame(
  made: OwnMemoryPrograms,
  images: TaskImages,
  parent: TaskImages | undefined,
): boolean {
  const [a, b] = [made.images, images].map(({ mm, pagemap, extension }) => ({
    mm,
    pages: pagemap.entries,
    areas: extension.areas,
    inherited: extension.inherited,
    lockFuture: extension.lock_future,
  }));
  return made.parent === parent && isAlike(a, b);
}

/** Whether two messages, or parts of them, hold the same. */
function isAlike(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if (!isObject(a) || !isObject(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => isAlike(a[key], b[key]));
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

const LONGEST_PAGES_NAME = 32;

/**
 * The memory of a process and its program file, which can be set only when the
 * agent's own is no longer mapped. The name of its page image is to be set.
 *
 * @param parent whose memory, complete, the process got by fork and is to share
 * as far as it is the same; undefined: it gets all its memory anew
 */
export function memoryProgram(
  images: TaskImages,
  numbers: ServiceNumbers,
  agent: AddressRange,
  parent: TaskImages | undefined,
): OwnMemoryPrograms {
  const program = new Program();
  let last = program;
  let halves: MemoryPrograms["halves"];
  const { mm, pagemap, extension } = images;
  const name = program.reserve(LONGEST_PAGES_NAME);
  const opening = "opening the page image";
  const opened = program.call(
    "openat",
    [
      numbers.of(numbers.services.images),
      name,
      O.RDONLY | O.CLOEXEC,
      0,
    ],
    opening,
  );
  program.call("dup3", [opened, numbers.pages, O.CLOEXEC], opening);
  program.call("close", [opened], opening);
  const input = {
    mm,
    files: mappableFiles(images),
    sources: numbers.madePaths,
    pages: pagemap.entries,
    pagesFd: numbers.pages,
    shared: new Map(
      [...numbers.services.shared].map(([id, fd]) => [id, numbers.of(fd)]),
    ),
    segments: images.segments,
    extensions: areaExtensions(images),
    agent,
  };
  if (parent === undefined) {
    unmapAllBut(program, agent);
    // Before anything of the program file is mapped: a process that was forked
    // has it already, and it cannot be changed while it is mapped.
    const exe = regularFile(images, mm.exe_file_id);
    const exeFd = program.call(
      "openat",
      [
        AT_FDCWD,
        program.text(encodeText(input.sources.get(exe.id) ?? exe.name)),
        O.RDONLY | O.CLOEXEC,
        0,
      ],
      `opening the program file ${exe.name}`,
    );
    restoreMemoryMap(program, mm, exeFd);
    program.call("close", [exeFd], "closing the program file");
    const pages = pagesToFill(input);
    if (bytesIn(pages) < WORTH_HALVING) rebuildMemory(program, input);
    else {
      mapMemory(program, input);
      const [own, beside] = halve(pages);
      halves = { own: new Program(), beside, last: new Program() };
      fill(halves.own, own, input);
      last = halves.last;
      settleMemory(last, input);
    }
  } else {
    inheritMemory(program, {
      ...input,
      parent: {
        mm: parent.mm,
        pages: parent.pagemap.entries,
        extensions: areaExtensions(parent),
      },
      inherited: inheritedRanges(extension.inherited),
    });
    restoreMemoryMap(program, mm, SAME_PROGRAM_FILE);
  }
  if (extension.lock_future !== undefined) {
    last.call(
      "mlockall",
      [extension.lock_future],
      "locking areas to come in memory",
    );
  }
  return { first: program, halves, pagesName: name, images, parent };
}

/** For prctl_mm_map.exe_fd: nothing changes. */
const SAME_PROGRAM_FILE = -1;

function areaExtensions({ extension }: TaskImages) {
  return new Map(extension.areas.map((area) => [area.start, area]));
}

/** What is mapped by a path, or by a descriptor in the stead of one. */
function mappableFiles(
  { files }: TaskImages,
): ReadonlyMap<number, reg_file_entry> {
  const found = new Map<number, reg_file_entry>();
  for (const [id, { reg, memfd }] of files) {
    if (reg !== undefined) found.set(id, reg);
    else if (memfd !== undefined) {
      const { flags, pos, fown } = memfd;
      const name = "a memfd";
      found.set(id, { id, flags, pos, fown, name, build_id: [] });
    }
  }
  return found;
}

/**
 * What the threads of a process share but for memory and descriptors. What
 * needs paths or /proc comes before the root directory changes.
 */
export function processProgram(
  images: TaskImages,
  host: Host,
  numbers: ServiceNumbers,
  agent: AddressRange,
  { ownDirectories, hasActions, ringFillers }: {
    ownDirectories: boolean;
    /** A thread has set those of signals already. */
    hasActions: boolean;
    /** The first process that has an io_uring mapped, by the id of its file. */
    ringFillers: ReadonlyMap<number, number>;
  },
): Program {
  const program = new Program();
  const { mm, fs, extension } = images;
  const leader = images.threads[0].core;
  const stored = storedPages(images.pagemap.entries);
  // Memory that several processes use is stored with the first of them.
  const rings = stored.length > 0 ? mm.vmas.filter(isRingArea) : [];
  const packets = mm.vmas.filter(({ status }) => status === VMA_STATUS.SOCKET);
  const numbersById = () =>
    new Map(images.descriptors.map(({ id, fd }) => [id, fd]));
  if (stored.length > 0 && packets.length > 0) {
    mapPacketRings(program, packets, numbersById());
  }
  if (mm.aios.length + rings.length > 0) {
    const name = pagesName(images.pagemap.pages_id);
    const pages = program.call(
      "openat",
      [
        numbers.of(numbers.services.images),
        program.text(encodeText(name)),
        O.RDONLY | O.CLOEXEC,
        0,
      ],
      `opening ${name}`,
    );
    restoreRings(program, mm, readRings(images), pages);
    if (rings.length > 0) {
      const taken = [
        ...realAreas(mm),
        ...packets,
        { start: BigInt(agent.start), end: BigInt(agent.end) },
      ];
      mapRings(
        program,
        rings,
        taken,
        numbersById(),
        stored,
        pages,
        ({ shmid }) => ringFillers.get(Number(shmid)) === images.pid,
      );
    }
    program.call("close", [pages], `closing ${name}`);
  }
  finishRings(program, images, ringFillers);
  sealMemory(program, {
    mm,
    extensions: areaExtensions(images),
    files: mappableFiles(images),
  });
  restoreProcess(
    program,
    { task: leader.tc!, mm, extension, umask: fs.umask },
    host.readings,
    numbers.proc,
  );
  if (ownDirectories) {
    restoreDirectories(
      program,
      regularFile(images, fs.cwd_id),
      regularFile(images, fs.root_id),
      numbers.madePaths,
    );
  }
  program.call(
    "close_range",
    [numbers.base, LAST_DESCRIPTOR, 0],
    "closing the agent's descriptors",
  );
  for (const { xsave } of extension.threads) {
    if (xsave !== undefined) restoreFpuPermission(program, xsave);
  }
  if (!hasActions) {
    restoreSignalActions(program, leader.tc!.sigactions, !extension.awaited);
  }
  return program;
}

/** What is registered with io_urings; and their threads see what was filled. */
function finishRings(
  program: Program,
  { set, pid, descriptors }: TaskImages,
  fillers: ReadonlyMap<number, number>,
): void {
  for (const ring of set.read("ckpt-rings", undefined) ?? []) {
    const { id, poller } = ring;
    const isOwner = ring.pid === pid;
    if (!isOwner && fillers.get(id) !== pid) continue;
    const holder = descriptors.find((entry) => entry.id === id);
    if (holder === undefined) continue;
    if (poller !== undefined) wakePoller(program, holder.fd);
    if (isOwner && !isBound(ring) && !isMadeByProcess(ring)) {
      registerAll(program, holder.fd, ring);
    }
  }
}

/**
 * What a thread would have from its leader if it had not been cloned before
 * that had it. Needs /proc, as {@link processProgram} does.
 */
export function earlyThreadProgram(
  images: TaskImages,
  host: Host,
  numbers: ServiceNumbers,
): Program {
  const program = new Program();
  const task = images.threads[0].core.tc!;
  const { extension } = images;
  restoreInherited(program, { task, extension }, host.readings, numbers.proc);
  return program;
}

/** CLONE_VM, FS, FILES, SIGHAND, THREAD, SYSVSEM of clone(2). */
const CLONE_THREAD_FLAGS = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000;
const CLONE_ARGS_BYTES = 88;

/**
 * Threads with their own ids (clone3(2), set_tid), each with its program; 0:
 * with any id.
 */
export function cloneThreads(
  program: Program,
  threads: readonly { tid: number; stack: bigint; program: bigint }[],
): void {
  for (const { tid, stack, program: address } of threads) {
    const wanted = program.reserve(4);
    program.setInt32(wanted, 0, tid);
    const STACK = 512n;
    const args = program.words([
      CLONE_THREAD_FLAGS,
      0,
      0,
      0,
      0,
      stack - STACK,
      STACK,
      0,
      tid === 0 ? 0 : wanted,
      tid === 0 ? 0 : 1,
      0,
    ]);
    program.call(
      "clone",
      [args, CLONE_ARGS_BYTES, address],
      `starting thread ${tid}`,
    );
  }
}

/** What each thread has for itself; credentials close to last. */
export function threadProgram(
  images: TaskImages,
  host: Host,
  thread: ThreadImage,
): Program {
  const program = new Program();
  restoreThread(program, images, host, thread, false);
  return program;
}

function restoreThread(
  program: Program,
  images: TaskImages,
  host: Host,
  { tid, core }: ThreadImage,
  forAllThreads: boolean,
): void {
  const thread = core.thread_core!;
  const extension = images.extension.threads.find((entry) => entry.tid === tid);
  restoreThreadName(program, thread.comm ?? core.tc?.comm ?? "");
  const isAwaited = tid === images.pid && images.extension.awaited === true;
  if (thread.sas !== undefined) {
    restoreAlternateStack(program, thread.sas, !isAwaited);
  }
  if (core.thread_info !== undefined) {
    restoreTidAddress(program, core.thread_info.clear_tid_addr);
  }
  restoreRobustList(program, thread);
  if (thread.rseq_entry !== undefined) {
    restoreRseq(program, thread.rseq_entry);
  }
  restoreThreadExtension(program, extension);
  restoreScheduling(program, thread, extension);
  // Filters need CAP_SYS_ADMIN; ckpt suspends them while it traces the task.
  restoreSeccomp(program, images.seccomp, thread, forAllThreads);
  if (!host.isWithoutRights) {
    restoreCredentials(
      program,
      thread.creds!,
      isAwaited ? { ...host.credentials, groups: undefined } : host.credentials,
    );
  }
  // The kernel clears it when credentials change.
  program.call("prctl", PR_SET_PDEATHSIG_OFF, "clearing the agent's own");
  restoreParentDeathSignal(program, thread);
  if (core.thread_info !== undefined) {
    restoreFlags(program, core.thread_info.gpregs);
  }
}

/**
 * The rest of the leader, when all threads exist and are done: filters that
 * hold for all threads, and limits, which could be in the way before.
 *
 * @param hasItsOwn it waits in vfork(2), and has all that is not the process's:
 * another thread runs this
 */
export function leaderProgram(
  images: TaskImages,
  host: Host,
  hasItsOwn: boolean,
): Program {
  const program = new Program();
  const [leader] = images.threads;
  const task = leader.core.tc!;
  restoreResourceLimits(program, task.rlimits?.rlimits ?? [], host.limits);
  if (!hasItsOwn) {
    restoreThread(
      program,
      images,
      host,
      leader,
      isForAllThreads(images.seccomp, leader.core.thread_core!),
    );
  }
  restoreDumpable(program, images.mm.dumpable);
  return program;
}

/** The end of a leader that is gone: nothing is left that it could do. */
export function endLeaderProgram(
  { status }: ckpt_ended_leader_entry,
): Program {
  const program = new Program();
  program.call("exit", [status >> 8], "ending the first thread");
  return program;
}

export interface EventPrograms {
  /** One per thread, the leader first; may be empty. */
  programs: Program[];
  /** Timers that did not get their id. */
  wrongTimers: (outcome: Outcome) => Reason[];
}

const SIGCHLD = 17;
const SIGCONT = 18;
const SIGNAL_SET_BYTES = 8;
/** waitid(2). */
const P_PID = 1;
const WNOHANG = 1;
const WSTOPPED = 2;

/**
 * Timers and pending signals: last, because time runs and queues fill.
 *
 * @param stoppedChildren children whose stop the program has waited for
 * @param childrenChanged whether children of it have ended or stopped by now:
 * that they sent SIGCHLD is nothing the program shall see
 * @param continued whether it was stopped and let go on by now: SIGCONT is
 * nothing it shall see either
 */
export function eventProgram(
  images: TaskImages,
  host: Host,
  stoppedChildren: readonly number[],
  childrenChanged: boolean,
  continued: boolean,
): EventPrograms {
  const { pid, threads } = images;
  const task = threads[0].core.tc!;
  const programs = threads.map(() => new Program());
  const [leader] = programs;
  for (const child of stoppedChildren) {
    leader.call(
      "waitid",
      [P_PID, child, 0, WSTOPPED | WNOHANG, 0],
      `waiting for the stop of task ${child}`,
    );
  }
  const takeSignal = (signal: number, purpose: string, mayFail: boolean) =>
    leader.call(
      "rt_sigtimedwait",
      [
        leader.words([1n << BigInt(signal - 1)]),
        0,
        leader.words([0, 0]),
        SIGNAL_SET_BYTES,
      ],
      purpose,
      { mayFail },
    );
  if (childrenChanged) {
    takeSignal(SIGCHLD, "taking the signals of children", true);
  }
  if (continued) takeSignal(SIGCONT, "taking the signal to go on", false);
  const queues = [
    task.signals_s?.signals ?? [],
    ...threads.map(({ core }) => core.thread_core?.signals_p?.signals ?? []),
  ];
  const timers = restorePosixTimers(leader, task.timers?.posix ?? [], {
    exactIds: host.exactTimerIds,
    pid,
    now: clockNow,
    pending: queues,
  });
  const [shared, ...own] = timers.pending;
  restoreProcessSignals(leader, shared);
  own.forEach((signals, i) => restoreThreadSignals(programs[i], signals));
  if (task.timers !== undefined) restoreIntervalTimers(leader, task.timers);
  return { programs, wrongTimers: timers.wrongIds };
}
