/**
 * System V segments that come back: with the tree, without it, and where something is in the way; and semaphores that
 * processes hold.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  LONG,
  type Program,
  restore,
  run,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { kill } from "./libc.ts";
import { startIn } from "./mounts.ts";
import { survives } from "./state.ts";

survives("sysv_parts", "parts of a System V segment");
survives("sysv_parts", "parts of a System V segment that is to go", {
  args: ["doomed"],
});

const SIGKILL = 9;

/** Lines of `ipcs -m` by id, without the segments of others. */
function segments(key: number, id: string): string[] {
  return Deno.readTextFileSync("/proc/sysvipc/shm").trim().split("\n").slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => Number(fields[0]) === key || fields[1] === id)
    .map(([key, id, mode, size]) => `${key} ${id} ${mode} ${size}`);
}

/** Starts the program; its segment is removed with the scope, whoever has made it. */
async function start(scope: Scope, ...args: string[]) {
  const program = await scope.start("sysv_parts", ...args);
  const [id, key] = Deno.readTextFileSync(`${program.work}/segment`).trim()
    .split(" ");
  scope.defer(async () => {
    await program.kill();
    await run("ipcrm", ["-m", id]);
  });
  return { program, id, key: Number(key) };
}

async function remove(id: string): Promise<void> {
  assertSuccess(await run("ipcrm", ["-m", id]), "ipcrm");
}

/** Makes a segment of the test's own; returns its id. */
async function make(
  scope: Scope,
  key: number,
  size: number,
  id = -1,
): Promise<string> {
  const made = await run("python3", [
    "-c",
    `import ctypes
libc = ctypes.CDLL(None)
if ${id} >= 0: open('/proc/sys/kernel/shm_next_id', 'w').write('${id}')
print(libc.shmget(${key}, ${size}, 0o1600))`,
  ]);
  assertSuccess(made, "shmget");
  const got = made.stdout.trim();
  scope.defer(async () => void await run("ipcrm", ["-m", got]));
  return got;
}

Deno.test("a segment that was removed since the dump is made again: id, key, owner, creator and content", async () => {
  await using scope = new Scope();
  const { program, id, key } = await start(scope);
  const before = program.observe();
  const present = segments(key, id);
  await dump(scope, program, scope.path("images"));
  await remove(id);
  assertEquals(segments(key, id), []);
  await restore(scope, program, scope.path("images"));
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(segments(key, id), present);
  assertEquals(await program.verify(), "ok");
});

async function refused(
  scope: Scope,
  images: string,
): Promise<string> {
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  return answer.stderr;
}

Deno.test("a key that another segment has is refused, with what to do", async () => {
  await using scope = new Scope();
  const { program, id, key } = await start(scope);
  const images = scope.path("images");
  await dump(scope, program, images);
  await remove(id);
  const holder = await make(scope, key, 100);
  const present = segments(key, id);
  const message = await refused(scope, images);
  assertMatch(message, new RegExp(`segment ${id}\\b`));
  assertMatch(message, new RegExp(`taken by segment ${holder}\\b`));
  assertMatch(message, new RegExp(`ipcrm -m ${holder}\\b`));
  assertEquals(program.exists(), false);
  assertEquals(segments(key, id), present);
  await remove(holder);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("the key that a doomed segment has lost may be taken", async () => {
  await using scope = new Scope();
  const { program, id, key } = await start(scope, "doomed");
  const images = scope.path("images");
  await dump(scope, program, images);
  await make(scope, key, 100);
  await restore(scope, program, images);
  assertEquals(segments(key, id).length, 2);
  assertEquals(await program.verify(), "ok");
});

Deno.test("another segment with the id is refused, and its place in the table is told when that is taken", async () => {
  await using scope = new Scope();
  const { program, id, key } = await start(scope);
  const images = scope.path("images");
  await dump(scope, program, images);
  await remove(id);
  assertEquals(await make(scope, 0, 100, Number(id)), id);
  assertMatch(await refused(scope, images), new RegExp(`ipcrm -m ${id}\\b`));
  await remove(id);
  const TABLE = 32768;
  const sameplace = (Number(id) + 3 * TABLE) % 2 ** 31;
  assertEquals(await make(scope, 0, 100, sameplace), `${sameplace}`);
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.failed, answer.stderr);
  assertMatch(answer.stderr, /its place in the table/);
  assertEquals(program.exists(), false);
  assertEquals(segments(key, id), []);
  await remove(`${sameplace}`);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

for (const kind of [[], ["doomed"]]) {
  Deno.test(`a restore that fails leaves no segment: ${kind}`, async () => {
    await using scope = new Scope();
    const { program, id, key } = await start(scope, ...kind);
    const images = scope.path("images");
    await dump(scope, program, images);
    if (kind.length === 0) await remove(id);
    const answer = await scope.ckpt(
      "restore",
      "-d",
      "-D",
      images,
      "--pidfile",
      `${scope.directory}/nowhere/pid`,
    );
    assertEquals(answer.code, EXIT.failed, answer.stderr);
    await scope.gone();
    assertEquals(segments(key, id), []);
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
  });
}

/** Kills a restore after some time; true when it had not ended. */
async function killed(scope: Scope, program: Program, delay: number) {
  const restoring = scope.spawnCkpt(
    "restore",
    "-d",
    "-D",
    scope.path("images"),
  );
  await sleep(delay);
  kill(restoring.pid, SIGKILL);
  const { signal } = await restoring.status;
  program.restored();
  await program.kill();
  await scope.gone();
  return signal === "SIGKILL";
}

for (const kind of [[], ["doomed"]]) {
  Deno.test(`what a killed restore leaves of a segment does not hinder the next: ${kind}`, async () => {
    await using scope = new Scope();
    const { program, id, key } = await start(scope, ...kind);
    const images = scope.path("images");
    const present = segments(key, id);
    await dump(scope, program, images);
    if (kind.length === 0) await remove(id);
    const begin = performance.now();
    await restore(scope, program, images);
    const whole = performance.now() - begin;
    await program.kill();
    let kills = 0;
    let left = 0;
    for (let i = 0; i < (LONG ? 200 : 30); i++) {
      // it was complete, and is no leftover
      const [line] = segments(key, id);
      if (line !== undefined && line.split(" ")[2] !== "0") await remove(id);
      const delay = whole * (0.2 + 0.8 * Math.random());
      if (await killed(scope, program, delay)) kills++;
      if (segments(key, id).length > 0) left++;
      if (kind.length === 0) continue;
      // An agent may still be ending that has the program's name by now.
      await until(
        "the segment has gone with its last user",
        () => segments(key, id).length === 0 || undefined,
      );
    }
    assert(kills > 5, `${kills} restores were killed, ${left} left a segment`);
    const [line] = segments(key, id);
    if (line !== undefined && line.split(" ")[2] !== "0") await remove(id);
    await restore(scope, program, images);
    assertEquals(segments(key, id), present);
    assertEquals(await program.verify(), "ok");
  });
}

/** Starts it; its set of semaphores is removed with the scope. */
async function startHolders(
  scope: Scope,
  started: Promise<Program> = scope.start("sem_undo"),
) {
  const program = await started;
  const set = Deno.readTextFileSync(`${program.work}/set`).trim();
  scope.defer(async () => {
    await program.kill();
    await run("ipcrm", ["-s", set]);
  });
  return { program, set };
}

Deno.test("semaphores that processes hold (SEM_UNDO) survive a dump and a restore, twice", async () => {
  await using scope = new Scope();
  const { program } = await startHolders(scope);
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("semaphores that processes in a mount namespace of their own hold survive a dump and a restore", async () => {
  await using scope = new Scope();
  const { program } = await startHolders(scope, startIn(scope, "", "sem_undo"));
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertEquals(await program.verify(), "ok");
});

Deno.test("semaphores that processes hold (SEM_UNDO) are as before in a program left running", async () => {
  await using scope = new Scope();
  const { program } = await startHolders(scope);
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  assertEquals(await program.verify(), "ok");
});

Deno.test("a semaphore that somebody else has taken meanwhile, and a set that is gone, are refused by name", async () => {
  await using scope = new Scope();
  const { program, set } = await startHolders(scope);
  const images = scope.path("images");
  await dump(scope, program, images);
  const change = async (by: number) => {
    const call =
      `ctypes.CDLL(None).semop(${set}, struct.pack('hhh', 2, ${by}, 0o4000), 1)`;
    const script = `import ctypes, struct, sys; sys.exit(${call})`;
    assertSuccess(await run("python3", ["-c", script]), "semop");
  };
  await change(-1);
  assertMatch(
    await refused(scope, images),
    new RegExp(`semaphore 2 of System V set ${set}: .*value is 19999`),
  );
  await change(1);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
  // The program has removed it at its end.
  assertMatch(
    await refused(scope, images),
    new RegExp(`System V semaphore set ${set}: .*no such set`),
  );
});
