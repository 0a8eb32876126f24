/** Files that have changed between dump and restore are recognised, by --file-validation. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { dump, type Program, restore, Scope } from "./harness.ts";

/** A program in the scope, which may be changed: sleep(1), with its build-id or without. */
async function startSleep(
  scope: Scope,
  withId: boolean,
): Promise<{ program: Program; path: string }> {
  const work = scope.path("work");
  const path = `${work}/sleep`;
  const made = await scope.bash(
    withId
      ? `cp /bin/sleep ${path}`
      : `objcopy -R .note.gnu.build-id /bin/sleep ${path}`,
  );
  assertEquals(made.code, 0, made.stderr);
  const program = await scope.startCommand(work, path, ["1000"]);
  return { program, path };
}

/** Changes one byte of a file, of the note with its build-id or of its text, and keeps its times (to the millisecond). */
function change(path: string, where: "note" | "text"): () => void {
  const before = Deno.readFileSync(path);
  const { atime, mtime } = Deno.statSync(path);
  const after = before.slice();
  const text = new TextDecoder("latin1").decode(before);
  // Type 3 and the name of its owner; the build-id follows.
  const at = where === "note"
    ? text.indexOf("\x03\0\0\0GNU\0") + 8
    : text.indexOf("invalid time interval");
  assertEquals(at > 8, true);
  after[at] ^= 1;
  Deno.writeFileSync(path, after);
  Deno.utimeSync(path, atime!, mtime!);
  return () => {
    Deno.writeFileSync(path, before);
    Deno.utimeSync(path, atime!, mtime!);
  };
}

async function refused(
  scope: Scope,
  images: string,
  expected: RegExp,
  ...options: string[]
): Promise<void> {
  const answer = await scope.ckpt("restore", "-d", "-D", images, ...options);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(answer.stderr, expected);
  await scope.gone();
}

Deno.test("a program of the same size with another build-id is refused, unless told not to look", async () => {
  await using scope = new Scope();
  const { program, path } = await startSleep(scope, true);
  const images = scope.path("images");
  await dump(scope, program, images);
  change(path, "text");
  await restore(scope, program, images);
  await program.kill();
  change(path, "note");
  const expected =
    /file \S+\/sleep: its build-id is [0-9a-f]{40}, it was [0-9a-f]{40}: it is another version\n +-> put back the one of the dump, or give --file-validation filesize/;
  await refused(scope, images, expected);
  await refused(scope, images, expected, "--file-validation", "buildid");
  await refused(
    scope,
    images,
    /--file-validation mtime: the image has nothing to compare by this\n +-> leave it out; a dump with --file-validation mtime records it/,
    ...["--file-validation", "filesize,mtime"],
  );
  await restore(scope, program, images, "--file-validation", "filesize");
});

Deno.test("a program without a build-id is recognised by its content", async () => {
  await using scope = new Scope();
  const { program, path } = await startSleep(scope, false);
  const images = scope.path("images");
  await dump(scope, program, images);
  const undo = change(path, "text");
  await refused(
    scope,
    images,
    /file \S+\/sleep: the checksum of its content is [0-9a-f]{64}, it was [0-9a-f]{64}\n/,
  );
  undo();
  await restore(scope, program, images);
});

Deno.test("with checksum the content counts, with mtime the time", async () => {
  await using scope = new Scope();
  const { program, path } = await startSleep(scope, true);
  const images = scope.path("images");
  await dump(scope, program, images, "--file-validation", "checksum,mtime");
  const undo = change(path, "text");
  await refused(
    scope,
    images,
    /sleep: the checksum of its content is/,
    ...["--file-validation", "checksum"],
  );
  undo();
  Deno.utimeSync(path, 1, 1_000_000_000.5);
  await refused(
    scope,
    images,
    /sleep: it was modified 2001-09-09 01:46:40.500000000 UTC, and when it was dumped /,
  );
  await restore(scope, program, images, "--file-validation", "checksum");
});

Deno.test("a file of another size is taken with --file-validation none only", async () => {
  await using scope = new Scope();
  const { program, path } = await startSleep(scope, true);
  const images = scope.path("images");
  await dump(scope, program, images);
  Deno.writeTextFileSync(path, "\n", { append: true });
  await refused(scope, images, /its size is \d+, it was \d+/);
  await refused(
    scope,
    images,
    /its size is \d+, it was \d+/,
    ...["--file-validation", "filesize"],
  );
  await restore(scope, program, images, "--file-validation", "none");
});
