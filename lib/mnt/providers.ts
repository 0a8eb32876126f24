/**
 * Where the superblocks of mounts come from at a restore: from the outside, as
 * it was said, or new ones, each once. Every mount is cloned from one of them.
 * Pure.
 */
import { freshType } from "./file_system_types.ts";
import type {
  HostPlace,
  ImageMount,
  RestoreMountsInput,
} from "./image_mounts.ts";
import {
  describeMount,
  isWithin,
  joinPath,
  MS,
  relativePath,
} from "./mount.ts";
import type { MadeLayer, Operation } from "./operations.ts";
import { type Layer, OUTSIDE } from "./overlay_layers.ts";
import type { RestoreDraft } from "./restore_draft.ts";

/** Where mounts of one superblock are cloned from. */
export interface Provider {
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

export class Providers {
  readonly all: Provider[] = [];
  /** Those of them that come from the outside. */
  readonly outside: Provider[] = [];
  readonly #of = new Map<ImageMount, Provider>();
  readonly #fresh = new Map<string, Provider>();
  readonly #layered = new Set<ImageMount>();
  /** Clones of ckpt's own mounts that have layers, by the ids of these. */
  readonly layerClones = new Map<
    number,
    Extract<Operation, { kind: "clone" }>
  >();
  /** What is made again, by the mounts whose archives hold it. */
  readonly remade = new Map<number, Extract<Operation, { kind: "remake" }>>();

  constructor(
    readonly input: RestoreMountsInput,
    readonly mounts: readonly ImageMount[],
    readonly root: ImageMount | undefined,
    readonly draft: RestoreDraft,
  ) {
    for (const mount of mounts) this.#provideFromOutside(mount);
    for (const mount of mounts) {
      if (!this.#of.has(mount)) this.#provide(mount);
    }
  }

  /** Where a mount is cloned from; all have one if nothing is refused. */
  of(mount: ImageMount): Provider {
    return this.#of.get(mount)!;
  }

  /** The root, and what --external names. */
  #provideFromOutside(mount: ImageMount): void {
    const path = this.#outsidePath(mount);
    if (path === undefined) return;
    const place = this.input.place(path);
    if (place === undefined) {
      this.draft.refuse(mount, `there is no ${path} to take for it`);
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
    this.outside.push(provider);
  }

  #outsidePath(mount: ImageMount): string | undefined {
    const { root, mounts, automatic } = this.input;
    if (mount === this.root) {
      const path = root ?? mount.hostPath;
      const type = freshType(mount.type);
      const comesBack = type !== undefined &&
        (!type.hasContent || this.input.hasContent(mount.device));
      if (path === undefined && !comesBack) {
        this.draft.refuse(
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
          this.draft.refuse(
            mount,
            "it comes from outside of the image",
            `--external mnt[${name}]:PATH`,
          );
        }
        return path;
      }
      case "automatic":
        if (!automatic) {
          this.draft.refuse(
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
    const number = this.draft.newNumber();
    const made = { ...provider, number, make: make(number), kept: false, of };
    this.all.push(made);
    this.#of.set(mount, made);
    return made;
  }

  /** A part of what comes from the outside, or of a new superblock. */
  #provide(mount: ImageMount): void {
    if (this.#isRefused(mount)) return;
    const outside = this.outside.find((provider) =>
      provider.of!.device === mount.device &&
      isWithin(mount.root, provider.root)
    );
    const provider = outside ?? this.#freshProvider(mount);
    if (provider === undefined) return;
    this.#of.set(mount, provider);
    if (provider.of !== mount) provider.kept = true;
    if (mount.deleted) this.#remake(mount, provider);
  }

  #remake(mount: ImageMount, provider: Provider): void {
    const { removed, root } = mount;
    if (removed === undefined) {
      this.draft.refuse(
        mount,
        "what it shows was removed, and the image does not hold it",
        "dump with ckpt",
      );
    } else if (!this.remade.has(removed)) {
      this.remade.set(removed, {
        kind: "remake",
        mount: this.draft.newNumber(),
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
      mount === this.root && this.draft.reasons.length > 0;
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
      this.draft.refuse(
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
      this.draft.refuse(
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

  /** What provides the layers comes first. Undefined: something does not come. */
  #layersOf(mount: ImageMount): MadeLayer[] | undefined {
    const { layers = [] } = mount;
    if (this.#layered.has(mount)) {
      this.draft.refuse(mount, "it is a layer of itself");
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
      const below = this.mounts.find((other) => other.id === id);
      if (below === undefined) {
        this.draft.refuse(
          mount,
          `its ${role} layer is on mount ${id}, which the image does not have`,
        );
        return undefined;
      }
      if (!this.#of.has(below)) this.#provide(below);
      const provider = this.#of.get(below);
      if (provider === undefined) {
        this.draft.refuse(
          mount,
          `its ${role} layer is on ${describeMount(below)}`,
        );
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
    return of === this.root
      ? this.input.root === undefined
      : of?.external?.kind === "automatic";
  }

  /** The upper layer and its work have to be reached by one mount. */
  #layerOutside(
    mount: ImageMount,
    role: Layer["role"],
    path: string,
  ): MadeLayer | undefined {
    const place = this.input.place(path);
    if (place === undefined) {
      this.draft.refuse(
        mount,
        `its ${role} layer ${path} is not there any more`,
      );
      return undefined;
    }
    const { id, point, root } = place.mount;
    let clone = this.layerClones.get(id);
    if (clone === undefined) {
      clone = { kind: "clone", mount: this.draft.newNumber(), path: point };
      this.layerClones.set(id, clone);
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

  /** Where a mount will be in its superblock. */
  rootHere(mount: ImageMount): string {
    const { root, rootHere } = this.of(mount);
    return joinPath(rootHere, relativePath(mount.root, root));
  }
}
