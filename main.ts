/** The entry point of ckpt. */

import { runCommandLine } from "./lib/cli/mod.ts";

// A script, not a module with a top-level await: see tools/bundle.ts. Begun from
// an empty stack: the first error caught makes V8 compile every function on the
// stack anew to know its line, and the outermost is the whole bundle (17 ms).
Promise.resolve()
  .then(() => runCommandLine(Deno.args))
  .then((code) => Deno.exit(code));
