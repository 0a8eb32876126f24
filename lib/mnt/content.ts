/**
 * What processes keep in file systems that live in memory, as CRIU's
 * tmpfs-dev-N.tar.gz.img: an archive of the file system from its root on.
 */
import { CkptError, EXIT } from "../error.ts";
import { ENODATA, ENOENT, ENXIO } from "../ffi/errno.ts";
import { pathExists } from "../ffi/path_exists.ts";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { splitPath } from "../ghost/calls.ts";
import { ArchiveError, ArchiveWriter } from "./archive.ts";
import { describeMount, type Mount } from "./mount.ts";
import { restoreTree } from "./restore_tree.ts";
import { saveFiles, saveTree, SINGLE } from "./save_tree.ts";

/**
 * The name of the archive of a superblock, by its device; of a part, which has
 * to be put to its place again, by the mount that shows it.
 */
export function contentName(
  { root, device, id, deleted }: Pick<
    Mount,
    "root" | "device" | "id" | "deleted"
  >,
): string {
  return root === "/" && !deleted
    ? `tmpfs-dev-${device}.tar.gz.img`
    : `tmpfs-${id}.tar.gz.img`;
}

/**
 * @param root descriptor of the root of a mount, a directory or a file, with
 * nothing mounted in it
 * @throws CkptError naming the mount
 */
export function saveContent(mount: Mount, root: number, path: string): void {
  save(mount, path, (archive) => saveTree(root, archive));
}

/** @param files links of /proc by the paths of files, which are all there is */
export function saveContentOfFiles(
  mount: Mount,
  files: ReadonlyMap<string, string>,
  path: string,
): void {
  save(mount, path, (archive) => saveFiles(files, archive));
}

/** What the kernel says of files that are gone, or shorter, meanwhile. */
const CHANGED: readonly number[] = [ENOENT, ENXIO, ENODATA];

function save(
  mount: Mount,
  path: string,
  act: (archive: ArchiveWriter) => void,
): void {
  const fd = open(encodeText(path), O.WRONLY);
  try {
    act(new ArchiveWriter(fd));
  } catch (error) {
    if (!(error instanceof SyscallError || error instanceof ArchiveError)) {
      throw error;
    }
    throw new CkptError(EXIT.failed, "saving the content of file systems", [{
      object: describeMount(mount),
      why: error.message,
      remedy: CHANGED.includes(error.errno)
        ? "dump again: processes that are not dumped have changed files there"
        : undefined,
    }], { cause: error });
  } finally {
    close(fd);
  }
}

/**
 * @param root descriptor of the root directory of an empty superblock
 * @param mounts those of it that the image may have archives of
 */
export async function restoreContent(
  root: number,
  mounts: readonly Mount[],
  pathOf: (name: string) => string,
): Promise<void> {
  const top = `/proc/self/fd/${root}`;
  const done = new Set<string>();
  for (const mount of mounts) {
    if (mount.deleted) continue;
    const image = contentName(mount);
    const path = pathOf(image);
    if (done.has(image) || !pathExists(path)) continue;
    done.add(image);
    const what = `the content of the ${mount.type} on ${mount.point}`;
    if (mount.root === "/") {
      await restoreInto(top, { path, image, what });
      continue;
    }
    const { directory } = splitPath(mount.root);
    Deno.mkdirSync(`${top}${directory}`, { recursive: true });
    const made = `${top}/${TEMPORARY}`;
    Deno.mkdirSync(made);
    const { isSingle } = await restoreInto(made, { path, image, what });
    Deno.renameSync(
      isSingle ? `${made}/${SINGLE}` : made,
      `${top}${mount.root}`,
    );
    if (isSingle) Deno.removeSync(made);
  }
}

/** Fills an empty directory with what a mount shows that was removed. */
export function restoreSource(
  mount: Mount,
  directory: string,
  pathOf: (name: string) => string,
): Promise<{ isSingle: boolean }> {
  const image = contentName(mount);
  const what = `what was removed and is mounted on ${mount.point}`;
  return restoreInto(directory, { path: pathOf(image), image, what });
}

/** A part of a superblock has this name until it is complete. */
const TEMPORARY = ".ckpt-content";

async function restoreInto(
  directory: string,
  { path, image, what }: { path: string; image: string; what: string },
): Promise<{ isSingle: boolean }> {
  const root = open(encodeText(directory), O.PATH | O.DIRECTORY);
  const fd = open(encodeText(path), O.RDONLY);
  try {
    return await restoreTree(fd, path, { root, what, image });
  } finally {
    close(fd);
    close(root);
  }
}
