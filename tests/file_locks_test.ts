/** File locks: record locks, those of open files, flocks, leases, and who waits for them. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  compile,
  dump,
  LONG,
  type Program,
  restore,
  Scope,
  until,
} from "./harness.ts";
import { survives } from "./state.ts";

survives("file_locks", "locks of every kind");
survives("mapped_flocks", "locks of files that are only mapped");
survives("tree_locks", "locks across processes, and waiting for them");
for (let seed = 1; seed <= (LONG ? 40 : 4); seed++) {
  survives("random_locks", "random locks of several processes", {
    args: [`${seed}`],
  });
}

// Whoever reads a file breaks a lease to write it: so its content cannot be put back by a test.
Deno.test("file_leases: leases survive two dumps and restores, and tell when they are broken", async () => {
  await using scope = new Scope();
  const program = await scope.start("file_leases");
  const before = program.observe();
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertUnchanged(before, program.observe(), "after the second restore");
  assertEquals(await program.verify(), "ok");
});

/** Starts a shell whose descriptor 9 has the file `lock` locked by flock(1). */
async function startLocked(scope: Scope): Promise<Program> {
  const work = scope.path("work");
  const program = await scope.startCommand(work, "bash", [
    "-c",
    `exec 9>lock; flock 9; mkfifo clock; exec 8<>clock; echo $$ >ready
     until [[ -e go ]]; do read -rt 0.01 -u 8; done
     flock -n lock true && echo "the lock is lost" >result || echo ok >result`,
  ]);
  await program.ready();
  return program;
}

Deno.test("a shell keeps the lock that flock(1) took for it; a lock taken meanwhile is an error that names the holder", async () => {
  await using scope = new Scope();
  const program = await startLocked(scope);
  const images = scope.path("images");
  await dump(scope, program, images);
  const other = await scope.startCommand(scope.path("other"), "flock", [
    `${program.work}/lock`,
    "sh",
    "-c",
    "echo $$ >ready; exec sleep 1000",
  ]);
  await until("the lock is taken", async () => {
    const free = await scope.bash('flock -n "$0" true', `${program.work}/lock`);
    return free.code === 0 ? undefined : true;
  });
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertStringIncludes(answer.stderr, `${program.work}/lock`);
  assertMatch(answer.stderr, new RegExp(`task ${other.pid} \\(flock\\)`));
  assertMatch(answer.stderr, /an exclusive flock/);
  await other.kill();
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a lock of an open file that the outside has, too, needs --file-locks", async () => {
  await using scope = new Scope();
  const work = scope.path("work");
  const outside = scope.path("outside");
  // the shell that locks the file stays, as the parent of the program
  const shell = await scope.startCommand(outside, "bash", [
    "-c",
    `exec 9>lock; flock 9
     setsid "$0" "$1" exit 0 </dev/null >/dev/null 2>&1 &
     echo $$ >ready; wait; exec sleep 1000`,
    await compile("ends"),
    work,
  ]);
  await shell.ready();
  await until("the program is ready", () => {
    try {
      return Deno.readTextFileSync(`${work}/ready`) || undefined;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  });
  const program = scope.adopt(work);
  const images = scope.path("images");
  const dumped = (...args: string[]) =>
    scope.ckpt("dump", "-t", `${program.pid}`, "-D", images, ...args);
  const refused = await dumped();
  assertEquals(refused.code, EXIT.refused);
  assertMatch(
    refused.stderr,
    new RegExp(`task ${shell.pid} \\(bash\\) outside.*descriptor 9`),
  );
  assertStringIncludes(refused.stderr, "--file-locks");
  assertSuccess(await dumped("--file-locks"), "dump");
  const answer = await scope.ckpt("restore", "-l", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  await shell.kill();
  await scope.gone();
  assertSuccess(
    await scope.ckpt("restore", "-l", "-d", "-D", images),
    "restore",
  );
  const free = await scope.bash('flock -n "$0" true', `${outside}/lock`);
  assertEquals(free.code, 1, "the lock is lost");
});
