/** Process trees: who is whose child, ids, sessions, ends, stops, and what processes share by clone(2). */
import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { assertSuccess, CKPT, dump, LONG, restore, Scope } from "./harness.ts";
import { survives } from "./state.ts";

survives("tree_child", "a child, its memory and its end");
survives("tree_shape", "a chain of processes with threads", {
  args: ["12", "0", "1"],
});
survives("tree_shape", "many children", { args: ["0", "40", "0"] });
survives("tree_shape", "depth, width and threads", { args: ["3", "3", "2"] });
survives("tree_zombies", "zombies with their exit status and signal");
survives("tree_sessions", "sessions and groups, with and without leaders");
survives("tree_orphans", "children of dead parents and subreapers");
survives("tree_stopped", "stopped processes and what their parents were told");
survives("tree_leader_dead", "processes whose first thread has ended");
survives("tree_waits", "parents that wait for their children");
survives("tree_clone_parent", "siblings by CLONE_PARENT and exit signals");
for (const kind of ["files", "fs", "io", "sysvsem", "sighand", "vm"]) {
  survives("tree_clone", "processes that share a resource", { args: [kind] });
}
for (const kind of ["files", "fs", "sighand", "vm"]) {
  survives("tree_clone", "siblings that share what their parent has not", {
    args: [kind, "siblings"],
  });
}
survives("tree_vm", "a child by CLONE_VM");
survives("tree_vfork", "processes that wait in vfork");
survives("tree_vfork", "processes of a user that wait in vfork", {
  args: ["user"],
});
survives("tree_of_threads", "children of a thread that is not the first");

Deno.test("tree_vm: a process that waits in vfork is refused before anything is stopped where nobody can look into the kernel", async () => {
  await using scope = new Scope();
  const program = await scope.start("tree_vm", "vfork");
  const images = scope.path("images");
  const answer = await scope.run("unshare", [
    ...["--mount", "sh", "-c"],
    'mount -t tmpfs none /sys/kernel/btf && exec "$@"',
    ...["sh", CKPT, "dump", "-t", `${program.pid}`, "-D", images],
  ]);
  assertEquals(answer.code, EXIT.refused, answer.stderr);
  assertMatch(
    answer.stderr,
    /task \d+: it waits in vfork\(2\) until task \d+ executes a program or ends.*there is no \/sys\/kernel\/btf\/vmlinux/,
  );
  assertEquals(await program.verify(), "ok");
});

/** Programs that sleep in great numbers: too many for the full picture, which they do not need. */
const MANY: [string, string][] = [
  ["1000", "0"],
  ["0", "1000"],
  ["30", "30"],
];
for (const [processes, threads] of MANY) {
  Deno.test(`tree_many: ${processes} children, each of all with ${threads} further threads, survive a dump and a restore`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_many", processes, threads);
    const pids = program.tree();
    assertEquals(pids.length, 1 + Number(processes));
    const rounds = LONG ? 5 : 1;
    for (let i = 0; i < rounds; i++) {
      const images = scope.path(`images-${i}`);
      await dump(scope, program, images);
      await restore(scope, program, images);
      assertEquals(program.tree(), pids);
    }
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`tree_many: ${processes} children, each of all with ${threads} further threads, are left running`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_many", processes, threads);
    const pids = program.tree();
    assertSuccess(
      await scope.ckpt(
        "dump",
        "-R",
        "-t",
        `${program.pid}`,
        "-D",
        scope.path("images"),
      ),
      "dump",
    );
    assertEquals(program.tree(), pids);
    assertEquals(await program.verify(), "ok");
  });
}

/** How many others there are, each to be looked at, while some processes fork and exit; and threads of one of these. */
const OTHERS: [string, string][] = [
  ["0", "0"],
  LONG ? ["1000", "1000"] : ["100", "100"],
];
for (const others of OTHERS) {
  const few = others[0] === "0";
  const what = (few
    ? ""
    : `among ${others[0]} processes and ${others[1]} threads that sleep, `) +
    "a tree that forks and exits all the time";

  Deno.test(`tree_churn: ${what} verifies without a checkpoint`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_churn", ...others);
    await new Promise((done) =>
      setTimeout(done, 300)
    );
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`tree_churn: ${what} is saved whole`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_churn", ...others);
    for (let i = 0; i < (few ? LONG ? 30 : 5 : LONG ? 5 : 2); i++) {
      const images = scope.path(`images-${i}`);
      // which processes there are changes with every look
      assertSuccess(
        await scope.ckpt("dump", "-t", `${program.pid}`, "-D", images),
        "dump",
      );
      await program.ended();
      await scope.gone();
      await restore(scope, program, images);
    }
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`tree_churn: ${what} is not disturbed by dumps`, async () => {
    await using scope = new Scope();
    const program = await scope.start("tree_churn", ...others);
    for (let i = 0; i < (few ? LONG ? 100 : 15 : LONG ? 20 : 2); i++) {
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
}
