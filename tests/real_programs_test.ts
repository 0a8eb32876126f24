/**
 * Programs that nobody wrote for these tests: python3 with threads and with a pool of processes, bash with jobs and in
 * a pipeline, make, SQLite in the middle of a transaction.
 */
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
  "bash with background and stopped jobs": ["/bin/bash", "jobs.sh"],
  "a bash pipeline in the middle of its work": ["/bin/bash", "pipeline.sh"],
  "a python3 pool of processes in the middle of its work": [
    "/usr/bin/python3",
    "pool.py",
  ],
  "make -j4 in the middle of a build": ["/bin/bash", "build.sh"],
};

/** Programs whose processes and files come and go: they are not compared, and a copy would not find its files. */
const CHANGING = /jobs|pipeline|make/;

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
    await scope.gone();
    await restore(scope, program, scope.path("images"));
    if (!CHANGING.test(name)) {
      assertEquals(
        [...program.observe().keys()].sort(),
        [...files.keys()].sort(),
        "threads and descriptors",
      );
    }
    assertEquals(await program.verify(), "ok");
  });

  if (CHANGING.test(name)) {
    Deno.test(`${name} is left running by five dumps`, async () => {
      await using scope = new Scope();
      const program = await start(scope, name);
      for (let i = 0; i < 5; i++) {
        const images = scope.path(`images-${i}`);
        assertSuccess(
          await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
          "dump",
        );
      }
      assertEquals(await program.verify(), "ok");
    });
    continue;
  }

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
    await scope.gone();
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
