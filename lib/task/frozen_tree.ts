/** A process tree all of whose threads are stopped by ptrace, as a scope. */
import { FrozenProcess } from "../ffi/frozen_process.ts";
import { A_DAY_MS, SeizedTasks } from "../ffi/seized_tasks.ts";
import type { CgroupFreezer } from "./cgroup_freezer.ts";
import { listTree, type ProcessTree } from "./process_tree.ts";

export class FrozenTree implements Disposable {
  #kept = false;

  private constructor(
    readonly tree: ProcessTree,
    /** The processes that live, the root first, parents before children. */
    readonly processes: readonly FrozenProcess[],
    readonly cgroup: CgroupFreezer | undefined,
  ) {}

  /**
   * Stops every thread of every process: first all are asked to stop, then all
   * are waited for. Whoever was born meanwhile is found in the next round;
   * repeated until a round finds nothing new. On failure nothing stays stopped.
   *
   * With a cgroup, the tree is listed and asked to stop while the cgroup is
   * frozen, so that the first round finds all. Then the cgroup is thawed, for
   * frozen tasks can do nothing that they are asked to; none of them runs on,
   * because the stop that they were asked for comes first.
   *
   * @param timeoutMs how long it may take; 0: a day
   * @param cgroup holds the tree and nothing else; is restored with the tree
   * @param noWaiters whether those that wait in vfork(2) are left alone: they
   * stand as long as their children do
   * @throws CkptError
   */
  static async freeze(
    root: number,
    timeoutMs: number,
    cgroup?: CgroupFreezer,
    signal?: AbortSignal,
    noWaiters = false,
  ): Promise<FrozenTree> {
    const end = performance.now() + (timeoutMs === 0 ? A_DAY_MS : timeoutMs);
    const left = () => Math.max(end - performance.now(), 0);
    const tasks = new SeizedTasks(`stopping the tree of task ${root}`);
    const seize = (refrigerated: boolean) =>
      tasks.seize(root, { children: true, refrigerated, noWaiters });
    try {
      if (cgroup === undefined) {
        seize(false);
      } else {
        await cgroup.freeze(left(), signal);
        const members = cgroup.members();
        seize(cgroup.version === 1);
        cgroup.release();
        cgroup.refuseOthers(members, tasks.pids());
      }
      do {
        tasks.awaitStops(left());
      } while (seize(false) > 0);
      // All stand still since the last round: nobody has other children now.
      const children = tasks.children();
      const tree = listTree(
        root,
        undefined,
        (pid) => children.get(pid) ?? [],
      );
      const seized = new Map(
        tasks.processes().map((process) => [process.pid, process]),
      );
      const processes = tree.members.flatMap(({ pid, zombie }) =>
        zombie ? [] : [FrozenProcess.ofStopped(pid, seized.get(pid), tasks)]
      );
      // Somebody killed a parent meanwhile: its children left the tree.
      tasks.letGoOthers(processes.map(({ pid }) => pid));
      return new FrozenTree(
        { ...tree, parentThreads: tasks.parentThreads() },
        processes,
        cgroup,
      );
    } catch (error) {
      cgroup?.release();
      tasks.letGo(() => cgroup?.restore());
      throw error;
    }
  }

  /** Whether it was frozen before, and is to be so again. */
  get staysFrozen(): boolean {
    return this.cgroup !== undefined && this.cgroup.foundFrozen.length > 0;
  }

  /** Lets all go on, in a cgroup that is as it was. */
  thaw(): void {
    this.cgroup?.restore();
    for (const process of this.processes) process.thaw();
  }

  /** Ends all processes without letting one run, and waits for their ends. */
  kill(): void {
    for (const process of this.processes) process.sendKill();
    for (const process of this.processes) process.kill();
    this.cgroup?.restore();
  }

  /**
   * All stay stopped, and end with their tracer: for the init of ckpt's own pid
   * namespace, which no signal from within ends (pid_namespaces(7)), and which
   * takes all in it along.
   */
  endWithTracer(): void {
    this.#kept = true;
    // Tasks of a frozen cgroup of version 1 could not end.
    if (this.cgroup?.version === 2) this.cgroup.restore();
    for (const process of this.processes) process.endWithTracer();
  }

  [Symbol.dispose](): void {
    if (!this.#kept) this.thaw();
  }
}
