/**
 * Who goes to which group, when all are born. Pure.
 *
 * Everyone begins in the group of the session's leader: groups are made only
 * when nobody has to be born or to call setsid(2) any more, which fails for a
 * process whose pid is the id of a group. A group is made by the process whose
 * pid it has, or by a helper; then the others join. A process that made a group
 * and is in another one goes there when somebody else is in its own, for a group
 * without members is gone.
 */
import { type Family, OUTSIDE, type TreeProcess } from "./family.ts";
import type { SparePids } from "./spare_pids.ts";
import type { Step } from "./step.ts";

export interface Groups {
  /** Helpers to be born with everybody else, and their parents. */
  readonly helpers: ReadonlyMap<number, number>;
  /** When all are born and have their session; ends the helpers, too. */
  readonly steps: readonly Step[];
}

export function planGroups(family: Family, spares: SparePids): Groups {
  const members = Map.groupBy(
    family.processes.filter(({ pgid }) => pgid !== OUTSIDE),
    ({ pgid }) => pgid,
  );
  const helpers = new Map<number, number>();
  const made: Step[] = [];
  const joined: Step[] = [];
  /** Groups that have a member that stays, other than who made them. */
  const kept = new Set<number>();
  const moves = ({ pid, pgid }: TreeProcess) =>
    pid !== pgid && members.has(pid);
  const movers = family.processes.filter(moves);

  for (const [group, processes] of members) {
    const { pid, sid } = processes[0];
    const isGone = family.find(group) === undefined;
    if (group === sid) {
      // All are in it from birth, but when they move it may become empty.
      if (isGone && processes.every(moves)) {
        helpers.set(spares.take(), pid);
      }
    } else {
      if (isGone) helpers.set(group, pid);
      made.push({ kind: "setpgid", by: group, group });
    }
    for (const process of processes) {
      if (process.pid === group || moves(process)) continue;
      if (group !== sid) {
        joined.push({ kind: "setpgid", by: process.pid, group });
      }
      kept.add(group);
    }
  }

  const moved: Step[] = [];
  const ready = movers.filter(({ pid }) => kept.has(pid));
  const follow = () => {
    for (let next = ready.pop(); next !== undefined; next = ready.pop()) {
      const { pid, pgid } = next;
      moved.push({ kind: "setpgid", by: pid, group: pgid });
      if (kept.has(pgid)) continue;
      kept.add(pgid);
      const leader = family.find(pgid);
      if (leader !== undefined && moves(leader)) ready.push(leader);
    }
  };
  follow();
  // The rest goes around in circles: each waits for the one before it.
  for (const mover of movers) {
    if (kept.has(mover.pid)) continue;
    const keeper = spares.take();
    helpers.set(keeper, mover.pid);
    moved.push({ kind: "setpgid", by: keeper, group: mover.pid });
    kept.add(mover.pid);
    ready.push(mover);
    follow();
  }

  const ended = [...helpers].flatMap(([child, by]): Step[] => [
    { kind: "end", by: child },
    { kind: "reap", by, child },
  ]);
  return { helpers, steps: [...made, ...joined, ...moved, ...ended] };
}
