/** Subvolumes of btrfs, and snapshots of them (linux/btrfs.h, btrfs(5)). */
import { EINVAL, ENOTTY } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  O,
  open,
  syscall,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isOneOf } from "./attributes.ts";
import {
  BTRFS,
  BTRFS_IOC_GET_SUBVOL_INFO,
  FIRST_INODE_OF_SUBVOLUME,
} from "./btrfs.ts";
import { fileSystemType, splitPath, statusAt } from "./calls.ts";

const BTRFS_IOC_SNAP_CREATE_V2 = 0x50009417n;
const BTRFS_IOC_SNAP_DESTROY = 0x5000940fn;
const BTRFS_IOC_GET_SUBVOL_ROOTREF = 0xd000943dn;
const BTRFS_SUBVOL_RDONLY = 2n;
/** In btrfs_ioctl_get_subvol_info_args.flags: BTRFS_ROOT_SUBVOL_RDONLY. */
const ROOT_RDONLY = 1n;
const ARGUMENT_BYTES = 4096;
const INFO_BYTES = 504;
const RENAME_EXCHANGE = 2n;

export interface SubvolumeInfo {
  /** In hexadecimal, as those of its parent. */
  readonly uuid: string;
  /** Of the one it is a snapshot of; zeros where it is none. */
  readonly parent: string;
  readonly readOnly: boolean;
}

/** Whether a path is the root of a subvolume. */
export function isSubvolume(path: string): boolean {
  return statusAt(path)?.ino === FIRST_INODE_OF_SUBVOLUME &&
    fileSystemType(path) === BTRFS;
}

/** The root of the subvolume that a file is in; undefined where it is not in reach. */
export function subvolumeOf(path: string): string | undefined {
  if (fileSystemType(path) !== BTRFS) return undefined;
  for (let at = path; at !== "/";) {
    at = splitPath(at).directory;
    if (isSubvolume(at)) return at;
  }
  return undefined;
}

export function subvolumeInfo(path: string): SubvolumeInfo {
  const info = new Uint8Array(INFO_BYTES);
  control(path, BTRFS_IOC_GET_SUBVOL_INFO, info);
  const view = new DataView(info.buffer);
  return {
    uuid: info.subarray(296, 312).toHex(),
    parent: info.subarray(312, 328).toHex(),
    readOnly: (view.getBigUint64(288, true) & ROOT_RDONLY) !== 0n,
  };
}

/** Whether other subvolumes are inside it; a snapshot has none of them. */
export function hasSubvolumes(path: string): boolean {
  const answer = new Uint8Array(ARGUMENT_BYTES);
  const COUNT_AT = 4088;
  try {
    control(path, BTRFS_IOC_GET_SUBVOL_ROOTREF, answer);
  } catch (error) {
    // Before Linux 4.18 nobody tells.
    if (isOneOf(error, ENOTTY, EINVAL)) return false;
    throw error;
  }
  return answer[COUNT_AT] > 0;
}

/** Makes a snapshot `path` of the subvolume `source`. */
export function createSnapshot(
  source: string,
  path: string,
  readOnly: boolean,
): void {
  const { directory, name } = splitPath(path);
  const fd = open(encodeText(source), O.RDONLY | O.DIRECTORY);
  try {
    const argument = new Uint8Array(ARGUMENT_BYTES);
    const view = new DataView(argument.buffer);
    view.setBigInt64(0, BigInt(fd), true);
    view.setBigUint64(16, readOnly ? BTRFS_SUBVOL_RDONLY : 0n, true);
    argument.set(encodeText(name), 56);
    control(directory, BTRFS_IOC_SNAP_CREATE_V2, argument);
  } finally {
    close(fd);
  }
}

export function destroySubvolume(path: string): void {
  const { directory, name } = splitPath(path);
  const argument = new Uint8Array(ARGUMENT_BYTES);
  argument.set(encodeText(name), 8);
  control(directory, BTRFS_IOC_SNAP_DESTROY, argument);
}

/** Lets two paths change places, at one moment (renameat2(2)). */
export function exchange(one: string, other: string): void {
  const target = terminated(encodeText(other));
  syscallBuffer1(
    "renameat2",
    BigInt(AT_FDCWD),
    terminated(encodeText(one)),
    BigInt(AT_FDCWD),
    addressOf(target),
    RENAME_EXCHANGE,
  );
}

function control(
  path: string,
  request: bigint,
  argument: Uint8Array<ArrayBuffer>,
): void {
  const fd = open(encodeText(path), O.RDONLY | O.DIRECTORY);
  try {
    syscall("ioctl", BigInt(fd), request, addressOf(argument));
  } finally {
    close(fd);
  }
}

/** A path beside `path` that nobody has: "x.name.1". */
export function freeName(path: string, name: string): string {
  for (let number = 1;; number++) {
    const free = `${path}.${name}.${number}`;
    if (statusAt(free) === undefined) return free;
  }
}

/** Runs what fails when the file system refuses. */
export function doing<T>(act: () => T, fail: (why: string) => never): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return fail(error.message);
  }
}
