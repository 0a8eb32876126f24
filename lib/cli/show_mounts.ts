/** `ckpt show --mounts`: the mount namespaces of an image, as text for people. */
import type { ImageSet } from "../image/image_set.ts";
import { readMounts } from "../mnt/images.ts";
import { deviceText, type Mount, MS } from "../mnt/mount.ts";
import { MountTree } from "../mnt/mount_tree.ts";
import type { ImageMount, NamespaceImage } from "../mnt/image_mounts.ts";
import { type SharingGroup, sharingGroups } from "../mnt/sharing.ts";
import { printable } from "./render_error.ts";

/** @throws CkptError when an image is missing or damaged */
export function showMounts(set: ImageSet): string {
  const own = set.inventory.root_ids?.mnt_ns_id ?? 0;
  const tasks = new Map<number, number[]>();
  for (const { pid } of set.require("pstree", undefined)) {
    const number = set.read("ids", pid)?.mnt_ns_id ?? own;
    if (number === own) continue;
    tasks.set(number, [...tasks.get(number) ?? [], pid]);
  }
  if (tasks.size === 0) {
    return "the image has no mount namespaces of its own\n";
  }
  const namespaces = [...tasks.keys()].map((number) =>
    readMounts(
      number,
      set.require("mountpoints", number),
      set.read("ckpt-mounts", number) ?? [],
    )
  );
  const lines = [
    ...namespaces.flatMap((namespace) => [
      `mount namespace ${namespace.number}: tasks ${
        tasks.get(namespace.number)!.join(", ")
      }`,
      ...treeLines(namespace),
      "",
    ]),
    ...groupLines(namespaces.flatMap(({ mounts }) => mounts)),
  ];
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function treeLines({ mounts }: NamespaceImage): string[] {
  const tree = new MountTree(mounts);
  const depths = new Map<number, number>();
  return tree.parentsFirst().map((mount) => {
    const depth = (depths.get(mount.parent) ?? 0) + 1;
    depths.set(mount.id, depth);
    const what = [
      `${"  ".repeat(depth)}${mount.id} ${mount.point}`,
      `${mount.type} ${mount.source || "none"}`,
      `${deviceText(mount.device)} ${mount.root}${
        mount.deleted ? " (removed)" : ""
      }`,
      [...flagsOf(mount), ...groupsOf(mount), ...originOf(mount)].join(" "),
      ...tree.isCovered(mount) ? ["covered"] : [],
    ];
    return what.filter((part) => part !== "").join("  ");
  });
}

const FLAGS = [
  [MS.RDONLY, "ro"],
  [MS.NOSUID, "nosuid"],
  [MS.NODEV, "nodev"],
  [MS.NOEXEC, "noexec"],
  [MS.NOATIME, "noatime"],
  [MS.NODIRATIME, "nodiratime"],
  [MS.NOSYMFOLLOW, "nosymfollow"],
  [MS.UNBINDABLE, "unbindable"],
] as const;

function flagsOf({ flags }: Mount): string[] {
  return FLAGS.filter(([bit]) => (flags & bit) !== 0).map(([, name]) => name);
}

function groupsOf({ shared, master }: Mount): string[] {
  return [
    ...shared === 0 ? [] : [`shared:${shared}`],
    ...master === 0 ? [] : [`master:${master}`],
  ];
}

function originOf({ external, hostPath }: ImageMount): string[] {
  if (hostPath !== undefined) return [`(from ${hostPath})`];
  switch (external?.kind) {
    case "named":
      return [`(external mnt[${external.name}])`];
    case "device":
      return [`(external dev[${external.name}])`];
    case "automatic":
      return [`(from ${external.path})`];
    default:
      return [];
  }
}

/** Masters, and below them their slaves. */
function groupLines(mounts: readonly ImageMount[]): string[] {
  const groups = sharingGroups(mounts);
  if (groups.length === 0) return ["no mount shares with others"];
  const draw = (group: SharingGroup<ImageMount>, depth: number): string[] => [
    `${"  ".repeat(depth)}${describeGroup(group)}`,
    ...groups.filter(({ parent }) => parent === group)
      .flatMap((slaves) => draw(slaves, depth + 1)),
  ];
  return [
    "peer groups, with their slaves below them",
    ...groups.filter(({ parent }) => parent === undefined)
      .flatMap((group) => draw(group, 1)),
  ];
}

function describeGroup(
  { shared, master, parent, members }: SharingGroup<ImageMount>,
): string {
  const [{ peerPath, masterPath }] = members;
  const outside = [
    ...peerPath === undefined ? [] : [` (with ${peerPath} outside)`],
    ...master !== 0 && parent === undefined
      ? [` (slave of ${masterPath ?? `group ${master}`} outside)`]
      : [],
  ].join("");
  const all = members.map(({ id, namespace, point }) =>
    `${id} ${point} in ${namespace}`
  ).join(", ");
  return `${shared === 0 ? "slaves" : `group ${shared}`}${outside}: ${all}`;
}
