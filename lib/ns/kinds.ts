/** The kinds of namespaces (namespaces(7)). */
import type { task_kobj_ids_entry } from "../image/schema.gen.ts";

/** By their names in /proc/PID/ns, with their bits of clone(2). */
export const NAMESPACE_FLAGS = {
  cgroup: 0x0200_0000,
  ipc: 0x0800_0000,
  mnt: 0x0002_0000,
  net: 0x4000_0000,
  pid: 0x2000_0000,
  time: 0x0000_0080,
  user: 0x1000_0000,
  uts: 0x0400_0000,
} as const;

export type NamespaceKind = keyof typeof NAMESPACE_FLAGS;

export const NAMESPACE_KINDS = Object.keys(
  NAMESPACE_FLAGS,
) as readonly NamespaceKind[];

/**
 * Those that ckpt itself enters to save or restore a tree that is in others
 * than ckpt: what their processes are called and have is told in there only.
 */
export const ENTERED_KINDS = ["ipc", "net", "pid", "time", "uts"] as const;

export type EnteredKind = typeof ENTERED_KINDS[number];

/** The number of a namespace in images: a field of ids-PID.img. */
export type NamespaceIds = {
  [kind in NamespaceKind as `${kind}_ns_id`]: number;
};

/**
 * The numbers of the namespaces that the dumper is in, in the order in which
 * CRIU numbers them; those of the tree alone follow.
 */
export const DUMPER_NAMESPACES = {
  pid_ns_id: 1,
  net_ns_id: 2,
  ipc_ns_id: 3,
  uts_ns_id: 4,
  time_ns_id: 5,
  mnt_ns_id: 6,
  user_ns_id: 7,
  cgroup_ns_id: 8,
} as const satisfies NamespaceIds;

const FIRST_OF_TREE = 9;

/**
 * The numbers for a tree that is in namespaces of its own of some kinds.
 *
 * @param own whether it is
 */
export function numberNamespaces(
  own: (kind: NamespaceKind) => boolean,
): NamespaceIds {
  let next = FIRST_OF_TREE;
  const ids: NamespaceIds = { ...DUMPER_NAMESPACES };
  for (const field of Object.keys(ids) as (keyof NamespaceIds)[]) {
    if (own(field.slice(0, -"_ns_id".length) as NamespaceKind)) {
      ids[field] = next++;
    }
  }
  return ids;
}

/** Whether the root of an image was in another namespace than its dumper. */
export function isOwnNamespace(
  kind: NamespaceKind,
  root: Partial<task_kobj_ids_entry>,
  dumper: Partial<task_kobj_ids_entry> | undefined,
): boolean {
  const field = `${kind}_ns_id` as const;
  return (root[field] ?? 0) !== (dumper?.[field] ?? 0);
}
