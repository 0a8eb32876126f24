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
  /** It has ended, and its parent has not taken notice yet. */
  readonly zombie: boolean;
}

export interface ProcessTree {
  /** The root first, parents before their children. */
  readonly members: readonly TreeMember[];
  /** Dead copies that a killed ckpt left, by the process they belong to. */
  readonly deadSnapshots: ReadonlyMap<number, readonly number[]>;
}

/**
 * Lists a tree. What ends meanwhile is left out.
 *
 * @param visit called for each living member before its children are listed;
 * false: it is gone, and left out
 * @throws CkptError (gone) when the root does not exist
 */
export function listTree(
  root: number,
  visit: (pid: number) => boolean = () => true,
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
      const zombie = hasEnded(stat);
      if (zombie && pid !== root && isDeadSnapshot(stat, names.get(parent))) {
        const list = deadSnapshots.get(parent) ?? [];
        deadSnapshots.set(parent, [...list, pid]);
        continue;
      }
      if (!zombie && !visit(pid)) continue;
      known.add(pid);
      names.set(pid, stat.comm);
      members.push({ pid, stat, zombie });
      if (zombie) continue;
      const children = readChildren(pid);
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

/** A leader that has ended while other threads of it live is no zombie yet. */
function hasEnded({ pid, state }: Stat): boolean {
  return state === "X" || state === "Z" && listThreads(pid).length <= 1;
}

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
