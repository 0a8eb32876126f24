/**
 * Makes the tree: everything that processes get from ckpt, then the agents, the
 * steps in which these become the processes, and the moment in which all go on.
 */
import { AgentProcess } from "../ffi/agent_process.ts";
import { close, O, open } from "../ffi/syscall.ts";
import { canBindAside, isElsewhere, isSplit } from "../files/unix_paths.ts";
import { isMadeByProcess } from "../files/register_with_ring.ts";
import { MadeFiles } from "../ghost/make.ts";
import type { reg_file_entry } from "../image/schema.gen.ts";
import { PageCounters } from "../mm/page_copy.ts";
import type { SegmentsPlan } from "../mm/sysv_segments.ts";
import { inside } from "../ns/inside.ts";
import type { Report } from "../report.ts";
import type { RestoredConnections } from "./connections.ts";
import { shareTerminals } from "./controlling_terminals.ts";
import { finishTree, release } from "./finish_tree.ts";
import type { Given } from "./given_descriptors.ts";
import { joinCgroups } from "./join_cgroups.ts";
import { LaterPrograms } from "./later_programs.ts";
import { Memfds } from "./memfds.ts";
import type { TreeMounts } from "./mounts.ts";
import { announce, parentOf } from "./namespaces.ts";
import type { RestoreOptions } from "./options.ts";
import { writePidfile } from "./pidfile.ts";
import type { Host, TreePlan } from "./plan.ts";
import { planDescriptors } from "./plan_descriptors.ts";
import { ServiceNumbers, type Services } from "./services.ts";
import { SharedMemoryObjects } from "./shared_memory.ts";
import { restoreLeaders, startThreads } from "./start_threads.ts";
import { SysvSegments } from "./sysv_segments.ts";
import { hasOwnObjects, type TreeImages } from "./task_images.ts";
import { Terminals } from "./terminals.ts";
import { TreeAgents } from "./tree_agents.ts";
import { TreeBirths } from "./tree_births.ts";
import { TreeDescriptors } from "./tree_descriptors.ts";
import { Watchers } from "./watches.ts";

const RLIMIT_NOFILE = 7;

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
  const root = images.processes[0].pid;
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
    const descriptorPlan = planDescriptors(
      images,
      given,
      numbers,
      rings,
      holders,
    );
    const { host, births } = plan;
    using agents = new TreeAgents(
      images,
      holders,
      startAgent(root, numbers, host, options),
      descriptorPlan.largest,
    );
    report.log(3, `started the agent as task ${root}`);
    const vforks = vfork && new (await import("./vfork_births.ts")).VforkBirths(
      agents,
      host,
      numbers,
      descriptorPlan.end,
    );
    const programs = new LaterPrograms(agents, host, numbers, vfork);
    await new TreeBirths(agents, births, numbers, programs, vforks, report)
      .beBorn(terminals.bySession);
    await made.filled();
    memfds.seal();
    shareTerminals(agents, report);
    const filler = await connections.filler(report);
    const boundRings = rings.length === 0
      ? undefined
      : new (await import("./bound_rings.ts")).BoundRings(
        rings,
        numbers,
        host.credentials,
      );
    const descriptors = new TreeDescriptors(
      agents,
      descriptorPlan,
      numbers,
      vfork,
    );
    descriptors.open(
      (made) => connections.makeAll(made, filler),
      boundRings,
    );
    terminals.settle();
    places?.remove();
    using watchers = Watchers.take(plan.watches, images.processes);
    made.settle();
    await letSignalsIn(report);
    startThreads(agents, programs);
    descriptors.setFileOwners();
    descriptors.armTimers();
    descriptors.endHolders();
    restoreLeaders(agents, programs);
    await letSignalsIn(report);
    const place = inside();
    using pidfile = writePidfile(
      options.pidfile,
      place?.rootOutside ?? root,
    );
    finishTree(agents, host, vfork);
    // Nothing runs from here on: the cgroup may be a frozen one.
    joinCgroups(agents.members, report);
    watchers.fill(plan.watches, images, made.byFile, report);
    await letSignalsIn(report);
    segments.settle();
    connections.goOn();
    if (place !== undefined) announce(place, options);
    release(agents, options.leaveStopped);
    segments.keep();
    objects?.keep();
    pidfile.keep();
    return root;
  } finally {
    close(ownFd);
    close(imagesFd);
  }
}

/** The first agent, or the one that is there where ckpt was started inside. */
function startAgent(
  pid: number,
  numbers: ServiceNumbers,
  { limits }: Host,
  options: RestoreOptions,
): AgentProcess {
  const started = inside()?.started;
  if (started !== undefined) return AgentProcess.take(pid, started.lifeline);
  const nofile = limits[RLIMIT_NOFILE].hard;
  return AgentProcess.start({
    pid,
    parent: parentOf(options),
    keep: numbers.sources,
    openFiles: [nofile, nofile],
  });
}

function hasPlaces(
  { sockets, processes }: TreeImages,
  isSplit: boolean,
): boolean {
  return sockets.unix.values().some((one) => isElsewhere(one, isSplit)) &&
    canBindAside(processes);
}

async function letSignalsIn(report: Report): Promise<void> {
  await report.letSignalsIn();
  report.signal.throwIfAborted();
}
