/** The entry point of ckpt. */

import { runCommandLine } from "./lib/cli/mod.ts";

// A script, not a module with a top-level await: see tools/bundle.ts.
runCommandLine(Deno.args).then((code) => Deno.exit(code));
