/** Random graphs of descriptors of fixed seeds: which are one open file, and what is in each, is the same before and after. */
import { assertEquals } from "@std/assert";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  Files,
  LONG,
  restore,
  Scope,
} from "./harness.ts";

const SEEDS = LONG ? 300 : 12;

for (let seed = 1; seed <= SEEDS; seed++) {
  const steps = 40 + seed * 7 % 120;
  Deno.test(`random_descriptors: seed ${seed}, ${steps} steps survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const program = await scope.start(
      "random_descriptors",
      `${seed}`,
      `${steps}`,
    );
    const before = program.observe();
    const files = new Files(scope.directory);
    const images = scope.path("images");
    // every second one is left running first
    if (seed % 2 === 0) {
      assertSuccess(
        await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", images),
        "dump",
      );
      assertUnchanged(before, program.observe(), "after the dump");
      assertEquals(await program.verify(), "ok");
      program.forget();
      files.putBack();
    } else {
      await dump(scope, program, images);
    }
    await restore(scope, program, images);
    assertUnchanged(before, program.observe(), "after the restore");
    assertEquals(await program.verify(), "ok");
  });
}
