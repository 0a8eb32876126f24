/** Values below /proc/sys, of the namespaces that ckpt is in. */
import { CkptError, EXIT } from "../error.ts";

/** The text of a value, without the end of its line; undefined: there is none. */
function readSysctl(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path).replace(/\n$/, "");
  } catch {
    // Some values can only be read once they are set (stable_secret).
    return undefined;
  }
}

/**
 * Sets the values that differ from those that are there, in order.
 *
 * @param values paths and texts
 * @throws CkptError naming the first that the kernel did not take
 */
export function writeSysctls(
  values: Iterable<readonly [path: string, value: string]>,
): void {
  for (const [path, value] of values) {
    if (readSysctl(path) === value) continue;
    try {
      Deno.writeTextFileSync(path, value, { create: false });
    } catch (error) {
      throw new CkptError(EXIT.failed, "restoring the program's namespaces", [{
        object: path,
        why: `cannot be set to ${value}: ${
          error instanceof Error ? error.message : error
        }`,
      }], { cause: error });
    }
  }
}
