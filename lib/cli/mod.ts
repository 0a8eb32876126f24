/**
 * The command line of ckpt: reads the arguments, opens the log, runs the
 * command, renders its result or its error, and says what to exit with.
 */
import { CkptError, EXIT, type ExitCode } from "../error.ts";
import { makeImagesDirectory } from "../image/images_directory.ts";
import { parseArguments, type ParsedArguments } from "./arguments.ts";
import type { Commands } from "./commands.ts";
import { readConfiguration } from "./config_file.ts";
import { helpText } from "./help.ts";
import { Log } from "./log.ts";
import { nearestName } from "./nearest_name.ts";
import { COMMANDS } from "./option_table.ts";
import {
  type CommandOptions,
  lastValue,
  readOptions,
  readSurroundings,
  type Surroundings,
} from "./options.ts";
import {
  asCkptError,
  errorDocument,
  renderForPeople,
  renderStacks,
  toJson,
} from "./render_error.ts";
import { runCommand } from "./run_command.ts";
import { STANDARD_STREAMS, type Streams } from "./streams.ts";
import { VERSION } from "../version.ts";

/**
 * Runs ckpt.
 *
 * @param args what follows the program's name
 * @param commands the work behind the commands
 * @param streams where results and errors are printed
 * @returns what to exit with; for a restore that waited, what its program
 * exited with. Nothing is thrown.
 */
export async function runCommandLine(
  args: string[],
  commands: Commands,
  streams: Streams = STANDARD_STREAMS,
): Promise<number> {
  const typed = parseArguments(args);
  if (typed.flags.has("version")) {
    return print(streams, `ckpt ${VERSION}\n`);
  }
  if (typed.flags.has("help")) {
    return print(streams, helpText(typed.command));
  }
  if (typed.command === "help" && typed.problems.length === 0) {
    return help(typed, streams);
  }

  // A bad configuration file has to get into the log as well, and the log
  // needs no more than what was typed.
  let parsed = typed;
  let failure: unknown;
  try {
    const configured = readConfiguration(
      !typed.flags.has("no-default-config"),
      lastValue(typed, "config"),
    );
    if (configured.length > 0) parsed = parseArguments(args, configured);
  } catch (error) {
    failure = error;
  }

  const currentDirectory = Deno.cwd();
  const surroundings = readSurroundings(parsed, currentDirectory);
  let log: Log;
  try {
    makeRoomForLog(parsed, surroundings);
    log = new Log(surroundings.logFile, surroundings.verbosity, streams);
  } catch (error) {
    // What is wrong with the command line matters more than a missing log.
    const first = parsed.problems.length > 0 ? usageError(parsed) : error;
    const replacement = new Log(undefined, surroundings.verbosity, streams);
    return fail(first, parsed, surroundings, replacement, streams);
  }

  try {
    log.write(3, `ckpt ${VERSION}: ${args.join(" ")}`);
    if (failure !== undefined) throw failure;
    const chosen = chooseOptions(parsed, surroundings, currentDirectory);
    return await runCommand(
      chosen,
      commands,
      surroundings.json,
      log,
      streams,
    );
  } catch (error) {
    return fail(error, parsed, surroundings, log, streams);
  } finally {
    log.close();
  }
}

/** @throws CkptError (usage) with all that is wrong with the command line */
function chooseOptions(
  parsed: ParsedArguments,
  surroundings: Surroundings,
  currentDirectory: string,
): CommandOptions {
  const { command, problems } = parsed;
  if (command === undefined || command === "help") throw usageError(parsed);
  const chosen = readOptions(
    command,
    parsed,
    surroundings,
    currentDirectory,
    problems,
  );
  if (problems.length > 0) throw usageError(parsed);
  return chosen;
}

function usageError({ problems }: ParsedArguments): CkptError {
  return new CkptError(
    EXIT.usage,
    "reading the command line",
    problems.length > 0 ? problems : [{
      object: "command",
      why: "is missing",
      remedy:
        `write ckpt dump, restore, check or show; ckpt help explains them`,
    }],
  );
}

/** Puts the error where people, programs and the log look for it. */
function fail(
  thrown: unknown,
  parsed: ParsedArguments,
  { json, verbosity }: Surroundings,
  log: Log,
  streams: Streams,
): ExitCode {
  const error = asCkptError(thrown);
  const text = renderForPeople(error, parsed.command);
  const isInternal = error !== thrown;
  // With the log on standard error, it would be said twice.
  if (!log.onStandardError) log.write(0, text);
  log.write(isInternal ? 0 : 4, renderStacks(thrown));
  if (json) {
    try {
      streams.writeOutput(`${toJson(errorDocument(error))}\n`);
    } catch {
      streams.writeError(`${text}\n`);
    }
  } else if (verbosity > 0 || error.exit === EXIT.usage) {
    streams.writeError(`${text}\n`);
  }
  return error.exit;
}

/** `ckpt help [COMMAND]`. */
function help(parsed: ParsedArguments, streams: Streams): ExitCode {
  const [name] = parsed.operands;
  const command = COMMANDS.find((c) => c === name);
  if (name === undefined || command !== undefined) {
    return print(streams, helpText(command));
  }
  const nearest = nearestName(name, COMMANDS);
  const error = new CkptError(EXIT.usage, "looking for help", [{
    object: name,
    why: "is not a command of ckpt",
    remedy: nearest === undefined
      ? `the commands are ${COMMANDS.join(", ")}`
      : `did you mean ckpt help ${nearest}?`,
  }]);
  streams.writeError(`${renderForPeople(error, "help")}\n`);
  return error.exit;
}

function print(streams: Streams, text: string): ExitCode {
  try {
    streams.writeOutput(text);
    return EXIT.ok;
  } catch (error) {
    const failure = asCkptError(error);
    streams.writeError(`${renderForPeople(failure, undefined)}\n`);
    return failure.exit;
  }
}

/** A dump makes its directory when it is missing, for a log in it already now. */
function makeRoomForLog(
  { command }: ParsedArguments,
  { logFile, imagesDirectory }: Surroundings,
): void {
  if (command !== "dump" || logFile === undefined) return;
  if (!logFile.startsWith(`${imagesDirectory}/`)) return;
  try {
    makeImagesDirectory(imagesDirectory);
  } catch {
    // Opening the log says what is wrong with it.
  }
}
