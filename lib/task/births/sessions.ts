/**
 * Who has to be born from whom, so that everyone is in the right session. Pure.
 *
 * A process gets its session at its fork, or makes one by setsid(2). So a child
 * can be forked by its own parent when that is in the child's session, or will
 * lead another one but was born in the child's. Where the parent never was in
 * it, the session's leader came from below the parent, and the child came to
 * the parent as an orphan: it is _adopted_.
 *
 * What can be concluded from a tree as it is: let a process of session S have a
 * parent that is not in S.
 * - When the leader of S descends from the parent, the process is adopted.
 * - Otherwise the parent was born in S, and the same question comes for it.
 * - When the leader is gone, a helper takes its place. It was born in one place,
 *   so parents that are not each other's ancestors cannot all be above it; nor
 *   can a parent that has a process of S among its ancestors.
 */
import type { Reason } from "../../error.ts";
import {
  type Family,
  leadsSession,
  OUTSIDE,
  type TreeProcess,
} from "./family.ts";

export interface Sessions {
  /** Session leaders that have to be born in a certain session, and in which. */
  readonly bornIn: ReadonlyMap<number, number>;
  /**
   * Who has to be born from a session leader and adopted: leader, then parent,
   * an ancestor of the leader, then children.
   */
  readonly adoptions: ReadonlyMap<
    number,
    ReadonlyMap<number, readonly number[]>
  >;
  /** Helpers that lead the session of a leader that is gone, and their parents. */
  readonly helpers: ReadonlyMap<number, number>;
}

interface Adoption {
  readonly child: TreeProcess;
  readonly parent: TreeProcess;
}

export function planSessions(
  family: Family,
): { sessions: Sessions; reasons: readonly Reason[] } {
  const planner = new SessionPlanner(family);
  const gone: number[] = [];
  const members = Map.groupBy(
    family.processes.slice(1).filter((process) => !leadsSession(process)),
    ({ sid }) => sid,
  );
  for (const [session, processes] of members) {
    if (session === OUTSIDE || family.find(session) !== undefined) {
      planner.join(session, processes);
    } else {
      gone.push(session);
    }
  }
  for (const session of gone) {
    planner.joinWithoutLeader(session, members.get(session)!);
  }
  return { sessions: planner, reasons: planner.reasons };
}

class SessionPlanner implements Sessions {
  readonly bornIn = new Map<number, number>();
  readonly adoptions = new Map<number, Map<number, number[]>>();
  readonly helpers = new Map<number, number>();
  readonly reasons: Reason[] = [];

  constructor(readonly family: Family) {
    if (leadsSession(family.root)) this.bornIn.set(family.root.pid, OUTSIDE);
  }

  /** @param members all of the session but its leader */
  join(session: number, members: readonly TreeProcess[]): void {
    const leader = this.family.find(session);
    for (const member of members) {
      const adoption = this.#climb(
        member,
        session,
        (parent) =>
          leader !== undefined && this.family.isAncestor(parent, leader),
      );
      if (adoption !== undefined) this.#adopt(session, adoption);
    }
  }

  joinWithoutLeader(session: number, members: readonly TreeProcess[]): void {
    const { family } = this;
    const tops = this.#climbToMembers(session, members);
    const places = tops.map(({ parent }) => family.place(parent));
    const first = places.reduce((a, b) => Math.min(a, b));
    const last = places.reduce((a, b) => Math.max(a, b));
    const inOneLine = tops.every(({ parent }) => family.covers(parent, last));
    const adoptions = inOneLine ? tops : tops
      .map(({ child }) =>
        this.#climb(
          child,
          session,
          (parent) =>
            family.covers(parent, first) && family.covers(parent, last),
        )
      )
      .filter((adoption) => adoption !== undefined);
    if (adoptions.length === 0) return;
    const deepest = adoptions
      .map(({ parent }) => parent)
      .reduce((a, b) => family.isAncestor(a, b) ? b : a);
    this.helpers.set(session, deepest.pid);
    for (const adoption of adoptions) this.#adopt(session, adoption);
  }

  /**
   * Those without an ancestor in the session. Everyone else can only be born
   * below that ancestor.
   */
  #climbToMembers(
    session: number,
    members: readonly TreeProcess[],
  ): Adoption[] {
    const { family } = this;
    const tops: Adoption[] = [];
    let top: TreeProcess | undefined;
    const sorted = members.toSorted((a, b) =>
      family.place(a) - family.place(b)
    );
    for (const member of sorted) {
      if (top !== undefined && family.isAncestor(top, member)) {
        this.#climb(member, session, () => false);
      } else {
        top = member;
        tops.push({ child: member, parent: family.parent(member) });
      }
    }
    return tops;
  }

  /**
   * Goes up from a member of the session until a parent is found that can fork
   * it, or can adopt it. All passed on the way are to be born in the session.
   *
   * @returns who has to be adopted by whom; undefined when nobody
   */
  #climb(
    member: TreeProcess,
    session: number,
    canAdopt: (parent: TreeProcess) => boolean,
  ): Adoption | undefined {
    let child = member;
    for (;;) {
      const parent = this.family.parent(child);
      const bornIn = this.bornIn.get(parent.pid);
      if (parent.sid === session || bornIn === session) return undefined;
      if (canAdopt(parent)) return { child, parent };
      if (!leadsSession(parent) || bornIn !== undefined) {
        this.#refuse(member, session, parent, bornIn ?? parent.sid);
        return undefined;
      }
      this.bornIn.set(parent.pid, session);
      child = parent;
    }
  }

  #adopt(session: number, { child, parent }: Adoption): void {
    const parents = this.adoptions.get(session) ?? new Map<number, number[]>();
    this.adoptions.set(session, parents);
    const children = parents.get(parent.pid) ?? [];
    parents.set(parent.pid, children);
    children.push(child.pid);
  }

  #refuse(
    member: TreeProcess,
    session: number,
    parent: TreeProcess,
    bornIn: number,
  ): void {
    const whose = session === OUTSIDE
      ? "the session of the outside"
      : `session ${session}`;
    const leader = session === OUTSIDE
      ? ""
      : this.family.find(session) === undefined
      ? `, whose leader ${session} is gone`
      : `, whose leader ${session} is no descendant of ${parent.pid}`;
    this.reasons.push({
      object: `process ${member.pid}`,
      why: `it is in ${whose}${leader}, and its ancestor ${parent.pid} never ` +
        `was in that session, but in ${
          bornIn === OUTSIDE ? "that of the outside" : bornIn
        }: it cannot be born below it`,
      remedy: `end process ${member.pid} before the dump, if the program can ` +
        "do without it",
    });
  }
}
