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
import { throughWay, type WayIn } from "./files_in_use.ts";
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
  /** Where it is in a mount namespace that is not ckpt's own. */
  readonly way?: WayIn | undefined;
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
    const { way } = file;
    try {
      linkTo(
        file.at,
        way === undefined ? this.wayToMounts + name : throughWay(way, name),
      );
      return name;
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      const path = outsideOf(way, name);
      const noted = this.#own.findIndex((one) =>
        "path" in one && one.path === path
      );
      this.#own.splice(noted, 1);
      if (!isOneOf(error, EEXIST)) return error;
      const next = this.#note(file);
      this.#write();
      return this.#link(file, next);
    }
  }

  /** A name that is free, on the list from now on. */
  #note({ at, path, status: { dev, ino }, way }: ToLink): string {
    const directory = this.#directoryFor(path, way);
    const prefix = directory === "/" ? "/" : `${directory}/`;
    for (let number = 1;; number++) {
      const name = prefix + linkName(
        number,
        this.place === "beside" ? undefined : this.#stamp,
      );
      const noted = outsideOf(way, name);
      if (this.#taken.has(noted)) continue;
      this.#taken.add(noted);
      // One of another dump.
      if (statusAt(noted) !== undefined) continue;
      const { born } = statx(at);
      this.#own.push({
        path: noted,
        dev: `${dev}`,
        ino: `${ino}`,
        ...(born !== undefined && { born: `${born}` }),
      });
      return name;
    }
  }

  #directoryFor(path: string, way: WayIn | undefined): string {
    const told = (real: string) => real.slice(way?.prefix.length ?? 0) || "/";
    const nearest = nearestDirectory(throughWay(way, path));
    if (this.place === "beside") return told(nearest);
    const root = told(mountedAt(nearest));
    let directory = root;
    for (const name of LOST_AND_FOUND) {
      directory = root === "/" ? `/${name}` : `${root}/${name}`;
      const at = throughWay(way, directory);
      if (statusAt(at) !== undefined) continue;
      this.#own.push({ directory: outsideOf(way, directory) });
      this.#write();
      syscallBuffer1(
        "mkdirat",
        BigInt(AT_FDCWD),
        terminated(encodeText(at)),
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

/** The path by which `ckpt clean` finds what has a path in the namespace. */
function outsideOf(way: WayIn | undefined, path: string): string {
  if (way === undefined) return path;
  const outside = way.outside?.(path);
  if (outside === undefined) throw new SyscallError("linkat", ENOENT);
  return outside;
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

/** The links that dumps into this directory have made; none is removed. */
export function linksMade(directory: string): string[] {
  return readLinks(directory).flatMap((one) => "path" in one ? one.path : []);
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
