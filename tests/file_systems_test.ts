/** --watch-fs and --freeze-fs: image and file systems are of one moment. On real file systems in loop devices. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { dump, type Program, restore, Scope, sleep, until } from "./harness.ts";
import { kill } from "./libc.ts";
import { startIn } from "./mounts.ts";

const SIGSTOP = 19;
const SIGCONT = 18;
const SIGKILL = 9;

const MAKE: Record<string, string> = {
  ext4: "truncate -s 64M disk; mkfs.ext4 -q disk",
  xfs: "truncate -s 320M disk; mkfs.xfs -q disk",
  btrfs: "truncate -s 128M disk; mkfs.btrfs -q disk > mkfs.log 2>&1",
};

/** A program with descriptor 3 on a file of a file system of its own, on m. */
async function startOn(scope: Scope, type: string): Promise<Program> {
  const work = scope.path("work");
  await scope.unshareMounts(
    `cd ${work}; mkdir m; ${
      type === "tmpfs"
        ? "mount -t tmpfs none m"
        : `${MAKE[type]}; mount -o loop disk m`
    }`,
  );
  const program = await scope.startCommand(work, "/bin/bash", [
    "-c",
    "exec </dev/null >/dev/null 2>&1 3<>m/file 4>m/gone; rm m/gone; " +
    "echo > ready; exec sleep 1000",
  ]);
  await program.ready();
  return program;
}

/**
 * A program in a mount namespace of its own, with descriptor 3 on a file system at /srv and 5 on one in memory.
 *
 * @param isAlone whether the outside has the file system, too
 * @returns it, and the options that its mounts need
 */
async function startInside(
  scope: Scope,
  isAlone: boolean,
): Promise<
  { program: Program; dumping: string[]; restoring: string[] }
> {
  const disk = scope.path("disk");
  await scope.unshareMounts(
    `cd ${disk}; mkdir m; ${MAKE.ext4}; losetup --find --show disk > loop` +
      (isAlone ? "" : "; mount $(cat loop) m"),
  );
  const loop = Deno.readTextFileSync(`${disk}/loop`).trim();
  scope.defer(async () => {
    await scope.run("losetup", ["-d", loop]);
  });
  const program = await startIn(
    scope,
    {
      before: `${
        isAlone ? `mount ${loop}` : `mount --bind ${disk}/m`
      } srv; mount -t tmpfs none mnt
        exec </dev/null >/dev/null 2>&1 3<>srv/file 4>srv/gone 5>mnt/file; rm srv/gone`,
      propagation: "private",
    },
    "identity",
  );
  const [, device] = Deno.readTextFileSync(`/proc/${program.pid}/mountinfo`)
    .match(/ (7:\d+) \/ \/srv /)!;
  const external = (option: string) => ["--external", option];
  return {
    program,
    dumping: external(
      isAlone ? `dev[${device.replace(":", "/")}]:disk` : "mnt[/srv]:disk",
    ),
    restoring: external(isAlone ? `dev[disk]:${loop}` : `mnt[disk]:${disk}/m`),
  };
}

for (const isAlone of [false, true]) {
  Deno.test(`a file system of a mount namespace ${isAlone ? "alone" : "and of the outside"} is frozen and watched`, async () => {
    await using scope = new Scope();
    const { program, dumping, restoring } = await startInside(scope, isAlone);
    const images = scope.path("images");
    const first = await scope.ckpt(
      ...dumpArguments(program, images),
      ...["-R", "--freeze-fs", "--watch-fs", "-v3", ...dumping],
    );
    assertEquals(first.code, EXIT.ok, first.stderr);
    assertMatch(first.stderr, /froze \/srv in [\d.]+ ms/);
    const root = `/proc/${program.pid}/root`;
    const writer = await scope.startCommand(scope.path("writer"), "/bin/bash", [
      "-c",
      `echo > ready; while :; do echo x > ${root}/srv/file; echo x >> ${root}/mnt/file; done`,
    ]);
    await writer.ready();
    const written = `test -s ${root}/srv/file`;
    await until(
      "it has written",
      async () => (await scope.bash(written)).code === 0 ? true : undefined,
    );
    const failed = await scope.ckpt(
      ...dumpArguments(program, images),
      ...["-R", "--watch-fs", "--replace", ...dumping],
    );
    assertEquals(failed.code, EXIT.failed, failed.stderr);
    assertMatch(
      failed.stderr,
      new RegExp(
        `file /srv/file: it was modified by task ${writer.pid} \\(bash\\)`,
      ),
    );
    // What is in the image itself may be what it wants.
    assertEquals(failed.stderr.includes("/mnt/file"), false, failed.stderr);
    await writer.kill();
    const onIt = await scope.ckpt(
      ...dumpArguments(program, `${root}/srv/images`),
      ...["--freeze-fs", ...dumping],
    );
    assertEquals(onIt.code, EXIT.refused, onIt.stderr);
    assertMatch(
      onIt.stderr,
      /the file system of \/srv\/file \(ext4 on \/srv\): the images directory \(\S+\) is on it/,
    );
    const last = await scope.ckpt(
      ...dumpArguments(program, images),
      ...["--freeze-fs", "--watch-fs", "--replace", ...dumping],
    );
    assertEquals(last.code, EXIT.ok, last.stderr);
    await program.ended();
    await restore(scope, program, images, ...restoring);
    assertEquals(await program.verify(), "ok");
  });
}

function dumpArguments(program: Program, images: string): string[] {
  return ["dump", "-t", `${program.pid}`, "-D", images];
}

for (const type of ["ext4", "xfs", "btrfs"]) {
  Deno.test(`${type} is frozen for a dump, and thawed again`, async () => {
    await using scope = new Scope();
    const program = await startOn(scope, type);
    const images = scope.path("images");
    for (const more of [["-R"], []]) {
      const answer = await scope.ckpt(
        ...dumpArguments(program, images),
        ...["--freeze-fs", "--watch-fs", "--replace", "-v3", ...more],
      );
      assertEquals(answer.code, EXIT.ok, answer.stderr);
      assertMatch(answer.stderr, /froze \S+\/work\/m in [\d.]+ ms/);
      const write = await scope.bash(`echo more >> ${program.work}/m/other`);
      assertEquals(write.code, 0, write.stderr);
    }
    await program.ended();
    await restore(scope, program, images);
  });
}

/** Whether the file system on m is frozen; nothing is changed by asking. */
async function isFrozen(scope: Scope, program: Program): Promise<boolean> {
  const { stderr, code } = await scope.bash(
    `fsfreeze --freeze ${program.work}/m && fsfreeze --unfreeze ${program.work}/m`,
  );
  if (code !== 0) assertMatch(stderr, /busy/);
  return code !== 0;
}

/** A ckpt that is stopped by SIGSTOP while it has the file system frozen. */
async function stopWhileFrozen(
  scope: Scope,
  program: Program,
  option: string,
): Promise<Deno.ChildProcess> {
  const log = `${scope.directory}/ckpt.log`;
  for (let i = 0; i < 100; i++) {
    Deno.writeTextFileSync(log, "");
    const ckpt = scope.spawnCkpt(
      ...dumpArguments(program, scope.path("images")),
      ...["-R", "--replace", option, "-v3", "-o", log],
    );
    let ended = false;
    const status = ckpt.status.then(() => ended = true);
    while (!ended && !Deno.readTextFileSync(log).includes("froze")) {
      await sleep(0);
    }
    if (ended) continue;
    kill(ckpt.pid, SIGSTOP);
    await until("it is stopped", () => {
      const state = ended ? "ended" : /^State:\s+(\w)/m.exec(
        Deno.readTextFileSync(`/proc/${ckpt.pid}/status`),
      )?.[1];
      return state === "T" || state === "ended" ? true : undefined;
    });
    if (!ended && await isFrozen(scope, program)) return ckpt;
    kill(ckpt.pid, SIGCONT);
    await status;
  }
  throw new Error("no ckpt was caught while the file system was frozen");
}

Deno.test("a file system is thawed when ckpt is killed by SIGKILL", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "ext4");
  const ckpt = await stopWhileFrozen(scope, program, "--freeze-fs=3600");
  kill(ckpt.pid, SIGKILL);
  await ckpt.status;
  const write = await scope.bash(`echo more > ${program.work}/m/other`);
  assertEquals(write.code, 0, write.stderr);
  assertEquals(await isFrozen(scope, program), false);
  await dump(scope, program, scope.path("later"), "--freeze-fs");
  await restore(scope, program, scope.path("later"));
});

Deno.test("a file system is thawed after the time that was given, and the dump fails", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "ext4");
  const ckpt = await stopWhileFrozen(scope, program, "--freeze-fs=1");
  // Blocks until it is thawed.
  const write = await scope.bash(`echo more > ${program.work}/m/other`);
  assertEquals(write.code, 0, write.stderr);
  kill(ckpt.pid, SIGCONT);
  assertEquals((await ckpt.status).code, EXIT.failed);
  assertMatch(
    Deno.readTextFileSync(`${scope.directory}/ckpt.log`),
    /work\/m: it was thawed before the dump was complete/,
  );
  assertEquals(program.exists(), true);
});

Deno.test("a file system that cannot be frozen, or that ckpt writes to, is refused before anything is stopped", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "ext4");
  const inside = await scope.ckpt(
    ...dumpArguments(program, `${program.work}/m/images`),
    "--freeze-fs",
  );
  assertEquals(inside.code, EXIT.refused, inside.stderr);
  assertMatch(
    inside.stderr,
    /the file system of \S+\/m\/file \(ext4 on \S+\/m\): the images directory \(\S+\) is on it/,
  );
  const log = await scope.ckpt(
    ...dumpArguments(program, scope.path("images")),
    ...["--freeze-fs", "-o", `${program.work}/m/log`],
  );
  assertEquals(log.code, EXIT.refused, log.stderr);
  assertMatch(
    log.stderr,
    /a file that ckpt writes to \(\S+\/m\/log\) is on it/,
  );
  const dry = await scope.ckpt(
    ...dumpArguments(program, `${program.work}/m/images`),
    ...["--freeze-fs", "--dry-run"],
  );
  assertEquals(dry.code, EXIT.refused, dry.stderr);
  assertMatch(dry.stdout, /the images directory \(\S+\) is on it/);
});

Deno.test("a tmpfs cannot be frozen", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "tmpfs");
  const answer = await scope.ckpt(
    ...dumpArguments(program, scope.path("images")),
    "--freeze-fs",
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(answer.stderr, /tmpfs cannot be frozen/);
});

Deno.test("a file system that somebody else has frozen stays so", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "ext4");
  const m = `${program.work}/m`;
  assertEquals((await scope.bash(`fsfreeze --freeze ${m}`)).code, 0);
  try {
    const answer = await scope.ckpt(
      ...dumpArguments(program, scope.path("images")),
      "--freeze-fs",
    );
    assertEquals(answer.code, EXIT.failed, answer.stderr);
    assertMatch(
      answer.stderr,
      /\/m: somebody else has frozen it\n +-> let it go first: fsfreeze --unfreeze/,
    );
    assertEquals(await isFrozen(scope, program), true);
  } finally {
    await scope.bash(`fsfreeze --unfreeze ${m}`);
  }
  assertEquals(program.exists(), true);
});

Deno.test("a program that waits in the kernel and cannot be stopped fails a dump after --timeout, and goes on", async () => {
  await using scope = new Scope();
  const program = await startOn(scope, "ext4");
  const m = `${program.work}/m`;
  // a second process of the tree writes to the frozen file system, the first one sleeps
  const writing = await scope.startCommand(program.work, "/bin/bash", [
    "-c",
    "exec </dev/null >/dev/null 2>&1; until [ -e go ]; do sleep 0.01; done; " +
    "(echo more > m/file; echo done > result) & wait",
  ]);
  assertEquals((await scope.bash(`fsfreeze --freeze ${m}`)).code, 0);
  try {
    Deno.writeTextFileSync(`${program.work}/go`, "");
    const [, writer] = await until("it waits in the kernel", () => {
      const tree = writing.tree();
      const state = (pid: number) =>
        /^State:\t(.)/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1];
      return tree.length === 2 && state(tree[1]) === "D" ? tree : undefined;
    });
    const answer = await scope.ckpt(
      ...dumpArguments(writing, scope.path("images")),
      ...["--timeout", "1"],
    );
    assertEquals(answer.code, EXIT.interrupted, answer.stderr);
    assertMatch(
      answer.stderr,
      new RegExp(`task ${writer}: .*\n? +-> .*--timeout gives it more time`),
    );
  } finally {
    await scope.bash(`fsfreeze --unfreeze ${m}`);
  }
  assertMatch(await writing.verify(), /^done\n/);
});

for (const type of ["ext4", "btrfs", "tmpfs"]) {
  Deno.test(`a file of ${type} that another task writes to fails a dump with --watch-fs`, async () => {
    await using scope = new Scope();
    const program = await startOn(scope, type);
    const images = scope.path("images");
    const dumping = dumpArguments(program, images);
    const quiet = await scope.ckpt(...dumping, "-R", "--watch-fs");
    assertEquals(quiet.code, EXIT.ok, quiet.stderr);
    const writer = await scope.startCommand(scope.path("writer"), "/bin/bash", [
      "-c",
      `echo > ready; while :; do echo x > ${program.work}/m/file; done`,
    ]);
    await writer.ready();
    const written = `test -s ${program.work}/m/file`;
    await until(
      "it has written",
      async () => (await scope.bash(written)).code === 0 ? true : undefined,
    );
    const before = program.observe();
    for (const more of [["-R"], []]) {
      const failed = await scope.ckpt(
        ...dumping,
        ...["--replace", "--watch-fs"],
        ...more,
      );
      assertEquals(failed.code, EXIT.failed, failed.stderr);
      assertMatch(
        failed.stderr,
        new RegExp(
          `^ckpt dump: .*: file \\S+/m/file: it was modified by task ${writer.pid} ` +
            "\\(bash\\) during the dump, so the image would not fit it\\n +-> dump again",
        ),
      );
      assertEquals(program.observe(), before);
    }
    const told = await scope.ckpt(
      ...dumping,
      ...["--replace", "--watch-fs=report"],
    );
    assertEquals(told.code, EXIT.ok, told.stderr);
    assertMatch(told.stderr, /m\/file: it was modified by task/);
    await program.ended();
    await writer.kill();
    await restore(scope, program, images, "--file-validation", "none");
  });
}
