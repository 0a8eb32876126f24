/**
 * Plans how mount namespaces are made: each superblock once, in a yard; from
 * there every mount is cloned, and they are put together from the root to the
 * leaves while all of them are private. Peer groups come last, masters before
 * their slaves. Pure.
 */
import type { Reason } from "../error.ts";
import { freshType } from "./file_system_types.ts";
import {
  commonDirectory,
  describeMount,
  deviceText,
  isWithin,
  joinPath,
  type Mount,
  MS,
  relativePath,
} from "./mount.ts";
import { MountTree } from "./mount_tree.ts";
import { type MadeLayer, type Operation, YARD } from "./operations.ts";
import { type Layer, OUTSIDE } from "./overlay_layers.ts";
import { type SharingGroup, sharingGroups } from "./sharing.ts";

/** A mount as an image tells of it. */
export interface ImageMount extends Mount {
  /** How it comes from the outside, where it does. */
  readonly external?:
    /** What `--external mnt[NAME]:PATH` says. */
    | { readonly kind: "named"; readonly name: string }
    /** The path that the dump found, if the restore may take it. */
    | { readonly kind: "automatic"; readonly path: string }
    /** What `--external dev[NAME]:PATH` says. */
    | { readonly kind: "device"; readonly name: string };
  readonly hostPath?: string;
  readonly peerPath?: string;
  readonly masterPath?: string;
  /** Of an overlay. */
  readonly layers?: readonly Layer[];
  /** Of one that is deleted: the mount whose archive holds what it shows. */
  readonly removed?: number;
}

export interface NamespaceImage {
  /** mnt_ns_id */
  readonly number: number;
  /** In the order that mountinfo showed. */
  readonly mounts: readonly ImageMount[];
  /** Those that were unmounted, and have files of the tree. */
  readonly detached?: readonly ImageMount[];
}

/** What a path of ckpt's own namespace leads to. */
export interface HostPlace {
  readonly path: string;
  readonly mount: Mount;
  /** The way from the root of its superblock. */
  readonly root: string;
}

export interface RestoreMountsInput {
  /** That of the root of the tree first. */
  readonly namespaces: readonly NamespaceImage[];
  /** As given; what becomes the root of the first namespace. */
  readonly root?: string;
  /** Paths by the names of `--external mnt[NAME]:PATH`. */
  readonly mounts: ReadonlyMap<string, string>;
  /** The same for `dev[NAME]`. */
  readonly devices: ReadonlyMap<string, string>;
  /** Whether `--external mnt[]` was given. */
  readonly automatic: boolean;
  /** Whether layers of overlays may be others than at the dump. */
  readonly trustsOverlays?: boolean;
  /** ckpt's own mounts. */
  readonly host: readonly Mount[];
  /** Undefined: there is nothing. */
  place(path: string): HostPlace | undefined;
  /** Files of the tree, so far as they are on mounts of the image. */
  readonly files: readonly PlacedFile[];
  /** Whether the image holds what was in a superblock, by its device. */
  hasContent(device: number): boolean;
}

/** A file of files.img. */
export interface PlacedFile {
  readonly id: number;
  readonly name: string;
  readonly mount: number;
  /** It has no name any more: its directory is needed. */
  readonly isNameless: boolean;
}

export interface RestoreMountsPlan {
  readonly operations: readonly Operation[];
  readonly reasons: readonly Reason[];
}

export function planRestoreOfMounts(
  input: RestoreMountsInput,
): RestoreMountsPlan {
  return new Planner(input).plan();
}

/** Where mounts of one superblock are cloned from. */
interface Provider {
  /** Its number among the operations. */
  readonly number: number;
  /** The superblock as it will be: the same text for the same one. */
  readonly superblock: string;
  /** The directory of it that the provider shows, as the image calls it ... */
  readonly root: string;
  /** ... and as it is called here. */
  readonly rootHere: string;
  /** Of one from the outside. */
  readonly place: HostPlace | undefined;
  /** What makes it. */
  readonly make: readonly Operation[];
  /** Mounts are cloned from it, instead of the one that it would become. */
  kept: boolean;
  /** The mount that it becomes itself, unless it is kept. */
  readonly of: ImageMount | undefined;
}

class Planner {
  readonly #mounts: readonly ImageMount[];
  readonly #trees: readonly MountTree<ImageMount>[];
  readonly #root: ImageMount | undefined;
  readonly #reasons: Reason[] = [];
  readonly #providers: Provider[] = [];
  /** Those of them that come from the outside. */
  readonly #outside: Provider[] = [];
  readonly #providerOf = new Map<ImageMount, Provider>();
  readonly #fresh = new Map<string, Provider>();
  readonly #sharing: Operation[] = [];
  readonly #host: MountTree;
  #nextNumber: number;
  #entered: number | undefined;

  constructor(readonly input: RestoreMountsInput) {
    this.#trees = input.namespaces.map(({ mounts }) => new MountTree(mounts));
    this.#mounts = input.namespaces.flatMap((
      { mounts, detached = [] },
    ) => [...mounts, ...detached]);
    this.#root = this.#trees[0]?.root;
    this.#host = new MountTree(input.host);
    this.#nextNumber = this.#mounts.reduce(
      (most, { id }) => Math.max(most, id),
      0,
    ) + 1;
  }

  plan(): RestoreMountsPlan {
    for (const mount of this.#mounts) this.#provideFromOutside(mount);
    for (const mount of this.#mounts) {
      if (!this.#providerOf.has(mount)) this.#provide(mount);
    }
    if (this.#reasons.length === 0) this.#share();
    for (const file of this.input.files) this.#open(file);
    if (this.#reasons.length > 0) {
      return { operations: [], reasons: this.#reasons };
    }
    return { operations: this.#operations(), reasons: [] };
  }

  #refuse(mount: ImageMount, why: string, remedy?: string): void {
    this.#reasons.push({ object: describeMount(mount), why, remedy });
  }

  /** The root, and what --external names. */
  #provideFromOutside(mount: ImageMount): void {
    const path = this.#outsidePath(mount);
    if (path === undefined) return;
    const place = this.input.place(path);
    if (place === undefined) {
      this.#refuse(mount, `there is no ${path} to take for it`);
      return;
    }
    const provider = this.#provideWith(
      mount,
      {
        superblock: `host ${place.mount.device}`,
        root: mount.root,
        rootHere: place.root,
        place,
      },
      (number) => [{ kind: "clone", mount: number, path }],
      mount,
    );
    // It is there before all mounts, which come in their order.
    provider.kept = true;
    this.#outside.push(provider);
  }

  #outsidePath(mount: ImageMount): string | undefined {
    const { root, mounts, automatic } = this.input;
    if (mount === this.#root) {
      const path = root ?? mount.hostPath;
      const type = freshType(mount.type);
      const comesBack = type !== undefined &&
        (!type.hasContent || this.input.hasContent(mount.device));
      if (path === undefined && !comesBack) {
        this.#refuse(
          mount,
          "it is the root of the program, and the image does not say where " +
            "it is",
          "name the directory: --root DIR",
        );
      }
      return path;
    }
    switch (mount.external?.kind) {
      case "named": {
        const { name } = mount.external;
        const path = mounts.get(name);
        if (path === undefined) {
          this.#refuse(
            mount,
            "it comes from outside of the image",
            `--external mnt[${name}]:PATH`,
          );
        }
        return path;
      }
      case "automatic":
        if (!automatic) {
          this.#refuse(
            mount,
            `it comes from outside of the image: from ${mount.external.path}`,
            "--external mnt[]",
          );
        }
        return mount.external.path;
      default:
        return undefined;
    }
  }

  #provideWith(
    mount: ImageMount,
    provider: Pick<Provider, "superblock" | "root" | "rootHere" | "place">,
    make: (number: number) => readonly Operation[],
    of: ImageMount | undefined,
  ): Provider {
    const number = this.#nextNumber++;
    const made = { ...provider, number, make: make(number), kept: false, of };
    this.#providers.push(made);
    this.#providerOf.set(mount, made);
    return made;
  }

  /** A part of what comes from the outside, or of a new superblock. */
  #provide(mount: ImageMount): void {
    if (this.#isRefused(mount)) return;
    const outside = this.#outside.find((provider) =>
      provider.of!.device === mount.device &&
      isWithin(mount.root, provider.root)
    );
    const provider = outside ?? this.#freshProvider(mount);
    if (provider === undefined) return;
    this.#providerOf.set(mount, provider);
    if (provider.of !== mount) provider.kept = true;
    if (mount.deleted) this.#remake(mount, provider);
  }

  /** What is made again, by the mounts whose archives hold it. */
  readonly #remade = new Map<number, Extract<Operation, { kind: "remake" }>>();

  #remake(mount: ImageMount, provider: Provider): void {
    const { removed, root } = mount;
    if (removed === undefined) {
      this.#refuse(
        mount,
        "what it shows was removed, and the image does not hold it",
        "dump with ckpt",
      );
    } else if (!this.#remade.has(removed)) {
      this.#remade.set(removed, {
        kind: "remake",
        mount: this.#nextNumber++,
        from: provider.number,
        of: removed,
        path: relativePath(root, provider.root),
        isOutside: provider.place !== undefined,
      });
    }
  }

  /** What was to come from the outside and does not was told already. */
  #isRefused(mount: ImageMount): boolean {
    const { external } = mount;
    return external?.kind === "named" || external?.kind === "automatic" ||
      mount === this.#root && this.#reasons.length > 0;
  }

  #freshProvider(mount: ImageMount): Provider | undefined {
    const { device, type, external, layers = [] } = mount;
    const known = freshType(type);
    const isOwn = known === undefined || known.fresh === "own";
    // Each mount of those that there is one of has a source of its own.
    const key = isOwn ? `new ${device}` : `${type} ${device} ${mount.source}`;
    const made = this.#fresh.get(key);
    if (made !== undefined) return made;
    const source = external?.kind === "device"
      ? this.input.devices.get(external.name)
      : mount.source;
    if (source === undefined) {
      this.#refuse(
        mount,
        "the device it is on is not part of the image",
        `--external dev[${(external as { name: string }).name}]:DEVICE`,
      );
      return undefined;
    }
    if (
      !mount.root.startsWith("/") ||
      known === undefined && external?.kind !== "device" &&
        layers.length === 0
    ) {
      this.#refuse(
        mount,
        "nothing in the image says where it comes from",
        "dump again with --external mnt[" + mount.point + "]:NAME",
      );
      return undefined;
    }
    const below = this.#layersOf(mount);
    if (below === undefined) return undefined;
    const provider = this.#provideWith(
      mount,
      {
        superblock: isOwn ? key : `${type} ${device}`,
        root: "/",
        rootHere: "/",
        place: undefined,
      },
      (number) => this.#create(mount, number, source, below),
      mount.root === "/" && !mount.deleted ? mount : undefined,
    );
    this.#fresh.set(key, provider);
    // To be filled it has to be there before the mounts, which come in order;
    // and devices are only found in ckpt's own namespace.
    provider.kept = provider.make.length > 1 || below.length > 0 ||
      external?.kind === "device";
    return provider;
  }

  readonly #layered = new Set<ImageMount>();

  /** What provides the layers comes first. Undefined: something does not come. */
  #layersOf(mount: ImageMount): MadeLayer[] | undefined {
    const { layers = [] } = mount;
    if (this.#layered.has(mount)) {
      this.#refuse(mount, "it is a layer of itself");
      return undefined;
    }
    this.#layered.add(mount);
    const made: MadeLayer[] = [];
    for (const { role, mount: id, path, handle } of layers) {
      if (id === OUTSIDE) {
        const layer = this.#layerOutside(mount, role, path);
        if (layer === undefined) return undefined;
        made.push({ ...layer, ...this.#expected(handle, path) });
        continue;
      }
      const below = this.#mounts.find((other) => other.id === id);
      if (below === undefined) {
        this.#refuse(
          mount,
          `its ${role} layer is on mount ${id}, which the image does not have`,
        );
        return undefined;
      }
      if (!this.#providerOf.has(below)) this.#provide(below);
      const provider = this.#providerOf.get(below);
      if (provider === undefined) {
        this.#refuse(mount, `its ${role} layer is on ${describeMount(below)}`);
        return undefined;
      }
      provider.kept = true;
      made.push({
        role,
        from: provider.number,
        path: relativePath(joinPath(below.root, path), provider.root),
        ...this.#isWhereItWas(provider) &&
          this.#expected(handle, joinPath(below.point, path)),
      });
    }
    return made;
  }

  #expected(
    handle: Layer["handle"],
    path: string,
  ): Pick<MadeLayer, "expected"> {
    return this.input.trustsOverlays || handle === undefined
      ? {}
      : { expected: { handle, path } };
  }

  /** Whether it comes from the outside, and nobody said from where. */
  #isWhereItWas({ of, place }: Provider): boolean {
    if (place === undefined) return false;
    return of === this.#root
      ? this.input.root === undefined
      : of?.external?.kind === "automatic";
  }

  /** Clones of ckpt's own mounts that have layers, by the ids of these. */
  readonly #layerClones = new Map<
    number,
    Extract<Operation, { kind: "clone" }>
  >();

  /** The upper layer and its work have to be reached by one mount. */
  #layerOutside(
    mount: ImageMount,
    role: Layer["role"],
    path: string,
  ): MadeLayer | undefined {
    const place = this.input.place(path);
    if (place === undefined) {
      this.#refuse(mount, `its ${role} layer ${path} is not there any more`);
      return undefined;
    }
    const { id, point, root } = place.mount;
    let clone = this.#layerClones.get(id);
    if (clone === undefined) {
      clone = { kind: "clone", mount: this.#nextNumber++, path: point };
      this.#layerClones.set(id, clone);
    }
    return { role, from: clone.mount, path: relativePath(place.root, root) };
  }

  #create(
    mount: ImageMount,
    number: number,
    source: string,
    layers: readonly MadeLayer[],
  ): Operation[] {
    const { type, options, superFlags, device } = mount;
    if (layers.length > 0) {
      return [{
        kind: "overlay",
        mount: number,
        of: mount.id,
        source,
        options,
        superFlags,
        layers,
      }];
    }
    const known = freshType(type);
    const fills = known?.hasContent === true && this.input.hasContent(device);
    const isReadOnly = (superFlags & MS.RDONLY) !== 0;
    const create: Operation = {
      kind: "create",
      mount: number,
      type,
      source,
      // Others use it, too.
      options: known?.fresh === "kernel" ? [] : options,
      superFlags: known?.fresh === "kernel"
        ? 0
        : fills
        ? superFlags & ~MS.RDONLY
        : superFlags,
    };
    if (!fills) return [create];
    return [
      create,
      { kind: "fill", mount: number, device },
      ...isReadOnly ? [{ kind: "seal", mount: number } as const] : [],
    ];
  }

  readonly #openings: Operation[] = [];

  get #byId(): ReadonlyMap<number, ImageMount> {
    return this.#mountsById ??= new Map(
      this.#mounts.map((mount) => [mount.id, mount]),
    );
  }
  #mountsById: ReadonlyMap<number, ImageMount> | undefined;

  /** What no path will lead to is opened before anything can be over it. */
  #open({ id, name, mount: number, isNameless }: PlacedFile): void {
    const mount = this.#byId.get(number);
    if (mount === undefined) return;
    const tree = this.#trees.find(({ byId }) => byId.has(number));
    if (tree?.lookup(name) === mount) return;
    if (!isWithin(name, mount.point)) {
      this.#refuse(mount, `file ${name} is said to be on it, and is not below`);
      return;
    }
    const path = relativePath(name, mount.point);
    this.#openings.push({
      kind: "open",
      file: id,
      mount: number,
      path: isNameless
        ? path.slice(0, Math.max(0, path.lastIndexOf("/")))
        : path,
    });
  }

  /** Where a mount will be in its superblock. */
  #rootHere(mount: ImageMount): string {
    const { root, rootHere } = this.#providerOf.get(mount)!;
    return joinPath(rootHere, relativePath(mount.root, root));
  }

  /** Adds the calls that make all groups, and the helpers these need. */
  #share(): void {
    const groups = sharingGroups(this.#mounts);
    const needed = new Map<SharingGroup<ImageMount>, string[]>();
    // Slaves before their masters: each has to be within one of these.
    for (const group of groups.toReversed()) {
      const roots = needed.get(group) ?? [];
      roots.push(...group.members.map((mount) => this.#rootHere(mount)));
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
        this.#sharing.push({ kind: "share", mount: first.number });
      }
      for (const { id } of group.members) {
        if (id === first.number) continue;
        this.#sharing.push({ kind: "join", mount: id, from: first.number });
      }
    }
  }

  /** Flags of propagation are set from inside the namespace of a mount. */
  #enter(namespace: number): void {
    if (this.#entered === namespace) return;
    this.#entered = namespace;
    this.#sharing.push({ kind: "enter", namespace });
  }

  #memberOf(mount: ImageMount): Member {
    return {
      number: mount.id,
      namespace: mount.namespace,
      rootHere: this.#rootHere(mount),
      superblock: this.#providerOf.get(mount)!.superblock,
    };
  }

  /** The member that all of the roots are within, or a helper that is. */
  #widestMember(
    { members }: SharingGroup<ImageMount>,
    roots: readonly string[],
  ): Member | undefined {
    const superblocks = new Set(
      members.map((mount) => this.#providerOf.get(mount)!.superblock),
    );
    if (superblocks.size > 1) {
      this.#refuse(
        members[0],
        "its peers are taken from different file systems now",
        "take them from one, as they were",
      );
      return undefined;
    }
    const wide = members.find((mount) => {
      const rootHere = this.#rootHere(mount);
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
    const number = this.#nextNumber++;
    const helper = { number, namespace: YARD, rootHere, superblock };
    const provider = this.#providers.find((provider) =>
      provider.superblock === superblock &&
      isWithin(rootHere, provider.rootHere)
    );
    if (provider !== undefined) {
      provider.kept = true;
      this.#helpers.push({
        kind: "bind",
        mount: number,
        from: provider.number,
        path: relativePath(rootHere, provider.rootHere),
      });
      return helper;
    }
    for (const wide of this.#host.mounts) {
      if (
        superblock !== `host ${wide.device}` || !isWithin(rootHere, wide.root)
      ) continue;
      const path = joinPath(wide.point, relativePath(rootHere, wide.root));
      if (this.#host.lookup(path) !== wide) continue;
      this.#hostHelpers.push({ kind: "clone", mount: number, path });
      return helper;
    }
    this.#refuse(
      mount,
      `it and its peers (group ${mount.shared}) are parts of ${rootHere} of ` +
        "their file system, and nothing that shows all of it is mounted here",
      "mount that file system where ckpt runs",
    );
    return undefined;
  }

  readonly #helpers: Extract<Operation, { kind: "bind" }>[] = [];
  readonly #hostHelpers: Extract<Operation, { kind: "clone" }>[] = [];

  /** Makes a mount slave of a group. */
  #follow(
    follower: Member,
    told: ImageMount,
    parent: Member | undefined,
  ): boolean {
    if (parent === undefined) {
      if (!this.#joinHost(follower, told, told.masterPath)) return false;
    } else if (parent.superblock !== follower.superblock) {
      this.#refuse(
        told,
        "it and the mounts it is a slave of are taken from different file " +
          "systems now",
        "take them from one, as they were",
      );
      return false;
    } else {
      this.#sharing.push({
        kind: "join",
        mount: follower.number,
        from: parent.number,
      });
    }
    this.#sharing.push({ kind: "slave", mount: follower.number });
    return true;
  }

  /** Takes the group of a mount of the outside, which has to be the right one. */
  #joinHost(
    { number, rootHere, superblock }: Member,
    told: ImageMount,
    recorded: string | undefined,
  ): boolean {
    const { place } = this.#providerOf.get(told)!;
    const candidates = [
      ...recorded === undefined
        ? []
        : this.#host.mounts.filter((mount) =>
          mount.point === recorded && !this.#host.isCovered(mount)
        ),
      ...place === undefined ? [] : [place.mount],
    ];
    const found = candidates.find((mount) =>
      (mount.shared !== 0 || mount.master !== 0) &&
      superblock === `host ${mount.device}` && isWithin(rootHere, mount.root)
    );
    if (found === undefined) {
      this.#refuse(
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
    this.#sharing.push({
      kind: "join host",
      mount: number,
      host: found.id,
      path: found.point,
    });
    return true;
  }

  #operations(): Operation[] {
    const outside = this.#outside;
    const fresh = this.#providers.filter((provider) =>
      provider.place === undefined
    );
    const rename = new Map(
      this.#providers.flatMap(({ number, kept, of }) =>
        kept || of === undefined ? [] : [[number, of.id] as const]
      ),
    );
    const named = (operation: Operation): Operation =>
      "mount" in operation && rename.has(operation.mount)
        ? { ...operation, mount: rename.get(operation.mount)! }
        : operation;
    // What others need is complete before they come.
    const needed = fresh.filter(({ kept }) => kept);
    const operations: Operation[] = [
      ...outside.flatMap(({ make }) => make),
      ...this.#layerClones.values(),
      ...this.#hostHelpers,
      ...needed.flatMap(({ make }) => make).filter(({ kind }) =>
        kind !== "seal"
      ),
      ...this.#remade.values(),
      { kind: "enter", namespace: YARD },
      ...[...outside, ...needed].map(({ number }): Operation => ({
        kind: "keep",
        mount: number,
      })),
      ...this.#mounts.flatMap((mount) => this.#mountOperations(mount)),
      ...this.#openings,
      ...this.#helpers.flatMap((bind): Operation[] => [
        bind,
        { kind: "attributes", mount: bind.mount, flags: 0 },
        { kind: "keep", mount: bind.mount },
      ]),
      ...this.#hostHelpers.map(({ mount }): Operation => ({
        kind: "keep",
        mount,
      })),
      ...this.#trees.flatMap((tree) => assemble(tree)),
      ...this.#sharing,
      ...this.#remade.size > 0 ? [{ kind: "remove" } as const] : [],
      ...needed.flatMap(({ make }) => make).filter(({ kind }) =>
        kind === "seal"
      ),
      ...this.#unbindable(),
      { kind: "leave" },
    ];
    return operations.map(named);
  }

  #mountOperations(mount: ImageMount): Operation[] {
    const { id, flags } = mount;
    const provider = this.#providerOf.get(mount)!;
    const attributes: Operation = { kind: "attributes", mount: id, flags };
    if (!provider.kept) return [...provider.make, attributes];
    const remade = mount.deleted && this.#remade.get(mount.removed!);
    if (remade) {
      return [
        { kind: "bind", mount: id, from: remade.mount, path: "" },
        attributes,
      ];
    }
    return [
      {
        kind: "bind",
        mount: id,
        from: provider.number,
        path: relativePath(mount.root, provider.root),
      },
      attributes,
    ];
  }

  #unbindable(): Operation[] {
    return this.input.namespaces.flatMap(({ number, mounts }) => {
      const unbindable = mounts.filter(({ flags }) =>
        (flags & MS.UNBINDABLE) !== 0
      );
      return unbindable.length === 0 ? [] : [
        { kind: "enter", namespace: number } as const,
        ...unbindable.map(({ id }) => ({
          kind: "unbindable",
          mount: id,
        } as const)),
      ];
    });
  }
}

/** A mount of a peer group, or one that helps it. */
interface Member {
  readonly number: number;
  readonly namespace: number;
  readonly rootHere: string;
  readonly superblock: string;
}

function assemble(tree: MountTree<ImageMount>): Operation[] {
  const { root } = tree;
  if (root === undefined) return [];
  return [
    { kind: "enter", namespace: root.namespace },
    ...tree.parentsFirst().map((mount): Operation => ({
      kind: "attach",
      mount: mount.id,
      to: mount === root ? undefined : mount.parent,
      path: mount === root ? "" : tree.wayFromParent(mount),
    })),
    { kind: "pivot", mount: root.id },
  ];
}

function describeHost({ id, point, device, root, shared }: Mount): string {
  return `the host's mount ${id} at ${point} (${deviceText(device)}, ${root}, ${
    shared === 0 ? "not shared" : `shared:${shared}`
  })`;
}
