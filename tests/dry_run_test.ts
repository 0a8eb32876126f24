/** --dry-run: everything is told, and nothing done. */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { assertUnchanged, dump, restore, Scope } from "./harness.ts";

Deno.test("a dry run of a dump tells tasks, memory and files, and touches nothing", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const before = program.observe();
  const images = `${scope.directory}/images`;
  const options = ["dump", "--dry-run", "-t", `${program.pid}`, "-D", images];
  const { code, stdout, stderr } = await scope.ckpt(...options);
  assertEquals(code, EXIT.ok, stderr);
  assertMatch(
    stdout,
    /^task \d+ can be dumped: ckpt dump --tree \d+\n +task \d+ \(ghost_regular\): \d+ threads?, [\d.]+ \SiB of memory in use\n/,
  );
  assertMatch(stdout, /rich \(deleted\)\) of task \d+: deleted; \d+ bytes/);
  const json = await scope.ckpt(...options, "--json");
  const { result } = JSON.parse(json.stdout);
  assertEquals(result.processes[0].pid, program.pid);
  assertEquals(result.files.length > 0, true);
  assertEquals(
    [...Deno.readDirSync(scope.directory)].filter(({ name }) =>
      name === "images"
    ),
    [],
  );
  assertUnchanged(before, program.observe(), "after the dry runs");

  const limited = await scope.ckpt(...options, "--ghost-limit", "1K");
  assertEquals(limited.code, EXIT.refused);
  assertMatch(limited.stdout, /-> give --ghost-limit/);
  const nowhere = await scope.ckpt(
    ...["dump", "--dry-run", `${program.pid}`, "-D", "/not/there"],
  );
  assertEquals(nowhere.code, EXIT.refused);
  assertMatch(nowhere.stdout, /\/not\/there: cannot be made/);
  assertEquals(await program.verify(), "ok");
});

Deno.test("a dry run of a restore tells what would be started, or why not, and starts nothing", async () => {
  await using scope = new Scope();
  const program = await scope.start("ghost_regular");
  const images = scope.path("images");
  await dump(scope, program, images);
  const files = () => [...Deno.readDirSync(images)].map(({ name }) => name);
  const before = files();
  const dry = ["restore", "--dry-run", "-D", images];
  const { code, stdout, stderr } = await scope.ckpt(...dry);
  assertEquals(code, EXIT.ok, stderr);
  assertMatch(
    stdout,
    /images can be restored\n +task \d+ \(ghost_regular\): \d+ threads?, [\d.]+ \SiB of memory to be read\n/,
  );
  assertMatch(stdout, /rich: deleted; it is made again, without a name/);
  const json = await scope.ckpt(...dry, "--json");
  assertEquals(JSON.parse(json.stdout).result.plan.reasons, []);
  assertEquals(program.exists(), false);
  assertEquals(files(), before);

  await restore(scope, program, images);
  const again = await scope.ckpt(
    ...["dump", "--dry-run", "-t", `${program.pid}`, "-D", images],
  );
  assertMatch(again.stdout, /images: holds another image\n +-> name another/);
  const taken = await scope.ckpt(...dry);
  assertEquals(taken.code, EXIT.refused, taken.stderr);
  assertMatch(taken.stdout, /images cannot be restored here:\n/);
  assertEquals(await program.verify(), "ok");
});
