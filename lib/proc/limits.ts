/**
 * `/proc/PID/limits` (proc_pid_limits(5); proc_pid_limits in fs/proc/base.c).
 */
import { lines } from "./lines.ts";
import { malformed } from "./malformed.ts";
import { decimalBigint } from "./numbers.ts";

export const RLIM_INFINITY = 2n ** 64n - 1n;

export interface Limit {
  /** RLIMIT_*: the number that prlimit(2) takes. */
  readonly resource: number;
  /** The kernel's words: "Max open files". */
  readonly name: string;
  /** {@linkcode RLIM_INFINITY} when unlimited. */
  readonly soft: bigint;
  readonly hard: bigint;
  /** "bytes", "files", ...; "" for priorities. */
  readonly units: string;
}

/** Names in the order of the RLIMIT_* numbers. */
const NAMES = [
  "Max cpu time",
  "Max file size",
  "Max data size",
  "Max stack size",
  "Max core file size",
  "Max resident set",
  "Max processes",
  "Max open files",
  "Max locked memory",
  "Max address space",
  "Max file locks",
  "Max pending signals",
  "Max msgqueue size",
  "Max nice priority",
  "Max realtime priority",
  "Max realtime timeout",
];

/** The name is padded to this many characters. */
const NAME_WIDTH = 25;

/** All 16 limits; the index in the array is the RLIMIT_* number. */
export function parseLimits(text: string, source = "limits"): Limit[] {
  const limits: (Limit | undefined)[] = NAMES.map(() => undefined);
  let last = 1;
  for (const place of lines(text, source)) {
    last = place.line;
    if (place.line === 1) {
      if (!place.text.startsWith("Limit ")) {
        throw malformed(place, "expected the headings of the table");
      }
      continue;
    }
    const name = place.text.slice(0, NAME_WIDTH).trimEnd();
    const resource = NAMES.indexOf(name);
    if (resource < 0) throw malformed(place, "this limit is not known");
    const [soft, hard, units = "", ...more] = place.text.slice(NAME_WIDTH)
      .split(" ").filter((word) => word !== "");
    if (hard === undefined || more.length > 0) {
      throw malformed(place, "expected a soft limit, a hard limit and a unit");
    }
    const value = (word: string) =>
      word === "unlimited" ? RLIM_INFINITY : decimalBigint(word, place);
    limits[resource] = {
      resource,
      name,
      soft: value(soft),
      hard: value(hard),
      units,
    };
  }
  return limits.map((limit, resource) => {
    if (limit === undefined) {
      throw malformed(
        { source, line: last, text: "" },
        `there is no line "${NAMES[resource]}"`,
      );
    }
    return limit;
  });
}
