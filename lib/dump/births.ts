/**
 * Whether a tree could be born again: a program is not ended by a dump that no
 * restore could bring back.
 */
import type { Reason } from "../error.ts";
import { planBirths } from "../task/births.ts";
import { asInPlan } from "../task/births/outside.ts";
import {
  bearingSiblings,
  lostSharing,
  SHARED_WORDS,
  type Sharer,
} from "../task/births/sharing.ts";
import { bornFrom } from "../task/births/step.ts";
import type { TreeMember } from "../task/process_tree.ts";

/**
 * @param members the root first, parents before their children
 * @param objects what those that live have, by their pids; without it, what
 * they share is not looked at
 */
export function birthProblems(
  members: readonly TreeMember[],
  objects: ReadonlyMap<number, Sharer["objects"]> = new Map(),
): readonly Reason[] {
  const processes = members.map(({ pid, stat, zombie }) => ({
    pid,
    ppid: stat.ppid,
    sid: stat.session,
    pgid: stat.pgrp,
    zombie,
  }));
  const sharers = members.flatMap(({ pid, stat }): Sharer[] => {
    const own = objects.get(pid);
    return own === undefined
      ? []
      : [{ pid, ppid: stat.ppid, exitSignal: stat.exitSignal, objects: own }];
  });
  const siblings = bearingSiblings(sharers);
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
      sibling: siblings.get(process.pid),
    })),
    // No thread has the id of a session or group, as long as there is one.
    { takenIds: new Set(), sparePid: () => spare++ },
  );
  if ("reasons" in plan) return plan.reasons;
  return lostSharing(sharers, bornFrom(plan.births.steps)).map((
    { pid, other, kind },
  ) => ({
    object: `task ${pid}`,
    why: `it shares its ${SHARED_WORDS[kind]} with task ${other}, but could ` +
      "not be born from one that has them; that is not supported",
  }));
}
