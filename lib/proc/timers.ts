/**
 * `/proc/PID/timers`: the POSIX timers of a process (proc_pid_timers(5);
 * show_timer in fs/proc/base.c). The times are not in here; only the task
 * itself can ask for them.
 */
import { malformed, type Place } from "./malformed.ts";
import { lines } from "./lines.ts";
import { decimal, hexBigint, signedDecimal } from "./numbers.ts";

export interface PosixTimer {
  /** The id that timer_create(2) returned. */
  readonly id: number;
  /** Signal number; 0 or meaningless when `notify` is "none". */
  readonly signal: number;
  /** sigev_value, as a pointer. */
  readonly value: bigint;
  readonly notify: "signal" | "none" | "thread";
  /** `target` is one thread (SIGEV_THREAD_ID), not a whole process. */
  readonly toThread: boolean;
  /**
   * sigev_notify as timer_create(2) takes it: SIGEV_SIGNAL 0, SIGEV_NONE 1,
   * SIGEV_THREAD 2, with 4 added for SIGEV_THREAD_ID.
   */
  readonly sigevNotify: number;
  /**
   * Who is notified, as a pid of the pid namespace of this /proc; 0 when
   * that task is gone or not in the namespace.
   */
  readonly target: number;
  /** CLOCK_*; negative for a CPU clock of a process or thread. */
  readonly clockId: number;
}

const SIGEV_THREAD_ID = 4;
const KINDS = { signal: 0, none: 1, thread: 2 } as const;

/**
 * Parses the whole of timers, in the kernel's order: the newest comes first.
 * An empty text gives none.
 */
export function parseTimers(text: string, source = "timers"): PosixTimer[] {
  const all = [...lines(text, source)];
  const timers: PosixTimer[] = [];
  for (let i = 0; i < all.length; i += 4) {
    const id = value(all, i, "ID: ");
    const signal = value(all, i + 1, "signal: ");
    const notify = value(all, i + 2, "notify: ");
    const clock = value(all, i + 3, "ClockID: ");

    const signalParts = /^([0-9]+)\/([0-9a-f]+)$/.exec(signal.text);
    if (signalParts === null) {
      throw malformed(signal, "expected a signal as NUMBER/VALUE");
    }
    const notifyParts = /^(signal|none|thread)\/(tid|pid)\.([0-9]+)$/.exec(
      notify.text,
    );
    if (notifyParts === null) {
      throw malformed(notify, "expected a notification as KIND/pid.NUMBER");
    }
    const kind = notifyParts[1] as PosixTimer["notify"];
    const toThread = notifyParts[2] === "tid";
    timers.push({
      id: decimal(id.text, id),
      signal: decimal(signalParts[1], signal),
      value: hexBigint(signalParts[2], signal),
      notify: kind,
      toThread,
      sigevNotify: KINDS[kind] + (toThread ? SIGEV_THREAD_ID : 0),
      target: decimal(notifyParts[3], notify),
      clockId: signedDecimal(clock.text, clock),
    });
  }
  return timers;
}

function value(all: readonly Place[], index: number, key: string): Place {
  const place = all[index];
  if (place === undefined) {
    const last = all[all.length - 1];
    throw malformed(last, `the text ends where "${key}" should follow`);
  }
  if (!place.text.startsWith(key)) {
    throw malformed(place, `expected "${key}"`);
  }
  return { ...place, text: place.text.slice(key.length) };
}
