/** Trees and steps as text, for tables. */
import type { TreeProcess } from "../family.ts";
import type { Step } from "../step.ts";

/**
 * @param lines "pid ppid sid pgid", then maybe "dead", "stopped", "heir" (wishes
 * to inherit memory), "of 11" (wishes to be born from this sibling)
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
      ...words.includes("of") &&
        { sibling: Number(words[words.indexOf("of") + 1]) },
    };
  });
}

/** "10: fork 11", "10: setsid", ... */
export function showSteps(steps: readonly Step[]): string[] {
  return steps.map((step) => {
    switch (step.kind) {
      case "fork":
        return `${step.by}: fork ${step.role === "helper" ? "helper " : ""}${
          step.asSibling ? "sibling " : ""
        }${step.child}`;
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
