/** The file that --pidfile names. */
import { CkptError, EXIT } from "../error.ts";

export interface Pidfile extends Disposable {
  /** The task has come: the file stays. */
  keep(): void;
}

/**
 * The file is there before the task runs, and gone if it does not come.
 *
 * @throws CkptError when it cannot be made
 */
export function writePidfile(path: string | undefined, pid: number): Pidfile {
  let keep = path === undefined;
  if (path !== undefined) {
    try {
      Deno.writeTextFileSync(path, `${pid}`, { createNew: true });
    } catch (error) {
      throw new CkptError(EXIT.failed, `restoring task ${pid}`, [{
        object: `--pidfile ${path}`,
        why: error instanceof Error ? error.message : String(error),
        remedy: "remove the file of an earlier run, or name another",
      }], { cause: error });
    }
  }
  return {
    keep: () => {
      keep = true;
    },
    [Symbol.dispose]: () => {
      if (!keep) Deno.removeSync(path!);
    },
  };
}
