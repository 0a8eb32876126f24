/**
 * Files and directories that were removed and that mounts show all the same.
 * They are made again in a superblock that nobody else knows, under a name of
 * the moment; when they are mounted, they get their own one, and lose it.
 */
import { EEXIST, ELOOP, ENOENT, ENOTDIR } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  S_IF,
  stat,
  syscallBuffer1,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isOneOf } from "../ghost/attributes.ts";
import { AT_REMOVEDIR, statx, type Time } from "../ghost/calls.ts";
import { duplicate, makeDirectory, openAt } from "./calls.ts";
import { SINGLE } from "./save_tree.ts";

interface Made {
  /** The directory that it is in. */
  readonly directory: number;
  readonly name: string;
  readonly temporary: string;
}

const RENAME_NOREPLACE = 1n;
const ASIDE = ".ckpt-aside";
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
   * @param root of a superblock
   * @param path from there
   * @param fill fills an empty directory, or puts a single file into it
   * @returns what leads to it, for the caller
   */
  async make(
    root: number,
    path: string,
    fill: (directory: string) => Promise<{ readonly isSingle: boolean }>,
  ): Promise<number> {
    const parts = path.split("/");
    const name = parts.pop()!;
    const directory = this.#directory(root, parts);
    const temporary = `.ckpt-removed-${this.#made.length}`;
    this.#keepTimes(directory);
    const at = `/proc/self/fd/${directory}/${temporary}`;
    makeDirectory(directory, temporary);
    const { isSingle } = await fill(at);
    if (isSingle) {
      const beside = `${temporary}.directory`;
      rename(directory, temporary, beside);
      Deno.renameSync(`/proc/self/fd/${directory}/${beside}/${SINGLE}`, at);
      unlink(directory, beside, true);
    }
    this.#made.push({ directory, name, temporary });
    return openAt(directory, temporary, O.PATH | O.NOFOLLOW);
  }

  /** The nearest one that there can be. */
  #directory(root: number, parts: readonly string[]): number {
    let directory = this.#keep(duplicate(root));
    for (const name of parts) {
      try {
        directory = this.#keep(openAt(directory, name, DIRECTORY));
      } catch (error) {
        if (isOneOf(error, ENOTDIR, ELOOP)) return directory;
        if (!isOneOf(error, ENOENT)) throw error;
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
    for (const { directory, name, temporary } of this.#made) {
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
    for (const fd of this.#fds.splice(0)) close(fd);
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
