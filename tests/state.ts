/**
 * The tests that every program of tests/programs goes through: alone, dumped and restored, dumped and restored
 * twice, and left running. A program that fails alone is at fault itself (or this machine is).
 */
import { assertEquals } from "@std/assert";
import {
  assertSuccess,
  assertUnchanged,
  dump,
  Files,
  type Program,
  restore,
  Scope,
  until,
} from "./harness.ts";
import { difference, type Observation } from "./observe.ts";

/**
 * The picture of a program when every thread is back in the call that it was in, with the signal mask of that: on a
 * busy machine it takes a moment until all have run.
 */
async function inItsCalls(
  program: Program,
  before: Observation,
  end: number,
): Promise<Observation> {
  const calls = (seen: Observation) =>
    new Map([...seen].filter(([name]) => name.endsWith("/syscall")));
  return await until("every thread is in its call again", () => {
    const after = program.observe();
    return difference(calls(before), calls(after)).length === 0 ||
        performance.now() > end
      ? after
      : undefined;
  }).catch(() => program.observe());
}

/**
 * Declares the tests of one program.
 * @param program its name in tests/programs
 * @param holds what state it holds; the subject of the tests' sentences
 * @param args what the program gets besides its directory; it is part of the tests' names
 * @param options what both commands are given
 * @param expires after how many seconds its picture holds no more, and is not compared; what it verifies itself counts
 */
export function survives(
  program: string,
  holds: string,
  { args = [], expires = Infinity, options = [] }: {
    args?: string[];
    expires?: number;
    options?: string[];
  } = {},
): void {
  const name = [program, ...args].join(" ");
  /** Starts the program; returns it, and what compares its picture of now with a later one. */
  const start = async (scope: Scope) => {
    const end = performance.now() + expires * 1000;
    const started = await scope.start(program, ...args);
    const before = started.observe();
    const compare = async (when: string) => {
      const after = await inItsCalls(started, before, end);
      if (performance.now() < end) assertUnchanged(before, after, when);
    };
    return { started, compare };
  };

  Deno.test(`${name}: ${holds} verify without a checkpoint`, async () => {
    await using scope = new Scope();
    const { started, compare } = await start(scope);
    // the observer itself must not see differences in a program at rest
    await compare("at rest");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const { started, compare } = await start(scope);
    await dump(scope, started, scope.path("images"), ...options);
    await restore(scope, started, scope.path("images"), ...options);
    await compare("after the restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} survive a second dump and restore`, async () => {
    await using scope = new Scope();
    const { started, compare } = await start(scope);
    for (const images of ["first", "second"]) {
      await dump(scope, started, scope.path(images), ...options);
      await restore(scope, started, scope.path(images), ...options);
    }
    await compare("after the second restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} are as before in a program left running`, async () => {
    await using scope = new Scope();
    const { started, compare } = await start(scope);
    const files = new Files(scope.directory);
    const images = scope.path("images");
    assertSuccess(
      await scope.ckpt(
        "dump",
        "-R",
        "-t",
        `${started.pid}`,
        "-D",
        images,
        ...options,
      ),
      "dump",
    );
    await compare("after the dump");
    assertEquals(await started.verify(), "ok");
    started.forget();
    files.putBack();
    await restore(scope, started, images, ...options);
    await compare("after the restore");
    assertEquals(await started.verify(), "ok");
  });
}

/**
 * Defines a test of a program that builds random state from a seed: it survives a dump (odd seeds) or is left running
 * first (even ones), and a restore, with the same picture, and verifies itself.
 *
 * @param program its name in tests/programs; it gets the seed and `size`
 * @param size how much state, `unit` of it
 */
export function survivesAtRandom(
  program: string,
  seed: number,
  size: number,
  unit: string,
): void {
  Deno.test(`${program}: seed ${seed}, ${size} ${unit} survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, `${seed}`, `${size}`);
    const before = started.observe();
    assertUnchanged(before, started.observe(), "at rest");
    const files = new Files(scope.directory);
    const images = scope.path("images");
    if (seed % 2 === 0) {
      assertSuccess(
        await scope.ckpt("dump", "-R", "-t", `${started.pid}`, "-D", images),
        "dump",
      );
      assertUnchanged(before, started.observe(), "after the dump");
      assertEquals(await started.verify(), "ok");
      started.forget();
      files.putBack();
    } else {
      await dump(scope, started, images);
    }
    await restore(scope, started, images);
    assertUnchanged(before, started.observe(), "after the restore");
    assertEquals(await started.verify(), "ok");
  });
}
