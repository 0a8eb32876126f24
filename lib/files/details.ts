/**
 * What fdinfo tells of a kernel object behind a descriptor, beyond the lines
 * that every descriptor has (proc_pid_fdinfo(5)).
 */
import { CkptError, EXIT } from "../error.ts";

/** Makes the error for a line that is not as the kernel has it. */
export function unknownDetail(key: string, line: string): CkptError {
  return new CkptError(EXIT.failed, "reading fdinfo", [{
    object: `"${key}"`,
    why: `the kernel writes it in a form that ckpt does not know: ${line}`,
    remedy: "report it together with the output of `uname -r`",
  }]);
}

/** Of a program that runs, a number may be given away between two looks. */
function missingDetail(key: string): CkptError {
  return new CkptError(EXIT.gone, "reading fdinfo", [{
    object: `"${key}"`,
    why: "it is not there: the descriptor is another file's by now",
  }]);
}

/**
 * The groups of `form` in the line that begins with `key`.
 *
 * @param form of what follows the key
 * @throws CkptError when there is no such line
 */
export function detail(
  lines: readonly string[],
  key: string,
  form: RegExp,
): string[] {
  const line = lines.find((line) => line.startsWith(key));
  if (line === undefined) throw missingDetail(key);
  const found = form.exec(line.slice(key.length));
  if (found === null) throw unknownDetail(key, line);
  return found.slice(1);
}
