import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { checked, lastCause, nativeError } from "./cause.ts";
import { FrozenProcess } from "./frozen_process.ts";

/** No process has it: pids end at 4194304. */
const NO_PID = 99_999_999;

function failure(): CkptError {
  return assertThrows(() => FrozenProcess.freeze(NO_PID, 100), CkptError);
}

Deno.test("a failure of the library tells the step and the task", () => {
  failure();
  const { step, tid } = lastCause();
  assert(step !== "");
  assertEquals(tid, NO_PID);
});

Deno.test("an error tells what was done, to which task, and the kernel's answer", () => {
  const error = failure();
  assertEquals(error.action, `stopping task ${NO_PID}`);
  const [{ object, why }] = error.reasons;
  assertEquals(object, `task ${NO_PID}`);
  assertEquals(why, `${lastCause().step}: ESRCH (no such process)`);
});

Deno.test("the exit code follows from the error number", () => {
  failure();
  const exit = (errno: number) => nativeError(BigInt(-errno), "doing").exit;
  assertEquals(exit(3), EXIT.gone);
  assertEquals(exit(1), EXIT.permission);
  assertEquals(exit(110), EXIT.interrupted);
  assertEquals(exit(28), EXIT.failed);
});

Deno.test("results pass through, negative ones are thrown with their remedy", () => {
  assertEquals(checked(0n, "doing"), 0n);
  assertEquals(checked(1n << 62n, "doing"), 1n << 62n);
  failure();
  const error = assertThrows(
    () => checked(-22n, "doing", "do that"),
    CkptError,
  );
  assertEquals(error.action, "doing");
  assertEquals(error.reasons[0].remedy, "do that");
});

Deno.test("every step the library can tell has words", () => {
  const header = new URL("../../c/lib/ckpt.h", import.meta.url);
  const steps = [
    ...Deno.readTextFileSync(header).matchAll(/^\tCAUSE_(\w+) = (\d+)/gm),
  ].filter(([, name]) => name !== "NONE").map(([, , number]) => number);
  const source = Deno.readTextFileSync(new URL("cause.ts", import.meta.url));
  const words = [...source.matchAll(/^ {2}(\d+): "/gm)].map(([, n]) => n);
  assert(steps.length > 20);
  assertEquals(words, steps);
});
