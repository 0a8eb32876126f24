/**
 * The kernel's rules about mounts, as far as plans depend on them (fs/namespace.c
 * and fs/pnode.c of Linux 5.15 to 6.18): carries out operations, and refuses
 * what the kernel would refuse.
 */
import { isWithin, joinPath, type Mount, MS } from "../mount.ts";
import { type Operation, YARD } from "../operations.ts";

export interface ModelMount {
  superblock: string;
  /** In its superblock. */
  root: string;
  type: string;
  flags: number;
  unbindable: boolean;
  /** 0: no peer group. */
  shared: number;
  master: number;
  /** Undefined: not mounted anywhere. */
  namespace: number | undefined;
  parent: ModelMount | undefined;
  /** From the root of the parent. */
  path: string;
}

const HOST = -1;

export class KernelModel {
  readonly mounts = new Map<number, ModelMount>();
  readonly roots = new Map<number, ModelMount>();
  readonly #host = new Map<number, ModelMount>();
  readonly #sealed = new Set<string>();
  #current = HOST;
  #groups: number;
  #left = false;

  /** @param host mounts of ckpt's own namespace, and the place of each path */
  constructor(
    host: readonly Mount[],
    readonly place: (
      path: string,
    ) => { mount: Mount; root: string } | undefined,
  ) {
    this.#groups = host.reduce(
      (most, { shared, master }) => Math.max(most, shared, master),
      1000,
    );
    for (const mount of host) {
      this.#host.set(mount.id, {
        superblock: `host ${mount.device}`,
        root: mount.root,
        type: mount.type,
        flags: mount.flags,
        unbindable: (mount.flags & MS.UNBINDABLE) !== 0,
        shared: mount.shared,
        master: mount.master,
        namespace: HOST,
        parent: undefined,
        path: mount.point,
      });
    }
  }

  run(operations: readonly Operation[]): void {
    for (const [i, operation] of operations.entries()) {
      try {
        this.#step(operation);
      } catch (error) {
        throw new Error(
          `operation ${i}, ${JSON.stringify(operation)}: ${
            (error as Error).message
          }`,
        );
      }
    }
    if (!this.#left) throw new Error("the namespace was never left");
  }

  #get(number: number): ModelMount {
    const mount = this.mounts.get(number);
    if (mount === undefined) throw new Error(`there is no mount ${number}`);
    return mount;
  }

  #add(number: number, mount: ModelMount): void {
    if (this.mounts.has(number)) throw new Error(`${number} is there already`);
    this.mounts.set(number, mount);
  }

  #inCurrent(mount: ModelMount): void {
    if (mount.namespace !== this.#current) {
      throw new Error(
        `EINVAL: it is in namespace ${mount.namespace}, not ${this.#current}`,
      );
    }
  }

  #step(operation: Operation): void {
    if (this.#left) throw new Error("after the end");
    switch (operation.kind) {
      case "clone": {
        if (this.#current !== HOST) throw new Error("not in the host any more");
        const found = this.place(operation.path);
        if (found === undefined) throw new Error("ENOENT");
        const source = this.#host.get(found.mount.id)!;
        if (source.unbindable) throw new Error("EINVAL: unbindable");
        this.#add(operation.mount, {
          ...source,
          root: found.root,
          shared: 0,
          master: 0,
          namespace: undefined,
        });
        break;
      }
      case "overlay":
        for (const { from } of operation.layers) this.#get(from);
        // As one of any type.
        /* falls through */
      case "create":
        this.#add(operation.mount, {
          superblock: `new ${operation.mount}`,
          root: "/",
          type: operation.kind === "overlay" ? "overlay" : operation.type,
          flags: 0,
          unbindable: false,
          shared: 0,
          master: 0,
          namespace: undefined,
          parent: undefined,
          path: "",
        });
        if (operation.superFlags & MS.RDONLY) {
          this.#sealed.add(`new ${operation.mount}`);
        }
        break;
      case "fill": {
        const { superblock, root } = this.#get(operation.mount);
        if (root !== "/") throw new Error("only a part is filled");
        if (this.#sealed.has(superblock)) throw new Error("EROFS");
        break;
      }
      case "seal":
        this.#sealed.add(this.#get(operation.mount).superblock);
        break;
      case "keep": {
        const mount = this.#get(operation.mount);
        if (this.#current !== YARD) throw new Error("not in the yard");
        if (mount.namespace !== undefined) throw new Error("it is mounted");
        mount.namespace = YARD;
        break;
      }
      case "bind": {
        const source = this.#get(operation.from);
        this.#inCurrent(source);
        if (source.unbindable) throw new Error("EINVAL: unbindable");
        this.#add(operation.mount, {
          ...source,
          root: joinPath(source.root, operation.path),
          namespace: undefined,
          parent: undefined,
        });
        break;
      }
      case "attributes": {
        const mount = this.#get(operation.mount);
        if (mount.namespace !== undefined) throw new Error("it is mounted");
        mount.flags = operation.flags;
        mount.shared = 0;
        mount.master = 0;
        break;
      }
      case "enter":
        this.#current = operation.namespace;
        break;
      case "attach":
        this.#attach(operation);
        break;
      case "pivot": {
        const mount = this.#get(operation.mount);
        this.#inCurrent(mount);
        if (mount.parent !== undefined) throw new Error("not at the top");
        if (mount.shared !== 0) throw new Error("EINVAL: shared");
        this.roots.set(this.#current, mount);
        break;
      }
      case "join":
        this.#join(operation.mount, this.#get(operation.from));
        break;
      case "join host": {
        const host = this.#host.get(operation.host);
        if (host === undefined) throw new Error("no such mount of the host");
        this.#join(operation.mount, host);
        break;
      }
      case "slave": {
        const mount = this.#get(operation.mount);
        this.#inCurrent(mount);
        if (mount.shared !== 0) {
          // Without a peer it would be the slave of nobody.
          if (!this.#hasPeer(mount)) mount.master = 0;
          else mount.master = mount.shared;
          mount.shared = 0;
        }
        break;
      }
      case "share": {
        const mount = this.#get(operation.mount);
        this.#inCurrent(mount);
        if (mount.shared === 0) mount.shared = ++this.#groups;
        break;
      }
      case "unbindable": {
        const mount = this.#get(operation.mount);
        this.#inCurrent(mount);
        mount.unbindable = true;
        mount.shared = 0;
        mount.master = 0;
        break;
      }
      case "leave":
        this.#left = true;
        this.#current = HOST;
        break;
    }
  }

  #hasPeer(mount: ModelMount): boolean {
    return [...this.mounts.values(), ...this.#host.values()].some((other) =>
      other !== mount && other.shared === mount.shared
    );
  }

  #attach(
    { mount: number, to, path }: Extract<Operation, { kind: "attach" }>,
  ): void {
    const mount = this.#get(number);
    if (mount.namespace !== undefined) throw new Error("it is mounted");
    if (this.#current === YARD) throw new Error("in the yard");
    mount.namespace = this.#current;
    if (to === undefined) return;
    const parent = this.#get(to);
    this.#inCurrent(parent);
    if (parent.shared !== 0) throw new Error("it would be propagated");
    for (const other of this.mounts.values()) {
      if (other.parent !== parent) continue;
      if (other.path === path) throw new Error("something is mounted there");
      if (other.path === "" || isWithin(`/${path}`, `/${other.path}`)) {
        throw new Error(`EXDEV: ${other.path} is in the way`);
      }
    }
    mount.parent = parent;
    mount.path = path;
  }

  #join(number: number, from: ModelMount): void {
    const mount = this.#get(number);
    if (from.superblock !== mount.superblock) throw new Error("EINVAL: device");
    if (!isWithin(mount.root, from.root)) throw new Error("EINVAL: root");
    if (mount.shared !== 0 || mount.master !== 0) {
      throw new Error("EINVAL: it has a group");
    }
    if (from.shared === 0 && from.master === 0) {
      throw new Error("EINVAL: from has no group");
    }
    if (mount.namespace === undefined) throw new Error("EINVAL: not mounted");
    mount.shared = from.shared;
    mount.master = from.master;
  }
}
