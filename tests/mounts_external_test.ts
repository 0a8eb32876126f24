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
  const refused = await refusedDump(scope, program, images);
  const options = refusedOptions(refused);
  assertEquals(options, ["--external", "mnt[/srv]:srv"]);
  const checked = await scope.ckpt("check", `${program.pid}`, ...options);
  assertMatch(
    checked.stdout,
    /can be dumped: ckpt dump --tree \d+ --external mnt\[\/srv\]:srv\n/,
  );
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

/** @returns why a dump without options is refused */
async function refusedDump(
  scope: Scope,
  program: Program,
  images: string,
): Promise<string> {
  const command = ["dump", "-t", `${program.pid}`, "-D", images];
  const { code, stderr } = await scope.ckpt(...command);
  assertEquals(code, EXIT.refused, stderr);
  return stderr;
}

/** What a refusal says for each mount: for the dump, and for the restore. */
function externals(text: string): { dump: string[]; restore: string[] } {
  const all = [
    ...text.matchAll(
      /-> --external (mnt\[\S+?), and at the restore --external (mnt\S+)/g,
    ),
  ];
  return {
    dump: all.flatMap(([, option]) => ["--external", option]),
    restore: all.flatMap(([, , option]) => ["--external", option]),
  };
}

Deno.test("mounts on one mount point are told apart, and keep their flags", async () => {
  await using scope = new Scope();
  const host = await outside(scope);
  const program = await startIn(
    scope,
    {
      before: `
        mount --bind "$0/host/sub" srv
        mount -o remount,bind,noexec,nosuid,ro srv
        mount --bind "$0/host" srv
        mount -o remount,bind,nodev,noatime srv
      `,
      propagation: "private",
    },
    "mem_files",
  );
  const mounts = mountsOf([program.pid]);
  const images = scope.path("images");
  const refused = await refusedDump(scope, program, images);
  const given = externals(refused);
  assertEquals(
    given.restore.filter((_, i) => i % 2 > 0).sort(),
    [
      given.restore.find((option) => option.endsWith(`:${host}`))!,
      given.restore.find((option) => option.endsWith(`:${host}/sub`))!,
    ].sort(),
  );
  await dump(scope, program, images, ...given.dump);
  await restore(scope, program, images, ...given.restore);
  assertEquals(mountsOf([program.pid]), mounts);
  await stillSees(scope, program);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a file system on a device of the program's own is mounted again", async () => {
  await using scope = new Scope();
  const disk = `${scope.path("disk")}/disk`;
  const made = await scope.run("sh", [
    "-ec",
    `truncate -s 16M ${disk}; mkfs.ext4 -q ${disk}; losetup --find --show ${disk}`,
  ]);
  assertSuccess(made, "losetup");
  const device = made.stdout.trim();
  scope.defer(async () => {
    await scope.run("losetup", ["-d", device]);
  });
  const program = await startIn(
    scope,
    {
      before: `mount -o nosuid ${device} srv
        echo content > srv/file; mkdir srv/part
        mkdir -p mnt/part; mount -t tmpfs top mnt
        mkdir mnt/part; mount --bind srv/part mnt/part`,
      propagation: "private",
    },
    "mem_files",
  );
  const mounts = mountsOf([program.pid]);
  const images = scope.path("images");
  const refused = await refusedDump(scope, program, images);
  const [, at, later] = refused.match(
    /or (--external dev\[\S+) and at the restore (--external dev\S+)/,
  )!;
  await dump(scope, program, images, ...at.split(" "));
  const without = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(without.code, EXIT.refused, without.stderr);
  assertMatch(without.stderr, /--external dev\[srv\]:DEVICE/);
  await restore(scope, program, images, ...later.split(" "));
  assertEquals(mountsOf([program.pid]), mounts);
  assertEquals(
    Deno.readTextFileSync(`/proc/${program.pid}/root/srv/file`),
    "content\n",
  );
  assertEquals(await program.verify(), "ok");
});

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

for (
  const name of [
    "mounts_removed",
    "mounts_removed_outside",
    "mounts_covered",
    "mounts_over_root",
    "mounts_detached",
    "mounts_nested",
  ]
) {
  Deno.test(`another directory can become the root of ${name}`, async () => {
    await using scope = new Scope();
    const program = await startIn(scope, "", name);
    const mounts = mountsOf(program.tree());
    const images = scope.path("images");
    await dump(scope, program, images);
    const other = scope.path("other");
    await scope.unshareMounts(`mount --bind / ${other}`);
    await restore(scope, program, images, "--root", other);
    assertEquals(mountsOf(program.tree()), mounts);
    assertEquals(await program.verify(), "ok");
  });
}

Deno.test("overlays come back below another root, of directories of that", async () => {
  await using scope = new Scope();
  const program = await startIn(
    scope,
    `mount -t tmpfs layers /mnt; mkdir /mnt/up /mnt/work
    mount -t overlay part -o lowerdir=/usr/share,upperdir=/mnt/up,workdir=/mnt/work /srv
    echo new > /srv/new`,
    "mem_files",
  );
  const images = scope.path("images");
  await dump(scope, program, images);
  const other = scope.path("other");
  await scope.unshareMounts(`
    mount --bind / ${other}
    mount --bind ${scope.path("share")} ${other}/usr/share
  `);
  await restore(scope, program, images, "--root", other);
  const seen = `/proc/${program.pid}/root/srv`;
  assertEquals(Deno.readTextFileSync(`${seen}/new`), "new\n");
  Deno.writeTextFileSync(`${seen}/later`, "later");
  const up = `/proc/${program.pid}/root/mnt/up`;
  assertEquals(Deno.readTextFileSync(`${up}/later`), "later");
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
