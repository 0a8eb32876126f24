/** Checks mount namespaces: mountpoints-N.img and ckpt-mounts-N.img. */

import { imageName } from "../kinds.ts";
import { ckpt_layer_entry_roles, type mnt_entry } from "../schema.gen.ts";
import type { Findings } from "./findings.ts";
import type { TreeTask } from "./tree.ts";

const PATH_MAX = 4096;
/** fs.mount-max of the kernel is 100,000 by default. */
const MOST_MOUNTS = 1_000_000;

const LAYER_ROLES: readonly number[] = Object.values(ckpt_layer_entry_roles);

/** ckpt_layer_entry.mnt_id of a layer that the dumper's namespace shows. */
const OF_THE_DUMPER = 0;

type Wrong = (entry: number | undefined, field: string, why: string) => void;

export function checkMounts(
  findings: Findings,
  tasks: readonly TreeTask[],
): void {
  const own = findings.set.inventory.root_ids?.mnt_ns_id;
  const numbers = new Set(
    tasks.flatMap(({ ids }) => ids?.mnt_ns_id ?? []),
  );
  const ids = new Set<number>();
  const groups = new Map<number, mnt_entry>();
  for (const number of numbers) {
    if (number === own) continue;
    const mounts = findings.require("mountpoints", number);
    if (mounts === undefined) continue;
    const wrong: Wrong = (entry, field, why) =>
      findings.add(imageName("mountpoints", number), entry, field, why);
    if (mounts.length > MOST_MOUNTS) {
      wrong(undefined, "", `holds ${mounts.length} mounts`);
      continue;
    }
    checkTree(mounts, wrong);
    mounts.forEach((mount, i) => {
      const { mnt_id } = mount;
      if (ids.has(mnt_id)) wrong(i, "mnt_id", `${mnt_id} is there twice`);
      ids.add(mnt_id);
      checkGroup(mount, groups, (field, why) => wrong(i, field, why));
    });
  }
  const deleted = new Set<number>();
  for (const number of numbers) {
    if (number === own) continue;
    const mounts = findings.read("mountpoints", number) ?? [];
    for (const { mnt_id, deleted: isDeleted } of mounts) {
      if (isDeleted) deleted.add(mnt_id);
    }
  }
  for (const number of numbers) {
    const mounts = number === own
      ? undefined
      : findings.read("mountpoints", number);
    if (mounts !== undefined) {
      checkExtensions(findings, number, mounts, deleted, ids);
    }
  }
}

function checkTree(mounts: readonly mnt_entry[], wrong: Wrong): void {
  const byId = new Map(mounts.map((mount) => [mount.mnt_id, mount]));
  let root: mnt_entry | undefined;
  const places = new Set<string>();
  mounts.forEach((mount, i) => {
    const { mnt_id, parent_mnt_id, mountpoint } = mount;
    const parent = parent_mnt_id === mnt_id
      ? undefined
      : byId.get(parent_mnt_id);
    if (!isPath(mountpoint)) {
      wrong(i, "mountpoint", `${JSON.stringify(mountpoint)} is no path`);
    }
    if (
      !isPath(mount.root) && mount.ext_key === undefined && !mount.ext_mount
    ) {
      wrong(i, "root", `${JSON.stringify(mount.root)} is no path`);
    }
    if (parent === undefined) {
      if (mountpoint !== "/") {
        wrong(i, "parent_mnt_id", `there is no mount ${parent_mnt_id}`);
      } else if (root !== undefined) wrong(i, "", "is a second root");
      else root = mount;
      return;
    }
    const place = `${parent_mnt_id} ${mountpoint}`;
    if (places.has(place)) {
      wrong(i, "mountpoint", "another mount has this parent and mount point");
    }
    places.add(place);
    const above = parent.mountpoint;
    if (
      mountpoint !== above && above !== "/" &&
      !mountpoint.startsWith(`${above}/`)
    ) wrong(i, "mountpoint", `is not on its parent, which is at ${above}`);
  });
  if (root === undefined) wrong(undefined, "", "holds no mount at /");
  else checkCircles(mounts, root, wrong);
}

/** Every mount has to lead to the root. */
function checkCircles(
  mounts: readonly mnt_entry[],
  root: mnt_entry,
  wrong: Wrong,
): void {
  const children = Map.groupBy(mounts, ({ parent_mnt_id }) => parent_mnt_id);
  const found = new Set<mnt_entry>([root]);
  for (const { mnt_id } of found) {
    for (const child of children.get(mnt_id) ?? []) found.add(child);
  }
  const lost = mounts.findIndex((mount) =>
    !found.has(mount) && children.has(mount.parent_mnt_id) &&
    mount.mnt_id !== mount.parent_mnt_id
  );
  if (found.size < mounts.length && lost >= 0) {
    wrong(lost, "parent_mnt_id", "does not lead to the root");
  }
}

/** No empty components, "." or "..", which would lead elsewhere. */
function isPath(text: string): boolean {
  return text === "/" || text.length < PATH_MAX && text.startsWith("/") &&
      !text.includes("\0") &&
      text.slice(1).split("/").every((part) =>
        part !== "" && part !== "." && part !== ".."
      );
}

/** Peers have one superblock and one master. */
function checkGroup(
  mount: mnt_entry,
  groups: Map<number, mnt_entry>,
  wrong: (field: string, why: string) => void,
): void {
  const { shared_id = 0, master_id = 0, root_dev } = mount;
  if (shared_id === 0) return;
  if (shared_id === master_id) {
    wrong("master_id", "is the group that it is in itself");
  }
  const peer = groups.get(shared_id);
  if (peer === undefined) {
    groups.set(shared_id, mount);
  } else if (peer.root_dev !== root_dev) {
    wrong("root_dev", `differs from that of its peers (group ${shared_id})`);
  } else if ((peer.master_id ?? 0) !== master_id) {
    wrong("master_id", `differs from that of its peers (group ${shared_id})`);
  }
}

function checkExtensions(
  findings: Findings,
  number: number,
  mounts: readonly mnt_entry[],
  deleted: ReadonlySet<number>,
  all: Set<number>,
): void {
  const ids = new Set(mounts.map(({ mnt_id }) => mnt_id));
  const extensions = findings.read("ckpt-mounts", number) ?? [];
  extensions.forEach((extension, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(imageName("ckpt-mounts", number), i, field, why);
    const { detached } = extension;
    if (detached !== undefined) {
      const { mnt_id, root, mountpoint } = detached;
      if (all.has(mnt_id) || mnt_id !== extension.mnt_id) {
        wrong("detached.mnt_id", `${mnt_id} is there twice, or another one`);
      }
      all.add(mnt_id);
      if (!isPath(root)) {
        wrong("detached.root", `${JSON.stringify(root)} is no path`);
      }
      if (mountpoint !== "/") {
        wrong("detached.mountpoint", "is one, though it was unmounted");
      }
    } else if (!ids.delete(extension.mnt_id)) {
      wrong("mnt_id", `${extension.mnt_id} is there twice, or no mount`);
    }
    const { removed } = extension;
    if (removed !== undefined && !deleted.has(removed)) {
      wrong("removed", `${removed} is no mount of what was removed`);
    }
    extension.layers.forEach(({ role, mnt_id, path }, n) => {
      if (!LAYER_ROLES.includes(role)) {
        wrong(`layers[${n}].role`, `${role} is no role of a layer`);
      }
      const isWay = mnt_id === OF_THE_DUMPER
        ? isPath(path)
        : path === "" || isPath(`/${path}`);
      if (!isWay) {
        wrong(`layers[${n}].path`, `${JSON.stringify(path)} is no way`);
      }
    });
    for (const field of ["host_path", "peer_path", "master_path"] as const) {
      const path = extension[field];
      if (path !== undefined && !isPath(path)) {
        wrong(field, `${JSON.stringify(path)} is no path`);
      }
    }
  });
}
