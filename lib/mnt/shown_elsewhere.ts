/** Where another namespace shows what is in a file system, too. Pure. */
import { isWithin, joinPath, type Mount, relativePath } from "./mount.ts";
import type { MountTree } from "./mount_tree.ts";

/** A directory or file by its superblock, whatever is mounted where. */
export type Shown = Pick<Mount, "device" | "root">;

/** By one mount of it; undefined where something else is mounted over it. */
function pathThrough(
  { root }: Shown,
  mount: Mount,
  tree: MountTree,
): string | undefined {
  const path = joinPath(mount.point, relativePath(root, mount.root));
  return tree.lookup(path) === mount ? path : undefined;
}

/** Those of the mounts that show it, and paths lead to. */
export function mountsShowing(
  shown: Shown,
  mounts: readonly Mount[],
  tree: MountTree,
): Mount[] {
  return mounts.filter((mount) =>
    mount.device === shown.device && isWithin(shown.root, mount.root) &&
    !mount.deleted && pathThrough(shown, mount, tree) !== undefined
  );
}

/** By a mount of the very same directory before one of a higher one. */
export function nearestPath(
  shown: Shown,
  mounts: readonly Mount[],
  tree: MountTree,
): string | undefined {
  const [mount] = mounts.toSorted((a, b) => b.root.length - a.root.length);
  return mount === undefined ? undefined : pathThrough(shown, mount, tree);
}
