/** The alternate signal stack of a thread: sigaltstack(2). */
import type { Program } from "../ffi/program.ts";
import type { thread_sas_entry } from "../image/schema.gen.ts";

/** struct sigaltstack: +0 address   +8 flags   +16 size */
export const ALTERNATE_STACK_BYTES = 24;

const SS_ONSTACK = 1;
const SS_DISABLE = 2;

/** Reads what sigaltstack(2) wrote. */
export function parseAlternateStack(
  view: DataView,
  offset = 0,
): thread_sas_entry {
  return {
    ss_sp: view.getBigUint64(offset, true),
    ss_size: view.getBigUint64(offset + 16, true),
    ss_flags: view.getUint32(offset + 8, true),
  };
}

/**
 * Sets the alternate stack of the thread that runs the program.
 *
 * @param hasNone it is a new agent; one that was made with CLONE_VFORK has that
 * of its parent
 *
 * Whether the thread is on it is no state of its own: the kernel looks at the
 * stack pointer. So SS_ONSTACK, which the kernel reports but only accepts as a
 * synonym of 0, is left out; SS_AUTODISARM is kept. A stack disarmed by
 * SS_AUTODISARM is reported as SS_DISABLE, and the signal frame brings it back
 * (`sas_ss_reset` in include/linux/sched/signal.h).
 */
export function restoreAlternateStack(
  program: Program,
  { ss_sp, ss_size, ss_flags }: thread_sas_entry,
  hasNone = true,
): void {
  if (hasNone && (ss_flags & SS_DISABLE) !== 0) return;
  const flags = (ss_flags & ~SS_ONSTACK) >>> 0;
  program.call(
    "sigaltstack",
    [program.words([ss_sp, flags, ss_size]), 0],
    `setting the alternate signal stack to 0x${ss_sp.toString(16)}`,
  );
}
