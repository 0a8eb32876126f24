/** Process trees that random programs leave behind, on the model of the kernel. */
import type { TreeProcess } from "../family.ts";
import { KernelModel, type ModelProcess } from "./kernel_model.ts";

export interface Habits {
  /** How many things happen. */
  readonly events: number;
  /** Whether subreapers cease to be ones. */
  readonly fickle: boolean;
  /** How often a process ends, of all that happens. */
  readonly deaths: number;
}

export interface Doing {
  readonly call: "fork" | "setsid" | "setpgid" | "subreaper" | "exit" | "reap";
  readonly by: number;
  readonly argument: number;
  readonly asSibling: boolean;
  /** Whether the kernel refused. */
  readonly failed: boolean;
}

const ROOT = 100;

/** @returns the tree as an image has it, and how it came about */
export function randomTree(
  random: () => number,
  { events, fickle, deaths }: Habits,
): { tree: TreeProcess[]; history: Doing[] } {
  const kernel = new KernelModel(ROOT);
  const history: Doing[] = [];
  const pick = <T>(from: readonly T[]): T =>
    from[Math.floor(random() * from.length)];
  const chance = (probability: number) => random() < probability;
  let lastPid = ROOT;
  const freePid = () => {
    do lastPid += chance(0.1) ? 3 : 1; while (kernel.isInUse(lastPid));
    return lastPid;
  };
  const run = (
    call: Doing["call"],
    by: number,
    argument = 0,
    asSibling = false,
  ) => {
    let failed = false;
    try {
      if (call === "fork") kernel.fork(by, argument, asSibling);
      else if (call === "setsid") kernel.setsid(by);
      else if (call === "setpgid") kernel.setpgid(by, argument);
      else if (call === "subreaper") kernel.setSubreaper(by, argument === 1);
      else if (call === "exit") kernel.exit(by);
      else kernel.reap(by, argument);
    } catch {
      failed = true;
    }
    history.push({ call, by, argument, asSibling, failed });
  };
  const fork = (by: number, asSibling = false) => {
    const child = freePid();
    run("fork", by, child, asSibling);
    return child;
  };

  if (chance(0.5)) run("setsid", ROOT);
  if (chance(0.3)) run("setpgid", ROOT, ROOT);
  if (chance(0.5)) run("subreaper", ROOT, 1);
  for (let event = 0; event < events; event++) {
    const alive = [...kernel.processes.values()].filter(({ dead }) => !dead);
    const { pid } = pick(alive);
    const what = random();
    if (what < deaths) {
      if (pid !== ROOT) run("exit", pid);
    } else if (what < 0.35) fork(pid);
    else if (what < 0.45) run("setsid", pid);
    else if (what < 0.57) {
      const group = chance(0.4) ? pid : pick(alive).pgid;
      // A group of the outside that is left is not entered again.
      if (group !== 0) run("setpgid", pid, group);
    } else if (what < 0.64) {
      run("subreaper", pid, fickle && chance(0.5) ? 0 : 1);
    } else if (what < 0.74) {
      const zombies = kernel.children(pid).filter(({ dead }) => dead);
      if (zombies.length > 0) run("reap", pid, pick(zombies).pid);
    } else if (what < 0.84) {
      const first = fork(pid);
      if (chance(0.3)) run("setsid", first);
      fork(first);
      run("exit", first);
      if (chance(0.8)) run("reap", pid, first);
    } else if (what < 0.88) {
      if (pid !== ROOT) fork(pid, true);
    } else if (what < 0.94) {
      // As a shell does with a job.
      const first = fork(pid);
      run("setpgid", first, first);
      const second = fork(pid);
      run("setpgid", second, first);
      if (chance(0.5)) run("exit", first);
    } else {
      // As daemon(3) does, twice.
      const first = fork(pid);
      run("setsid", first);
      const second = fork(first);
      run("exit", first);
      if (chance(0.5)) run("setsid", second);
    }
    for (const zombie of kernel.children(0)) {
      if (zombie.dead) run("reap", 0, zombie.pid);
    }
  }
  return { tree: treeOf(kernel, random), history };
}

/** All below the root; parents first, in any order else. */
function treeOf(kernel: KernelModel, random: () => number): TreeProcess[] {
  const tree: TreeProcess[] = [];
  const ready: ModelProcess[] = [kernel.get(ROOT)];
  while (ready.length > 0) {
    const at = Math.floor(random() * ready.length);
    const [{ pid, parent, sid, pgid, dead }] = ready.splice(at, 1);
    const siblings = dead || random() < 0.7
      ? []
      : tree.filter((before) =>
        before.ppid === parent && before.state !== "dead"
      );
    const sibling = siblings[Math.floor(random() * siblings.length)]?.pid;
    tree.push({
      pid,
      ppid: parent,
      sid,
      pgid,
      state: dead ? "dead" : random() < 0.2 ? "stopped" : "alive",
      inheritsMemory: random() < 0.5,
      ...sibling !== undefined && { sibling },
    });
    ready.push(...kernel.children(pid));
  }
  return tree;
}
