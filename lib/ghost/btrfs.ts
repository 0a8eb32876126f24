/**
 * What is peculiar about files of btrfs: each subvolume has a device number and
 * inode numbers of its own, and the file system knows all names of an inode.
 */
import { ENOENT } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  type FileStatus,
  O,
  open,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import { hasInodeFlags } from "./attributes.ts";
import { fileSystemType, splitPath, statusAt } from "./calls.ts";

export const BTRFS = 0x9123683en;
const BTRFS_IOC_INO_PATHS = 0xc0389423n;
/** The inode of every subvolume's root: BTRFS_FIRST_FREE_OBJECTID. */
export const FIRST_INODE_OF_SUBVOLUME = 256n;
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

export const BTRFS_IOC_GET_SUBVOL_INFO = 0x81f8943cn;
const SUBVOL_INFO_BYTES = 504;

/**
 * Whether the subvolume of a file was deleted: the file keeps its link count,
 * and /proc says nothing.
 *
 * @param at a magic link that leads to it
 * @param directory the nearest one above its path
 */
export function isOfDeletedSubvolume(
  at: string,
  status: FileStatus,
  directory: string,
): boolean {
  if (statusAt(directory)?.dev === status.dev || !hasInodeFlags(status)) {
    return false;
  }
  const fd = open(encodeText(at), O.RDONLY | O.NOATIME);
  try {
    const info = new Uint8Array(SUBVOL_INFO_BYTES);
    syscall("ioctl", BigInt(fd), BTRFS_IOC_GET_SUBVOL_INFO, addressOf(info));
    return false;
  } catch (error) {
    // Before Linux 4.18 nobody tells.
    if (!(error instanceof SyscallError)) throw error;
    return error.errno === ENOENT;
  } finally {
    close(fd);
  }
}
