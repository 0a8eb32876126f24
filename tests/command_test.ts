/** What the command line promises, end to end: waiting, signals, pid files, logs, stopping, statistics. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  CKPT,
  dump,
  restore,
  Scope,
  until,
} from "./harness.ts";
import { kill } from "./libc.ts";

const SIGKILL = 9;
const SIGUSR1 = 10;
const SIGUSR2 = 12;
const SIGTERM = 15;
const SIGSTOP = 19;
const SIGCONT = 18;

/** A restore that waits, as a child of the test, which lets it have all signals blocked as some daemons do. */
function waitingRestore(images: string, ...options: string[]) {
  return new Deno.Command("env", {
    args: ["--block-signal", CKPT, "restore", "-D", images, ...options],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

for (
  const [how, number, code] of [
    ["exit", "0", 0],
    ["exit", "7", 7],
    ["exit", "255", 255],
    ["signal", "15", 128 + 15],
    ["signal", "9", 128 + 9],
    ["signal", "11", 128 + 11],
  ] as const
) {
  Deno.test(`a restore that waits exits with ${code} when the program ends by ${how} ${number}`, async () => {
    await using scope = new Scope();
    const program = await scope.start("ends", how, number);
    const images = scope.path("images");
    await dump(scope, program, images);
    const waiting = waitingRestore(images);
    Deno.writeTextFileSync(`${program.work}/go`, "");
    const output = await waiting.output();
    assertEquals(
      output.code,
      code,
      new TextDecoder().decode(output.stderr),
    );
    assert(!program.exists());
  });
}

Deno.test("a restore that waits passes signals on to the program", async () => {
  await using scope = new Scope();
  const program = await scope.start("ends", "wait");
  const images = scope.path("images");
  await dump(scope, program, images);
  const waiting = waitingRestore(images);
  Deno.writeTextFileSync(`${program.work}/go`, "");
  await until("the program went on", () => {
    try {
      Deno.statSync(`${program.work}/went`);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return undefined;
      throw error;
    }
  });
  kill(waiting.pid, SIGUSR1);
  kill(waiting.pid, SIGUSR2);
  await until("the program has seen both", () => {
    const status = Deno.readTextFileSync(`/proc/${program.pid}/status`);
    return /^(SigPnd|ShdPnd):\t0*[1-9a-f]/m.test(status) ? undefined : true;
  });
  // signals of one kind merge while they wait, so the second is sent when the first has been handled
  await new Promise((done) => setTimeout(done, 100));
  kill(waiting.pid, SIGTERM);
  const output = await waiting.output();
  assertEquals(output.code, 43, new TextDecoder().decode(output.stderr));
});

Deno.test("a pid file holds the pid and is relative to the work directory", async () => {
  await using scope = new Scope();
  const program = await scope.start("ends", "exit", "0");
  const images = scope.path("images");
  await dump(scope, program, images);
  await restore(
    scope,
    program,
    images,
    "--pidfile",
    "the.pid",
    "-W",
    scope.path("other"),
  );
  assertEquals(
    Deno.readTextFileSync(`${scope.path("other")}/the.pid`).trim(),
    `${program.pid}`,
  );
});

Deno.test("the log exists whether the run succeeds or fails", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "vsock");
  const images = scope.path("images");
  const refused = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    images,
    "-o",
    "dump.log",
    "-v4",
  );
  assertEquals(refused.code, EXIT.refused);
  assertStringIncludes(
    Deno.readTextFileSync(`${images}/dump.log`),
    "descriptor",
  );
  const failed = await scope.ckpt(
    "restore",
    "-d",
    "-D",
    images,
    "-o",
    "restore.log",
  );
  assertEquals(failed.code, EXIT.image);
  assert(Deno.statSync(`${images}/restore.log`).size > 0);
});

Deno.test("a program left stopped stands still, unharmed, and goes on when told to", async () => {
  await using scope = new Scope();
  const program = await scope.start("mem_growth");
  const before = program.observe();
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt("dump", "-s", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  // The stop begins when ckpt lets go: it wakes for it, though not to run its own code.
  const stands = () =>
    until("the program stands still", () => {
      const status = Deno.readTextFileSync(`/proc/${program.pid}/status`);
      return /^State:\tT/m.test(status) ? true : undefined;
    });
  await stands();
  kill(program.pid, SIGCONT);
  assertUnchanged(before, program.observe(), "after it was told to go on");
  assertEquals(await program.verify(), "ok");
  program.forget();
  await restore(scope, program, images, "-s");
  await stands();
  kill(program.pid, SIGCONT);
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});

Deno.test("a program that a debugger traces is refused", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  // python makes the system call itself, for no debugger need be installed
  const tracer = new Deno.Command("/usr/bin/python3", {
    args: [
      "-c",
      `import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE = 0x4206
assert libc.ptrace(PTRACE_SEIZE, ${program.pid}, 0, 0) == 0
print("traced", flush=True)
time.sleep(60)`,
    ],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  scope.defer(async () => {
    kill(tracer.pid, SIGKILL);
    await tracer.stdout.cancel();
    await tracer.status;
  });
  await until("the program is traced", () => {
    const status = Deno.readTextFileSync(`/proc/${program.pid}/status`);
    return /^TracerPid:\t[1-9]/m.test(status) ? true : undefined;
  });
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertStringIncludes(answer.stderr, `traced by task ${tracer.pid}`);
});

Deno.test("a program stopped by a signal is refused or stays stopped", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  const images = scope.path("images");
  const state = () =>
    /^State:\t(.)/m.exec(
      Deno.readTextFileSync(`/proc/${program.pid}/status`),
    )?.[1];
  kill(program.pid, SIGSTOP);
  await until("it is stopped", () => state() === "T" ? true : undefined);
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    images,
  );
  if (answer.code !== EXIT.refused) {
    assertEquals(answer.code, EXIT.ok, answer.stderr);
    await program.ended();
    await restore(scope, program, images);
  }
  assertEquals(state(), "T");
  kill(program.pid, SIGCONT);
  assertEquals(await program.verify(), "ok");
});

Deno.test("dump and restore write their statistics", async () => {
  await using scope = new Scope();
  const program = await scope.start("ends", "exit", "0");
  const images = scope.path("images");
  await dump(scope, program, images);
  assert(Deno.statSync(`${images}/stats-dump`).size > 0);
  await restore(scope, program, images);
  assert(Deno.statSync(`${images}/stats-restore`).size > 0);
});

Deno.test("ckpt needs neither its place nor many descriptors for a dump and a restore", async () => {
  await using scope = new Scope();
  const program = await scope.start("threads");
  const before = program.observe();
  const images = scope.path("images");
  const copy = `${scope.directory}/a copy`;
  Deno.copyFileSync(CKPT, copy);
  const poor = (...args: string[]) =>
    scope.bash(
      `cd / && ulimit -Sn 64 && exec env -i "$0" "$@"`,
      copy,
      ...args,
    );
  assertSuccess(
    await poor("dump", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  await program.ended();
  assertSuccess(await poor("restore", "-d", "-D", images), "restore");
  program.restored();
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});

for (const name of ["sched", "tree_sessions", "mem_private", "fd_contents"]) {
  Deno.test(`${name}: what ckpt was started with, and is bound to, is no measure for the program`, async () => {
    await using scope = new Scope();
    const program = await scope.start(name);
    const bound = async (...args: string[]) => {
      const script = `trap "" HUP CHLD PIPE; umask 077; ` +
        `ulimit -S -s 1024 -d 1000000 -f 1 -l 0 -i 1 -q 0; ` +
        `exec nice -n 19 ionice -c 3 taskset -c 0 setarch -R "$0" "$@"`;
      assertSuccess(await scope.bash(script, CKPT, ...args), args[0]);
    };
    const before = program.observe();
    for (const images of [scope.path("first"), scope.path("second")]) {
      await bound("dump", "-t", `${program.pid}`, "-D", images);
      await scope.gone();
      await bound("restore", "-d", "-D", images);
      program.restored();
      assertUnchanged(before, program.observe(), "after the restore");
    }
    assertEquals(await program.verify(), "ok");
  });
}
