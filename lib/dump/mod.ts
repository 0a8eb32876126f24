/**
 * The way of a dump: look, stop, collect, copy the memory, let go, write the
 * images, and only when they are safe, end the program if asked to.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { FrozenProcess } from "../ffi/frozen_process.ts";
import {
  close,
  type FileStatus,
  O,
  open,
  stat,
  syscall,
} from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { encodeImage } from "../image/framing.ts";
import { ImageWriter } from "../image/image_writer.ts";
import { pagesName } from "../image/kinds.ts";
import { copyTaskPages, PageCounters } from "../mm/page_copy.ts";
import type { Vma } from "../mm/vma.ts";
import { hasCapability } from "../proc/read.ts";
import type { Report } from "../report.ts";
import { readOwnScheduling } from "../task/scheduling.ts";
import { clockNow } from "../task/posix_timers.ts";
import { VERSION } from "../version.ts";
import { collect } from "./collect.ts";
import { type Described, TASK_PAGES_ID, writeImages } from "./describe.ts";
import { describeFiles } from "./describe_files.ts";
import type {
  CheckOptions,
  CheckResult,
  DumpOptions,
  DumpResult,
} from "./options.ts";
import { saveSharedMemory } from "./shared_memory.ts";
import {
  refuseFor,
  refuseImpossible,
  type Survey,
  surveyProcess,
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
  refuseFor(running?.reasons ?? [], pid);
  using writer = ImageWriter.open(options.imagesDirectory, options);
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  const counters = new PageCounters();
  const started = performance.now();
  const frozen = FrozenProcess.freeze(pid, options.timeoutSeconds * 1000);
  using _thawed = frozen;
  const stopped = performance.now();
  report.log(3, `stopped ${frozen.tids.length} threads of task ${pid}`);
  const described = await collectAll(frozen, options, writer, report, counters);
  const copied = performance.now();
  if (options.leaveRunning) frozen.thaw();
  const thawed = performance.now();
  report.log(3, `writing the images of task ${pid}`);
  const inventory = writeImages(writer, described);
  report.signal.throwIfAborted();
  const bytes = await writer.commit(inventory, VERSION);
  if (options.leaveStopped) {
    syscall("kill", BigInt(pid), SIGSTOP);
    frozen.thaw();
  } else if (!options.leaveRunning) {
    frozen.kill();
  }
  const end = performance.now();
  const figures = {
    freezing_time: micros(stopped - started),
    frozen_time: micros(
      (options.leaveRunning ? thawed : end) - started,
    ),
    memdump_time: micros(copied - stopped),
    memwrite_time: micros(end - thawed),
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

function micros(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}

/** All that happens while the process stands still. */
async function collectAll(
  frozen: FrozenProcess,
  options: DumpOptions,
  writer: ImageWriter,
  report: Report,
  counters: PageCounters,
): Promise<Described> {
  const { pid } = frozen;
  const survey = surveyProcess(pid, options);
  refuseFor(survey.reasons, pid);
  using memory = TaskMemory.open(pid);
  const collected = collect(survey, frozen.tids, memory);
  const clocks = {
    monotonic: clockNow(CLOCK_MONOTONIC),
    boottime: clockNow(CLOCK_BOOTTIME),
  };
  const out = open(
    writer.createRaw(pagesName(TASK_PAGES_ID)),
    O.WRONLY,
  );
  const total = BigInt(survey.stat.rss);
  const shown = setInterval(() => {
    report.progress("saving memory (pages)", counters.scanned, total);
  }, PROGRESS_MS);
  try {
    const pages = await copyTaskPages(
      pid,
      survey.vmas.vmas,
      out,
      counters,
    );
    const shared = await saveSharedMemory(
      pid,
      survey.vmas.vmas,
      TASK_PAGES_ID + 1,
      writer,
      counters,
    );
    report.signal.throwIfAborted();
    return {
      survey,
      collected,
      files: describeFiles(survey, statusReader(survey)),
      pages,
      shared,
      clocks,
      own: readOwnScheduling(),
    };
  } finally {
    clearInterval(shown);
    close(out);
  }
}

const PROGRESS_MS = 100;

/** What map_files says about the file of a mapping; each file once. */
function statusReader({ pid }: Survey): (vma: Vma) => FileStatus {
  const known = new Map<string, FileStatus>();
  return ({ path, inode, link }) => {
    const key = `${inode} ${path}`;
    let status = known.get(key);
    if (status === undefined) {
      status = stat(`/proc/${pid}/map_files/${link}`);
      known.set(key, status);
    }
    return status;
  };
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
  const { reasons, neededOptions } = survey;
  return { pid, reasons: [...missing, ...reasons], neededOptions };
}
