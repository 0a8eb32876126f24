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
  findCave,
  injectAlone,
  type InjectedCall,
} from "../ffi/remote_task.ts";
import type { Snapshot } from "../ffi/snapshot.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { readMaps, readStat } from "../proc/read.ts";
import { caveCandidates } from "./collect.ts";
import { livingThread } from "../task/process_tree.ts";
import { readStoppedThreads } from "./threads.ts";

const TIMEOUT_MS = 1000;
const TRIES = 5;
/** To give back as much takes no longer than to do it beforehand. */
const PAGES_GIVEN_BACK_AT_ONCE = 1024;

/**
 * @param pid the process that was copied
 * @param pages how much memory the copy has
 * @param tree all processes of the tree
 * @throws CkptError when the zombie stays; the copy has ended all the same
 */
export function endCopy(
  snapshot: Snapshot,
  pid: number,
  pages: number,
  tree: ReadonlySet<number>,
): void {
  try {
    // Giving memory back takes time, for which nobody shall be held.
    if (pages > PAGES_GIVEN_BACK_AT_ONCE) snapshot.empty();
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
    : FrozenProcess.freezeThread(living, TIMEOUT_MS);
  if (readStat(snapshot.pid).ppid !== parent) return false;
  const [tid] = held.tids;
  using memory = TaskMemory.open(tid);
  const [thread] = readStoppedThreads(Int32Array.of(tid), memory);
  const cave = findCave(memory, candidates);
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
  return true;
}

const WNOHANG = 1n;
const WALL = 0x40000000n;
const SIGCHLD_BIT = 1n << 16n;
const SIGNAL_SET_BYTES = 8n;
