/** The births of a tree, planned from its images. */
import type { Reason } from "../error.ts";
import { planBirths, type Step } from "../task/births.ts";
import { asInPlan } from "../task/births/outside.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { inheritsMemory } from "../mm/inherit.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";

export interface Births {
  readonly steps: readonly Step[];
  /** Processes that are forked when their parent's memory is there. */
  readonly inheriting: ReadonlySet<number>;
  readonly reasons: readonly Reason[];
}

export function planBirthsOf(images: TreeImages): Births {
  const [root] = images.tree;
  const living = new Map(
    images.processes.map((process) => [process.pid, process]),
  );
  const inPlan = asInPlan(root);
  const plan = planBirths(
    images.tree.map((entry) => {
      const { pid, ppid } = entry;
      const process = living.get(pid);
      const parent = living.get(ppid);
      return {
        pid,
        ppid,
        ...inPlan(entry),
        state: process === undefined
          ? "dead"
          : process.stopSignal === 0
          ? "alive"
          : "stopped",
        inheritsMemory: process !== undefined && parent !== undefined &&
          (process.ids.vm_id === parent.ids.vm_id ||
            inheritsMemory(parent.mm, process.mm)),
      };
    }),
    {
      takenIds: new Set(
        images.processes.flatMap(({ threads }) =>
          threads.slice(1).map(({ tid }) => tid)
        ),
      ),
      sparePid: sparePids(),
    },
  );
  if ("reasons" in plan) {
    return { steps: [], inheriting: new Set(), reasons: plan.reasons };
  }
  const { steps } = plan.births;
  return {
    ...plan.births,
    reasons: [
      ...sharingThatIsLost(living, steps),
      ...childrenOfEndedLeaders(living, steps),
    ],
  };
}

/**
 * Where a leader has to end at last, its children go to another thread, and get
 * their parent-death signal: so they have to be born from that thread.
 */
function childrenOfEndedLeaders(
  living: ReadonlyMap<number, TaskImages>,
  steps: readonly Step[],
): Reason[] {
  const bornFromParent = new Set(
    steps.flatMap((step) =>
      step.kind === "fork" &&
        living.get(step.child)?.tree.ppid === step.by
        ? [step.child]
        : []
    ),
  );
  return [...living.values()].flatMap(({ pid, tree, threads, extension }) =>
    living.get(tree.ppid)?.extension.ended_leader === undefined ||
      bornFromParent.has(pid) && extension.parent_thread !== undefined ||
      !threads.some(({ core }) => core.thread_core?.pdeath_sig)
      ? []
      : [{
        object: `process ${pid}`,
        why: "it has a parent-death signal, and cannot be born from the " +
          `thread whose child it is, for the first of process ${tree.ppid} ` +
          "has ended; that is not supported yet",
      }]
  );
}

/**
 * What processes share they get at their fork: where it is another one who
 * forks a process, for its session, they would have it apart.
 */
function sharingThatIsLost(
  living: ReadonlyMap<number, TaskImages>,
  steps: readonly Step[],
): Reason[] {
  const reasons: Reason[] = [];
  const forkedBy = new Map(
    steps.flatMap((step) =>
      step.kind === "fork" ? [[step.child, step.by] as const] : []
    ),
  );
  for (
    const [field, what] of [
      ["vm_id", "memory"],
      ["sighand_id", "signal actions"],
      ["files_id", "descriptors"],
      ["fs_id", "directories and umask"],
    ] as const
  ) {
    const first = new Map<number, number>();
    for (const { pid, ids } of living.values()) {
      const number = ids[field];
      if (living.get(forkedBy.get(pid) ?? 0)?.ids[field] === number) continue;
      const other = first.get(number);
      if (other === undefined) first.set(number, pid);
      else {
        reasons.push({
          object: `process ${pid}`,
          why: `it shares its ${what} with process ${other}, but cannot be ` +
            "born from one that has them; that is not supported yet",
        });
      }
    }
  }
  for (
    const [field, what] of [
      ["shares_io_context", "I/O context"],
      ["shares_semaphore_undo", "list of semaphore undos"],
    ] as const
  ) {
    for (const { pid, tree: { ppid }, extension } of living.values()) {
      if (!extension[field] || forkedBy.get(pid) === ppid) continue;
      reasons.push({
        object: `process ${pid}`,
        why: `it shares its ${what} with its parent, but cannot be born from ` +
          "it; that is not supported yet",
      });
    }
  }
  return reasons;
}

/** Low pids are those of daemons that may come back under the same one. */
const FIRST_SPARE = 1000;

/** Pids that are free on this host now, each once. */
function sparePids(): () => number {
  let next = FIRST_SPARE;
  return () => {
    while (taskExists(next)) next++;
    return next++;
  };
}
