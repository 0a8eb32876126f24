import { assertEquals } from "@std/assert";
import { O } from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import type { reg_file_entry } from "../image/schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
} from "../image/testing/minimal_image.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { readMaps } from "../proc/read.ts";
import { changedFiles, otherVdso } from "./check_host.ts";
import type { TreeImages } from "./task_images.ts";
import { withTree } from "./testing/tree_images.ts";

function withImages<T>(
  change: (image: MinimalImage) => void,
  use: (images: TreeImages) => T,
): Promise<T> {
  const image = minimalImage();
  change(image);
  return withTree([image], use);
}

/** What is said of a file that the image describes like this. */
async function told(
  file: Partial<reg_file_entry>,
  replaced: ReadonlySet<number> = new Set(),
) {
  const reasons = await withImages((image) => {
    // The others of the image need not be on this host.
    image.files = [image.files[1]];
    Object.assign(image.files[0].reg!, { mode: undefined, ...file });
  }, (images) => changedFiles(images, replaced));
  return reasons.map(({ object, why, remedy }) => [object, why, remedy]);
}

Deno.test("a file that is as it was is no reason, any other way it is", async () => {
  const directory = await Deno.makeTempDir();
  const name = `${directory}/é`;
  try {
    await Deno.writeTextFile(name, "12345", { mode: 0o600 });
    await Deno.chmod(name, 0o640);
    assertEquals(await told({ name }), []);
    assertEquals(await told({ name, size: 5n, mode: 0o100640 }), []);
    assertEquals(await told({ name, size: 6n, mode: 0o100640 }), [[
      `file ${name}`,
      "its size is 5, it was 6: the file has changed since the dump",
      undefined,
    ]]);
    assertEquals(await told({ name, mode: 0o100644 }), [[
      `file ${name}`,
      "its mode is 100640, it was 100644",
      undefined,
    ]]);
    assertEquals(await told({ name: `${name}x` }), [[
      `file ${name}x`,
      "stat: ENOENT (no such file or directory)",
      undefined,
    ]]);
    // A descriptor of ckpt's own takes its place.
    assertEquals(await told({ name: `${name}x` }, new Set([2])), []);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a link is followed, unless it was opened as a link", async () => {
  const directory = await Deno.makeTempDir();
  const name = `${directory}/link`;
  try {
    await Deno.symlink("/dev/null", name);
    const link = Deno.lstatSync(name).mode!;
    const target = Deno.statSync(name).mode!;
    const flags = O.PATH | O.NOFOLLOW;
    assertEquals(await told({ name, mode: target }), []);
    assertEquals(await told({ name, mode: link, flags }), []);
    assertEquals((await told({ name, mode: link })).length, 1);
    assertEquals((await told({ name, mode: target, flags })).length, 1);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("files of the process itself come with it, those of the outside must be given", async () => {
  assertEquals(await told({ name: "/proc/99999999/status" }), []);
  assertEquals(await told({ name: "file[1:2]", ext: true }), [[
    "file file[1:2]",
    "the program got it from outside",
    "give it: --inherit-fd fd[N]:file[1:2]",
  ]]);
});

/** The vdso of this kernel, as an image of a program here would have it. */
function withOwnVdso(image: MinimalImage): void {
  const own = readMaps(Deno.pid);
  const vdso = own.find(({ path }) => path === "[vdso]")!;
  const vvar = own.filter(({ path }) => path.startsWith("[vvar"));
  const size = BigInt(vdso.end - vdso.start);
  using memory = TaskMemory.open(Deno.pid);
  const content = memory.read(BigInt(vdso.start), Number(size));
  for (const vma of image.mm.vmas) {
    if (vma.status & VMA_STATUS.VDSO) {
      vma.end = vma.start + size;
    }
    if (vma.status & VMA_STATUS.VVAR) {
      vma.start = vma.end -
        BigInt(vvar.reduce((sum, { start, end }) => sum + end - start, 0));
    }
  }
  const [code, stored, stack] = image.pagemap.entries;
  stored.nr_pages = size / 4096n;
  image.pagemap.entries = [code, stored, stack];
  image.pages = new Uint8Array(3 * 4096 + content.length);
  image.pages.set(content, 4096);
}

Deno.test("the vdso of this kernel is the program's, or it is refused", async () => {
  const why = async (change: (image: MinimalImage) => void) =>
    (await withImages((image) => {
      withOwnVdso(image);
      change(image);
    }, ({ processes }) => otherVdso(processes))).map(({ why }) => why);
  assertEquals(await why(() => {}), []);
  const last = 4096 + 4095;
  assertEquals(
    await why((image) => {
      image.pages[last] ^= 1;
    }),
    ["it is not the one of this kernel"],
  );
  assertEquals(
    await why((image) => {
      image.mm.vmas.find(({ status }) => status & VMA_STATUS.VDSO)!.end +=
        4096n;
    }),
    ["this kernel lays its vdso out otherwise"],
  );
  assertEquals(
    await why((image) => {
      image.mm.vmas = image.mm.vmas.filter(({ status }) =>
        !(status & VMA_STATUS.VVAR)
      );
    }),
    ["this kernel lays its vdso out otherwise"],
  );
  // Without its content in the image nothing can be compared; and no vdso at
  // all needs none.
  assertEquals(
    await why((image) => {
      image.pagemap.entries = image.pagemap.entries.slice(0, 1);
    }),
    [],
  );
  assertEquals(
    await why((image) => {
      image.mm.vmas = image.mm.vmas.filter(({ status }) =>
        !(status & (VMA_STATUS.VVAR | VMA_STATUS.VDSO))
      );
    }),
    [],
  );
});
