/** The start of a bundle: runs the command line, and exits. */
import { actAtTheEnd } from "../ns/inside.ts";
import type { Commands } from "./commands.ts";
import { runCommandLine } from "./mod.ts";

/** Of the bundles for one command; nobody comes here (see tools/build.ts). */
const absent = () => Promise.reject(new Error("this bundle lacks the command"));

/** @param commands those that the bundle is for */
export function start(commands: Partial<Commands>): void {
  const all: Commands = {
    dump: absent,
    check: absent,
    restore: absent,
    show: absent,
    clean: absent,
    ...commands,
  };
  // A script, not a module with a top-level await: see tools/bundle.ts. Begun
  // from an empty stack: the first error caught makes V8 compile every function
  // on the stack anew to know its line, and the outermost is the whole bundle
  // (17 ms).
  Promise.resolve()
    .then(() => runCommandLine(Deno.args, all))
    .then((code) => {
      actAtTheEnd(code);
      Deno.exit(code);
    });
}
