/**
 * The archive format of file trees: tar, as tar(1) reads and writes it.
 *
 *     [extended header, its records][header 512 bytes][data, padded to 512] ... [1,024 zeros]
 *
 * Written is the format of POSIX (pax): what the header has no room for, or
 * tells in full seconds only, goes into records "LENGTH KEY=VALUE\n" before it.
 * Files with holes are written as "GNU sparse format 1.0": their data begin with
 * a map of where the rest belongs. Read is also what GNU tar writes of itself
 * (long names, numbers of base 256, the old sparse format).
 *
 * Sockets have no place in a tar: the entry before the first of them is not
 * theirs, so all are told in one record of the first entry (`CKPT.sockets`),
 * each with the number of entries it comes after. Flags of inodes are in a
 * record of ours, too (`CKPT.flags`). GNU tar passes over both with a warning.
 */
import type { Time } from "../ghost/calls.ts";
import type { Segment } from "../ghost/content.ts";

export const BLOCK = 512;

export type FileType =
  | "file"
  | "hard link"
  | "symbolic link"
  | "character device"
  | "block device"
  | "directory"
  | "fifo"
  | "socket";

/** One name in a tree of files. */
export interface TreeEntry {
  /** From the root of the tree: "." for itself, else "./a/b". */
  readonly path: string;
  readonly type: FileType;
  /** Permissions and the three bits above them. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modified: Time;
  readonly accessed: Time | undefined;
  /** Of a link: what a symbolic one says; the path of another entry. */
  readonly target: string;
  /** Of a device. */
  readonly major: number;
  readonly minor: number;
  /** Bytes of a file, holes included. */
  readonly size: number;
  /** Where a file has data; holes lie between. Ascending. */
  readonly segments: readonly Segment[];
  readonly xattrs: readonly Xattr[];
  /** Flags of the inode (ioctl_iflags(2)). */
  readonly flags: number;
}

export interface Xattr {
  readonly name: string;
  readonly value: Uint8Array;
}

/** A socket, and how many entries of the archive come before it. */
export interface PlacedSocket {
  readonly after: number;
  readonly entry: TreeEntry;
}

export const TYPES: readonly (readonly [flag: string, type: FileType])[] = [
  ["0", "file"],
  ["1", "hard link"],
  ["2", "symbolic link"],
  ["3", "character device"],
  ["4", "block device"],
  ["5", "directory"],
  ["6", "fifo"],
];

/** Where the fields of a header are, and their lengths. */
export const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  modified: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 8],
  major: [329, 8],
  minor: [337, 8],
  prefix: [345, 155],
} as const;
export type Field = readonly [at: number, length: number];

export const XATTR_KEY = "SCHILY.xattr.";
export const SOCKETS_KEY = "CKPT.sockets";
export const FLAGS_KEY = "CKPT.flags";

/** What an archive ends with. */
export const TAR_END = new Uint8Array(2 * BLOCK);

/** How many zeros follow data of this length. */
export function paddingAfter(length: number): number {
  return (BLOCK - length % BLOCK) % BLOCK;
}
