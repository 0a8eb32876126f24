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
  restore,
  Scope,
} from "./harness.ts";

/**
 * Declares the tests of one program.
 * @param program its name in tests/programs
 * @param holds what state it holds; the subject of the tests' sentences
 * @param args what the program gets besides its directory; it is part of the tests' names
 * @param options what both commands are given
 * @param expires its picture holds for seconds only, so that it is not compared once the original has ended
 */
export function survives(
  program: string,
  holds: string,
  { args = [], expires = false, options = [] }: {
    args?: string[];
    expires?: boolean;
    options?: string[];
  } = {},
): void {
  const name = [program, ...args].join(" ");
  Deno.test(`${name}: ${holds} verify without a checkpoint`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, ...args);
    // the observer itself must not see differences in a program at rest
    assertUnchanged(started.observe(), started.observe(), "at rest");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, ...args);
    const before = started.observe();
    await dump(scope, started, scope.path("images"), ...options);
    await restore(scope, started, scope.path("images"), ...options);
    assertUnchanged(before, started.observe(), "after the restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} survive a second dump and restore`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, ...args);
    const before = started.observe();
    for (const images of ["first", "second"]) {
      await dump(scope, started, scope.path(images), ...options);
      await restore(scope, started, scope.path(images), ...options);
    }
    assertUnchanged(before, started.observe(), "after the second restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${name}: ${holds} are as before in a program left running`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program, ...args);
    const before = started.observe();
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
    assertUnchanged(before, started.observe(), "after the dump");
    assertEquals(await started.verify(), "ok");
    started.forget();
    files.putBack();
    await restore(scope, started, images, ...options);
    if (!expires) {
      assertUnchanged(before, started.observe(), "after the restore");
    }
    assertEquals(await started.verify(), "ok");
  });
}
