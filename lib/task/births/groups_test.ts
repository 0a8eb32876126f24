import { assertEquals } from "@std/assert";
import { planBirths } from "../births.ts";
import { Family } from "./family.ts";
import { planGroups } from "./groups.ts";
import { SparePids } from "./spare_pids.ts";
import { perform } from "./testing/perform.ts";
import { readTree, showSteps } from "./testing/text.ts";

/** The steps of the groups; the model of the kernel makes all of the tree. */
function groups(...lines: string[]): string[] {
  const tree = readTree(...lines);
  let spare = 500;
  const planned = planBirths(tree, {
    takenIds: new Set(),
    sparePid: () => spare++,
  });
  if ("reasons" in planned) throw new Error(planned.reasons[0].why);
  const made = perform(planned.births, tree);
  assertEquals(
    tree.map(({ pid }) => made.get(pid)![2]),
    tree.map(({ pgid }) => pgid),
  );
  assertEquals(made.size, tree.length);
  spare = 500;
  const spares = new SparePids(() => spare++, () => false);
  return showSteps(planGroups(new Family(tree), spares).steps);
}

Deno.test("the group of the session's leader needs no step", () => {
  assertEquals(groups("10 0 10 10", "11 10 10 10", "12 10 40 40"), []);
});

Deno.test("groups are made first, then joined", () => {
  assertEquals(
    groups("10 0 10 10", "11 10 10 13", "12 10 10 12", "13 11 10 13"),
    ["13: setpgid 13", "12: setpgid 12", "11: setpgid 13"],
  );
});

Deno.test("a helper takes the place of a leader that is gone", () => {
  assertEquals(groups("10 0 10 10", "11 10 10 40", "12 10 10 40"), [
    "40: setpgid 40",
    "11: setpgid 40",
    "12: setpgid 40",
    "40: end",
    "11: reap 40",
  ]);
});

Deno.test("who made a group and is in another one leaves when it has a member", () => {
  assertEquals(
    groups("10 0 10 10", "11 10 10 12", "12 10 10 12", "13 10 10 11"),
    ["12: setpgid 12", "11: setpgid 11", "13: setpgid 11", "11: setpgid 12"],
  );
});

Deno.test("when such ones wait for each other, a helper keeps the first group", () => {
  assertEquals(groups("10 0 10 10", "11 10 10 12", "12 10 10 11"), [
    "12: setpgid 12",
    "11: setpgid 11",
    "500: setpgid 11",
    "11: setpgid 12",
    "12: setpgid 11",
    "500: end",
    "11: reap 500",
  ]);
});

Deno.test("a helper keeps the first group of a session that all leave for a moment", () => {
  assertEquals(groups("10 0 10 10", "11 10 40 40", "12 10 40 11"), [
    "11: setpgid 11",
    "12: setpgid 11",
    "11: setpgid 40",
    "500: end",
    "11: reap 500",
  ]);
});
