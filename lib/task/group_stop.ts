/** Stops by job control, when a trace ends. */
import { CkptError } from "../error.ts";
import { pause } from "../ffi/pause.ts";
import { readStat } from "../proc/read.ts";

const PATIENCE_MS = 1000;

/**
 * Waits until threads have stopped that were just let go. A thread that job
 * control holds runs for a moment, inside the kernel, when it is let go
 * (ptrace(2), PTRACE_DETACH). Nobody shall see it so; but who is to stop may
 * have been told to go on at once.
 */
export function awaitGroupStops(tids: readonly number[]): void {
  const end = performance.now() + PATIENCE_MS;
  for (const tid of tids) {
    while (isRunning(tid) && performance.now() < end) pause(1);
  }
}

function isRunning(tid: number): boolean {
  try {
    return readStat(tid).state !== "T";
  } catch (error) {
    if (error instanceof CkptError) return false; // it is gone
    throw error;
  }
}
