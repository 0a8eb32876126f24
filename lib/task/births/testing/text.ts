/** Trees and steps as text, for tables. */
import type { TreeProcess } from "../family.ts";
import type { Step } from "../step.ts";

/**
 * @param lines "pid ppid sid pgid", then maybe "dead", "stopped", "heir" (wishes
 * to inherit memory)
 */
export function readTree(...lines: string[]): TreeProcess[] {
  return lines.map((line) => {
    const [pid, ppid, sid, pgid, ...words] = line.split(" ");
    return {
      pid: Number(pid),
      ppid: Number(ppid),
      sid: Number(sid),
      pgid: Number(pgid),
      state: words.includes("dead")
        ? "dead"
        : words.includes("stopped")
        ? "stopped"
        : "alive",
      inheritsMemory: words.includes("heir"),
    };
  });
}

/** "10: fork 11", "10: setsid", ... */
export function showSteps(steps: readonly Step[]): string[] {
  return steps.map((step) => {
    switch (step.kind) {
      case "fork":
        return step.role === "helper"
          ? `${step.by}: fork helper ${step.child}`
          : `${step.by}: fork ${step.child}`;
      case "setpgid":
        return `${step.by}: setpgid ${step.group}`;
      case "subreaper":
        return `${step.by}: subreaper ${step.on ? "on" : "off"}`;
      case "reap":
        return `${step.by}: reap ${step.child}`;
      default:
        return `${step.by}: ${step.kind}`;
    }
  });
}
