/** System calls about files as such, by the links of /proc that lead to them. */
import { Calls, Slots, Texts } from "../ffi/calls.ts";
import { encodeText } from "../ffi/text.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  decodeStatus,
  type FileStatus,
  lstat,
  O,
  open,
  readLink,
  S_IF,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { EACCES, ENOENT, EPERM } from "../ffi/errno.ts";
import { CkptError, EXIT } from "../error.ts";
import { hasCapability } from "../proc/read.ts";

/** A point in time as the kernel keeps it. */
export interface Time {
  readonly seconds: bigint;
  readonly nanoseconds: number;
}

export interface ExtendedStatus {
  readonly allocated: bigint;
  readonly accessed: Time;
  readonly modified: Time;
  readonly inode: bigint;
  readonly mountId: bigint;
  readonly nlink: bigint;
}

/** NFS asks its server anew; of other file systems nothing changes. */
const AT_STATX_FORCE_SYNC = 0x2000n;
const STATX_BASIC_STATS = 0x7ffn;
const STATX_MNT_ID = 0x1000n;
const BLOCK = 512n;

const AT_SYMLINK_NOFOLLOW = 0x100;
const STATX_BYTES = 256;

/** statx(2). */
export function statx(path: string, followLinks = true): ExtendedStatus {
  const buffer = new Uint8Array(STATX_BYTES);
  syscallBuffer1(
    "statx",
    BigInt(AT_FDCWD),
    terminated(encodeText(path)),
    AT_STATX_FORCE_SYNC |
      (followLinks ? 0n : BigInt(AT_SYMLINK_NOFOLLOW)),
    STATX_BASIC_STATS | STATX_MNT_ID,
    addressOf(buffer),
  );
  return decodeStatx(new DataView(buffer.buffer), 0);
}

/** struct statx (linux/stat.h), at `start`. */
function decodeStatx(view: DataView, start: number): ExtendedStatus {
  const time = (at: number) => ({
    seconds: view.getBigInt64(start + at, true),
    nanoseconds: view.getUint32(start + at + 8, true),
  });
  return {
    allocated: view.getBigUint64(start + 48, true) * BLOCK,
    accessed: time(64),
    modified: time(112),
    inode: view.getBigUint64(start + 32, true),
    mountId: view.getBigUint64(start + 144, true),
    nlink: BigInt(view.getUint32(start + 16, true)),
  };
}

/** Calls that ask statx(2) of many files. */
export class AskedFiles {
  readonly #statuses: Slots;
  readonly #names: Texts;
  readonly #statx: number;

  /** @param calls which get one more: to be run for that many paths */
  constructor(readonly calls: Calls, paths: readonly string[]) {
    this.#statuses = new Slots(STATX_BYTES, paths.length);
    this.#names = new Texts(paths);
    this.#statx = calls.add("statx", [
      ...this.path,
      Number(AT_STATX_FORCE_SYNC),
      Number(STATX_BASIC_STATS | STATX_MNT_ID),
      { slots: this.#statuses },
    ]);
  }

  /** The first two arguments of calls ending in at. */
  get path(): [number, { loaded: Slots }] {
    return [AT_FDCWD, { loaded: this.#names.pointers }];
  }

  isKnown(i: number): boolean {
    return this.calls.result(i, this.#statx) >= 0;
  }

  status(i: number): ExtendedStatus {
    return decodeStatx(this.#statuses.view, i * STATX_BYTES);
  }
}

/** Files that are asked for at once. */
const AT_ONCE = 4096;
const STAT_BYTES = 144;
const STATFS_BYTES = 120;

/** {@link statusAt} of many. */
export function statusesAt(
  paths: readonly string[],
): (FileStatus | undefined)[] {
  return inParts(paths, (paths) => {
    const slots = new Slots(STAT_BYTES, paths.length);
    const calls = new Calls();
    const names = new Texts(paths);
    calls.add("newfstatat", [
      AT_FDCWD,
      { loaded: names.pointers },
      { slots },
      AT_SYMLINK_NOFOLLOW,
    ]);
    calls.run(paths.length);
    return paths.map((_, i) =>
      calls.result(i, 0) < 0
        ? undefined
        : decodeStatus(slots.view, i * STAT_BYTES)
    );
  });
}

/**
 * {@link statx} and {@link fileSystemType} of many; undefined where one of
 * them fails.
 */
export function extendedStatuses(
  paths: readonly string[],
): ({ status: ExtendedStatus; fileSystem: bigint } | undefined)[] {
  return inParts(paths, (paths) => {
    const systems = new Slots(STATFS_BYTES, paths.length);
    const calls = new Calls();
    const asked = new AskedFiles(calls, paths);
    const [, name] = asked.path;
    const statfs = calls.add("statfs", [name, { slots: systems }]);
    calls.run(paths.length);
    return paths.map((_, i) =>
      !asked.isKnown(i) || calls.result(i, statfs) < 0 ? undefined : {
        status: asked.status(i),
        fileSystem: systems.view.getBigUint64(i * STATFS_BYTES, true),
      }
    );
  });
}

function inParts<T, U>(all: readonly T[], ask: (some: T[]) => U[]): U[] {
  const answers: U[] = [];
  for (let first = 0; first < all.length; first += AT_ONCE) {
    answers.push(...ask(all.slice(first, first + AT_ONCE)));
  }
  return answers;
}

/** statfs.f_type (statfs(2)). */
export function fileSystemType(path: string): bigint {
  return statfs(path).getBigUint64(0, true);
}

const ST_RDONLY = 1n;

/** Whether the mount that a path is on, or its file system, is read-only. */
export function isReadOnly(path: string): boolean {
  const F_FLAGS = 80;
  return (statfs(path).getBigUint64(F_FLAGS, true) & ST_RDONLY) !== 0n;
}

/** struct statfs of x86-64 (asm-generic/statfs.h). */
function statfs(path: string): DataView {
  const buffer = new Uint8Array(120);
  syscallBuffer0(
    "statfs",
    terminated(encodeText(path)),
    addressOf(buffer),
  );
  return new DataView(buffer.buffer);
}

/**
 * lstat(2); undefined when the path cannot be followed to its end.
 *
 * @throws CkptError (permission) when that may not even be tried
 */
export function statusAt(path: string): FileStatus | undefined {
  try {
    return lstat(encodeText(path));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    if (error.errno === EACCES) throw notAllowed(path, error);
    return undefined;
  }
}

/** Names in a directory; none where there is no directory any more. */
export function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) {
      throw notAllowed(directory, error);
    }
    if (
      error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.NotADirectory
    ) return [];
    throw error;
  }
}

/** What to do when the kernel refuses to open, make or change a file. */
export function remedyForDenied({ errno }: SyscallError): string | undefined {
  return errno === EACCES && !hasCapability("CAP_DAC_OVERRIDE")
    ? "ckpt needs the capability CAP_DAC_OVERRIDE"
    : errno === EPERM && !hasCapability("CAP_FOWNER")
    ? "ckpt needs the capability CAP_FOWNER"
    : undefined;
}

function notAllowed(path: string, error: Error): CkptError {
  return new CkptError(EXIT.permission, "looking at files in use", [{
    object: path,
    why: error.message,
    remedy: hasCapability("CAP_DAC_READ_SEARCH")
      ? "let root into its file system: a FUSE one is to be mounted with " +
        "-o allow_root or allow_other"
      : "ckpt needs the capability CAP_DAC_READ_SEARCH to get there",
  }], { cause: error });
}

export function isSameFile(
  a: Pick<FileStatus, "dev" | "ino">,
  b: Pick<FileStatus, "dev" | "ino">,
): boolean {
  return a.dev === b.dev && a.ino === b.ino;
}

/** The directory of a path, and its last name. */
export function splitPath(path: string): { directory: string; name: string } {
  const at = path.lastIndexOf("/");
  return {
    directory: at <= 0 ? "/" : path.slice(0, at),
    name: path.slice(at + 1),
  };
}

/**
 * The nearest directory above `path` that is there. What links in /proc show
 * leads through no symbolic link; where one is now, the directory is gone.
 */
export function nearestDirectory(path: string): string {
  let { directory } = splitPath(path);
  while (directory !== "/" && !isDirectory(directory)) {
    ({ directory } = splitPath(directory));
  }
  return directory;
}

function isDirectory(path: string): boolean {
  const mode = statusAt(path)?.mode ?? 0;
  return (mode & S_IF.MT) === S_IF.DIR;
}

const AT_SYMLINK_FOLLOW = 0x400n;

/** Gives the file that `at` leads to, a magic link of /proc, another name. */
export function linkTo(at: string, name: string): void {
  const target = terminated(encodeText(name));
  syscallBuffer1(
    "linkat",
    BigInt(AT_FDCWD),
    terminated(encodeText(at)),
    BigInt(AT_FDCWD),
    addressOf(target),
    AT_SYMLINK_FOLLOW,
  );
}

const AT_REMOVEDIR = 0x200n;

export function unlink(path: string): void {
  remove(path, 0n);
}

export function rmdir(path: string): void {
  remove(path, AT_REMOVEDIR);
}

function remove(path: string, flags: bigint): void {
  syscallBuffer1(
    "unlinkat",
    BigInt(AT_FDCWD),
    terminated(encodeText(path)),
    flags,
  );
}

/** unlink(2); @returns false when it is not there */
export function unlinkIfThere(path: string): boolean {
  try {
    unlink(path);
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOENT) return false;
    throw error;
  }
}

const BTRFS = 0x9123683en;
const BTRFS_IOC_INO_PATHS = 0xc0389423n;
const FIRST_INODE_OF_SUBVOLUME = 256n;
const PATHS_BYTES = 4096;
const PATHS_HEAD = 16;

/**
 * All names of an inode, where the file system knows them (btrfs.h, struct
 * btrfs_ioctl_ino_path_args).
 *
 * @param directory on the same mount, in the same subvolume
 */
export function namesByInode(directory: string, inode: bigint): string[] {
  if (fileSystemType(directory) !== BTRFS) return [];
  let root = directory;
  while (statusAt(root)?.ino !== FIRST_INODE_OF_SUBVOLUME) {
    if (root === "/") return [];
    root = splitPath(root).directory;
  }
  const found = new Uint8Array(PATHS_BYTES);
  const question = new Uint8Array(56);
  const view = new DataView(question.buffer);
  view.setBigUint64(0, inode, true);
  view.setBigUint64(8, BigInt(PATHS_BYTES), true);
  view.setBigUint64(48, addressOf(found), true);
  try {
    const fd = open(encodeText(root), O.RDONLY | O.DIRECTORY);
    try {
      syscall("ioctl", BigInt(fd), BTRFS_IOC_INO_PATHS, addressOf(question));
    } finally {
      close(fd);
    }
  } catch (error) {
    if (error instanceof SyscallError) return [];
    throw error;
  }
  const answer = new DataView(found.buffer);
  const count = answer.getUint32(8, true);
  return Array.from({ length: count }, (_, i) => {
    const start = PATHS_HEAD +
      Number(answer.getBigUint64(PATHS_HEAD + 8 * i, true));
    const name = found.subarray(start, found.indexOf(0, start));
    return `${root === "/" ? "" : root}/${decodeText(name)}`;
  });
}

const HANDLE_BYTES = 128;
const HANDLE_HEAD = 8;

/**
 * A path that the kernel knows for the file behind a magic link: of those of
 * its names that it has in its cache (open_by_handle_at(2)).
 *
 * @param directory on the same mount
 * @returns undefined where the file system has no handles, or it has no name
 */
export function pathByHandle(
  at: string,
  directory: string,
): string | undefined {
  const handle = new Uint8Array(HANDLE_HEAD + HANDLE_BYTES);
  new DataView(handle.buffer).setUint32(0, HANDLE_BYTES, true);
  const mountId = new Uint8Array(4);
  let mount: number | undefined;
  try {
    syscallBuffer1(
      "name_to_handle_at",
      BigInt(AT_FDCWD),
      terminated(encodeText(at)),
      addressOf(handle),
      addressOf(mountId),
      AT_SYMLINK_FOLLOW,
    );
    mount = open(encodeText(directory), O.RDONLY | O.DIRECTORY);
    const fd = Number(
      syscall(
        "open_by_handle_at",
        BigInt(mount),
        addressOf(handle),
        BigInt(O.PATH | O.CLOEXEC),
      ),
    );
    try {
      return decodeText(readLink(`/proc/self/fd/${fd}`));
    } finally {
      close(fd);
    }
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  } finally {
    if (mount !== undefined) close(mount);
  }
}
