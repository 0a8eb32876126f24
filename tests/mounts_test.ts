/** Trees in mount namespaces of their own: dumped and restored, the mounts are as they were. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { dump, LONG, type Program, restore, Scope } from "./harness.ts";
import { mountsOf, startIn, survives } from "./mounts.ts";
import { killRestores } from "./own_namespaces.ts";

const SHAPES: Record<string, string> = {
  "file systems of its own": `
    mount -t tmpfs -o size=1m,mode=700,nosuid,nodev one /mnt
    mkdir /mnt/a /mnt/b
    echo content > /mnt/a/file
    mount -t tmpfs two /mnt/b
    mount -t mqueue none /mnt/b/ || true
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts /mnt/a
  `,
  "parts of directories and files bound elsewhere": `
    mount -t tmpfs one /mnt
    mkdir -p /mnt/a/b/c /mnt/d; echo x > /mnt/a/file; : > /mnt/point
    mount --bind /mnt/a/b /mnt/d
    mount --bind /mnt/a/file /mnt/point
    mount --bind /usr/share /srv
    mount -o remount,bind,ro,noexec /srv
    mount -o remount,bind,noatime,nosymfollow /mnt/d
  `,
  "covered mounts": `
    mount -t tmpfs one /mnt
    mkdir -p /mnt/a/b
    mount -t tmpfs two /mnt/a
    mkdir /mnt/a/x
    mount -t tmpfs three /mnt/a
    mount -t tmpfs four /mnt
    mkdir /mnt/a
    mount --bind /mnt/a /mnt/a
  `,
  "peer groups and slaves": `
    mount -t tmpfs one /mnt
    mount --make-shared /mnt
    mkdir /mnt/a /mnt/b /mnt/c /mnt/d /mnt/e
    for x in a b c d e; do mount -t tmpfs $x /mnt/$x; done
    mount --make-private /mnt
    mount --make-shared /mnt/a
    mkdir /mnt/a/x /mnt/a/y
    mount --bind /mnt/a /mnt/b; mount --make-slave /mnt/b
    mount --bind /mnt/b /mnt/c; mount --make-shared /mnt/c
    mount --bind /mnt/c /mnt/d; mount --make-slave /mnt/d
    mount --bind /mnt/a/x /mnt/e
    mount --make-unbindable /mnt
  `,
  "peers whose roots are disjoint": `
    mount -t tmpfs one /mnt
    mkdir -p /mnt/wide /mnt/x /mnt/y
    mount -t tmpfs wide /mnt/wide
    mkdir -p /mnt/wide/a/1 /mnt/wide/a/2
    mount --make-shared /mnt/wide
    mount --bind /mnt/wide/a/1 /mnt/x
    mount --bind /mnt/wide/a/2 /mnt/y
    umount /mnt/wide
  `,
  "read-only file systems": `
    mount -t tmpfs one /mnt
    mkdir /mnt/a
    mount -t tmpfs two /mnt/a
    mkdir /mnt/a/d
    mount -o remount,ro /mnt/a
    mount -o remount,ro,bind /mnt
  `,
  "a mount over the root": `
    mount --bind /usr /
    mount --bind /usr/share /srv
  `,
  "a directory of which only binds are left": `
    mount -t tmpfs one /mnt
    mkdir /mnt/a /mnt/point /mnt/other
    mount -t tmpfs -o size=2m,nr_inodes=500 two /mnt/a
    mkdir -p /mnt/a/b/c /mnt/a/d; echo content > /mnt/a/b/c/file; echo hidden > /mnt/a/hidden
    mount --bind /mnt/a/b/c /mnt/point
    mount --bind /mnt/a/d /mnt/other
    umount /mnt/a
  `,
  "a file of which only a bind is left": `
    mount -t tmpfs one /mnt
    mkdir /mnt/a; : > /mnt/point
    mount -t tmpfs two /mnt/a
    mkdir /mnt/a/b; echo content > /mnt/a/b/file
    mount --bind /mnt/a/b/file /mnt/point
    umount /mnt/a
  `,
};

const OVERLAYS = `
  mount -t tmpfs layers /mnt && cd /mnt
  mkdir -p low1/dir low2/dir low3 up work up2 work2 empty merged relative renamed old only volatile data
  echo one > low1/file; echo two > low2/dir/two; echo three > low3/three; echo old > old/name
  mount -t overlay absolute -o lowerdir=/mnt/low1:/mnt/low2,upperdir=/mnt/up,workdir=/mnt/work merged
  echo changed > merged/file; rm merged/dir/two; echo new > merged/new
  mount -t overlay relative -o lowerdir=empty:low3,upperdir=up2,workdir=work2,redirect_dir=on,metacopy=on relative
  mount -t overlay renamed -o lowerdir=old:low1 renamed
  mv old moved
  mount -t overlay only -o lowerdir=low2:/usr/share only
  mkdir up3 work3
  mount -t overlay volatile -o lowerdir=low1,upperdir=up3,workdir=work3,volatile volatile
  mount --bind merged/dir data
  cd /
`;

/** Which strings named the layers is all that is lost of an overlay. */
function withoutLayers(mounts: string[][]): string[][] {
  return mounts.map((lines) =>
    lines.map((line) =>
      line.replace(/(,?(lowerdir\+?|upperdir|workdir|datadir\+)=[^, ]*)+/, "")
    )
  );
}

/** What is below the overlays: names, contents, and which layer has them. */
function contentOf(pid: number): string {
  const { stdout, success } = new Deno.Command("bash", {
    args: [
      "-c",
      `cd /proc/${pid}/root/mnt && find . -path "./work*/work" -prune -o -path ./only -prune -o -print | sort; ` +
      "head -v -n 9 merged/file merged/new relative/three renamed/* volatile/file data/../file; ls only | head",
    ],
    stderr: "piped",
  }).outputSync();
  return `${success} ${new TextDecoder().decode(stdout)}`;
}

Deno.test("a program with overlays of directories of its own survives, whatever their options say", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, OVERLAYS, "mem_files");
  const mounts = withoutLayers(mountsOf(program.tree()));
  const content = contentOf(program.pid);
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
    assertEquals(withoutLayers(mountsOf(program.tree())), mounts);
    assertEquals(contentOf(program.pid), content);
  }
  // What is written goes where it went before.
  const root = `/proc/${program.pid}/root/mnt`;
  Deno.writeTextFileSync(`${root}/merged/later`, "later");
  assertEquals(Deno.readTextFileSync(`${root}/up/later`), "later");
  assertEquals(await program.verify(), "ok");
});

/** What the kernel tells of itself is hidden from ckpt, so it cannot read which layers there are. */
const HIDDEN = "mount -t tmpfs none /sys/kernel/btf";

const TRUST = "--overlay-trust-options";

const NAMED_LAYERS = `
  mount -t tmpfs layers /mnt && cd /mnt
  mkdir -p low "a b:c" up work merged
  echo one > low/file; echo two > "a b:c/other"; echo gone > low/gone
  mount -t overlay named -o 'lowerdir=low/../low:/mnt/a b\\:c,upperdir=/mnt/up,workdir=/mnt/work' merged
  rm merged/gone; echo new > merged/new
  cd /
`;

Deno.test("layers are not taken from the options of an overlay unless these are trusted, and tell where", async () => {
  await using scope = new Scope();
  await scope.unshareMounts(HIDDEN);
  const program = await startIn(scope, NAMED_LAYERS, "mem_files");
  const untrusted = await refusedDump(scope, program);
  assertMatch(
    untrusted,
    /\/mnt\/merged \(overlay, named\): its layers are only known to the kernel.*\n? +-> .*; or --overlay-trust-options/,
  );
  assertMatch(
    await refusedDump(scope, program, TRUST),
    /its lower layer is named low\/\.\.\/low, and nobody knows from where/,
  );
});

async function refusedDump(
  scope: Scope,
  { pid }: Program,
  ...options: string[]
): Promise<string> {
  const images = scope.path("refused");
  const answer = await scope.ckpt(
    ...["dump", "-t", `${pid}`, "-D", images, ...options],
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  return answer.stderr;
}

Deno.test("layers that only the options of an overlay name are taken when these are trusted and fit", async () => {
  await using scope = new Scope();
  await scope.unshareMounts(HIDDEN);
  const script = NAMED_LAYERS.replace("low/../low", "/mnt/low");
  const program = await startIn(scope, script, "mem_files");
  const mounts = withoutLayers(mountsOf(program.tree()));
  const root = `/proc/${program.pid}/root/mnt`;
  Deno.renameSync(`${root}/low`, `${root}/moved`);
  Deno.mkdirSync(`${root}/low`);
  assertMatch(
    await refusedDump(scope, program, TRUST),
    /not its layers any more: "file" is in/,
  );
  Deno.removeSync(`${root}/low`);
  assertMatch(
    await refusedDump(scope, program, TRUST),
    /name \/mnt\/low as lower layer, and there is no/,
  );
  Deno.renameSync(`${root}/moved`, `${root}/low`);
  const images = scope.path("images");
  await dump(scope, program, images, TRUST);
  await restore(scope, program, images);
  assertEquals(withoutLayers(mountsOf(program.tree())), mounts);
  const names = [...Deno.readDirSync(`${root}/merged`)].map(({ name }) => name);
  assertEquals(names.sort(), ["file", "new", "other"]);
  assertEquals(Deno.readTextFileSync(`${root}/merged/new`), "new\n");
  assertEquals(await program.verify(), "ok");
});

for (
  const [how, hidden] of [["the kernel knows", ":"], ["options name", HIDDEN]]
) {
  Deno.test(`layers of the outside that ${how} are found there, and recognised again`, async () => {
    await using scope = new Scope();
    const host = scope.path("host");
    await scope.unshareMounts(`
      ${hidden}
      mount -t tmpfs host ${host}
      mkdir ${host}/low ${host}/up ${host}/work
      echo low > ${host}/low/file
    `);
    const trust = hidden === ":" ? [] : [TRUST];
    const layers = [
      "lowerdir=HOST/low",
      "upperdir=HOST/up",
      "workdir=HOST/work",
    ]
      .join(",").replaceAll("HOST", host);
    // What shows the layers is left behind with the old root.
    const program = await startIn(
      scope,
      {
        before: `mount -t overlay outside -o ${layers} srv`,
        propagation: "private",
      },
      "mem_files",
    );
    const seen = `/proc/${program.pid}/root/srv`;
    Deno.writeTextFileSync(`${seen}/new`, "new");
    const mounts = withoutLayers(mountsOf(program.tree()));
    const images = scope.path("images");
    await dump(scope, program, images, ...trust);
    const swapped = await scope.run("sh", [
      "-ec",
      `cd ${host}; mv low was; mkdir low; echo other > low/file`,
    ]);
    assertEquals(swapped.code, 0, swapped.stderr);
    const refused = await scope.ckpt("restore", "-d", "-D", images);
    assertEquals(refused.code, EXIT.refused, refused.stderr);
    assertMatch(
      refused.stderr,
      /\/srv \(overlay, outside\): its lower layer was another directory than the one that is \S+\/host\/low now\n +-> put that back; or --overlay-trust-options/,
    );
    await restore(scope, program, images, TRUST);
    assertEquals(Deno.readTextFileSync(`${seen}/file`), "other\n");
    await program.kill();
    const back = await scope.run("sh", [
      "-ec",
      `cd ${host}; rm -r low; mv was low`,
    ]);
    assertEquals(back.code, 0, back.stderr);
    await restore(scope, program, images);
    assertEquals(withoutLayers(mountsOf(program.tree())), mounts);
    assertEquals(Deno.readTextFileSync(`${seen}/file`), "low\n");
    assertEquals(Deno.readTextFileSync(`${seen}/new`), "new");
    assertEquals(await program.verify(), "ok");
  });
}

for (const [shape, script] of Object.entries(SHAPES)) {
  Deno.test(`a program with ${shape} survives`, async () => {
    await using scope = new Scope();
    await survives(scope, await startIn(scope, script, "mem_files"));
  });
}

for (
  const name of [
    "files_regular",
    "threads",
    "tree_sessions",
    "directories",
    "mounts_nested",
    "mounts_covered",
    "mounts_over_root",
    "mounts_removed",
    "mounts_removed_outside",
    "mounts_detached",
    "mounts_sockets",
    "fd_memfd",
    "mem_growth",
    "ghost_regular",
    "ghost_special",
  ]
) {
  Deno.test(`${name} survives in a mount namespace`, async () => {
    await using scope = new Scope();
    await survives(scope, await startIn(scope, "", name));
  });
}

Deno.test("mounts of files survive that lost the names they were mounted by, but have others", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, "", "mounts_renamed");
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("a file with a name that nobody finds, in a mount namespace, is linked, restored again and again, and cleaned up", async () => {
  await using scope = new Scope();
  const mounts = `mkdir -p "$2"/base/a "$2"/base/b "$2"/m
    mount --bind "$2/base/a" "$2/m"`;
  const program = await startIn(scope, mounts, "ghost_names", "hidden");
  const images = scope.path("images");
  const refused = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    images,
  );
  assertEquals(refused.code, EXIT.refused, refused.stderr);
  assertMatch(refused.stderr, /-> give --link-remap/);
  const beside = () =>
    [...Deno.readDirSync(`${program.work}/base/a`)].map(({ name }) => name);
  for (const place of [undefined, "lost+found"]) {
    const where = place === undefined ? [] : ["--link-place", place];
    const left = scope.path(`${place}`);
    const running = await scope.ckpt(
      ...["dump", "-R", "--link-remap", ...where],
      ...["-t", `${program.pid}`, "-D", left],
    );
    assertEquals(running.code, 0, running.stderr);
    const cleaned = await scope.ckpt("clean", left);
    assertMatch(
      cleaned.stdout,
      /^removed \S+\/base\/a\/(link_remap\.1|lost\+found\/checkpoint\/\S+)\n$/,
    );
    assertEquals(beside(), []);
  }
  await dump(scope, program, images, "--link-remap");
  assertEquals(beside(), ["link_remap.1"]);
  for (let i = 0; i < 2; i++) {
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
    program.forget();
  }
  assertMatch(
    (await scope.ckpt("clean", images)).stdout,
    /^removed \S+\/base\/a\/link_remap\.1\n$/,
  );
});

for (const where of ["covered", "unmounted"]) {
  Deno.test(`a program survives whose own file is on a mount that is ${where}`, async () => {
    await using scope = new Scope();
    await survives(scope, await startIn(scope, "", "mounts_exe", where));
  });
}

const KILLS = LONG ? 300 : 12;

Deno.test("no restore that is killed leaves a name of what was removed outside", async () => {
  await using scope = new Scope();
  const program = await startIn(scope, "", "mounts_removed_outside");
  const images = scope.path("images");
  await dump(scope, program, images);
  const start = performance.now();
  await restore(scope, program, images);
  const whole = performance.now() - start;
  await program.kill();
  await killRestores(scope, images, KILLS, whole, () => "outer");
  const outside = `${program.work}/outside`;
  const names = [...Deno.readDirSync(outside)].map(({ name }) => name);
  assertEquals(names, ["replaced"]);
  // A kill is told by the time of the directory.
  Deno.utimeSync(outside, 3000, 3000);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

const SEEDS = LONG ? 1000 : 50;
const FIRST = Number(Deno.env.get("CKPT_FIRST_SEED") ?? 1);

Deno.test(`${SEEDS} random histories of mounts survive`, async () => {
  const failures: string[] = [];
  for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
    await using scope = new Scope();
    try {
      const steps = 40 + seed * 17 % 100;
      const program = await startIn(
        scope,
        "",
        "mounts_random",
        `${seed}`,
        `${steps}`,
      );
      const pids = program.tree();
      const mounts = mountsOf(pids);
      await dump(scope, program, scope.path("images"));
      await restore(scope, program, scope.path("images"));
      assertEquals(mountsOf(pids), mounts);
      assertEquals(await program.verify(), "ok");
    } catch (error) {
      failures.push(`seed ${seed}: ${error}`);
    }
  }
  assertEquals(failures, []);
});
