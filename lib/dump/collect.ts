/**
 * What is asked of a process while all its threads stand still. Everything
 * here costs stop time: the answers are only gathered, and described later.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { ENOENT } from "../ffi/errno.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import {
  type Cave,
  type CaveCandidate,
  findCave,
  isInsideAgent,
  RemoteTask,
  threadCode,
} from "../ffi/remote_task.ts";
import { readSmallFile } from "../ffi/small_files.ts";
import { Snapshot } from "../ffi/snapshot.ts";
import { SyscallError } from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { decodeText } from "../ffi/text.ts";
import { tracerPid } from "../ffi/tracer_pid.ts";
import type { AuxvEntry } from "../proc/auxv.ts";
import type { CgroupMembership } from "../proc/cgroup.ts";
import { type Mapping, PROT } from "../proc/maps.ts";
import type { Limit } from "../proc/limits.ts";
import type { Stat } from "../proc/stat.ts";
import {
  readAuxv,
  readCgroup,
  readLimits,
  readLoginuid,
  readOomScoreAdj,
  readPersonality,
  readSmaps,
  readStat,
  readTimerslackNs,
  readVmLocked,
} from "../proc/read.ts";
import type {
  ckpt_cgroup_entry,
  posix_timer_entry,
  sa_entry,
  siginfo_entry,
  task_timers_entry,
} from "../image/schema.gen.ts";
import { askHeapEnd } from "../mm/memory_map.ts";
import { dumpCgroups } from "../task/cgroups.ts";
import { askContinuedChildren } from "../task/continued_children.ts";
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
  type PosixTimerAnswers,
  timersThatCannotBeSaved,
} from "../task/posix_timers.ts";
import {
  askProcess,
  parseCoredumpFilter,
  type ProcessAnswers,
  type ProcessReadings,
} from "../task/process_attributes.ts";
import { REGISTER } from "../task/registers.ts";
import { schedulingProblems } from "../task/scheduling.ts";
import { type Filter, readFilters } from "../task/seccomp.ts";
import { askSignalActions } from "../task/signal_actions.ts";
import {
  askThread,
  readIoPriority,
  THREAD_QUESTIONS,
  threadAnswerProblems,
  type ThreadAnswers,
  type ThreadReadings,
} from "../task/thread_attributes.ts";
import type { Sighting } from "./survey.ts";
import {
  readStoppedThreads,
  registersForImage,
  type StoppedThread,
} from "./threads.ts";

export interface CollectedThread extends Omit<StoppedThread, "host" | "code"> {
  readonly imageRegisters: BigUint64Array<ArrayBuffer>;
  /** It was in a call that nobody can name any more; it will see EINTR. */
  readonly unknownCall: boolean;
  readonly answers: ThreadAnswers;
  readonly readings: ThreadReadings;
  readonly filters: readonly Filter[];
  readonly nice: number;
}

export interface Collected {
  /** The thread of the agent comes first: the leader, unless that has ended. */
  readonly threads: readonly CollectedThread[];
  readonly process: ProcessAnswers;
  readonly readings: ProcessReadings;
  readonly heapEnd: bigint;
  readonly auxv: readonly AuxvEntry[];
  readonly limits: readonly Limit[];
  readonly actions: sa_entry[];
  readonly timers: task_timers_entry;
  readonly pending: siginfo_entry[];
  /** mlockall(2) flags for areas to come; 0: none. */
  readonly lockFuture: number;
  readonly cgroups: ckpt_cgroup_entry[];
  /** Children that went on after a stop, of which it was not told yet. */
  readonly continuedChildren: readonly number[];
}

const SECCOMP_MODE_FILTER = 2;
const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;

/** The questions to a process, which can be written before it is stopped. */
export interface Questions {
  /** What only the process itself knows. */
  readonly program: Program;
  /** What a copy of it made by fork(2) knows, too; may be the same program. */
  readonly inherited: Program;
  /** Whom they are for: the timers of the process, and its children. */
  readonly subject: string;
  readonly actions: (outcome: Outcome) => sa_entry[];
  readonly intervals: ReturnType<typeof askIntervalTimers>;
  readonly posix: ReturnType<typeof askPosixTimers>;
  readonly heapEnd: (outcome: Outcome) => bigint;
  readonly process: (outcome: Outcome) => ProcessAnswers;
  readonly segments: (outcome: Outcome, pid: number) => Reason[];
  readonly leader: (outcome: Outcome) => ThreadAnswers;
  readonly continuedChildren: (outcome: Outcome) => number[];
}

/** For processes without timers, by their subjects: most have no children either. */
const usual = new Map<string, Questions>();

/**
 * @param willBeCopied what a copy can be asked is apart from the rest: else all
 * is one program
 */
export function prepareQuestions(
  seen: Sighting,
  willBeCopied: boolean,
): Questions {
  const { timers } = seen;
  const key = `${willBeCopied} ${subjectOf(seen)}`;
  const questions = usual.get(key) ?? makeQuestions(seen, willBeCopied);
  if (timers.length === 0) usual.set(key, questions);
  return questions;
}

function makeQuestions(seen: Sighting, willBeCopied: boolean): Questions {
  const { timers, children } = seen;
  const program = new Program();
  const inherited = willBeCopied ? new Program() : program;
  return {
    program,
    inherited,
    subject: subjectOf(seen),
    actions: askSignalActions(inherited),
    intervals: askIntervalTimers(program),
    posix: askPosixTimers(program, timers, (tid) => tid),
    heapEnd: askHeapEnd(inherited),
    process: askProcess(program),
    segments: askSegments(program),
    leader: askThread(program),
    continuedChildren: askContinuedChildren(program, children),
  };
}

function subjectOf({ timers, children }: Sighting): string {
  const keys = timers.map(({ id, clockId, target }) => [id, clockId, target]);
  return [...keys, "children", ...children].join(" ");
}

/** The answers as they came; nothing of them is read yet. */
export interface Interview {
  readonly questions: Questions;
  readonly outcome: Outcome;
  /** Undefined: the snapshot has still to be asked. */
  readonly inherited: Outcome | undefined;
  readonly threads: readonly InterviewedThread[];
  /** Of the threads but the leader, in order. */
  readonly answers: readonly { results: bigint[]; scratch: DataView }[];
  readonly posix: PosixTimerAnswers;
  readonly expiries: readonly CountedExpiry[];
  readonly pending: siginfo_entry[];
  readonly lockFuture: number;
  /** Made when asked for and possible. */
  readonly snapshot: Snapshot | undefined;
}

type InterviewedThread =
  & StoppedThread
  & Pick<CollectedThread, "readings" | "nice" | "filters">;

/**
 * Asks everything of a process that stands still; all that costs stop time.
 *
 * @param tids all threads that have not ended, stopped; that of the sighting
 * comes first, and the agent enters it
 * @param suspendsSeccomp whether their seccomp filters let our calls pass
 * @param prepared questions for this process as it was seen before
 * @param wantSnapshot make a copy of its memory by fork
 * @param deadSnapshots zombies of such copies that it is to take
 * @throws CkptError; the threads are as they were
 */
export function interview(
  seen: Sighting,
  tids: Int32Array<ArrayBuffer>,
  suspendsSeccomp: boolean,
  memory: TaskMemory,
  prepared: Questions | undefined,
  wantSnapshot: boolean,
  deadSnapshots: readonly number[] = [],
): Interview {
  const { pid } = seen;
  const stopped = readStoppedThreads(tids, memory, seen.status);
  if (!suspendsSeccomp) refuse(pid, filtersInTheWay(stopped));
  if (tracerPid() === Deno.pid && stopped.some(needsLastingTracer)) {
    throw new NeedsLastingTracer(EXIT.failed, `dumping task ${pid}`, [{
      object: `task ${pid}`,
      why: "it needs a tracer that outlives ckpt",
    }]);
  }
  refuse(pid, insideOldAgent(stopped, memory));
  const [leader, ...others] = stopped;
  const questions = prepared?.subject === subjectOf(seen)
    ? prepared
    : prepareQuestions(seen, wantSnapshot);
  const stride = (THREAD_QUESTIONS.scratchLength + 15) & ~15;
  const scratchAt = (questions.program.size + 63) & ~63;
  const room = Math.max(
    questions.inherited.size,
    scratchAt + stride * others.length,
    seen.timers.length * ROOM_TO_COUNT_EXPIRY + 4096,
  );
  const pending = readPendingSignals(leader.tid, true, leader.status.shdPnd);
  const threads = stopped.map((thread, i) => ({
    ...thread,
    ...readThread(thread, i === 0 ? seen.stat : readStat(thread.tid)),
  }));
  const cave = caveOf(memory, caveCandidates(seen.mappings));

  using remote = RemoteTask.enter(leader.host, memory, cave, room);
  const outcome = remote.run(questions.program);
  const posix = questions.posix(outcome);
  refuse(pid, [...posix.reasons, ...questions.segments(outcome, pid)]);
  const scratch = remote.room + BigInt(scratchAt);
  const results = remote.askThreads(
    others.map(({ host }) => host),
    questionCode(),
    THREAD_QUESTIONS.calls.length,
    scratch,
    stride,
  );
  const bytes = memory.read(scratch, stride * others.length);
  const expiries = countPendingExpiries(
    remote,
    countableExpiries(posix.timers, pending, leader.pending, pid),
  );
  takeDeadSnapshots(remote, deadSnapshots);
  const lockFuture = lockOfNewAreas(remote.area, seen);
  const snapshot = wantSnapshot
    ? Snapshot.take(remote, suspendsSeccomp)
    : undefined;
  return {
    questions,
    outcome,
    inherited: snapshot !== undefined
      ? undefined
      : questions.inherited === questions.program
      ? outcome
      : remote.run(questions.inherited),
    threads,
    answers: results.map((result, i) => ({
      results: result,
      scratch: new DataView(bytes.buffer, i * stride, stride),
    })),
    posix,
    expiries,
    pending,
    lockFuture,
    snapshot,
  };
}

/**
 * A program is stopped that could not put itself back should ckpt be killed; it
 * was not known before. See {@link LastingTracer}.
 */
export class NeedsLastingTracer extends CkptError {}

function needsLastingTracer({ status, state }: StoppedThread): boolean {
  return (status.seccomp ?? 0) !== 0 || state.dispatch.mode !== 0n;
}

/** Our calls in a thread with a filter could end the program. */
function filtersInTheWay(threads: readonly StoppedThread[]): Reason[] {
  return threads.filter(({ status }) => (status.seccomp ?? 0) !== 0).map((
    { tid },
  ) => ({
    object: `thread ${tid}`,
    why: "it has seccomp filters, which ckpt is not allowed to suspend here",
    remedy: "run ckpt with CAP_SYS_ADMIN in the first user namespace, and " +
      "without seccomp filters of its own",
  }));
}

/** A ckpt that was killed a moment ago: the task is just putting itself back. */
function insideOldAgent(
  threads: readonly StoppedThread[],
  memory: TaskMemory,
): Reason[] {
  return threads.filter(({ registers }) =>
    isInsideAgent(memory, registers[REGISTER.rip], questionCode())
  ).map(({ tid }) => ({
    object: `thread ${tid}`,
    why: "a ckpt that was killed left it, and it has not put itself back yet",
    remedy: "dump again in a moment",
  }));
}

/** What a program takes that counts the expiries of one timer. */
const ROOM_TO_COUNT_EXPIRY = 1536;

/** Asks the snapshot what {@link conclude} is to read. */
export function askSnapshot({ questions, snapshot }: Interview): void {
  snapshot?.begin(questions.inherited);
}

/**
 * Reads the answers. The snapshot, if there is one, has been asked.
 *
 * @param ownCgroups those of ckpt
 * @throws CkptError refused, for what cannot be saved
 */
export function conclude(
  seen: Sighting,
  asked: Interview,
  ownCgroups: readonly CgroupMembership[],
): Collected {
  const { pid } = seen;
  const { questions, outcome, expiries } = asked;
  refuse(pid, [
    ...timersThatCannotBeSaved(seen.timers, {
      pid,
      tids: seen.threads,
    }),
    ...asked.threads.flatMap(({ tid, state }) =>
      schedulingProblems(state.scheduling, tid)
    ),
  ]);
  const inherited = asked.inherited ??
    asked.snapshot!.finish(questions.inherited);
  // What fork(2) hands on is read when the process runs again.
  const copy = asked.snapshot?.pid ?? seen.tid;
  const actions = questions.actions(inherited);
  const answers = [
    questions.leader(outcome),
    ...asked.answers.map(({ results, scratch }) =>
      THREAD_QUESTIONS.read(results, scratch)
    ),
  ];
  refuse(
    pid,
    answers.flatMap((answer, i) =>
      threadAnswerProblems(answer, asked.threads[i].tid)
    ),
  );
  return {
    threads: asked.threads.map((thread, i) => {
      const { image, unknown } = registersForImage(thread, actions);
      return {
        ...thread,
        imageRegisters: image,
        unknownCall: unknown,
        pending: withOverruns(thread.pending, expiries),
        answers: answers[i],
      };
    }),
    process: questions.process(outcome),
    ...readOfProcess(copy),
    heapEnd: questions.heapEnd(inherited),
    actions,
    timers: {
      ...questions.intervals(outcome),
      posix: asked.posix.timers,
    },
    pending: withOverruns(asked.pending, expiries),
    lockFuture: asked.lockFuture,
    cgroups: dumpCgroups(readCgroup(copy), ownCgroups),
    continuedChildren: questions.continuedChildren(outcome),
  };
}

/** What /proc tells of a process, or of a copy of it. */
export function readOfProcess(
  pid: number,
): Pick<Collected, "readings" | "auxv" | "limits"> {
  return {
    readings: {
      personality: readPersonality(pid),
      oomScoreAdj: readOomScoreAdj(pid),
      loginuid: readLoginuid(pid),
      coredumpFilter: readCoredumpFilter(pid),
    },
    auxv: readAuxv(pid),
    limits: readLimits(pid),
  };
}

/** What /proc and ptrace tell of a thread. */
export function readThread(
  { tid, status }: Pick<StoppedThread, "tid" | "status">,
  { flags, nice }: Stat,
): Pick<CollectedThread, "readings" | "nice" | "filters"> {
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

let code: Uint8Array<ArrayBuffer> | undefined;

/** By which threads other than that of the agent are asked. */
function questionCode(): Uint8Array<ArrayBuffer> {
  return code ??= threadCode(THREAD_QUESTIONS.calls);
}

/** @throws CkptError refused, when no area has room */
export function caveOf(
  memory: TaskMemory,
  candidates: readonly CaveCandidate[],
): Cave {
  return findCave(memory, candidates, questionCode());
}

/** Executable private areas, the vdso first. */
export function caveCandidates(
  mappings: readonly Mapping[],
): CaveCandidate[] {
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
function lockOfNewAreas(area: bigint, { tid, status }: Sighting): number {
  // The sum of locked memory has grown by it; only then look closer.
  if (readVmLocked(tid) === status.vmLocked) return 0;
  const flags = readSmaps(tid).find(({ start }) => start === Number(area))
    ?.vmFlags;
  if (!flags?.has("lo")) return 0;
  return flags.has("lf") ? MCL_FUTURE | MCL_ONFAULT : MCL_FUTURE;
}

/** Takes the zombies of copies that were made for earlier dumps. */
function takeDeadSnapshots(
  remote: RemoteTask,
  pids: readonly number[],
): void {
  if (pids.length === 0) return;
  const program = new Program();
  for (const pid of pids) {
    program.call(
      "wait4",
      [pid, 0, WNOHANG | WALL, 0],
      `taking the end of the copy ${pid}`,
      { mayFail: true },
    );
  }
  remote.run(program);
}

const WNOHANG = 1;
const WALL = 0x40000000;

function readCoredumpFilter(pid: number): number | undefined {
  try {
    return parseCoredumpFilter(
      decodeText(readSmallFile(`/proc/${pid}/coredump_filter`)),
    );
  } catch (error) {
    // A kernel that writes no core files.
    if (error instanceof SyscallError && error.errno === ENOENT) {
      return undefined;
    }
    throw error;
  }
}
