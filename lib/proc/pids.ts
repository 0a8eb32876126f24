/** Lists of process and thread ids. */
import { onlyLine } from "./lines.ts";
import { decimal } from "./numbers.ts";

/**
 * `/proc/PID/task/TID/children`: the children of one thread, in the order of
 * their making. Reliable only while the children are stopped
 * (proc_tid_children(5)).
 */
export function parseChildren(text: string, source = "children"): number[] {
  const place = onlyLine(text, source);
  return place.text.split(" ").filter((word) => word !== "")
    .map((word) => decimal(word, place));
}
