/** What to do when a task was gone that was looked at or asked. */
import { CkptError, EXIT } from "../error.ts";
import { taskExists } from "../ffi/task_exists.ts";

/**
 * @param error that ended a dump or a check; others pass through
 * @param root of the tree
 */
export function withRemedyForVanished(error: unknown, root: number): unknown {
  if (!(error instanceof CkptError) || error.exit !== EXIT.gone) return error;
  const remedy = taskExists(root)
    ? "it ended meanwhile: try again, the program itself runs on"
    : `look the program's pid up anew (pgrep, ps): task ${root} has ended, ` +
      "was never there, or is of another pid namespace";
  return new CkptError(
    error.exit,
    error.action,
    error.reasons.map((reason) => ({
      ...reason,
      remedy: reason.remedy ?? remedy,
    })),
    { cause: error },
  );
}
