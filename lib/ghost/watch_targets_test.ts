import { assert, assertEquals } from "@std/assert";
import { type FileStatus, S_IF } from "../ffi/syscall.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { FileHandle } from "./handles.ts";
import {
  type FileSystems,
  findTargets,
  type SearchOptions,
  targetKey,
  type WatchedInode,
} from "./watch_targets.ts";

/** A file of the model: its names on its file system, without mounts. */
interface ModelFile {
  readonly device: number;
  readonly inode: bigint;
  readonly names: readonly string[];
  /** The name that the kernel has in its cache. */
  readonly cached: string | undefined;
  readonly directory?: boolean;
  /** Names by which the tree has it open. */
  readonly open?: readonly string[];
  readonly inUse?: boolean;
}

/** A part of a file system at a mount point. */
interface ModelMount {
  readonly point: string;
  readonly device: number;
  readonly root: string;
}

const within = (path: string, root: string) =>
  root === "/" || path === root || path.startsWith(`${root}/`);
const joined = (a: string, b: string) => `${a}/${b}`.replace(/\/+/g, "/");

/** File systems that are only written down. */
class Model implements FileSystems {
  decoded = 0;

  constructor(
    readonly files: readonly ModelFile[],
    /** Later ones are mounted on earlier ones. */
    readonly mounts: readonly ModelMount[],
  ) {}

  watch(file: ModelFile): WatchedInode {
    const { device, inode } = file;
    return { device, inode, handle: this.#handle(file) };
  }

  #handle({ device, inode }: ModelFile): FileHandle {
    return { type: device, bytes: Uint8Array.of(Number(inode)) };
  }

  at(path: string): ModelFile | undefined {
    const mount = this.mounts.filter(({ point }) => within(path, point))
      .sort((a, b) => a.point.length - b.point.length).at(-1);
    if (mount === undefined) return undefined;
    const { point, root, device } = mount;
    const rest = path.slice(point === "/" ? 0 : point.length);
    const name = joined(root, rest).replace(/(.)\/$/, "$1");
    return this.files.find((file) =>
      file.device === device && file.names.includes(name)
    );
  }

  mountsOf(device: number): readonly string[] {
    return this.mounts.filter((mount) => mount.device === device)
      .map(({ point }) => point);
  }

  get anyMounts(): readonly string[] {
    return this.mounts.map(({ point }) => point);
  }

  isMountPoint(path: string): boolean {
    return this.mounts.some(({ point }) => point === path);
  }

  leadsTo(path: string, { device, inode }: WatchedInode): boolean {
    const file = this.at(path);
    return file?.device === device && file.inode === inode;
  }

  leadTo(paths: readonly string[], targets: readonly WatchedInode[]) {
    return paths.map((path, i) => this.leadsTo(path, targets[i]));
  }

  decode(directory: string, handles: readonly FileHandle[]) {
    return handles.map((handle) => this.#decodeOne(directory, handle));
  }

  #decodeOne(directory: string, handle: FileHandle) {
    this.decoded++;
    const mount = this.mounts.find(({ point }) => point === directory)!;
    const file = this.files.find((file) =>
      file.device === mount.device && file.device === handle.type &&
      file.inode === BigInt(handle.bytes[0])
    );
    if (file === undefined) return undefined;
    const { cached, names, directory: isDirectory } = file;
    const inside = cached !== undefined && within(cached, mount.root);
    // What lies outside of the mount is shown from the file system's root.
    const link = cached === undefined ? "/" : inside
      ? joined(
        mount.point,
        mount.root === "/" ? cached : cached.slice(mount.root.length),
      )
      : cached;
    const status = {
      ino: file.inode,
      dev: BigInt(file.device),
      nlink: BigInt(names.length),
      mode: isDirectory ? S_IF.DIR : S_IF.REG,
    } as FileStatus;
    return { link: names.length === 0 ? `${link} (deleted)` : link, status };
  }

  namesInUse(inode: bigint): readonly string[] {
    return this.files.filter((file) => file.inode === inode)
      .flatMap(({ open = [] }) => open);
  }

  inUse(status: FileStatus) {
    const file = this.files.find(({ inode, device }) =>
      inode === status.ino && BigInt(device) === status.dev
    );
    return file?.inUse ? { link: `used ${file.inode}`, status } : undefined;
  }

  *list(directory: string) {
    const prefix = directory === "/" ? "/" : `${directory}/`;
    const names = new Set<string>();
    for (const mount of this.mounts) {
      for (const file of this.files) {
        if (file.device !== mount.device) continue;
        for (const name of file.names) {
          if (!within(name, mount.root)) continue;
          const rest = mount.root === "/"
            ? name
            : name.slice(mount.root.length);
          const path = joined(mount.point, rest);
          if (!path.startsWith(prefix)) continue;
          const [first] = path.slice(prefix.length).split("/");
          if (first !== "") names.add(first);
        }
      }
    }
    for (const name of names) {
      const found = this.at(prefix + name);
      if (found === undefined) continue;
      yield { name, isDirectory: found.directory ?? false };
    }
  }

  inodeAt(path: string): bigint | undefined {
    return this.at(path)?.inode;
  }
}

function found(model: Model, file: ModelFile, search?: SearchOptions) {
  const target = model.watch(file);
  return findTargets([target], model, search).get(targetKey(target))!;
}

const file = (
  more: Partial<ModelFile> & Pick<ModelFile, "names">,
): ModelFile => ({
  device: 1,
  inode: 5n,
  cached: more.names[0],
  ...more,
});
const ROOT = file({ inode: 2n, names: ["/"], directory: true });
const D = file({ inode: 3n, names: ["/d"], directory: true });
const OTHER = file({ inode: 9n, names: ["/d/a"] });
const WHOLE = { point: "/", device: 1, root: "/" };

/** What is there, and what is found: a path, "lost", "unknown" or "deleted". */
const CASES: readonly [
  what: string,
  target: ModelFile,
  others: readonly ModelFile[],
  mounts: readonly ModelMount[],
  search: SearchOptions,
  expected: string,
][] = [
  ["its path", file({ names: ["/d/a"] }), [], [WHOLE], {}, "/d/a"],
  [
    "one of two names",
    file({ names: ["/x", "/d/a"], cached: "/d/a" }),
    [],
    [WHOLE],
    {},
    "/d/a",
  ],
  [
    "a name through another mount of the device",
    file({ names: ["/d/e/a"] }),
    [],
    [{ point: "/", device: 2, root: "/" }, {
      point: "/m",
      device: 1,
      root: "/d",
    }],
    {},
    "/m/e/a",
  ],
  [
    "a path that the kernel shows from the root of the file system",
    file({ names: ["/d/e/a", "/d/e/b"], cached: "/d/e/a" }),
    [],
    [{ point: "/n", device: 1, root: "/x" }, {
      point: "/m",
      device: 1,
      root: "/d/e",
    }],
    {},
    "/m/a",
  ],
  [
    "no name in the cache, but one the tree has open",
    file({ names: ["/d/a"], cached: undefined, open: ["/d/a"] }),
    [],
    [WHOLE],
    {},
    "/d/a",
  ],
  [
    "a name of the tree that another file has by now",
    file({ names: ["/x"], cached: undefined, open: ["/d/a"] }),
    [OTHER],
    [WHOLE],
    {},
    "unknown",
  ],
  [
    "a deleted file of the tree",
    file({ names: [], cached: "/d/a", inUse: true }),
    [OTHER],
    [WHOLE],
    {},
    "lost",
  ],
  [
    "a deleted file of others",
    file({ names: [], cached: "/d/a" }),
    [OTHER],
    [WHOLE],
    { forceIrmap: true },
    "deleted",
  ],
  [
    "no name in the cache",
    file({ names: ["/d/a"], cached: undefined }),
    [],
    [WHOLE],
    {},
    "unknown",
  ],
  [
    "no name in the cache, but a search of the file system",
    file({ names: ["/d/a"], cached: undefined }),
    [],
    [WHOLE],
    { forceIrmap: true },
    "/d/a",
  ],
  [
    "a search at the right place",
    file({ names: ["/d/a"], cached: undefined }),
    [],
    [WHOLE],
    { irmapScanPaths: ["/nowhere", "/d"] },
    "/d/a",
  ],
  [
    "a search that begins at the file",
    file({ names: ["/d/a"], cached: undefined }),
    [],
    [WHOLE],
    { irmapScanPaths: ["/d/a"] },
    "/d/a",
  ],
  [
    "a search at the wrong place",
    file({ names: ["/d/a"], cached: undefined }),
    [file({ inode: 4n, names: ["/e"], directory: true })],
    [WHOLE],
    { irmapScanPaths: ["/e"] },
    "unknown",
  ],
  [
    "another mount over it",
    file({ names: ["/d/a"] }),
    [],
    [WHOLE, { point: "/d", device: 2, root: "/" }],
    { forceIrmap: true },
    "unknown",
  ],
];

for (const [what, target, others, mounts, search, expected] of CASES) {
  Deno.test(`a watched file with ${what}: ${expected}`, () => {
    const model = new Model([ROOT, D, target, ...others], mounts);
    const one = found(model, target, search);
    assertEquals(
      one.kind === "path"
        ? one.path
        : one.kind === "unknown" && one.deleted
        ? "deleted"
        : one.kind,
      expected,
    );
  });
}

Deno.test("a path that was found before is not looked for again, unless it leads elsewhere", () => {
  const target = file({ names: ["/d/a"] });
  const model = new Model([ROOT, D, target], [WHOLE]);
  const watch = model.watch(target);
  const before = findTargets([watch], model);
  const { decoded } = model;
  assertEquals(findTargets([watch], model, {}, before), before);
  assertEquals(model.decoded, decoded);
  const renamed = file({ names: ["/d/b"] });
  const after = new Model([ROOT, D, renamed, OTHER], [WHOLE]);
  assertEquals(findTargets([watch], after, {}, before).get(targetKey(watch)), {
    kind: "path",
    path: "/d/b",
  });
});

Deno.test("the file of an overlay is found by its layer, below the overlay", () => {
  const overlay = file({ device: 0xf8, names: ["/e/a"], cached: undefined });
  const layer = file({ device: 1, inode: 77n, names: ["/up/e/a"] });
  const model = new Model([overlay, layer], [
    WHOLE,
    { point: "/o", device: 0xf8, root: "/" },
  ]);
  const bytes = new Uint8Array(25);
  // Magic, length, type of the handle in the layer, its one byte.
  bytes.set([0xfb, 22], 4);
  bytes.set([1], 7);
  bytes.set([77], 24);
  const watch = {
    device: 0xf8,
    inode: 5n,
    handle: { type: 0xf8, bytes },
  };
  assertEquals(findTargets([watch], model).get(targetKey(watch)), {
    kind: "path",
    path: "/o/e/a",
  });
});

Deno.test("on random file systems every path leads to its file, and none is missed", () => {
  let paths = 0, searched = 0, unknown = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const random = seededRandom(seed);
    const below = (limit: number) => Math.floor(random() * limit);
    const pick = <T>(all: readonly T[]) => all[below(all.length)];
    const directories = ["/", "/a", "/b", "/a/c", "/a/c/d"];
    const files: ModelFile[] = [];
    for (const device of [1, 2]) {
      directories.forEach((name, i) =>
        files.push({
          device,
          inode: BigInt(10 + i),
          names: [name],
          cached: name,
          directory: true,
        })
      );
      const taken = new Set<string>();
      for (let i = 0; i < 6; i++) {
        const names: string[] = [];
        for (let n = below(3); n > 0; n--) {
          const name = joined(pick(directories), pick(["x", "y", "z"]));
          if (!taken.has(name)) names.push(name);
          taken.add(name);
        }
        files.push({
          device,
          inode: BigInt(20 + i),
          names,
          cached: below(3) === 0 ? undefined : pick(names) ?? "/gone",
          inUse: below(2) === 0,
          open: names.filter(() => below(4) === 0),
        });
      }
    }
    const mounts: ModelMount[] = [{ point: "/", device: 1, root: "/" }];
    for (const point of ["/a", "/b", "/a/c"]) {
      if (below(2) === 0) continue;
      mounts.push({ point, device: 1 + below(2), root: pick(directories) });
    }
    const model = new Model(files, mounts);
    const forceIrmap = below(2) === 0;
    const all = findTargets(
      files.map((file) => model.watch(file)),
      model,
      { forceIrmap },
    );
    for (const file of files) {
      const target = model.watch(file);
      const one = all.get(targetKey(target))!;
      const visible = mounts.flatMap(({ point, device, root }) =>
        device !== file.device ? [] : file.names.flatMap((name) => {
          const rest = root === "/" ? name : name.slice(root.length);
          const path = joined(point, rest).replace(/(.)\/$/, "$1");
          return within(name, root) && model.leadsTo(path, target)
            ? [{ path, name }]
            : [];
        })
      );
      const what = `seed ${seed}, inode ${file.inode} of ${file.device}`;
      if (one.kind === "path") {
        assert(model.leadsTo(one.path, target), what);
        paths++;
        continue;
      }
      assert(!visible.some(({ name }) => name === file.cached), what);
      if (one.kind === "lost") {
        assert(file.inUse, what);
        continue;
      }
      unknown++;
      if (one.deleted) assertEquals(file.names, [], what);
      // A search goes through directories that can be reached themselves.
      if (forceIrmap && !one.deleted) {
        assertEquals(visible, [], what);
        searched++;
      }
    }
  }
  assert(paths > 1000 && searched > 100 && unknown > 100);
});
