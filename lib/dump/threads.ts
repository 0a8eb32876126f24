/**
 * The threads of a stopped process: their registers made fit to go on, here
 * and in the image, and what each tells of itself.
 */
import type { Host } from "../ffi/remote_task.ts";
import type { TaskMemory } from "../ffi/task_memory.ts";
import { readThreads, type ThreadState } from "../ffi/thread_state.ts";
import type { sa_entry, siginfo_entry } from "../image/schema.gen.ts";
import type { Status } from "../proc/status.ts";
import { readStatus } from "../proc/read.ts";
import {
  CODE_LENGTH,
  handlerToCome,
  type ResumedCall,
  resumedCall,
} from "../task/interrupted_call.ts";
import { readPendingSignals } from "../task/pending_signals.ts";
import { NO_CALL, REGISTER } from "../task/registers.ts";
import { SIGNALS_WITH_ACTION } from "../task/signal_actions.ts";
import {
  afterCriticalSection,
  CRITICAL_SECTION_LENGTH,
  criticalSectionPointer,
  RSEQ_AREA_LENGTH,
} from "../task/rseq.ts";

export interface StoppedThread {
  readonly tid: number;
  readonly state: ThreadState;
  readonly status: Status;
  /** As it stopped, outside any restartable sequence. */
  readonly registers: BigUint64Array<ArrayBuffer>;
  /** The code in front of where it stopped; empty unless it is in a call. */
  readonly code: Uint8Array;
  /** How to put it back here. */
  readonly host: Host;
  readonly pending: siginfo_entry[];
  /** The struct rseq_cs it stays in, if it does. */
  readonly criticalSection?: bigint;
}

/**
 * Reads all threads; the leader comes first.
 *
 * @param leader its status, read since it stands still
 */
export function readStoppedThreads(
  tids: Int32Array<ArrayBuffer>,
  memory: TaskMemory,
  leader = readStatus(tids[0]),
): StoppedThread[] {
  return readThreads(tids).map((state, i) =>
    readStoppedThread(state, i === 0 ? leader : readStatus(state.tid), memory)
  );
}

function readStoppedThread(
  state: ThreadState,
  status: Status,
  memory: TaskMemory,
): StoppedThread {
  const { tid } = state;
  const registers = state.registers.slice();
  const section = leaveCriticalSection(state, registers, memory);
  // Whether the handler of a pending signal restarts calls decides about the
  // image, not about how the thread goes on here: the kernel does that itself.
  const ready = (status.sigPnd | status.shdPnd) & status.sigCgt &
    ~state.signalMask;
  let code: Uint8Array = new Uint8Array();
  const resumed = resumedCall(
    registers,
    ready === 0n ? "none" : "restarts",
    () => code = codeBefore(registers[REGISTER.rip], memory),
  );
  return {
    tid,
    state,
    status,
    registers,
    code,
    host: {
      tid,
      registers,
      signalMask: state.signalMask,
      cureRip: resumed.cureRip,
      cureRax: resumed.cureRax,
      dispatch: state.dispatch,
      quietSignal: quietSignal(status, state.signalMask),
    },
    pending: readPendingSignals(tid, false, status.sigPnd),
    criticalSection: section,
  };
}

/** SIGWINCH and SIGURG: ignored by default (signal(7)). */
const IGNORED_BY_DEFAULT = [28, 23];
/** Real-time signals would be queued; SIGCHLD and SIGCONT do more. */
const USUAL_SIGNALS = 31;
const SIGCHLD = 17;
const SIGCONT = 18;

/** A signal that nothing would come of in this thread; 0: there is none. */
function quietSignal(
  { sigCgt, sigIgn, sigPnd, shdPnd }: Status,
  mask: bigint,
): number {
  const has = (set: bigint, signal: number) =>
    (set >> BigInt(signal - 1) & 1n) !== 0n;
  const inUse = sigCgt | sigPnd | shdPnd | mask;
  const isQuiet = (signal: number) => !has(inUse, signal);
  const byDefault = IGNORED_BY_DEFAULT.find(isQuiet);
  if (byDefault !== undefined) return byDefault;
  for (let signal = 1; signal <= USUAL_SIGNALS; signal++) {
    if (signal === SIGCHLD || signal === SIGCONT) continue;
    if (has(sigIgn, signal) && isQuiet(signal)) return signal;
  }
  return 0;
}

/**
 * The registers for the image: an interrupted call begins again, or ends with
 * EINTR where the handler of a pending signal makes it.
 *
 * @param actions of the process, from {@link askSignalActions}
 */
export function registersForImage(
  { registers, status, state, code }: StoppedThread,
  actions: readonly sa_entry[],
): ResumedCall {
  const handler = handlerToCome(
    {
      pending: status.sigPnd,
      shared: status.shdPnd,
      blocked: state.signalMask,
    },
    (signal) => {
      const { sigaction, flags } = actions[SIGNALS_WITH_ACTION.indexOf(signal)];
      return { handler: sigaction, flags };
    },
  );
  return resumedCall(registers, handler, () => code);
}

/** The code in front of an address, as much of it as can be read. */
function codeBefore(rip: bigint, memory: TaskMemory): Uint8Array {
  for (const length of [CODE_LENGTH, 2]) {
    try {
      return memory.read(rip - BigInt(length), length);
    } catch {
      // Code at the very beginning of an area has less in front of it.
    }
  }
  return new Uint8Array();
}

/**
 * A thread inside a restartable sequence is taken to its abort handler, as the
 * kernel does with one that was preempted: our calls in it lose the sequence.
 *
 * @returns the section it stays in, where that is how it was registered
 */
function leaveCriticalSection(
  state: ThreadState,
  registers: BigUint64Array,
  memory: TaskMemory,
): bigint | undefined {
  const { rseq } = state;
  if (rseq.pointer === 0n) return undefined;
  const pointer = criticalSectionPointer(
    memory.read(rseq.pointer, RSEQ_AREA_LENGTH),
  );
  if (pointer === 0n) return undefined;
  let section: Uint8Array;
  try {
    section = memory.read(pointer, CRITICAL_SECTION_LENGTH);
  } catch {
    // A stale pointer to memory that is gone: the kernel will say so.
    return undefined;
  }
  const after = afterCriticalSection(registers[REGISTER.rip], section);
  if (after.ip !== registers[REGISTER.rip]) {
    registers[REGISTER.rip] = after.ip;
    registers[REGISTER.origRax] = NO_CALL;
  }
  return after.stays ? pointer : undefined;
}
