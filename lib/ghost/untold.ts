/** Files of which the kernel does not tell what has to be known. */
import { CkptError, EXIT } from "../error.ts";
import { ENAMETOOLONG, ESTALE } from "../ffi/errno.ts";
import { SyscallError } from "../ffi/syscall.ts";

const REASONS: ReadonlyMap<number, { why: string; remedy: string }> = new Map([
  // nfs(5): nobody can read it, so nobody can save it.
  [ESTALE, {
    why: "another client or the server itself has deleted it, and the server " +
      "cannot give it any more (ESTALE)",
    remedy: "dump when the program has closed it; it cannot use it either",
  }],
  // d_path() of fs/d_path.c has one page of room.
  [ENAMETOOLONG, {
    why: "its path has more than 4095 bytes, which the kernel does not tell",
    remedy: "give a directory above it a shorter name, or close it",
  }],
]);

/**
 * Puts into words why the kernel does not tell what a file is, where that is
 * the file's fault.
 *
 * @param object "descriptor 5 (/mnt/x) of task 12"
 * @returns the error to throw
 */
export function explainUntold(error: unknown, object: string): unknown {
  const reason = error instanceof SyscallError && REASONS.get(error.errno);
  if (!reason) return error;
  return new CkptError(EXIT.refused, "looking at the files in use", [{
    object,
    ...reason,
  }], { cause: error });
}
