/** Other names of a file that lost the one by which it was opened or mounted. */
import { type FileStatus, S_IF } from "../ffi/syscall.ts";
import { DELETED_MARK } from "../proc/maps.ts";
import { namesByInode } from "./btrfs.ts";
import {
  isSameFile,
  namesIn,
  nearestDirectory,
  pathByHandle,
  splitPath,
  statusAt,
} from "./calls.ts";
import { isLinkName } from "./fate.ts";

/** Bytes of a directory in which another name is sought: some 20,000 names. */
export const LARGEST_DIRECTORY = 1n << 20n;

/**
 * A name below a directory of another mount namespace, or of a mount that no
 * path leads to: the one the kernel knows, one that the file system tells, one
 * in the directory where it was.
 *
 * @param at a magic link that leads to the file
 * @param top a path of the directory, by which ckpt gets there: the root of the
 * namespace or of the mount
 * @param where it was below that: "/a/b"
 * @returns where it is below that
 */
export function nameBelow(
  at: string,
  status: FileStatus,
  top: string,
  where: string,
): string | undefined {
  if (status.nlink === 0n || (status.mode & S_IF.MT) === S_IF.DIR) {
    return undefined;
  }
  const leadsToIt = (name: string) => {
    const found = statusAt(top + name);
    return found !== undefined && isSameFile(found, status) &&
      !isLinkName(name);
  };
  const nearest = nearestDirectory(top + where);
  const known = pathByHandle(at, nearest);
  if (
    known !== undefined && !known.endsWith(DELETED_MARK) && leadsToIt(known)
  ) return known;
  const told = namesByInode(nearest, status.ino)
    .filter((path) => path.startsWith(`${top}/`))
    .map((path) => path.slice(top.length)).find(leadsToIt);
  if (told !== undefined) return told;
  const { directory } = splitPath(where);
  if ((statusAt(top + directory)?.size ?? 0n) > LARGEST_DIRECTORY) {
    return undefined;
  }
  const prefix = directory === "/" ? "/" : `${directory}/`;
  return namesIn(top + directory).map(({ name }) => prefix + name)
    .find(leadsToIt);
}
