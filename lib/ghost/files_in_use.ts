/**
 * Looks at the files a tree uses: does the path of each lead to it? What is
 * found is kept, so that it is that of one moment, whenever it is asked for.
 */
import { DELETED_MARK } from "../proc/maps.ts";
import { readMountInfo } from "../proc/read.ts";
import {
  deviceNumbers,
  type FileStatus,
  O,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  type ExtendedStatus,
  extendedStatuses,
  fileSystemType,
  isSameFile,
  namesIn,
  nearestDirectory,
  pathByHandle,
  splitPath,
  statusAt,
  statusesAt,
  statx,
} from "./calls.ts";
import { BTRFS, isOfDeletedSubvolume, namesByInode } from "./btrfs.ts";
import {
  AUFS,
  isLinkName,
  isSillyName,
  type LostFile,
  NFS,
  withoutMark,
} from "./fate.ts";
import { FileMap } from "./file_map.ts";
import { explainUntold } from "./untold.ts";
import { LARGEST_DIRECTORY, nameBelow } from "./other_names.ts";
import { isOfUpperLayer, OVERLAY } from "./overlay.ts";

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
  /** Where it is in a mount namespace that is not ckpt's own. */
  readonly way?: WayIn;
}

/** How ckpt gets at paths of another mount namespace. */
export interface WayIn {
  /** Leads to a root ... */
  readonly prefix: string;
  /** ... which is this directory of the namespace ("" for the topmost). */
  readonly start: string;
  /** Whether that is a copy of a mount, without what is mounted in it. */
  readonly isBare: boolean;
  /** A path of ckpt's own namespace to what one of the other leads to. */
  readonly outside?: (path: string) => string | undefined;
}

/** @param path in the namespace */
export function throughWay(way: WayIn | undefined, path: string): string {
  return way === undefined ? path : way.prefix + path.slice(way.start.length);
}

/** One that needs care, and how to get at it. */
export interface LostFileInUse extends LostFile {
  readonly at: string;
  readonly holder: string;
  readonly task: number;
  /** The same as `at`, where that is a descriptor and texts would be many. */
  readonly descriptor?: { readonly tid: number; readonly fd: number };
  /** Where it is in a mount namespace that is not ckpt's own. */
  readonly way?: WayIn | undefined;
}

/** A link text and the file it was the link to. */
export type UsedPath = Pick<FileUse, "link" | "status">;

/** What the look at a descriptor tells. */
export interface OpenFile extends UsedPath {
  readonly fd: number;
  readonly info: { readonly flags: number; readonly mntId: number };
}

/** A lost file of which more is to be found out. */
interface Unexamined {
  readonly use: FileUse;
  writes: boolean;
}

/** Of thousands of descriptors, texts are made only where they are needed. */
class NamelessFile implements LostFileInUse {
  constructor(
    readonly open: OpenFile,
    /** By which the process was looked at. */
    readonly tid: number,
    readonly task: number,
    readonly fileSystem: bigint,
    readonly mount: LostFile["mount"],
  ) {}

  readonly otherName = undefined;
  readonly mayHaveNoName = false;

  get link(): string {
    return this.open.link;
  }

  get status(): FileStatus {
    return this.open.status;
  }

  get allocated(): bigint {
    return this.open.status.allocated;
  }

  get at(): string {
    return `/proc/${this.tid}/fd/${this.open.fd}`;
  }

  get descriptor(): { tid: number; fd: number } {
    return { tid: this.tid, fd: this.open.fd };
  }

  get holder(): string {
    return `descriptor ${this.open.fd}`;
  }

  get written(): boolean {
    return (this.open.info.flags & O.ACCMODE) !== O.RDONLY;
  }
}

/**
 * File systems of this host alone, on which a file whose link count is 0 has no
 * name anywhere: ext2 to ext4, xfs, btrfs, tmpfs.
 */
const COUNTS_NAMES: ReadonlySet<bigint> = new Set([
  0xef53n,
  0x58465342n,
  BTRFS,
  0x1021994n,
]);

export class FilesInUse {
  #noted: FileUse[] = [];
  readonly #atLink = new Map<string, FileStatus | undefined>();
  readonly #lost = new FileMap<LostFileInUse | Unexamined>();
  /** Paths that lead to their files, by these. */
  readonly #names = new Map<string, string>();
  #mounts: ReadonlySet<bigint> | undefined;
  /** statfs.f_type of mounts. */
  readonly #fileSystems = new Map<number, bigint>();
  readonly #nearest = new NearestDirectories();

  /**
   * @param wayToMounts what leads to paths on the mounts that the tree has, put
   * before them; "" where these are ckpt's own
   */
  constructor(readonly wayToMounts = "") {}

  /** Notes a file that is in use. */
  look(use: FileUse): void {
    this.#noted.push(use);
  }

  /** Finds out all about those that were noted. */
  settle(): void {
    const noted = this.#noted;
    if (noted.length === 0) return;
    this.#noted = [];
    const links = [...new Set(noted.map(wayTo))]
      .filter((link) => !this.#atLink.has(link));
    for (const [i, found] of statusesAt(links).entries()) {
      this.#atLink.set(links[i], found);
    }
    for (const use of noted) {
      // The root of a mount itself, by a link of /proc.
      const { link, way } = use;
      if (way?.isBare && link === (way.start || "/")) {
        this.#atLink.set(wayTo(use), stat(way.prefix));
      }
    }
    for (const use of noted) this.#sortOut(use);
    this.#examineAll(this.#lost.values().filter(isUnexamined));
  }

  /** The files that need care, each once for every path it had. */
  get lost(): LostFileInUse[] {
    this.settle();
    // All have been examined.
    return this.#lost.values() as LostFileInUse[];
  }

  #sortOut(use: FileUse): void {
    const { link, status, way } = use;
    const found = this.#atLink.get(wayTo(use));
    if (
      found !== undefined && isSameFile(found, status) &&
      !(isSillyName(link) && fileSystemType(use.at) === NFS)
    ) {
      // A path from another root is no name here.
      if (way === undefined) this.#names.set(inodeKey(status), link);
      return;
    }
    const lost = this.#lost.get(status, link);
    if (lost === undefined) {
      this.#lost.set(status, { use, writes: use.writes }, link);
    } else if (use.writes && isUnexamined(lost)) lost.writes = true;
  }

  /** Names that lead to files in use with that inode number. */
  namesOf(inode: bigint): string[] {
    const suffix = ` ${inode}`;
    return [...this.#names].flatMap(([key, path]) =>
      key.endsWith(suffix) ? [path] : []
    );
  }

  /** A use of a file, also of one that no name leads to. */
  useOf(status: FileStatus): UsedPath | undefined {
    const name = this.#names.get(inodeKey(status));
    if (name !== undefined) return { link: name, status };
    return this.#lost.values()
      .map((lost) => isUnexamined(lost) ? lost.use : lost)
      .find((use) => isSameFile(use.status, status));
  }

  /**
   * Notes the file of a descriptor, if the look at it told all there is to know:
   * it has no name.
   *
   * @param tid by which the process was looked at
   * @returns whether it did
   */
  noteNameless(open: OpenFile, tid: number, task: number): boolean {
    const { link, status, fd, info: { mntId } } = open;
    if (
      status.nlink !== 0n || (status.mode & S_IF.MT) !== S_IF.REG ||
      !link.endsWith(DELETED_MARK)
    ) return false;
    let fileSystem = this.#fileSystems.get(mntId);
    if (fileSystem === undefined) {
      fileSystem = fileSystemType(`/proc/${tid}/fd/${fd}`);
      this.#fileSystems.set(mntId, fileSystem);
    }
    if (!COUNTS_NAMES.has(fileSystem)) return false;
    const path = withoutMark(link);
    const above = this.#nearest.of(path);
    const mount = this.#mountHere(BigInt(mntId), above);
    // A file that is mounted itself is found by the place where it is.
    if (above.mountId !== mount) return false;
    const reach = this.#reach(path, mount, above, undefined);
    const file = new NamelessFile(open, tid, task, fileSystem, reach);
    const known = this.#lost.get(status, link);
    if (
      known === undefined ||
      file.written && !isUnexamined(known) && !known.written
    ) this.#lost.set(status, file, link);
    return true;
  }

  #examineAll(all: readonly Unexamined[]): void {
    if (all.length === 0) return;
    const paths = all.map(({ use }) =>
      throughWay(use.way, withoutMark(use.link))
    );
    const there = statusesAt(paths);
    for (
      const [i, asked] of extendedStatuses(all.map(({ use }) => use.at))
        .entries()
    ) {
      const lost = all[i];
      const { status: { allocated, mountId: theirs, nlink }, fileSystem } =
        asked ?? ask(lost.use);
      const above = this.#nearest.of(paths[i]);
      const mountId = lost.use.way === undefined
        ? this.#mountHere(theirs, above)
        : theirs;
      const isGone = fileSystem === BTRFS &&
        isOfDeletedSubvolume(lost.use.at, lost.use.status, above.path);
      // What was known of it may be older than what other clients did to it.
      const use = {
        ...lost.use,
        status: { ...lost.use.status, nlink: isGone ? 0n : nlink },
      };
      const { link, status, at, holder, task, way } = use;
      const mount = way?.isBare
        ? "reached"
        : this.#reach(paths[i], mountId, above, way);
      const known: LostFileInUse = {
        link,
        status,
        at,
        holder,
        task,
        allocated,
        // What AUFS maps is a file of another file system.
        fileSystem: above.fileSystem === AUFS ? AUFS : fileSystem,
        mount,
        otherName: this.#otherName(
          use,
          fileSystem,
          paths[i],
          there[i],
          mount === "reached" ? mountId : undefined,
        ),
        mayHaveNoName: fileSystem === OVERLAY && nlink > 0n &&
          !isOfUpperLayer(at),
        written: lost.writes,
        way,
        // A link is made by the very mount that it was opened by.
        isPrivate: way !== undefined &&
          (way.isBare || way.outside?.(withoutMark(link)) === undefined),
      };
      this.#lost.set(lost.use.status, known, link);
    }
  }

  /**
   * The mount of ckpt's that shows the same as one of the tree's.
   *
   * @param above the directory that the file should be in
   */
  #mountHere(mountId: bigint, above: NearestDirectory): bigint {
    if (this.wayToMounts === "") return mountId;
    return statx(this.wayToMounts + above.path).mountId === mountId
      ? above.mountId
      : mountId;
  }

  /** What was mounted may be gone, or have something else over it. */
  #reach(
    path: string,
    mountId: bigint,
    above: NearestDirectory,
    way: WayIn | undefined,
  ): LostFile["mount"] {
    if (way !== undefined) {
      return above.mountId === mountId ? "reached" : "covered";
    }
    this.#mounts ??= new Set(
      readMountInfo(Deno.pid).map(({ mountId }) => BigInt(mountId)),
    );
    if (!this.#mounts.has(mountId) || !path.startsWith("/")) return "gone";
    return above.mountId === mountId ? "reached" : "covered";
  }

  /**
   * Another name of a file: that of a file the tree has open, the one the
   * kernel knows it by, one its file system tells, one in the directory where
   * it was. One on another mount, which may be read-only, comes last.
   *
   * @param mountId where its path can be reached on its mount
   */
  #otherName(
    { status, at, way, link }: FileUse,
    fileSystem: bigint,
    path: string,
    there: FileStatus | undefined,
    mountId: bigint | undefined,
  ): string | undefined {
    if (way !== undefined) {
      return there !== undefined && isSameFile(there, status)
        ? withoutMark(link)
        : mountId === undefined && !way.isBare
        ? undefined
        : nameThroughWay(way, at, status, withoutMark(link));
    }
    const own = this.#names.get(inodeKey(status));
    if (
      own !== undefined &&
      (mountId === undefined || isOnMount(own, mountId))
    ) return own;
    const leadsToIt = (name: string, found = statusAt(name)) => {
      return found !== undefined && isSameFile(found, status) &&
        !(fileSystem === NFS && isSillyName(name)) && !isLinkName(name);
    };
    // It got its name back, or it is mounted there itself.
    if (there !== undefined && leadsToIt(path, there)) return path;
    if (own === undefined && mountId === undefined && status.nlink > 0n) {
      const found = waysByDevice(link, status).find((name) => leadsToIt(name));
      if (found !== undefined) return found;
    }
    if (
      mountId === undefined || status.nlink === 0n ||
      (status.mode & S_IF.MT) === S_IF.DIR
    ) return own;
    const known = pathByHandle(at, nearestDirectory(path));
    if (
      known !== undefined && !known.endsWith(DELETED_MARK) && leadsToIt(known)
    ) return known;
    const named = namesByInode(nearestDirectory(path), status.ino)
      .find((name) => leadsToIt(name));
    if (named !== undefined) return named;
    const { directory } = splitPath(path);
    const prefix = directory === "/" ? "/" : `${directory}/`;
    const bytes = statusAt(directory)?.size ?? 0n;
    if (bytes > LARGEST_DIRECTORY) return own;
    // Some file systems have other inode numbers in directories.
    const names = Object.groupBy(
      namesIn(directory),
      ({ ino }) => ino === status.ino ? "likely" : "others",
    );
    for (const { name } of [...names.likely ?? [], ...names.others ?? []]) {
      if (leadsToIt(prefix + name)) return prefix + name;
    }
    return own;
  }
}

function isUnexamined(
  lost: LostFileInUse | Unexamined,
): lost is Unexamined {
  return "use" in lost;
}

function wayTo({ way, link }: FileUse): string {
  return throughWay(way, link);
}

/**
 * Where a file may be that is told by its place on a mount that is gone: on
 * other mounts of its file system.
 */
function waysByDevice(link: string, { dev }: FileStatus): string[] {
  if (!link.startsWith("/")) return [];
  const device = deviceNumbers(dev);
  return readMountInfo(Deno.pid).filter(({ major, minor, root }) =>
    root === "/" && major === device.major && minor === device.minor
  ).map(({ mountPoint }) => (mountPoint === "/" ? "" : mountPoint) + link);
}

function nameThroughWay(
  { prefix, start }: WayIn,
  at: string,
  status: FileStatus,
  path: string,
): string | undefined {
  const found = nameBelow(at, status, prefix, path.slice(start.length));
  return found && start + found;
}

function isOnMount(path: string, mountId: bigint): boolean {
  try {
    return statx(path, false).mountId === mountId;
  } catch (error) {
    // It is gone by now.
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

interface NearestDirectory {
  readonly path: string;
  readonly mountId: bigint;
  readonly fileSystem: bigint;
}

/** {@link nearestDirectory} of many paths, which are in the same directories. */
class NearestDirectories {
  readonly #known = new Map<string, NearestDirectory>();
  /** The directory that was asked for last: mostly it is asked for again. */
  #last = "";
  #nearLast: NearestDirectory | undefined;

  of(path: string): NearestDirectory {
    if (
      this.#nearLast !== undefined && path.startsWith(this.#last) &&
      path.lastIndexOf("/") === this.#last.length
    ) return this.#nearLast;
    const { directory } = splitPath(path);
    let known = this.#known.get(directory);
    if (known === undefined) {
      const nearest = nearestDirectory(path);
      known = {
        path: nearest,
        mountId: statx(nearest).mountId,
        fileSystem: fileSystemType(nearest),
      };
      this.#known.set(directory, known);
    }
    this.#last = directory;
    this.#nearLast = known;
    return known;
  }
}

/** Says in words why a file cannot be asked; or it can now. */
function ask(
  { link, at, holder, task }: FileUse,
): { status: ExtendedStatus; fileSystem: bigint } {
  try {
    return { status: statx(at), fileSystem: fileSystemType(at) };
  } catch (error) {
    throw explainUntold(error, `${holder} (${link}) of task ${task}`);
  }
}

export function inodeKey({ dev, ino }: FileStatus): string {
  return `${dev} ${ino}`;
}

export function fileKey({ link, status }: UsedPath): string {
  return `${inodeKey(status)} ${link}`;
}
