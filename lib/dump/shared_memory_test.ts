import { assertEquals } from "@std/assert";
import { syscall } from "../ffi/syscall.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import { PageCounters } from "../mm/page_copy.ts";
import { planVmas } from "../mm/vma.ts";
import { readSmaps } from "../proc/read.ts";
import { saveSharedMemory } from "./shared_memory.ts";

const PAGE = 4096n;
const IPC_RMID = 0n;

/** Attaches a segment of ckpt's own, which goes when it is detached. */
class Attached implements Disposable {
  readonly memory: bigint;
  readonly id: bigint;
  constructor(size: bigint) {
    this.id = syscall("shmget", 0n, size, 0o1600n);
    this.memory = syscall("shmat", this.id, 0n, 0n);
    syscall("shmctl", this.id, IPC_RMID, 0n);
  }

  bytes(length: number): Uint8Array<ArrayBuffer> {
    const pointer = Deno.UnsafePointer.create(this.memory)!;
    return new Uint8Array(
      Deno.UnsafePointerView.getArrayBuffer(pointer, length),
    );
  }

  /** The area it is in. */
  vma() {
    const { vmas } = planVmas(Deno.pid, readSmaps(Deno.pid));
    return vmas.find(({ entry }) => entry.start === this.memory)!;
  }

  [Symbol.dispose](): void {
    syscall("shmdt", this.memory);
  }
}

function writerTo(directory: string): ImageWriter {
  const createRaw = (name: string) => {
    const path = `${directory}/${name}`;
    Deno.writeFileSync(path, new Uint8Array());
    return path;
  };
  return { createRaw } as ImageWriter;
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

for (const inside of [false, true]) {
  Deno.test(`bytes behind the size of a segment are saved${inside ? "" : ", also when there are no others"}`, () =>
    inDirectory(async (directory) => {
      using segment = new Attached(2n * PAGE + 100n);
      const bytes = segment.bytes(Number(3n * PAGE));
      bytes[Number(3n * PAGE) - 1] = 7;
      if (inside) bytes[Number(2n * PAGE) + 99] = 6;
      const [saved] = await saveSharedMemory(
        [{ pid: Deno.pid, vmas: [segment.vma()] }],
        9,
        writerTo(directory),
        new PageCounters(),
      );
      assertEquals(saved.id, segment.id);
      assertEquals(saved.pages.entries, [{
        vaddr: 2n * PAGE,
        compat_nr_pages: 0,
        flags: PAGE_FLAGS.PRESENT,
        nr_pages: 1n,
      }]);
      const image = Deno.readFileSync(`${directory}/pages-9.img`);
      assertEquals(image, bytes.slice(Number(2n * PAGE)));
    }));
}

Deno.test("objects are saved once, and an inode gives way to the id of a segment", () =>
  inDirectory(async (directory) => {
    using segment = new Attached(PAGE);
    const attached = segment.vma();
    const { segmentKey: _, ...anonymous } = attached;
    const other = { ...anonymous, inode: attached.inode + 1n };
    const vmas = [anonymous, attached, other].flatMap((vma) => [
      { ...vma, entry: { ...vma.entry } },
      { ...vma, entry: { ...vma.entry } },
    ]);
    const saved = await saveSharedMemory(
      [0, 2, 4].map((i) => ({ pid: Deno.pid, vmas: vmas.slice(i, i + 2) })),
      3,
      writerTo(directory),
      new PageCounters(),
    );
    const ids = [segment.id + (1n << 32n), segment.id, segment.id + 1n];
    assertEquals(saved.map(({ id }) => id), ids);
    assertEquals(saved.map(({ pagesId }) => pagesId), [3, 4, 5]);
    assertEquals(
      vmas.map(({ entry }) => entry.shmid),
      ids.flatMap((id) => [id, id]),
    );
  }));
