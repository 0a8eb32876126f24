/**
 * A superblock of a tree as it is without anything mounted in it or over it: a
 * clone of one of its mounts that nothing else knows of.
 */
import { AT_FDCWD, close, O } from "../ffi/syscall.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import {
  clonePart,
  copyNamespace,
  openAt,
  PROPAGATION,
  setPropagation,
  unmount,
} from "./calls.ts";
import { MountTree } from "./mount_tree.ts";

/**
 * In the namespace that has the mount. What covers it is unmounted in a copy of
 * that namespace, which is gone afterwards; there it can be cloned, too, when
 * it is unbindable.
 *
 * @param mounts of that namespace
 * @returns a descriptor of the clone, for the caller
 */
export function cloneBare(
  mounts: readonly MountInfo[],
  mountId: number,
): number {
  const tree = new MountTree(
    mounts.map(({ mountId: id, parentId: parent, mountPoint: point }) => ({
      id,
      parent,
      point,
    })),
  );
  const wanted = tree.byId.get(mountId)!;
  const covers = tree.coversOf(wanted);
  const { unbindable } = mounts.find((mount) => mount.mountId === mountId)!;
  if (unbindable || covers.length > 0) {
    copyNamespace();
    const root = openAt(AT_FDCWD, "/", O.PATH);
    setPropagation(root, PROPAGATION.private, true);
    close(root);
    for (const { point } of covers) unmount(point);
  }
  const at = openAt(AT_FDCWD, wanted.point, O.PATH);
  try {
    return clonePart(at, "");
  } finally {
    close(at);
  }
}
