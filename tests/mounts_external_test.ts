/** What a program in a mount namespace of its own has in common with the outside: named, found, followed. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  dump,
  type Program,
  restore,
  Scope,
} from "./harness.ts";
import { mountsOf, startIn } from "./mounts.ts";

/** The outside: a namespace with a file system at `host`, shared. */
async function outside(scope: Scope): Promise<string> {
  const host = scope.path("host");
  await scope.unshareMounts(`
    mount -t tmpfs host ${host}
    mkdir ${host}/sub ${host}/probe
    echo outside > ${host}/file
    mount --make-shared ${host}
  `);
  return host;
}

/** It is at /srv in the program's namespace. */
const TAKE = 'mount --bind "$0/host" srv';

function refusedOptions(text: string): string[] {
  return [...text.matchAll(/-> (--external \S+?),? and at/g)]
    .flatMap(([, option]) => option.split(" "));
}

async function stillSees(scope: Scope, program: Program): Promise<void> {
  const path = `/proc/${program.pid}/root/srv/file`;
  assertEquals(Deno.readTextFileSync(path), "outside\n");
  const touched = await scope.run("touch", [`${scope.directory}/host/new`]);
  assertSuccess(touched, "touch");
  Deno.statSync(`/proc/${program.pid}/root/srv/new`);
}

Deno.test("the options that a refusal names are enough, at the dump and at the restore", async () => {
  await using scope = new Scope();
  const host = await outside(scope);
  const program = await startIn(
    scope,
    { before: TAKE, propagation: "private" },
    "mem_files",
  );
  const mounts = mountsOf([program.pid]);
  const images = scope.path("images");
  const command = ["dump", "-t", `${program.pid}`, "-D", images];
  const refused = await scope.ckpt(...command);
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  const options = refusedOptions(refused.stderr);
  assertEquals(options, ["--external", "mnt[/srv]:srv"]);
  const checked = await scope.ckpt("check", `${program.pid}`, ...options);
  assertMatch(checked.stdout, /can be dumped/);
  await dump(scope, program, images, ...options);

  const without = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(without.code, EXIT.refused);
  assertMatch(without.stderr, /-> --external mnt\[srv\]:PATH/);
  await restore(scope, program, images, "--external", `mnt[srv]:${host}`);
  assertEquals(mountsOf([program.pid]), mounts);
  await stillSees(scope, program);
  assertEquals(await program.verify(), "ok");
});

for (const propagation of ["private", "slave", "unchanged"]) {
  Deno.test(`mounts of the outside are found, and followed as before: ${propagation}`, async () => {
    await using scope = new Scope();
    const host = await outside(scope);
    const program = await startIn(
      scope,
      { before: TAKE, propagation },
      "mem_files",
    );
    const mounts = mountsOf([program.pid]);
    const images = scope.path("images");
    const option = ["--external", "mnt[]:ms"];
    await dump(scope, program, images, ...option);
    await restore(scope, program, images, ...option);
    assertEquals(mountsOf([program.pid]), mounts);
    await stillSees(scope, program);
    const sees = () =>
      Deno.readTextFileSync(`/proc/${program.pid}/mountinfo`)
        .includes(" /srv/probe ");
    const mounted = await scope.run("mount", [
      ...["-t", "tmpfs", "probe", `${host}/probe`],
    ]);
    assertSuccess(mounted, "mount");
    assertEquals(sees(), propagation !== "private");
    assertSuccess(await scope.run("umount", [`${host}/probe`]), "umount");
    assertEquals(sees(), false);
    const inside = await scope.run("nsenter", [
      ...[`--mount=/proc/${program.pid}/ns/mnt`, "mount"],
      ...["-t", "tmpfs", "probe", "/srv/probe"],
    ]);
    assertSuccess(inside, "mount inside");
    const seen = await scope.run("cat", ["/proc/self/mountinfo"]);
    assertEquals(
      seen.stdout.includes(`${host}/probe `),
      propagation === "unchanged",
    );
    assertEquals(await program.verify(), "ok");
  });
}

Deno.test("a slave is not restored where there is nothing to follow", async () => {
  await using scope = new Scope();
  const host = await outside(scope);
  const program = await startIn(
    scope,
    { before: TAKE, propagation: "slave" },
    "mem_files",
  );
  const images = scope.path("images");
  const option = ["--external", "mnt[]:ms"];
  await dump(scope, program, images, ...option);
  assertSuccess(await scope.run("mount", ["--make-private", host]), "mount");
  const refused = await scope.ckpt("restore", "-d", "-D", images, ...option);
  assertEquals(refused.code, EXIT.refused);
  assertMatch(refused.stderr, /not shared\).* cannot be joined/);
  assertSuccess(await scope.run("mount", ["--make-shared", host]), "mount");
  await restore(scope, program, images, ...option);
  assertEquals(await program.verify(), "ok");
});

Deno.test("another directory can become the root", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, "", "mem_files");
  const images = scope.path("images");
  await dump(scope, program, images);
  const other = scope.path("other");
  await scope.unshareMounts(`mount --bind / ${other}`);
  await restore(scope, program, images, "--root", other);
  const [root] = Deno.readTextFileSync(`/proc/${program.pid}/mountinfo`)
    .split("\n");
  assert(root.includes(" / / "), root);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a dry run tells every step, and makes nothing", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, "mount -t tmpfs x /mnt", "mem_files");
  const images = scope.path("images");
  await dump(scope, program, images);
  const planned = await scope.ckpt("restore", "--dry-run", "-D", images);
  assertSuccess(planned, "restore --dry-run");
  for (
    const line of [/create \d+: tmpfs x/, /attach \d+ to \d+, mnt/, /leave/]
  ) {
    assertMatch(planned.stdout, line);
  }
  const shown = await scope.ckpt("show", "--mounts", images);
  assertSuccess(shown, "show --mounts");
  assertMatch(shown.stdout, /\n {4}\d+ \/mnt {2}tmpfs x {2}\d+:\d+ \/\n/);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});
