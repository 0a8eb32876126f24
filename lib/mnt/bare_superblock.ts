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
import type { MountTree } from "./mount_tree.ts";

/**
 * In the namespace that has the mount. What covers it is unmounted in a copy of
 * that namespace, which is gone afterwards; there it can be cloned, too, when
 * it is unbindable.
 *
 * @param tree of that namespace, whose root is the one of the caller
 * @returns a descriptor of the clone, for the caller
 */
export function cloneBare(tree: MountTree<NumberedMount>, id: number): number {
  const wanted = tree.byId.get(id)!;
  const covers = tree.coversOf(wanted);
  if (wanted.unbindable || covers.length > 0) {
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

/** What has to be known of the mounts of a namespace. */
export interface NumberedMount {
  readonly id: number;
  readonly parent: number;
  readonly point: string;
  readonly unbindable: boolean;
}

export function numberedMount(
  { mountId, parentId, mountPoint, unbindable }: MountInfo,
): NumberedMount {
  return { id: mountId, parent: parentId, point: mountPoint, unbindable };
}
