/**
 * The mounts of one namespace as a tree: who is mounted on whom, and what
 * covers what.
 */
import { type Mount, relativePath } from "./mount.ts";

/** Whatever has the shape of a tree of mounts. */
type Node = Pick<Mount, "id" | "parent" | "point">;

export class MountTree<M extends Node = Mount> {
  /** The one whose parent is none of them; undefined where there is none. */
  readonly root: M | undefined;
  /** Those whose parent is not there, but for the root. */
  readonly lost: readonly M[];
  readonly byId: ReadonlyMap<number, M>;
  /** By the ids of parents, then by mount points: children have different ones. */
  readonly #children = new Map<number, Map<string, M>>();
  /** Those that have the parent and the mount point of another one. */
  readonly twins: readonly M[];

  constructor(readonly mounts: readonly M[]) {
    this.byId = new Map(mounts.map((mount) => [mount.id, mount]));
    const tops: M[] = [];
    const twins: M[] = [];
    for (const mount of mounts) {
      const { id, parent, point } = mount;
      if (parent === id || !this.byId.has(parent)) {
        tops.push(mount);
        continue;
      }
      let children = this.#children.get(parent);
      if (children === undefined) {
        children = new Map();
        this.#children.set(parent, children);
      }
      if (children.has(point)) twins.push(mount);
      else children.set(point, mount);
    }
    this.root = tops.find(({ point }) => point === "/");
    this.lost = tops.filter((mount) => mount !== this.root);
    this.twins = twins;
  }

  /**
   * Those that are mounted on a mount, in an order in which each can be
   * mounted by its path: what is deeper comes before what covers it.
   */
  children({ id }: Node): M[] {
    return [...this.#children.get(id)?.values() ?? []].sort((a, b) =>
      b.point.length - a.point.length
    );
  }

  /** The way from the root of its parent to where a mount is. */
  wayFromParent({ parent, point }: Node): string {
    return relativePath(point, this.byId.get(parent)!.point);
  }

  /** All that hang together with the root, parents first. */
  parentsFirst(): M[] {
    const all: M[] = [];
    const waiting = this.root === undefined ? [] : [this.root];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      all.push(next);
      waiting.push(...this.children(next).reverse());
    }
    return all;
  }

  /**
   * The mount that a path without symbolic links leads to from the root of the
   * namespace, as the kernel walks it: at every step into what is mounted there.
   */
  lookup(path: string): M | undefined {
    return this.#walk(path, false);
  }

  /** ... from what is over that root, where setns(2) leads to. */
  lookupFromTop(path: string): M | undefined {
    return this.#walk(path, true);
  }

  #walk(path: string, fromTop: boolean): M | undefined {
    let mount = this.root;
    if (mount === undefined) return undefined;
    for (;;) {
      const next = this.#firstOnTheWay(mount, path, fromTop);
      if (next === undefined) return mount;
      mount = next;
    }
  }

  #firstOnTheWay(mount: M, path: string, fromTop: boolean): M | undefined {
    const { id, point } = mount;
    const children = this.#children.get(id);
    if (children === undefined) return undefined;
    // From the root of the mount, where something may be, too, downwards. But
    // what is over the root where a walk begins is not entered.
    for (let end = point === "/" ? 0 : point.length; end >= 0;) {
      const child = children.get(path.slice(0, end) || "/");
      if (
        child !== undefined && (fromTop || mount !== this.root || end > 0)
      ) return child;
      end = end >= path.length ? -1 : path.indexOf("/", end + 1);
      if (end < 0) return path === "/" ? undefined : children.get(path);
    }
    return undefined;
  }

  /** Whether it is mounted over the root, or on such a mount. */
  isOverRoot(mount: M): boolean {
    for (let at = mount; at !== this.root;) {
      const parent = this.byId.get(at.parent);
      if (parent === undefined) return false;
      if (parent === this.root) return at.point === "/";
      at = parent;
    }
    return false;
  }

  /**
   * What has to be unmounted, one after the other by its mount point, until a
   * path leads to a mount: from the top for one that is over the root.
   */
  coversOf(mount: M): M[] {
    const found = this.#walk(mount.point, this.isOverRoot(mount));
    if (found === undefined || found.id === mount.id) return [];
    const left = this.mounts.filter(({ id }) => id !== found.id);
    return [found, ...new MountTree(left).coversOf(mount)];
  }

  /** Whether no path leads to a mount: something is over it. */
  isCovered(mount: M): boolean {
    return this.lookup(mount.point) !== mount;
  }
}
