/** Freezing by a cgroup when something goes wrong: refusals, signals and kills; the cgroup is as it was. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../lib/error.ts";
import { isFrozenByItself } from "../lib/task/cgroup_freezer.ts";
import { TestCgroup, VERSIONS } from "../lib/task/testing/test_cgroup.ts";
import {
  assertSuccess,
  LONG,
  type Program,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { kill } from "./libc.ts";

const MOMENTS = LONG ? 100 : 10;
const SIGKILL = 9;
const SIGINT = 2;
const SIGCONT = 18;

/** A tree in a cgroup of its own, which is removed with it. */
async function started(scope: Scope, version: 1 | 2) {
  const cgroup = new TestCgroup(version);
  scope.defer(async () => {
    cgroup.switch(false);
    await program.kill();
    await cgroup[Symbol.asyncDispose]();
  });
  const program = await scope.start("tree_shape", "2", "2", "1");
  for (const pid of program.tree()) cgroup.add(pid);
  return { program, cgroup };
}

function dumpArguments(
  program: Program,
  images: string,
  ...more: string[]
): string[] {
  return ["dump", "-t", `${program.pid}`, "-D", images, ...more];
}

for (const version of VERSIONS) {
  for (const frozen of [false, true]) {
    const which = `${frozen ? "a frozen" : "a"} cgroup of version ${version}`;
    for (
      const [signal, name] of [[SIGKILL, "SIGKILL"], [
        SIGINT,
        "SIGINT",
      ]] as const
    ) {
      Deno.test(`${which} is as it was after ${name} at ${MOMENTS} moments of a dump`, async () => {
        await using scope = new Scope();
        const { program, cgroup } = await started(scope, version);
        if (frozen) await cgroup.freeze();
        const args = (i: number) =>
          dumpArguments(
            program,
            scope.path(`images-${i}`),
            "-R",
            "--freeze-cgroup",
            cgroup.directory,
          );
        const start = performance.now();
        assertSuccess(await scope.ckpt(...args(0)), "dump");
        const whole = performance.now() - start;
        for (let i = 1; i <= MOMENTS; i++) {
          const delay = whole * (0.2 + 0.8 * Math.random());
          const dumping = scope.spawnCkpt(...args(i));
          await sleep(delay);
          kill(dumping.pid, signal);
          const { code } = await dumping.status;
          if (signal === SIGINT) {
            assert(
              [EXIT.ok, EXIT.interrupted, 128 + SIGINT].includes(code),
              `exit ${code}`,
            );
            assertEquals(isFrozenByItself(cgroup.directory, version), frozen);
          }
          await until(
            `the cgroup is as it was after ${delay.toFixed(1)} ms`,
            () =>
              isFrozenByItself(cgroup.directory, version) === frozen ||
              undefined,
          );
        }
        // the guard of a killed ckpt may only now put the cgroup back
        await until(
          "no guard is left",
          () =>
            scope.strangers().every((pid) => pid === program.pid) || undefined,
        );
        cgroup.switch(false);
        assertEquals(await program.verify(), "ok");
      });
    }
  }

  Deno.test(`version ${version}: a frozen program is refused, with the option it takes, also for the cgroup above`, async () => {
    await using scope = new Scope();
    const { program, cgroup } = await started(scope, version);
    const below = cgroup.child("below");
    for (const pid of program.tree()) cgroup.add(pid, below);
    await cgroup.freeze();
    const images = scope.path("images");
    for (const option of [[], ["--freeze-cgroup", below]]) {
      const answer = await scope.ckpt(
        ...dumpArguments(program, images, ...option),
      );
      assertEquals(answer.code, EXIT.refused, answer.stderr);
      assert(
        answer.stderr.includes(`give --freeze-cgroup ${cgroup.directory}:`),
        answer.stderr,
      );
    }
    const check = ["check", "-t", `${program.pid}`];
    assertEquals((await scope.ckpt(...check)).code, EXIT.refused);
    assertSuccess(
      await scope.ckpt(...check, "--freeze-cgroup", cgroup.directory),
      "check",
    );
    assertEquals([...Deno.readDirSync(images)], []);
    assert(cgroup.isFrozen());
    cgroup.switch(false);
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`version ${version}: others in the cgroup are named, and nothing is done`, async () => {
    await using scope = new Scope();
    const { program, cgroup } = await started(scope, version);
    const stranger = await scope.start("tree_child");
    cgroup.add(stranger.pid);
    const answer = await scope.ckpt(
      ...dumpArguments(
        program,
        scope.path("images"),
        "--freeze-cgroup",
        cgroup.directory,
      ),
    );
    assertEquals(answer.code, EXIT.refused, answer.stderr);
    assertMatch(
      answer.stderr,
      new RegExp(`task ${stranger.pid}: in cgroup \\S+, but not in the tree`),
    );
    assertEquals(isFrozenByItself(cgroup.directory, version), false);
    assertEquals(await program.verify(), "ok");
    assertEquals(await stranger.verify(), "ok");
  });

  Deno.test(`version ${version}: a frozen program that is left stopped is frozen, and stopped when it thaws`, async () => {
    await using scope = new Scope();
    const { program, cgroup } = await started(scope, version);
    await cgroup.freeze();
    assertSuccess(
      await scope.ckpt(
        ...dumpArguments(
          program,
          scope.path("images"),
          "--leave-stopped",
          "--freeze-cgroup",
          cgroup.directory,
        ),
      ),
      "dump",
    );
    assert(cgroup.isFrozen());
    cgroup.switch(false);
    const states = () =>
      program.tree().map((pid) =>
        /\) (.)/.exec(Deno.readTextFileSync(`/proc/${pid}/stat`))![1]
      );
    await until(
      "all are stopped",
      () => states().every((state) => state === "T") || undefined,
    );
    for (const pid of program.tree()) kill(pid, SIGCONT);
    assertEquals(await program.verify(), "ok");
  });
}
