/** Programs that nobody wrote for these tests: python3 with threads, bash, SQLite in the middle of a transaction. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  dump,
  Files,
  type Program,
  restore,
  Scope,
} from "./harness.ts";

const SCRIPTS = new URL("programs/", import.meta.url).pathname;

/** Name of the test: interpreter, script, and what the script gets besides its directory. */
const PROGRAMS: Record<string, [string, string, ...string[]]> = {
  "python3 with threads": ["/usr/bin/python3", "counter.py"],
  "bash": ["/bin/bash", "loop.sh"],
  "sqlite3 in a transaction": [
    "/usr/bin/python3",
    "transaction.py",
    "unix-dotfile",
  ],
};

async function start(scope: Scope, name: string): Promise<Program> {
  const [command, script, ...args] = PROGRAMS[name];
  const work = scope.path("work");
  const program = await scope.startCommand(work, command, [
    `${SCRIPTS}${script}`,
    work,
    ...args,
  ]);
  await program.ready();
  return program;
}

for (const name of Object.keys(PROGRAMS)) {
  Deno.test(`${name} verifies without a checkpoint`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name} goes on after a dump and a restore`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    const files = program.observe();
    await dump(scope, program, scope.path("images"));
    await restore(scope, program, scope.path("images"));
    assertEquals(
      [...program.observe().keys()].sort(),
      [...files.keys()].sort(),
      "threads and descriptors",
    );
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`${name} is left running, and a copy of it goes on from the images`, async () => {
    await using scope = new Scope();
    const program = await start(scope, name);
    const images = scope.path("images");
    const files = new Files(program.work);
    assertSuccess(
      await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
      "dump",
    );
    assertEquals(await program.verify(), "ok");
    program.forget();
    files.putBack();
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
  });
}

Deno.test("sqlite3 with record locks is refused in a transaction, and commits it", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const program = await scope.startCommand(work, "/usr/bin/python3", [
    `${SCRIPTS}transaction.py`,
    work,
    "unix",
  ]);
  await program.ready();
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(answer.stderr, /lock/);
  assertEquals(await program.verify(), "ok");
});
