/**
 * System V shared memory: which segments a tree is attached to, and what has
 * to be done so that it can be attached to the same ones again. Pure.
 */
import type { Reason } from "../error.ts";
import { SHM_MODE, type SysvSegment } from "../proc/sysvipc.ts";
import { isSegment, type Vma } from "./vma.ts";

/** A segment as the images describe it. */
export interface SavedSegment {
  readonly id: number;
  /** 0: none. */
  readonly key: number;
  /** As {@linkcode SysvSegment.mode}. */
  readonly mode: number;
  /** Bytes. */
  readonly size: bigint;
  readonly uid: number;
  readonly gid: number;
  readonly cuid: number;
  readonly cgid: number;
  /** As {@linkcode SysvSegment.changed}; undefined where nobody knows. */
  readonly changed: bigint | undefined;
  /** The key it was made with; areas are named by it even when it is lost. */
  readonly madeWithKey: number;
  /** Others than the tree were attached, too. */
  readonly attachedOutside: boolean;
}

/** A segment of the running system. */
export interface TreeSegment extends SavedSegment {
  readonly changed: bigint;
  /** No process of the tree is attached to it. */
  readonly detached: boolean;
}

/** The processes of a tree, those that share their memory only once. */
type Memories = readonly { pid: number; vmas: readonly Vma[] }[];

export interface TreeSegments {
  readonly segments: readonly TreeSegment[];
  /** Areas of segments that are not among those of this ipc namespace. */
  readonly reasons: readonly Reason[];
}

/**
 * Finds the segments of a tree. Every area counts as one that is attached
 * (shm_open and shm_close in ipc/shm.c), so that those of others can be told.
 *
 * @param present all segments there are
 * @param ownsAll whether they go with the tree, also those it is not attached to
 */
export function segmentsOfTree(
  memories: Memories,
  present: readonly SysvSegment[],
  ownsAll: boolean,
): TreeSegments {
  const byId = new Map(present.map((segment) => [segment.id, segment]));
  const found = new Map<number, { areas: number; madeWithKey: number }>();
  const reasons: Reason[] = [];
  for (const { pid, vmas } of memories) {
    for (const { entry, inode, segmentKey } of vmas) {
      if (segmentKey === undefined) continue;
      const id = Number(inode);
      if (!byId.has(id)) {
        reasons.push({
          object: `System V shared memory at ${entry.start.toString(16)} ` +
            `of task ${pid}`,
          why: `its segment ${id} is none of the ipc namespace of ckpt`,
        });
        continue;
      }
      const known = found.get(id);
      if (known === undefined) {
        found.set(id, { areas: 1, madeWithKey: segmentKey });
      } else known.areas++;
    }
  }
  const segments = [...found].map(([id, { areas, madeWithKey }]) =>
    treeSegment(byId.get(id)!, areas, madeWithKey)
  );
  const detached = ownsAll ? present.filter(({ id }) => !found.has(id)) : [];
  return {
    segments: [
      ...segments,
      ...detached.map((segment) => treeSegment(segment, 0, segment.key)),
    ],
    reasons,
  };
}

function treeSegment(
  { creatorPid: _, attached, ...rest }: SysvSegment,
  areas: number,
  madeWithKey: number,
): TreeSegment {
  return {
    ...rest,
    madeWithKey,
    attachedOutside: attached > areas,
    detached: areas === 0,
  };
}

/** Whether any process is attached to a segment at all. */
export function hasSegments(memories: Memories): boolean {
  return memories.some(({ vmas }) =>
    vmas.some(({ entry }) => isSegment(entry))
  );
}

export interface SegmentToMake {
  readonly segment: SavedSegment;
  readonly key: number;
}

/** What is to be done before the processes can attach, as plain data. */
export interface SegmentsPlan {
  /** In this order. */
  readonly make: readonly SegmentToMake[];
  /** Ids of those that a killed restore has left behind. */
  readonly leftovers: readonly number[];
  readonly reasons: readonly Reason[];
}

/**
 * Decides for each segment whether it is still there, or has to be made.
 *
 * @param present all segments there are
 * @param isAlive whether a process with this pid exists
 */
export function planSegments(
  wanted: readonly SavedSegment[],
  present: readonly SysvSegment[],
  isAlive: (pid: number) => boolean,
): SegmentsPlan {
  const make: SegmentToMake[] = [];
  const leftovers: number[] = [];
  const reasons: Reason[] = [];
  const byId = new Map(present.map((segment) => [segment.id, segment]));
  for (const segment of wanted) {
    const found = byId.get(segment.id);
    if (found !== undefined && isSame(segment, found)) continue;
    if (found !== undefined && !isLeftover(segment, found, isAlive)) {
      reasons.push(otherSegment(segment, found));
      continue;
    }
    if (found !== undefined) leftovers.push(found.id);
    const doomed = (segment.mode & SHM_MODE.dest) !== 0;
    const key = doomed ? segment.madeWithKey : segment.key;
    const holder = key === 0
      ? undefined
      : present.find((other) => other.key === key && other !== found);
    if (holder === undefined) make.push({ segment, key });
    // Its key is only a name that it had.
    else if (doomed) make.push({ segment, key: 0 });
    else reasons.push(keyTaken(segment, holder));
  }
  // One that is to go gives its key back at once; another may have it then.
  const isDoomed = ({ segment }: SegmentToMake) =>
    (segment.mode & SHM_MODE.dest) !== 0;
  return {
    make: [...make.filter(isDoomed), ...make.filter((one) => !isDoomed(one))],
    leftovers,
    reasons,
  };
}

const PERMISSIONS = 0o777;

/**
 * Whether it is the one of the dump; what it holds may have changed. The time
 * alone does not tell: it has seconds only.
 */
function isSame(segment: SavedSegment, found: SysvSegment): boolean {
  const lostKey = (found.mode & SHM_MODE.dest) !== 0;
  return found.changed === segment.changed && found.size === segment.size &&
    (found.key === segment.key || lostKey) &&
    ((found.mode ^ segment.mode) & PERMISSIONS) === 0 &&
    (["uid", "gid", "cuid", "cgid"] as const).every((id) =>
      found[id] === segment[id]
    );
}

/**
 * Until the moment all processes run, what a restore makes has no permissions,
 * so that one that was left by a killed ckpt is known.
 */
function isLeftover(
  segment: SavedSegment,
  found: SysvSegment,
  isAlive: (pid: number) => boolean,
): boolean {
  return (found.mode & PERMISSIONS) === 0 && found.attached === 0 &&
    found.size === segment.size &&
    (found.key === segment.key || found.key === segment.madeWithKey) &&
    !isAlive(found.creatorPid);
}

function otherSegment({ id }: SavedSegment, found: SysvSegment): Reason {
  return {
    object: `System V segment ${id}`,
    why: `this host has another one with this id (key ${hex(found.key)}, ` +
      `${found.size} bytes), or its owner or permissions were changed since ` +
      "the dump",
    remedy: `if nothing needs it, remove it: ipcrm -m ${id}`,
  };
}

function keyTaken({ id, key }: SavedSegment, holder: SysvSegment): Reason {
  return {
    object: `System V segment ${id}`,
    why: `its key ${hex(key)} is taken by segment ${holder.id}`,
    remedy: `if nothing needs that one, remove it: ipcrm -m ${holder.id}`,
  };
}

function hex(key: number): string {
  return `0x${key.toString(16).padStart(8, "0")}`;
}
