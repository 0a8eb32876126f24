/**
 * What libckpt.so was doing when it failed, in words. The numbers are those of
 * enum cause_step in c/lib/ckpt.h.
 */
import { CkptError, EXIT, type ExitCode } from "../error.ts";
import { describeErrno, EOPNOTSUPP, EPERM, ESRCH, ETIMEDOUT } from "./errno.ts";
import { library } from "./library.ts";

const STEPS: Record<number, string> = {
  1: "listing the threads",
  2: "attaching with ptrace",
  3: "interrupting with ptrace",
  4: "waiting for it to stop",
  5: "the task ended",
  6: "accessing the registers",
  7: "accessing the signal mask",
  8: "resuming it",
  9: "writing its memory",
  10: "reading its memory",
  11: "mapping memory for the agent",
  12: "running the agent",
  13: "a system call made by the agent",
  14: "accessing the FPU state",
  15: "reading the rseq registration",
  16: "reading the robust futex list",
  17: "reading the scheduling parameters",
  18: "reading the system call user dispatch",
  19: "reading the page map",
  20: "writing the page image",
  21: "allocating memory",
  22: "starting a task",
  23: "reading shared memory",
  24: "reading pending signals",
  25: "it may use I/O ports (ioperm), which cannot be saved",
  26: "reading the page image",
  27: "starting the guard of a cgroup",
  28: "starting a process for what must not stop half way",
  29: "starting the process that traces for ckpt",
  30: "the process that traces for ckpt has ended",
  31: "starting ckpt in other namespaces",
  32: "starting a thread to compare others with",
};

/** The last failure of libckpt.so. */
export interface Cause {
  /** In words; "" when nothing failed. */
  step: string;
  /** The task it was about; 0 for none. */
  tid: number;
  /** An address, wait status or size, as the step has it. */
  value: bigint;
}

export function lastCause(): Cause {
  const buffer = new Uint8Array(16);
  library("base").ckpt_cause(buffer);
  const view = new DataView(buffer.buffer);
  return {
    step: STEPS[view.getInt32(0, true)] ?? "",
    tid: view.getInt32(4, true),
    value: view.getBigInt64(8, true),
  };
}

function exitCodeOf(errno: number): ExitCode {
  switch (errno) {
    case ESRCH:
      return EXIT.gone;
    case EPERM:
      return EXIT.permission;
    case ETIMEDOUT:
      return EXIT.interrupted;
    case EOPNOTSUPP:
      return EXIT.refused;
    default:
      return EXIT.failed;
  }
}

/**
 * The error for a failed call of libckpt.so.
 *
 * @param result the -errno it returned
 * @param action what the caller was doing
 */
export function nativeError(
  result: bigint,
  action: string,
  remedy?: string,
): CkptError {
  const cause = lastCause();
  const errno = Number(-result);
  return new CkptError(exitCodeOf(errno), action, [{
    object: cause.tid > 0 ? `task ${cause.tid}` : "the kernel",
    why: `${cause.step}: ${describeErrno(errno)}`,
    remedy,
  }]);
}

/** Passes a result through; a -errno becomes a {@link nativeError}. */
export function checked(
  result: bigint,
  action: string,
  remedy?: string,
): bigint {
  if (result < 0n) throw nativeError(result, action, remedy);
  return result;
}
