import { assertEquals } from "@std/assert";
import { TaskMemory } from "../ffi/task_memory.ts";
import {
  type MinimalImage,
  minimalImage,
} from "../image/testing/minimal_image.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { readMaps } from "../proc/read.ts";
import { otherVdso } from "./check_host.ts";
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
