import { assert, assertEquals, assertRejects } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { pread, syscall } from "../ffi/syscall.ts";
import type { ImageSet } from "../image/image_set.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import { PageCounters } from "../mm/page_copy.ts";
import { MAP } from "../mm/vma.ts";
import { readMaps } from "../proc/read.ts";
import { SharedMemoryObjects } from "./shared_memory.ts";
import type { SharedObject } from "./task_images.ts";

const PAGE = 4096;

/** An object whose page image holds, page by page, the numbers 1, 2, ... */
function objectOf(
  id: bigint,
  pages: number,
  runs: readonly (readonly [page: number, count: number])[],
): SharedObject {
  return {
    id,
    huge: 0,
    size: BigInt(pages * PAGE),
    pagemap: {
      pages_id: Number(id),
      entries: runs.map(([page, count]) => ({
        vaddr: BigInt(page * PAGE),
        compat_nr_pages: 0,
        flags: PAGE_FLAGS.PRESENT,
        nr_pages: BigInt(count),
      })),
    },
  };
}

function imagesOf(directory: string, shared: readonly SharedObject[]) {
  const set = { path: (name: string) => `${directory}/${name}` } as ImageSet;
  return { set, shared };
}

function writePages(directory: string, id: number, count: number): void {
  const bytes = new Uint8Array(count * PAGE);
  for (let i = 0; i < count; i++) {
    bytes.fill(i + 1, i * PAGE, (i + 1) * PAGE);
  }
  Deno.writeFileSync(`${directory}/pages-${id}.img`, bytes);
}

async function inDirectory(
  work: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    await work(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function firstByte(fd: number, page: number): number {
  const byte = new Uint8Array(1);
  assertEquals(pread(fd, byte, BigInt(page * PAGE)), 1);
  return byte[0];
}

Deno.test("an object has its pages where they were, and takes no memory for others", () =>
  inDirectory(async (directory) => {
    writePages(directory, 7, 5);
    // Of the last run only the first page is in the object.
    const object = objectOf(7n, 1000, [[3, 2], [500, 1], [999, 2]]);
    const counters = new PageCounters();
    using objects = await SharedMemoryObjects.make(
      imagesOf(directory, [object]),
      counters,
    );
    const fd = objects.fds.get(7n)!;
    assertEquals(counters.written, 4n);
    const file = Deno.statSync(`/proc/self/fd/${fd}`);
    assertEquals(file.size, 1000 * PAGE);
    assertEquals(file.blocks, 4 * PAGE / 512);
    assertEquals(
      [2, 3, 4, 5, 500, 999].map((page) => firstByte(fd, page)),
      [0, 1, 2, 0, 3, 4],
    );
  }));

Deno.test("a mapping of an object is known as it was, and leads to the same memory", () =>
  inDirectory(async (directory) => {
    writePages(directory, 8, 1);
    using objects = await SharedMemoryObjects.make(
      imagesOf(directory, [objectOf(8n, 4, [[1, 1]])]),
      new PageCounters(),
    );
    const fd = objects.fds.get(8n)!;
    const flags = BigInt(MAP.shared);
    const start = syscall("mmap", 0n, 16384n, 3n, flags, BigInt(fd), 0n);
    try {
      const mapping = readMaps(Deno.pid).find((area) =>
        BigInt(area.start) === start
      );
      assertEquals(mapping?.path, "/dev/zero (deleted)");
      const view = new Uint8Array(
        Deno.UnsafePointerView.getArrayBuffer(
          Deno.UnsafePointer.create(start)!,
          16384,
        ),
      );
      assertEquals([view[0], view[PAGE], view[2 * PAGE]], [0, 1, 0]);
      view[2 * PAGE] = 9;
      assertEquals(firstByte(fd, 2), 9);
    } finally {
      syscall("munmap", start, 16384n);
    }
  }));

Deno.test("objects without pages need none of the page image but that it is there", () =>
  inDirectory(async (directory) => {
    writePages(directory, 1, 0);
    writePages(directory, 2, 0);
    using objects = await SharedMemoryObjects.make(
      imagesOf(directory, [objectOf(1n, 3, []), objectOf(2n, 5, [])]),
      new PageCounters(),
    );
    assertEquals([...objects.fds.keys()], [1n, 2n]);
  }));

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test("nothing stays open when a page image is too short, or not there", () =>
  inDirectory(async (directory) => {
    writePages(directory, 1, 1);
    writePages(directory, 2, 1);
    const good = objectOf(1n, 3, [[0, 1]]);
    const before = openDescriptors();
    const areas = readMaps(Deno.pid).length;
    for (
      const [id, object] of [
        [2n, "the kernel"],
        [3n, `${directory}/pages-3.img`],
      ] as const
    ) {
      const error = await assertRejects(
        () =>
          SharedMemoryObjects.make(
            imagesOf(directory, [good, objectOf(id, 9, [[0, 2]])]),
            new PageCounters(),
          ),
        CkptError,
      );
      assertEquals(error.exit, EXIT.failed);
      assertEquals(error.action, `making the shared memory ${id}`);
      assertEquals(error.reasons[0].object, object);
    }
    assertEquals(openDescriptors(), before);
    assert(Math.abs(readMaps(Deno.pid).length - areas) < 4);
  }));

Deno.test("making objects ends early when it is cancelled", () =>
  inDirectory(async (directory) => {
    const count = 32768;
    const image = Deno.openSync(`${directory}/pages-4.img`, {
      write: true,
      createNew: true,
    });
    image.truncateSync(count * PAGE);
    image.close();
    const cancel = new AbortController();
    const counters = new PageCounters();
    const making = SharedMemoryObjects.make(
      imagesOf(directory, [objectOf(4n, count, [[0, count]])]),
      counters,
      cancel.signal,
    );
    const reason = new Error("enough");
    cancel.abort(reason);
    assertEquals(await assertRejects(() => making, Error), reason);
    assert(counters.written < BigInt(count), `${counters.written} pages`);
  }));
