/**
 * Files that mounts show and that lost the name by which they were mounted, but
 * have another one.
 */
import { type FileStatus, S_IF, stat } from "../ffi/syscall.ts";
import { namesByInode } from "../ghost/btrfs.ts";
import { isSameFile, pathByHandle, statusAt } from "../ghost/calls.ts";
import { DELETED_MARK } from "../proc/maps.ts";
import { nameInDirectory } from "../ghost/files_in_use.ts";
import { isWithin, joinPath, relativePath } from "./mount.ts";

/** A mount of the same superblock, with nothing in it or over it. */
export interface BareMount {
  readonly fd: number;
  /** The directory of the superblock that it shows. */
  readonly root: string;
}

/** Whether it has a name, though it lost the one by which it was mounted. */
export function hasOtherName({ mode, nlink }: FileStatus): boolean {
  return (mode & S_IF.MT) !== S_IF.DIR && nlink > 0n;
}

/**
 * Another name of a file: the one the kernel knows it by, one its file system
 * tells, one in the directory where it was.
 *
 * @param file a descriptor of it
 * @param path where it was, from the root of the superblock
 * @returns from there, too
 */
export function otherNameBelow(
  file: number,
  path: string,
  { fd, root }: BareMount,
): string | undefined {
  const status = stat(file);
  const top = `/proc/self/fd/${fd}/.`;
  const named = (below: string) => {
    const found = statusAt(top + below);
    return found !== undefined && isSameFile(found, status)
      ? joinPath(root, relativePath(below, "/"))
      : undefined;
  };
  const known = pathByHandle(`/proc/self/fd/${file}`, top);
  if (known !== undefined && !known.endsWith(DELETED_MARK)) {
    const name = named(known);
    if (name !== undefined) return name;
  }
  for (const path of namesByInode(top, status.ino)) {
    const name = named(path.slice(top.length));
    if (name !== undefined) return name;
  }
  return isWithin(path, root)
    ? nameInDirectory(`${top}/${relativePath(path, root)}`, status, path)
    : undefined;
}
