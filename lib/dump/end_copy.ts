/**
 * Ending the copy of a process so that nobody in the tree hears of it.
 *
 * A copy sends no signal when it ends, and no ordinary wait(2) sees it; only
 * its zombie is left, which the process takes. But when the process itself has
 * ended meanwhile, its copy went to the next process that adopts orphans, and
 * is a child like any other there (reparent_leader in kernel/exit.c): that one
 * is held until the copy and the signal of its end are gone.
 */
import { CkptError, EXIT } from "../error.ts";
import { FrozenProcess } from "../ffi/frozen_process.ts";
import {
  type CaveCandidate,
  injectAlone,
  type InjectedCall,
} from "../ffi/remote_task.ts";
import type { Snapshot } from "../ffi/snapshot.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { readMaps, readStat } from "../proc/read.ts";
import { caveCandidates, caveOf } from "./collect.ts";
import { livingThread } from "../task/process_tree.ts";
import { readStoppedThreads } from "./threads.ts";

const TIMEOUT_MS = 1000;
const TRIES = 5;
/** Processes that are held side by side: each for a few milliseconds. */
const HELD_AT_ONCE = 8;
/** To give back as much takes no longer than to do it beforehand. */
const PAGES_GIVEN_BACK_AT_ONCE = 1024;

/** The copy of a process. */
export interface Copy {
  /** The process that was copied. */
  readonly pid: number;
  readonly snapshot: Snapshot;
  /** How much memory the copy has. */
  readonly pages: number;
}

/**
 * Ends the copies of a tree.
 *
 * @param tree all its processes
 * @param failed is told of zombies that stay; the copies have ended all the same
 */
export function endCopies(
  copies: readonly Copy[],
  tree: ReadonlySet<number>,
  failed: (pid: number, error: CkptError) => void,
): void {
  const trying = (pid: number, end: () => void) => {
    try {
      end();
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      failed(pid, error);
    }
  };
  for (let i = 0; i < copies.length; i += HELD_AT_ONCE) {
    const some = copies.slice(i, i + HELD_AT_ONCE);
    for (const { snapshot, pages, pid } of some) {
      // Giving memory back takes time, for which nobody shall be held.
      if (pages > PAGES_GIVEN_BACK_AT_ONCE) trying(pid, () => snapshot.empty());
    }
    const taken = takeSideBySide(some);
    for (const copy of some.filter((_, k) => !taken[k])) {
      trying(copy.pid, () => endCopy(copy, tree));
    }
  }
}

/** @returns for each whether that is done; else {@link endCopy} has to do it */
function takeSideBySide(copies: readonly Copy[]): boolean[] {
  const asked = copies.map((copy) => askParent(copy));
  const parents = asked.map((wait) => wait?.());
  try {
    copies.forEach(({ snapshot }, i) => {
      if (parents[i] !== undefined) snapshot.kill();
    });
    return copies.map(({ snapshot }, i) => {
      const parent = parents[i];
      if (parent === undefined) return false;
      const taken = unlessFailed(() => {
        takeZombie(parent, snapshot, false);
        return true;
      });
      parent.held.thaw();
      return taken ?? false;
    });
  } finally {
    for (const parent of parents) parent?.held.thaw();
  }
}

/** @returns undefined when it failed: {@link endCopy} tries again, and tells why */
function unlessFailed<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch (error) {
    if (error instanceof CkptError) return undefined;
    throw error;
  }
}

/** A parent of a copy, held. */
interface HeldParent {
  readonly held: FrozenProcess;
  readonly candidates: readonly CaveCandidate[];
}

/**
 * Asks the process that was copied to stop, as long as the copy is its child.
 *
 * @returns what waits for the stop; undefined: it is to be done by
 * {@link endCopy}
 */
function askParent(
  { pid, snapshot }: Copy,
): (() => HeldParent | undefined) | undefined {
  const asked = unlessFailed(() => {
    const living = livingThread(readStat(pid));
    if (living === undefined) return undefined;
    const candidates = caveCandidates(readMaps(living));
    return { candidates, wait: FrozenProcess.askThread(living) };
  });
  return asked && (() =>
    unlessFailed(() => {
      const held = asked.wait(TIMEOUT_MS);
      if (unlessFailed(() => readStat(snapshot.pid).ppid) === pid) {
        return { held, candidates: asked.candidates };
      }
      held.thaw();
      return undefined;
    }));
}

/** Ends one copy, whosever child it is by now. */
function endCopy(
  { pid, snapshot }: Copy,
  tree: ReadonlySet<number>,
): void {
  try {
    for (let i = 0; i < TRIES; i++) {
      const parent = readStat(snapshot.pid).ppid;
      if (!tree.has(parent)) return;
      try {
        if (endBelow(parent, snapshot, parent !== pid)) return;
      } catch (error) {
        if (!(error instanceof CkptError && error.exit === EXIT.gone)) {
          throw error;
        }
      }
    }
  } finally {
    snapshot.end();
  }
}

/** @returns false when the copy has another parent by now */
function endBelow(
  parent: number,
  snapshot: Snapshot,
  adopted: boolean,
): boolean {
  const living = livingThread(readStat(parent));
  if (living === undefined) return false;
  const candidates = caveCandidates(readMaps(living));
  using held = adopted
    ? FrozenProcess.freeze(parent, TIMEOUT_MS)
    : FrozenProcess.askThread(living)(TIMEOUT_MS);
  if (readStat(snapshot.pid).ppid !== parent) return false;
  takeZombie({ held, candidates }, snapshot, adopted);
  return true;
}

/** Ends the copy and lets its parent, which is held, take its zombie. */
function takeZombie(
  { held, candidates }: HeldParent,
  snapshot: Snapshot,
  adopted: boolean,
): void {
  const [tid] = held.tids;
  using memory = TaskMemory.open(tid);
  const [thread] = readStoppedThreads(Int32Array.of(tid), memory);
  const cave = caveOf(memory, candidates);
  const calls: InjectedCall[] = [{
    name: "wait4",
    args: [BigInt(snapshot.pid), 0n, WNOHANG | WALL, 0n],
  }];
  const { sigPnd, shdPnd } = thread.status;
  if (adopted && ((sigPnd | shdPnd) & SIGCHLD_BIT) === 0n) {
    memory.write(
      cave.leader,
      new Uint8Array(new BigUint64Array([SIGCHLD_BIT, 0n, 0n]).buffer),
    );
    const noTime = cave.leader + SIGNAL_SET_BYTES;
    calls.push({
      name: "rt_sigtimedwait",
      args: [cave.leader, 0n, noTime, SIGNAL_SET_BYTES],
    });
  }
  snapshot.end();
  injectAlone(thread.host, memory, cave, calls);
}

const WNOHANG = 1n;
const WALL = 0x40000000n;
const SIGCHLD_BIT = 1n << 16n;
const SIGNAL_SET_BYTES = 8n;
