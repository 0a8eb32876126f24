/**
 * Files on NFS, deleted and replaced by the program itself and by other clients: what run.sh tests in its guest. Every
 * scope is on NFS, the images as well.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/error.ts";
import {
  assertSuccess,
  dump,
  type Program,
  restore,
  Scope,
} from "../harness.ts";

/** NFS, the same as another client sees it, and the server's own directory. */
const [NFS, OTHER] = ["/mnt", "/other"];

function elsewhere(program: Program, name: string): string {
  return `${program.work}/${name}`.replace(NFS, OTHER);
}

/** Names in the directory of the program but for the protocol's. */
function names({ work }: Program): readonly string[] {
  return [...Deno.readDirSync(work)].map(({ name }) => name)
    .filter((name) => !["ready", "go", "result"].includes(name)).sort();
}

const SILLY = /^\.nfs[0-9a-f]{24}$/;

for (
  const [kind, what, left] of [
    ["kept", "a file", ["file"]],
    ["deleted", "a deleted file", []],
    ["replaced", "a file that another was renamed over", ["file"]],
    ["mapped", "a deleted file that is only mapped", []],
    ["device", "a deleted device", []],
    ["special", "a deleted fifo and a deleted symbolic link", []],
  ] satisfies [string, string, string[]][]
) {
  Deno.test(`lost_file ${kind}: ${what} verifies without a checkpoint`, async () => {
    await using scope = new Scope();
    const program = await scope.start("lost_file", kind);
    assertEquals(await program.verify(), "ok");
    assertEquals(names(program), left);
  });

  Deno.test(`lost_file ${kind}: ${what} survives two dumps and restores`, async () => {
    await using scope = new Scope();
    const program = await scope.start("lost_file", kind);
    for (const images of ["first", "second"]) {
      await dump(scope, program, scope.path(images));
      assertEquals(names(program), left, "after the dump");
      await restore(scope, program, scope.path(images));
    }
    assertEquals(await program.verify(), "ok");
    assertEquals(names(program), left);
  });

  Deno.test(`lost_file ${kind}: ${what} is there in a program left running, and restored later`, async () => {
    await using scope = new Scope();
    const program = await scope.start("lost_file", kind);
    const images = scope.path("images");
    assertSuccess(
      await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
      "dump",
    );
    assertEquals(await program.verify(), "ok");
    // Its file has changed by now.
    if (kind === "kept") return;
    program.forget();
    for (let i = 0; i < 2; i++) {
      await restore(scope, program, images);
      assertEquals(await program.verify(), "ok");
      program.forget();
    }
    assertEquals(names(program), left);
  });
}

Deno.test("lost_file linked: a deleted file with a name elsewhere is linked, and writes reach it", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "linked");
  const images = scope.path("images");
  await dump(scope, program, images, "--link-remap");
  await restore(scope, program, images);
  assertEquals(await program.verify(), "ok");
  const other = Deno.readTextFileSync(`${program.work}/below/other`);
  assertEquals([other.slice(0, 5), other.slice(-8)], ["Begin", "end more"]);
  assertSuccess(await scope.ckpt("clean", images), "clean");
  assertEquals(names(program), ["below"]);
});

/** The server has it no more: it must be said, and nothing may happen to the program. */
async function isRefused(scope: Scope, program: Program): Promise<void> {
  const images = `${scope.directory}/images`;
  for (
    const command of [
      ["check", `${program.pid}`],
      ["dump", "-t", `${program.pid}`, "-D", images],
    ]
  ) {
    const answer = await scope.ckpt(...command);
    assertEquals(answer.code, EXIT.refused, answer.stderr);
    assertMatch(
      answer.stdout + answer.stderr,
      /\(\/mnt\/\S+( \(deleted\))?\) of task \d+: another client or the server itself has deleted it/,
    );
  }
  assertEquals(program.poll(), undefined);
}

Deno.test("lost_file kept: a file that another client has deleted is refused", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "kept");
  Deno.removeSync(elsewhere(program, "file"));
  await isRefused(scope, program);
});

Deno.test("lost_file directory: a deleted directory is refused", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "directory");
  await isRefused(scope, program);
  assertEquals(await program.verify(), "ok");
});

Deno.test("lost_file kept: a file that another client has renamed is opened by its new name", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "kept");
  Deno.renameSync(elsewhere(program, "file"), elsewhere(program, "renamed"));
  await dump(scope, program, scope.path("images"));
  await restore(scope, program, scope.path("images"));
  assertEquals(await program.verify(), "ok");
  assertEquals(names(program), ["renamed"]);
  const text = Deno.readTextFileSync(`${program.work}/renamed`);
  assertEquals([text.slice(0, 5), text.slice(-8)], ["Begin", "end more"]);
});

Deno.test("lost_file kept: a file that another client has replaced is refused, and the new one stays", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "kept");
  Deno.writeTextFileSync(elsewhere(program, "new"), "of another client");
  Deno.renameSync(elsewhere(program, "new"), elsewhere(program, "file"));
  await isRefused(scope, program);
  // By this client it is still the old one for a while.
  const file = elsewhere(program, "file");
  assertEquals(Deno.readTextFileSync(file), "of another client");
});

Deno.test("lost_file below: a deleted file comes back where its directory is gone", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "below");
  const images = scope.path("images");
  await dump(scope, program, images);
  Deno.removeSync(`${program.work}/below`);
  for (let i = 0; i < 2; i++) {
    await restore(scope, program, images);
    assertEquals(await program.verify(), "ok");
    assertEquals(names(program), []);
    program.forget();
  }
});

Deno.test("lost_file deleted: check tells what would be saved", async () => {
  await using scope = new Scope();
  const program = await scope.start("lost_file", "deleted");
  const silly = names(program);
  assertEquals(silly.length, 1);
  assertMatch(silly[0], SILLY);
  const check = await scope.ckpt("check", `${program.pid}`);
  assertSuccess(check, "check");
  assertMatch(check.stdout, /\/\.nfs[0-9a-f]{24}\) of task \d+: deleted/);
  assertEquals(await program.verify(), "ok");
});
