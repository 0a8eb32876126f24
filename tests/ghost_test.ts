/** Files whose path no longer leads to them: deleted, replaced, with another name, in directories that are gone. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  LONG,
  type Program,
  restore,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { kill } from "./libc.ts";
import { survives } from "./state.ts";

survives("ghost_regular", "deleted files");
survives("ghost_regular", "deleted files of a tmpfs", { args: ["/dev/shm"] });
survives("ghost_program", "a deleted program and library", {
  args: ["deleted"],
});
survives("ghost_special", "deleted directories, fifos, links and devices");

/** Programs whose links in /proc look different afterwards: they verify themselves. */
for (
  const [program, kind, what] of [
    ["ghost_program", "replaced", "a program and a library that were upgraded"],
    ["ghost_names", "replaced", "a file that another was renamed over"],
    ["ghost_names", "alias", "a file with another name beside the old one"],
    ["ghost_names", "named", "a file that got its first name later"],
  ]
) {
  Deno.test(`${program} ${kind}: ${what} verifies without a checkpoint`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, kind);
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${program} ${kind}: ${what} survives two dumps and restores`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, kind);
    for (const images of ["first", "second"]) {
      await dump(scope, started, scope.path(images));
      await restore(scope, started, scope.path(images));
    }
    assertEquals(await started.verify(), "ok");
  });
}

Deno.test("ghost_names log: a deleted file is saved as it was when the program stood still", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_names", "log");
  const images = scope.path("images");
  for (let i = 0; i < (LONG ? 30 : 5); i++) {
    assertSuccess(
      await scope.ckpt(
        ...["dump", "-R", "--replace", "-t", `${program.pid}`, "-D", images],
      ),
      "dump",
    );
  }
  assertEquals(await program.verify(), "ok");
  program.forget();
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

/** A program with a file whose other name cannot be seen where ckpt is. */
async function startHidden(scope: Scope, mounts = ":"): Promise<Program> {
  const work = scope.path("work-ghost_names");
  for (const name of ["base/a", "base/b", "m"]) {
    Deno.mkdirSync(`${work}/${name}`, { recursive: true });
  }
  await scope.unshareMounts(`mount --bind ${work}/base/a ${work}/m; ${mounts}`);
  return await scope.start("ghost_names", "hidden");
}

Deno.test("a file with a name that nobody finds is refused without --link-remap, by dump and by check", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  for (
    const command of [
      ["check", `${program.pid}`],
      ["dump", "-t", `${program.pid}`, "-D", `${scope.directory}/images`],
    ]
  ) {
    const { code, stdout, stderr } = await scope.ckpt(...command);
    assertEquals(code, EXIT.refused, stderr);
    assertMatch(
      stdout + stderr,
      /descriptor \d+ \(\S+m\/file \(deleted\)\) of task \d+: its path leads to it no more, but it has another name/,
    );
    assertMatch(stdout + stderr, /-> give --link-remap/);
  }
  assertEquals([...Deno.readDirSync(`${program.work}/base/a`)], []);
  assertEquals(await program.verify(), "ok");
});

Deno.test("clean removes links that CRIU has made, but for the last name of a file", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  const images = scope.path("images");
  await dump(scope, program, images, "--link-remap");
  // As CRIU leaves it: the image alone tells of the link.
  for (const name of ["ckpt-manifest.json", "ckpt-links.json"]) {
    Deno.removeSync(`${images}/${name}`);
  }
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
  const link = `${program.work}/base/a/link_remap.1`;
  const kept = scope.path("kept");
  Deno.renameSync(link, `${kept}/link`);
  Deno.writeTextFileSync(link, "of somebody else");
  assertMatch(
    (await scope.ckpt("clean", images)).stdout,
    /link_remap\.1 is the only name that its file has by now: left as it is/,
  );
  assertEquals(Deno.readTextFileSync(link), "of somebody else");
  Deno.renameSync(`${kept}/link`, link);
  const cleaned = await scope.ckpt("clean", images);
  assertSuccess(cleaned, "clean");
  assertMatch(cleaned.stdout, /^removed .*\/m\/link_remap\.1\n$/);
  assertEquals([...Deno.readDirSync(`${program.work}/base/a`)], []);
});

Deno.test("a file with a name that nobody finds is linked, restored again and again, and cleaned up", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  const beside = () =>
    [...Deno.readDirSync(`${program.work}/base/a`)].map(({ name }) => name);
  const images = scope.path("images");
  const check = await scope.ckpt("check", "--link-remap", `${program.pid}`);
  assertSuccess(check, "check");
  assertMatch(
    check.stdout,
    /it is linked again, \d+ bytes are not copied \(--link-remap\)/,
  );
  await dump(scope, program, images, "--link-remap");
  assertEquals(beside(), ["link_remap.1"]);
  for (let i = 0; i < 2; i++) {
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
    assertEquals(beside(), ["link_remap.1"]);
    program.forget();
  }
  const shown = await scope.ckpt("show", "--json", images);
  assertMatch(JSON.parse(shown.stdout).result.links[0], /\/link_remap\.1$/);
  const cleaned = await scope.ckpt("clean", images);
  assertSuccess(cleaned, "clean");
  assertMatch(cleaned.stdout, /^removed .*\/m\/link_remap\.1\n$/);
  assertEquals(beside(), []);
  const again = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(again.code, EXIT.refused, again.stderr);
  assertMatch(again.stderr, /link_remap\.1: this link.* is gone/);
  assertMatch(
    (await scope.ckpt("clean", images)).stdout,
    /^there was nothing to remove$/m,
  );
});

Deno.test("links are made below lost+found where that is wanted, and nothing of it stays", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  const directory = `${program.work}/base/a`;
  const below = (name: string) =>
    [...Deno.readDirSync(`${directory}${name}`)].map(({ name }) => name);
  const images = scope.path("images");
  await dump(
    ...[scope, program, images, "--link-remap"] as const,
    ...["--link-place", "lost+found"],
  );
  assertEquals(below(""), ["lost+found"]);
  const [link, ...others] = below("/lost+found/checkpoint");
  assertMatch(link, /^unlink-at-restart-[0-9a-f]{8}-1$/);
  assertEquals(others, []);
  for (let i = 0; i < 2; i++) {
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
    assertEquals(below("/lost+found/checkpoint"), [link]);
    program.forget();
  }
  assertSuccess(await scope.ckpt("clean", images), "clean");
  assertEquals(below(""), []);
});

Deno.test("a dump that fails takes its links back", async () => {
  await using scope = new Scope();
  const images = scope.path("images");
  const program = await startHidden(
    scope,
    `mount -t tmpfs -o size=100k none ${images}`,
  );
  const before = program.observe();
  const answer = await scope.ckpt(
    ...["dump", "--link-remap", "-t", `${program.pid}`, "-D", images],
  );
  assertEquals(answer.code, EXIT.failed, answer.stderr);
  assertMatch(answer.stderr, /ENOSPC|No space left/);
  assertEquals([...Deno.readDirSync(`${program.work}/base/a`)], []);
  assertEquals((await scope.bash(`ls -A ${images}`)).stdout, "");
  assertUnchanged(before, program.observe(), "after the failure");
  assertEquals(await program.verify(), "ok");
});

Deno.test("a dump that replaces an image replaces its links", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  const beside = () =>
    [...Deno.readDirSync(`${program.work}/base/a`)].map(({ name }) => name);
  const images = scope.path("images");
  const options = ["-R", "--link-remap", "-t", `${program.pid}`, "-D", images];
  assertSuccess(await scope.ckpt("dump", ...options), "dump");
  assertSuccess(await scope.ckpt("dump", "--replace", ...options), "dump");
  assertEquals(beside(), ["link_remap.2"]);
  assertEquals(await program.verify(), "ok");
});

Deno.test("deleted files above --ghost-limit are refused with file, size, holder and option", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const answer = await scope.ckpt(
    ...["dump", "-t", `${program.pid}`, "-D", `${scope.directory}/images`],
    ...["--ghost-limit", "30K"],
  );
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    /descriptor \d+ \(\S+large \(deleted\)\) of task \d+: it was deleted while in use, and its \d+ bytes of content are more than the limit of 30720 bytes\n +-> give --ghost-limit 1M, or more/,
  );
  const limits = ["--ghost-limit", "1M"];
  const check = await scope.ckpt("check", ...limits, `${program.pid}`);
  assertSuccess(check, "check");
  assertMatch(
    check.stdout,
    /descriptor \d+ \(\S+rich \(deleted\)\) of task \d+: deleted; \d+ bytes are saved/,
  );
  assertEquals(await program.verify(), "ok");
});

Deno.test("a restore that fails leaves nothing of deleted files", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const images = scope.path("images");
  await dump(scope, program, images);
  const place = `${program.work}/ghosts-${program.pid}`;
  const whole = Deno.readFileSync(`${images}/ghost-file-1.img`);
  Deno.writeFileSync(`${images}/ghost-file-1.img`, whole.subarray(0, 20000));
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assertEquals(answer.code, EXIT.image, answer.stderr);
  Deno.writeFileSync(`${images}/ghost-file-1.img`, whole);
  const taken = await scope.ckpt(
    ...["restore", "-d", "-D", images, "--pidfile", "/not/there"],
  );
  assertEquals(taken.code, EXIT.failed, taken.stderr);
  assertEquals([...Deno.readDirSync(place)], []);
  await scope.gone();
  await restore(scope, program, images);
  assertEquals([...Deno.readDirSync(place)], []);
  assertEquals(await program.verify(), "ok");
});

/** Makes an overlay m in the directory of a program, with a file in its lower layer. */
async function mountOverlay(scope: Scope, program: string): Promise<string> {
  const work = scope.path(`work-${program}`);
  for (const name of ["lower", "upper", "scratch", "m"]) {
    Deno.mkdirSync(`${work}/${name}`);
  }
  Deno.writeTextFileSync(`${work}/lower/lower`, "of the lower layer");
  await scope.unshareMounts(
    `mount -t overlay -o lowerdir=${work}/lower,upperdir=${work}/upper,` +
      `workdir=${work}/scratch none ${work}/m`,
  );
  return `${work}/m`;
}

Deno.test("ghost_names lower: a file that was deleted from an overlay is saved without an option", async () => {
  await using scope = new Scope();
  await mountOverlay(scope, "ghost_names");
  const program = await scope.start("ghost_names", "lower");
  for (const options of [["--link-remap"], []]) {
    const images = scope.path(`images${options}`);
    await dump(scope, program, images, ...options);
    await restore(scope, program, images);
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("a file of an overlay's upper layer with a name elsewhere is not copied without consent", async () => {
  await using scope = new Scope();
  const overlay = await mountOverlay(scope, "upper");
  const work = scope.path("work-upper");
  const program = await scope.startCommand(work, "/bin/bash", [
    "-c",
    "mkdir $0/d; echo content > $0/file; exec 3<$0/file; ln $0/file $0/d/other; rm $0/file; echo > ready; exec sleep 1000",
    overlay,
  ]);
  await program.ready();
  const check = await scope.ckpt("check", `${program.pid}`);
  assertEquals(check.code, EXIT.refused, check.stderr);
  assertMatch(check.stdout, /descriptor 3 .* it has another name/);
  const images = scope.path("images");
  await dump(scope, program, images, "--link-remap");
  await restore(scope, program, images);
  const { stdout } = await scope.bash(
    "[ /proc/$0/fd/3 -ef $1/d/other ] && cat /proc/$0/fd/3",
    `${program.pid}`,
    overlay,
  );
  assertEquals(stdout, "content\n");
});

Deno.test("ghost_names bound: a file that is mounted by itself is opened where it is", async () => {
  await using scope = new Scope();
  const work = scope.path("work-ghost_names");
  await scope.unshareMounts(
    `cd ${work}; printf content > source; : > bound; ` +
      "mount --bind source bound; rm source",
  );
  const program = await scope.start("ghost_names", "bound");
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertEquals(await program.verify(), "ok");
});

Deno.test("ghost_regular: deleted files of an overlay survive a dump and a restore", async () => {
  await using scope = new Scope();
  const overlay = await mountOverlay(scope, "ghost_regular");
  const program = await scope.start("ghost_regular", overlay);
  const before = program.observe();
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertUnchanged(before, program.observe(), "after the restore");
  assertEquals(await program.verify(), "ok");
});

const KILLS = LONG ? 60 : 12;
const KILLED_WITHIN_MS = 120;

Deno.test("a dump that is killed leaves links that ckpt clean removes, and a program that knows nothing", async () => {
  await using scope = new Scope();
  const program = await startHidden(scope);
  const images = scope.path("images");
  for (let i = 0; i < KILLS; i++) {
    const ckpt = scope.spawnCkpt(
      ...["dump", "-R", "--replace", "--link-remap"],
      ...["-t", `${program.pid}`, "-D", images],
    );
    await sleep(i * KILLED_WITHIN_MS / KILLS);
    kill(ckpt.pid, 9);
    await ckpt.status;
  }
  await until(
    "ckpt clean has removed all",
    async () =>
      (await scope.ckpt("clean", images)).code === EXIT.ok ? true : undefined,
  );
  assertEquals([...Deno.readDirSync(`${program.work}/base/a`)], []);
  assertEquals(
    [...Deno.readDirSync(images)].filter(({ name }) => name.startsWith(".")),
    [],
  );
  assertEquals(await program.verify(), "ok");
});

Deno.test("a restore that is killed leaves nothing of deleted files, and can be repeated", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const images = scope.path("images");
  await dump(scope, program, images);
  const place = `${program.work}/ghosts-${program.pid}`;
  for (let i = 0; i < KILLS; i++) {
    const ckpt = scope.spawnCkpt("restore", "-d", "-D", images);
    await sleep(i * KILLED_WITHIN_MS / KILLS / 2);
    kill(ckpt.pid, 9);
    await ckpt.status;
    for (const pid of program.tree()) kill(pid, 9);
    await scope.gone();
    // What has begun to make names and take them away goes on to the end.
    await until(
      "no name is left",
      () => [...Deno.readDirSync(place)].length === 0 ? true : undefined,
    );
  }
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});
