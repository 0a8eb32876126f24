/** Freezing by a cgroup: of version 2 and 1, with cgroups below it, and one that was frozen before. */
import { assertEquals } from "@std/assert";
import {
  assertSuccess,
  assertUnchanged,
  type Program,
  Scope,
  until,
} from "./harness.ts";

interface Freezer {
  /** Where cgroups of this kind can be made; undefined where the host has none. */
  mount: string | undefined;
  file: string;
  frozen: string;
  thawed: string;
  isFrozen(directory: string): boolean;
}

function mountOf(type: string, option: string): string | undefined {
  for (
    const line of Deno.readTextFileSync("/proc/self/mountinfo").split("\n")
  ) {
    const [left, right] = line.split(" - ");
    if (right === undefined) continue;
    const [kind, , options] = right.split(" ");
    if (kind === type && options.split(",").includes(option)) {
      return left.split(" ")[4];
    }
  }
}

const FREEZERS: Record<string, Freezer> = {
  "version 2": {
    mount: mountOf("cgroup2", "rw"),
    file: "cgroup.freeze",
    frozen: "1",
    thawed: "0",
    isFrozen: (directory) =>
      /^frozen 1$/m.test(
        Deno.readTextFileSync(`${directory}/cgroup.events`),
      ),
  },
  "version 1": {
    mount: mountOf("cgroup", "freezer"),
    file: "freezer.state",
    frozen: "FROZEN",
    thawed: "THAWED",
    isFrozen: (directory) =>
      Deno.readTextFileSync(`${directory}/freezer.state`).trim() === "FROZEN",
  },
};

/** A tree in a cgroup of its own, half of it in one below. */
async function started(scope: Scope, freezer: Freezer) {
  const program = await scope.start("tree_shape", "2", "2", "1");
  const directory = `${freezer.mount}/ckpt-test-${crypto.randomUUID()}`;
  const below = `${directory}/below`;
  Deno.mkdirSync(below, { recursive: true });
  scope.defer(async () => {
    set(freezer, directory, false);
    await program.kill();
    for (const path of [below, directory]) {
      await until(`${path} is removed`, () => {
        try {
          Deno.removeSync(path);
          return true;
        } catch {
          return undefined;
        }
      });
    }
  });
  program.tree().forEach((pid, i) =>
    Deno.writeTextFileSync(
      `${i % 2 ? below : directory}/cgroup.procs`,
      `${pid}`,
    )
  );
  return { program, directory };
}

function set(freezer: Freezer, directory: string, frozen: boolean): void {
  Deno.writeTextFileSync(
    `${directory}/${freezer.file}`,
    frozen ? freezer.frozen : freezer.thawed,
  );
}

async function freeze(freezer: Freezer, directory: string): Promise<void> {
  set(freezer, directory, true);
  await until(
    `${directory} is frozen`,
    () => freezer.isFrozen(directory) || undefined,
  );
}

async function dumped(
  scope: Scope,
  program: Program,
  directory: string,
  ...options: string[]
): Promise<string> {
  const images = scope.path("images");
  assertSuccess(
    await scope.ckpt(
      "dump",
      "-t",
      `${program.pid}`,
      "-D",
      images,
      "--freeze-cgroup",
      directory,
      ...options,
    ),
    "dump",
  );
  return images;
}

for (const [version, freezer] of Object.entries(FREEZERS)) {
  const test = (
    what: string,
    run: (
      scope: Scope,
      program: Program,
      directory: string,
    ) => Promise<void>,
  ) =>
    Deno.test({
      name: `freezer of ${version}: ${what}`,
      ignore: freezer.mount === undefined,
      fn: async () => {
        await using scope = new Scope();
        const { program, directory } = await started(scope, freezer);
        await run(scope, program, directory);
      },
    });

  test(
    "a tree that is left running is thawed and as before",
    async (scope, program, directory) => {
      const before = program.observe();
      await dumped(scope, program, directory, "-R");
      assertEquals(freezer.isFrozen(directory), false);
      assertUnchanged(before, program.observe(), "after the dump");
      assertEquals(await program.verify(), "ok");
    },
  );

  test(
    "a tree is dumped, ended, and restored",
    async (scope, program, directory) => {
      const before = program.observe();
      const images = await dumped(scope, program, directory);
      await program.ended();
      await scope.gone();
      assertEquals(freezer.isFrozen(directory), false);
      assertSuccess(await scope.ckpt("restore", "-d", "-D", images), "restore");
      program.restored();
      assertUnchanged(before, program.observe(), "after the restore");
      assertEquals(await program.verify(), "ok");
    },
  );

  test(
    "a tree that was frozen before stays frozen when it is left running",
    async (scope, program, directory) => {
      const before = program.observe();
      await freeze(freezer, directory);
      await dumped(scope, program, directory, "-R");
      assertEquals(freezer.isFrozen(directory), true);
      set(freezer, directory, false);
      assertUnchanged(before, program.observe(), "after the dump");
      assertEquals(await program.verify(), "ok");
    },
  );

  test(
    "a tree that was frozen before is dumped, ended, and restored",
    async (scope, program, directory) => {
      await freeze(freezer, directory);
      const images = await dumped(scope, program, directory);
      // those that were killed end at the latest when they thaw
      set(freezer, directory, false);
      await program.ended();
      await scope.gone();
      assertSuccess(await scope.ckpt("restore", "-d", "-D", images), "restore");
      program.restored();
      set(freezer, directory, false);
      assertEquals(await program.verify(), "ok");
    },
  );
}
