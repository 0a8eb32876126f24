/** What a dump leaves on disk. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { assertSuccess, dump, Scope } from "./harness.ts";

const PAGE = 4096;

Deno.test("image files are for their owner only", async () => {
  await using scope = new Scope();
  const program = await scope.start("mem_files");
  const images = scope.path("images");
  await dump(scope, program, images);
  for (const entry of Deno.readDirSync(images)) {
    const { mode } = Deno.statSync(`${images}/${entry.name}`);
    assertEquals((mode ?? 0) & 0o777, 0o600, entry.name);
  }
});

Deno.test("neither untouched memory nor a page of zeros is stored", async () => {
  await using scope = new Scope();
  const program = await scope.start("mem_private");
  const images = scope.path("images");
  await dump(scope, program, images);
  let stored = 0;
  for (const entry of Deno.readDirSync(images)) {
    if (!entry.name.startsWith("pages-")) continue;
    const bytes = Deno.readFileSync(`${images}/${entry.name}`);
    for (let at = 0; at < bytes.length; at += PAGE) {
      const page = bytes.subarray(at, at + PAGE);
      assert(
        page.some((byte) => byte !== 0),
        `${entry.name} holds a page of zeros at ${at}`,
      );
      stored += page.length;
    }
  }
  // mem_private writes some 17.5 MiB, and maps more than 3 GiB
  assert(stored > 17 << 20 && stored < 20 << 20, `${stored} bytes are stored`);
});

Deno.test("show tells what an image holds", async () => {
  await using scope = new Scope();
  const program = await scope.start("threads");
  const images = scope.path("images");
  await dump(scope, program, images);
  const text = await scope.ckpt("show", images);
  assertSuccess(text, "show");
  assertStringIncludes(text.stdout, `${program.pid}`);
  const json = await scope.ckpt("show", "--json", images);
  assertSuccess(json, "show --json");
  JSON.parse(json.stdout);
});
