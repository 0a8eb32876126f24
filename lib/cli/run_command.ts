/** Runs one command with a report of its own, and prints what it answers. */
import { EXIT } from "../error.ts";
import type { CheckOptions } from "../dump/options.ts";
import type { RestoreResult } from "../restore/options.ts";
import type { Cleaned } from "../ghost/links.ts";
import type { EndTexts } from "../ns/inside.ts";
import type { Commands } from "./commands.ts";
import type { Log } from "./log.ts";
import type { CommandOptions } from "./options.ts";
import { ProgressLine } from "./progress.ts";
import { printable, toJson } from "./render_error.ts";
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
  const changesSomething = (chosen.command === "dump" ||
    chosen.command === "restore") && !chosen.options.dryRun;
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
    answer = await ask(chosen, commands, report, json);
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

/** The document, without the number in it that only the end will tell. */
function documentsOfEnd(
  { pid, stats }: RestoreResult,
  detached: boolean,
): EndTexts {
  const document = (end: object) =>
    `${toJson({ result: { pid, ...end, stats } })}\n`;
  if (detached) return [document({}), "", "", ""];
  // No other number looks like this.
  const NUMBER = 1e300;
  const around = (field: "exit" | "signal"): [string, string] => {
    const [before, after] = document({ [field]: NUMBER }).split(`${NUMBER}`);
    return [before, after];
  };
  return [...around("exit"), ...around("signal")];
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
  json: boolean,
): Promise<Answer> {
  switch (chosen.command) {
    case "dump": {
      if (chosen.options.dryRun) {
        return await check(chosen.options, commands, report);
      }
      const result = await commands.dump(chosen.options, report);
      return { exit: EXIT.ok, result };
    }
    case "restore": {
      const { options } = chosen;
      const { waitsElsewhere, ...result } = await commands.restore({
        ...options,
        endTexts: json
          ? (result) => documentsOfEnd(result, options.detached)
          : undefined,
      }, report);
      if (waitsElsewhere) return { exit: EXIT.ok };
      const { plan } = result;
      if (plan === undefined) return { exit: exitOfRestored(result), result };
      const { renderPlan } = await import("./render_plan.ts");
      return {
        exit: plan.reasons.length === 0 ? EXIT.ok : EXIT.refused,
        result,
        text: renderPlan(chosen.options.imagesDirectory, plan),
      };
    }
    case "check":
      return await check(chosen.options, commands, report);
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

/** A dump that is only to tell what it would do is a check. */
async function check(
  options: CheckOptions,
  commands: Commands,
  report: RunReport,
): Promise<Answer> {
  const result = await commands.check(options, report);
  const { renderCheck } = await import("./render_plan.ts");
  return {
    exit: result.reasons.length === 0 ? EXIT.ok : EXIT.refused,
    result,
    text: renderCheck(options, result),
  };
}

/** A program that waited for its end hands on how it ended. */
function exitOfRestored(result: RestoreResult): number {
  if (result.signal !== undefined) return SIGNAL_EXIT_BASE + result.signal;
  return result.exit ?? EXIT.ok;
}

function renderCleaned(
  { removed, missing, replaced, last }: Cleaned,
): string {
  const lines = [
    ...removed.map((path) => `removed ${path}`),
    ...missing.map((path) => `${path} was gone already`),
    ...replaced.map((path) => `${path} is another file now: left as it is`),
    ...last.map((path) =>
      `${path} is the only name that its file has by now: left as it is`
    ),
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
