/**
 * How a process tree is born again: an ordered list of steps, done one after the
 * other by the agents in its processes. Pure.
 *
 *     births      forks and setsid(2): births/sessions.ts says who from whom
 *     groups      setpgid(2): births/groups.ts
 *     memory      of all who have no child that shares it: theirs came before
 *     deaths      of those who are zombies in the image
 *
 * The rules of the kernel behind it:
 * - a child begins in the session and group of who forks it (fork(2));
 * - setsid(2) is for those that lead no group, and whose pid is no group's id;
 * - setpgid(2) goes to a group that exists in the same session, and is not for
 *   session leaders;
 * - a pid is in use as long as a process, session or group has it: clone3(2)
 *   with set_tid fails with EEXIST. So leaders come before members;
 * - orphans go to the nearest living ancestor that is a subreaper
 *   (PR_SET_CHILD_SUBREAPER), and get the exit signal SIGCHLD (kernel/exit.c).
 *   Here they are made by a double fork, with one subreaper in the whole tree.
 */
import type { Reason } from "../error.ts";
import {
  parentProblems,
  sessionAndGroupProblems,
} from "./births/contradictions.ts";
import {
  Family,
  leadsSession,
  OUTSIDE,
  type TreeProcess,
} from "./births/family.ts";
import { type Groups, planGroups } from "./births/groups.ts";
import { planSessions, type Sessions } from "./births/sessions.ts";
import { SparePids } from "./births/spare_pids.ts";
import type { Step } from "./births/step.ts";

export { OUTSIDE, type Step, type TreeProcess };

export interface Births {
  /**
   * From the root's agent alone, in session and group of the outside, to the
   * whole tree. What the image says about subreapers, signals to children of
   * dying parents and stopped processes is to be set when all are done.
   */
  readonly steps: readonly Step[];
  /** Processes forked when the memory of who forks them is rebuilt. */
  readonly inheriting: ReadonlySet<number>;
}

export interface BirthOptions {
  /** Ids of threads in the image, other than those of processes. */
  readonly takenIds: ReadonlySet<number>;
  /** Another pid that is free on this host, at each call. */
  readonly sparePid: () => number;
}

/**
 * @param processes the root first, parents before their children
 * @returns the births; or why the tree cannot be made, at least one reason
 */
export function planBirths(
  processes: readonly TreeProcess[],
  { takenIds, sparePid }: BirthOptions,
): { births: Births } | { reasons: readonly Reason[] } {
  const unordered = parentProblems(processes);
  if (unordered.length > 0) return { reasons: unordered };
  const family = new Family(processes);
  const contradictions = sessionAndGroupProblems(family, takenIds);
  if (contradictions.length > 0) return { reasons: contradictions };
  const { sessions, reasons } = planSessions(family);
  if (reasons.length > 0) return { reasons };

  const used = new Set(
    processes.flatMap(({ pid, sid, pgid }) => [pid, sid, pgid]),
  );
  const spares = new SparePids(
    sparePid,
    (pid) => used.has(pid) || takenIds.has(pid),
  );
  const groups = planGroups(family, spares);
  const planner = new BirthPlanner(family, sessions, groups, spares);
  planner.bear();
  const unborn = planner.unborn();
  if (unborn.length > 0) return { reasons: unborn };
  return {
    births: {
      steps: [
        ...planner.steps,
        ...groups.steps,
        ...planner.remainingMemories(),
        ...processes.filter(({ state }) => state === "dead")
          .map(({ pid }): Step => ({ kind: "die", by: pid })),
      ],
      inheriting: planner.inheriting,
    },
  };
}

/** Whom a process forks for itself, in this order. */
interface Brood {
  readonly beforeSetsid: number[];
  /** When its memory is rebuilt. */
  readonly heirsBeforeSetsid: number[];
  readonly afterSetsid: number[];
  /** When its memory is rebuilt. */
  readonly heirs: number[];
}

class BirthPlanner {
  readonly steps: Step[] = [];
  readonly inheriting = new Set<number>();
  readonly #broods = new Map<number, Brood>();
  readonly #born: Set<number>;
  readonly #remembering = new Set<number>();
  readonly #settled = new Set<number>();
  /** Born, and nothing done yet. A list that grows at its end. */
  readonly #newborn: number[];
  /** What is next for them begins with their memory. Grows like it. */
  readonly #postponed: number[] = [];

  constructor(
    readonly family: Family,
    readonly sessions: Sessions,
    readonly groups: Groups,
    readonly spares: SparePids,
  ) {
    this.#born = new Set([family.root.pid]);
    this.#newborn = [family.root.pid];
    // Helpers first: to fork them costs least before there is any memory.
    for (const [pid, parent] of [...sessions.helpers, ...groups.helpers]) {
      this.#broodOf(parent).beforeSetsid.push(pid);
    }
    this.#gatherBroods();
  }

  #broodOf(pid: number): Brood {
    const brood = this.#broods.get(pid) ?? {
      beforeSetsid: [],
      heirsBeforeSetsid: [],
      afterSetsid: [],
      heirs: [],
    };
    this.#broods.set(pid, brood);
    return brood;
  }

  #gatherBroods(): void {
    const { family, sessions } = this;
    const adopted = new Set(
      [...sessions.adoptions.values()]
        .flatMap((parents) => [...parents.values()].flat()),
    );
    for (const process of family.processes) {
      const { pid, sid } = process;
      if (process === family.root || adopted.has(pid)) continue;
      const parent = this.#bearer(process, adopted);
      const heir = process.inheritsMemory && process.state !== "dead";
      if (heir) this.inheriting.add(pid);
      // A leader may not mind where it is born; what costs least, then.
      const bornIn = leadsSession(process) ? sessions.bornIn.get(pid) : sid;
      const early = leadsSession(parent)
        ? bornIn !== parent.pid && (bornIn !== undefined || !heir)
        : !heir;
      const brood = this.#broodOf(parent.pid);
      if (heir) (early ? brood.heirsBeforeSetsid : brood.heirs).push(pid);
      else (early ? brood.beforeSetsid : brood.afterSetsid).push(pid);
    }
  }

  /** The parent of a process, or the sibling that it wishes to be born from. */
  #bearer(process: TreeProcess, adopted: ReadonlySet<number>): TreeProcess {
    const sibling = this.family.find(process.sibling ?? 0);
    const parent = this.family.parent(process);
    if (
      sibling === undefined || sibling.state === "dead" ||
      adopted.has(sibling.pid)
    ) return parent;
    const birthSession = (of: TreeProcess) =>
      leadsSession(of) ? this.sessions.bornIn.get(of.pid) : of.sid;
    const wanted = birthSession(process);
    return wanted === undefined || wanted === birthSession(sibling)
      ? sibling
      : parent;
  }

  /** All births and sessions. */
  bear(): void {
    let begun = 0;
    let resumed = 0;
    for (;;) {
      // What needs no memory comes first: a pid that is taken shows early.
      if (begun < this.#newborn.length) this.#begin(this.#newborn[begun++]);
      else if (resumed < this.#postponed.length) {
        this.#resume(this.#postponed[resumed++]);
      } else return;
    }
  }

  #begin(pid: number): void {
    const { beforeSetsid, heirsBeforeSetsid } = this.#broodOf(pid);
    this.#fork(pid, beforeSetsid);
    if (heirsBeforeSetsid.length > 0) this.#postponed.push(pid);
    else this.#settle(pid);
  }

  #resume(pid: number): void {
    if (!this.#remembering.has(pid)) this.steps.push(this.#memory(pid));
    if (this.#settled.has(pid)) {
      this.#fork(pid, this.#broodOf(pid).heirs);
    } else {
      this.#fork(pid, this.#broodOf(pid).heirsBeforeSetsid);
      this.#settle(pid);
    }
  }

  #settle(pid: number): void {
    this.#settled.add(pid);
    const { afterSetsid, heirs } = this.#broodOf(pid);
    const process = this.family.find(pid);
    if (process === undefined) {
      if (this.sessions.helpers.has(pid)) this.#substitute(pid);
      return;
    }
    if (leadsSession(process)) {
      this.steps.push({ kind: "setsid", by: pid });
      for (const [parent, children] of this.sessions.adoptions.get(pid) ?? []) {
        this.#bearOrphans(pid, parent, children);
      }
    }
    this.#fork(pid, afterSetsid);
    if (heirs.length > 0) this.#postponed.push(pid);
  }

  /** The short life of a helper that leads a session whose leader is gone. */
  #substitute(pid: number): void {
    this.steps.push({ kind: "setsid", by: pid });
    const ownParent = this.sessions.helpers.get(pid)!;
    const adoptions = this.sessions.adoptions.get(pid)!;
    for (const [parent, children] of adoptions) {
      if (parent !== ownParent) this.#bearOrphans(pid, parent, children);
    }
    this.#fork(pid, adoptions.get(ownParent)!);
    this.#orphan(pid, ownParent, ownParent);
  }

  /** Double forks from a session's leader to an ancestor of it. */
  #bearOrphans(
    leader: number,
    parent: number,
    children: readonly number[],
  ): void {
    const helper = this.spares.take();
    this.steps.push({
      kind: "fork",
      by: leader,
      child: helper,
      role: "helper",
    });
    this.#fork(helper, children);
    this.#orphan(helper, leader, parent);
    this.spares.giveBack(helper);
  }

  /** Ends a helper; its children go to `newParent`. */
  #orphan(helper: number, parent: number, newParent: number): void {
    this.steps.push(
      { kind: "subreaper", by: newParent, on: true },
      { kind: "end", by: helper },
      { kind: "reap", by: parent, child: helper },
      { kind: "subreaper", by: newParent, on: false },
    );
  }

  #fork(by: number, children: readonly number[]): void {
    for (const child of children) {
      const process = this.family.find(child);
      const role = process === undefined ? "helper" : "process";
      const asSibling = process !== undefined && process.sibling === by;
      this.steps.push({
        kind: "fork",
        by,
        child,
        role,
        ...asSibling && { asSibling },
      });
      this.#born.add(child);
      this.#newborn.push(child);
    }
  }

  #memory(pid: number): Step {
    this.#remembering.add(pid);
    return { kind: "memory", by: pid };
  }

  remainingMemories(): Step[] {
    return this.family.processes
      .filter(({ pid, state }) =>
        state !== "dead" && !this.#remembering.has(pid)
      )
      .map(({ pid }) => this.#memory(pid));
  }

  /** Two who would have to be born from each other: no kernel can do that. */
  unborn(): Reason[] {
    const reasons: Reason[] = [];
    for (const [leader, parents] of this.sessions.adoptions) {
      for (const [parent, children] of parents) {
        for (const child of children) {
          if (this.#born.has(child)) continue;
          reasons.push({
            object: `process ${child}`,
            why: `it is a child of ${parent}, but has to be born from ` +
              `${leader}, for session ${leader}; and that, or its parent, has ` +
              "to be born from it",
          });
        }
      }
    }
    return reasons;
  }
}
