/**
 * How the lower layers tell the command line what they are doing, and how it
 * tells them to stop. They get a `Report` and never write to a terminal.
 */

/**
 * What a message is: 0 always written, 1 error, 2 warning, 3 information,
 * 4 debugging. The numbers are those of `-v`, and CRIU's (criu(8)).
 */
export type LogLevel = 0 | 1 | 2 | 3 | 4;

export interface Report {
  /**
   * Writes one message to the log, if `-v` lets it through; only then a function
   * is asked for it.
   */
  log(level: LogLevel, message: string | (() => string)): void;

  /**
   * Says how far a step has come, in a unit of the step's own. Cheap enough to
   * be called thousands of times.
   *
   * @param total 0n or 0 when it is not known
   */
  progress(step: string, done: bigint | number, total: bigint | number): void;

  /**
   * Hands over the figures of the run (times in microseconds, counts), under
   * the names CRIU's stats.proto uses. They go to the log and into the result
   * of `--json`.
   */
  stats(figures: Readonly<Record<string, bigint | number>>): void;

  /**
   * Aborted by SIGINT, SIGTERM or SIGHUP. Its reason is a `CkptError` with exit
   * code 7, so `report.signal.throwIfAborted()` throws what is to be reported.
   *
   * Signals reach JavaScript through the event loop: a run of synchronous calls
   * sees none of them until it awaits `letSignalsIn()`.
   */
  readonly signal: AbortSignal;

  /** Whether `signal` is aborted. */
  aborted(): boolean;

  /**
   * Gives the event loop one turn, so that a pending signal is noticed, now or
   * at one of the next calls. Costs about 0.02 ms.
   */
  letSignalsIn(): Promise<void>;

  /**
   * Gives signals to `handler` instead of aborting, until the returned function
   * is called. For a restore that waits for its program and passes signals on.
   *
   * @param signals what to catch beyond SIGINT, SIGTERM and SIGHUP
   */
  onSignal(
    handler: (signal: Deno.Signal) => void,
    signals?: readonly Deno.Signal[],
  ): () => void;
}
