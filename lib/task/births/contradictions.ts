/** What no process tree of a kernel can look like. Pure. */
import type { Reason } from "../../error.ts";
import { Family, leadsSession, OUTSIDE, type TreeProcess } from "./family.ts";

/** A tree in which everybody has a living parent, who comes first. */
export function parentProblems(processes: readonly TreeProcess[]): Reason[] {
  const reasons: Reason[] = [];
  const seen = new Map<number, TreeProcess>();
  for (const process of processes) {
    const { pid, ppid } = process;
    const problem = (why: string) =>
      reasons.push({ object: `process ${pid}`, why });
    const parent = seen.get(ppid);
    if (seen.has(pid)) problem("it is there twice");
    if (seen.size === 0) {
      if (ppid !== 0) problem(`it comes first, but has the parent ${ppid}`);
    } else if (parent === undefined) {
      problem(`its parent ${ppid} does not come before it`);
    } else if (parent.state === "dead") {
      problem(`its parent ${ppid} is dead: it would have got another one`);
    }
    seen.set(pid, process);
  }
  return reasons;
}

/**
 * Sessions and groups that setsid(2) and setpgid(2) cannot have made.
 *
 * @param takenIds of other threads
 */
export function sessionAndGroupProblems(
  family: Family,
  takenIds: ReadonlySet<number>,
): Reason[] {
  const reasons: Reason[] = [];
  const { root } = family;
  if (root.sid !== OUTSIDE && !leadsSession(root)) {
    reasons.push({
      object: `process ${root.pid}`,
      why: `it is the first of the tree, and its session ${root.sid} was ` +
        "made by a process outside of the tree",
      remedy: "dump the tree from its session leader on",
    });
  }
  const sessions = new Set(family.processes.map(({ sid }) => sid));
  const sessionOfGroup = new Map<number, number>();
  const groups = new Set(family.processes.map(({ pgid }) => pgid));
  for (const process of family.processes) {
    const { pid, sid, pgid } = process;
    const problem = (why: string) =>
      reasons.push({ object: `process ${pid}`, why });

    const sessionLeader = family.find(sid);
    if (sessionLeader !== undefined && !leadsSession(sessionLeader)) {
      problem(
        `its session ${sid} cannot be: process ${sid} is in session ` +
          sessionLeader.sid,
      );
    }
    if (leadsSession(process) && pgid !== pid) {
      problem(`it leads its session, but not its group, which is ${pgid}`);
    }
    for (const [what, id] of [["session", sid], ["group", pgid]] as const) {
      if (takenIds.has(id)) {
        problem(`its ${what} ${id} cannot be: it is the id of a thread`);
      }
    }

    if (pgid === OUTSIDE) {
      if (sid !== OUTSIDE) {
        problem(`it is in the group of the outside, but in session ${sid}`);
      } else if (groups.has(pid)) {
        reasons.push({
          object: `process ${pid}`,
          why: `there is a group ${pid} in which it is not: it cannot go ` +
            "back to the group of the outside when it has made that",
          remedy: "dump the tree from its session leader on",
        });
      }
      continue;
    }
    const others = sessionOfGroup.get(pgid) ?? sid;
    sessionOfGroup.set(pgid, others);
    const leader = family.find(pgid);
    if (others !== sid) {
      problem(`its group ${pgid} is in two sessions, ${others} and ${sid}`);
    } else if (leader !== undefined && leader.sid !== sid) {
      problem(
        `its group ${pgid} cannot be in session ${sid}: process ${pgid}, who ` +
          `made it, is in session ${leader.sid}`,
      );
    } else if (pgid !== sid && sessions.has(pgid)) {
      problem(
        `its group ${pgid} cannot be in session ${sid}: there is a session ` +
          `${pgid}`,
      );
    }
  }
  return reasons;
}
