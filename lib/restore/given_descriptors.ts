/**
 * Descriptors of ckpt's own that take the place of files the program had got
 * from outside: --inherit-fd, and the terminal with --shell-job.
 */
import type { Reason } from "../error.ts";
import { close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import { readPipeImages } from "../files/pipe_images.ts";
import {
  fd_types,
  type file_entry,
  type tty_info_entry,
} from "../image/schema.gen.ts";
import type { RestoreOptions } from "./options.ts";
import { filesOfTerminals } from "../files/terminal_images.ts";
import type { TreeImages } from "./task_images.ts";

export interface Given {
  /** By the id of the file in the image. */
  readonly byFile: ReadonlyMap<number, { fd: number; reopen: boolean }>;
  readonly reasons: readonly Reason[];
}

/** Finds a descriptor for every file that needs one. */
export function chooseGiven(
  images: Pick<TreeImages, "set" | "open" | "files" | "terminals">,
  options: RestoreOptions,
): Given {
  const byFile = new Map<number, { fd: number; reopen: boolean }>();
  const reasons: Reason[] = [];
  const used = new Set<number>();
  const terminals = images.set.read("tty-info", undefined) ?? [];
  const own = filesOfTerminals(images.files.values(), images.terminals);
  const { external } = readPipeImages(images.set);
  for (const id of images.open) {
    const file = images.files.get(id)!;
    const hasReason = file.type === fd_types.TTY && !own.has(id) ||
      file.type === fd_types.PIPE && external.has(file.pipe!.pipe_id);
    if (options.inheritFd.length === 0 && !hasReason) continue;
    const keys = keysOf(file, images.files, terminals);
    const inherited = options.inheritFd.find(({ key }) => keys.includes(key));
    if (inherited !== undefined) {
      used.add(inherited.fd);
      if (isOpen(inherited.fd)) {
        byFile.set(id, {
          fd: duplicate(inherited.fd),
          reopen: isOtherEnd(file, inherited.fd),
        });
      }
    } else if (file.tty !== undefined && !own.has(id)) {
      const own = options.shellJob ? ownTerminal(file.tty!.flags) : undefined;
      if (own === undefined) {
        reasons.push({
          object: `the terminal of the program (${keys[0]})`,
          why: options.shellJob
            ? "none of ckpt's standard streams is a terminal"
            : "it is not part of the image",
          remedy: options.shellJob
            ? "run ckpt restore on a terminal"
            : `give --shell-job on a terminal, or --inherit-fd fd[N]:${
              keys[0]
            }`,
        });
      } else {
        byFile.set(id, { ...own, fd: duplicate(own.fd) });
      }
    } else if (
      file.type === fd_types.PIPE && external.has(file.pipe!.pipe_id)
    ) {
      reasons.push({
        object: `pipe ${keys[0]}`,
        why: "the program got it from outside",
        remedy: `give one: --inherit-fd fd[N]:${keys[0]}`,
      });
    }
  }
  for (const { fd, key } of options.inheritFd) {
    if (!isOpen(fd)) {
      reasons.push({
        object: `--inherit-fd fd[${fd}]:${key}`,
        why: `ckpt has no descriptor ${fd}`,
        remedy: `open it in the shell: ${fd}<FILE`,
      });
    } else if (!used.has(fd)) {
      reasons.push({
        object: `--inherit-fd fd[${fd}]:${key}`,
        why: "the program has no file with this key",
        remedy: "ckpt show DIR lists its files",
      });
    }
  }
  return { byFile, reasons };
}

/** The keys by which --inherit-fd may name a file (as CRIU has them). */
function keysOf(
  file: file_entry,
  files: ReadonlyMap<number, file_entry>,
  terminals: readonly tty_info_entry[],
): string[] {
  switch (file.type) {
    case fd_types.PIPE: {
      const { pipe_id } = file.pipe!;
      return [`pipe:[${pipe_id}]`, `pipe[${pipe_id}]`];
    }
    case fd_types.UNIXSK:
      return [`socket:[${file.usk!.ino}]`, `socket[${file.usk!.ino}]`];
    case fd_types.TTY: {
      const info = terminals.find(({ id }) => id === file.tty!.tty_info_id);
      return [
        `tty[${(info?.rdev ?? 0).toString(16)}:${
          (info?.dev ?? 0).toString(16)
        }]`,
      ];
    }
    case fd_types.REG:
    case fd_types.FIFO: {
      const { name } = (file.reg ?? files.get(file.fifo!.regf_id!)?.reg)!;
      return [name, name.replace(/^\//, "")];
    }
    default:
      return [];
  }
}

/** Whether a pipe is given by one end, and its other one is wanted, too. */
function isOtherEnd({ pipe }: file_entry, fd: number): boolean {
  if (pipe === undefined) return false;
  const flags = Number(syscall("fcntl", BigInt(fd), F_GETFL));
  return (flags & O.ACCMODE) !== (pipe.flags & O.ACCMODE);
}

const F_GETFD = 1n;
const F_GETFL = 3n;
const F_DUPFD_CLOEXEC = 1030n;
/** The agent's own descriptors come below. */
const FIRST_DUPLICATE = 3n;

/**
 * A standard stream that is a terminal: one with the same flags, to be shared
 * as programs of a shell share it, or else any, to be opened anew.
 */
function ownTerminal(
  flags: number,
): { fd: number; reopen: boolean } | undefined {
  const streams = [Deno.stdin, Deno.stdout, Deno.stderr];
  const fds = [0, 1, 2].filter((fd) => streams[fd].isTerminal());
  const alike = fds.find((fd) =>
    Number(syscall("fcntl", BigInt(fd), F_GETFL)) === flags
  );
  if (alike !== undefined) return { fd: alike, reopen: false };
  return fds.length === 0 ? undefined : { fd: fds[0], reopen: true };
}

function duplicate(fd: number): number {
  return Number(
    syscall("fcntl", BigInt(fd), F_DUPFD_CLOEXEC, FIRST_DUPLICATE),
  );
}

function isOpen(fd: number): boolean {
  try {
    syscall("fcntl", BigInt(fd), F_GETFD);
    return true;
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

/**
 * Closes the duplicates, and what --inherit-fd named, so that ckpt does not
 * hold the program's pipes open.
 */
export function releaseGiven(
  { byFile }: Given,
  { inheritFd }: RestoreOptions,
): void {
  for (const { fd } of byFile.values()) close(fd);
  for (const fd of new Set(inheritFd.map(({ fd }) => fd))) {
    if (fd > 2) close(fd);
  }
}
