/**
 * Signals that wait to be delivered, to a process or to one of its threads:
 * the kernel's siginfo_t, 128 bytes each, in the order of the queue.
 *
 *   +0 signal   +4 errno   +8 code   +16 pid or timer id   +20 uid or overrun
 *   +24 value
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { checked } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import type { Program, Result } from "../ffi/program.ts";
import type { siginfo_entry } from "../image/schema.gen.ts";

export const SIGINFO_BYTES = 128;

const LAST_SIGNAL = 64;
const SI_USER = 0;
const SI_TIMER = -2;

const FIRST_ROOM = 32;
/** Far above any RLIMIT_SIGPENDING that a host can afford. */
const MOST_SIGNALS = 16 * 1024 * 1024;

/** What a siginfo says. */
export interface PendingSignal {
  readonly signal: number;
  /** si_code. */
  readonly code: number;
}

/** @param siginfo at least 12 bytes */
export function pendingSignal(siginfo: Uint8Array): PendingSignal {
  const view = viewOf(siginfo);
  return { signal: view.getInt32(0, true), code: view.getInt32(8, true) };
}

/** The expiry of a POSIX timer that waits to be delivered. */
export interface TimerExpiry {
  readonly signal: number;
  readonly timerId: number;
  readonly overrun: number;
}

/** The expiry that a siginfo tells of; undefined for any other signal. */
export function timerExpiry(siginfo: Uint8Array): TimerExpiry | undefined {
  const { signal, code } = pendingSignal(siginfo);
  if (code !== SI_TIMER) return undefined;
  const view = viewOf(siginfo);
  return {
    signal,
    timerId: view.getInt32(16, true),
    overrun: view.getInt32(20, true),
  };
}

/**
 * Reads a queue of a stopped task without changing it.
 *
 * @param tid a thread that ckpt traces and that is stopped
 * @param shared the queue of the whole process, else that of the thread
 * @param pending ShdPnd or SigPnd of its status
 * @throws CkptError when the kernel does not let ckpt read the queue
 */
export function readPendingSignals(
  tid: number,
  shared: boolean,
  pending: bigint,
): siginfo_entry[] {
  // Most queues are empty, and then no call is needed.
  if (pending === 0n) return [];
  for (let room = FIRST_ROOM; room <= MOST_SIGNALS; room *= 8) {
    const buffer = new Uint8Array(room * SIGINFO_BYTES);
    const count = Number(checked(
      library("dump").ckpt_peek_siginfo(
        tid,
        shared ? 1 : 0,
        buffer,
        BigInt(room),
      ),
      `reading the pending signals of task ${tid}`,
    ));
    if (count < room) {
      return withUnqueued(
        Array.from(
          { length: count },
          (_, i) => buffer.slice(i * SIGINFO_BYTES, (i + 1) * SIGINFO_BYTES),
        ),
        pending,
      );
    }
  }
  throw new CkptError(
    EXIT.refused,
    `reading the pending signals of task ${tid}`,
    [{
      object: `task ${tid}`,
      why: `more than ${MOST_SIGNALS} signals wait to be delivered`,
    }],
  );
}

/**
 * The queue with what the kernel had no memory for: a signal can be pending
 * without a siginfo (`__send_signal_locked` in kernel/signal.c), and is then
 * delivered as sent by nobody (`collect_signal`).
 *
 * @param queued siginfo_t's in the order of the queue
 * @param pending the mask of pending signals
 */
export function withUnqueued(
  queued: readonly Uint8Array[],
  pending: bigint,
): siginfo_entry[] {
  const have = new Set(queued.map((siginfo) => pendingSignal(siginfo).signal));
  const entries = queued.map((siginfo) => ({ siginfo }));
  for (let signal = 1; signal <= LAST_SIGNAL; signal++) {
    if ((pending >> BigInt(signal - 1) & 1n) === 0n || have.has(signal)) {
      continue;
    }
    const siginfo = new Uint8Array(SIGINFO_BYTES);
    const view = viewOf(siginfo);
    view.setInt32(0, signal, true);
    view.setInt32(8, SI_USER, true);
    entries.push({ siginfo });
  }
  return entries;
}

/**
 * What of an image's queue cannot be restored.
 *
 * @param object which queue: "core-12.img, entry 0, field tc.signals_s"
 */
export function pendingSignalProblems(
  signals: readonly siginfo_entry[],
  object: string,
): Reason[] {
  return signals.flatMap(({ siginfo }, i) => {
    const at = `${object}.signals[${i}]`;
    if (siginfo.length !== SIGINFO_BYTES) {
      return [{
        object: at,
        why: `it has ${siginfo.length} bytes, not ${SIGINFO_BYTES}`,
        remedy: "dump the program again; the image is damaged",
      }];
    }
    const { signal } = pendingSignal(siginfo);
    return signal >= 1 && signal <= LAST_SIGNAL ? [] : [{
      object: at,
      why: `there is no signal ${signal}`,
      remedy: "dump the program again; the image is damaged",
    }];
  });
}

/**
 * Queues signals for the whole process. Has to run in its leader: a task may
 * send itself a siginfo with any code and sender, others may not
 * (`do_rt_sigqueueinfo` in kernel/signal.c).
 *
 * All signals have to be blocked; actions and {@link restorePosixTimers} come
 * first.
 *
 * @param signals without {@link pendingSignalProblems}
 */
export function restoreProcessSignals(
  program: Program,
  signals: readonly siginfo_entry[],
): void {
  if (signals.length === 0) return;
  const pid = program.call("getpid", [], "asking for the process id");
  for (const { siginfo } of signals) {
    const { signal } = pendingSignal(siginfo);
    program.call(
      "rt_sigqueueinfo",
      [pid, signal, program.bytes(siginfo)],
      `queueing signal ${signal} for the process`,
    );
  }
}

/** Queues signals for the thread that runs the program; else as above. */
export function restoreThreadSignals(
  program: Program,
  signals: readonly siginfo_entry[],
): void {
  if (signals.length === 0) return;
  const pid: Result = program.call("getpid", [], "asking for the process id");
  const tid: Result = program.call("gettid", [], "asking for the thread id");
  for (const { siginfo } of signals) {
    const { signal } = pendingSignal(siginfo);
    program.call(
      "rt_tgsigqueueinfo",
      [pid, tid, signal, program.bytes(siginfo)],
      `queueing signal ${signal} for the thread`,
    );
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
