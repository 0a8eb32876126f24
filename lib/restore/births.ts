/** The births of a tree, planned from its images. */
import type { Reason } from "../error.ts";
import { planBirths, type Step } from "../task/births.ts";
import { asInPlan } from "../task/births/outside.ts";
import {
  bearingSiblings,
  lostSharing,
  SHARED_WORDS,
  type Sharer,
} from "../task/births/sharing.ts";
import { bornFrom } from "../task/births/step.ts";
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
  const sharers = images.processes.map(sharerOf);
  const siblings = bearingSiblings(sharers);
  const plan = planBirths(
    images.tree.map((entry) => {
      const { pid, ppid } = entry;
      const process = living.get(pid);
      const sibling = siblings.get(pid);
      const bearer = living.get(sibling ?? ppid);
      return {
        pid,
        ppid,
        ...inPlan(entry),
        state: process === undefined
          ? "dead"
          : process.stopSignal === 0
          ? "alive"
          : "stopped",
        inheritsMemory: process !== undefined && bearer !== undefined &&
          (process.ids.vm_id === bearer.ids.vm_id ||
            sibling === undefined && inheritsMemory(bearer.mm, process.mm)),
        sibling,
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
      ...sharingThatIsLost(living, sharers, steps),
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

/** The thread that waits in vfork(2) for a process; undefined: none does. */
export function waiterFor(
  { extension: { awaited, parent_thread }, tree: { ppid } }: Pick<
    TaskImages,
    "extension" | "tree"
  >,
): number | undefined {
  return awaited ? parent_thread ?? ppid : undefined;
}

const SIGCHLD = 17;

function sharerOf({ pid, tree, ids, extension }: TaskImages): Sharer {
  return {
    pid,
    ppid: tree.ppid,
    exitSignal: extension.exit_signal ?? SIGCHLD,
    objects: {
      vm: ids.vm_id,
      sighand: ids.sighand_id,
      files: ids.files_id,
      fs: ids.fs_id,
    },
  };
}

/**
 * What processes share they get at their fork: where it is another one who
 * forks a process, for its session, they would have it apart.
 */
function sharingThatIsLost(
  living: ReadonlyMap<number, TaskImages>,
  sharers: readonly Sharer[],
  steps: readonly Step[],
): Reason[] {
  const forkedBy = bornFrom(steps);
  const reasons = lostSharing(sharers, forkedBy).map((
    { pid, other, kind },
  ): Reason => ({
    object: `process ${pid}`,
    why: `it shares its ${SHARED_WORDS[kind]} with process ${other}, but ` +
      "cannot be born from one that has them; that is not supported yet",
  }));
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
export function sparePids(): () => number {
  let next = FIRST_SPARE;
  return () => {
    while (taskExists(next)) next++;
    return next++;
  };
}
