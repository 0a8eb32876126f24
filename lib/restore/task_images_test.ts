import { assertEquals, assertRejects } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { readImageSet } from "../image/image_set.ts";
import { fd_types, remap_type } from "../image/schema.gen.ts";
import {
  endImage,
  type ImagePart,
  minimalChild,
  type MinimalImage,
  minimalImage,
  writeWithManifest,
  writeWithoutManifest,
} from "../image/testing/minimal_image.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { MAP } from "../mm/vma.ts";
import {
  pagesPath,
  readTreeImages,
  regularFile,
  type TaskImages,
} from "./task_images.ts";
import { withTree } from "./testing/tree_images.ts";

/** Writes an image of one process, changed, with more files, and reads it. */
function read<T>(
  change: (image: MinimalImage) => void,
  more: ImagePart[],
  use: (images: TaskImages) => T,
): Promise<T> {
  const image = minimalImage();
  change(image);
  return withTree([image], ({ processes: [root] }) => use(root), more);
}

function refused(
  change: (image: MinimalImage) => void,
  ...more: ImagePart[]
): Promise<(readonly [string, string])[]> {
  const image = minimalImage();
  change(image);
  return refusedTree([image], ...more);
}

async function refusedTree(
  images: MinimalImage[],
  ...more: ImagePart[]
): Promise<(readonly [string, string])[]> {
  const error = await assertRejects(
    () => withTree(images, () => undefined, more),
    CkptError,
  );
  assertEquals(error.exit, EXIT.refused);
  return error.reasons.map(({ object, why }) => [object, why] as const);
}

const UNCHANGED = () => {};

Deno.test("the smallest image is read, with and without a manifest", async () => {
  const image = minimalImage();
  for (const write of [writeWithManifest, writeWithoutManifest]) {
    const directory = await Deno.makeTempDir();
    try {
      await write(directory, image);
      const tree = readTreeImages(readImageSet(directory));
      assertEquals(tree.tree, image.pstree);
      assertEquals(tree.zombies, []);
      assertEquals(tree.shared, []);
      const [images, ...others] = tree.processes;
      assertEquals(others, []);
      assertEquals(images.pid, image.pid);
      assertEquals(images.stopSignal, 0);
      assertEquals(images.threads.map(({ tid }) => tid), [image.pid]);
      assertEquals(images.mm.vmas.length, image.mm.vmas.length);
      assertEquals(images.descriptors.map(({ fd }) => fd), [0, 1, 2]);
      assertEquals([...images.files.keys()], [1, 2, 3, 4]);
      assertEquals(images.shared, []);
      assertEquals(images.seccomp, { seccomp_filters: [] });
      assertEquals(images.extension, { threads: [], areas: [], cgroups: [] });
      assertEquals(
        pagesPath(images.set, images.pagemap),
        `${directory}/pages-1.img`,
      );
      assertEquals(regularFile(images, 3).name, "/srv");
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  }
});

Deno.test("the program file has to be a file of the image", async () => {
  const error = await assertRejects(
    () => read(UNCHANGED, [], (images) => regularFile(images, 9)),
    CkptError,
  );
  assertEquals(error.exit, EXIT.image);
  assertEquals(error.reasons[0].object, "files.img, id 9");
});

const ROOT = 4242;

/** A child of the root, or of another process, in the session of the root. */
function child(
  pid: number,
  ppid = ROOT,
  change: (image: MinimalImage) => void = () => {},
): MinimalImage {
  const image = minimalChild(pid, { ppid, pgid: ROOT, sid: ROOT });
  change(image);
  return image;
}

function zombie(pid: number, status: number): MinimalImage {
  const image = child(pid);
  image.core.tc!.comm = `z${pid}`;
  endImage(image, status);
  return image;
}

Deno.test("a tree is read: those that live, and those that ended, with what is left of them", async () => {
  const extension = { threads: [], areas: [], cgroups: [], exit_signal: 10 };
  const images = [
    minimalImage(ROOT),
    child(11),
    zombie(12, 0x2a00),
    child(13, 11, (image) => {
      image.pstree[0].threads.push(1300);
      image.ids.files_id = 11;
    }),
    zombie(14, 0x8b),
  ];
  const { core } = child(1300);
  await withTree(images, (tree) => {
    assertEquals(tree.tree.map(({ pid }) => pid), [ROOT, 11, 12, 13, 14]);
    assertEquals(
      tree.processes.map(({ pid, tree: { ppid }, threads, descriptors }) => [
        pid,
        ppid,
        threads.map(({ tid }) => tid),
        descriptors.length,
      ]),
      [
        [ROOT, 0, [ROOT], 3],
        [11, ROOT, [11], 3],
        [13, 11, [13, 1300], 3],
      ],
    );
    assertEquals(tree.zombies, [
      { pid: 12, comm: "z12", status: 0x2a00, extension },
      {
        pid: 14,
        comm: "z14",
        status: 0x8b,
        extension: { threads: [], areas: [], cgroups: [] },
      },
    ]);
  }, [["ckpt-task", 12, extension], ["core", 1300, {
    ...core,
    tc: undefined,
  }]]);
});

Deno.test("the root must not have ended", async () => {
  const root = minimalImage(ROOT);
  root.core.tc!.task_state = 2;
  // What else is there of it counts for nothing.
  assertEquals(await refusedTree([root, child(11)]), [
    ["pstree.img", `its root, process ${ROOT}, has ended`],
  ]);
});

Deno.test("a stopped process tells with which signal; without one it was SIGSTOP", async () => {
  for (const [stop_signo, expected] of [[undefined, 19], [19, 19], [20, 20]]) {
    const stopped = child(11, ROOT, ({ core }) => {
      core.tc!.task_state = 3;
      core.tc!.stop_signo = stop_signo;
    });
    await withTree([minimalImage(ROOT), stopped], ({ processes }) => {
      assertEquals(processes.map((p) => p.stopSignal), [0, expected]);
    });
  }
  // A signal that is said of one that ran means nothing.
  const alive = child(11, ROOT, ({ core }) => core.tc!.stop_signo = 20);
  await withTree([minimalImage(ROOT), alive], ({ processes }) => {
    assertEquals(processes.map((p) => p.stopSignal), [0, 0]);
  });
});

Deno.test("labels are refused", async () => {
  assertEquals(
    await refused((image) => {
      image.core.thread_core!.creds!.lsm_profile = "lxc-container";
    }),
    [["core-4242.img", "the label lxc-container is not supported"]],
  );
});

Deno.test("namespaces of kinds that are not restored are refused by name", async () => {
  for (const name of ["user", "cgroup"] as const) {
    assertEquals(
      await refused((image) => {
        image.ids[`${name}_ns_id`] = 77;
      }),
      [["the program", `its own ${name} namespace is not supported yet`]],
    );
  }
});

Deno.test("descriptors of kinds that are not restored are refused by kind", async () => {
  assertEquals(
    await refused((image) => {
      image.fdinfo.push(
        { id: 8, flags: 0, type: fd_types.EXT, fd: 7 },
        { id: 9, flags: 0, type: fd_types.UND, fd: 8 },
      );
    }),
    [
      ["descriptor 7 of process 4242", "its kind EXT is not supported yet"],
      [
        "descriptor 8 of process 4242",
        "its kind UND is not supported yet",
      ],
    ],
  );
});

Deno.test("System V segments are those of the dumper's namespace, with what CRIU cannot tell of them", async () => {
  const desc = { key: 7, uid: 1, gid: 2, cuid: 3, cgid: 4, mode: 0o1600 };
  const segment = (id: number) => ({
    desc: { ...desc, id },
    size: 4097n,
    in_pagemaps: true,
  });
  const pagemap = { pages_id: 1, entries: [] };
  await read(
    (image) => {
      const shared = VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC;
      image.mm.vmas.push({
        ...image.mm.vmas[0],
        start: 0x1000n,
        end: 0x3000n,
        shmid: 5n,
        flags: MAP.shared | MAP.anonymous,
        status: VMA_STATUS.REGULAR | shared,
      });
    },
    [
      ["ipcns-shm", 3, [segment(5), segment(6)]],
      ["ipcns-shm", 4, [segment(8)]],
      ["pagemap-shmem", 5, pagemap],
      ["pagemap-shmem", 6, pagemap],
      ["ckpt-segments", undefined, [{
        id: 6,
        changed: 99n,
        made_with_key: 8,
        attached_outside: true,
      }]],
    ],
    ({ segments, shared }) => {
      assertEquals(shared, []);
      const common = { ...desc, size: 4097n, pagemap };
      assertEquals([...segments], [
        [5n, {
          ...common,
          id: 5,
          changed: undefined,
          madeWithKey: 7,
          attachedOutside: false,
        }],
        [6n, {
          ...common,
          id: 6,
          changed: 99n,
          madeWithKey: 8,
          attachedOutside: true,
        }],
      ]);
    },
  );
});

Deno.test("every kind of area that is not restored is refused, all at once", async () => {
  const kinds = [
    [VMA_STATUS.SOCKET, "memory of a packet socket"],
    [VMA_STATUS.SHSTK, "a shadow stack"],
    [VMA_STATUS.UPROBES, "uprobes"],
    [VMA_STATUS.EXT_PLUGIN, "memory of a device"],
  ] as const;
  const at = (i: number) => 0x10_0000_0000n + BigInt(i) * 0x10000n;
  const reasons = await refused((image) => {
    kinds.forEach(([bit], i) => {
      image.mm.vmas.push({
        ...image.mm.vmas[0],
        start: at(i),
        end: at(i) + 4096n,
        status: VMA_STATUS.REGULAR | bit,
      });
    });
  });
  assertEquals(
    reasons,
    kinds.map(([, what], i) => [
      `mm image, area ${at(i).toString(16)}`,
      `${what} is not supported yet`,
    ]),
  );
});

Deno.test("leases that are broken are refused, files of processes that had ended are told, and lists may be empty", async () => {
  assertEquals(
    await refused(UNCHANGED, ["filelocks", undefined, [{
      flag: 8,
      type: 6,
      pid: 4242,
      fd: 0,
      start: 0n,
      len: 0n,
    }]]),
    [[
      "descriptor 0 of process 4242",
      "it has a lease that somebody waited for, which is not supported",
    ]],
  );
  const { id } = minimalImage().files.find(({ reg }) => reg)!;
  const remap = {
    orig_id: id,
    remap_id: 77,
    remap_type: remap_type.PROCFS,
  };
  assertEquals(
    await withTree(
      [minimalImage()],
      ({ endedTasks, remaps }) => [[...endedTasks], remaps.size],
      [["remap-fpath", undefined, [remap]]],
    ),
    [[[77, 77]], 0],
  );
  assertEquals(
    await read(
      UNCHANGED,
      [["filelocks", undefined, []], ["remap-fpath", undefined, []]],
      ({ pid }) => pid,
    ),
    4242,
  );
});

Deno.test("shared memory is one object, as large as its areas show it", async () => {
  const areas = [[0n, 4n], [8n, 2n], [2n, 3n]];
  const shared = await read(
    (image) => {
      areas.forEach(([offset, length], i) => {
        const start = 0x10_0000_0000n + BigInt(i) * 0x10_0000n;
        image.mm.vmas.push({
          ...image.mm.vmas[0],
          start,
          end: start + length * 4096n,
          pgoff: offset * 4096n,
          shmid: 55n,
          flags: MAP.shared | MAP.anonymous,
          status: VMA_STATUS.REGULAR | VMA_STATUS.ANON_SHARED,
        });
      });
    },
    [["pagemap-shmem", 55, { pages_id: 7, entries: [] }]],
    (images) =>
      images.shared.map(({ id, size, pagemap }) => [
        id,
        size,
        pagemap.pages_id,
      ]),
  );
  assertEquals(shared, [[55n, 10n * 4096n, 7]]);
});

Deno.test("shared memory of several processes is one object, as large as any shows it", async () => {
  const area = (image: MinimalImage, shmid: bigint, pages: bigint) =>
    image.mm.vmas.push({
      ...image.mm.vmas[0],
      start: 0x10_0000_0000n + shmid * 0x100_0000n,
      end: 0x10_0000_0000n + shmid * 0x100_0000n + pages * 4096n,
      shmid,
      flags: MAP.shared | MAP.anonymous,
      status: VMA_STATUS.REGULAR | VMA_STATUS.ANON_SHARED,
    });
  const root = minimalImage(ROOT);
  area(root, 55n, 2n);
  const images = [
    root,
    child(11, ROOT, (image) => area(image, 55n, 7n)),
    child(12, ROOT, (image) => {
      area(image, 55n, 3n);
      area(image, 56n, 1n);
    }),
  ];
  await withTree(images, ({ shared, processes }) => {
    const told = (objects: typeof shared) =>
      objects.map(({ id, size }) => [id, size / 4096n]);
    assertEquals(told(shared), [[55n, 7n], [56n, 1n]]);
    assertEquals(processes.map(({ shared }) => told(shared)), [
      [[55n, 2n]],
      [[55n, 7n]],
      [[55n, 3n], [56n, 1n]],
    ]);
  }, [
    ["pagemap-shmem", 55, { pages_id: 7, entries: [] }],
    ["pagemap-shmem", 56, { pages_id: 8, entries: [] }],
  ]);
});

/** Shared memory as CRIU writes it: an area of a memfd. */
function memfdArea(name: string): ImagePart[] {
  return [
    ["memfd", undefined, [{
      name,
      uid: 0,
      gid: 0,
      size: 3n * 4096n,
      shmid: 55,
      seals: 0,
      inode_id: 12n,
    }]],
    ["pagemap-shmem", 55, { pages_id: 7, entries: [] }],
  ];
}

function withMemfd(image: MinimalImage): void {
  const { fown } = image.files[0].reg!;
  image.files.push({
    type: fd_types.MEMFD,
    id: 30,
    memfd: { id: 30, flags: 2, pos: 0n, fown, inode_id: 12 },
  });
  image.mm.vmas.push({
    ...image.mm.vmas[0],
    start: 0x10_0000_0000n,
    end: 0x10_0000_1000n,
    shmid: 30n,
    flags: MAP.shared,
    status: VMA_STATUS.REGULAR | VMA_STATUS.FILE_SHARED | VMA_STATUS.MEMFD,
  });
}

Deno.test("shared memory that CRIU wrote as a memfd becomes shared memory", async () => {
  const found = await read(
    withMemfd,
    memfdArea("/dev/zero"),
    ({ mm, shared }) => ({ area: mm.vmas.at(-1)!, shared }),
  );
  assertEquals(
    found.shared.map(({ id, size }) => [id, size]),
    [[55n, 3n * 4096n]],
  );
  const { shmid, flags, status } = found.area;
  assertEquals([shmid, flags, status], [
    55n,
    MAP.shared | MAP.anonymous,
    VMA_STATUS.REGULAR | VMA_STATUS.ANON_SHARED,
  ]);
});

Deno.test("a memfd of the program's own is one object with all its files", async () => {
  const image = minimalImage();
  withMemfd(image);
  const { memfd } = image.files.at(-1)!;
  for (const id of [31, 32]) {
    image.files.push({
      type: fd_types.MEMFD,
      id,
      memfd: { ...memfd!, id, flags: 0 },
    });
  }
  image.fdinfo.push({ id: 31, flags: 0, type: fd_types.MEMFD, fd: 9 });
  const found = await withTree(
    [image],
    ({ memfds }) => memfds,
    memfdArea("mine"),
  );
  assertEquals(
    found.map(({ entry, files, pagemap }) => [entry.name, files, pagemap]),
    [["mine", [30, 31], { pages_id: 7, entries: [] }]],
  );
});
