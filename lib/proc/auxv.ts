/**
 * `/proc/PID/auxv`: the auxiliary vector (proc_pid_auxv(5), getauxval(3)) as
 * exec or PR_SET_MM_MAP left it in the kernel.
 */
import { CkptError, EXIT } from "../error.ts";

/** One entry: AT_* and its value. */
export type AuxvEntry = readonly [type: bigint, value: bigint];

const ENTRY_BYTES = 16;

/**
 * Parses the entries of a 64-bit task, with the AT_NULL entry that ends them.
 * A task without memory has no entries.
 */
export function parseAuxv(bytes: Uint8Array, source = "auxv"): AuxvEntry[] {
  if (bytes.length % ENTRY_BYTES !== 0) {
    throw broken(
      source,
      `${bytes.length} bytes are no whole number of 64-bit entries`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const entries: AuxvEntry[] = [];
  for (let at = 0; at < bytes.length; at += ENTRY_BYTES) {
    entries.push([
      view.getBigUint64(at, true),
      view.getBigUint64(at + 8, true),
    ]);
  }
  if (entries.length > 0 && entries[entries.length - 1][0] !== 0n) {
    throw broken(source, "the last entry is not AT_NULL");
  }
  return entries;
}

function broken(source: string, why: string): CkptError {
  return new CkptError(EXIT.failed, `reading ${source}`, [{
    object: source,
    why,
    remedy: "only 64-bit programs can be handled; if this is one, report it " +
      "together with the output of `uname -r`",
  }]);
}
