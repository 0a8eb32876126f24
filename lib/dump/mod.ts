/**
 * The way of a dump: look, stop, collect, copy the memory, let go, write the
 * images, and only when they are safe, end the program if asked to.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { FrozenProcess } from "../ffi/frozen_process.ts";
import type { Snapshot } from "../ffi/snapshot.ts";
import { syscall } from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { encodeImage } from "../image/framing.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { pagesName } from "../image/kinds.ts";
import { PageCounters, type StoredPages } from "../mm/page_copy.ts";
import { hasCapability } from "../proc/read.ts";
import type { Report } from "../report.ts";
import { clockNow } from "../task/posix_timers.ts";
import { readOwnScheduling } from "../task/scheduling.ts";
import { VERSION } from "../version.ts";
import {
  conclude,
  type Interview,
  interview,
  prepareQuestions,
  type Questions,
  takeSnapshotZombie,
} from "./collect.ts";
import { type Described, TASK_PAGES_ID, writeImages } from "./describe.ts";
import { describeFiles } from "./describe_files.ts";
import { EarlyPages, savePages } from "./memory.ts";
import type {
  CheckOptions,
  CheckResult,
  DumpOptions,
  DumpResult,
} from "./options.ts";
import { rehearse } from "./rehearsal.ts";
import { saveSharedMemory, type SharedContent } from "./shared_memory.ts";
import {
  confirmAreas,
  judge,
  lookAtProcess,
  refuseFor,
  refuseImpossible,
  type Sighting,
  surveyRunning,
} from "./survey.ts";

const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;
const SIGSTOP = 19n;

/**
 * Dumps one process.
 *
 * @throws CkptError; the program then runs on as if nothing had happened, and
 * the images directory holds what it held before
 */
export async function dump(
  options: DumpOptions,
  report: Report,
): Promise<DumpResult> {
  const { pid } = options;
  const action = `dumping task ${pid}`;
  refuseRoot(options.root, action);
  requireCapabilities(action);
  refuseImpossible(pid, action);
  report.log(3, `looking at task ${pid}`);
  const running = surveyRunning(pid, options);
  if (running === undefined) {
    report.log(3, `task ${pid} changes too fast to be judged while it runs`);
  }
  refuseFor(running?.survey.reasons ?? [], pid);
  using writer = ImageWriter.open(options.imagesDirectory, options);
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  const prepared = running === undefined
    ? undefined
    : prepareQuestions(running.seen);
  const counters = new PageCounters();
  // A program that is to end anyway does not mind how long it stands still.
  if (options.leaveRunning) rehearse(report);
  const clock = new Stopwatch();
  const frozen = FrozenProcess.freeze(pid, options.timeoutSeconds * 1000);
  using _thawed = frozen;
  clock.lap("freezing");
  const still = await whileStopped(
    frozen,
    options,
    running?.seen,
    prepared,
    writer,
    counters,
  );
  const { snapshot } = still.asked;
  using copy = snapshot === undefined
    ? undefined
    : new CopyInUse(pid, snapshot, report);
  using _early = still.early;
  if (options.leaveRunning && snapshot !== undefined) frozen.thaw();
  clock.lap("interview");
  report.log(
    3,
    snapshot === undefined
      ? `task ${pid} stays stopped while its memory is copied`
      : `task ${pid} went on after ${clock.total().toFixed(1)} ms`,
  );
  const survey = judge(still.seen, options);
  refuseFor(survey.reasons, pid);
  if (snapshot !== undefined) confirmAreas(still.seen, snapshot.pid);
  const collected = conclude(still.seen, still.asked);
  for (const { tid, unknownCall } of collected.threads) {
    if (unknownCall) {
      report.log(
        2,
        `thread ${tid} was in a system call that the kernel had interrupted ` +
          "before, which nobody can name any more: it will see EINTR",
      );
    }
  }
  const pages = await saveMemory(still, writer, report, counters);
  if (options.leaveRunning) frozen.thaw();
  clock.lap("memory");
  report.signal.throwIfAborted();
  report.log(3, `writing the images of task ${pid}`);
  const inventory = writeImages(writer, {
    survey,
    collected,
    files: describeFiles(survey),
    pages,
    shared: still.shared,
    clocks: still.clocks,
    own: readOwnScheduling(),
  });
  copy?.end();
  const bytes = await writer.commit(inventory, VERSION);
  if (options.leaveStopped) {
    syscall("kill", BigInt(pid), SIGSTOP);
    frozen.thaw();
  } else if (!options.leaveRunning) {
    frozen.kill();
  }
  clock.lap("writing");
  const { freezing, interview: asking, memory, writing } = clock.laps;
  const figures = {
    freezing_time: micros(freezing),
    frozen_time: micros(
      freezing + asking +
        (snapshot === undefined ? memory : 0) +
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

/** What was learnt while the process stood still. */
interface Still {
  seen: Sighting;
  asked: Interview;
  /** Pages that a snapshot does not have; undefined without a snapshot. */
  early: EarlyPages | undefined;
  shared: SharedContent[];
  clocks: Described["clocks"];
}

/**
 * All that has to happen while the process stands still. Without a snapshot it
 * has to stay so while its memory is copied, too.
 */
async function whileStopped(
  frozen: FrozenProcess,
  options: DumpOptions,
  before: Sighting | undefined,
  prepared: Questions | undefined,
  writer: ImageWriter,
  counters: PageCounters,
): Promise<Still> {
  const { pid } = frozen;
  const seen = lookAtProcess(pid, options.leaveRunning ? before : undefined);
  using memory = TaskMemory.open(pid);
  const asked = interview(
    seen,
    frozen.tids,
    frozen.suspendsSeccomp,
    memory,
    prepared,
    options.leaveRunning,
  );
  try {
    const clocks = {
      monotonic: clockNow(CLOCK_MONOTONIC),
      boottime: clockNow(CLOCK_BOOTTIME),
    };
    const { vmas } = seen.vmas;
    return {
      seen,
      asked,
      early: asked.snapshot === undefined
        ? undefined
        : await EarlyPages.read(pid, vmas, counters),
      shared: await saveSharedMemory(
        pid,
        vmas,
        TASK_PAGES_ID + 1,
        writer,
        counters,
      ),
      clocks,
    };
  } catch (error) {
    asked.snapshot?.end();
    throw error;
  }
}

const PROGRESS_MS = 100;
/** Below this nobody waits long enough to see progress; a timer costs 8 ms. */
const PAGES_WORTH_PROGRESS = 16384;

async function saveMemory(
  { seen, asked, early }: Still,
  writer: ImageWriter,
  report: Report,
  counters: PageCounters,
): Promise<StoredPages> {
  const total = seen.stat.rss;
  const shown = total < PAGES_WORTH_PROGRESS ? undefined : setInterval(() => {
    report.progress("saving memory (pages)", counters.scanned, total);
  }, PROGRESS_MS);
  try {
    return await savePages(
      asked.snapshot?.pid ?? seen.pid,
      seen.vmas.vmas,
      early,
      writer.createRaw(pagesName(TASK_PAGES_ID)),
      counters,
      report.signal,
    );
  } finally {
    // Even naming it costs 8 ms the first time.
    if (shown !== undefined) clearInterval(shown);
  }
}

/** A snapshot until it is no longer needed, however the dump ends. */
class CopyInUse implements Disposable {
  #ended = false;

  constructor(
    readonly pid: number,
    readonly snapshot: Snapshot,
    readonly report: Report,
  ) {}

  /** The process has to take the zombie of its copy; if not, nothing is lost. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.snapshot.end();
    try {
      takeSnapshotZombie(this.pid, this.snapshot.pid);
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      this.report.log(
        2,
        `the copy of task ${this.pid} stays as a zombie: ${error.message}`,
      );
    }
  }

  [Symbol.dispose](): void {
    this.end();
  }
}

function refuseRoot(root: string | undefined, action: string): void {
  if (root !== undefined && root !== "/") {
    throw new CkptError(EXIT.refused, action, [{
      object: `--root ${root}`,
      why: "only trees with a mount namespace of their own have another " +
        "root, and those are not supported yet",
      remedy: "leave --root out",
    }]);
  }
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
  await report.letSignalsIn();
  const missing = missingCapabilities();
  const { pid } = options;
  if (pid === undefined) return { reasons: missing, neededOptions: [] };
  refuseRoot(options.root, `checking task ${pid}`);
  refuseImpossible(pid, `checking task ${pid}`);
  const survey = surveyRunning(pid, options);
  if (survey === undefined) {
    throw new CkptError(EXIT.failed, `checking task ${pid}`, [{
      object: `task ${pid}`,
      why:
        "its threads, descriptors or mappings change too fast to be looked " +
        "at while it runs",
      remedy: "ckpt dump looks at it when it is stopped",
    }]);
  }
  const { reasons, neededOptions } = survey.survey;
  return { pid, reasons: [...missing, ...reasons], neededOptions };
}
