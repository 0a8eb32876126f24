import { assertEquals, assertRejects } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { encodeImage } from "../image/framing.ts";
import { readImageSet } from "../image/image_set.ts";
import { type Content, type ImageKind, imageName } from "../image/kinds.ts";
import { fd_types } from "../image/schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithManifest,
  writeWithoutManifest,
} from "../image/testing/minimal_image.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { MAP } from "../mm/vma.ts";
import {
  pagesPath,
  readTaskImages,
  regularFile,
  type TaskImages,
} from "./task_images.ts";

type Part<K extends ImageKind> = [K, number | undefined, Content<K>];

/** Writes an image, changed, with more files, and reads it. */
async function read<T>(
  change: (image: MinimalImage) => void,
  more: Part<ImageKind>[],
  use: (images: TaskImages) => T,
): Promise<T> {
  const directory = await Deno.makeTempDir();
  try {
    const image = minimalImage();
    change(image);
    writeWithoutManifest(directory, image);
    for (const [kind, index, content] of more) {
      Deno.writeFileSync(
        `${directory}/${imageName(kind, index)}`,
        encodeImage(kind, content),
      );
    }
    return use(readTaskImages(await readImageSet(directory)));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function refused(
  change: (image: MinimalImage) => void,
  ...more: Part<ImageKind>[]
): Promise<(readonly [string, string])[]> {
  const error = await assertRejects(
    () => read(change, more, () => undefined),
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
      const images = readTaskImages(await readImageSet(directory));
      assertEquals(images.pid, image.pid);
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

Deno.test("trees, stopped programs and labels are refused", async () => {
  assertEquals(
    await refused((image) => {
      image.pstree.push({ ...image.pstree[0], pid: 4243, threads: [4243] });
    }),
    [["pstree.img", "it holds 2 processes; trees are not supported yet"]],
  );
  assertEquals(
    await refused((image) => {
      image.core.tc!.task_state = 3;
    }),
    [[
      "core-4242.img",
      "the program is stopped or ended, which is not supported yet",
    ]],
  );
  assertEquals(
    await refused((image) => {
      image.core.thread_core!.creds!.lsm_profile = "lxc-container";
    }),
    [["core-4242.img", "the label lxc-container is not supported"]],
  );
});

Deno.test("every namespace of the program's own is refused by name", async () => {
  for (
    const name of [
      "pid",
      "net",
      "ipc",
      "uts",
      "mnt",
      "user",
      "cgroup",
      "time",
    ] as const
  ) {
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
        { id: 8, flags: 0, type: fd_types.EVENTFD, fd: 7 },
        { id: 9, flags: 0, type: fd_types.UNIXSK, fd: 8 },
      );
    }),
    [
      ["descriptor 7", "its kind EVENTFD is not supported yet"],
      ["descriptor 8", "its kind UNIXSK is not supported yet"],
    ],
  );
});

Deno.test("every kind of area that is not restored is refused, all at once", async () => {
  const kinds = [
    [VMA_STATUS.SYSVIPC, "System V shared memory"],
    [VMA_STATUS.SOCKET, "memory of a packet socket"],
    [VMA_STATUS.AIORING, "asynchronous I/O"],
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

Deno.test("files without a name and locks are refused, empty lists are not", async () => {
  assertEquals(
    await refused(UNCHANGED, ["filelocks", undefined, [{
      flag: 1,
      type: 0,
      pid: 4242,
      fd: 0,
      start: 0n,
      len: 0n,
    }]]),
    [["filelocks.img", "file locks are not supported yet"]],
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

/** Shared memory as CRIU writes it: an area of a memfd. */
function memfdArea(name: string): Part<ImageKind>[] {
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

Deno.test("a memfd of the program's own is refused", async () => {
  assertEquals(await refused(withMemfd, ...memfdArea("mine")), [[
    "mm image, area 1000000000",
    "memory of a memfd is not supported yet",
  ]]);
});
