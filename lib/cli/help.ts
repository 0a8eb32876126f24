/** The texts of help, made from the table of options. */
import {
  appliesTo,
  type CommandName,
  type OptionEntry,
  OPTIONS,
} from "./option_table.ts";

interface CommandHelp {
  synopsis: string[];
  summary: string;
  about: string;
  examples: [command: string, meaning: string][];
}

const COMMAND_HELP: Record<CommandName, CommandHelp> = {
  dump: {
    synopsis: ["ckpt dump [options] --tree PID", "ckpt dump [options] PID"],
    summary: "save a running process tree to images",
    about:
      `Stops the tree, writes its state to the images directory, and kills it, unless
told to leave it running or stopped. When anything goes wrong the program goes
on as if nothing had happened.`,
    examples: [
      ["ckpt dump -D images -t 1234", "save task 1234 and end it"],
      ["ckpt dump -D images -R 1234", "save it, and let it go on"],
      ["ckpt dump -D images -j -o dump.log -v4 1234", "a program of a shell"],
    ],
  },
  restore: {
    synopsis: ["ckpt restore [options]"],
    summary: "bring a process tree back from images",
    about:
      `Builds the tree anew with the pids it had. Without --restore-detached, ckpt
waits for the program, passes signals on to it, and exits as it does.`,
    examples: [
      ["ckpt restore -D images", "restore, and wait for the program"],
      ["ckpt restore -D images -d --pidfile pid", "restore, and return"],
      [
        "ckpt restore -D images --inherit-fd 'fd[5]:pipe[4711]' 5>out",
        "connect a pipe of the outside",
      ],
    ],
  },
  check: {
    synopsis: ["ckpt check [options] [PID]"],
    summary:
      "tell whether a process tree can be dumped, and with which options",
    about:
      `Looks at the program without stopping it. Without a PID, looks at what the
host allows ckpt to do.`,
    examples: [
      ["ckpt check", "is the host fit for it?"],
      ["ckpt check 1234", "can task 1234 be dumped?"],
    ],
  },
  show: {
    synopsis: ["ckpt show [options] [DIR]"],
    summary: "show what a directory of images holds",
    about: `A summary for people; with --json, all of it.`,
    examples: [
      ["ckpt show images", "a summary"],
      ["ckpt show --json images", "everything"],
    ],
  },
  clean: {
    synopsis: ["ckpt clean [options] [DIR]"],
    summary: "remove what dumps have left outside of their images",
    about:
      `Removes the links and snapshots that dumps with --link-remap and --snapshot
made in the file systems of the program, and what a dump that was killed left in
the directory. An image with such links cannot be restored any more, and one
with snapshots not from them; other images stay as they are.`,
    examples: [["ckpt clean images", "this image is not needed any more"]],
  },
  help: {
    synopsis: ["ckpt help [COMMAND]"],
    summary: "explain ckpt, or one of its commands",
    about: `The same as ckpt COMMAND --help.`,
    examples: [["ckpt help dump", "all about dump"]],
  },
};

/** Option names longer than this get a line of their own. */
const NAME_COLUMN = 30;
const WIDTH = 80;

/** @param command undefined: ckpt as a whole */
export function helpText(command: CommandName | undefined): string {
  return command === undefined ? overview() : helpOf(command);
}

function overview(): string {
  const commands = Object.entries(COMMAND_HELP)
    .map(([name, { summary }]) => `  ${name.padEnd(9)}${summary}\n`)
    .join("");
  return `ckpt saves a running process tree to image files and brings it back.

Usage:
${indent(Object.values(COMMAND_HELP).flatMap((c) => c.synopsis[0]))}
Commands:
${commands}
Options of every command:
${optionLines(OPTIONS.filter((option) => option.commands.length === 0))}
Examples:
${examples([...COMMAND_HELP.dump.examples, ...COMMAND_HELP.restore.examples])}
ckpt help COMMAND explains a command and its options.
`;
}

function helpOf(command: CommandName): string {
  const { synopsis, about, examples: list } = COMMAND_HELP[command];
  return `Usage:
${indent(synopsis)}
${about}

Options:
${optionLines(OPTIONS.filter((option) => appliesTo(option, command)))}
Examples:
${examples(list)}`;
}

function indent(lines: string[]): string {
  return lines.map((line) => `  ${line}\n`).join("");
}

function examples(list: [string, string][]): string {
  return list.map(([command, meaning]) => `  # ${meaning}\n  ${command}\n`)
    .join("");
}

function optionLines(options: readonly OptionEntry[]): string {
  return options.map(optionLine).join("");
}

function optionLine(option: OptionEntry): string {
  const short = option.short === undefined ? "    " : `-${option.short}, `;
  const value = option.argument === "none"
    ? ""
    : option.argument === "optional"
    ? `[=${option.placeholder}]`
    : ` ${option.placeholder}`;
  const name = `  ${short}--${option.name}${value}`;
  const [first, ...rest] = wrap(option.help, WIDTH - NAME_COLUMN);
  const margin = " ".repeat(NAME_COLUMN);
  const head = name.length < NAME_COLUMN
    ? `${name.padEnd(NAME_COLUMN)}${first}\n`
    : `${name}\n${margin}${first}\n`;
  return head + rest.map((line) => `${margin}${line}\n`).join("");
}

/** Breaks text at blanks into lines of at most `width`, where words allow. */
function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines;
}
