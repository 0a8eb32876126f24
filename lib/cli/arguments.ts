/**
 * Splits a command line into a command, options and plain arguments, as
 * getopt_long(3) does, by the tables of known options.
 *
 * `parseArgs` of @std/cli is not used: it knows no clusters that end in a value
 * (`-Rt1234`), no optional values (`-v`, `-v4`), and not which unknown options
 * take a value, so a refused `--lsm-profile p` would leave a stray argument.
 *
 * Nothing is thrown: all that is wrong is collected, because the log file that
 * `-o` names has to hold it, whatever else is wrong.
 */
import type { Reason } from "../error.ts";
import { CRIU_COMMANDS, CRIU_OPTIONS } from "./criu_options.ts";
import { nearestName } from "./nearest_name.ts";
import {
  appliesTo,
  type ArgumentKind,
  type CommandName,
  COMMANDS,
  type OptionEntry,
  OPTIONS,
} from "./option_table.ts";

export interface ParsedArguments {
  /** Undefined when none was given, or none that ckpt has. */
  command?: CommandName;
  /** The plain arguments after the command. */
  operands: string[];
  /** Long names of the flags that are set. */
  flags: Set<string>;
  /** Long name to the values given, in order. */
  values: Map<string, string[]>;
  /** 0 to 4. */
  verbosity: number;
  /** Everything that is wrong with the command line. */
  problems: Reason[];
}

/** CRIU's default level: errors and warnings (criu(8)). */
const DEFAULT_VERBOSITY = 2;
const HIGHEST_VERBOSITY = 4;

const LEAVE_OUT = "leave it out; ckpt help lists the options";

/**
 * @param args what follows the program's name
 * @param configured options from configuration files, as long options in the
 * order in which they apply; those of other commands than the one given are
 * passed over, because one file serves all commands
 */
export function parseArguments(
  args: readonly string[],
  configured: readonly string[] = [],
): ParsedArguments {
  const fromCommandLine = scan(args, emptyArguments());
  chooseCommand(fromCommandLine);
  checkApplicability(fromCommandLine);
  if (configured.length === 0) return fromCommandLine;

  const fromFiles = scan(configured, emptyArguments());
  for (const operand of fromFiles.operands) {
    fromFiles.problems.push({
      object: operand,
      why: "a configuration file can hold options only",
      remedy: "remove it from the file",
    });
  }
  // The command line comes last, so that it has the last word.
  const merged = scan(args, { ...fromFiles, operands: [] });
  chooseCommand(merged);
  const { command } = merged;
  if (command !== undefined) {
    for (const entry of OPTIONS) {
      if (appliesTo(entry, command)) continue;
      if (
        !fromCommandLine.flags.has(entry.name) &&
        !fromCommandLine.values.has(entry.name)
      ) {
        merged.flags.delete(entry.name);
        merged.values.delete(entry.name);
      }
    }
  }
  checkApplicability(merged);
  return merged;
}

function emptyArguments(): ParsedArguments {
  return {
    operands: [],
    flags: new Set(),
    values: new Map(),
    verbosity: DEFAULT_VERBOSITY,
    problems: [],
  };
}

/** Reads `args` into `parsed`; the command is still among the operands. */
function scan(
  args: readonly string[],
  parsed: ParsedArguments,
): ParsedArguments {
  for (let i = 0; i < args.length; i++) {
    const argument = args[i];
    if (argument === "--") {
      parsed.operands.push(...args.slice(i + 1));
      break;
    }
    if (argument.startsWith("--")) {
      i += readLong(argument, args[i + 1], parsed);
    } else if (argument.startsWith("-") && argument.length > 1) {
      i += readCluster(argument, args[i + 1], parsed);
    } else {
      parsed.operands.push(argument);
    }
  }
  return parsed;
}

/** @returns how many further arguments were used up: 0 or 1 */
function readLong(
  argument: string,
  next: string | undefined,
  parsed: ParsedArguments,
): number {
  const equals = argument.indexOf("=");
  const name = argument.slice(2, equals < 0 ? undefined : equals);
  const attached = equals < 0 ? undefined : argument.slice(equals + 1);
  const object = `--${name}`;

  const entry = OPTIONS.find((o) => o.name === name);
  if (entry !== undefined) {
    return readValue(entry, object, attached, next, parsed);
  }
  const negated = name.startsWith("no-") ? name.slice(3) : undefined;
  const flag = OPTIONS.find((o) => o.name === negated && o.argument === "none");
  if (flag !== undefined && attached === undefined) {
    parsed.flags.delete(flag.name);
    return 0;
  }
  const refused = CRIU_OPTIONS.find((o) =>
    o.name === name || (o.name === negated && o.argument === "none")
  );
  if (refused !== undefined) {
    parsed.problems.push(refusal(object, refused.remedy));
    return attached === undefined ? skipsNext(refused.argument, next) : 0;
  }
  const nearest = nearestName(name, OPTIONS.map((o) => o.name)) ??
    nearestName(name, CRIU_OPTIONS.map((o) => o.name));
  parsed.problems.push(unknown(object, nearest && `--${nearest}`));
  return 0;
}

/** Reads `-Rjt1234`. @returns how many further arguments were used up */
function readCluster(
  argument: string,
  next: string | undefined,
  parsed: ParsedArguments,
): number {
  for (let i = 1; i < argument.length; i++) {
    const letter = argument[i];
    const object = `-${letter}`;
    const rest = argument.slice(i + 1);
    const attached = rest === "" ? undefined : rest;
    const entry = OPTIONS.find((o) => o.short === letter);
    if (entry === undefined) {
      const refused = CRIU_OPTIONS.find((o) => o.short === letter);
      if (refused === undefined) {
        parsed.problems.push(unknown(object, undefined));
        continue;
      }
      const named = `${object} (--${refused.name})`;
      parsed.problems.push(refusal(named, refused.remedy));
      if (refused.argument === "none") continue;
      return attached === undefined ? skipsNext(refused.argument, next) : 0;
    }
    if (entry.argument === "none") {
      readValue(entry, object, undefined, undefined, parsed);
      continue;
    }
    return readValue(entry, object, attached, next, parsed);
  }
  return 0;
}

/** @returns how many further arguments were used up: 0 or 1 */
function readValue(
  entry: OptionEntry,
  object: string,
  attached: string | undefined,
  next: string | undefined,
  parsed: ParsedArguments,
): number {
  if (entry.name === "verbosity") {
    readVerbosity(object, attached, parsed);
    return 0;
  }
  if (entry.argument === "none") {
    if (attached === undefined) {
      parsed.flags.add(entry.name);
    } else {
      parsed.problems.push({
        object,
        why: `takes no value, but got "${attached}"`,
        remedy: `write ${object} alone`,
      });
    }
    return 0;
  }
  if (entry.argument === "optional") {
    parsed.values.set(entry.name, [attached ?? ""]);
    return 0;
  }
  const value = attached ?? next;
  if (value === undefined || value === "") {
    parsed.problems.push({
      object,
      why: "needs a value",
      remedy: `write ${object} ${entry.placeholder}`,
    });
    return attached === undefined && next !== undefined ? 1 : 0;
  }
  const earlier = entry.repeatable ? parsed.values.get(entry.name) ?? [] : [];
  parsed.values.set(entry.name, [...earlier, value]);
  return attached === undefined ? 1 : 0;
}

/** `-v`, `-vvv`, `-v4`, `--verbosity`, `--verbosity=4`. */
function readVerbosity(
  object: string,
  attached: string | undefined,
  parsed: ParsedArguments,
): void {
  const isShort = object === "-v";
  let wanted: number;
  if (attached === undefined) {
    wanted = parsed.verbosity + 1;
  } else if (/^[0-9]+$/.test(attached)) {
    wanted = Number(attached);
  } else if (isShort && /^v+$/.test(attached)) {
    wanted = parsed.verbosity + 1 + attached.length;
  } else {
    parsed.problems.push({
      object,
      why: `"${attached}" is not a level`,
      remedy: isShort
        ? "write -v, -vv or -v0 to -v4, apart from other options"
        : "write --verbosity=0 to --verbosity=4",
    });
    return;
  }
  parsed.verbosity = Math.min(wanted, HIGHEST_VERBOSITY);
}

/** Takes the command from the front of the operands. */
function chooseCommand(parsed: ParsedArguments): void {
  const name = parsed.operands.shift();
  if (name === undefined) return;
  parsed.command = COMMANDS.find((command) => command === name);
  if (parsed.command !== undefined) return;
  const remedy = CRIU_COMMANDS.get(name);
  const nearest = nearestName(name, COMMANDS);
  parsed.problems.unshift(
    remedy !== undefined
      ? { object: name, why: "ckpt does not have this CRIU command", remedy }
      : {
        object: name,
        why: "is not a command of ckpt",
        remedy: nearest !== undefined
          ? `did you mean ${nearest}?`
          : `the commands are ${COMMANDS.join(", ")}`,
      },
  );
}

/** Names the options given that the command does not have. */
function checkApplicability(parsed: ParsedArguments): void {
  const { command } = parsed;
  if (command === undefined || command === "help") return;
  for (const entry of OPTIONS) {
    if (appliesTo(entry, command)) continue;
    if (!parsed.flags.has(entry.name) && !parsed.values.has(entry.name)) {
      continue;
    }
    parsed.problems.push({
      object: `--${entry.name}`,
      why: `ckpt ${command} does not have this option; it belongs to ${
        entry.commands.join(", ")
      }`,
      remedy: `leave it out; ckpt help ${command} lists the options`,
    });
  }
}

function refusal(object: string, remedy: string): Reason {
  return { object, why: "ckpt does not have this CRIU option", remedy };
}

function unknown(object: string, nearest: string | undefined): Reason {
  return {
    object,
    why: "is not an option of ckpt",
    remedy: nearest === undefined ? LEAVE_OUT : `did you mean ${nearest}?`,
  };
}

/** Whether the value of a refused option stands in the next argument. */
function skipsNext(argument: ArgumentKind, next: string | undefined): number {
  return argument === "required" && next !== undefined ? 1 : 0;
}
