/** Random histories of files, of fixed seeds, on every file system: what was one file is one file afterwards, and nothing else changed. */
import { assertEquals } from "@std/assert";
import { FILE_SYSTEMS, mountFileSystem } from "./file_systems.ts";
import {
  assertSuccess,
  compile,
  dump,
  LONG,
  type Program,
  restore,
  Scope,
} from "./harness.ts";

const SEEDS = LONG ? 200 : 4;
const FIRST = Number(Deno.env.get("CKPT_FIRST_SEED") ?? 1);

/** The program runs on, and what the dump made goes again. */
async function dumpAndGoOn(scope: Scope, program: Program): Promise<void> {
  const images = scope.path(`running-${program.pid}`);
  assertSuccess(
    await scope.ckpt(
      ...["dump", "-R", "--link-remap", "-t", `${program.pid}`, "-D", images],
    ),
    "dump -R",
  );
  assertSuccess(await scope.ckpt("clean", images), "clean");
}

for (const name of FILE_SYSTEMS) {
  Deno.test(`ghost_random: ${SEEDS} histories of files on ${name} survive`, async () => {
    await using scope = new Scope();
    const { places } = await mountFileSystem(scope, name);
    const failures: string[] = [];
    for (let seed = FIRST; seed < FIRST + SEEDS; seed++) {
      const processes = 1 + seed % 4;
      const steps = 30 + seed * 37 % 90;
      const own = places.map((place) => `${place}/${seed}`);
      assertSuccess(await scope.run("mkdir", own), "mkdir");
      const work = scope.path(`work-${seed}`);
      const program = await scope.startCommand(
        work,
        await compile("ghost_random"),
        [work, `${seed}`, `${processes}`, `${steps}`, ...own],
      );
      await program.ready();
      try {
        if (seed % 3 === 0) await dumpAndGoOn(scope, program);
        for (const images of seed % 2 === 0 ? ["first", "second"] : ["first"]) {
          const directory = scope.path(`${images}-${seed}`);
          await dump(scope, program, directory, "--link-remap");
          await restore(scope, program, directory);
        }
        const result = await program.verify();
        if (result !== "ok") failures.push(`seed ${seed}: ${result}`);
      } catch (error) {
        failures.push(`seed ${seed}: ${error}`);
      }
    }
    assertEquals(failures, []);
  });
}
