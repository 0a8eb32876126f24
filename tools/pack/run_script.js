/**
 * Runs a script, once for each command line, and writes what V8 would cache of
 * it then: the functions that have run. Exit code 1 when a command fails.
 *
 * Usage: deno run -A --v8-flags=--no-flush-bytecode run_script.js FILE LIBRARY OUTPUT COMMAND...
 *
 * LIBRARY is the descriptor of libckpt.so, COMMAND a JSON array of arguments.
 * JavaScript, and no import: the types of node:vm are in a package that nothing
 * else needs.
 */
const { Script } = globalThis.process.getBuiltinModule("node:vm");

const { exit } = Deno;
const [file, library, output, ...commands] = Deno.args;
const script = new Script(Deno.readTextFileSync(file));
globalThis.ckptStart = { library, nofile: "1024" };
for (const command of commands) {
  const value = JSON.parse(command);
  Object.defineProperty(Deno, "args", { value, configurable: true });
  const code = await new Promise((end) => {
    Deno.exit = end;
    script.runInThisContext();
  });
  if (code !== 0) exit(1);
}
Deno.writeFileSync(output, script.createCachedData());
exit(0);
