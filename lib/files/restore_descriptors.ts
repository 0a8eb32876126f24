/**
 * Writes the program that opens a task's descriptors again: every open file
 * description once, under the first of its numbers, then duplicated.
 */
import type { Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import {
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type fown_entry,
  type reg_file_entry,
} from "../image/schema.gen.ts";
import { encodeText } from "../ffi/text.ts";
import { DescriptorNumbers } from "./descriptor_numbers.ts";
import { FD_CLOEXEC } from "./descriptors.ts";
import { restoreOwner } from "./owner.ts";

const F_SETFL = 4;
const SEEK_SET = 0;
/** Marks a position that is not to be set (CRIU writes it for /dev/kmsg). */
const NO_POSITION = 2n ** 64n - 1n;
/** Flags that act on open(2) and are no state of an open file. */
const ACTING_FLAGS = O.CREAT | O.EXCL | O.TRUNC | O.CLOEXEC;

/** Descriptors the agent was given, by the id of the file they stand for. */
export type GivenDescriptors = ReadonlyMap<number, GivenDescriptor>;

export interface GivenDescriptor {
  /** Its number in the agent. */
  fd: number;
  /** Whether to open the same file anew, with the flags of the image. */
  reopen: boolean;
}

export function restoreDescriptors(
  program: Program,
  descriptors: readonly fdinfo_entry[],
  files: ReadonlyMap<number, file_entry>,
  given: GivenDescriptors,
): void {
  const numbers = new DescriptorNumbers();
  const opened = new Map<number, number>();
  for (const entry of [...descriptors].sort((a, b) => a.fd - b.fd)) {
    const first = opened.get(entry.id);
    const cloexec = (entry.flags & FD_CLOEXEC) !== 0 ? O.CLOEXEC : 0;
    if (first !== undefined) {
      duplicate(program, first, entry.fd, cloexec);
      numbers.takeAt(entry.fd);
      continue;
    }
    opened.set(entry.id, entry.fd);
    const file = files.get(entry.id)!;
    const replacement = given.get(entry.id);
    if (replacement !== undefined && !replacement.reopen) {
      duplicate(program, replacement.fd, entry.fd, cloexec);
      numbers.takeAt(entry.fd);
      continue;
    }
    const source = replacement === undefined
      ? file.reg!.name
      : `/proc/self/fd/${replacement.fd}`;
    const flags = flagsOf(file);
    const got = numbers.take();
    program.call(
      "openat",
      [
        AT_FDCWD,
        program.text(encodeText(source)),
        (flags & ~ACTING_FLAGS) | O.NOCTTY | cloexec,
        0,
      ],
      `opening ${source} for descriptor ${entry.fd}`,
    );
    if (got !== entry.fd) {
      duplicate(program, got, entry.fd, cloexec);
      numbers.takeAt(entry.fd);
      program.call("close", [got], `closing descriptor ${got}`);
      numbers.free(got);
    }
    restoreState(program, entry.fd, source, flags, file);
  }
}

function flagsOf(file: file_entry): number {
  return file.type === fd_types.TTY ? file.tty!.flags : file.reg!.flags;
}

function ownerOf(file: file_entry): fown_entry {
  return file.type === fd_types.TTY ? file.tty!.fown : file.reg!.fown;
}

function duplicate(
  program: Program,
  from: number,
  to: number,
  cloexec: number,
): void {
  program.call("dup3", [from, to, cloexec], `making descriptor ${to}`);
}

function restoreState(
  program: Program,
  fd: number,
  name: string,
  flags: number,
  file: file_entry,
): void {
  if (flags & O.PATH) return;
  const what = `descriptor ${fd} (${name})`;
  const pos = file.reg?.pos ?? NO_POSITION;
  if (pos !== 0n && pos !== NO_POSITION) {
    program.call(
      "lseek",
      [fd, pos, SEEK_SET],
      `setting the position of ${what}`,
    );
  }
  restoreOwner(program, fd, ownerOf(file), what);
  if (flags & O.ASYNC) {
    // open(2) does not register for signals; fcntl does.
    program.call(
      "fcntl",
      [fd, F_SETFL, flags & ~ACTING_FLAGS],
      `setting the flags of ${what}`,
    );
  }
}

/** Root and working directory (chroot(2), fchdir(2)). */
export function restoreDirectories(
  program: Program,
  cwd: reg_file_entry,
  root: reg_file_entry,
): void {
  const fd = program.call(
    "openat",
    [
      AT_FDCWD,
      program.text(encodeText(cwd.name)),
      O.PATH | O.DIRECTORY | O.CLOEXEC,
      0,
    ],
    `opening the working directory ${cwd.name}`,
  );
  if (root.name !== "/") {
    program.call(
      "chroot",
      [program.text(encodeText(root.name))],
      `changing the root directory to ${root.name}`,
    );
  }
  program.call("fchdir", [fd], `changing to the directory ${cwd.name}`);
  program.call("close", [fd], "closing the working directory");
}
