/** Writes a tree of files, all of a file system's, into an archive. */
import { CkptError, EXIT } from "../error.ts";
import { ENOENT } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  deviceNumbers,
  type FileStatus,
  O,
  open,
  S_IF,
  stat,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import {
  hasInodeFlags,
  readInodeFlags,
  readXattrs,
} from "../ghost/attributes.ts";
import { readNames, statx } from "../ghost/calls.ts";
import { dataSegments } from "../ghost/content.ts";
import type { ArchiveWriter } from "./archive.ts";
import { openBelow } from "./below.ts";
import {
  type FileType,
  paddingAfter,
  type PlacedSocket,
  TAR_END,
  type TreeEntry,
} from "./tar.ts";
import { encodeEntry } from "./write_tar.ts";

const TYPES: Readonly<Record<number, FileType>> = {
  [S_IF.REG]: "file",
  [S_IF.LNK]: "symbolic link",
  [S_IF.CHR]: "character device",
  [S_IF.BLK]: "block device",
  [S_IF.DIR]: "directory",
  [S_IF.IFO]: "fifo",
  [S_IF.SOCK]: "socket",
};

/** What a file is called in an archive that holds nothing else. */
export const SINGLE = "file";

/** Opens a file of the tree by its path. */
type Open = (path: string, flags: number) => number;

/**
 * Saves everything below a directory, itself included, or a single file.
 * Nothing may change it meanwhile, and nothing may be mounted below it
 * (open_tree(2) gives such a view of a mount).
 *
 * @param root O_PATH is enough
 * @throws SyscallError, ArchiveError
 */
export function saveTree(root: number, archive: ArchiveWriter): void {
  const isDirectory = (stat(root).mode & S_IF.MT) === S_IF.DIR;
  const openFile: Open = isDirectory
    ? (path, flags) => openBelow(root, path, flags)
    : (_, flags) => open(`/proc/self/fd/${root}`, flags);
  const entries: TreeEntry[] = [];
  const sockets: PlacedSocket[] = [];
  const names = new Map<bigint, TreeEntry>();
  const add = (path: string) => {
    const entry = describe(openFile, path, names);
    const isSocket = entry.type === "socket" ||
      entry.type === "hard link" &&
        sockets.some((socket) => socket.entry.path === entry.target);
    if (isSocket) sockets.push({ after: entries.length, entry });
    else entries.push(entry);
    if (entry.type !== "directory") return;
    for (const name of namesBelow(openFile, path)) add(`${path}/${name}`);
  };
  add(isDirectory ? "." : `./${SINGLE}`);
  if (entries.length === 0) {
    throw new CkptError(EXIT.refused, "saving the content of a file system", [{
      object: "a socket",
      why: "is all that a mount shows of a file system, which is not supported",
    }]);
  }
  write(entries, sockets, openFile, archive);
}

function write(
  entries: readonly TreeEntry[],
  sockets: readonly PlacedSocket[],
  openFile: Open,
  archive: ArchiveWriter,
): void {
  for (const [i, entry] of entries.entries()) {
    archive.append(encodeEntry(entry, i === 0 ? sockets : []));
    if (entry.segments.length > 0) appendData(openFile, entry, archive);
  }
  archive.append(TAR_END);
  archive.end();
}

/**
 * Saves single files of a tree, of which nothing else can be reached.
 *
 * @param files links of /proc that lead to them, by absolute paths
 */
export function saveFiles(
  files: ReadonlyMap<string, string>,
  archive: ArchiveWriter,
): void {
  const openFile: Open = (path, flags) =>
    open(files.get(path.slice(1))!, flags);
  const entries: TreeEntry[] = [unknownDirectory(".")];
  const sockets: PlacedSocket[] = [];
  const made = new Set(["."]);
  const names = new Map<bigint, TreeEntry>();
  for (const path of files.keys()) {
    const parts = path.slice(1).split("/");
    for (let i = 1; i < parts.length; i++) {
      const directory = `./${parts.slice(0, i).join("/")}`;
      if (made.has(directory)) continue;
      made.add(directory);
      entries.push(unknownDirectory(directory));
    }
    const entry = describe(openFile, `.${path}`, names);
    if (entry.type === "socket") sockets.push({ after: entries.length, entry });
    else entries.push(entry);
  }
  write(entries, sockets, openFile, archive);
}

function unknownDirectory(path: string): TreeEntry {
  const never = { seconds: 0n, nanoseconds: 0 };
  return {
    path,
    type: "directory",
    mode: 0o755,
    uid: 0,
    gid: 0,
    modified: never,
    accessed: never,
    target: "",
    major: 0,
    minor: 0,
    size: 0,
    segments: [],
    xattrs: [],
    flags: 0,
  };
}

/** In the order in which they have to be made, for a tmpfs lists the newest first. */
function namesBelow(open: Open, path: string): string[] {
  const fd = open(path, O.RDONLY | O.DIRECTORY | O.NOATIME);
  try {
    return readNames(fd).map(({ name }) => name)
      .filter((name) => name !== "." && name !== "..").reverse();
  } catch (error) {
    // A directory that was removed.
    if (error instanceof SyscallError && error.errno === ENOENT) return [];
    throw error;
  } finally {
    close(fd);
  }
}

/** @param names of inodes that have several, by inode number: filled in */
function describe(
  open: Open,
  path: string,
  names: Map<bigint, TreeEntry>,
): TreeEntry {
  const fd = open(path, O.PATH);
  try {
    const at = `/proc/self/fd/${fd}`;
    const status = stat(fd);
    const { accessed, modified } = statx(at);
    const type = TYPES[status.mode & S_IF.MT];
    const known = type === "directory" ? undefined : names.get(status.ino);
    const entry: TreeEntry = {
      path,
      type: known === undefined ? type : "hard link",
      mode: status.mode & 0o7777,
      uid: status.uid,
      gid: status.gid,
      modified,
      accessed,
      target: known?.path ?? (type === "symbolic link" ? readTarget(fd) : ""),
      ...deviceNumbers(status.rdev),
      ...known === undefined
        ? {
          ...contentOf(open, path, status),
          xattrs: readXattrs(at).map(({ name, value }) => ({
            name,
            value: Uint8Array.from(value),
          })),
        }
        : { size: 0, segments: [], xattrs: [], flags: 0 },
    };
    if (status.nlink > 1n && known === undefined) names.set(status.ino, entry);
    return entry;
  } finally {
    close(fd);
  }
}

function contentOf(
  open: Open,
  path: string,
  status: FileStatus,
): Pick<TreeEntry, "size" | "segments" | "flags"> {
  if (!hasInodeFlags(status)) return { size: 0, segments: [], flags: 0 };
  const fd = open(path, O.RDONLY | O.NOATIME);
  try {
    const flags = readInodeFlags(fd);
    if ((status.mode & S_IF.MT) !== S_IF.REG) {
      return { size: 0, segments: [], flags };
    }
    const size = Number(status.size);
    return { size, segments: dataSegments(fd, size), flags };
  } finally {
    close(fd);
  }
}

const PATH_MAX = 4096;

function readTarget(fd: number): string {
  const target = new Uint8Array(PATH_MAX);
  const length = syscallBuffer1(
    "readlinkat",
    BigInt(fd),
    new Uint8Array(1),
    addressOf(target),
    BigInt(target.length),
  );
  return decodeText(target.subarray(0, Number(length)));
}

function appendData(
  open: Open,
  { path, segments }: TreeEntry,
  archive: ArchiveWriter,
): void {
  const fd = open(path, O.RDONLY | O.NOATIME);
  try {
    let total = 0;
    for (const { offset, length } of segments) {
      archive.appendFile(fd, offset, length);
      total += length;
    }
    archive.append(new Uint8Array(paddingAfter(total)));
  } finally {
    close(fd);
  }
}
