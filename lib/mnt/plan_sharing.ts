/**
 * Plans how mounts become peers and slaves of each other again, masters before
 * their slaves. Where no member of a group shows enough for all others, a helper
 * does. Pure.
 */
import type { ImageMount } from "./image_mounts.ts";
import {
  commonDirectory,
  deviceText,
  isWithin,
  joinPath,
  type Mount,
  relativePath,
} from "./mount.ts";
import type { MountTree } from "./mount_tree.ts";
import { type Operation, YARD } from "./operations.ts";
import type { Providers } from "./providers.ts";
import type { RestoreDraft } from "./restore_draft.ts";
import { type SharingGroup, sharingGroups } from "./sharing.ts";

/** A mount of a peer group, or one that helps it. */
interface Member {
  readonly number: number;
  readonly namespace: number;
  readonly rootHere: string;
  readonly superblock: string;
}

export class SharingPlan {
  /** The calls that make all groups. */
  readonly operations: Operation[] = [];
  /** Mounts that are there for these only, of the tree's and of ckpt's. */
  readonly helpers: Extract<Operation, { kind: "bind" }>[] = [];
  readonly hostHelpers: Extract<Operation, { kind: "clone" }>[] = [];
  #entered: number | undefined;

  constructor(
    readonly mounts: readonly ImageMount[],
    readonly providers: Providers,
    readonly host: MountTree,
    readonly draft: RestoreDraft,
  ) {}

  /** Adds the calls that make all groups, and the helpers these need. */
  plan(): void {
    const groups = sharingGroups(this.mounts);
    const needed = new Map<SharingGroup<ImageMount>, string[]>();
    // Slaves before their masters: each has to be within one of these.
    for (const group of groups.toReversed()) {
      const roots = needed.get(group) ?? [];
      roots.push(
        ...group.members.map((mount) => this.providers.rootHere(mount)),
      );
      needed.set(group, roots);
      if (group.parent === undefined) continue;
      const asked = group.shared === 0 ? roots : [commonDirectory(roots)];
      const above = needed.get(group.parent);
      if (above === undefined) needed.set(group.parent, [...asked]);
      else above.push(...asked);
    }
    const widest = new Map<SharingGroup<ImageMount>, Member>();
    for (const group of groups) {
      if (group.shared !== 0) {
        const member = this.#widestMember(group, needed.get(group)!);
        if (member === undefined) return;
        widest.set(group, member);
      }
    }
    for (const group of groups) {
      const parent = group.parent && widest.get(group.parent);
      if (group.shared === 0) {
        for (const mount of group.members) {
          this.#enter(mount.namespace);
          if (!this.#follow(this.#memberOf(mount), mount, parent)) return;
        }
        continue;
      }
      const first = widest.get(group)!;
      const [told] = group.members;
      this.#enter(first.namespace);
      const peer = group.members.find(({ peerPath }) => peerPath !== undefined);
      if (peer !== undefined) {
        if (!this.#joinHost(first, peer, peer.peerPath)) return;
      } else {
        if (group.master !== 0 && !this.#follow(first, told, parent)) return;
        this.operations.push({ kind: "share", mount: first.number });
      }
      for (const { id } of group.members) {
        if (id === first.number) continue;
        this.operations.push({ kind: "join", mount: id, from: first.number });
      }
    }
  }

  /** Flags of propagation are set from inside the namespace of a mount. */
  #enter(namespace: number): void {
    if (this.#entered === namespace) return;
    this.#entered = namespace;
    this.operations.push({ kind: "enter", namespace });
  }

  #memberOf(mount: ImageMount): Member {
    return {
      number: mount.id,
      namespace: mount.namespace,
      rootHere: this.providers.rootHere(mount),
      superblock: this.providers.of(mount).superblock,
    };
  }

  /** The member that all of the roots are within, or a helper that is. */
  #widestMember(
    { members }: SharingGroup<ImageMount>,
    roots: readonly string[],
  ): Member | undefined {
    const superblocks = new Set(
      members.map((mount) => this.providers.of(mount).superblock),
    );
    if (superblocks.size > 1) {
      this.draft.refuse(
        members[0],
        "its peers are taken from different file systems now",
        "take them from one, as they were",
      );
      return undefined;
    }
    const wide = members.find((mount) => {
      const rootHere = this.providers.rootHere(mount);
      return roots.every((root) =>
        mount.deleted ? root === rootHere : isWithin(root, rootHere)
      );
    });
    if (wide !== undefined) return this.#memberOf(wide);
    const [superblock] = superblocks;
    return this.#helper(members[0], superblock, commonDirectory(roots));
  }

  /** A mount that is there for its peers only, and ends with the yard. */
  #helper(
    mount: ImageMount,
    superblock: string,
    rootHere: string,
  ): Member | undefined {
    const number = this.draft.newNumber();
    const helper = { number, namespace: YARD, rootHere, superblock };
    const provider = this.providers.all.find((provider) =>
      provider.superblock === superblock &&
      isWithin(rootHere, provider.rootHere)
    );
    if (provider !== undefined) {
      provider.kept = true;
      this.helpers.push({
        kind: "bind",
        mount: number,
        from: provider.number,
        path: relativePath(rootHere, provider.rootHere),
      });
      return helper;
    }
    for (const wide of this.host.mounts) {
      if (
        superblock !== `host ${wide.device}` || !isWithin(rootHere, wide.root)
      ) continue;
      const path = joinPath(wide.point, relativePath(rootHere, wide.root));
      if (this.host.lookup(path) !== wide) continue;
      this.hostHelpers.push({ kind: "clone", mount: number, path });
      return helper;
    }
    this.draft.refuse(
      mount,
      `it and its peers (group ${mount.shared}) are parts of ${rootHere} of ` +
        "their file system, and nothing that shows all of it is mounted here",
      "mount that file system where ckpt runs",
    );
    return undefined;
  }

  /** Makes a mount slave of a group. */
  #follow(
    follower: Member,
    told: ImageMount,
    parent: Member | undefined,
  ): boolean {
    if (parent === undefined) {
      if (!this.#joinHost(follower, told, told.masterPath)) return false;
    } else if (parent.superblock !== follower.superblock) {
      this.draft.refuse(
        told,
        "it and the mounts it is a slave of are taken from different file " +
          "systems now",
        "take them from one, as they were",
      );
      return false;
    } else {
      this.operations.push({
        kind: "join",
        mount: follower.number,
        from: parent.number,
      });
    }
    this.operations.push({ kind: "slave", mount: follower.number });
    return true;
  }

  /** Takes the group of a mount of the outside, which has to be the right one. */
  #joinHost(
    { number, rootHere, superblock }: Member,
    told: ImageMount,
    recorded: string | undefined,
  ): boolean {
    const { place } = this.providers.of(told);
    const candidates = [
      ...recorded === undefined
        ? []
        : this.host.mounts.filter((mount) =>
          mount.point === recorded && !this.host.isCovered(mount)
        ),
      ...place === undefined ? [] : [place.mount],
    ];
    const found = candidates.find((mount) =>
      (mount.shared !== 0 || mount.master !== 0) &&
      superblock === `host ${mount.device}` && isWithin(rootHere, mount.root)
    );
    if (found === undefined) {
      this.draft.refuse(
        told,
        "it gets its mounts from outside of the image, and " +
          (candidates.length === 0
            ? "nothing says from where"
            : `${candidates.map(describeHost).join(", ")} cannot be joined`),
        `mount ${recorded ?? place?.path ?? "it"} as it was at the dump ` +
          "(shared), or take the mount from one that is: --external, --root",
      );
      return false;
    }
    this.operations.push({
      kind: "join host",
      mount: number,
      host: found.id,
      path: found.point,
    });
    return true;
  }
}

function describeHost({ id, point, device, root, shared }: Mount): string {
  return `the host's mount ${id} at ${point} (${deviceText(device)}, ${root}, ${
    shared === 0 ? "not shared" : `shared:${shared}`
  })`;
}
