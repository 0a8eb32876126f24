/** Random mount namespaces as images tell of them, and what the host has. */
import type { ImageMount, NamespaceImage } from "../image_mounts.ts";
import { joinPath, type Mount, MS } from "../mount.ts";

/** A generator of whole numbers. */
export interface Random {
  /** At least 0, less than `limit`. */
  below(limit: number): number;
}

export interface RandomMounts {
  readonly host: readonly Mount[];
  readonly namespaces: readonly NamespaceImage[];
  readonly externals: ReadonlyMap<string, string>;
}

const HOST_DEVICE = 0x800001;
const DATA_DEVICE = 0x800002;

const plain = {
  deleted: false,
  flags: 0,
  superFlags: 0,
  options: [],
  shared: 0,
  master: 0,
} as const;

/**
 * What the kernel allows: peers have one superblock and one master, groups are
 * no circles, children of one parent have different mount points.
 */
export function randomMounts(random: Random): RandomMounts {
  const host: Mount[] = [
    {
      ...plain,
      id: 1,
      namespace: 0,
      parent: 0,
      device: HOST_DEVICE,
      root: "/",
      point: "/",
      type: "ext4",
      source: "/dev/sda1",
      shared: random.below(2) * 101,
      flags: MS.RELATIME,
    },
    {
      ...plain,
      id: 2,
      namespace: 0,
      parent: 1,
      device: DATA_DEVICE,
      root: "/",
      point: "/data",
      type: "xfs",
      source: "/dev/sdb1",
      shared: 102,
      flags: MS.RELATIME,
    },
  ];
  const externals = new Map([["data", "/data"]]);
  const groups = new RandomGroups(random, host);
  const count = 1 + random.below(3);
  let next = 10;
  const devices = [
    { device: HOST_DEVICE, type: "ext4", source: "/dev/sda1", top: "/c" },
    { device: DATA_DEVICE, type: "xfs", source: "/dev/sdb1", top: "/" },
    ...Array.from({ length: 1 + random.below(4) }, (_, i) => ({
      device: 40 + i,
      type: "tmpfs",
      source: `t${i}`,
      top: "/",
    })),
  ];
  const namespaces = Array.from({ length: count }, (_, n) => {
    const mounts: ImageMount[] = [];
    const size = 2 + random.below(12);
    for (let i = 0; i < size; i++) {
      const parent = mounts.length === 0
        ? undefined
        : mounts[random.below(mounts.length)];
      const kind = n === 0 && i <= 1
        ? devices[i]
        : devices[random.below(devices.length)];
      const root = i <= 1 && n === 0
        ? kind.top
        : joinPath(kind.top, randomWay(random));
      const point = parent === undefined ? "/" : joinPath(
        parent.point,
        n === 0 && i === 1 ? "outside" : randomWay(random),
      );
      if (
        mounts.some((other) =>
          other.parent === parent?.id && other.point === point
        )
      ) continue;
      const id = next++;
      mounts.push({
        ...plain,
        id,
        namespace: n + 1,
        parent: parent?.id ?? 5,
        device: kind.device,
        root,
        point,
        type: kind.type,
        source: kind.source,
        flags: random.below(4) === 0 ? MS.NODEV | MS.NOSUID : MS.RELATIME,
        ...n === 0 && i === 1
          ? { external: { kind: "named", name: "data" } as const }
          : {},
        ...n === 0 && i === 0 ? { hostPath: "/c" } : {},
      });
    }
    return { number: n + 1, mounts };
  });
  return {
    host,
    namespaces: namespaces.map(({ number, mounts }) => ({
      number,
      mounts: mounts.map((mount) => groups.join(mount)),
    })),
    externals,
  };
}

function randomWay(random: Random): string {
  return ["", "a", "a/b", "b", "b/c/d", "c"][random.below(6)];
}

interface Group {
  readonly device: number;
  readonly shared: number;
  readonly master: number;
  readonly outside: Partial<Pick<ImageMount, "peerPath" | "masterPath">>;
}

class RandomGroups {
  readonly #groups: Group[] = [];
  #next = 200;

  constructor(readonly random: Random, readonly host: readonly Mount[]) {}

  join(mount: ImageMount): ImageMount {
    const { random } = this;
    const { device } = mount;
    const same = this.#groups.filter((group) => group.device === device);
    const existing = same[random.below(same.length || 1)];
    const outside = this.host.find((host) =>
      host.device === device && host.shared !== 0
    );
    switch (random.below(8)) {
      case 0: {
        const group = {
          device,
          shared: this.#next++,
          master: existing?.shared ?? 0,
          outside: {},
        };
        return this.#enter(mount, group);
      }
      case 1:
      case 2:
      case 3:
        return existing === undefined ? mount : this.#enter(mount, existing);
      case 4:
        return existing === undefined ? mount : {
          ...mount,
          flags: mount.flags | MS.SLAVE,
          master: existing.shared,
        };
      case 5:
        if (outside === undefined) return mount;
        return this.#enter(mount, {
          device,
          shared: random.below(2) * this.#next++,
          master: outside.shared,
          outside: { masterPath: outside.point },
        });
      case 6:
        if (outside === undefined) return mount;
        return this.#enter(
          mount,
          {
            device,
            shared: outside.shared,
            master: 0,
            outside: { peerPath: outside.point },
          },
        );
      default:
        return { ...mount, flags: mount.flags | MS.UNBINDABLE };
    }
  }

  #enter(mount: ImageMount, group: Group): ImageMount {
    const { shared, master, outside } = group;
    if (
      shared !== 0 && !this.#groups.some((other) => other.shared === shared)
    ) this.#groups.push(group);
    return { ...mount, shared, master, ...outside };
  }
}
