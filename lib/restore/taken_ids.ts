/**
 * Ids that the tree needs and that others have: as a process, a thread, a
 * session or a process group. Told before anything is started.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { Calls, Slots } from "../ffi/calls.ts";
import { ESRCH } from "../ffi/errno.ts";
import { sleep } from "../ffi/pause.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { listProcesses, readStat, readStatus } from "../proc/read.ts";
import type { TreeImages } from "./task_images.ts";

/**
 * Programs that were just dumped keep their pids until their parents take their
 * exit statuses, which is a matter of milliseconds.
 */
const PATIENCE_MS = 2000;
const POLL_MS = 5;

/**
 * Waits for those that are about to be free.
 *
 * @param root whether the root's own is wanted, too, not taken for it already
 */
export async function takenIds(
  images: TreeImages,
  root = true,
): Promise<Reason[]> {
  const wanted = wantedIds(images);
  if (!root) wanted.delete(images.tree[0].pid);
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const holders = [...holdersOf(wanted)];
    const ending = holders.length > 0 &&
      holders.every(([, { zombie }]) => zombie);
    if (!ending || performance.now() > deadline) {
      return holders.map(([id, holder]) => reasonOf(id, holder));
    }
    const pids = holders.map(([, { pid }]) => pid);
    while (pids.some(taskExists) && performance.now() < deadline) {
      await sleep(POLL_MS);
    }
  }
}

/** Of processes, threads, sessions and process groups. */
export function wantedIds(
  { tree, processes, endedTasks }: TreeImages,
): Set<number> {
  const [root] = tree;
  // Sessions and groups whose leader is gone are made by a helper.
  const wanted = new Set(tree.flatMap(({ sid, pgid }) => [sid, pgid]));
  // Those of the outside; 0 is one that could not be seen.
  for (const id of [0, root.sid, root.pgid]) wanted.delete(id);
  for (const { pid } of tree) wanted.add(pid);
  for (const tid of endedTasks.keys()) wanted.add(tid);
  for (const { threads } of processes) {
    for (const { tid } of threads) wanted.add(tid);
  }
  return wanted;
}

interface Holder {
  readonly pid: number;
  readonly name: string;
  readonly zombie: boolean;
  readonly as: "process" | "thread" | "session" | "process group";
}

function holdersOf(wanted: ReadonlySet<number>): Map<number, Holder> {
  const holders = new Map<number, Holder>();
  for (const pid of processesWith(wanted)) {
    try {
      const { comm: name, state, pgrp, session } = readStat(pid);
      const zombie = state === "Z" || state === "X";
      const add = (id: number, as: Holder["as"]) => {
        if (wanted.has(id) && holders.get(id)?.as !== "process") {
          holders.set(id, { pid, name, zombie, as });
        }
      };
      add(session, "session");
      add(pgrp, "process group");
      add(pid, "process");
    } catch (error) {
      if (!(error instanceof CkptError && error.exit === EXIT.gone)) {
        throw error;
      }
    }
  }
  for (const id of wanted) {
    if (!holders.has(id) && taskExists(id)) {
      const { tgid, name } = readStatus(id);
      holders.set(id, { pid: tgid, name, zombie: false, as: "thread" });
    }
  }
  return holders;
}

/**
 * Processes that have one of these as their own id, as that of their group or
 * of their session; and those of which it cannot be told by two calls. To read
 * what /proc has of each would take 10 us for every process of the host.
 */
function processesWith(wanted: ReadonlySet<number>): number[] {
  const all = listProcesses();
  const pids = new Slots(8, all.length);
  for (const [i, pid] of all.entries()) {
    pids.view.setBigUint64(8 * i, BigInt(pid), true);
  }
  const calls = new Calls();
  const group = calls.add("getpgid", [{ loaded: pids }]);
  const session = calls.add("getsid", [{ loaded: pids }]);
  calls.run(all.length);
  const concerned = (id: number) => id < 0 ? id !== -ESRCH : wanted.has(id);
  return all.filter((pid, i) =>
    wanted.has(pid) || concerned(calls.result(i, group)) ||
    concerned(calls.result(i, session))
  );
}

function reasonOf(id: number, { pid, name, zombie, as }: Holder): Reason {
  const holder = as === "process"
    ? `"${name}"`
    : as === "thread"
    ? `a thread of process ${pid} ("${name}")`
    : `process ${pid} ("${name}") as the id of its ${as}`;
  return {
    object: `pid ${id}`,
    why: zombie && as === "process"
      ? `it is taken by ${holder}, which has ended but whose parent did not ` +
        "take notice"
      : `it is taken by ${holder}`,
    remedy: "end that process, or restore in a new pid namespace: " +
      "unshare --pid --fork --mount-proc ckpt restore ...",
  };
}
