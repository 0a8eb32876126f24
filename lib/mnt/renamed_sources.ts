/**
 * Files that mounts show and that lost the name by which they were mounted, but
 * have another one.
 */
import { type FileStatus, S_IF, stat } from "../ffi/syscall.ts";
import { nameBelow } from "../ghost/other_names.ts";
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
 * Another name of a file.
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
  const found = nameBelow(
    `/proc/self/fd/${file}`,
    stat(file),
    `/proc/self/fd/${fd}/.`,
    isWithin(path, root) ? `/${relativePath(path, root)}` : "/",
  );
  return found && joinPath(root, relativePath(found, "/"));
}
