/** Random trees of fixed seeds: all that /proc shows of them is the same before and after, and each verifies itself. */
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

const SEEDS = 50;
/** Processes of the tree with this seed. */
const size = (seed: number) => LONG ? 5 + seed * 4 : 3 + seed % 16;

for (let seed = 1; seed <= SEEDS; seed++) {
  const processes = size(seed);
  Deno.test(`random_tree: seed ${seed}, ${processes} processes survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const program = await scope.start("random_tree", `${seed}`, `${processes}`);
    const before = program.observe();
    assertUnchanged(before, program.observe(), "at rest");
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
