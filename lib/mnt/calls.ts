/**
 * The system calls that make and move mounts, on ckpt's main thread. Mounts are
 * descriptors; what they return belongs to the caller.
 */
import {
  addressOf,
  AT_FDCWD,
  close,
  O,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { MS } from "./mount.ts";

/** Of unshare(2) and setns(2). */
const CLONE_FS = 0x200n;
const CLONE_NEWNS = 0x20000n;

const FSCONFIG = {
  setFlag: 0n,
  setString: 1n,
  setFd: 5n,
  create: 6n,
  reconfigure: 7n,
} as const;
const FSOPEN_CLOEXEC = 1n;
const FSMOUNT_CLOEXEC = 1n;
const FSPICK_CLOEXEC = 1n;
const FSPICK_EMPTY_PATH = 8n;

const OPEN_TREE_CLONE = 1n;
const AT_EMPTY_PATH = 0x1000n;
const AT_NO_AUTOMOUNT = 0x800n;
const AT_RECURSIVE = 0x8000n;
const AT_SYMLINK_NOFOLLOW = 0x100n;

const MOVE_FROM_FD = 0x4n;
const MOVE_TO_FD = 0x40n;
const MOVE_SET_GROUP = 0x100n;
const MNT_DETACH = 2n;

/** How a path is walked that a mount is put on: to this very mount. */
const RESOLVE = 0x1n /* NO_XDEV */ | 0x2n /* NO_MAGICLINKS */ |
  0x4n /* NO_SYMLINKS */ | 0x8n /* BENEATH */;

/** MOUNT_ATTR_* of mount_setattr(2). */
const ATTRIBUTES = [
  [MS.RDONLY, 0x1],
  [MS.NOSUID, 0x2],
  [MS.NODEV, 0x4],
  [MS.NOEXEC, 0x8],
  [MS.NOATIME, 0x10],
  [MS.STRICTATIME, 0x20],
  [MS.NODIRATIME, 0x80],
  [MS.NOSYMFOLLOW, 0x200000],
] as const;
const ALL_ATTRIBUTES = 0x1 | 0x2 | 0x4 | 0x8 | 0x70 /* atime */ | 0x80 |
  0x200000;

/** Flags of propagation, as of mount(2). */
export const PROPAGATION = {
  unbindable: 1n << 17n,
  private: 1n << 18n,
  slave: 1n << 19n,
  shared: 1n << 20n,
} as const;

/** Room for two texts and a structure; calls are made one after the other. */
const HALF = 64 * 1024;
const scratch = new Uint8Array(2 * HALF + 64);
const words = new BigUint64Array(scratch.buffer, 2 * HALF, 8);
let scratchAddress = 0n;

function address(at: number): bigint {
  if (scratchAddress === 0n) scratchAddress = addressOf(scratch);
  return scratchAddress + BigInt(at);
}

/** Puts a text where the kernel finds it. */
function text(value: string, half: 0 | 1 = 0): bigint {
  const bytes = encodeText(value);
  if (bytes.length >= HALF) throw new SyscallError("fsconfig", 36);
  scratch.set(bytes, half * HALF);
  scratch[half * HALF + bytes.length] = 0;
  return address(half * HALF);
}

const STRUCTURE = 2 * HALF;

/** The descriptor of what a path leads to, from a directory. */
export function openAt(directory: number, path: string, flags: number): number {
  return Number(
    syscall(
      "openat",
      BigInt(directory),
      text(path),
      BigInt(flags | O.CLOEXEC),
    ),
  );
}

/** Another descriptor for the same. */
export function duplicate(fd: number): number {
  const F_DUPFD_CLOEXEC = 1030n;
  return Number(syscall("fcntl", BigInt(fd), F_DUPFD_CLOEXEC, 0n));
}

/** A place within a mount, never what is mounted over it. */
export function openWithin(mount: number, path: string): number {
  return openAs(mount, path, O.PATH | O.NOFOLLOW);
}

/** ... open for reading. */
export function openDirectoryWithin(mount: number, path: string): number {
  return openAs(mount, path || ".", O.RDONLY | O.DIRECTORY);
}

function openAs(
  mount: number,
  path: string,
  flags: number,
): number {
  words[0] = BigInt(flags | O.CLOEXEC);
  words[1] = 0n;
  words[2] = RESOLVE;
  return Number(
    syscall("openat2", BigInt(mount), text(path), address(STRUCTURE), 24n),
  );
}

export function makeDirectory(directory: number, name: string): void {
  syscall("mkdirat", BigInt(directory), text(name), 0o755n);
}

export function makeEmptyFile(directory: number, name: string): void {
  const S_IFREG = 0o100000n;
  syscall("mknodat", BigInt(directory), text(name), S_IFREG | 0o600n);
}

export interface Statistics {
  readonly blocks: bigint;
  readonly blockSize: bigint;
  /** Inodes that there may be. */
  readonly files: bigint;
  /** ST_* */
  readonly flags: number;
}

/** statfs(2). */
export function statisticsOf(path: string): Statistics {
  const STATFS_BYTES = 120;
  const bytes = new Uint8Array(STATFS_BYTES);
  syscall("statfs", text(path), addressOf(bytes));
  const fields = new BigUint64Array(bytes.buffer);
  return {
    blocks: fields[2],
    blockSize: fields[1],
    files: fields[5],
    flags: Number(fields[10]),
  };
}

const STATX_MNT_ID = 0x1000n;
const MOUNT_ID_AT = 144;
const status = new Uint8Array(256);

/** The id of the mount that a descriptor is on. */
export function mountIdOf(fd: number): number {
  syscall(
    "statx",
    BigInt(fd),
    text(""),
    AT_EMPTY_PATH,
    STATX_MNT_ID,
    addressOf(status),
  );
  return Number(
    new DataView(status.buffer).getBigUint64(MOUNT_ID_AT, true),
  );
}

/** Flags of a superblock that fsconfig(2) takes by their names. */
const SUPER_FLAGS = [
  [MS.RDONLY, "ro"],
  [MS.SYNCHRONOUS, "sync"],
  [MS.DIRSYNC, "dirsync"],
  [MS.LAZYTIME, "lazytime"],
] as const;

/** A file system that could not be made, with what it says about it. */
export class FileSystemError extends SyscallError {
  constructor(call: string, errno: number, readonly log: string) {
    super(call, errno);
    if (log !== "") this.message += ` (${log})`;
  }
}

/**
 * A mount of a new superblock, or of the one that the type has.
 *
 * @param options "size=1024k", "newinstance"
 * @param directories options whose values are open for reading
 * @throws FileSystemError
 */
export function createMount(
  type: string,
  source: string,
  options: readonly string[],
  superFlags: number,
  directories: readonly (readonly [key: string, fd: number])[] = [],
): number {
  const context = Number(syscall("fsopen", text(type), FSOPEN_CLOEXEC));
  try {
    // Some take none, and call themselves.
    if (source !== "") setString(context, "source", source);
    for (const option of options) {
      const equals = option.indexOf("=");
      if (equals < 0) setFlag(context, option);
      else {
        setString(context, option.slice(0, equals), option.slice(equals + 1));
      }
    }
    for (const [flag, name] of SUPER_FLAGS) {
      if ((superFlags & flag) !== 0) setFlag(context, name);
    }
    for (const [key, fd] of directories) setDescriptor(context, key, fd);
    configure(context, FSCONFIG.create);
    return Number(syscall("fsmount", BigInt(context), FSMOUNT_CLOEXEC));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new FileSystemError(error.call, error.errno, readLog(context));
  } finally {
    close(context);
  }
}

function setString(context: number, key: string, value: string): void {
  configure(context, FSCONFIG.setString, text(key), text(value, 1));
}

function setFlag(context: number, key: string): void {
  configure(context, FSCONFIG.setFlag, text(key));
}

function setDescriptor(context: number, key: string, fd: number): void {
  syscall(
    "fsconfig",
    BigInt(context),
    FSCONFIG.setFd,
    text(key),
    0n,
    BigInt(fd),
  );
}

function configure(
  context: number,
  command: bigint,
  key = 0n,
  value = 0n,
): void {
  syscall("fsconfig", BigInt(context), command, key, value, 0n);
}

/** What a file system says about an error: lines beginning with "e ". */
function readLog(context: number): string {
  const lines: string[] = [];
  const line = new Uint8Array(1024);
  for (;;) {
    try {
      const length = Number(
        syscall("read", BigInt(context), addressOf(line), 1024n),
      );
      lines.push(
        new TextDecoder().decode(line.subarray(0, length)).trim()
          .replace(/^[ewi] /, ""),
      );
    } catch (error) {
      // ENODATA: that is all.
      if (error instanceof SyscallError) return lines.join("; ");
      throw error;
    }
  }
}

/** Makes the superblock of a mount read-only. */
export function makeSuperblockReadOnly(mount: number): void {
  const context = Number(
    syscall(
      "fspick",
      BigInt(mount),
      text(""),
      FSPICK_CLOEXEC | FSPICK_EMPTY_PATH,
    ),
  );
  try {
    setFlag(context, "ro");
    configure(context, FSCONFIG.reconfigure);
  } finally {
    close(context);
  }
}

/** A mount of what a path leads to, alone, in no namespace. */
export function clonePath(path: string): number {
  return Number(
    syscall(
      "open_tree",
      BigInt(AT_FDCWD),
      text(path),
      OPEN_TREE_CLONE | BigInt(O.CLOEXEC) | AT_NO_AUTOMOUNT,
    ),
  );
}

/** ... of a part of a mount that is in the namespace of the caller. */
export function clonePart(mount: number, path: string): number {
  return Number(
    syscall(
      "open_tree",
      BigInt(mount),
      text(path),
      OPEN_TREE_CLONE | BigInt(O.CLOEXEC) | AT_NO_AUTOMOUNT |
        AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH,
    ),
  );
}

/** Sets all flags of a mount (MS_*), and makes it private. */
export function setAttributes(mount: number, flags: number): void {
  words[0] = BigInt(
    ATTRIBUTES.reduce(
      (all, [flag, attribute]) => (flags & flag) === 0 ? all : all | attribute,
      0,
    ),
  );
  words[1] = BigInt(ALL_ATTRIBUTES);
  words[2] = PROPAGATION.private;
  words[3] = 0n;
  setAttr(mount, AT_EMPTY_PATH);
}

export function setPropagation(
  mount: number,
  propagation: bigint,
  recursive = false,
): void {
  words[0] = 0n;
  words[1] = 0n;
  words[2] = propagation;
  words[3] = 0n;
  setAttr(mount, recursive ? AT_EMPTY_PATH | AT_RECURSIVE : AT_EMPTY_PATH);
}

function setAttr(mount: number, flags: bigint): void {
  syscall(
    "mount_setattr",
    BigInt(mount),
    text(""),
    flags,
    address(STRUCTURE),
    32n,
  );
}

/** Mounts a detached mount on what a descriptor leads to. */
export function attach(mount: number, on: number): void {
  const empty = text("");
  syscall(
    "move_mount",
    BigInt(mount),
    empty,
    BigInt(on),
    empty,
    MOVE_FROM_FD | MOVE_TO_FD,
  );
}

/** Gives a private mount the peers and the master of another one. */
export function setGroup(from: number, to: number): void {
  const empty = text("");
  syscall(
    "move_mount",
    BigInt(from),
    empty,
    BigInt(to),
    empty,
    MOVE_FROM_FD | MOVE_TO_FD | MOVE_SET_GROUP,
  );
}

/**
 * Makes a directory the root of the namespace; what was is gone.
 *
 * @param root a mount in the namespace of the caller
 */
export function pivotInto(root: number): void {
  syscall("fchdir", BigInt(root));
  // On each other (pivot_root(2)): the old one is on top of the new one.
  syscall("pivot_root", text("."), text(".", 1));
  syscall("umount2", text("."), MNT_DETACH);
  syscall("fchdir", BigInt(root));
}

/** Takes away what a path leads to, with all that is mounted in it. */
export function unmount(path: string): void {
  const UMOUNT_NOFOLLOW = 8n;
  syscall("umount2", text(path), MNT_DETACH | UMOUNT_NOFOLLOW);
}

/** From here on the main thread can change its mount namespace alone. */
export function leaveSharedDirectories(): void {
  syscall("unshare", CLONE_FS);
}

/** Goes to a new copy of the namespace. */
export function copyNamespace(): void {
  syscall("unshare", CLONE_NEWNS);
}

/** @param namespace descriptor of it (nsfs) */
export function enterNamespace(namespace: number): void {
  syscall("setns", BigInt(namespace), CLONE_NEWNS);
}

export function changeRoot(directory: number): void {
  syscall("fchdir", BigInt(directory));
  syscall("chroot", text("."));
}

export function changeDirectory(directory: number): void {
  syscall("fchdir", BigInt(directory));
}
