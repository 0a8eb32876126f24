/** The text of what could or would be done: of check and of dry runs. */
import type {
  CaredFile,
  CheckOptions,
  CheckResult,
  PlannedProcess,
} from "../dump/options.ts";
import type { RestorePlan } from "../restore/options.ts";
import { printable, renderReason } from "./render_error.ts";
import { formatBytes } from "./format_bytes.ts";

export function renderCheck(
  options: CheckOptions,
  result: CheckResult,
): string {
  const { reasons, neededOptions, processes = [], files = [] } = result;
  const subject = options.pid === undefined
    ? "this host"
    : `task ${options.pid}`;
  if (options.pid === undefined && reasons.length === 0) {
    return `${subject} has all that ckpt needs\n`;
  }
  const command = ["ckpt dump", `--tree ${options.pid}`, ...neededOptions];
  return text([
    reasons.length === 0
      ? `${subject} can be dumped: ${command.join(" ")}`
      : `${subject} cannot be dumped:`,
    ...reasons.map((reason) => renderReason(reason, "  ")),
    ...renderProcesses(processes, "memory in use"),
    ...files.filter(({ fate }) => fate !== "refused").map(renderFile),
  ]);
}

/** @param directory of the images */
export function renderPlan(
  directory: string,
  { reasons, processes, ghosts, mounts = [] }: RestorePlan,
): string {
  return text([
    reasons.length === 0
      ? `${directory} can be restored`
      : `${directory} cannot be restored here:`,
    ...reasons.map((reason) => renderReason(reason, "  ")),
    ...renderProcesses(processes, "memory to be read"),
    ...ghosts.map((path) =>
      `  ${printable(path)}: deleted; it is made again, without a name`
    ),
    ...mounts.map((step) => `  ${printable(step)}`),
  ]);
}

function text(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

/** What is told one by one; of more the sum alone. */
const MOST_PROCESSES = 20;

function renderProcesses(
  processes: readonly PlannedProcess[],
  what: string,
): string[] {
  const [first] = processes;
  if (first === undefined) return [];
  const lines = processes.slice(0, MOST_PROCESSES).map((process) =>
    `  ${printable(`task ${process.pid} (${process.name})`)}: ${
      count(process.threads, "thread")
    }, ${formatBytes(process.memory)} of ${what}`
  );
  if (processes.length === 1) return lines;
  const sum = (of: "threads" | "memory") =>
    processes.reduce((total, process) => total + process[of], 0);
  const more = processes.length - lines.length;
  return [
    ...lines,
    ...more > 0 ? [`  and ${more} more`] : [],
    `  together: ${processes.length} processes, ${
      count(sum("threads"), "thread")
    }, ${formatBytes(sum("memory"))} of ${what}`,
  ];
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

/** What, why, how big, which option. */
function renderFile(
  { file, holder, task, fate, bytes, path, option }: CaredFile,
): string {
  const what = fate === "ghost"
    ? `deleted; ${bytes} bytes are saved`
    : fate === "elsewhere"
    ? `it is opened as ${path}`
    : `it has other names; it is linked again, ${bytes} bytes are not copied`;
  return `  ${printable(`${holder} (${file}) of task ${task}: ${what}`)}${
    option === undefined ? "" : ` (${option})`
  }`;
}
