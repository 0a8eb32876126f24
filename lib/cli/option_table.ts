/**
 * The options ckpt has, in the order in which help lists them. The parser, the
 * help and the tests read this one table.
 */

export const COMMANDS = [
  "dump",
  "restore",
  "check",
  "show",
  "clean",
  "help",
] as const;

export type CommandName = typeof COMMANDS[number];

/** Whether an option takes a value. "optional": only as `--name=value`. */
export type ArgumentKind = "none" | "required" | "optional";

export interface OptionEntry {
  /** The long name, without the dashes. */
  name: string;
  /** The letter of the short form. */
  short?: string;
  argument: ArgumentKind;
  /** What help calls the value. */
  placeholder?: string;
  /** May be given more than once, and every value counts. */
  repeatable?: boolean;
  /** Empty: every command. */
  commands: readonly CommandName[];
  help: string;
}

export const OPTIONS: readonly OptionEntry[] = [
  {
    name: "tree",
    short: "t",
    argument: "required",
    placeholder: "PID",
    commands: ["dump", "check"],
    help: "root of the process tree; a plain PID means the same",
  },
  {
    name: "images-dir",
    short: "D",
    argument: "required",
    placeholder: "DIR",
    commands: ["dump", "restore", "show", "clean"],
    help: "directory of the images (default: the current directory)",
  },
  {
    name: "work-dir",
    short: "W",
    argument: "required",
    placeholder: "DIR",
    commands: ["dump", "restore", "check"],
    help:
      "directory of logs, pid files and statistics (default: the images directory)",
  },
  {
    name: "leave-running",
    short: "R",
    argument: "none",
    commands: ["dump"],
    help: "let the program go on after the dump, instead of killing it",
  },
  {
    name: "leave-stopped",
    short: "s",
    argument: "none",
    commands: ["dump", "restore"],
    help: "leave the program stopped afterwards",
  },
  {
    name: "dry-run",
    argument: "none",
    commands: ["dump", "restore"],
    help: "tell what would be done, or what speaks against it, and do nothing",
  },
  {
    name: "replace",
    argument: "none",
    commands: ["dump"],
    help: "replace the image that is already in the directory",
  },
  {
    name: "freeze-cgroup",
    argument: "required",
    placeholder: "DIR",
    commands: ["dump", "check"],
    help:
      "freeze the cgroup DIR, which holds just the tree, while it is stopped; one that is frozen already stays so",
  },
  {
    name: "file-locks",
    short: "l",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help:
      "save locks of open files that the outside has, too; all others are saved anyway",
  },
  {
    name: "link-remap",
    argument: "none",
    commands: ["dump", "check"],
    help:
      "files whose name was removed, but not another one that ckpt can find: link them beside the path they had",
  },
  {
    name: "link-place",
    argument: "required",
    placeholder: "PLACE",
    commands: ["dump"],
    help:
      "where --link-remap makes links: beside (default), or lost+found: below the root of the file system",
  },
  {
    name: "ghost-limit",
    argument: "required",
    placeholder: "SIZE",
    commands: ["dump", "check"],
    help:
      "save deleted files of up to SIZE bytes on disk each; K, M, G, T may follow (default: 1G)",
  },
  {
    name: "file-validation",
    argument: "required",
    placeholder: "METHODS",
    commands: ["dump", "restore"],
    help:
      "how files are recognised at restore: none, filesize, buildid, mtime, checksum, or several with commas (default: dump records buildid, restore compares all that was recorded)",
  },
  {
    name: "irmap-scan-path",
    argument: "required",
    placeholder: "DIR",
    repeatable: true,
    commands: ["dump", "check"],
    help:
      "search through DIR for files that are watched (inotify, fanotify) and have no known path; may be repeated",
  },
  {
    name: "force-irmap",
    argument: "none",
    commands: ["dump", "check"],
    help: "search through the whole file systems of such files",
  },
  {
    name: "watch-fs",
    argument: "optional",
    placeholder: "report",
    commands: ["dump"],
    help:
      "fail when somebody changes files that the image depends on while the program stands still; with =report, only tell",
  },
  {
    name: "freeze-fs",
    argument: "optional",
    placeholder: "SECONDS",
    commands: ["dump"],
    help:
      "freeze the file systems that the program has files open on for writing while it stands still, for at most SECONDS (default: 60)",
  },
  {
    name: "snapshot",
    argument: "required",
    placeholder: "HOW",
    commands: ["dump"],
    help:
      "while the program stands still: btrfs takes snapshots of the subvolumes it writes to; command:COMMAND runs COMMAND with sh",
  },
  {
    name: "from-snapshot",
    argument: "none",
    commands: ["restore"],
    help:
      "put the snapshots that the dump took (btrfs) in the place of their subvolumes; what is there stays beside them",
  },
  {
    name: "tcp-established",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help:
      "save and restore TCP connections; their packets are dropped from the dump to the restore",
  },
  {
    name: "tcp-close",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help: "leave TCP connections out; they are closed after the restore",
  },
  {
    name: "skip-in-flight",
    argument: "none",
    commands: ["dump", "check"],
    help: "leave out TCP connections that wait to be accepted",
  },
  {
    name: "ext-unix-sk",
    short: "x",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help: "connect Unix datagram sockets to those of the outside again by name",
  },
  {
    name: "timeout",
    argument: "required",
    placeholder: "SECONDS",
    commands: ["dump"],
    help:
      "give up stopping the program after this time (default: 10; 0: never)",
  },
  {
    name: "restore-detached",
    short: "d",
    argument: "none",
    commands: ["restore"],
    help: "return once the program runs, instead of waiting for its end",
  },
  {
    name: "restore-sibling",
    short: "S",
    argument: "none",
    commands: ["restore"],
    help: "make the program a sibling of ckpt; only with --restore-detached",
  },
  {
    name: "pidfile",
    argument: "required",
    placeholder: "FILE",
    commands: ["restore"],
    help: "write the program's pid to FILE (relative to the work directory)",
  },
  {
    name: "inherit-fd",
    argument: "required",
    placeholder: "fd[N]:KEY",
    repeatable: true,
    commands: ["restore"],
    help: "let ckpt's descriptor N take the place of KEY; may be repeated",
  },
  {
    name: "external",
    argument: "required",
    placeholder: "KEY[:VALUE]",
    repeatable: true,
    commands: ["dump", "restore", "check"],
    help: "something that belongs to the outside; may be repeated",
  },
  {
    name: "shell-job",
    short: "j",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help: "the program shares a session or a terminal with the outside",
  },
  {
    name: "overlay-trust-options",
    argument: "none",
    commands: ["dump", "restore", "check"],
    help:
      "take the layers of an overlay for what its options name, where nothing proves it; at the restore, also where other directories are there now",
  },
  {
    name: "root",
    short: "r",
    argument: "required",
    placeholder: "DIR",
    commands: ["dump", "restore", "check"],
    help: "what becomes the root of a program in a mount namespace of its own",
  },
  {
    name: "log-file",
    short: "o",
    argument: "required",
    placeholder: "FILE",
    commands: ["dump", "restore", "check"],
    help:
      "write the log to FILE (relative to the work directory; default: standard error)",
  },
  {
    name: "verbosity",
    short: "v",
    argument: "optional",
    placeholder: "N",
    commands: [],
    help:
      "-v, -vv: more; -vN: 0 nothing, 1 errors, 2 warnings (default), 3 information, 4 debugging",
  },
  {
    name: "mounts",
    argument: "none",
    commands: ["show"],
    help: "the mount namespaces: their trees, and who shares with whom",
  },
  {
    name: "json",
    argument: "none",
    commands: [],
    help: "print the result, or the error, as JSON on standard output",
  },
  {
    name: "config",
    argument: "required",
    placeholder: "FILE",
    commands: [],
    help: "read options from FILE, after the default configuration files",
  },
  {
    name: "no-default-config",
    argument: "none",
    commands: [],
    help: "do not read the default configuration files",
  },
  {
    name: "help",
    short: "h",
    argument: "none",
    commands: [],
    help: "print help and exit",
  },
  {
    name: "version",
    short: "V",
    argument: "none",
    commands: [],
    help: "print the version and exit",
  },
];

/** Whether `command` has the option. */
export function appliesTo(option: OptionEntry, command: CommandName): boolean {
  return option.commands.length === 0 || option.commands.includes(command);
}
