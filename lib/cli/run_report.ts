/** The `Report` of one run: joins log, progress line and signals. */
import { syscallBeside } from "../ffi/syscall.ts";
import type { LogLevel, Report } from "../report.ts";
import type { Log } from "./log.ts";
import type { ProgressLine } from "./progress.ts";
import type { StopSignals } from "./signals.ts";

export class RunReport implements Report {
  /** What was handed to `stats`, for the result of `--json`. */
  figures: Record<string, bigint | number> = {};
  #log: Log;
  #progress: ProgressLine | undefined;
  #signals: StopSignals | undefined;
  #never = new AbortController().signal;

  /**
   * @param progress undefined where there is no terminal
   * @param signals undefined for commands that change nothing: a signal simply
   * ends them
   */
  constructor(
    log: Log,
    progress: ProgressLine | undefined,
    signals: StopSignals | undefined,
  ) {
    this.#log = log;
    this.#progress = progress;
    this.#signals = signals;
  }

  log(level: LogLevel, message: string | (() => string)): void {
    if (this.#log.onStandardError) this.#progress?.clear();
    this.#log.write(level, message);
  }

  progress(step: string, done: bigint | number, total: bigint | number): void {
    this.#progress?.update(step, done, total);
  }

  stats(figures: Readonly<Record<string, bigint | number>>): void {
    Object.assign(this.figures, figures);
    for (const [name, value] of Object.entries(figures)) {
      this.log(3, `${name}: ${value}`);
    }
  }

  get signal(): AbortSignal {
    return this.#signals?.signal ?? this.#never;
  }

  aborted(): boolean {
    return this.signal.aborted;
  }

  async letSignalsIn(): Promise<void> {
    // The shortest timer takes 1 ms, and a message to oneself the compiling of
    // 60 functions of Deno's.
    await syscallBeside("getpid");
  }

  onSignal(
    handler: (signal: Deno.Signal) => void,
    signals?: readonly Deno.Signal[],
  ): () => void {
    return this.#signals?.onSignal(handler, signals) ?? (() => {});
  }
}
