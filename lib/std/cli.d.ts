// Types of the argument parser: deno-std ships JavaScript only. Simpler than
// the original's inferred types: a caller checks each value it reads.

export interface ParseOptions {
  /** Keep what follows `--` apart, in `"--"` of the result. */
  "--"?: boolean;
  /** Other names: `{ tree: "t" }`. */
  alias?: Record<string, string | readonly string[]>;
  boolean?: boolean | string | readonly string[];
  default?: Record<string, unknown>;
  /** Put all from the first positional on into `_`. */
  stopEarly?: boolean;
  string?: string | readonly string[];
  /** Options that may be given more than once; their value is an array. */
  collect?: string | readonly string[];
  /** Options that `--no-NAME` sets to false. */
  negatable?: string | readonly string[];
  /** Called for every unknown argument; false leaves it out of the result. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

export interface Args {
  /** Positionals; what looks like a number is one unless `string` has "_". */
  _: (string | number)[];
  "--"?: string[];
  [name: string]: unknown;
}

export function parseArgs(
  args: readonly string[],
  options?: ParseOptions,
): Args;
