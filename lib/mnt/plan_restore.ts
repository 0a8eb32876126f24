/**
 * Plans how mount namespaces are made: each superblock once, in a yard; from
 * there every mount is cloned, and they are put together from the root to the
 * leaves while all of them are private. Peer groups come last, masters before
 * their slaves. Pure.
 */
import type { Reason } from "../error.ts";
import type {
  ImageMount,
  PlacedFile,
  RestoreMountsInput,
} from "./image_mounts.ts";
import { isWithin, MS, relativePath } from "./mount.ts";
import { MountTree } from "./mount_tree.ts";
import { type Operation, YARD } from "./operations.ts";
import { SharingPlan } from "./plan_sharing.ts";
import { Providers } from "./providers.ts";
import { RestoreDraft } from "./restore_draft.ts";

export interface RestoreMountsPlan {
  readonly operations: readonly Operation[];
  readonly reasons: readonly Reason[];
}

export function planRestoreOfMounts(
  input: RestoreMountsInput,
): RestoreMountsPlan {
  return new Planner(input).plan();
}

class Planner {
  readonly #mounts: readonly ImageMount[];
  readonly #trees: readonly MountTree<ImageMount>[];
  readonly #draft: RestoreDraft;
  readonly #providers: Providers;
  readonly #sharing: SharingPlan;

  constructor(readonly input: RestoreMountsInput) {
    this.#trees = input.namespaces.map(({ mounts }) => new MountTree(mounts));
    this.#mounts = input.namespaces.flatMap((
      { mounts, detached = [] },
    ) => [...mounts, ...detached]);
    this.#draft = new RestoreDraft(this.#mounts);
    this.#providers = new Providers(
      input,
      this.#mounts,
      this.#trees[0]?.root,
      this.#draft,
    );
    this.#sharing = new SharingPlan(
      this.#mounts,
      this.#providers,
      new MountTree(input.host),
      this.#draft,
    );
  }

  plan(): RestoreMountsPlan {
    const { reasons } = this.#draft;
    if (reasons.length === 0) this.#sharing.plan();
    for (const file of this.input.files) this.#open(file);
    if (reasons.length > 0) return { operations: [], reasons };
    return { operations: this.#operations(), reasons };
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
      this.#draft.refuse(
        mount,
        `file ${name} is said to be on it, and is not below`,
      );
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

  #operations(): Operation[] {
    const { all, outside, layerClones, remade } = this.#providers;
    const { helpers, hostHelpers } = this.#sharing;
    const fresh = all.filter((provider) => provider.place === undefined);
    const rename = new Map(
      all.flatMap(({ number, kept, of }) =>
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
      ...layerClones.values(),
      ...hostHelpers,
      ...needed.flatMap(({ make }) => make).filter(({ kind }) =>
        kind !== "seal"
      ),
      ...remade.values(),
      { kind: "enter", namespace: YARD },
      ...[...outside, ...needed].map(({ number }): Operation => ({
        kind: "keep",
        mount: number,
      })),
      ...this.#mounts.flatMap((mount) => this.#mountOperations(mount)),
      ...this.#openings,
      ...helpers.flatMap((bind): Operation[] => [
        bind,
        { kind: "attributes", mount: bind.mount, flags: 0 },
        { kind: "keep", mount: bind.mount },
      ]),
      ...hostHelpers.map(({ mount }): Operation => ({
        kind: "keep",
        mount,
      })),
      ...this.#trees.flatMap((tree) => assemble(tree)),
      ...this.#sharing.operations,
      ...remade.size > 0 ? [{ kind: "remove" } as const] : [],
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
    const provider = this.#providers.of(mount);
    const attributes: Operation = { kind: "attributes", mount: id, flags };
    if (!provider.kept) return [...provider.make, attributes];
    const remade = mount.deleted && this.#providers.remade.get(mount.removed!);
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
