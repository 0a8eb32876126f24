/** Files on a network file system that their server has no more. */
import { CkptError, EXIT } from "../error.ts";
import { ESTALE } from "../ffi/errno.ts";
import { SyscallError } from "../ffi/syscall.ts";

/**
 * Puts into words that a server does not know a file any more (ESTALE of
 * nfs(5)): nobody can read it, so nobody can save it.
 *
 * @param object "descriptor 5 (/mnt/x) of task 12"
 * @returns the error to throw
 */
export function explainStale(error: unknown, object: string): unknown {
  if (!(error instanceof SyscallError) || error.errno !== ESTALE) return error;
  return new CkptError(EXIT.refused, "looking at the files in use", [{
    object,
    why: "another client or the server itself has deleted it, and the server " +
      "cannot give it any more (ESTALE)",
    remedy: "dump when the program has closed it; it cannot use it either",
  }], { cause: error });
}
