/**
 * Looks at a whole tree from outside: every process by survey.ts, and what
 * processes have in common.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { pause } from "../ffi/pause.ts";
import { syscall, SyscallError } from "../ffi/syscall.ts";
import {
  isBelow,
  listTree,
  type ProcessTree,
  type TreeMember,
} from "../task/process_tree.ts";
import {
  SHARED_KINDS,
  SHARED_WORDS,
  type SharedKind,
} from "../task/births/sharing.ts";
import { waitersInVfork } from "../task/vfork.ts";
import { KCMP, ObjectNumbers, sharesOptional } from "../task/shared_objects.ts";
import {
  type Descriptor,
  lockedAmong,
  pipesAmong,
  planDescriptors,
  queuesAmong,
  type SeenDescriptor,
  TreeDescriptions,
  TreeLook,
} from "../files/descriptors.ts";
import {
  EPOLL_LINK,
  TIMERFD_LINK,
  unclearEpolls,
  watchedAmong,
  type WatchedFiles,
} from "../files/kernel_objects.ts";
import { Flight } from "../files/flight.ts";
import { FilesInUse } from "../ghost/files_in_use.ts";
import type { SearchOptions } from "../ghost/watch_targets.ts";
import { OutsideHolders } from "../files/outside_holders.ts";
import {
  controllingProblems,
  mastersAmong,
  terminalsAmong,
} from "../files/terminals.ts";
import { hasFlight, socketsAmong, TreeSockets } from "../files/sockets.ts";
import {
  FANOTIFY_LINK,
  INOTIFY_LINK,
  targetsAmong,
  type TreeTargets,
} from "../files/watched_files.ts";
import { inheritedRings } from "../mm/aio.ts";
import {
  hasSegments,
  segmentsOfTree,
  type TreeSegments,
} from "../mm/sysv_segments.ts";
import { readStat, readStatus, readSysvSegments } from "../proc/read.ts";
import type { Stat } from "../proc/stat.ts";
import type { Status } from "../proc/status.ts";
import type { MountsPlan } from "../mnt/plan_dump.ts";
import type { SeenNamespaces, TreeNamespaces } from "../mnt/tree_namespaces.ts";
import { isEntered, wayToMounts } from "../ns/inside.ts";
import { birthProblems } from "./births.ts";
import { frozenByOthers } from "./frozen_cgroup.ts";
import { lostFileReasons } from "./lost_files.ts";
import {
  inNamespace,
  judge,
  lookAtProcess,
  noteDescriptors,
  noteFiles,
  type Sighting,
  type Survey,
  type SurveyOptions,
} from "./survey.ts";

/** Numbers of what a process shares with others of the tree. */
export interface SharedObjects {
  readonly vm: number;
  readonly files: number;
  readonly fs: number;
  readonly sighand: number;
  /** With its parent, which is of the tree. */
  readonly ioContext: boolean;
  readonly semaphoreUndo: boolean;
}

/** What was seen of a tree at one moment; nothing is judged yet. */
export interface TreeSighting {
  readonly tree: ProcessTree;
  /** The processes that live, the root first, parents before children. */
  readonly processes: readonly Sighting[];
  readonly zombies: readonly Zombie[];
  readonly objects: ReadonlyMap<number, SharedObjects>;
  /** Children for which their parents may wait in vfork(2), with these. */
  readonly vforks: ReadonlyMap<number, number>;
  /** What the root shares with its parent, which is not of the tree. */
  readonly sharedOutside: readonly SharedKind[];
  /** Who else has the pipes of the tree open. */
  readonly outsideHolders: OutsideHolders;
  /** Where their paths lead. */
  readonly files: FilesInUse;
  /** What its epoll instances watch. */
  readonly watched: WatchedFiles;
  /** What its inotify and fanotify descriptors watch. */
  readonly targets: TreeTargets;
  /** System V shared memory it is attached to. */
  readonly segments: TreeSegments;
  /** Mount namespaces that are not ckpt's own, when they were looked at. */
  readonly namespaces?: SeenNamespaces;
  /** Descriptors in flight; undefined: there are some that were not read. */
  readonly flight: Flight | undefined;
}

/** A process that has ended, and whose it was. */
export interface Zombie {
  readonly pid: number;
  readonly stat: Stat;
  readonly status: Status;
}

export interface TreeSurvey {
  readonly seen: TreeSighting;
  readonly processes: readonly Survey[];
  /** Descriptors in flight, by the numbers that ckpt has for them. */
  readonly flight: readonly Descriptor[];
  readonly reasons: readonly Reason[];
  readonly neededOptions: readonly string[];
  /** What becomes of the mounts in namespaces of the tree's own. */
  readonly mounts?: MountsPlan;
}

/** ckpt itself has number 1 of each kind, as in CRIU's images. */
const FIRST_OBJECT = 2;

/**
 * Looks at every process of a tree.
 *
 * @param before an earlier look, see {@link lookAtProcess}
 * @param external as given by --external
 * @param search for watched files
 * @param standsStill so that the queues of its sockets can be read
 * @param mounts looks at mount namespaces of the tree's own
 * @param descriptorsBefore an earlier look, of which only what it found of
 * descriptors is used
 * @throws CkptError or SyscallError when something goes away meanwhile
 */
export function lookAtTree(
  tree: ProcessTree,
  before?: TreeSighting,
  external: readonly string[] = [],
  search: SearchOptions = {},
  standsStill = false,
  mounts?: TreeNamespaces,
  descriptorsBefore = before,
): TreeSighting {
  const looks = new Map(
    descriptorsBefore?.processes.map(({ pid, look }) => [pid, look]),
  );
  const earlier = new Map(
    before?.processes.map((process) => [process.pid, process]),
  );
  const living = tree.members.filter(({ zombie }) => !zombie);
  const [root] = living;
  if (root?.pid !== tree.members[0].pid) {
    throw new CkptError(EXIT.gone, "looking at the tree", [{
      object: `task ${tree.members[0].pid}`,
      why: "it has ended",
    }]);
  }
  const objects = numberObjects(living);
  const children = Map.groupBy(living, ({ stat }) => stat.ppid);
  const namespaces = mounts?.look(living);
  const look = new TreeLook(
    namespaces && ((mount) => namespaces.withMount(mount)?.prefix),
    standsStill,
  );
  const processes = living.map(({ pid, tid, stat }) => {
    const seen = lookAtProcess(pid, {
      before: earlier.get(pid),
      treeLook: look,
      lookBefore: looks.get(pid),
      tid,
      stat,
      children: children.get(pid)?.map((child) => child.pid) ?? [],
    });
    const namespace = namespaces?.of(pid);
    return namespace === undefined ? seen : inNamespace(seen, namespace);
  });
  const flight = standsStill
    ? Flight.read(processes, look)
    : hasFlight(processes)
    ? undefined
    : Flight.none;
  try {
    return {
      ...lookAtWhole(
        tree,
        processes,
        objects,
        flight,
        before,
        external,
        search,
        namespaces,
      ),
      sharedOutside: sharedBetween(root.tid, root.stat.ppid),
      vforks: vforksAmong(living, objects),
    };
  } catch (error) {
    flight?.[Symbol.dispose]();
    throw error;
  }
}

/** What the processes of a tree have together. */
function lookAtWhole(
  tree: ProcessTree,
  processes: readonly Sighting[],
  objects: ReadonlyMap<number, SharedObjects>,
  flight: Flight | undefined,
  before: TreeSighting | undefined,
  external: readonly string[],
  search: SearchOptions,
  namespaces: SeenNamespaces | undefined,
): Omit<TreeSighting, "sharedOutside" | "vforks"> {
  const pids = pidsOf(tree);
  const { table } = flight ?? Flight.none;
  const { pid: tid } = table;
  // Descriptors in flight are like those of one more process.
  const tables = table.descriptors.length === 0
    ? processes
    : [...processes, { ...table, tid, stat: NO_TERMINAL }];
  const files = new FilesInUse(wayToMounts());
  for (const process of processes) {
    noteFiles(process, files, external, namespaces);
  }
  noteDescriptors(table, files, external, namespaces);
  files.settle();
  return {
    tree,
    processes,
    flight,
    zombies: tree.members.flatMap(({ pid, stat, zombie }) =>
      zombie ? [{ pid, stat, status: readStatus(pid) }] : []
    ),
    objects,
    outsideHolders: new OutsideHolders(
      [
        ...pipesAmong(tables),
        ...queuesAmong(tables),
        ...socketsAmong(tables),
        ...lockedAmong(tables),
        ...terminalsAmong(tables),
      ],
      pids,
      before?.outsideHolders,
      (pid) => isBelow(pid, pids),
      new Set(table.descriptors.map(({ fd }) => fd)),
    ),
    files,
    watched: watchedAmong(tables),
    targets: targetsAmong(tables, files, search, before?.targets),
    segments: lookAtSegments(processes, objects),
    namespaces,
  };
}

/** Of what no process has: it is in no session. */
const NO_TERMINAL = { session: 0, ttyNr: 0 };

function lookAtSegments(
  processes: readonly Sighting[],
  objects: ReadonlyMap<number, SharedObjects>,
): TreeSegments {
  const memories = [
    ...new Map(
      processes.map(({ pid, vmas: { vmas } }) =>
        [objects.get(pid)!.vm, { pid, vmas }] as const
      ),
    ).values(),
  ];
  const ownsAll = isEntered("ipc");
  return segmentsOfTree(
    memories,
    ownsAll || hasSegments(memories) ? readSysvSegments() : [],
    ownsAll,
  );
}

function pidsOf({ members }: ProcessTree): ReadonlySet<number> {
  return new Set(members.map(({ pid }) => pid));
}

function numberObjects(
  living: readonly TreeMember[],
): ReadonlyMap<number, SharedObjects> {
  const vm = new ObjectNumbers(KCMP.vm, FIRST_OBJECT);
  const files = new ObjectNumbers(KCMP.files, FIRST_OBJECT);
  const fs = new ObjectNumbers(KCMP.fs, FIRST_OBJECT);
  const sighand = new ObjectNumbers(KCMP.sighand, FIRST_OBJECT);
  const threads = new Map(living.map(({ pid, tid }) => [pid, tid]));
  const memories = living.map(({ tid }) => vm.of(tid));
  const users = Map.groupBy(memories, (memory) => memory);
  return new Map(living.map(({ pid, tid, stat: { ppid } }, i) => {
    const parent = threads.get(ppid);
    const shares = (kind: "io" | "sysvsem") =>
      parent !== undefined && sharesOptional(kind, tid, parent);
    const numbers = {
      vm: memories[i],
      files: files.of(tid),
      fs: fs.of(tid),
      // Only those that share memory can share signal actions (clone(2)).
      sighand: users.get(memories[i])!.length === 1
        ? sighand.another()
        : sighand.of(tid),
      ioContext: shares("io"),
      semaphoreUndo: shares("sysvsem"),
    };
    return [pid, numbers];
  }));
}

function vforksAmong(
  living: readonly TreeMember[],
  objects: ReadonlyMap<number, SharedObjects>,
): ReadonlyMap<number, number> {
  return new Map(living.flatMap(({ pid, stat: { ppid } }) => {
    const sharesMemory = objects.get(pid)!.vm === objects.get(ppid)?.vm;
    return sharesMemory && waitersInVfork(ppid).length > 0 ? [[pid, ppid]] : [];
  }));
}

function sharedBetween(pid: number, other: number): SharedKind[] {
  if (other === 0) return [];
  return SHARED_KINDS.filter((kind) => {
    try {
      return syscall("kcmp", BigInt(pid), BigInt(other), KCMP[kind]) === 0n;
    } catch (error) {
      // A parent outside our pid namespace or without memory shares nothing
      // that we could see.
      if (error instanceof SyscallError) return false;
      throw error;
    }
  });
}

/**
 * Finds every reason why a tree cannot be saved.
 *
 * @param copies copies of processes that may go on meanwhile, by their pids
 */
export function judgeTree(
  seen: TreeSighting,
  options: Omit<SurveyOptions, "root">,
  copies: ReadonlyMap<number, number> = new Map(),
): TreeSurvey {
  const { members } = seen.tree;
  const [root] = members;
  const { flight } = seen;
  const { table } = flight ?? Flight.none;
  const tables = [...seen.processes, table];
  const masters = mastersAmong(tables);
  const descriptions = new TreeDescriptions(
    pidsOf(seen.tree),
    seen.outsideHolders,
    seen.watched,
    new TreeSockets(tables, options, flight === undefined),
    new Set(seen.processes.flatMap(({ threads }) => threads)),
    seen.targets,
    masters,
  );
  const processes = seen.processes.map((process) =>
    judge(
      process,
      { ...options, root: root.pid },
      descriptions,
      copies.get(process.pid),
    )
  );
  const inFlight = planDescriptors(Deno.pid, table.descriptors, {
    ...options,
    controllingTerminal: 0,
  }, descriptions);
  const mounts = seen.namespaces?.plan(options.external);
  const lost = lostFileReasons(seen.files, options, seen.namespaces);
  return {
    seen,
    processes,
    flight: inFlight.descriptors,
    reasons: [
      ...processes.flatMap(({ reasons }) => reasons),
      ...inFlight.reasons.map((reason) => ({
        ...reason,
        object: reason.object.replace(
          /^descriptor \d+ \((.*)\) of task \d+$/,
          "$1, in flight (SCM_RIGHTS)",
        ),
      })),
      ...flightProblems(table.descriptors),
      ...lost.reasons,
      ...mounts?.reasons ?? [],
      ...frozenByOthers(
        processes.map(({ pid, tid }) => copies.has(pid) ? pid : tid),
        options.freezeCgroup,
        copies,
      ),
      ...sharedWithOutside(root, seen.sharedOutside),
      ...inheritedRings(seen.processes, (pid) => seen.objects.get(pid)!.vm),
      ...controllingProblems(seen.processes, masters),
      ...seen.segments.reasons,
      ...birthProblems(members, seen.objects),
    ],
    neededOptions: [
      ...new Set([
        ...processes.flatMap(({ neededOptions }) => neededOptions),
        ...lost.neededOptions,
        ...mounts?.neededOptions ?? [],
      ]),
    ],
    mounts,
  };
}

/** What is restored by the numbers that processes have for a file. */
function flightProblems(flight: readonly SeenDescriptor[]): Reason[] {
  return flight.flatMap(({ sameAs, link, info }) => {
    const what = info.locks.length > 0 ? "a file with locks" : BY_NUMBER[link];
    return sameAs !== undefined || what === undefined ? [] : [{
      object: `${link}, in flight (SCM_RIGHTS)`,
      why: `${what} that no process has open is not supported`,
      remedy: "dump again when it was received",
    }];
  });
}

const BY_NUMBER: Readonly<Record<string, string>> = {
  [INOTIFY_LINK]: "an inotify",
  [FANOTIFY_LINK]: "a fanotify",
  [TIMERFD_LINK]: "a timerfd",
  [EPOLL_LINK]: "an epoll",
};

function sharedWithOutside(
  { pid, stat }: TreeMember,
  shared: readonly SharedKind[],
): Reason[] {
  if (shared.length === 0) return [];
  return [{
    object: `task ${pid}`,
    why: `it shares its ${
      shared.map((kind) => SHARED_WORDS[kind]).join(", ")
    } with its parent ${stat.ppid}, which is not part of what is dumped`,
    remedy: `dump the parent: ckpt dump -t ${stat.ppid}`,
  }];
}

function refuseOwnTree(root: number): never {
  throw new CkptError(EXIT.refused, `looking at the tree of task ${root}`, [{
    object: `task ${Deno.pid}`,
    why: "this is ckpt itself, which cannot stop the tree it is part of",
    remedy: "run ckpt from outside the tree",
  }]);
}

function keyOf({ object, why }: Reason): string {
  return `${object}: ${why}`;
}

/** How often a program is looked at that changes while we look. */
const TRIES = 5;
const NO_PROBLEMS = "[]";
const VFORK_MS = 20;

/**
 * Surveys a tree that runs. Processes, descriptors, threads and mappings may go
 * away between two looks, so it is tried again.
 *
 * @param mounts as of {@link lookAtTree}
 * @returns undefined when it never stood still for long enough
 */
export function surveyRunning(
  root: number,
  options: Omit<SurveyOptions, "root">,
  mounts?: TreeNamespaces,
): TreeSurvey | undefined {
  let before = NO_PROBLEMS;
  let lasting: Map<number, number> | undefined;
  let unclearBefore = "";
  let suspected: ReadonlySet<string> | undefined;
  for (let i = 0; i < TRIES; i++) {
    try {
      const tree = listTree(root);
      if (pidsOf(tree).has(Deno.pid)) refuseOwnTree(root);
      // A tree that changes while it is listed may look like none that can be:
      // what is seen twice is so.
      const problems = JSON.stringify(birthProblems(tree.members));
      if (problems !== NO_PROBLEMS && problems !== before) {
        before = problems;
        continue;
      }
      const seen = lookAtTree(
        tree,
        undefined,
        options.external,
        options,
        false,
        mounts,
      );
      // Most are in vfork for a moment only: those count that are there at
      // every look. A segment may just have gone.
      lasting = new Map(
        [...seen.vforks].filter(([child]) =>
          lasting === undefined || lasting.has(child)
        ),
      );
      const passing = seen.vforks.size + seen.segments.reasons.length > 0;
      if (passing && i + 1 < TRIES) {
        pause(VFORK_MS);
        continue;
      }
      if (seen.vforks.size > lasting.size) return undefined;
      // A file may have been added to an epoll after descriptors were listed:
      // what is seen twice is so.
      const unclear = unclearEpolls(seen.watched);
      if (unclear !== "" && unclear !== unclearBefore) {
        unclearBefore = unclear;
        continue;
      }
      const judged = judgeTree(seen, options);
      // A file may have been renamed between two looks at it: what is seen
      // twice is so.
      const { reasons } = judged;
      if (suspected === undefined && reasons.length > 0 && i + 1 < TRIES) {
        suspected = new Set(reasons.map(keyOf));
        continue;
      }
      return suspected === undefined ? judged : {
        ...judged,
        reasons: reasons.filter((reason) => suspected!.has(keyOf(reason))),
      };
    } catch (error) {
      const vanished = error instanceof SyscallError ||
        error instanceof CkptError && error.exit === EXIT.gone;
      if (!vanished) throw error;
      readStat(root); // throws when it is the root itself that is gone
    }
  }
  return undefined;
}
