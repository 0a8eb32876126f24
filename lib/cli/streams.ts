/** Standard output and standard error, as the command line needs them. */
import { CkptError, EXIT } from "../error.ts";

export interface Streams {
  /** @throws CkptError when standard output takes no more, as on a full disk */
  writeOutput(text: string): void;
  /** Never throws: there is nobody left to tell. */
  writeError(text: string): void;
  errorIsTerminal(): boolean;
  /** Width of the terminal on standard error. */
  columns(): number;
}

const DEFAULT_COLUMNS = 80;

export const STANDARD_STREAMS: Streams = {
  writeOutput(text) {
    try {
      writeAll(Deno.stdout, text);
    } catch (error) {
      // `ckpt show | head`: the reader has seen enough.
      if (error instanceof Deno.errors.BrokenPipe) return;
      throw new CkptError(EXIT.failed, "printing the result", [{
        object: "standard output",
        why: error instanceof Error ? error.message : String(error),
        remedy: "send it somewhere that has room for it",
      }], { cause: error });
    }
  },

  writeError(text) {
    try {
      writeAll(Deno.stderr, text);
    } catch {
      // Standard error is closed or full. The exit code still tells.
    }
  },

  errorIsTerminal: () => Deno.stderr.isTerminal(),

  columns() {
    try {
      return Deno.consoleSize().columns || DEFAULT_COLUMNS;
    } catch {
      return DEFAULT_COLUMNS;
    }
  },
};

/** write(2) may take less than it was given. */
export function writeAll(
  file: { writeSync(bytes: Uint8Array): number },
  text: string,
): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(file.writeSync(bytes));
}
