/**
 * The way of a dump: look, stop, collect, copy the memory, let go, write the
 * images, and only when they are safe, end the programs if asked to.
 */
import { EXIT } from "../error.ts";
import type { LastingTracer } from "../ffi/lasting_tracer.ts";
import { syscall } from "../ffi/syscall.ts";
import { keepLocksReady, readLocks } from "../files/all_locks.ts";
import { unreadMessages } from "../files/sockets.ts";
import { hasConnections } from "../files/tcp_connection.ts";
import { DumpLinks } from "../ghost/links.ts";
import { SmallFiles } from "../ghost/save_small.ts";
import { encodeImage } from "../image/framing.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { PageCounters } from "../mm/page_copy.ts";
import {
  atTheEnd,
  ending,
  inside,
  isEntered,
  wayToMounts,
} from "../ns/inside.ts";
import { readRandomUuid } from "../proc/read.ts";
import type { Report } from "../report.ts";
import { CgroupFreezer } from "../task/cgroup_freezer.ts";
import { FrozenTree } from "../task/frozen_tree.ts";
import { awaitGroupStops } from "../task/group_stop.ts";
import { VERSION } from "../version.ts";
import { requireCapabilities } from "./capabilities.ts";
import { NeedsLastingTracer, prepareQuestions } from "./collect.ts";
import { DumpedConnections } from "./connections.ts";
import { writeImages } from "./describe.ts";
import { concludeAll, describeTree } from "./describe_tree.ts";
import { LazyMounts, surveyWithMounts } from "./mounts.ts";
import { namespaceProblems, readValues } from "./namespaces.ts";
import type { DumpOptions, DumpResult } from "./options.ts";
import { placeOf, refusedRoot } from "./place.ts";
import {
  hasFilters,
  openWaiters,
  prepareGuards,
  prepareKernelSockets,
  prepareSemaphoreUndos,
  prepareTerminals,
  readFlocks,
  readKeys,
  startLastingTracer,
  vforkProblems,
} from "./prepare.ts";
import { rehearse } from "./rehearsal.ts";
import { saveMemory, untilSaved } from "./save_memory.ts";
import { countOf, type Still } from "./still.ts";
import { dumpFigures, Stopwatch } from "./stopwatch.ts";
import { ChangedMeanwhile, refuseFor, refuseImpossible } from "./survey.ts";
import { judgeTree, type TreeSurvey } from "./survey_tree.ts";
import { withRemedyForVanished } from "./vanished.ts";
import { warnOfLosses } from "./warnings.ts";
import { whileStopped } from "./while_stopped.ts";

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

/** How often a dump is begun anew that the program has got in the way of. */
const TRIES = 3;

/** @param lastingTracer whether one is known to be needed */
async function dumpOnce(
  options: DumpOptions,
  lastingTracer: boolean,
  report: Report,
): Promise<DumpResult> {
  const { pid, leaveRunning } = options;
  refuseImpossible(pid, `dumping task ${pid}`);
  report.log(3, `looking at the tree of task ${pid}`);
  using locksReady = keepLocksReady();
  using mounts = new LazyMounts(options);
  const running = await surveyWithMounts(pid, options, mounts);
  if (running === undefined) {
    report.log(3, `the tree of task ${pid} changes too fast to be judged yet`);
  }
  const before = running?.seen;
  const processes = before?.processes ?? [];
  const cgroup = options.freezeCgroup === undefined
    ? undefined
    : CgroupFreezer.open(options.freezeCgroup);
  const opened = await openWaiters(before);
  using waiters = typeof opened === "string" ? undefined : opened;
  refuseFor([
    ...refusedRoot(options.root),
    ...before === undefined ? [] : namespaceProblems(before),
    ...running?.reasons ?? [],
    ...vforkProblems(before, opened, options),
    ...cgroup?.reasonsAgainst(pid) ?? [],
  ], pid);
  using guards = await prepareGuards(options, before, report);
  using writer = ImageWriter.open(options.imagesDirectory, options);
  await using small = new SmallFiles(writer, { isHeld: leaveRunning });
  small.expect(before?.files.lost ?? []);
  using links = new DumpLinks(
    options.imagesDirectory,
    options.linkPlace,
    wayToMounts(),
  );
  using connections = new DumpedConnections(readRandomUuid());
  if (options.tcpEstablished && hasConnections(processes)) {
    connections.prepare(processes);
  }
  await prepareKernelSockets(processes);
  using terminals = await prepareTerminals(processes);
  using semaphoreUndos = await prepareSemaphoreUndos(processes, report);
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  const prepared = {
    options,
    before,
    questions: new Map(
      processes.map((seen) => [seen.pid, prepareQuestions(seen, leaveRunning)]),
    ),
    writer,
    small,
    links,
    connections,
    terminals,
    semaphoreUndos,
    guards,
    mounts,
    waiters,
    networkValues: readValues(),
    counters: new PageCounters(),
    md5Keys: await readKeys(processes),
  };
  // A program that is to end anyway does not mind how long it stands still.
  if (leaveRunning) rehearse(report);
  using tracer = lastingTracer || hasFilters(before)
    ? await startLastingTracer()
    : undefined;
  // So that it is told at once, and what it needs is loaded, when the program
  // stands still.
  await readFlocks(readLocks(), processes);
  const clock = new Stopwatch();
  using frozen = await FrozenTree.freeze(
    pid,
    options.timeoutSeconds * 1000,
    cgroup,
    report.signal,
    waiters !== undefined,
  );
  guards?.begin();
  clock.lap("freezing");
  await using still = await whileStopped(frozen, prepared, report);
  locksReady[Symbol.dispose]();
  const { hasSnapshots } = still;
  const letGo = async () => {
    await still.files.copied;
    guards?.confirm();
    still.flight[Symbol.dispose]();
    frozen.thaw();
  };
  if (hasSnapshots) await letGo();
  still.files.finish();
  clock.lap("interview");
  report.log(
    3,
    hasSnapshots
      ? `${countOf(still)} went on after ${clock.total().toFixed(1)} ms`
      : `${countOf(still)} stay stopped while memory is copied`,
  );
  const survey = judge(still, options);
  warnOfLosses(survey, still, report);
  const saving = saveMemory(still, writer, report, prepared.counters)
    .then(async (pages) => {
      if (leaveRunning && !hasSnapshots) await letGo();
      await still.files.copied;
      clock.lap("memory");
      report.signal.throwIfAborted();
      return pages;
    });
  report.log(3, `writing the images of ${countOf(still)}`);
  const inventory = await untilSaved(saving, async () => {
    const collected = concludeAll(still, report);
    // The sooner it is seen that all is saved, the sooner they go on.
    if (leaveRunning && !hasSnapshots) await saving;
    const tree = await describeTree(survey, still, frozen, collected, options);
    return await writeImages(
      writer,
      { ...tree, runId: connections.runId },
      saving,
      () => report.letSignalsIn(),
    );
  });
  still.endCopies();
  guards?.describe(writer);
  const bytes = await writer.commit(
    inventory,
    VERSION,
    still.files.written(),
    () => guards?.confirm(),
  );
  links.commit();
  guards?.commit();
  if (options.leaveStopped) leaveStopped(frozen);
  else if (!leaveRunning) end(frozen, connections, tracer);
  clock.lap("writing");
  const figures = dumpFigures(
    clock,
    prepared.counters,
    hasSnapshots,
    leaveRunning,
  );
  Deno.writeFileSync(
    `${options.workDirectory}/stats-dump`,
    encodeImage("stats-dump", { dump: figures }),
    { mode: 0o600 },
  );
  report.stats({ ...figures, image_bytes: bytes });
  return { pid, imagesDirectory: options.imagesDirectory };
}

/**
 * @throws CkptError when what is seen of the stopped tree cannot be saved;
 * ChangedMeanwhile when it may have been disturbed by being looked at
 */
function judge(still: Still, options: DumpOptions): TreeSurvey {
  const { pid } = options;
  const unread = [
    ...still.terminals?.reasons ?? [],
    ...unreadMessages(still.tables),
  ];
  if (unread.length > 0) {
    throw new ChangedMeanwhile(EXIT.refused, `dumping task ${pid}`, unread);
  }
  const survey = judgeTree(still.seen, options, still.copies);
  refuseFor(survey.reasons, pid);
  return survey;
}

function leaveStopped(frozen: FrozenTree): void {
  for (const { pid } of frozen.processes) syscall("kill", BigInt(pid), SIGSTOP);
  frozen.thaw();
  if (!frozen.staysFrozen) {
    awaitGroupStops(frozen.processes.flatMap(({ tids }) => [...tids]));
  }
}

/** Ends the tree; one with pids of its own ends with the ckpt inside it. */
function end(
  frozen: FrozenTree,
  connections: DumpedConnections,
  tracer: LastingTracer | undefined,
): void {
  const place = inside();
  if (place === undefined || !isEntered("pid")) {
    frozen.kill();
    connections.end();
    return;
  }
  frozen.endWithTracer();
  connections.endWithCkpt();
  tracer?.keep();
  atTheEnd((code) => {
    ending(place, code);
    tracer?.end();
  });
}
