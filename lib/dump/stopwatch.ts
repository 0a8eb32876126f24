/** The times of a dump, and what of them goes to stats-dump. */
import type { PageCounters } from "../mm/page_copy.ts";

/** The steps of a dump. */
type Step = "freezing" | "interview" | "memory" | "writing";

/** Times of the steps of a dump, in milliseconds. */
export class Stopwatch {
  readonly #start = performance.now();
  #last = this.#start;
  readonly laps: Record<Step, number> = {
    freezing: 0,
    interview: 0,
    memory: 0,
    writing: 0,
  };

  lap(name: Step): void {
    const now = performance.now();
    this.laps[name] = now - this.#last;
    this.#last = now;
  }

  total(): number {
    return performance.now() - this.#start;
  }
}

function micros(milliseconds: number): number {
  return Math.round(milliseconds * 1000);
}

/**
 * @param hasSnapshots whether the program went on before its memory was copied
 * @returns the figures of CRIU's stats.proto; times in microseconds
 */
export function dumpFigures(
  { laps: { freezing, interview, memory, writing } }: Stopwatch,
  { scanned, written }: PageCounters,
  hasSnapshots: boolean,
  leaveRunning: boolean,
) {
  return {
    freezing_time: micros(freezing),
    frozen_time: micros(
      freezing + interview +
        (hasSnapshots ? 0 : memory) +
        (leaveRunning ? 0 : writing),
    ),
    memdump_time: micros(memory),
    memwrite_time: micros(writing),
    pages_scanned: scanned,
    pages_skipped_parent: 0n,
    pages_written: written,
    pages_lazy: 0n,
  };
}
