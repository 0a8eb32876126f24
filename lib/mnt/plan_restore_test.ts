import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { isWithin, joinPath, type Mount, MS, relativePath } from "./mount.ts";
import { MountTree } from "./mount_tree.ts";
import { describeOperation } from "./operations.ts";
import type {
  ImageMount,
  NamespaceImage,
  RestoreMountsInput,
} from "./image_mounts.ts";
import { planRestoreOfMounts } from "./plan_restore.ts";
import { KernelModel } from "./testing/kernel_model.ts";
import { randomMounts } from "./testing/random_mounts.ts";

const LONG = Deno.env.get("CKPT_LONG") === "1";

function input(
  namespaces: readonly NamespaceImage[],
  host: readonly Mount[],
  more: Partial<RestoreMountsInput> = {},
): RestoreMountsInput {
  const tree = new MountTree(host);
  return {
    namespaces,
    host,
    mounts: new Map(),
    devices: new Map(),
    automatic: false,
    files: [],
    hasContent: () => true,
    place(path) {
      const mount = tree.lookup(path);
      return mount && {
        path,
        mount,
        root: joinPath(mount.root, relativePath(path, mount.point)),
      };
    },
    ...more,
  };
}

/** Carries a plan out in the model; compares what comes out with the image. */
function simulate(given: RestoreMountsInput): void {
  const plan = planRestoreOfMounts(given);
  assertEquals(plan.reasons, []);
  const kernel = new KernelModel(given.host, given.place);
  kernel.run(plan.operations);
  const mounts = given.namespaces.flatMap(({ mounts }) => mounts);
  const byId = new Map(mounts.map((mount) => [mount.id, mount]));
  const hostGroups = new Set(given.host.map(({ shared }) => shared));
  const groups = new Bijection();
  const superblocks = new Bijection();
  for (const mount of mounts) {
    const made = kernel.mounts.get(mount.id)!;
    const parent = byId.has(mount.parent)
      ? kernel.mounts.get(mount.parent)
      : undefined;
    const same = (what: string, got: unknown, wanted: unknown) => {
      if (got === wanted) return;
      throw new Error(
        `${what} is ${got}, not ${wanted}: ${JSON.stringify(mount)}`,
      );
    };
    same("parent", made.parent, parent);
    same("namespace", made.namespace, mount.namespace);
    if (parent !== undefined) {
      const above = byId.get(mount.parent)!;
      same("point", joinPath(above.point, made.path), mount.point);
    }
    same("flags", made.flags, mount.flags);
    same("root", made.root, mount.root);
    same("unbindable", made.unbindable, (mount.flags & MS.UNBINDABLE) !== 0);
    for (const kind of ["shared", "master"] as const) {
      const group = mount[kind];
      if (hostGroups.has(group) && group !== 0) {
        same(kind, made[kind], group);
      }
      groups.add(group, made[kind]);
      same(`no ${kind}`, made[kind] === 0, group === 0);
    }
    superblocks.add(mount.device, made.superblock);
  }
}

/** Fails when two have one image, or one has two. */
class Bijection {
  readonly #to = new Map<unknown, unknown>();
  readonly #from = new Map<unknown, unknown>();

  add(a: unknown, b: unknown): void {
    if ((this.#to.get(a) ?? b) !== b || (this.#from.get(b) ?? a) !== a) {
      throw new Error(`${a} became ${b}, and something else did, too`);
    }
    this.#to.set(a, b);
    this.#from.set(b, a);
  }
}

Deno.test("every plan for random namespaces does what the image says", () => {
  const runs = LONG ? 100_000 : 2000;
  for (let seed = 1; seed <= runs; seed++) {
    const next = seededRandom(seed);
    const random = { below: (limit: number) => Math.floor(next() * limit) };
    const { host, namespaces, externals } = randomMounts(random);
    try {
      simulate(input(namespaces, host, { mounts: externals }));
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`);
    }
  }
});

const EMPTY = {
  deleted: false,
  flags: MS.RELATIME,
  superFlags: 0,
  options: [],
  shared: 0,
  master: 0,
  source: "none",
} as const;

function mount(
  fields: Partial<ImageMount> & Pick<ImageMount, "id" | "parent" | "point">,
): ImageMount {
  return {
    ...EMPTY,
    namespace: 1,
    device: 40,
    root: "/",
    type: "tmpfs",
    ...fields,
  };
}

const HOST: Mount = {
  ...EMPTY,
  id: 1,
  namespace: 0,
  parent: 0,
  device: 0x800001,
  root: "/",
  point: "/",
  type: "ext4",
  source: "/dev/sda1",
};

function plan(
  mounts: readonly ImageMount[],
  more: Partial<RestoreMountsInput> = {},
): string[] {
  const given = input([{ number: 1, mounts }], [HOST], more);
  simulate(given);
  return planRestoreOfMounts(given).operations.map(describeOperation);
}

Deno.test("a tmpfs is mounted and filled before the mounts of it are made in order", () => {
  assertEquals(
    plan([
      mount({
        id: 10,
        parent: 5,
        point: "/",
        device: 0x800001,
        type: "ext4",
        root: "/c",
        hostPath: "/c",
      }),
      mount({ id: 11, parent: 10, point: "/tmp", options: ["size=1024k"] }),
    ]),
    [
      "clone 12 from /c",
      "create 13: tmpfs none (size=1024k)",
      "fill 13 from the image",
      "enter the yard",
      "keep 12",
      "keep 13",
      "bind 10 from 12, ",
      "flags of 10: relatime",
      "bind 11 from 13, ",
      "flags of 11: relatime",
      "enter namespace 1",
      "attach 10 as the root",
      "attach 11 to 10, tmp",
      "pivot into 10",
      "leave",
    ],
  );
});

Deno.test("peers with disjoint roots get a helper that shows both", () => {
  assertEquals(
    plan([
      mount({ id: 10, parent: 5, point: "/" }),
      mount({ id: 11, parent: 10, point: "/x", root: "/a/1", shared: 9 }),
      mount({ id: 12, parent: 10, point: "/y", root: "/a/2", shared: 9 }),
    ]).filter((line) => /13|14|group|shared/.test(line)),
    [
      "create 13: tmpfs none",
      "fill 13 from the image",
      "keep 13",
      "bind 10 from 13, ",
      "bind 11 from 13, a/1",
      "bind 12 from 13, a/2",
      "bind 14 from 13, a",
      "flags of 14: none",
      "keep 14",
      "make 14 shared",
      "set the group of 11 from 14",
      "set the group of 12 from 14",
    ],
  );
});

Deno.test("what is covered is mounted before what covers it", () => {
  const lines = plan([
    mount({ id: 10, parent: 5, point: "/" }),
    mount({ id: 11, parent: 10, point: "/a", device: 41 }),
    mount({ id: 12, parent: 10, point: "/a/b", device: 42 }),
    mount({ id: 13, parent: 10, point: "/", device: 43 }),
  ]);
  assertEquals(lines.filter((line) => line.startsWith("attach")), [
    "attach 10 as the root",
    "attach 12 to 10, a/b",
    "attach 11 to 10, a",
    "attach 13 to 10, on its root",
  ]);
});

Deno.test("files that no path will lead to are opened before they are covered", () => {
  const file = (
    id: number,
    name: string,
    mount: number,
    isNameless = false,
  ) => ({ id, name, mount, isNameless });
  const mounts = [
    mount({ id: 10, parent: 5, point: "/" }),
    mount({ id: 11, parent: 10, point: "/a", device: 41 }),
    mount({ id: 12, parent: 11, point: "/a/b", device: 42 }),
    mount({ id: 13, parent: 12, point: "/a/b", device: 43 }),
  ];
  const { operations } = planRestoreOfMounts(
    input([{ number: 1, mounts }], [], {
      files: [
        file(1, "/a/x", 11),
        file(2, "/a/b/y", 11),
        file(3, "/a/b/y", 13),
        file(4, "/a/b/c/z", 12, true),
        file(5, "/a/b", 12),
        file(6, "/a/b", 11),
      ],
    }),
  );
  const lines = operations.map(describeOperation);
  assertEquals(lines.filter((line) => line.startsWith("open")), [
    "open file 2 on 11, b/y",
    "open file 4 on 12, c",
    "open file 5 on 12, its root",
    "open file 6 on 11, b",
  ]);
  const last = lines.findLastIndex((line) => line.startsWith("open"));
  assert(last < lines.findIndex((line) => line.startsWith("attach")));
  assertEquals(
    planRestoreOfMounts(input([{ number: 1, mounts }], [], {
      files: [file(1, "/elsewhere", 13)],
    })).reasons.map(({ why }) => why),
    ["file /elsewhere is said to be on it, and is not below"],
  );
});

Deno.test("all that is missing is told at once", () => {
  const { reasons } = planRestoreOfMounts(input([{
    number: 1,
    mounts: [
      mount({ id: 10, parent: 5, point: "/", type: "ext4", device: 3 }),
      mount({
        id: 11,
        parent: 10,
        point: "/x",
        type: "xfs",
        device: 4,
        external: { kind: "named", name: "x" },
      }),
      mount({
        id: 12,
        parent: 10,
        point: "/y",
        type: "xfs",
        device: 6,
        external: { kind: "device", name: "y" },
      }),
      mount({
        id: 13,
        parent: 10,
        point: "/z",
        type: "tmpfs",
        device: 7,
        external: { kind: "automatic", path: "/z" },
      }),
    ],
  }], [HOST]));
  assertEquals(reasons.map(({ object, remedy }) => `${object}: ${remedy}`), [
    "mount 10 at / (ext4, none): name the directory: --root DIR",
    "mount 11 at /x (xfs, none): --external mnt[x]:PATH",
    "mount 13 at /z (tmpfs, none): --external mnt[]",
    "mount 12 at /y (xfs, none): --external dev[y]:DEVICE",
  ]);
});

Deno.test("a slave of the host follows a mount that is shared, or nothing", () => {
  const mounts = [
    mount({
      id: 10,
      parent: 5,
      point: "/",
      type: "ext4",
      device: 0x800001,
      root: "/c",
      hostPath: "/c",
      master: 7,
      masterPath: "/",
    }),
  ];
  const shared = { ...HOST, shared: 33 };
  const images = [{ number: 1, mounts }];
  assertEquals(
    planRestoreOfMounts(input(images, [shared])).operations
      .filter(({ kind }) => kind === "join host" || kind === "slave"),
    [
      { kind: "join host", mount: 10, host: 1, path: "/" },
      { kind: "slave", mount: 10 },
    ],
  );
  assertEquals(planRestoreOfMounts(input(images, [HOST])).reasons, [{
    object: "mount 10 at / (ext4, none)",
    why: "it gets its mounts from outside of the image, and the host's mount " +
      "1 at / (8:1, /, not shared), the host's mount 1 at / (8:1, /, not " +
      "shared) cannot be joined",
    remedy: "mount / as it was at the dump (shared), or take the mount from " +
      "one that is: --external, --root",
  }]);
});

Deno.test("a path is looked up as the kernel walks it", () => {
  const tree = new MountTree([
    mount({ id: 1, parent: 0, point: "/" }),
    mount({ id: 2, parent: 1, point: "/a/b" }),
    mount({ id: 3, parent: 1, point: "/a" }),
    mount({ id: 4, parent: 3, point: "/a" }),
    mount({ id: 5, parent: 4, point: "/a/c" }),
  ]);
  const at = (path: string) => tree.lookup(path)!.id;
  assertEquals(
    ["/", "/a", "/a/b", "/a/b/c", "/a/c", "/a/c/d", "/ab"].map(at),
    [1, 4, 4, 4, 5, 5, 1],
  );
  const over = new MountTree([
    mount({ id: 1, parent: 0, point: "/" }),
    mount({ id: 2, parent: 1, point: "/" }),
    mount({ id: 3, parent: 1, point: "/a" }),
    mount({ id: 4, parent: 2, point: "/a" }),
  ]);
  assertEquals(
    ["/", "/a", "/b"].map((path) => over.lookup(path)!.id),
    [1, 3, 1],
  );
  assertEquals(
    over.mounts.map((mount) => over.isOverRoot(mount)),
    [false, true, false, true],
  );
  assertEquals(isWithin("/ab", "/a"), false);
});
