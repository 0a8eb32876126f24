/** The executor against the kernel: what it makes is read back. */
import { assertEquals } from "@std/assert";
import { readMountInfo } from "../proc/read.ts";
import { joinPath, type Mount, mountOf, MS, relativePath } from "./mount.ts";
import { MadeNamespaces } from "./made_namespaces.ts";
import { MountTree } from "./mount_tree.ts";
import { OwnNamespace } from "./own_namespace.ts";
import type { ImageMount } from "./image_mounts.ts";
import { planRestoreOfMounts } from "./plan_restore.ts";
import { readNamespace } from "./read_namespace.ts";

const isRoot = Deno.uid() === 0;

const EMPTY = {
  namespace: 1,
  device: 40,
  root: "/",
  type: "tmpfs",
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
  return { ...EMPTY, ...fields };
}

/** Directories that stand for what would be in a file system. */
async function make(
  namespaces: readonly (readonly ImageMount[])[],
  directories: Record<number, readonly string[]> = {},
): Promise<Mount[][]> {
  const host = readMountInfo(Deno.pid).map((info) => mountOf(info, 0));
  const tree = new MountTree(host);
  const numbers = namespaces.map((_, i) => i + 1);
  const { operations, reasons } = planRestoreOfMounts({
    namespaces: namespaces.map((mounts, i) => ({ number: i + 1, mounts })),
    host,
    mounts: new Map(),
    devices: new Map(),
    automatic: true,
    files: [],
    hasContent: () => true,
    place(path) {
      const mount = tree.lookup(path)!;
      const rest = relativePath(path, mount.point);
      return { path, mount, root: joinPath(mount.root, rest) };
    },
  });
  assertEquals(reasons, []);
  using made = await MadeNamespaces.make(
    operations,
    numbers,
    (mount) => `mount ${mount}`,
    {
      fill: (device, root) => {
        for (const name of directories[device] ?? []) {
          Deno.mkdirSync(`/proc/self/fd/${root}/${name}`, { recursive: true });
        }
        return Promise.resolve();
      },
      fillSource: () => Promise.reject(new Error("nothing was removed")),
    },
  );
  using own = new OwnNamespace();
  return numbers.map((number) => {
    return readNamespace(own, made.get(number)).map((info) =>
      mountOf(info, number)
    );
  });
}

/** What of a mount is the same after ids, devices and groups are renamed. */
function shape(namespaces: readonly (readonly Mount[])[]): unknown {
  const all = namespaces.flat();
  const ids = new Map(all.map(({ id }, i) => [id, i]));
  const numbers = new Map<string, number>();
  const number = (kind: string, value: number) => {
    const key = `${kind} ${value}`;
    if (!numbers.has(key)) numbers.set(key, numbers.size);
    return value === 0 ? 0 : numbers.get(key)!;
  };
  return namespaces.map((mounts) =>
    mounts.map(({ parent, device, root, point, type, flags, ...rest }) => ({
      parent: ids.get(parent),
      device: number("device", device),
      shared: number("group", rest.shared),
      master: number("group", rest.master),
      root,
      point,
      type,
      flags: flags & ~(MS.SHARED | MS.SLAVE),
    }))
  );
}

async function comesBack(
  namespaces: readonly (readonly ImageMount[])[],
  directories: Record<number, readonly string[]> = {},
): Promise<void> {
  const before = readMountInfo(Deno.pid);
  const made = await make(namespaces, directories);
  assertEquals(shape(made), shape(namespaces));
  assertEquals(readMountInfo(Deno.pid), before, "the host's own mounts");
}

function test(name: string, run: () => Promise<void>): void {
  Deno.test({ name, ignore: !isRoot, fn: run });
}

test("a tree of file systems is made in a namespace of its own", () =>
  comesBack([[
    mount({ id: 10, parent: 5, point: "/", device: 40 }),
    mount({
      id: 11,
      parent: 10,
      point: "/a",
      device: 41,
      flags: MS.NODEV | MS.STRICTATIME | MS.NODIRATIME | MS.NOSYMFOLLOW,
    }),
    mount({ id: 12, parent: 11, point: "/a/b", device: 42, type: "proc" }),
    mount({
      id: 13,
      parent: 10,
      point: "/c",
      device: 41,
      root: "/b",
      flags: MS.RELATIME | MS.RDONLY | MS.NOEXEC | MS.NOSUID,
    }),
  ]], { 40: ["a", "c"], 41: ["b"] }));

test("covered mounts, and those on the root, are where they were", () =>
  comesBack([[
    mount({ id: 10, parent: 5, point: "/", device: 40 }),
    mount({ id: 12, parent: 10, point: "/a/b", device: 42 }),
    mount({ id: 11, parent: 10, point: "/a", device: 41 }),
    mount({ id: 13, parent: 11, point: "/a", device: 43 }),
    mount({ id: 14, parent: 10, point: "/", device: 44 }),
  ]], { 40: ["a/b"] }));

test("peer groups and their slaves span namespaces", () =>
  comesBack([
    [
      mount({ id: 10, parent: 5, point: "/", device: 40 }),
      mount({ id: 11, parent: 10, point: "/a", device: 41, shared: 3 }),
      mount({
        id: 12,
        parent: 10,
        point: "/b",
        device: 41,
        shared: 4,
        master: 3,
      }),
      mount({ id: 13, parent: 10, point: "/c", device: 41, master: 4 }),
      mount({
        id: 14,
        parent: 10,
        point: "/d",
        device: 41,
        root: "/x/1",
        shared: 6,
      }),
      mount({
        id: 15,
        parent: 10,
        point: "/e",
        device: 41,
        root: "/x/2",
        shared: 6,
        flags: MS.RELATIME,
      }),
    ],
    [
      mount({ id: 20, parent: 6, point: "/", device: 40, namespace: 2 }),
      mount({
        id: 21,
        parent: 20,
        point: "/a",
        device: 41,
        shared: 3,
        namespace: 2,
      }),
      mount({
        id: 22,
        parent: 20,
        point: "/b",
        device: 41,
        root: "/x",
        master: 6,
        namespace: 2,
      }),
      mount({
        id: 23,
        parent: 20,
        point: "/c",
        device: 45,
        flags: MS.RELATIME | MS.UNBINDABLE,
        namespace: 2,
      }),
    ],
  ], { 40: ["a", "b", "c", "d", "e"], 41: ["x/1", "x/2"] }));

test("parts of the host are bound, and follow it where they did", async () => {
  using directory = {
    path: Deno.makeTempDirSync(),
    [Symbol.dispose]() {
      Deno.removeSync(this.path, { recursive: true });
    },
  };
  Deno.mkdirSync(`${directory.path}/x`);
  const [[root, part]] = await make([[
    mount({
      id: 10,
      parent: 5,
      point: "/",
      type: "ext4",
      root: "/c",
      hostPath: directory.path,
    }),
    mount({ id: 11, parent: 10, point: "/x", type: "ext4", root: "/c/x" }),
  ]]);
  assertEquals([root.device, part.root], [part.device, `${root.root}/x`]);
});

test("what the kernel refuses is told, and nothing is left", async () => {
  const before = readMountInfo(Deno.pid);
  let message = "";
  try {
    await make([[
      mount({ id: 10, parent: 5, point: "/", device: 40 }),
      mount({
        id: 11,
        parent: 10,
        point: "/a",
        device: 41,
        options: ["size=many"],
      }),
    ]]);
  } catch (error) {
    message = (error as Error).message;
  }
  assertEquals(
    message,
    "making the mounts: create 13: tmpfs none (size=many): mount 13: " +
      "fsconfig: EINVAL (invalid argument) (tmpfs: Bad value for 'size')",
  );
  assertEquals(readMountInfo(Deno.pid), before);
});
