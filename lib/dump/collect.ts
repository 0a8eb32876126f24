/**
 * What is asked of a process while all its threads stand still. Everything
 * here costs stop time: the answers are only gathered, and described later.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import {
  type CaveCandidate,
  findCave,
  RemoteTask,
} from "../ffi/remote_task.ts";
import type { TaskMemory } from "../ffi/task_memory.ts";
import type { AuxvEntry } from "../proc/auxv.ts";
import { PROT } from "../proc/maps.ts";
import {
  readAuxv,
  readLoginuid,
  readOomScoreAdj,
  readPersonality,
  readStat,
  readTimerslackNs,
} from "../proc/read.ts";
import type { SmapsMapping } from "../proc/smaps.ts";
import type {
  posix_timer_entry,
  sa_entry,
  siginfo_entry,
  task_timers_entry,
} from "../image/schema.gen.ts";
import { askHeapEnd } from "../mm/memory_map.ts";
import { askIntervalTimers } from "../task/interval_timers.ts";
import {
  countableExpiries,
  type CountedExpiry,
  countExpiries,
  returnExpiries,
  withOverruns,
} from "../task/pending_expiries.ts";
import { readPendingSignals } from "../task/pending_signals.ts";
import {
  askPosixTimers,
  timersThatCannotBeSaved,
} from "../task/posix_timers.ts";
import {
  askProcess,
  parseCoredumpFilter,
  type ProcessAnswers,
  type ProcessReadings,
} from "../task/process_attributes.ts";
import { schedulingProblems } from "../task/scheduling.ts";
import { type Filter, readFilters } from "../task/seccomp.ts";
import { askSignalActions } from "../task/signal_actions.ts";
import {
  askThread,
  readIoPriority,
  type ThreadAnswers,
  threadQuestions,
  type ThreadReadings,
} from "../task/thread_attributes.ts";
import type { Survey } from "./survey.ts";
import {
  readStoppedThreads,
  registersForImage,
  type StoppedThread,
} from "./threads.ts";

export interface CollectedThread extends StoppedThread {
  readonly imageRegisters: BigUint64Array<ArrayBuffer>;
  /** It was in a call that nobody can name any more; it will see EINTR. */
  readonly unknownCall: boolean;
  readonly answers: ThreadAnswers;
  readonly readings: ThreadReadings;
  readonly filters: readonly Filter[];
  readonly nice: number;
}

export interface Collected {
  /** The leader comes first. */
  readonly threads: readonly CollectedThread[];
  readonly process: ProcessAnswers;
  readonly readings: ProcessReadings;
  readonly heapEnd: bigint;
  readonly auxv: readonly AuxvEntry[];
  readonly actions: sa_entry[];
  readonly timers: task_timers_entry;
  readonly pending: siginfo_entry[];
  /** mlockall(2) flags for areas to come; 0: none. */
  readonly lockFuture: number;
}

const SECCOMP_MODE_FILTER = 2;
const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;

/**
 * @param tids all threads, stopped, the leader first
 * @throws CkptError refused, when an answer is something that cannot be saved;
 * the threads are as they were
 */
export function collect(
  survey: Survey,
  tids: Int32Array<ArrayBuffer>,
  memory: TaskMemory,
): Collected {
  const { pid } = survey;
  const stopped = readStoppedThreads(tids, memory);
  const reasons: Reason[] = [
    ...timersThatCannotBeSaved(survey.timers, { pid, tids: [...tids] }),
    ...stopped.flatMap(({ tid, state }) =>
      schedulingProblems(state.scheduling, tid)
    ),
  ];
  refuse(pid, reasons);
  const [leader, ...others] = stopped;

  const program = new Program();
  const actions = askSignalActions(program);
  const intervals = askIntervalTimers(program);
  const posix = askPosixTimers(program, survey.timers, (tid) => tid);
  const heapEnd = askHeapEnd(program);
  const process = askProcess(program);
  const ldt = askSegments(program);
  const leaderAnswers = askThread(program);
  const questions = threadQuestions();
  const stride = (questions.scratchLength + 15) & ~15;
  const scratchAt = (program.size + 63) & ~63;
  // The programs that count expiries come later: one timer takes 1.5 KiB.
  const room = Math.max(
    scratchAt + stride * others.length,
    survey.timers.length * 1536 + 4096,
  );

  const cave = findCave(memory, caveCandidates(survey.mappings));
  const answers: ThreadAnswers[] = [];
  let outcome;
  let lockFuture: number;
  let posixAnswers;
  let expiries: CountedExpiry[];
  const pending = readPendingSignals(pid, true, leader.status.shdPnd);
  {
    using remote = RemoteTask.enter(leader.host, memory, cave, room);
    outcome = remote.run(program);
    posixAnswers = posix(outcome);
    refuse(pid, [...posixAnswers.reasons, ...ldt(outcome, pid)]);
    expiries = countPendingExpiries(
      remote,
      countableExpiries(posixAnswers.timers, pending, leader.pending, pid),
    );
    lockFuture = lockOfNewAreas(pid, remote.area);
    const scratch = remote.room + BigInt(scratchAt);
    const results = others.map(({ host }, i) =>
      remote.inject(host, questions.calls(scratch + BigInt(i * stride)))
    );
    if (others.length > 0) {
      const bytes = memory.read(scratch, stride * others.length);
      answers.push(
        ...results.map((result, i) =>
          questions.read(result, new DataView(bytes.buffer, i * stride, stride))
        ),
      );
    }
  }
  const all = [leaderAnswers(outcome), ...answers];
  const signalActions = actions(outcome);
  return {
    threads: stopped.map((thread, i) => ({
      ...thread,
      ...imageOf(thread, signalActions, memory),
      ...readThread(thread),
      pending: withOverruns(thread.pending, expiries),
      answers: all[i],
    })),
    process: process(outcome),
    readings: {
      personality: readPersonality(pid),
      oomScoreAdj: readOomScoreAdj(pid),
      loginuid: readLoginuid(pid),
      coredumpFilter: readCoredumpFilter(pid),
    },
    heapEnd: heapEnd(outcome),
    auxv: readAuxv(pid),
    actions: signalActions,
    timers: { ...intervals(outcome), posix: posixAnswers.timers },
    pending: withOverruns(pending, expiries),
    lockFuture,
  };
}

/** What /proc and ptrace tell of a thread. */
function readThread(
  { tid, status }: StoppedThread,
): Pick<CollectedThread, "readings" | "nice" | "filters"> {
  const { flags, nice } = readStat(tid);
  return {
    readings: {
      tid,
      timerSlackNs: readTimerslackNs(tid),
      ioPriority: readIoPriority(tid),
      taskFlags: flags,
    },
    nice,
    filters: status.seccomp === SECCOMP_MODE_FILTER
      ? readFilters(tid, status.speculationStoreBypass)
      : [],
  };
}

function imageOf(
  thread: StoppedThread,
  actions: readonly sa_entry[],
  memory: TaskMemory,
): Pick<CollectedThread, "imageRegisters" | "unknownCall"> {
  const { image, unknown } = registersForImage(thread, actions, memory);
  return { imageRegisters: image, unknownCall: unknown };
}

function refuse(pid: number, reasons: readonly Reason[]): void {
  if (reasons.length > 0) {
    throw new CkptError(EXIT.refused, `dumping task ${pid}`, reasons);
  }
}

/** Asks for segments of the process's own (modify_ldt(2)): not supported. */
function askSegments(
  program: Program,
): (outcome: Outcome, pid: number) => Reason[] {
  const READ = 0;
  const entry = program.reserve(8);
  const bytes = program.call(
    "modify_ldt",
    [READ, entry, entry.length],
    "reading the local descriptor table",
    { mayFail: true }, // a kernel without such tables
  );
  return (outcome, pid) =>
    outcome.result(bytes) <= 0n ? [] : [{
      object: `task ${pid}`,
      why: "it has segments of its own (a local descriptor table, LDT), " +
        "which are not supported",
    }];
}

/** How often timers expired again while their signal waits. */
function countPendingExpiries(
  remote: RemoteTask,
  timers: readonly posix_timer_entry[],
): CountedExpiry[] {
  if (timers.length === 0) return [];
  const program = new Program();
  const read = countExpiries(program, timers);
  const counted = read(remote.run(program));
  const undo = new Program();
  returnExpiries(undo, counted);
  if (undo.operationCount > 0) remote.run(undo);
  return counted;
}

/** Executable private areas, the vdso first. */
function caveCandidates(mappings: readonly SmapsMapping[]): CaveCandidate[] {
  const executable = mappings.filter(({ prot, shared, path }) =>
    (prot & PROT.exec) !== 0 && (prot & PROT.read) !== 0 && !shared &&
    path !== "[vsyscall]"
  );
  const vdso = executable.filter(({ path }) => path === "[vdso]");
  return [...vdso, ...executable.filter(({ path }) => path !== "[vdso]")];
}

/**
 * Whether new areas are locked in memory (mlockall(2), MCL_FUTURE): the kernel
 * tells nobody, but the agent's memory is such an area.
 */
function lockOfNewAreas(pid: number, area: bigint): number {
  const flags = vmFlagsOf(pid, area);
  if (!flags.has("lo")) return 0;
  return flags.has("lf") ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
}

function vmFlagsOf(pid: number, address: bigint): ReadonlySet<string> {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps`);
  const at = text.indexOf(`\n${address.toString(16)}-`);
  const line = text.indexOf("\nVmFlags:", at);
  const end = text.indexOf("\n", line + 1);
  return new Set(text.slice(line + 9, end).trim().split(" "));
}

function readCoredumpFilter(pid: number): number | undefined {
  try {
    return parseCoredumpFilter(
      Deno.readTextFileSync(`/proc/${pid}/coredump_filter`),
    );
  } catch (error) {
    // A kernel that writes no core files.
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}
