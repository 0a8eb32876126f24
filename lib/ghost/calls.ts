/** System calls about files as such, by the links of /proc that lead to them. */
import { Calls, Slots, Texts } from "../ffi/calls.ts";
import { encodeText } from "../ffi/text.ts";
import {
  addressOf,
  AT_FDCWD,
  BLOCK,
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
import { EACCES, ENOENT, ENOTDIR, EPERM } from "../ffi/errno.ts";
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
  /** When it was made, in nanoseconds; undefined where nobody knows. */
  readonly born: bigint | undefined;
  /** Immutable or append-only, as far as its file system tells. */
  readonly fixed: boolean;
}

/** NFS asks its server anew; of other file systems nothing changes. */
const AT_STATX_FORCE_SYNC = 0x2000n;
const STATX_BASIC_STATS = 0x7ff;
const STATX_BTIME = 0x800n;
const STATX_MNT_ID = 0x1000n;
/** STATX_ATTR_IMMUTABLE and STATX_ATTR_APPEND. */
const STATX_ATTR_FIXED = 0x10 | 0x20;
const NANOSECONDS = 1_000_000_000n;

const AT_SYMLINK_NOFOLLOW = 0x100;
const STATX_BYTES = 256;
/** Where things are in struct statx (linux/stat.h). */
const STATX = {
  uid: 20,
  gid: 24,
  /** Of 16 bits. */
  mode: 28,
  inode: 32,
  blocks: 48,
  /** Seconds, and nanoseconds behind them. */
  accessed: 64,
  modified: 112,
  deviceMajor: 136,
  deviceMinor: 140,
  mountId: 144,
} as const;

/** statx(2). */
export function statx(path: string, followLinks = true): ExtendedStatus {
  const buffer = new Uint8Array(STATX_BYTES);
  syscallBuffer1(
    "statx",
    BigInt(AT_FDCWD),
    terminated(encodeText(path)),
    AT_STATX_FORCE_SYNC | (followLinks ? 0n : BigInt(AT_SYMLINK_NOFOLLOW)),
    BigInt(STATX_BASIC_STATS) | STATX_BTIME | STATX_MNT_ID,
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
    allocated: view.getBigUint64(start + STATX.blocks, true) * BLOCK,
    accessed: time(STATX.accessed),
    modified: time(STATX.modified),
    inode: view.getBigUint64(start + STATX.inode, true),
    mountId: view.getBigUint64(start + STATX.mountId, true),
    nlink: BigInt(view.getUint32(start + 16, true)),
    born: (view.getUint32(start, true) & Number(STATX_BTIME)) === 0
      ? undefined
      : time(80).seconds * NANOSECONDS + BigInt(time(80).nanoseconds),
    fixed: (view.getUint32(start + 8, true) & STATX_ATTR_FIXED) !== 0,
  };
}

/** Calls that ask statx(2) of many files. */
export class AskedFiles {
  readonly #statuses: Slots;
  readonly #names: Texts;
  readonly #statx: number;

  /** @param calls which get one more: to be run for that many paths */
  constructor(
    readonly calls: Calls,
    paths: readonly string[],
    followLinks = true,
  ) {
    this.#statuses = new Slots(STATX_BYTES, paths.length);
    this.#names = new Texts(paths);
    this.#statx = calls.add("statx", [
      ...this.path,
      Number(AT_STATX_FORCE_SYNC) | (followLinks ? 0 : AT_SYMLINK_NOFOLLOW),
      STATX_BASIC_STATS | Number(STATX_MNT_ID),
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

  inode(i: number): bigint {
    return this.#statuses.view.getBigUint64(
      i * STATX_BYTES + STATX.inode,
      true,
    );
  }

  mountId(i: number): number {
    const at = i * STATX_BYTES + STATX.mountId;
    return Number(this.#statuses.view.getBigUint64(at, true));
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
    return paths.map((path, i) => {
      const result = calls.result(i, 0);
      // Which throws.
      if (result === -EACCES) return statusAt(path);
      return result < 0 ? undefined : decodeStatus(slots.view, i * STAT_BYTES);
    });
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

/** Asks for not too many at once. */
export function inParts<T, U>(
  all: readonly T[],
  ask: (some: T[]) => U[],
  most = AT_ONCE,
): U[] {
  const answers: U[] = [];
  for (let first = 0; first < all.length; first += most) {
    answers.push(...ask(all.slice(first, first + most)));
  }
  return answers;
}

/** statfs.f_type (statfs(2)). */
export function fileSystemType(path: string): bigint {
  return statfs(path).getBigUint64(0, true);
}

/** statfs(2): f_type and f_bsize. */
export function fileSystemOf(
  path: string,
): { type: bigint; blockSize: number } {
  const answer = statfs(path);
  return {
    type: answer.getBigUint64(0, true),
    blockSize: Number(answer.getBigUint64(8, true)),
  };
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

/** What may be missing where the kernel says EPERM about a file. */
const FOR_FILES = [
  "CAP_CHOWN",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_LINUX_IMMUTABLE",
  "CAP_MKNOD",
  "CAP_SETFCAP",
] as const;

/** What to do when the kernel refuses to open, make or change a file. */
export function remedyForDenied({ errno }: SyscallError): string | undefined {
  if (errno === EACCES && !hasCapability("CAP_DAC_OVERRIDE")) {
    return "ckpt needs the capability CAP_DAC_OVERRIDE";
  }
  const missing = errno === EPERM
    ? FOR_FILES.filter((name) => !hasCapability(name))
    : [];
  return missing.length === 0
    ? undefined
    : `ckpt needs the capability ${missing.join(" or ")}`;
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

/** How a path is walked for which a directory is the root (linux/openat2.h). */
const RESOLVE_IN_ROOT = 0x10n | 0x2n /* NO_MAGICLINKS */;

/**
 * What an absolute path leads to from another root directory, links followed.
 *
 * @returns a descriptor (O_PATH)
 */
export function openInRoot(root: number, path: string): number {
  const how = BigUint64Array.of(
    BigInt(O.PATH | O.CLOEXEC),
    0n,
    RESOLVE_IN_ROOT,
  );
  return Number(
    syscallBuffer1(
      "openat2",
      BigInt(root),
      terminated(encodeText(path)),
      addressOf(new Uint8Array(how.buffer)),
      BigInt(how.byteLength),
    ),
  );
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

/** Where the mount that a directory is on, or its subvolume (btrfs), begins. */
export function mountedAt(directory: string): string {
  const { mountId } = statx(directory);
  const device = statusAt(directory)?.dev;
  let root = directory;
  while (root !== "/") {
    const above = splitPath(root).directory;
    if (
      statx(above).mountId !== mountId || statusAt(above)?.dev !== device
    ) break;
    root = above;
  }
  return root;
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

export const AT_REMOVEDIR = 0x200n;

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

const DIRENT_BYTES = 1 << 16;
let direntRoom: Uint8Array<ArrayBuffer> | undefined;
/** struct linux_dirent64: d_ino, d_off, d_reclen, d_type, d_name. */
const DIRENT_NAME = 19;

/**
 * Names in a directory, with the inode numbers it has for them (getdents(2));
 * none where there is no directory any more.
 *
 * @throws CkptError (permission) when that may not even be tried
 */
export function namesIn(directory: string): { name: string; ino: bigint }[] {
  let fd: number | undefined;
  try {
    fd = open(encodeText(directory), O.RDONLY | O.DIRECTORY);
    return readNames(fd);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    if (error.errno === EACCES) throw notAllowed(directory, error);
    if (error.errno === ENOENT || error.errno === ENOTDIR) return [];
    throw error;
  } finally {
    if (fd !== undefined) close(fd);
  }
}

/** The same of an open directory, "." and ".." among them; it is read once. */
export function readNames(
  directory: number,
): { name: string; ino: bigint }[] {
  const names: { name: string; ino: bigint }[] = [];
  const buffer = direntRoom ??= new Uint8Array(DIRENT_BYTES);
  const view = new DataView(buffer.buffer);
  for (;;) {
    const end = Number(
      syscall(
        "getdents64",
        BigInt(directory),
        addressOf(buffer),
        BigInt(buffer.length),
      ),
    );
    if (end === 0) return names;
    for (let at = 0; at < end; at += view.getUint16(at + 16, true)) {
      const start = at + DIRENT_NAME;
      names.push({
        ino: view.getBigUint64(at, true),
        name: decodeText(buffer.subarray(start, buffer.indexOf(0, start))),
      });
    }
  }
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
