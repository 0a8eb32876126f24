/**
 * Whether a tree could be born again: a program is not ended by a dump that no
 * restore could bring back.
 */
import type { Reason } from "../error.ts";
import { planBirths } from "../task/births.ts";
import { asInPlan } from "../task/births/outside.ts";
import type { TreeMember } from "../task/process_tree.ts";

/** @param members the root first, parents before their children */
export function birthProblems(
  members: readonly TreeMember[],
): readonly Reason[] {
  const processes = members.map(({ pid, stat, zombie }) => ({
    pid,
    ppid: stat.ppid,
    sid: stat.session,
    pgid: stat.pgrp,
    zombie,
  }));
  const [root] = processes;
  const inPlan = asInPlan(root);
  // Never to be used: helpers need any number that nobody has.
  let spare = 1 + Math.max(
    ...processes.flatMap(({ pid, sid, pgid }) => [pid, sid, pgid]),
  );
  const plan = planBirths(
    processes.map((process) => ({
      pid: process.pid,
      ppid: process === root ? 0 : process.ppid,
      ...inPlan(process),
      state: process.zombie ? "dead" : "alive",
      inheritsMemory: false,
    })),
    // No thread has the id of a session or group, as long as there is one.
    { takenIds: new Set(), sparePid: () => spare++ },
  );
  return "reasons" in plan ? plan.reasons : [];
}
