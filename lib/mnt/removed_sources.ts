/**
 * Files and directories that were removed and that mounts show all the same.
 * They are made again under a name of the moment; when they are mounted, they
 * get their own one, and lose it. In a superblock that nobody else knows
 * nothing is in the way. In one of the outside nothing of others is touched,
 * and a guard removes the names when ckpt is killed.
 */
import { Calls } from "../ffi/calls.ts";
import { EEXIST, ELOOP, ENOENT, ENOTDIR } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  S_IF,
  stat,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { Guard } from "../ffi/guard.ts";
import { readRandomUuid } from "../proc/read.ts";
import { isOneOf } from "../ghost/attributes.ts";
import { AT_REMOVEDIR, statx, type Time } from "../ghost/calls.ts";
import { duplicate, makeDirectory, openAt } from "./calls.ts";
import { SINGLE } from "./save_tree.ts";

interface Made {
  /** The directory that it is in. */
  readonly directory: number;
  readonly name: string;
  readonly temporary: string;
  /** Of one of the outside. */
  readonly guard: Guard | undefined;
}

const RENAME_NOREPLACE = 1n;
const ASIDE = ".ckpt-aside";
/** The directory in which a file is made. */
const BESIDE = ".directory";
const DIRECTORY = O.PATH | O.DIRECTORY | O.NOFOLLOW;

export class RemovedSources implements Disposable {
  readonly #made: Made[] = [];
  /** Directories that had been removed, too. */
  readonly #parents: { readonly directory: number; readonly name: string }[] =
    [];
  /** Of living directories, before anything was made in them. */
  readonly #times = new Map<string, { fd: number; times: readonly Time[] }>();
  readonly #fds: number[] = [];

  /**
   * @param root of a superblock, by a mount that can be written to
   * @param path from there
   * @param isOutside whether others use that superblock
   * @param fill fills an empty directory, or puts a single file into it
   * @returns what leads to it, for the caller
   */
  async make(
    root: number,
    path: string,
    isOutside: boolean,
    fill: (directory: string) => Promise<{ readonly isSingle: boolean }>,
  ): Promise<number> {
    const parts = path.split("/");
    const name = parts.pop()!;
    const directory = this.#directory(root, parts, isOutside);
    const id = isOutside ? `${readRandomUuid().slice(0, 8)}-` : "";
    const temporary = `.ckpt-removed-${id}${this.#made.length}`;
    this.#keepTimes(directory);
    this.#made.push({
      directory,
      name,
      temporary,
      guard: isOutside ? guardOf(directory, temporary) : undefined,
    });
    const at = `/proc/self/fd/${directory}/${temporary}`;
    makeDirectory(directory, temporary);
    const { isSingle } = await fill(at);
    if (isSingle) {
      const beside = `${temporary}${BESIDE}`;
      rename(directory, temporary, beside);
      Deno.renameSync(`/proc/self/fd/${directory}/${beside}/${SINGLE}`, at);
      unlink(directory, beside, true);
    }
    return openAt(directory, temporary, O.PATH | O.NOFOLLOW);
  }

  /** The nearest one that there can be; of the outside, that there is. */
  #directory(
    root: number,
    parts: readonly string[],
    isOutside: boolean,
  ): number {
    let directory = this.#keep(duplicate(root));
    for (const name of parts) {
      try {
        directory = this.#keep(openAt(directory, name, DIRECTORY));
      } catch (error) {
        if (isOneOf(error, ENOTDIR, ELOOP)) return directory;
        if (!isOneOf(error, ENOENT)) throw error;
        if (isOutside) return directory;
        this.#keepTimes(directory);
        makeDirectory(directory, name);
        this.#parents.push({ directory, name });
        directory = this.#keep(openAt(directory, name, DIRECTORY));
      }
    }
    return directory;
  }

  #keep(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  #keepTimes(fd: number): void {
    const { dev, ino } = stat(fd);
    const key = `${dev} ${ino}`;
    if (this.#times.has(key)) return;
    const { accessed, modified } = statx(`/proc/self/fd/${fd}/.`);
    this.#times.set(key, { fd, times: [accessed, modified] });
  }

  /** Takes the names away, in whatever namespace that happens. */
  remove(): void {
    for (const { directory, name, temporary, guard } of this.#made.splice(0)) {
      if (guard !== undefined) {
        removeOutside(directory, name, temporary);
        guard.end();
        continue;
      }
      const isAside = !moveTo(directory, temporary, name);
      if (isAside) {
        rename(directory, name, ASIDE);
        rename(directory, temporary, name);
      }
      unlink(directory, name, isDirectory(directory, name));
      if (isAside) rename(directory, ASIDE, name);
    }
    for (const { directory, name } of this.#parents.toReversed()) {
      unlink(directory, name, true);
    }
    for (const { fd, times } of this.#times.values()) setTimes(fd, times);
  }

  [Symbol.dispose](): void {
    let isLeft = false;
    for (const { directory, temporary, guard } of this.#made.splice(0)) {
      if (guard === undefined) continue;
      isLeft = true;
      for (const { name, isDirectory } of namesOf(temporary)) {
        unlinkIfThere(directory, name, isDirectory);
      }
      guard.end();
    }
    if (isLeft) {
      for (const { fd, times } of this.#times.values()) setTimes(fd, times);
    }
    for (const fd of this.#fds.splice(0)) close(fd);
  }
}

/** All that may be there while one is made, in the order of its removal. */
function namesOf(
  temporary: string,
): { name: string; isDirectory: boolean }[] {
  return [temporary, `${temporary}${BESIDE}`].flatMap((name) => [
    { name: `${name}/${SINGLE}`, isDirectory: false },
    { name, isDirectory: true },
    { name, isDirectory: false },
  ]);
}

function guardOf(directory: number, temporary: string): Guard {
  return Guard.start(
    namesOf(temporary).map(({ name, isDirectory }) => ({
      path: `/proc/self/fd/${directory}/.`,
      remove: name,
      isDirectory,
    })),
  );
}

function unlinkIfThere(
  directory: number,
  name: string,
  isDirectory: boolean,
): void {
  try {
    unlink(directory, name, isDirectory);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
}

/**
 * Gives it its own name and takes that away, at once: nobody else has a file of
 * that name, or it is one beside it.
 */
function removeOutside(
  directory: number,
  name: string,
  temporary: string,
): void {
  const flags = isDirectory(directory, temporary) ? Number(AT_REMOVEDIR) : 0;
  for (let number = 0;; number++) {
    const from = terminated(encodeText(temporary));
    const to = terminated(
      encodeText(number === 0 ? name : `${name}.ckpt-ghost.${number}`),
    );
    const calls = new Calls();
    const renamed = calls.add("renameat2", [
      directory,
      Number(addressOf(from)),
      directory,
      Number(addressOf(to)),
      Number(RENAME_NOREPLACE),
    ]);
    const removed = calls.add(
      "unlinkat",
      [directory, Number(addressOf(to)), flags],
      renamed,
    );
    calls.runToTheEnd(1);
    const result = calls.result(0, renamed);
    if (result === -EEXIST) continue;
    const failed = [result, calls.result(0, removed)].find((one) => one < 0);
    if (failed === undefined) return;
    throw new SyscallError("renameat2", -failed);
  }
}

/** @returns false where something else has that name */
function moveTo(directory: number, from: string, to: string): boolean {
  try {
    rename(directory, from, to, RENAME_NOREPLACE);
    return true;
  } catch (error) {
    if (isOneOf(error, EEXIST)) return false;
    throw error;
  }
}

function rename(directory: number, from: string, to: string, flags = 0n): void {
  const target = terminated(encodeText(to));
  syscallBuffer1(
    "renameat2",
    BigInt(directory),
    terminated(encodeText(from)),
    BigInt(directory),
    addressOf(target),
    flags,
  );
}

/** Of a directory, also where there is no /proc. */
function setTimes(directory: number, times: readonly Time[]): void {
  const values = BigInt64Array.from(
    times.flatMap(({ seconds, nanoseconds }) => [seconds, BigInt(nanoseconds)]),
  );
  syscallBuffer1(
    "utimensat",
    BigInt(directory),
    terminated("."),
    addressOf(new Uint8Array(values.buffer)),
    0n,
  );
}

function unlink(directory: number, name: string, isDirectory: boolean): void {
  syscallBuffer1(
    "unlinkat",
    BigInt(directory),
    terminated(encodeText(name)),
    isDirectory ? AT_REMOVEDIR : 0n,
  );
}

function isDirectory(directory: number, name: string): boolean {
  const fd = openAt(directory, name, O.PATH | O.NOFOLLOW);
  try {
    return (stat(fd).mode & S_IF.MT) === S_IF.DIR;
  } finally {
    close(fd);
  }
}
