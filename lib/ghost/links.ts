/**
 * Links that a dump makes in the file systems of the program. Each is written
 * down in the directory of images before it is made, so that whatever happens
 * to ckpt, `ckpt clean` finds it.
 */
import { EEXIST, ENOENT, ENOTEMPTY } from "../ffi/errno.ts";
import {
  AT_FDCWD,
  type FileStatus,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isOneOf } from "./attributes.ts";
import {
  isSameFile,
  linkTo,
  mountedAt,
  nearestDirectory,
  rmdir,
  statusAt,
  statx,
  unlinkIfThere,
} from "./calls.ts";
import { linkName } from "./fate.ts";
import { readList, writeList } from "./noted_list.ts";

export const LINKS_NAME = "ckpt-links.json";

/** A link and the file it was made for. */
export interface NotedLink {
  readonly path: string;
  readonly dev: string;
  readonly ino: string;
  /**
   * When the file was made, in nanoseconds: device numbers may be others once
   * its file system is mounted anew. Not every file system tells.
   */
  readonly born?: string;
}

/** A directory that links are in; it goes when it is empty. */
interface NotedDirectory {
  readonly directory: string;
}

/**
 * Where links are made: beside the path that a file had, or all in one
 * directory of its file system.
 */
export type LinkPlace = "beside" | "lost+found";

/** A file that is to get a name. */
export interface ToLink {
  /** A magic link that leads to it. */
  readonly at: string;
  /** The path it had. */
  readonly path: string;
  readonly status: FileStatus;
}

const LOST_AND_FOUND = ["lost+found", "lost+found/checkpoint"];

export class DumpLinks implements Disposable {
  readonly #before: readonly (NotedLink | NotedDirectory)[];
  readonly #own: (NotedLink | NotedDirectory)[] = [];
  readonly #taken = new Set<string>();
  readonly #stamp = Math.floor(Date.now() / 1000);
  #committed = false;

  /**
   * @param directory of the images; it has to be there
   * @param wayToMounts as FilesInUse has it
   */
  constructor(
    readonly directory: string,
    readonly place: LinkPlace = "beside",
    readonly wayToMounts = "",
  ) {
    this.#before = readLinks(directory);
  }

  /**
   * Gives files names.
   *
   * @returns of each the name it got, or why it got none
   */
  add(files: readonly ToLink[]): (string | SyscallError)[] {
    const names = files.map((file) => {
      try {
        return this.#note(file);
      } catch (error) {
        if (error instanceof SyscallError) return error;
        throw error;
      }
    });
    this.#write();
    const done = files.map((file, i) => {
      const name = names[i];
      return typeof name === "string" ? this.#link(file, name) : name;
    });
    this.#write();
    return done;
  }

  #link(file: ToLink, name: string): string | SyscallError {
    try {
      linkTo(file.at, this.wayToMounts + name);
      return name;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const noted = this.#own.findIndex((one) =>
        "path" in one && one.path === name
      );
      this.#own.splice(noted, 1);
      if (!isOneOf(error, EEXIST)) return error;
      const next = this.#note(file);
      this.#write();
      return this.#link(file, next);
    }
  }

  /** A name that is free, on the list from now on. */
  #note({ at, path, status: { dev, ino } }: ToLink): string {
    const directory = this.#directoryFor(path);
    const prefix = directory === "/" ? "/" : `${directory}/`;
    for (let number = 1;; number++) {
      const name = prefix + linkName(
        number,
        this.place === "beside" ? undefined : this.#stamp,
      );
      if (this.#taken.has(name)) continue;
      this.#taken.add(name);
      // One of another dump.
      if (statusAt(name) !== undefined) continue;
      const { born } = statx(at);
      this.#own.push({
        path: name,
        dev: `${dev}`,
        ino: `${ino}`,
        ...(born !== undefined && { born: `${born}` }),
      });
      return name;
    }
  }

  #directoryFor(path: string): string {
    const nearest = nearestDirectory(path);
    if (this.place === "beside") return nearest;
    const root = mountedAt(nearest);
    let directory = root;
    for (const name of LOST_AND_FOUND) {
      directory = root === "/" ? `/${name}` : `${root}/${name}`;
      if (statusAt(directory) !== undefined) continue;
      this.#own.push({ directory });
      this.#write();
      syscallBuffer1(
        "mkdirat",
        BigInt(AT_FDCWD),
        terminated(encodeText(directory)),
        0o700n,
      );
    }
    return directory;
  }

  #write(): void {
    writeLinks(this.directory, [...this.#before, ...this.#own]);
  }

  /** The image is complete: links of the one it replaced go, its own stay. */
  commit(): void {
    this.#committed = true;
    removeAll(this.#before);
    writeLinks(this.directory, this.#own);
  }

  [Symbol.dispose](): void {
    if (this.#committed || this.#own.length === 0) return;
    removeAll(this.#own);
    writeLinks(this.directory, this.#before);
  }
}

/** What became of links that were to be removed. */
export interface Cleaned {
  readonly removed: string[];
  /** Gone before. */
  readonly missing: string[];
  /** Another file has the name now: it stays. */
  readonly replaced: string[];
  /** Links of CRIU's that are the only names of their files: they stay. */
  readonly last: string[];
}

/**
 * Removes the links that dumps into this directory have made.
 *
 * @throws CkptError naming the link that cannot be removed
 */
export function cleanLinks(directory: string): Cleaned {
  const cleaned = removeAll(readLinks(directory));
  writeLinks(directory, []);
  return cleaned;
}

function removeAll(list: readonly (NotedLink | NotedDirectory)[]): Cleaned {
  const cleaned: Cleaned = {
    removed: [],
    missing: [],
    replaced: [],
    last: [],
  };
  for (const one of list) {
    if ("path" in one) cleaned[removeLink(one)].push(one.path);
  }
  for (const one of list.toReversed()) {
    if (!("directory" in one)) continue;
    try {
      rmdir(one.directory);
    } catch (error) {
      // Others use it.
      if (!isOneOf(error, ENOTEMPTY, ENOENT)) throw error;
    }
  }
  return cleaned;
}

function removeLink(
  { path, dev, ino, born }: NotedLink,
): "removed" | "missing" | "replaced" {
  const found = statusAt(path);
  if (found === undefined) return "missing";
  const now = statx(path, false).born;
  const same = born === undefined || now === undefined
    ? isSameFile(found, { dev: BigInt(dev), ino: BigInt(ino) })
    : found.ino === BigInt(ino) && now === BigInt(born);
  if (!same) return "replaced";
  return unlinkIfThere(path) ? "removed" : "missing";
}

function readLinks(directory: string): (NotedLink | NotedDirectory)[] {
  return readList(directory, LINKS_NAME, "links", isLink);
}

function isLink(value: unknown): value is NotedLink | NotedDirectory {
  const { path, directory, dev, ino, born = "0" } = (value ?? {}) as Record<
    string,
    unknown
  >;
  if (isAbsolute(directory)) return path === undefined;
  return isAbsolute(path) &&
    [dev, ino, born].every((number) =>
      typeof number === "string" && /^-?\d+$/.test(number)
    );
}

function isAbsolute(value: unknown): boolean {
  return typeof value === "string" && value.startsWith("/");
}

function writeLinks(
  directory: string,
  links: readonly (NotedLink | NotedDirectory)[],
): void {
  writeList(`${directory}/${LINKS_NAME}`, links);
}
