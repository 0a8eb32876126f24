/** The log: a file, or standard error; one line per message, with the time. */
import { CkptError, EXIT } from "../error.ts";
import type { LogLevel } from "../report.ts";
import { printable } from "./render_error.ts";
import { type Streams, writeAll } from "./streams.ts";

const LABELS: Record<LogLevel, string> = {
  0: "",
  1: "Error: ",
  2: "Warning: ",
  3: "",
  4: "",
};

export class Log {
  #file: Deno.FsFile | undefined;
  #streams: Streams;
  #verbosity: number;

  /**
   * Creates the log file at once, so that it exists however the run ends.
   *
   * @param path absolute; undefined is standard error
   * @param verbosity 0 to 4; messages above it are dropped
   * @throws CkptError when the file cannot be created
   */
  constructor(path: string | undefined, verbosity: number, streams: Streams) {
    this.#streams = streams;
    this.#verbosity = verbosity;
    if (path !== undefined) this.#file = openLogFile(path);
  }

  /** Whether the messages go to standard error. */
  get onStandardError(): boolean {
    return this.#file === undefined;
  }

  write(level: LogLevel, message: string | (() => string)): void {
    if (level > this.#verbosity) return;
    const time = formatTime(performance.now());
    const text = (typeof message === "string" ? message : message())
      .split("\n")
      .map((line) => `${time}${LABELS[level]}${printable(line)}\n`)
      .join("");
    if (this.#file === undefined) {
      if (this.#verbosity > 0) this.#streams.writeError(text);
      return;
    }
    try {
      writeAll(this.#file, text);
    } catch {
      // A full disk under the log is no reason to fail a dump or a restore.
    }
  }

  close(): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

/**
 * Time since ckpt was started, as CRIU writes it: "(00.012345) ".
 *
 * @param milliseconds with fractions
 */
export function formatTime(milliseconds: number): string {
  return `(${(milliseconds / 1000).toFixed(6).padStart(9, "0")}) `;
}

function openLogFile(path: string): Deno.FsFile {
  try {
    // The log names files and addresses of the program: for the owner only.
    return Deno.openSync(path, {
      write: true,
      create: true,
      truncate: true,
      mode: 0o600,
    });
  } catch (error) {
    const missing = error instanceof Deno.errors.NotFound;
    const denied = error instanceof Deno.errors.PermissionDenied;
    throw new CkptError(
      denied ? EXIT.permission : EXIT.failed,
      "opening the log file",
      [{
        object: path,
        why: missing
          ? "its directory does not exist"
          : error instanceof Error
          ? error.message
          : String(error),
        remedy: missing
          ? "create the directory, or name another one with --work-dir"
          : "name another file with --log-file",
      }],
      { cause: error },
    );
  }
}
