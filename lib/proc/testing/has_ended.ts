/** Whether the process of a test is over. */
import { CkptError, EXIT } from "../../error.ts";
import { readStat } from "../read.ts";

/** A zombie, or gone: an orphan is a zombie of its new parent's for a moment. */
export function hasEnded(pid: number): boolean {
  try {
    return readStat(pid).state === "Z";
  } catch (error) {
    if (error instanceof CkptError && error.exit === EXIT.gone) return true;
    throw error;
  }
}
