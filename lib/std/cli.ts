/** `@std/cli` for this project: the argument parser. */

// @ts-types="./cli.d.ts"
export { parseArgs } from "deno-std/cli/parse_args.js";
