/**
 * Peer groups of mounts and who is slave of whom: a forest, for a group has at
 * most one master (Documentation/filesystems/sharedsubtree.rst).
 */
import { type Mount } from "./mount.ts";

/** What of a mount is needed here. */
export type Sharing = Pick<Mount, "id" | "shared" | "master">;

/** Mounts that are peers of each other, or slaves of one group and no peers. */
export interface SharingGroup<M extends Sharing = Mount> {
  readonly shared: number;
  readonly master: number;
  readonly members: readonly M[];
  /** The group it is a slave of; undefined where that is not of the tree. */
  readonly parent: SharingGroup<M> | undefined;
}

/** All groups, masters before their slaves. */
export function sharingGroups<M extends Sharing>(
  mounts: readonly M[],
): SharingGroup<M>[] {
  const members = Map.groupBy(
    mounts.filter(({ shared, master }) => shared !== 0 || master !== 0),
    ({ shared, master }) => `${shared} ${master}`,
  );
  const waiting = [...members.values()];
  const peers = new Map<number, M[]>();
  for (const group of waiting) {
    const [{ shared }] = group;
    if (shared !== 0) peers.set(shared, group);
  }
  const done = new Map<M[], SharingGroup<M>>();
  const settle = (group: M[], path: ReadonlySet<M[]>): SharingGroup<M> => {
    const known = done.get(group);
    if (known !== undefined) return known;
    const [{ shared, master }] = group;
    const above = peers.get(master);
    // A circle, which only a damaged image has, is cut.
    const parent = above === undefined || path.has(above)
      ? undefined
      : settle(above, new Set([...path, above]));
    const settled = { shared, master, members: group, parent };
    done.set(group, settled);
    return settled;
  };
  for (const group of waiting) settle(group, new Set([group]));
  return [...done.values()];
}
