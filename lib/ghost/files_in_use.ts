/**
 * Looks at the files a tree uses: does the path of each lead to it? What is
 * found is kept, so that it is that of one moment, whenever it is asked for.
 */
import { DELETED_MARK } from "../proc/maps.ts";
import { readMountInfo } from "../proc/read.ts";
import { type FileStatus, S_IF } from "../ffi/syscall.ts";
import {
  fileSystemType,
  isSameFile,
  namesByInode,
  namesIn,
  nearestDirectory,
  pathByHandle,
  splitPath,
  statusAt,
  statx,
} from "./calls.ts";
import {
  AUFS,
  isLinkName,
  isSillyName,
  type LostFile,
  withoutMark,
} from "./fate.ts";

/** A file as one of those that use it has it. */
export interface FileUse {
  /** What the link to it in /proc shows. */
  readonly link: string;
  readonly status: FileStatus;
  /** That link: it leads to the file even when no path does. */
  readonly at: string;
  /** "descriptor 5", "the working directory" */
  readonly holder: string;
  /** The process. */
  readonly task: number;
  readonly writes: boolean;
}

/** One that needs care, and how to get at it. */
export interface LostFileInUse extends LostFile {
  readonly at: string;
  readonly holder: string;
  readonly task: number;
}

/** A link text and the file it was the link to. */
export type UsedPath = Pick<FileUse, "link" | "status">;

/** Bytes of a directory in which another name is sought: some 20,000 names. */
const LARGEST_DIRECTORY = 1n << 20n;

interface Lost {
  readonly use: FileUse;
  writes: boolean;
  known: LostFileInUse | undefined;
}

export class FilesInUse {
  readonly #atLink = new Map<string, FileStatus | undefined>();
  readonly #lost = new Map<string, Lost>();
  /** Paths that lead to their files, by these. */
  readonly #names = new Map<string, string>();
  #mounts: ReadonlySet<bigint> | undefined;

  /** Notes a file that is in use. */
  look(use: FileUse): void {
    const { link, status } = use;
    let found = this.#atLink.get(link);
    if (found === undefined && !this.#atLink.has(link)) {
      found = statusAt(link);
      this.#atLink.set(link, found);
    }
    if (
      found !== undefined && isSameFile(found, status) && !isSillyName(link)
    ) {
      this.#names.set(inodeKey(status), link);
      return;
    }
    const key = fileKey(use);
    const lost = this.#lost.get(key);
    if (lost === undefined) {
      this.#lost.set(key, { use, writes: use.writes, known: undefined });
    } else if (use.writes) lost.writes = true;
  }

  /** Finds out all about those that were noted. */
  settle(): void {
    for (const lost of this.#lost.values()) lost.known ??= this.#examine(lost);
  }

  /** The files that need care, each once for every path it had. */
  get lost(): LostFileInUse[] {
    this.settle();
    return [...this.#lost.values()].map(({ known }) => known!);
  }

  #examine({ use, writes }: Lost): LostFileInUse {
    const { link, status, at, holder, task } = use;
    const { allocated, mountId } = statx(at);
    const path = withoutMark(link);
    const mount = this.#reach(path, mountId);
    return {
      link,
      status,
      at,
      holder,
      task,
      allocated,
      // What AUFS maps is a file of another file system.
      fileSystem: fileSystemType(nearestDirectory(path)) === AUFS
        ? AUFS
        : fileSystemType(at),
      mount,
      otherName: this.#otherName(use, path, mount === "reached"),
      written: writes,
    };
  }

  /** What was mounted may be gone, or have something else over it. */
  #reach(path: string, mountId: bigint): LostFile["mount"] {
    this.#mounts ??= new Set(
      readMountInfo(Deno.pid).map(({ mountId }) => BigInt(mountId)),
    );
    if (!this.#mounts.has(mountId) || !path.startsWith("/")) return "gone";
    return statx(nearestDirectory(path)).mountId === mountId
      ? "reached"
      : "covered";
  }

  /**
   * Another name of a file: that of a file the tree has open, the one the
   * kernel knows it by, one its file system tells, one in the directory where
   * it was.
   */
  #otherName(
    { status, at }: FileUse,
    path: string,
    reached: boolean,
  ): string | undefined {
    const own = this.#names.get(inodeKey(status));
    if (own !== undefined) return own;
    const leadsToIt = (name: string) => {
      const found = statusAt(name);
      return found !== undefined && isSameFile(found, status) &&
        !isSillyName(name) && !isLinkName(name);
    };
    // It got its name back, or it is mounted there itself.
    if (leadsToIt(path)) return path;
    if (
      !reached || status.nlink === 0n || (status.mode & S_IF.MT) === S_IF.DIR
    ) return undefined;
    const known = pathByHandle(at, nearestDirectory(path));
    if (
      known !== undefined && !known.endsWith(DELETED_MARK) && leadsToIt(known)
    ) return known;
    const named = namesByInode(nearestDirectory(path), status.ino)
      .find(leadsToIt);
    if (named !== undefined) return named;
    const { directory } = splitPath(path);
    const prefix = directory === "/" ? "/" : `${directory}/`;
    const bytes = statusAt(directory)?.size ?? 0n;
    if (bytes > LARGEST_DIRECTORY) return undefined;
    for (const name of namesIn(directory)) {
      if (leadsToIt(prefix + name)) return prefix + name;
    }
    return undefined;
  }
}

export function inodeKey({ dev, ino }: FileStatus): string {
  return `${dev} ${ino}`;
}

export function fileKey({ link, status }: UsedPath): string {
  return `${inodeKey(status)} ${link}`;
}
