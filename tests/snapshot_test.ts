/** --snapshot and --from-snapshot: the files of a program, as they were when it stood still. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { dump, type Program, restore, Scope, until } from "./harness.ts";
import { kill } from "./libc.ts";
import { startIn } from "./mounts.ts";

/** A program with descriptor 3 on a file in a subvolume of btrfs, m/data; the images are on m, too. */
async function startOnBtrfs(scope: Scope): Promise<Program> {
  const work = scope.path("work");
  await scope.unshareMounts(
    `cd ${work}; mkdir m; truncate -s 128M disk; mkfs.btrfs -q disk > mkfs.log 2>&1; ` +
      "mount -o loop disk m; btrfs -q subvolume create m/data 2> mkfs.log >&2",
  );
  const program = await scope.startCommand(work, "/bin/bash", [
    "-c",
    "exec </dev/null >/dev/null 2>&1 3>>m/data/file; echo before >&3; " +
    "echo > ready; exec sleep 1000",
  ]);
  await program.ready();
  return program;
}

async function content(scope: Scope, path: string): Promise<string> {
  return (await scope.bash(`cat ${scope.path("work")}/m/${path}`)).stdout;
}

async function names(scope: Scope): Promise<string[]> {
  const { stdout } = await scope.bash(`ls -A ${scope.path("work")}/m`);
  return stdout.trim().split("\n").sort();
}

Deno.test("files are put back as they were when the program stood still, and nothing is lost", async () => {
  await using scope = new Scope();
  const program = await startOnBtrfs(scope);
  const images = scope.path("images");
  await dump(scope, program, images, "--snapshot", "btrfs");
  assertEquals(await names(scope), ["data", "data.ckpt-snapshot.1"]);
  const m = `${program.work}/m`;
  assertEquals((await scope.bash(`echo after > ${m}/data/file`)).code, 0);
  for (const former of ["after\n", "before\nmore\n"]) {
    await restore(scope, program, images, "--from-snapshot");
    assertEquals(await content(scope, "data/file"), "before\n");
    const last = (await names(scope)).findLast((name) =>
      /^data\.before-restore\.\d$/.test(name)
    );
    assertEquals(await content(scope, `${last}/file`), former);
    const write = await scope.bash(`echo more >> /proc/${program.pid}/fd/3`);
    assertEquals(write.code, 0, write.stderr);
    assertEquals(await content(scope, "data/file"), "before\nmore\n");
    await program.kill();
  }
  const shown = await scope.ckpt("show", images);
  assertMatch(
    shown.stdout,
    /\nsnapshot of (\S+\/data) until ckpt clean: \1\.ckpt-snapshot\.1\n/,
  );
  const cleaned = await scope.ckpt("clean", images);
  assertMatch(cleaned.stdout, /^removed \S+\/data\.ckpt-snapshot\.1\n$/);
  assertEquals(await names(scope), [
    "data",
    "data.before-restore.1",
    "data.before-restore.2",
  ]);
  const gone = await scope.ckpt("restore", "-D", images, "--from-snapshot");
  assertEquals(gone.code, EXIT.refused, gone.stderr);
  assertMatch(gone.stderr, /snapshot \S+\.1: it is not there any more/);
});

Deno.test("a restore that fails puts the files back that were there", async () => {
  await using scope = new Scope();
  const program = await startOnBtrfs(scope);
  const images = scope.path("images");
  await dump(scope, program, images, "--snapshot", "btrfs");
  const m = `${program.work}/m`;
  await scope.bash(`echo after > ${m}/data/file`);
  const failed = await scope.ckpt(
    ...["restore", "-d", "-D", images, "--from-snapshot"],
    ...["--pidfile", "/not/there"],
  );
  assertEquals(failed.code, EXIT.failed, failed.stderr);
  assertEquals(await content(scope, "data/file"), "after\n");
  assertEquals(await names(scope), ["data", "data.ckpt-snapshot.1"]);
  await scope.gone();

  await scope.bash(`mount --bind ${m}/data ${m}/data`);
  const mounted = await scope.ckpt("restore", "-D", images, "--from-snapshot");
  assertEquals(mounted.code, EXIT.refused, mounted.stderr);
  assertMatch(mounted.stderr, /subvolume \S+\/data: it is mounted by itself/);
});

/** A program with descriptor 3 on a file in a subvolume of btrfs that is at /srv in its own mount namespace. */
async function startInside(
  scope: Scope,
  isAlone: boolean,
): Promise<{ program: Program; device: string }> {
  const work = scope.path("work");
  await scope.unshareMounts(
    `cd ${work}; mkdir m; truncate -s 128M disk; mkfs.btrfs -q disk > mkfs.log 2>&1; ` +
      "mount -o loop disk m; btrfs -q subvolume create m/data 2> mkfs.log >&2" +
      (isAlone ? "; umount m" : ""),
  );
  const program = await startIn(
    scope,
    {
      before: `mount ${
        isAlone ? `-o loop,subvol=data ${work}/disk` : `--bind ${work}/m/data`
      } srv; exec </dev/null >/dev/null 2>&1 3>>srv/file; echo before >&3`,
      propagation: "private",
    },
    "identity",
  );
  const [, device] = Deno.readTextFileSync(`/proc/${program.pid}/mountinfo`)
    .match(/ (\d+:\d+) \/data \/srv /)!;
  return { program, device: device.replace(":", "/") };
}

Deno.test("the files of a program in a mount namespace of its own are put back", async () => {
  await using scope = new Scope();
  const { program } = await startInside(scope, false);
  const m = `${scope.path("work")}/m`;
  const images = scope.path("images");
  const mnt = ["--external", "mnt[/srv]:srv"];
  await dump(scope, program, images, "--snapshot", "btrfs", ...mnt);
  assertEquals(await names(scope), ["data", "data.ckpt-snapshot.1"]);
  await scope.bash(`echo after > ${m}/data/file`);
  await restore(
    scope,
    program,
    images,
    ...["--from-snapshot", "--external", `mnt[srv]:${m}/data`],
  );
  const seen = `/proc/${program.pid}/root/srv/file`;
  assertEquals(Deno.readTextFileSync(seen), "before\n");
  const write = await scope.bash(`echo more >> /proc/${program.pid}/fd/3`);
  assertEquals(write.code, 0, write.stderr);
  assertEquals(Deno.readTextFileSync(seen), "before\nmore\n");
  assertEquals(await content(scope, "data/file"), "before\nmore\n");
  assertEquals(await program.verify(), "ok");
});

Deno.test("a subvolume that only the program has mounted is refused by --snapshot btrfs, and found by a command", async () => {
  await using scope = new Scope();
  const { program, device } = await startInside(scope, true);
  const out = scope.path("out");
  const images = scope.path("images");
  const dumping = [
    ...["dump", "-t", `${program.pid}`, "-R", "-D", images],
    ...["--external", `dev[${device}]:disk`, "--external", "mnt[/srv]:srv"],
  ];
  const refused = await scope.ckpt(...dumping, "--snapshot", "btrfs");
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  assertMatch(
    refused.stderr,
    /file \/srv\/file: its subvolume is shown by mounts of the program only/,
  );
  const answer = await scope.ckpt(
    ...dumping,
    "--snapshot",
    `command:tr '\\0' '\\n' | xargs cat > ${out}/content; ls "$CKPT_MOUNTS" > ${out}/names`,
  );
  assertEquals(answer.code, EXIT.ok, answer.stderr);
  assertEquals(Deno.readTextFileSync(`${out}/content`), "before\n");
  assertEquals(Deno.readTextFileSync(`${out}/names`), "file\n");
  assertEquals(await program.verify(), "ok");
});

Deno.test("snapshots of a dump that fails are removed, and those of an image that is replaced", async () => {
  await using scope = new Scope();
  const program = await startOnBtrfs(scope);
  const images = scope.path("images");
  const dumping = ["dump", "-t", `${program.pid}`, "-R", "-D", images];
  await scope.bash(`mount -t tmpfs -o size=60k none ${images}`);
  const full = await scope.ckpt(...dumping, "--snapshot", "btrfs");
  assertEquals(full.code, EXIT.failed, full.stderr);
  assertEquals(await names(scope), ["data"]);
  await scope.bash(`umount ${images}`);
  for (const more of [["--snapshot", "btrfs"], ["--snapshot", "btrfs"], []]) {
    const { code, stderr } = await scope.ckpt(...dumping, "--replace", ...more);
    assertEquals(code, EXIT.ok, stderr);
    assertEquals((await names(scope)).length, more.length === 0 ? 1 : 2);
  }
  const none = await scope.ckpt("restore", "-D", images, "--from-snapshot");
  assertEquals(none.code, EXIT.refused, none.stderr);
});

Deno.test("a dump that is killed leaves snapshots that ckpt clean removes", async () => {
  await using scope = new Scope();
  const program = await startOnBtrfs(scope);
  const images = scope.path("images");
  for (let i = 0; i < 3; i++) {
    const ckpt = scope.spawnCkpt(
      ...["dump", "-t", `${program.pid}`, "-R", "--replace", "-D", images],
      ...["--snapshot", "btrfs"],
    );
    await until(
      "there is a snapshot",
      async () => (await names(scope)).length > 1 ? true : undefined,
    );
    kill(ckpt.pid, 9);
    await ckpt.status;
    await until(
      "ckpt clean has removed all",
      async () =>
        (await scope.ckpt("clean", images)).code === EXIT.ok ? true : undefined,
    );
    assertEquals(await names(scope), ["data"]);
  }
  assertEquals(program.exists(), true);
});

Deno.test("a command of the user's finds the files, and fails the dump when it fails", async () => {
  await using scope = new Scope();
  const program = await startOnBtrfs(scope);
  const out = scope.path("out");
  const images = scope.path("images");
  const dumping = ["dump", "-t", `${program.pid}`, "-R", "-D", images];
  const answer = await scope.ckpt(
    ...dumping,
    "--snapshot",
    `command:cat > ${out}/files; printenv CKPT_PID CKPT_MOUNTS CKPT_IMAGES_DIR > ${out}/env; grep State /proc/$CKPT_PID/status > ${out}/state`,
  );
  assertEquals(answer.code, EXIT.ok, answer.stderr);
  assertEquals(
    Deno.readTextFileSync(`${out}/files`),
    `${program.work}/m/data/file\0`,
  );
  assertEquals(
    Deno.readTextFileSync(`${out}/env`),
    `${program.pid}\n${program.work}/m\n${images}\n`,
  );
  assertMatch(Deno.readTextFileSync(`${out}/state`), /stop/);
  const failed = await scope.ckpt(
    ...dumping,
    ...["--replace", "--snapshot", "command:echo no room >&2; exit 3"],
  );
  assertEquals(failed.code, EXIT.failed, failed.stderr);
  assertMatch(failed.stderr, /snapshot command: no room/);
  assertMatch(failed.stderr, /the command ended with exit code 3/);
  assertEquals(program.exists(), true);
});

Deno.test("without a file on btrfs there is nothing to take a snapshot of", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const answer = await scope.ckpt(
    ...["dump", "-t", `${program.pid}`, "-D", scope.path("images")],
    ...["--snapshot", "btrfs"],
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    /no file open for writing in a subvolume of btrfs/,
  );
  assertEquals(await program.verify(), "ok");
});
