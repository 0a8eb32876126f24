/** inotify and fanotify: what is watched, wherever the watched files are and whatever becomes of their names. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  type Program,
  restore,
  Scope,
  until,
} from "./harness.ts";

/** File systems, with a script (sh) that mounts them at $PWD/m in a mount namespace. */
const FILE_SYSTEMS: Record<string, string | undefined> = {
  "the root file system": undefined,
  "a tmpfs": "mkdir m; mount -t tmpfs none m",
  "an overlay":
    "mkdir m l u w; mount -t tmpfs none u; mkdir u/u u/w l/watched;" +
    "mount -t overlay none m -o lowerdir=l,upperdir=u/u,workdir=u/w",
  "a subvolume of a btrfs on a loop device":
    "mkdir m b; truncate -s 200M disk; mkfs.btrfs -q disk >/dev/null 2>&1; " +
    "mount -o loop disk b; btrfs -q subvolume create b/sub; mount --bind b/sub m",
};

async function start(
  scope: Scope,
  program: string,
  mounts: string | undefined,
): Promise<Program> {
  if (mounts === undefined) return await scope.start(program);
  await scope.unshareMounts(mounts);
  return await scope.start(program, `${scope.directory}/m`);
}

for (const program of ["fd_inotify", "fd_fanotify"]) {
  for (const [where, mounts] of Object.entries(FILE_SYSTEMS)) {
    Deno.test(`${program}: watches on ${where} work without a checkpoint`, async () => {
      await using scope = new Scope();
      const started = await start(scope, program, mounts);
      assertEquals(await started.verify(), "ok");
    });

    Deno.test(`${program}: watches on ${where} survive two dumps and restores`, async () => {
      await using scope = new Scope();
      const started = await start(scope, program, mounts);
      const before = started.observe();
      for (const images of ["first", "second"]) {
        await dump(scope, started, scope.path(images));
        await restore(scope, started, scope.path(images));
      }
      assertUnchanged(before, started.observe(), "after the second restore");
      assertEquals(await started.verify(), "ok");
    });

    Deno.test(`${program}: a dump of watches on ${where} causes no events`, async () => {
      await using scope = new Scope();
      const started = await start(scope, program, mounts);
      const before = started.observe();
      assertSuccess(
        await scope.ckpt(
          ...["dump", "-R", "-t", `${started.pid}`],
          ...["-D", scope.path("images")],
        ),
        "dump",
      );
      assertUnchanged(before, started.observe(), "after the dump");
      assertEquals(await started.verify(), "ok");
    });
  }
}

Deno.test("watch_lost deleted: watches on deleted files in use survive two dumps and restores", async () => {
  await using scope = new Scope();
  const program = await scope.start("watch_lost", "deleted");
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
});

const IN_ATTRIB = "4";
const IN_CREATE = "100";
const IN_IGNORED = "8000";
const IN_Q_OVERFLOW = "4000";

function seen(program: Program): string {
  return Deno.readTextFileSync(`${program.work}/seen`);
}

Deno.test("events that were not read stay with a program left running; a restored one is told that it lost some", async () => {
  await using scope = new Scope();
  const program = await scope.start("watch_lost", "unread");
  const images = scope.path("images");
  for (const last of [false, true]) {
    const answer = await scope.ckpt(
      ...["dump", "-R", "--replace", "-t", `${program.pid}`, "-D", images],
    );
    assertSuccess(answer, "dump");
    assertMatch(
      answer.stderr,
      /descriptor \d+ \(anon_inode:inotify\) of task \d+: events of 64 bytes that the program has not read/,
    );
    if (!last) continue;
    assertEquals(await program.verify(), "ok");
    assertEquals(
      seen(program),
      `1 ${IN_ATTRIB} \n2 ${IN_CREATE} other\n2 ${IN_IGNORED} \n`,
    );
  }
  for (let i = 0; i < 2; i++) {
    program.forget();
    program.restored();
    const answer = await scope.ckpt("restore", "-d", "-D", images);
    assertSuccess(answer, "restore");
    assertMatch(
      answer.stderr,
      /inotify instance had events that were not read/,
    );
    assertEquals(await program.verify(), "ok");
    assertEquals(seen(program), `-1 ${IN_Q_OVERFLOW} \n`);
  }
});

Deno.test("events of fanotify that were not read are told, by the dump and by the restore", async () => {
  await using scope = new Scope();
  const program = await scope.start("watch_lost", "group");
  const images = scope.path("images");
  const answer = await scope.ckpt(
    ...["dump", "-t", `${program.pid}`, "-D", images],
  );
  assertSuccess(answer, "dump");
  assertMatch(
    answer.stderr,
    /descriptor \d+ \(anon_inode:\[fanotify\]\) of task \d+: events of \d+ bytes that the program has not read/,
  );
  await program.ended();
  program.restored();
  const restored = await scope.ckpt("restore", "-d", "-D", images);
  assertSuccess(restored, "restore");
  assertMatch(restored.stderr, /fanotify group had events that were not read/);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a watch on a deleted file that only others have open is refused, by dump and by check", async () => {
  await using scope = new Scope();
  const work = scope.path("work-watch_lost");
  const starting = scope.start("watch_lost", "outside");
  using _file = await until("the file is there", () => {
    try {
      return Deno.openSync(`${work}/file`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  });
  Deno.writeTextFileSync(`${work}/opened`, "");
  const program = await starting;
  for (
    const command of [
      ["check", `${program.pid}`],
      ["dump", "-t", `${program.pid}`, "-D", scope.path("images")],
    ]
  ) {
    const { code, stdout, stderr } = await scope.ckpt(...command);
    assertEquals(code, EXIT.refused, stderr);
    assertMatch(
      stdout + stderr,
      /descriptor \d+ \(anon_inode:inotify\) of task \d+: it watches inode \d+ of device \d+:\d+, a deleted file that only processes outside/,
    );
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("a watch finds its file again that was renamed between dump and restore", async () => {
  await using scope = new Scope();
  const program = await scope.start("watch_lost", "moves");
  const images = scope.path("images");
  await dump(scope, program, images);
  Deno.renameSync(`${program.work}/file`, `${program.work}/elsewhere`);
  Deno.writeTextFileSync(`${program.work}/file`, "another");
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
  assertEquals(seen(program), `1 ${IN_ATTRIB} \n`);
  // Where it is gone, the one with its name takes its place, and that is told.
  Deno.removeSync(`${program.work}/elsewhere`);
  program.forget();
  program.restored();
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertSuccess(answer, "restore");
  assertMatch(
    answer.stderr,
    /\/file, which an inotify instance .* watches, is another file now/,
  );
  assertEquals(await program.verify(), "ok");
  assertEquals(seen(program), `1 ${IN_ATTRIB} \n`);
  Deno.removeSync(`${program.work}/file`);
  program.forget();
  const refused = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  assertMatch(
    refused.stderr,
    /file \S+\/file: an inotify instance of the program watches it, and it is not there/,
  );
});

Deno.test("files that handles do not lead to are found by a search only, and refused without", async () => {
  const hidden =
    "mkdir m l u w; mount -t tmpfs none u; mkdir u/u u/w l/watched;" +
    "mount -t overlay none m -o lowerdir=l,upperdir=u/u,workdir=u/w;" +
    "umount -l u";
  await using scope = new Scope();
  const program = await start(scope, "fd_inotify", hidden);
  const refused = await scope.ckpt("check", `${program.pid}`);
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  assertMatch(
    refused.stdout + refused.stderr,
    /it watches inode \d+ of device 0:\d+ \(and \d+ more\), to which ckpt knows no path\n +-> give --irmap-scan-path with a directory above it, or --force-irmap/,
  );
  const nowhere = ["--irmap-scan-path", scope.path("nowhere")];
  const { code } = await scope.ckpt("check", ...nowhere, `${program.pid}`);
  assertEquals(code, EXIT.refused);
  assertSuccess(
    await scope.ckpt("check", "--force-irmap", `${program.pid}`),
    "check",
  );
  const before = program.observe();
  await dump(
    scope,
    program,
    scope.path("images"),
    ...nowhere,
    ...["--irmap-scan-path", `${scope.directory}/m/watched`],
  );
  await restore(scope, program, scope.path("images"));
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});
