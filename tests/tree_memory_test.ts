/** Memory between processes: shared areas stay shared, and what fork has shared until it is written stays so, too. */
import { assert, assertEquals } from "@std/assert";
import { dump, LONG, type Program, restore, Scope } from "./harness.ts";
import { survives } from "./state.ts";

survives("tree_shared_memory", "anonymous memory shared by processes");
survives("tree_cow", "private memory inherited over fork", {
  args: ["8", "4", "moved"],
});
survives("tree_shm", "attached System V shared memory");

const MIB = 1024;

/** Memory that the whole tree uses, KiB: what several share is counted once. */
function used(program: Program): number {
  return program.tree().map((pid) => {
    const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
    return Number(/^Pss:\s+(\d+) kB/m.exec(text)?.[1]);
  }).reduce((sum, pss) => sum + pss);
}

for (const times of LONG ? [1, 2, 5] : [1]) {
  Deno.test(`tree_cow: 200 MiB with 8 children use as much memory as before after being dumped and restored, times: ${times}`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_cow", "200", "8");
    const before = used(program);
    for (let i = 0; i < times; i++) {
      await dump(scope, program, scope.path(`images-${i}`));
      await restore(scope, program, scope.path(`images-${i}`));
    }
    const after = used(program);
    assert(before > 200 * MIB && before < 260 * MIB, `${before} KiB before`);
    assert(
      Math.abs(after - before) < before / 20,
      `${before} KiB before, ${after} KiB after`,
    );
    assertEquals(await program.verify(), "ok");
  });
}
