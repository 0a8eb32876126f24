import { assert, assertEquals } from "@std/assert";
import { bundle } from "../bundle.ts";
import { train } from "./training.ts";

const root = `${import.meta.dirname}/../..`;
const deno = `${root}/node_modules/deno/deno`;
const library = `${root}/dist/libckpt.so`;
const trainee = `${root}/c/build/pack/trainee`;

async function programs(): Promise<{ dump: string; restore: string }> {
  const cwd = Deno.cwd();
  Deno.chdir(root);
  try {
    const [dump, restore] = await Promise.all(
      ["lib/cli/main_dump.ts", "lib/cli/main_restore.ts"].map(bundle),
    );
    return { dump, restore };
  } finally {
    Deno.chdir(cwd);
  }
}

Deno.test("a program is dumped and restored to learn which functions run, and nothing stays of it", async () => {
  const path = Deno.realPathSync(trainee);
  const running = () =>
    [...Deno.readDirSync("/proc")].filter(({ name }) => {
      try {
        return Deno.readLinkSync(`/proc/${name}/exe`) === path;
      } catch {
        return false;
      }
    }).length;
  const trained = await train(deno, library, trainee, await programs());
  assert(trained !== undefined);
  assert(trained.dump.length > 300_000);
  assert(trained.restore.length > 300_000);
  while (running() > 0) await new Promise((done) => setTimeout(done, 10));
});

Deno.test("where nothing can be dumped nothing is learnt", async () => {
  const none = await train(deno, library, "/bin/true", await programs());
  assertEquals(none, undefined);
});
