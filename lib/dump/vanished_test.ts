import { assertEquals, assertMatch } from "@std/assert";
import { CkptError, EXIT, type Reason } from "../error.ts";
import { withRemedyForVanished } from "./vanished.ts";

const NO_PID = 2 ** 22 + 1;

function remedies(root: number, reasons: Reason[]): (string | undefined)[] {
  const error = withRemedyForVanished(
    new CkptError(EXIT.gone, "looking", reasons),
    root,
  ) as CkptError;
  assertEquals([error.exit, error.action], [EXIT.gone, "looking"]);
  return error.reasons.map(({ remedy }) => remedy);
}

Deno.test("a root that is gone has to be looked up, another task ended meanwhile", () => {
  const reason = { object: "task 7", why: "it has ended", remedy: undefined };
  const known = { ...reason, remedy: "as it says" };
  const [own, kept] = remedies(NO_PID, [reason, known]);
  assertMatch(own!, new RegExp(`pid up anew .*task ${NO_PID} has ended`));
  assertEquals(kept, "as it says");
  assertMatch(remedies(Deno.pid, [reason])[0]!, /try again/);
});

Deno.test("other errors are as they were", () => {
  const failed = new CkptError(EXIT.failed, "looking", [{
    object: "task 7",
    why: "it is odd",
  }]);
  assertEquals(withRemedyForVanished(failed, NO_PID), failed);
  const fault = new Error("a fault");
  assertEquals(withRemedyForVanished(fault, NO_PID), fault);
});
