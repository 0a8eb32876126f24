/**
 * Sessions and groups of the outside, which a plan of births knows as 0. Pure.
 */
import { OUTSIDE } from "./family.ts";

/** Ids of a process as the kernel tells them. */
interface Ids {
  readonly pid: number;
  readonly sid: number;
  readonly pgid: number;
}

/**
 * In a session of the outside the root stays in the group of ckpt, which the
 * terminal knows.
 *
 * @returns session and group of a process of the tree, as in a plan
 */
export function asInPlan(
  root: Ids,
): (process: Ids) => Pick<Ids, "sid" | "pgid"> {
  if (root.sid === root.pid) return ({ sid, pgid }) => ({ sid, pgid });
  return ({ sid, pgid }) => ({
    sid: sid === root.sid ? OUTSIDE : sid,
    pgid: pgid === root.pgid ? OUTSIDE : pgid,
  });
}
