/** Threads: registers, what they wait for, what the kernel knows of them. */
import { assertEquals } from "@std/assert";
import { assertSuccess, dump, restore, Scope } from "./harness.ts";
import { survives } from "./state.ts";

survives("registers", "general purpose registers, flags and the red zone");
survives("fpu", "all extended states of the processor");
survives("threads", "many threads with masks, stacks and memory of their own");
survives("syscalls", "interrupted system calls of every kind", {
  expires: 4,
});
survives("rseq", "restartable sequences");
survives("robust", "robust lists and thread ids that wake a joiner");
survives("sched", "policies, priorities, nice values and affinities");
survives("leaderless", "a process whose first thread has ended");
survives("user_dispatch", "threads under syscall user dispatch");

Deno.test("churn: threads and mappings that come and go are all saved", async () => {
  await using scope = new Scope();
  const program = await scope.start("churn");
  for (const images of ["first", "second", "third"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
});

Deno.test("churn: threads and mappings that come and go are not disturbed by dumps", async () => {
  await using scope = new Scope();
  const program = await scope.start("churn");
  for (let i = 0; i < 10; i++) {
    assertSuccess(
      await scope.ckpt(
        "dump",
        "-R",
        "-t",
        `${program.pid}`,
        "-D",
        scope.path(`images-${i}`),
      ),
      "dump",
    );
  }
  assertEquals(await program.verify(), "ok");
});
