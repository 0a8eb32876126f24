/**
 * Descriptors of ckpt's own that take the place of files the program had got
 * from outside: --inherit-fd, and the terminal with --shell-job.
 */
import type { Reason } from "../error.ts";
import { close, syscall, SyscallError } from "../ffi/syscall.ts";
import {
  fd_types,
  type file_entry,
  type tty_info_entry,
} from "../image/schema.gen.ts";
import type { RestoreOptions } from "./options.ts";
import type { TaskImages } from "./task_images.ts";

export interface Given {
  /** By the id of the file in the image. */
  readonly byFile: ReadonlyMap<number, { fd: number; reopen: boolean }>;
  readonly reasons: readonly Reason[];
}

const F_GETFD = 1n;

/** Finds a descriptor for every file that needs one. */
export function chooseGiven(
  images: TaskImages,
  options: RestoreOptions,
): Given {
  const byFile = new Map<number, { fd: number; reopen: boolean }>();
  const reasons: Reason[] = [];
  const used = new Set<number>();
  const terminals = images.set.read("tty-info", undefined) ?? [];
  const wanted = new Set(images.descriptors.map(({ id }) => id));
  for (const id of wanted) {
    const file = images.files.get(id)!;
    const keys = keysOf(file, terminals);
    const inherited = options.inheritFd.find(({ key }) => keys.includes(key));
    if (inherited !== undefined) {
      used.add(inherited.fd);
      byFile.set(id, { fd: inherited.fd, reopen: false });
    } else if (file.type === fd_types.TTY) {
      const fd = options.shellJob ? ownTerminal() : undefined;
      if (fd === undefined) {
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
        byFile.set(id, { fd, reopen: true });
      }
    } else if (file.type === fd_types.PIPE) {
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
  terminals: readonly tty_info_entry[],
): string[] {
  switch (file.type) {
    case fd_types.PIPE: {
      const { pipe_id } = file.pipe!;
      return [`pipe:[${pipe_id}]`, `pipe[${pipe_id}]`];
    }
    case fd_types.TTY: {
      const info = terminals.find(({ id }) => id === file.tty!.tty_info_id);
      return [
        `tty[${(info?.rdev ?? 0).toString(16)}:${
          (info?.dev ?? 0).toString(16)
        }]`,
      ];
    }
    default: {
      const name = file.reg?.name ?? "";
      return [name, name.replace(/^\//, "")];
    }
  }
}

/** The number of the first standard stream that is a terminal. */
function ownTerminal(): number | undefined {
  const streams = [Deno.stdin, Deno.stdout, Deno.stderr];
  const fd = streams.findIndex((stream) => stream.isTerminal());
  return fd < 0 ? undefined : fd;
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

/** Closes what was given, so that ckpt does not hold the program's pipes. */
export function releaseGiven({ byFile }: Given): void {
  for (const fd of new Set([...byFile.values()].map(({ fd }) => fd))) {
    if (fd > 2) close(fd);
  }
}
