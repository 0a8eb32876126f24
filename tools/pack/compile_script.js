/**
 * Compiles a script, and writes what V8 would cache of it to standard output.
 *
 * Usage: deno run -A [--v8-flags=--no-lazy] compile_script.js FILE [CACHED]
 *
 * With CACHED, a file with what an earlier run wrote, only tries whether V8
 * takes it: exit code 1 when not.
 *
 * JavaScript, and no import: the types of node:vm are in a package that nothing
 * else needs.
 */
const { Script } = globalThis.process.getBuiltinModule("node:vm");

const [file, cached] = Deno.args;
const source = Deno.readTextFileSync(file);
if (cached === undefined) {
  let rest = new Script(source).createCachedData();
  while (rest.length > 0) rest = rest.subarray(Deno.stdout.writeSync(rest));
} else {
  const cachedData = Deno.readFileSync(cached);
  const { cachedDataRejected } = new Script(source, { cachedData });
  Deno.exit(cachedDataRejected ? 1 : 0);
}
