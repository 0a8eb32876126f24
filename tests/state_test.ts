/**
 * Every kind of state that ckpt saves, by a program of tests/programs that builds it and verifies it. Each runs
 * without a checkpoint first: what fails there is the program's own fault (or this machine's).
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

/** Name of the program: what it holds. */
const PROGRAMS: Record<string, string> = {
  mem_private: "anonymous private memory, its protections, holes and gaps",
  mem_files: "mapped files and shared anonymous memory",
  mem_advice: "madvise and mlock flags and guard pages",
  mem_growth: "heap and stacks that grow",
  identity: "arguments, environment, auxv, exe, name, ids and the vdso",
  registers: "general purpose registers, flags and the red zone",
  fpu: "all extended state of the processor",
  threads: "many threads with masks, stacks and memory of their own",
};

for (const [program, holds] of Object.entries(PROGRAMS)) {
  Deno.test(`${program}: ${holds} verify without a checkpoint`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program);
    // the observer itself must not see differences in a program at rest
    assertUnchanged(started.observe(), started.observe(), "at rest");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${program}: ${holds} survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program);
    const before = started.observe();
    await dump(scope, started, scope.path("images"));
    await restore(scope, started, scope.path("images"));
    assertUnchanged(before, started.observe(), "after the restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${program}: ${holds} survive a second dump and restore`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program);
    const before = started.observe();
    for (const images of ["first", "second"]) {
      await dump(scope, started, scope.path(images));
      await restore(scope, started, scope.path(images));
    }
    assertUnchanged(before, started.observe(), "after the second restore");
    assertEquals(await started.verify(), "ok");
  });

  Deno.test(`${program}: ${holds} are as before in a program left running`, async () => {
    await using scope = new Scope();
    const started = await scope.start(program);
    const before = started.observe();
    const files = new Files(scope.directory);
    const images = scope.path("images");
    assertSuccess(
      await scope.ckpt("dump", "-R", "-t", `${started.pid}`, "-D", images),
      "dump",
    );
    assertUnchanged(before, started.observe(), "after the dump");
    assertEquals(await started.verify(), "ok");
    started.forget();
    files.putBack();
    await restore(scope, started, images);
    assertUnchanged(before, started.observe(), "after the restore");
    assertEquals(await started.verify(), "ok");
  });
}
