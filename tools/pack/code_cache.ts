/**
 * Compiles the program beforehand, and puts the result where Deno looks for
 * it: compiling takes longer than all else that ckpt does in a small dump.
 *
 * Deno keeps what V8 has compiled of a script in a database of SQLite in its
 * cache directory, and takes it from there when the same version of Deno runs
 * the same script again. We make that database, with two differences: every
 * function is compiled that will run, not only the first (or every function at
 * all), and nothing else is in it. stub.c hands it to Deno.
 */

import { join } from "@std/path";

const COMPILER = join(import.meta.dirname!, "compile_script.js");
const REPLACER = join(import.meta.dirname!, "replace_data.js");

/** What the loader calls the program; Deno finds the cache of a script by it. */
const PROGRAM_URL = "file:///ckpt.js";
/** The name that Deno 2.9 gives the file in DENO_DIR. */
const DATABASE = "v8_code_cache_v2";

/**
 * In the head of V8's cached data (snapshot/code-serializer.h): a hash of the
 * flags that V8 ran with, which have to be the same where it is used.
 */
const FLAGS = { start: 12, end: 16 };

/**
 * @param deno path of the Deno that will run the program
 * @param stub flat image of stub.c, which holds the loader
 * @param program the script, as the packed binary will hold it; at least 16 KB,
 *   as Deno finds shorter ones by a hash that differs from process to process
 * @param trained what V8 would cache when the functions that matter have run;
 *   without it all functions are compiled
 * @returns the bytes of the database
 * @throws Error when Deno would not use it
 */
export function codeCache(
  deno: string,
  stub: Uint8Array,
  program: string,
  trained?: Uint8Array,
): Uint8Array {
  const directory = Deno.makeTempDirSync();
  try {
    const script = join(directory, "ckpt.js");
    Deno.writeTextFileSync(script, program);
    const loader = loaderIn(stub);
    const flags = textIn(stub, /--v8-flags=[^\0]+/);
    makeDatabase(Deno.realPathSync(deno), flags, loader, directory);
    const database = join(directory, DATABASE);
    const compiled = compile(deno, script, flags, trained);
    if (!run(deno, ["-A", REPLACER, database, PROGRAM_URL, compiled, loader])) {
      throw new Error("cannot pack: Deno has not stored loader and program");
    }
    return Deno.readFileSync(database);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** Runs Deno and returns what it wrote, or undefined when it failed. */
function run(
  deno: string,
  args: string[],
  options: Deno.CommandOptions = {},
): Uint8Array | undefined {
  const { success, stdout } = new Deno.Command(deno, {
    args: ["run", "--quiet", "--no-config", "--no-lock", ...args],
    ...options,
    env: { DENO_NO_UPDATE_CHECK: "1", ...options.env },
  }).outputSync();
  return success ? stdout : undefined;
}

/** The module that stub.c gives to Deno, as Deno writes its URL. */
function loaderIn(stub: Uint8Array): string {
  return new URL(textIn(stub, /data:text\/javascript,[^\0]+/)).href;
}

/** An argument that stub.c gives to Deno. */
function textIn(stub: Uint8Array, pattern: RegExp): string {
  const found = pattern.exec(new TextDecoder("latin1").decode(stub));
  if (found === null) throw new Error(`cannot pack: the stub lacks ${pattern}`);
  return found[0];
}

/**
 * Lets Deno make its database, with the loader and the program in it: only
 * Deno knows the hashes by which it finds them again. It runs them, too, but
 * with no permission to do anything. Deno stores the loader when the program
 * first waits, so it may not exit before. With other flags than ckpt's, ckpt
 * would compile the loader at every start, and store it again (1 ms).
 */
function makeDatabase(
  deno: string,
  flags: string,
  loader: string,
  directory: string,
): void {
  const main = `Deno.exit=()=>{};await import(${JSON.stringify(loader)})`;
  run(deno, [
    flags,
    "--no-prompt",
    "--allow-env",
    "--allow-read=ckpt.js",
    `data:text/javascript,${encodeURIComponent(main)}`,
  ], {
    cwd: directory,
    env: { _CKPT_START: "ckpt.js 0 0", DENO_DIR: directory },
  });
}

/** Makes a file of V8's cached data for the functions of the script. */
function compile(
  deno: string,
  script: string,
  flags: string,
  trained: Uint8Array | undefined,
): string {
  const lazy = run(deno, ["-A", flags, COMPILER, script]);
  const all = trained ??
    run(deno, ["-A", "--v8-flags=--no-lazy", COMPILER, script]);
  if (lazy === undefined || all === undefined) {
    throw new Error("cannot pack: Deno did not compile the program");
  }
  // As far as V8 is concerned, the flags only say when to compile what.
  all.set(lazy.subarray(FLAGS.start, FLAGS.end), FLAGS.start);
  const data = `${script}.data`;
  Deno.writeFileSync(data, all);
  if (run(deno, ["-A", flags, COMPILER, script, data]) === undefined) {
    throw new Error("cannot pack: V8 does not take what it has compiled");
  }
  return data;
}
