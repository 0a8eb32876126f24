/** `/proc/PID/syscall` and `/proc/PID/wchan`: what a task waits in. */
import { onlyLine } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { hexBigint } from "./numbers.ts";

/**
 * - "running": the task was on a processor, nothing is known.
 * - "outside": it is stopped or blocked, but not in a system call.
 * - "inside": it is in system call `nr` with six arguments.
 */
export type CurrentSyscall =
  | { readonly kind: "running" }
  | { readonly kind: "outside"; readonly sp: bigint; readonly pc: bigint }
  | {
    readonly kind: "inside";
    readonly nr: number;
    readonly args: readonly bigint[];
    readonly sp: bigint;
    readonly pc: bigint;
  };

const ARGUMENTS = 6;

/** Parses syscall (proc_pid_syscall(5)). */
export function parseSyscall(text: string, source = "syscall"): CurrentSyscall {
  const place = onlyLine(text, source);
  if (place.text === "running") return { kind: "running" };
  const words = place.text.split(" ");
  if (words[0] === "-1" && words.length === 3) {
    return {
      kind: "outside",
      sp: prefixedHex(words[1], place),
      pc: prefixedHex(words[2], place),
    };
  }
  // The number is an int: a caller may have asked for any.
  if (!/^-?[0-9]{1,10}$/.test(words[0]) || words.length !== ARGUMENTS + 3) {
    throw malformed(
      place,
      "expected running, or a number, arguments, stack and program counter",
    );
  }
  return {
    kind: "inside",
    nr: Number(words[0]),
    args: words.slice(1, 1 + ARGUMENTS).map((word) => prefixedHex(word, place)),
    sp: prefixedHex(words[1 + ARGUMENTS], place),
    pc: prefixedHex(words[2 + ARGUMENTS], place),
  };
}

/**
 * Parses wchan: the kernel function the task waits in, undefined when it waits
 * in none or the reader may not know.
 */
export function parseWchan(text: string, source = "wchan"): string | undefined {
  const place = onlyLine(text, source);
  if (place.text === "") throw malformed(place, "expected a name or 0");
  return place.text === "0" ? undefined : place.text;
}

function prefixedHex(word: string, place: Place): bigint {
  if (!word.startsWith("0x")) {
    throw malformed(place, "expected a number that begins with 0x");
  }
  return hexBigint(word.slice(2), place);
}
