/**
 * Bad input through the whole command: images that are damaged, tasks that cannot be dumped, directories that cannot
 * be used. Each gives its exit code and names its object; no process is left, no program harmed.
 */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { encodeImage } from "../lib/image/framing.ts";
import { readImageSet } from "../lib/image/image_set.ts";
import { core_entry_march } from "../lib/image/schema.gen.ts";
import {
  assertSuccess,
  assertUnchanged,
  CKPT,
  dump,
  LONG,
  type Program,
  restore,
  run,
  Scope,
} from "./harness.ts";
import { children, reap } from "./libc.ts";

/** How many damaged images go through the command. */
const DAMAGES = LONG ? 1000 : 200;

/** A random number generator that can be told where to start, so that a failure can be repeated. */
function randomNumbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** A file of an image that a restore reads; pages carry no checksum, statistics are for people. */
function isMetadata(name: string): boolean {
  return name.endsWith(".img") && !name.startsWith("pages-");
}

interface Damage {
  file: string;
  what: string;
}

/** Damages one file of the image directory in a way that `random` chooses. */
function damage(directory: string, random: (below: number) => number): Damage {
  const files = Array.from(Deno.readDirSync(directory), (entry) => entry.name)
    .filter(isMetadata).sort();
  const file = files[random(files.length)];
  const path = `${directory}/${file}`;
  const bytes = Deno.readFileSync(path);
  const at = random(bytes.length);
  switch (random(6)) {
    case 0:
      Deno.removeSync(path);
      return { file, what: "removed" };
    case 1:
      Deno.truncateSync(path, at);
      return { file, what: `cut to ${at} of ${bytes.length} bytes` };
    case 2:
      Deno.writeFileSync(path, new Uint8Array(random(20)), { append: true });
      if (Deno.statSync(path).size === bytes.length) Deno.truncateSync(path);
      return { file, what: "zeros appended, or emptied" };
    case 3: {
      for (let i = at; i < Math.min(at + 8, bytes.length); i++) bytes[i] ^= 255;
      Deno.writeFileSync(path, bytes);
      return { file, what: `8 bytes inverted at ${at}` };
    }
    default: {
      const bit = random(8);
      bytes[at] ^= 1 << bit;
      Deno.writeFileSync(path, bytes);
      return { file, what: `bit ${bit} of byte ${at} flipped` };
    }
  }
}

function copyDirectory(from: string, to: string): void {
  Deno.mkdirSync(to);
  for (const entry of Deno.readDirSync(from)) {
    Deno.copyFileSync(`${from}/${entry.name}`, `${to}/${entry.name}`);
  }
}

/** Fails when a restore that failed has left a process. */
function assertNoProcess(known: readonly number[], what: string): void {
  const left = children().filter((pid) => !known.includes(pid))
    .filter((pid) => reap(pid) === "running");
  assertEquals(left, [], `processes left: ${what}`);
}

async function dumpedProgram(
  scope: Scope,
): Promise<{ program: Program; images: string; known: number[] }> {
  const program = await scope.start("holds", "nothing");
  const images = scope.path("images");
  await dump(scope, program, images);
  return { program, images, known: children() };
}

Deno.test(`${DAMAGES} damaged images are refused by the name of the damaged file`, async () => {
  await using scope = new Scope();
  const { program, images, known } = await dumpedProgram(scope);
  for (let seed = 1; seed <= DAMAGES; seed++) {
    const copy = `${scope.directory}/damaged`;
    copyDirectory(images, copy);
    const { file, what } = damage(copy, randomNumbers(seed));
    const label = `seed ${seed}: ${file} ${what}`;
    const answer = await scope.ckpt("restore", "-d", "-D", copy);
    assertEquals(answer.code, EXIT.image, `${label}: ${answer.stderr}`);
    assertStringIncludes(answer.stderr, file, label);
    assertNoProcess(known, label);
    Deno.removeSync(copy, { recursive: true });
  }
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a page file that is too short is refused", async () => {
  await using scope = new Scope();
  const { program, images, known } = await dumpedProgram(scope);
  const pages = Array.from(Deno.readDirSync(images), (entry) => entry.name)
    .find((name) => name.startsWith("pages-"));
  assert(pages !== undefined, "no page file");
  const path = `${images}/${pages}`;
  const whole = Deno.readFileSync(path);
  for (const length of [0, 1, 4095, whole.length - 4096, whole.length - 1]) {
    Deno.truncateSync(path, length);
    const answer = await scope.ckpt("restore", "-d", "-D", images);
    assertEquals(answer.code, EXIT.image, answer.stderr);
    assertStringIncludes(answer.stderr, pages);
    assertNoProcess(known, `${length} bytes of pages`);
  }
  Deno.writeFileSync(path, whole);
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("an image of an unknown version, or of another machine, is refused by that", async () => {
  await using scope = new Scope();
  const program = await scope.start("busy");
  const images = scope.path("images");
  await dump(scope, program, images);
  // as an image of CRIU: without the manifest nothing tells of the changes
  Deno.removeSync(`${images}/ckpt-manifest.json`);
  const set = readImageSet(images);
  const core = set.require("core", program.pid);
  for (
    const [file, bytes, words] of [
      [
        "inventory.img",
        encodeImage("inventory", { ...set.inventory, img_version: 9 }),
        /img_version/,
      ],
      [
        `core-${program.pid}.img`,
        encodeImage("core", { ...core, mtype: core_entry_march.AARCH64 }),
        /mtype/,
      ],
    ] as const
  ) {
    const path = `${images}/${file}`;
    const whole = Deno.readFileSync(path);
    Deno.writeFileSync(path, bytes);
    const answer = await scope.ckpt("restore", "-d", "-D", images);
    assertEquals(answer.code, EXIT.image, answer.stderr);
    assertStringIncludes(answer.stderr, file);
    assertMatch(answer.stderr, words);
    Deno.writeFileSync(path, whole);
  }
  await restore(scope, program, images);
});

Deno.test("a directory without an image is refused, and so is none at all", async () => {
  await using scope = new Scope();
  const known = children();
  for (const directory of [scope.path("empty"), `${scope.directory}/none`]) {
    const answer = await scope.ckpt("restore", "-d", "-D", directory);
    assertEquals(answer.code, EXIT.image, answer.stderr);
    assertStringIncludes(answer.stderr, directory);
    assertNoProcess(known, directory);
  }
});

Deno.test("a restore is refused while the pid is in use, and works when it is free", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  const before = program.observe();
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
    "dump",
  );
  const known = children();
  const answer = await scope.ckpt("restore", "-d", "-D", images);
  assert(answer.code !== EXIT.ok);
  assertStringIncludes(answer.stderr, `${program.pid}`);
  assertNoProcess(known, "pid in use");
  assertUnchanged(before, program.observe(), "after a restore over it");
  assertEquals(await program.verify(), "ok");
  program.forget();
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a task that is gone is told apart from one that cannot be dumped", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  assertEquals(await program.verify(), "ok");
  const answer = await scope.ckpt(
    "dump",
    "-t",
    `${program.pid}`,
    "-D",
    scope.path("images"),
  );
  assertEquals(answer.code, EXIT.gone, answer.stderr);
  assertStringIncludes(answer.stderr, `${program.pid}`);
});

Deno.test("a kernel thread is refused", async () => {
  // pid 2 is kthreadd where the pid namespace shows it at all
  let command = "";
  try {
    command = Deno.readTextFileSync("/proc/2/comm").trim();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  if (command !== "kthreadd") return;
  await using scope = new Scope();
  const answer = await scope.ckpt("dump", "-t", "2", "-D", scope.path("i"));
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertStringIncludes(answer.stderr, "kernel");
});

Deno.test("ckpt does not dump itself or a tree that it is part of", async () => {
  await using scope = new Scope();
  const images = scope.path("images");
  const itself = await run("sh", [
    "-c",
    `exec "$0" dump -t $$ -D "$1"`,
    CKPT,
    images,
  ]);
  assertEquals(itself.code, EXIT.refused, itself.stderr);
  const parent = await run("sh", [
    "-c",
    `"$0" dump -t $$ -D "$1"; exit $?`,
    CKPT,
    images,
  ]);
  assertEquals(parent.code, EXIT.refused, parent.stderr);
});

Deno.test("pids that are none are refused as a usage error", async () => {
  await using scope = new Scope();
  const images = scope.path("images");
  for (const pid of ["0", "-1", "abc", "1x", "", "99999999999999999999"]) {
    const answer = await scope.ckpt("dump", "-t", pid, "-D", images);
    assertEquals(answer.code, EXIT.usage, `${pid}: ${answer.stderr}`);
  }
});

Deno.test("a dump is not written over another one", async () => {
  await using scope = new Scope();
  const program = await scope.start("holds", "nothing");
  const images = scope.path("images");
  const dumpAgain = () =>
    scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images);
  assertSuccess(await dumpAgain(), "dump");
  const contents = () =>
    Array.from(Deno.readDirSync(images), (entry) => entry.name).sort()
      .map((name) => [name, Deno.readFileSync(`${images}/${name}`)]);
  const before = contents();
  const answer = await dumpAgain();
  assert(answer.code !== EXIT.ok);
  assertStringIncludes(answer.stderr, images);
  assertEquals(contents(), before);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a directory that is a file, is missing or is read-only cannot hold images", async () => {
  await using scope = new Scope();
  await scope.unshareMounts(
    "mkdir read-only\nmount -t tmpfs -o ro none read-only",
  );
  const program = await scope.start("holds", "nothing");
  const before = program.observe();
  const file = `${scope.directory}/file`;
  Deno.writeTextFileSync(file, "");
  for (
    const directory of [
      file,
      `${scope.directory}/none/deeper`,
      `${scope.directory}/read-only`,
    ]
  ) {
    const answer = await scope.ckpt(
      "dump",
      "-t",
      `${program.pid}`,
      "-D",
      directory,
    );
    assert(answer.code !== EXIT.ok);
    assertStringIncludes(answer.stderr, directory);
    assertUnchanged(before, program.observe(), directory);
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("a full disk fails the dump, leaves no image and an unharmed program", async () => {
  for (const size of ["4k", "64k", "256k", "1M", "2M"]) {
    await using scope = new Scope();
    await scope.unshareMounts(
      `mkdir small\nmount -t tmpfs -o size=${size} none small`,
    );
    const program = await scope.start("mem_private");
    const before = program.observe();
    const answer = await scope.ckpt(
      "dump",
      "-t",
      `${program.pid}`,
      "-D",
      `${scope.directory}/small`,
    );
    assertEquals(answer.code, EXIT.failed, `${size}: ${answer.stderr}`);
    assertMatch(answer.stderr, /no space left on device/i);
    assertUnchanged(before, program.observe(), size);
    const left = await scope.run("find", [
      `${scope.directory}/small`,
      "-name",
      "*.img",
    ]);
    assertEquals(left.stdout, "", `images left on ${size}`);
    assertEquals(await program.verify(), "ok");
  }
});
