/**
 * A superblock of a tree as it is without anything mounted in it or over it: a
 * clone of one of its mounts that nothing else knows of.
 */
import { AT_FDCWD, close, O } from "../ffi/syscall.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import {
  changeRoot,
  clonePart,
  copyNamespace,
  enterNamespace,
  openAt,
  PROPAGATION,
  setPropagation,
  unmount,
} from "./calls.ts";
import type { MountTree } from "./mount_tree.ts";
import type { OwnNamespace } from "./own_namespace.ts";

/**
 * In the namespace that has the mount. What covers it is unmounted in a copy of
 * that namespace, which is gone afterwards; there it can be cloned, too, when
 * it is unbindable.
 *
 * @param own where the namespace was entered
 * @param tree of that namespace
 * @param top descriptor of its root
 * @returns a descriptor of the clone, for the caller
 */
export function cloneBare(
  own: OwnNamespace,
  tree: MountTree<NumberedMount>,
  top: number,
  id: number,
): number {
  const wanted = tree.byId.get(id)!;
  const covers = tree.coversOf(wanted);
  const isOverRoot = tree.isOverRoot(wanted);
  changeRoot(top);
  if (wanted.unbindable || covers.length > 0 || isOverRoot) {
    copyNamespace();
    makePrivate();
    const copy = own.current();
    try {
      // setns(2) leads to what is on top of the root.
      if (isOverRoot) enterNamespace(copy);
      for (const { point } of covers) {
        unmount(point);
        if (isOverRoot) enterNamespace(copy);
      }
    } finally {
      close(copy);
    }
  }
  const at = openAt(AT_FDCWD, wanted.point, O.PATH);
  try {
    return clonePart(at, "");
  } finally {
    close(at);
  }
}

function makePrivate(): void {
  const root = openAt(AT_FDCWD, "/", O.PATH);
  try {
    setPropagation(root, PROPAGATION.private, true);
  } finally {
    close(root);
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
