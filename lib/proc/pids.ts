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

/**
 * The names of a directory that are numbers, ascending: pids in `/proc`,
 * threads in `/proc/PID/task`, descriptors in `/proc/PID/fd`.
 */
export function numericNames(names: Iterable<string>): number[] {
  const numbers: number[] = [];
  for (const name of names) {
    if (/^(0|[1-9][0-9]{0,9})$/.test(name)) numbers.push(Number(name));
  }
  return numbers.sort((a, b) => a - b);
}
