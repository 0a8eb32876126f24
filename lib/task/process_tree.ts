/**
 * Which processes a tree consists of: a process, its children, and theirs, as
 * /proc shows them. Exact only while the tree stands still.
 */
import { CkptError, EXIT } from "../error.ts";
import { listThreads, readChildren, readStat } from "../proc/read.ts";
import type { Stat } from "../proc/stat.ts";

export interface TreeMember {
  readonly pid: number;
  readonly stat: Stat;
  /** The thread that is asked about it ({@link livingThread}). */
  readonly tid: number;
  /** It has ended, and its parent has not taken notice yet. */
  readonly zombie: boolean;
}

export interface ProcessTree {
  /** The root first, parents before their children. */
  readonly members: readonly TreeMember[];
  /** Dead copies that a killed ckpt left, by the process they belong to. */
  readonly deadSnapshots: ReadonlyMap<number, readonly number[]>;
  /**
   * Children of threads that are not the first of their process, by their pids,
   * each with its thread; known of a tree that stands still.
   */
  readonly parentThreads?: ReadonlyMap<number, number>;
}

/**
 * Lists a tree. What ends meanwhile is left out.
 *
 * @param visit called for each living member before its children are listed;
 * false: it is gone, and left out
 * @param childrenOf for a caller that knows them already
 * @throws CkptError (gone) when the root does not exist
 */
export function listTree(
  root: number,
  visit: (pid: number) => boolean = () => true,
  childrenOf: (pid: number) => readonly number[] = readChildren,
): ProcessTree {
  const members: TreeMember[] = [];
  const deadSnapshots = new Map<number, number[]>();
  const known = new Set<number>();
  const names = new Map<number, string>();
  const waiting: { pid: number; parent: number }[] = [{ pid: root, parent: 0 }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { pid, parent } = next;
    // A process whose parent ended meanwhile turns up below another one.
    if (known.has(pid)) continue;
    try {
      const stat = readStat(pid);
      const tid = livingThread(stat);
      const zombie = tid === undefined;
      if (zombie && pid !== root && isDeadSnapshot(stat, names.get(parent))) {
        const list = deadSnapshots.get(parent) ?? [];
        deadSnapshots.set(parent, [...list, pid]);
        continue;
      }
      if (!zombie && !visit(pid)) continue;
      known.add(pid);
      names.set(pid, tid === pid ? stat.comm : readStat(tid ?? pid).comm);
      members.push({ pid, stat, tid: tid ?? pid, zombie });
      if (zombie) continue;
      const children = childrenOf(pid).toSorted((a, b) => a - b);
      for (let i = children.length - 1; i >= 0; i--) {
        waiting.push({ pid: children[i], parent: pid });
      }
    } catch (error) {
      const gone = error instanceof CkptError && error.exit === EXIT.gone;
      if (!gone || pid === root) throw error;
    }
  }
  return { members, deadSnapshots };
}

/**
 * A thread of a process that has not ended: the leader, or, where only that has
 * ended, the one with the lowest id. /proc tells of memory, descriptors and
 * directories under its id alone.
 *
 * @param stat of the process
 * @returns undefined when all of it has ended
 * @throws CkptError when one ends meanwhile
 */
export function livingThread({ pid, state }: Stat): number | undefined {
  if (!ENDED.has(state)) return pid;
  return listThreads(pid).find((tid) =>
    tid !== pid && !ENDED.has(readStat(tid).state)
  );
}

const ENDED: ReadonlySet<string> = new Set(["Z", "X"]);

const SIGKILL = 9;

/**
 * A copy that ckpt makes for a dump sends no signal to its parent, has its name,
 * and is killed. Any other task like this was killed by somebody, too.
 */
function isDeadSnapshot(
  { state, exitSignal, exitCode, comm }: Stat,
  parentName: string | undefined,
): boolean {
  return state === "Z" && exitSignal === 0 && exitCode === SIGKILL &&
    comm === parentName;
}

/** Whether a process has an ancestor in the tree, or is gone by now. */
export function isBelow(pid: number, tree: ReadonlySet<number>): boolean {
  try {
    for (let at = pid; at > 1;) {
      const { ppid } = readStat(at);
      if (tree.has(ppid)) return true;
      at = ppid;
    }
    return false;
  } catch (error) {
    if (error instanceof CkptError && error.exit === EXIT.gone) return true;
    throw error;
  }
}
