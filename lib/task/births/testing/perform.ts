/** Does the steps of a plan on the model of the kernel. */
import type { Births } from "../../births.ts";
import type { TreeProcess } from "../family.ts";
import { KernelModel, OUTSIDE } from "./kernel_model.ts";

/**
 * @returns the tree they make: pid, ppid, sid, pgid, dead
 * @throws Error for what the kernel would refuse, and for what a step may not do
 */
export function perform(
  { steps, inheriting }: Births,
  processes: readonly TreeProcess[],
): Map<number, readonly [number, number, number, boolean]> {
  const image = new Map(processes.map((process) => [process.pid, process]));
  const kernel = new KernelModel(processes[0].pid);
  const remembering = new Set<number>();
  /** Those whose memory was rebuilt when they had their session. */
  const settled = new Set<number>();
  const demand = (holds: boolean, what: string) => {
    if (!holds) throw new Error(what);
  };
  let subreapers = 0;
  for (const step of steps) {
    const { by } = step;
    switch (step.kind) {
      case "fork": {
        const { child, role } = step;
        const process = image.get(child);
        kernel.fork(by, child, step.asSibling);
        demand((role === "process") === (process !== undefined), `${child}`);
        const inherits = process !== undefined &&
          (process.ppid === by || process.sibling === by) &&
          remembering.has(by) && process.inheritsMemory &&
          process.state !== "dead";
        demand(inherits || !settled.has(by), `${child} copies memory in vain`);
        demand(
          inheriting.has(child) === inherits,
          `${child}: ${inherits ? "inherits" : "does not inherit"}`,
        );
        break;
      }
      case "setsid":
        kernel.setsid(by);
        break;
      case "setpgid":
        kernel.setpgid(by, step.group);
        break;
      case "subreaper":
        kernel.setSubreaper(by, step.on);
        subreapers += step.on ? 1 : -1;
        demand(subreapers <= 1, "two subreapers at a time");
        break;
      case "memory":
        demand(!kernel.get(by).dead, `memory for the dead ${by}`);
        demand(!remembering.has(by), `memory for ${by} twice`);
        demand(image.get(by)!.state !== "dead", `memory for ${by}, to be dead`);
        remembering.add(by);
        if (kernel.get(by).sid === image.get(by)!.sid) settled.add(by);
        break;
      case "end":
        demand(!image.has(by), `${by} is no helper`);
        kernel.exit(by);
        break;
      case "reap":
        kernel.reap(by, step.child);
        break;
      case "die":
        demand(image.get(by)?.state === "dead", `${by} must not die`);
        demand(kernel.children(by).length === 0, `${by} has children`);
        kernel.exit(by);
        break;
    }
    demand(kernel.children(OUTSIDE).length === 1, `${by}: an orphan is lost`);
  }
  demand(subreapers === 0, "a subreaper is left");
  for (const { pid, state } of processes) {
    demand(state === "dead" || remembering.has(pid), `no memory for ${pid}`);
  }
  return new Map(
    [...kernel.processes.values()].map((
      { pid, parent, sid, pgid, dead },
    ) => [pid, [parent, sid, pgid, dead]]),
  );
}
