/** Runs one command with a report of its own, and prints what it answers. */
import { EXIT } from "../error.ts";
import type { CheckOptions, CheckResult } from "../dump/options.ts";
import type { RestoreResult } from "../restore/options.ts";
import type { Cleaned } from "../ghost/links.ts";
import type { Commands } from "./commands.ts";
import type { Log } from "./log.ts";
import type { CommandOptions } from "./options.ts";
import { ProgressLine } from "./progress.ts";
import { printable, renderReason, toJson } from "./render_error.ts";
import { RunReport } from "./run_report.ts";
import { StopSignals } from "./signals.ts";
import type { Streams } from "./streams.ts";

/** A shell's way to tell the number of the signal that ended a program. */
const SIGNAL_EXIT_BASE = 128;

/**
 * @param json print the result as JSON
 * @returns what to exit with
 * @throws whatever the command throws; the terminal is clean by then
 */
export async function runCommand(
  chosen: CommandOptions,
  commands: Commands,
  json: boolean,
  log: Log,
  streams: Streams,
): Promise<number> {
  const changesSomething = chosen.command === "dump" ||
    chosen.command === "restore";
  using signals = changesSomething
    ? new StopSignals(describe(chosen))
    : undefined;
  const progress = !json && streams.errorIsTerminal()
    ? new ProgressLine(
      streams.writeError,
      streams.columns,
      () => performance.now(),
    )
    : undefined;
  const report = new RunReport(log, progress, signals);
  let answer: Answer;
  try {
    answer = await ask(chosen, commands, report);
  } finally {
    progress?.clear();
  }
  if (json && answer.result !== undefined) {
    const stats = Object.keys(report.figures).length > 0
      ? { stats: report.figures }
      : {};
    const document = { result: { ...answer.result, ...stats } };
    streams.writeOutput(`${toJson(document)}\n`);
  } else if (answer.text !== undefined) {
    streams.writeOutput(answer.text);
  }
  return answer.exit;
}

/** What a command came to. */
interface Answer {
  exit: number;
  /** For `--json`. */
  result?: object;
  /** For people; nothing where there is nothing to say. */
  text?: string;
}

async function ask(
  chosen: CommandOptions,
  commands: Commands,
  report: RunReport,
): Promise<Answer> {
  switch (chosen.command) {
    case "dump": {
      const result = await commands.dump(chosen.options, report);
      return { exit: EXIT.ok, result };
    }
    case "restore": {
      const result = await commands.restore(chosen.options, report);
      return { exit: exitOfRestored(result), result };
    }
    case "check": {
      const result = await commands.check(chosen.options, report);
      return {
        exit: result.reasons.length === 0 ? EXIT.ok : EXIT.refused,
        result,
        text: renderCheck(chosen.options, result),
      };
    }
    case "clean": {
      const result = await commands.clean(chosen.options, report);
      return { exit: EXIT.ok, result, text: renderCleaned(result) };
    }
    case "show": {
      const text = await commands.show(chosen.options, report);
      return { exit: EXIT.ok, text: text.endsWith("\n") ? text : `${text}\n` };
    }
  }
}

/** A program that waited for its end hands on how it ended. */
function exitOfRestored(result: RestoreResult): number {
  if (result.signal !== undefined) return SIGNAL_EXIT_BASE + result.signal;
  return result.exit ?? EXIT.ok;
}

function renderCheck(options: CheckOptions, result: CheckResult): string {
  const subject = options.pid === undefined
    ? "this host"
    : `task ${options.pid}`;
  if (result.reasons.length > 0) {
    const reasons = result.reasons.map((r) => `${renderReason(r, "  ")}\n`);
    return `${subject} cannot be dumped:\n${reasons.join("")}${
      renderFiles(result)
    }`;
  }
  if (options.pid === undefined) return `${subject} has all that ckpt needs\n`;
  const command = ["ckpt dump", `--tree ${options.pid}`];
  return `${subject} can be dumped: ${
    [...command, ...result.neededOptions].join(" ")
  }\n${renderFiles(result)}`;
}

/** One line for each file that needs care: what, why, how big, which option. */
function renderFiles({ files = [] }: CheckResult): string {
  const saved = files.filter(({ fate }) => fate !== "refused");
  return saved.map(({ file, holder, task, fate, bytes, path, option }) => {
    const what = fate === "ghost"
      ? `deleted; ${bytes} bytes are saved`
      : fate === "elsewhere"
      ? `it is opened as ${path}`
      : "it has other names; it is linked again";
    return `  ${printable(`${holder} (${file}) of task ${task}: ${what}`)}${
      option === undefined ? "" : ` (${option})`
    }\n`;
  }).join("");
}

function renderCleaned({ removed, missing, replaced }: Cleaned): string {
  const lines = [
    ...removed.map((path) => `removed ${path}`),
    ...missing.map((path) => `${path} was gone already`),
    ...replaced.map((path) => `${path} is another file now: left as it is`),
  ];
  if (lines.length === 0) lines.push("there was nothing to remove");
  return lines.map((line) => `${printable(line)}\n`).join("");
}

/** What is being done, for the error of a signal. */
function describe(chosen: CommandOptions): string {
  return chosen.command === "dump"
    ? `dumping task ${chosen.options.pid}`
    : chosen.command === "restore"
    ? `restoring from ${chosen.options.imagesDirectory}`
    : chosen.command;
}
