/**
 * Decides for every mount of a tree how it will come back: from the directory
 * that is the new root, from the outside, as a new superblock, or as a bind of
 * one of these. Pure; finds all that is in the way, and which options help.
 */
import type { Reason } from "../error.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { type Automatic, deviceName, type ExternalMounts } from "./external.ts";
import { type FileSystemType, freshType } from "./file_system_types.ts";
import {
  describeMount,
  deviceText,
  isWithin,
  type Mount,
  mountOf,
  unknownMountOptions,
} from "./mount.ts";
import { MountTree } from "./mount_tree.ts";
import type { FoundLayers, Layer } from "./overlay_layers.ts";
import { mountsShowing, nearestPath } from "./shown_elsewhere.ts";

/** How a mount comes back. */
export type Origin =
  /** The root of the first namespace: the directory of `--root`. */
  | { readonly kind: "root" }
  /** What the restore is told to take for that name. */
  | { readonly kind: "named"; readonly name: string }
  /** What ckpt's own namespace has there. */
  | { readonly kind: "automatic"; readonly path: string }
  /** A file system on a device that the restore is told. */
  | { readonly kind: "device"; readonly name: string }
  /** A part of one of those that come from the outside. */
  | { readonly kind: "part" }
  /** A new superblock, or a part of one. */
  | { readonly kind: "fresh"; readonly type: FileSystemType }
  /** An overlay of directories that come back. */
  | { readonly kind: "overlay"; readonly layers: readonly Layer[] };

export interface PlannedMount {
  readonly mount: Mount;
  readonly origin: Origin;
  /** Where ckpt's own namespace has the same directory or file. */
  readonly hostPath?: string;
  /** A mount point of ckpt's own namespace, of a mount that is its peer. */
  readonly peerPath?: string;
  /** ... of one in the group that it is a slave of. */
  readonly masterPath?: string;
  /** Of one that is deleted: the mount by which that is saved. */
  readonly removed?: number;
}

/** A superblock that goes into the image. */
export interface SavedSuperblock {
  readonly device: number;
  readonly type: string;
  /** Those that show all that is shown of it, no part twice. */
  readonly mounts: readonly Mount[];
}

export interface MountsPlan {
  readonly mounts: readonly PlannedMount[];
  readonly superblocks: readonly SavedSuperblock[];
  readonly reasons: readonly Reason[];
  /** As they are typed. */
  readonly neededOptions: readonly string[];
}

export interface NamespaceMounts {
  /** Its number in the images. */
  readonly number: number;
  /** All of it, as seen from its root. */
  readonly mounts: readonly MountInfo[];
}

/**
 * @param namespaces that of the root of the tree first
 * @param host ckpt's own mounts
 * @param overlays what is known of those that the tree alone has, by device
 */
export function planMounts(
  namespaces: readonly NamespaceMounts[],
  host: readonly MountInfo[],
  external: ExternalMounts,
  overlays: ReadonlyMap<number, FoundLayers> = new Map(),
): MountsPlan {
  return new Planner(
    namespaces,
    host.map((info) => mountOf(info, 0)),
    external,
    overlays,
  ).plan();
}

class Planner {
  readonly #trees: readonly MountTree[];
  readonly #mounts: readonly Mount[];
  readonly #root: Mount | undefined;
  readonly #host: MountTree;
  readonly #hostByDevice: ReadonlyMap<number, readonly Mount[]>;
  readonly #hostByGroup: ReadonlyMap<number, readonly Mount[]>;
  readonly #groups: ReadonlySet<number>;
  readonly #origins = new Map<Mount, Origin>();
  /** Those that are taken from the outside, but for the root. */
  readonly #outside: Mount[] = [];
  readonly #reasons: Reason[] = [];
  readonly #needed = new Set<string>();
  readonly #names = new Set<string>();

  constructor(
    namespaces: readonly NamespaceMounts[],
    host: readonly Mount[],
    readonly external: ExternalMounts,
    readonly overlays: ReadonlyMap<number, FoundLayers>,
  ) {
    this.#reasons.push(...external.reasons);
    this.#trees = namespaces.map(({ number, mounts }) =>
      new MountTree(mounts.map((info) => {
        const mount = mountOf(info, number);
        this.#refuseUnknown(info, mount);
        return mount;
      }))
    );
    this.#mounts = this.#trees.flatMap(({ mounts }) => mounts);
    this.#root = this.#trees[0]?.root;
    this.#host = new MountTree(host);
    this.#hostByDevice = Map.groupBy(host, ({ device }) => device);
    this.#hostByGroup = Map.groupBy(host, ({ shared }) => shared);
    this.#groups = new Set(this.#mounts.map(({ shared }) => shared));
    for (const name of external.mounts.values()) this.#names.add(name);
  }

  plan(): MountsPlan {
    for (const tree of this.#trees) this.#checkTree(tree);
    for (const tree of this.#trees) this.#chooseOutside(tree);
    for (const mount of this.#mounts) this.#chooseInside(mount);
    for (const mount of this.#mounts) this.#checkHandles(mount);
    const mounts = this.#mounts.flatMap((mount): PlannedMount[] => {
      const origin = this.#origins.get(mount);
      return origin === undefined ? [] : [{
        mount,
        origin,
        hostPath: origin.kind === "root"
          ? this.#hostPath(mount, this.#onHost(mount))
          : undefined,
        ...this.#outsideGroups(mount, origin),
      }];
    });
    this.#refuseUnknownKeys();
    return {
      mounts,
      superblocks: savedSuperblocks(mounts),
      reasons: this.#reasons,
      neededOptions: [...this.#needed],
    };
  }

  #refuse(mount: Mount, why: string, remedy?: string): void {
    this.#reasons.push({ object: describeMount(mount), why, remedy });
  }

  #refuseUnknown(info: MountInfo, mount: Mount): void {
    for (const option of unknownMountOptions(info)) {
      this.#refuse(mount, `its option ${option} is not supported`);
    }
    for (const tag of info.otherTags) {
      this.#refuse(mount, `its tag ${tag} is not known`);
    }
  }

  #checkTree({ root, lost, twins, mounts }: MountTree): void {
    if (root === undefined && mounts.length > 0) {
      this.#refuse(mounts[0], "its namespace has no mount at /");
    }
    for (const mount of lost) {
      this.#refuse(mount, `there is no mount ${mount.parent} it could be on`);
    }
    for (const mount of twins) {
      this.#refuse(mount, "another mount has the same parent and mount point");
    }
  }

  /** The root, and what the user names, or lets ckpt find. */
  #chooseOutside(tree: MountTree): void {
    for (const mount of tree.mounts) {
      if (mount === this.#root) {
        this.#origins.set(mount, { kind: "root" });
        continue;
      }
      const name = this.#nameOf(mount, tree);
      if (name !== undefined) {
        this.#takeOutside(mount, { kind: "named", name });
      } else if (!this.#isPartOfRoot(mount)) {
        const path = this.#automaticPath(mount);
        if (path !== undefined) {
          this.#takeOutside(mount, { kind: "automatic", path });
        }
      }
    }
  }

  #takeOutside(mount: Mount, origin: Origin): void {
    this.#origins.set(mount, origin);
    this.#outside.push(mount);
  }

  /** By its mount point in the first namespace, or by its id in any. */
  #nameOf(mount: Mount, tree: MountTree): string | undefined {
    const { mounts } = this.external;
    return mounts.get(`#${mount.id}`) ??
      (tree === this.#trees[0] && mounts.has(mount.point) &&
          !tree.isCovered(mount)
        ? mounts.get(mount.point)
        : undefined);
  }

  #isPartOfRoot({ device, root }: Mount): boolean {
    const top = this.#root;
    return top !== undefined && device === top.device &&
      isWithin(root, top.root);
  }

  #isPartOf(mount: Mount, other: Mount): boolean {
    return mount.device === other.device && isWithin(mount.root, other.root);
  }

  /** Mounts of ckpt's own that show what a mount does, and paths lead to. */
  #onHost(mount: Mount): Mount[] {
    return mountsShowing(
      mount,
      this.#hostByDevice.get(mount.device) ?? [],
      this.#host,
    );
  }

  #hostPath(mount: Mount, hosts: readonly Mount[]): string | undefined {
    return nearestPath(mount, hosts, this.#host);
  }

  #automaticPath(mount: Mount): string | undefined {
    const { automatic } = this.external;
    if (automatic === undefined || mount.deleted) return undefined;
    const isShared = mount.shared !== 0 && this.#isPeerOfHost(mount);
    const isSlave = this.#isSlaveOfOutside(mount);
    if (!mayBeTaken({ isShared, isSlave }, automatic)) return undefined;
    const hosts = this.#onHost(mount);
    const alike = hosts.filter(({ shared }) =>
      isShared && shared === mount.shared ||
      isSlave && shared === mount.master
    );
    return this.#hostPath(mount, alike.length > 0 ? alike : hosts);
  }

  #isPeerOfHost({ shared }: Mount): boolean {
    return shared !== 0 && this.#hostByGroup.has(shared);
  }

  #isSlaveOfOutside({ master }: Mount): boolean {
    return master !== 0 && !this.#groups.has(master);
  }

  /** All others: parts of what comes from the outside, or made anew. */
  #chooseInside(mount: Mount): void {
    if (this.#origins.has(mount)) return;
    if (this.#isPartOfOutside(mount)) {
      this.#origins.set(mount, { kind: "part" });
      return;
    }
    const name = deviceName(this.external, mount.device);
    const type = freshType(mount.type);
    if (type === undefined && name !== undefined) {
      this.#origins.set(mount, { kind: "device", name });
      return;
    }
    const overlay = mount.type === "overlay"
      ? this.overlays.get(mount.device)
      : undefined;
    if (mount.deleted && type?.hasContent !== true) {
      this.#needExternal(
        mount,
        "what it shows was removed, and its file system is not part of the image",
      );
    } else if (overlay !== undefined && "why" in overlay) {
      this.#needExternal(mount, overlay.why, overlay.remedy);
    } else if (
      type === undefined && overlay === undefined ||
      !mount.root.startsWith("/")
    ) {
      this.#needExternal(mount, "ckpt cannot mount this by itself");
    } else if (
      (type === undefined || type.fresh === "own") && mount.type !== "proc" &&
      this.#hostByDevice.has(mount.device)
    ) {
      this.#needExternal(
        mount,
        "processes outside use this file system, too: a new one would not be " +
          "the same",
      );
    } else if (this.#isPeerOfHost(mount) || this.#isSlaveOfOutside(mount)) {
      this.#needExternal(
        mount,
        "it shares its mounts with the outside (peer group " +
          `${this.#isPeerOfHost(mount) ? mount.shared : mount.master})`,
      );
    } else if (overlay !== undefined) {
      this.#origins.set(mount, { kind: "overlay", layers: overlay.layers });
    } else if (type !== undefined) {
      this.#origins.set(mount, { kind: "fresh", type });
    }
  }

  /** An overlay that knows its lower files by handles wants those it had. */
  #checkHandles(mount: Mount): void {
    const origin = this.#origins.get(mount);
    if (origin?.kind !== "overlay") return;
    const option = mount.options.find((option) =>
      option === "index=on" || option === "nfs_export=on"
    );
    const isNew = origin.layers.some((layer) => {
      const below = this.#mounts.find(({ id }) => id === layer.mount);
      return below !== undefined && this.#origins.get(below)?.kind === "fresh";
    });
    if (option === undefined || !isNew) return;
    this.#refuse(
      mount,
      `with ${option} it knows files of its layers by handles, which are ` +
        "other ones in a file system that is made anew",
      "mount it without that option",
    );
  }

  #isPartOfOutside(mount: Mount): boolean {
    if (this.#isPartOfRoot(mount)) return true;
    return this.#outside.some((other) => this.#isPartOf(mount, other));
  }

  /** @param other an option that may be of help instead */
  #needExternal(mount: Mount, why: string, other?: string): void {
    const key = this.#keyOf(mount);
    const name = this.#newName(mount);
    const hostPath = this.#hostPath(mount, this.#onHost(mount));
    const option = `--external mnt[${key}]:${name}`;
    const device = mount.root === "/" && mount.source.startsWith("/dev/")
      ? `, or --external dev[${
        deviceText(mount.device).replace(":", "/")
      }]:${name} and at the restore --external dev[${name}]:${mount.source}`
      : "";
    this.#needed.add(option);
    this.#refuse(
      mount,
      why,
      `${option}, and at the restore --external mnt[${name}]:${
        hostPath ?? "PATH"
      }${device}${other === undefined ? "" : `; or ${other}`}`,
    );
  }

  #keyOf(mount: Mount): string {
    const [first] = this.#trees;
    return mount.namespace === this.#root?.namespace && !first.isCovered(mount)
      ? mount.point
      : `#${mount.id}`;
  }

  /** "dev-pts" */
  #newName({ point, id }: Mount): string {
    const plain = point.slice(1).replace(/[^A-Za-z0-9_.]+/g, "-") || "root";
    const name = this.#names.has(plain) ? `${plain}-${id}` : plain;
    this.#names.add(name);
    return name;
  }

  /** Where the restore finds the groups that are of the outside. */
  #outsideGroups(
    mount: Mount,
    origin: Origin,
  ): Pick<PlannedMount, "peerPath" | "masterPath"> {
    if (this.#isPeerOfHost(mount)) {
      return { peerPath: this.#groupPath(mount, mount.shared) };
    }
    if (!this.#isSlaveOfOutside(mount)) return {};
    const masterPath = this.#groupPath(mount, mount.master);
    if (masterPath === undefined && origin.kind !== "fresh") {
      this.#refuse(
        mount,
        `it receives mounts from peer group ${mount.master}, and no mount of ` +
          "ckpt's own namespace is in that",
        "run ckpt in the mount namespace that the mounts come from",
      );
    }
    return { masterPath };
  }

  #groupPath(mount: Mount, group: number): string | undefined {
    const members = (this.#hostByGroup.get(group) ?? []).filter((host) =>
      !this.#host.isCovered(host)
    );
    return (members.find((host) => this.#isPartOf(mount, host)) ?? members[0])
      ?.point;
  }

  /** A typing error shall not go unnoticed. */
  #refuseUnknownKeys(): void {
    const named = [...this.#origins.values()].flatMap((origin) =>
      origin.kind === "named" ? [origin.name] : []
    );
    for (const [key, name] of this.external.mounts) {
      if (named.includes(name)) continue;
      this.#reasons.push({
        object: `--external mnt[${key}]:${name}`,
        why: "the program has no such mount, or its root is there",
        remedy: "name a mount point as the program sees it, or leave it out",
      });
    }
  }
}

function mayBeTaken(
  { isShared, isSlave }: { isShared: boolean; isSlave: boolean },
  { shared, masters }: Automatic,
): boolean {
  return (!isShared || shared) && (!isSlave || masters);
}

function savedSuperblocks(mounts: readonly PlannedMount[]): SavedSuperblock[] {
  const saved = mounts.flatMap(({ mount, origin }) =>
    origin.kind === "fresh" && origin.type.hasContent && !mount.deleted
      ? [mount]
      : []
  );
  return [...Map.groupBy(saved, ({ device }) => device)].map(
    ([device, mounts]) => ({
      device,
      type: mounts[0].type,
      mounts: mounts.toSorted((a, b) => a.root.length - b.root.length)
        .reduce<Mount[]>(
          (widest, mount) =>
            widest.some(({ root }) => isWithin(mount.root, root))
              ? widest
              : [...widest, mount],
          [],
        ),
    }),
  );
}
