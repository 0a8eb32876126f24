/**
 * What a process does with each signal: rt_sigaction(2) and `sa_entry`.
 *
 * The kernel's struct sigaction on x86-64 (not glibc's):
 *
 *   +0 handler   +8 flags   +16 restorer   +24 mask, bit n-1 is signal n
 */
import type { Reason } from "../error.ts";
import type { Outcome, Program } from "../ffi/program.ts";
import type { sa_entry } from "../image/schema.gen.ts";

const SIGKILL = 9;
const SIGSTOP = 19;
const LAST_SIGNAL = 64;

const ACTION_BYTES = 32;
const MASK_BYTES = 8;

/** The signals that have an action, in the order of `task_core_entry.sigactions`. */
export const SIGNALS_WITH_ACTION: readonly number[] = Array
  .from({ length: LAST_SIGNAL }, (_, i) => i + 1)
  .filter((signal) => signal !== SIGKILL && signal !== SIGSTOP);

/** Asks for all actions. The reader gives one entry per signal, ascending. */
export function askSignalActions(
  program: Program,
): (outcome: Outcome) => sa_entry[] {
  const table = program.reserve(ACTION_BYTES * SIGNALS_WITH_ACTION.length);
  SIGNALS_WITH_ACTION.forEach((signal, i) =>
    program.call(
      "rt_sigaction",
      [signal, 0, program.at(table, i * ACTION_BYTES), MASK_BYTES],
      `reading the action of signal ${signal}`,
    )
  );
  return (outcome) => {
    const view = outcome.data(table);
    const actions: sa_entry[] = [];
    for (let at = 0; at < view.byteLength; at += ACTION_BYTES) {
      const last = actions.at(-1);
      // Most are the default: one object for all of them is encoded once.
      if (last !== undefined && isRepeated(view, at, ACTION_BYTES)) {
        actions.push(last);
        continue;
      }
      actions.push({
        sigaction: view.getBigUint64(at, true),
        flags: view.getBigUint64(at + 8, true),
        restorer: view.getBigUint64(at + 16, true),
        mask: view.getBigUint64(at + 24, true),
      });
    }
    return actions;
  };
}

/** Whether the bytes at a place are those in front of it. */
function isRepeated(view: DataView, at: number, length: number): boolean {
  for (let i = at; i < at + length; i += 4) {
    if (view.getInt32(i) !== view.getInt32(i - length)) return false;
  }
  return true;
}

/**
 * What of an image's actions cannot be restored.
 *
 * @param object what they belong to: "core-12.img, entry 0"
 */
export function signalActionProblems(
  actions: readonly sa_entry[],
  object: string,
): Reason[] {
  if (actions.length !== SIGNALS_WITH_ACTION.length) {
    return [{
      object: `${object}, field tc.sigactions`,
      why: `it holds ${actions.length} actions, not ` +
        `${SIGNALS_WITH_ACTION.length}`,
      remedy: "dump the program again; the image is damaged",
    }];
  }
  return actions.flatMap((action, i) =>
    action.compat_sigaction
      ? [{
        object: `${object}, field tc.sigactions[${i}]`,
        why: `the action of signal ${SIGNALS_WITH_ACTION[i]} is that of a ` +
          "32-bit program",
        remedy: "only 64-bit programs can be restored",
      }]
      : []
  );
}

/**
 * Sets the actions that differ from the default, which is what a new agent has
 * for every signal; or all, where it has others. An action with flags but no
 * handler is no default: SA_NOCLDWAIT of SIGCHLD works without one.
 *
 * Has to come before pending signals: setting an action to "ignore" removes the
 * signal from the queue.
 *
 * @param actions without {@link signalActionProblems}
 */
export function restoreSignalActions(
  program: Program,
  actions: readonly sa_entry[],
  hasDefaults = true,
): void {
  actions.forEach(({ sigaction, flags, restorer, mask }, i) => {
    const isDefault = sigaction === 0n && flags === 0n && restorer === 0n &&
      mask === 0n;
    if (hasDefaults && isDefault) return;
    const signal = SIGNALS_WITH_ACTION[i];
    program.call(
      "rt_sigaction",
      [
        signal,
        program.words([sigaction, flags, restorer, mask]),
        0,
        MASK_BYTES,
      ],
      `setting the action of signal ${signal}`,
    );
  });
}
