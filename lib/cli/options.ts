/**
 * Turns parsed arguments into what the commands take: numbers read, names made
 * absolute, contradictions found.
 */
import type { Reason } from "../error.ts";
import type { CheckOptions, DumpOptions } from "../dump/options.ts";
import type { LinkPlace } from "../ghost/links.ts";
import type { ValidationMethod } from "../ghost/validation.ts";
import type {
  InheritedDescriptor,
  RestoreOptions,
} from "../restore/options.ts";
import type { ParsedArguments } from "./arguments.ts";
import type { CommandName } from "./option_table.ts";

export interface ShowOptions {
  imagesDirectory: string;
  /** All of the images as JSON, instead of a summary for people. */
  json: boolean;
  /** The mount namespaces instead; never together with `json`. */
  mounts?: boolean;
}

export interface CleanOptions {
  imagesDirectory: string;
}

/** What is common to all commands, and known even when the rest is wrong. */
export interface Surroundings {
  imagesDirectory: string;
  workDirectory: string;
  /** Undefined: standard error. */
  logFile?: string;
  verbosity: number;
  json: boolean;
}

export type CommandOptions =
  | { command: "dump"; options: DumpOptions }
  | { command: "restore"; options: RestoreOptions }
  | { command: "check"; options: CheckOptions }
  | { command: "show"; options: ShowOptions }
  | { command: "clean"; options: CleanOptions };

/** proc_pid_max(5): no kernel hands out a higher number than 2^22. */
const MAX_PID = 4194304;

/** criu(8): ten seconds to collect the tasks of a dump. */
const DEFAULT_TIMEOUT_SECONDS = 10;
const MAX_TIMEOUT_SECONDS = 2147483;

const MAX_FD = 2147483647;

/** @param currentDirectory what relative names start from */
export function readSurroundings(
  parsed: ParsedArguments,
  currentDirectory: string,
): Surroundings {
  const operand = parsed.command === "show" || parsed.command === "clean"
    ? parsed.operands[0]
    : undefined;
  const images = absolute(
    lastValue(parsed, "images-dir") ?? operand ?? ".",
    currentDirectory,
  );
  const work = lastValue(parsed, "work-dir");
  const workDirectory = work === undefined
    ? images
    : absolute(work, currentDirectory);
  const log = lastValue(parsed, "log-file");
  return {
    imagesDirectory: images,
    workDirectory,
    logFile: log === undefined || log === "-"
      ? undefined
      : absolute(log, workDirectory),
    verbosity: parsed.verbosity,
    json: parsed.flags.has("json"),
  };
}

/**
 * @param problems gets whatever is wrong; if anything is, the result is not to
 * be used
 */
export function readOptions(
  command: Exclude<CommandName, "help">,
  parsed: ParsedArguments,
  surroundings: Surroundings,
  currentDirectory: string,
  problems: Reason[],
): CommandOptions {
  const { imagesDirectory } = surroundings;
  switch (command) {
    case "dump": {
      const look = readLook(parsed, currentDirectory, problems);
      const options = readDump(parsed, surroundings, problems);
      return { command, options: { ...options, ...look } };
    }
    case "restore": {
      const options = readRestore(parsed, surroundings, problems);
      const program = readProgram(parsed, currentDirectory);
      return { command, options: { ...options, ...program } };
    }
    case "check": {
      const look = readLook(parsed, currentDirectory, problems);
      const pid = readPid(parsed, problems);
      return { command, options: { ...pid !== undefined && { pid }, ...look } };
    }
    case "clean":
      readOneDirectory(parsed, problems);
      return { command, options: { imagesDirectory } };
    case "show":
      return { command, options: readShow(parsed, surroundings, problems) };
  }
}

/** What is said of a program, whether it is dumped, restored or checked. */
function readProgram(parsed: ParsedArguments, currentDirectory: string) {
  const { flags } = parsed;
  const root = lastValue(parsed, "root");
  return {
    shellJob: flags.has("shell-job"),
    external: parsed.values.get("external") ?? [],
    ...flags.has("file-locks") && { fileLocks: true },
    ...flags.has("overlay-trust-options") && { overlayTrustOptions: true },
    ...flags.has("tcp-established") && { tcpEstablished: true },
    ...flags.has("tcp-close") && { tcpClose: true },
    ...flags.has("skip-in-flight") && { skipInFlight: true },
    ...flags.has("ext-unix-sk") && { extUnixSk: true },
    ...root !== undefined && { root: absolute(root, currentDirectory) },
  };
}

/** The same, and how one that runs is looked at. */
function readLook(
  parsed: ParsedArguments,
  currentDirectory: string,
  problems: Reason[],
) {
  const { flags } = parsed;
  const cgroup = lastValue(parsed, "freeze-cgroup");
  const scan = parsed.values.get("irmap-scan-path");
  return {
    ...readProgram(parsed, currentDirectory),
    ...readGhostLimit(parsed, problems),
    ...flags.has("link-remap") && { linkRemap: true },
    ...flags.has("force-irmap") && { forceIrmap: true },
    ...scan && {
      irmapScanPaths: scan.map((path) => absolute(path, currentDirectory)),
    },
    ...cgroup !== undefined &&
      { freezeCgroup: absolute(cgroup, currentDirectory) },
  };
}

function readDump(
  parsed: ParsedArguments,
  { imagesDirectory, workDirectory }: Surroundings,
  problems: Reason[],
) {
  const { flags } = parsed;
  const validation = readFileValidation(parsed, problems);
  const pid = readPid(parsed, problems);
  if (pid === undefined && !problems.some((p) => p.object === "--tree")) {
    problems.push({
      object: "--tree",
      why: "the program to dump is not named",
      remedy: "write ckpt dump --tree PID",
    });
  }
  exclude(parsed, "leave-running", "leave-stopped", problems);
  exclude(parsed, "tcp-established", "tcp-close", problems);
  const linkPlace = readLinkPlace(parsed, problems);
  return {
    pid: pid ?? 0,
    imagesDirectory,
    workDirectory,
    leaveRunning: flags.has("leave-running"),
    leaveStopped: flags.has("leave-stopped"),
    timeoutSeconds: readTimeout(parsed, problems),
    replace: flags.has("replace"),
    ...linkPlace !== undefined && { linkPlace },
    ...flags.has("dry-run") && { dryRun: true },
    ...validation,
    ...readFileSystemGuards(parsed, problems),
  };
}

function readRestore(
  parsed: ParsedArguments,
  { imagesDirectory, workDirectory }: Surroundings,
  problems: Reason[],
) {
  const { flags } = parsed;
  const validation = readFileValidation(parsed, problems);
  rejectOperands(parsed.operands, problems);
  if (flags.has("restore-sibling") && !flags.has("restore-detached")) {
    problems.push({
      object: "--restore-sibling",
      why: "ckpt cannot wait for a program that is not its child",
      remedy: "add --restore-detached",
    });
  }
  exclude(parsed, "from-snapshot", "dry-run", problems);
  const pidfile = lastValue(parsed, "pidfile");
  return {
    imagesDirectory,
    workDirectory,
    detached: flags.has("restore-detached"),
    sibling: flags.has("restore-sibling"),
    leaveStopped: flags.has("leave-stopped"),
    inheritFd: readInheritFd(parsed, problems),
    ...pidfile !== undefined && { pidfile: absolute(pidfile, workDirectory) },
    ...flags.has("dry-run") && { dryRun: true },
    ...flags.has("from-snapshot") && { fromSnapshot: true },
    ...validation,
  };
}

function readShow(
  parsed: ParsedArguments,
  { imagesDirectory, json }: Surroundings,
  problems: Reason[],
): ShowOptions {
  readOneDirectory(parsed, problems);
  const mounts = parsed.flags.has("mounts");
  if (json && mounts) {
    problems.push({
      object: "--mounts",
      why: "draws for people, --json is for programs",
      remedy: "leave one of them out; --json has all mounts, too",
    });
  }
  return { imagesDirectory, json, ...mounts && { mounts } };
}

/** Sees that only one of --images-dir and a plain argument is there. */
function readOneDirectory(parsed: ParsedArguments, problems: Reason[]): void {
  rejectOperands(parsed.operands.slice(1), problems);
  if (parsed.operands.length > 0 && parsed.values.has("images-dir")) {
    problems.push({
      object: parsed.operands[0],
      why: "the directory is named twice, here and by --images-dir",
      remedy: "leave one of them out",
    });
  }
}

/** The value given last, as getopt programs do. */
export function lastValue(
  parsed: ParsedArguments,
  name: string,
): string | undefined {
  return parsed.values.get(name)?.at(-1);
}

/** The pid, from `--tree` or as a plain argument. */
function readPid(
  parsed: ParsedArguments,
  problems: Reason[],
): number | undefined {
  const option = lastValue(parsed, "tree");
  const [operand, ...rest] = parsed.operands;
  rejectOperands(rest, problems);
  if (option !== undefined && operand !== undefined && option !== operand) {
    problems.push({
      object: operand,
      why: `the program is named twice, here and by --tree ${option}`,
      remedy: "leave one of them out",
    });
  }
  const text = option ?? operand;
  if (text === undefined) return undefined;
  const pid = readNumber(text, 1, MAX_PID);
  if (pid === undefined) {
    problems.push({
      object: "--tree",
      why: `"${text}" is not a process number`,
      remedy: `write a number from 1 to ${MAX_PID}`,
    });
  }
  return pid;
}

function readTimeout(parsed: ParsedArguments, problems: Reason[]): number {
  const text = lastValue(parsed, "timeout");
  if (text === undefined) return DEFAULT_TIMEOUT_SECONDS;
  const seconds = readNumber(text, 0, MAX_TIMEOUT_SECONDS);
  if (seconds === undefined) {
    problems.push({
      object: "--timeout",
      why: `"${text}" is not a number of seconds`,
      remedy:
        `write a whole number up to ${MAX_TIMEOUT_SECONDS}; 0 waits for ever`,
    });
  }
  return seconds ?? DEFAULT_TIMEOUT_SECONDS;
}

const LINK_PLACES: readonly LinkPlace[] = ["beside", "lost+found"];

function readLinkPlace(
  parsed: ParsedArguments,
  problems: Reason[],
): LinkPlace | undefined {
  const text = lastValue(parsed, "link-place");
  if (text === undefined) return undefined;
  const place = LINK_PLACES.find((place) => place === text);
  if (place === undefined) {
    problems.push({
      object: "--link-place",
      why: `"${text}" is no such place`,
      remedy: `write one of ${LINK_PLACES.join(", ")}`,
    });
  } else if (!parsed.flags.has("link-remap")) {
    problems.push({
      object: "--link-place",
      why: "links are made only with --link-remap",
      remedy: "add --link-remap",
    });
  }
  return place;
}

const UNITS = ["", "K", "M", "G", "T"];

/** A number of bytes, as criu(8) takes it: 4096, 64K, 2G. */
function readGhostLimit(
  parsed: ParsedArguments,
  problems: Reason[],
): { ghostLimit?: bigint } {
  const text = lastValue(parsed, "ghost-limit");
  if (text === undefined) return {};
  const match = /^([0-9]{1,15})([KMGT]?)$/i.exec(text);
  if (match === null) {
    problems.push({
      object: "--ghost-limit",
      why: `"${text}" is not a number of bytes`,
      remedy: "write a whole number; K, M, G or T may follow",
    });
    return {};
  }
  const unit = UNITS.indexOf(match[2].toUpperCase());
  return { ghostLimit: BigInt(match[1]) << BigInt(10 * unit) };
}

const DEFAULT_FREEZE_SECONDS = 60;
const MAX_FREEZE_SECONDS = 3600;

/** `--watch-fs[=report]` and `--freeze-fs[=SECONDS]`. */
function readFileSystemGuards(
  parsed: ParsedArguments,
  problems: Reason[],
): Pick<DumpOptions, "watchFs" | "freezeFs" | "snapshot"> {
  const watch = lastValue(parsed, "watch-fs");
  if (watch !== undefined && watch !== "" && watch !== "report") {
    problems.push({
      object: "--watch-fs",
      why: `"${watch}" is not what it takes`,
      remedy: "write --watch-fs, or --watch-fs=report",
    });
  }
  const freeze = lastValue(parsed, "freeze-fs");
  const seconds = freeze === undefined || freeze === ""
    ? DEFAULT_FREEZE_SECONDS
    : readNumber(freeze, 1, MAX_FREEZE_SECONDS);
  if (seconds === undefined) {
    problems.push({
      object: "--freeze-fs",
      why: `"${freeze}" is not a number of seconds`,
      remedy: `write --freeze-fs=N, N from 1 to ${MAX_FREEZE_SECONDS}`,
    });
  }
  return {
    ...watch !== undefined &&
      { watchFs: watch === "report" ? "report" : "fail" },
    ...freeze !== undefined && { freezeFs: seconds },
    ...readSnapshot(parsed, problems),
  };
}

const COMMAND = "command:";

function readSnapshot(
  parsed: ParsedArguments,
  problems: Reason[],
): Pick<DumpOptions, "snapshot"> {
  const how = lastValue(parsed, "snapshot");
  if (how === undefined) return {};
  if (how.startsWith(COMMAND) && how.length > COMMAND.length) {
    return { snapshot: { command: how.slice(COMMAND.length) } };
  }
  if (how !== "btrfs") {
    problems.push({
      object: "--snapshot",
      why: `"${how}" is not a way to take snapshots`,
      remedy: "write --snapshot btrfs, or --snapshot command:COMMAND",
    });
  } else if (parsed.values.has("freeze-fs")) {
    problems.push({
      object: "--snapshot btrfs",
      why: "btrfs takes no snapshots while it is frozen",
      remedy: "leave --freeze-fs out; a snapshot is of one moment anyway",
    });
  }
  return { snapshot: "btrfs" };
}

const VALIDATION_METHODS: readonly ValidationMethod[] = [
  "filesize",
  "buildid",
  "mtime",
  "checksum",
];

/** Methods with commas between them, or "none". */
function readFileValidation(
  parsed: ParsedArguments,
  problems: Reason[],
): { fileValidation?: ValidationMethod[] } {
  const text = lastValue(parsed, "file-validation");
  if (text === undefined) return {};
  const words = text === "none" ? [] : text.split(",");
  const fileValidation = VALIDATION_METHODS.filter((method) =>
    words.includes(method)
  );
  if (fileValidation.length === new Set(words).size) return { fileValidation };
  problems.push({
    object: "--file-validation",
    why: `"${text}" is not a list of methods`,
    remedy: `write none, or some of ${
      VALIDATION_METHODS.join(",")
    } with commas between them`,
  });
  return {};
}

/** `fd[N]:KEY`, as in criu(8). */
function readInheritFd(
  parsed: ParsedArguments,
  problems: Reason[],
): InheritedDescriptor[] {
  const descriptors: InheritedDescriptor[] = [];
  for (const text of parsed.values.get("inherit-fd") ?? []) {
    const match = /^fd\[([0-9]+)\]:(.+)$/s.exec(text);
    const fd = match === null ? undefined : readNumber(match[1], 0, MAX_FD);
    if (match === null || fd === undefined) {
      problems.push({
        object: "--inherit-fd",
        why: `"${text}" does not have the form fd[N]:KEY`,
        remedy: "write, for example, --inherit-fd 'fd[5]:pipe[1234]'",
      });
    } else if (descriptors.some((d) => d.key === match[2])) {
      problems.push({
        object: "--inherit-fd",
        why: `the key "${match[2]}" is given more than once`,
        remedy: "give every key one descriptor",
      });
    } else {
      descriptors.push({ fd, key: match[2] });
    }
  }
  return descriptors;
}

function rejectOperands(operands: string[], problems: Reason[]): void {
  for (const operand of operands) {
    problems.push({
      object: operand,
      why: "is one argument too many",
      remedy: "leave it out, or put it in quotes with the option it belongs to",
    });
  }
}

function exclude(
  parsed: ParsedArguments,
  one: string,
  other: string,
  problems: Reason[],
): void {
  if (parsed.flags.has(one) && parsed.flags.has(other)) {
    problems.push({
      object: `--${one}`,
      why: `contradicts --${other}`,
      remedy: "leave one of them out",
    });
  }
}

/** @returns undefined unless `text` is a plain decimal number in the range */
function readNumber(
  text: string,
  lowest: number,
  highest: number,
): number | undefined {
  if (!/^[0-9]{1,10}$/.test(text)) return undefined;
  const value = Number(text);
  return value >= lowest && value <= highest ? value : undefined;
}

function absolute(name: string, directory: string): string {
  if (name.startsWith("/")) return name;
  if (name === ".") return directory;
  return directory.endsWith("/")
    ? `${directory}${name}`
    : `${directory}/${name}`;
}
