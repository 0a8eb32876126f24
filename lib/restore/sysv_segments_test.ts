import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { syscall } from "../ffi/syscall.ts";
import type { ImageSet } from "../image/image_set.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import { PageCounters } from "../mm/page_copy.ts";
import { readStatus, readSysvSegments } from "../proc/read.ts";
import { SHM_MODE } from "../proc/sysvipc.ts";
import type { SegmentImage } from "./segment_images.ts";
import { planSegmentsOf, SysvSegments } from "./sysv_segments.ts";

const PAGE = 4096;
const NEXT_ID = "/proc/sys/kernel/shm_next_id";
/** An id and a key that no other test has; of places far behind in the table. */
const ID = 3 * 32768 + 30000 + Deno.pid % 1000;
const KEY = 0x0e000000 + Deno.pid;

function segment(id: number, rest: Partial<SegmentImage> = {}): SegmentImage {
  return {
    id,
    key: KEY,
    mode: 0o640,
    size: BigInt(2 * PAGE + 5),
    uid: 21,
    gid: 22,
    cuid: 23,
    cgid: 24,
    changed: 1n,
    madeWithKey: KEY,
    attachedOutside: false,
    pagemap: {
      pages_id: 1,
      entries: [{
        vaddr: BigInt(2 * PAGE),
        compat_nr_pages: 0,
        flags: PAGE_FLAGS.PRESENT,
        nr_pages: 1n,
      }],
    },
    ...rest,
  };
}

/** Images of segments whose page image holds one page of ones. */
async function withImages(
  segments: readonly SegmentImage[],
  work: (
    images: Parameters<typeof SysvSegments.make>[0],
    directory: string,
  ) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.writeFileSync(
      `${directory}/pages-1.img`,
      new Uint8Array(PAGE).fill(1),
    );
    const set = { path: (name: string) => `${directory}/${name}` } as ImageSet;
    const byId = new Map(segments.map((one) => [BigInt(one.id), one]));
    await work({ set, segments: byId }, directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

function make(images: Parameters<typeof SysvSegments.make>[0]) {
  return SysvSegments.make(
    images,
    planSegmentsOf(images),
    new PageCounters(),
    new AbortController().signal,
  );
}

function found(id: number) {
  return readSysvSegments().find((one) => one.id === id);
}

function remove(id: number): void {
  syscall("shmctl", BigInt(id), 0n, 0n);
}

Deno.test("a segment is made with its id, key, creator and content; its owner and mode come last", () =>
  withImages([segment(ID)], async (images) => {
    const status = readStatus(Deno.pid);
    const segments = await make(images);
    try {
      const { size, cuid, cgid, key, mode, attached } = found(ID)!;
      assertEquals(
        { size, cuid, cgid, key, mode, attached },
        {
          size: BigInt(2 * PAGE + 5),
          cuid: 23,
          cgid: 24,
          key: KEY,
          mode: 0,
          attached: 1,
        },
      );
      const { uid, gid, capEff } = readStatus(Deno.pid);
      assertEquals(
        { uid, gid, capEff },
        { uid: status.uid, gid: status.gid, capEff: status.capEff },
      );
      const memory = syscall("shmat", BigInt(ID), 0n, 0n);
      const bytes = new Uint8Array(
        Deno.UnsafePointerView.getArrayBuffer(
          Deno.UnsafePointer.create(memory)!,
          3 * PAGE,
        ),
      );
      assertEquals(bytes.findIndex((byte) => byte !== 0), 2 * PAGE);
      assertEquals(bytes.lastIndexOf(1), 3 * PAGE - 1);
      syscall("shmdt", memory);
      segments.settle();
      const last = found(ID)!;
      assertEquals(
        [last.uid, last.gid, last.mode, last.attached],
        [21, 22, 0o640, 0],
      );
      segments.keep();
    } finally {
      segments[Symbol.dispose]();
    }
    assertEquals(found(ID)?.mode, 0o640);
    remove(ID);
    assertEquals(Number(Deno.readTextFileSync(NEXT_ID)), -1);
  }));

Deno.test("one that is to go with its last user goes with ckpt", () =>
  withImages(
    [segment(ID, { key: 0, mode: SHM_MODE.dest | 0o600 })],
    async (images) => {
      {
        using segments = await make(images);
        assertEquals(found(ID)?.mode, SHM_MODE.dest);
        assertEquals(found(ID)?.key, 0);
        const memory = syscall("shmat", BigInt(ID), 0n, 0n);
        segments.settle();
        assertEquals(found(ID)?.mode, SHM_MODE.dest | 0o600);
        syscall("shmdt", memory);
        assertEquals(found(ID), undefined);
      }
      {
        using _ = await make(images);
        assertEquals(found(ID)?.attached, 1);
      }
      assertEquals(found(ID), undefined);
    },
  ));

Deno.test("no segment is left when a later one cannot be made, and the next id is nobody's", () =>
  withImages(
    [segment(ID), segment(ID + 1, { key: 0, size: 1n << 62n })],
    async (images) => {
      const error = await assertRejects(() => make(images), CkptError);
      assertEquals(error.exit, EXIT.failed);
      assertStringIncludes(error.action, `System V segment ${ID + 1}`);
      assertEquals([found(ID), found(ID + 1)], [undefined, undefined]);
      assertEquals(Number(Deno.readTextFileSync(NEXT_ID)), -1);
    },
  ));

Deno.test("no segment is left when its content cannot be read", () =>
  withImages([segment(ID)], async (images, directory) => {
    Deno.truncateSync(`${directory}/pages-1.img`, 100);
    await assertRejects(() => make(images), CkptError);
    Deno.removeSync(`${directory}/pages-1.img`);
    await assertRejects(() => make(images), CkptError);
    assertEquals(found(ID), undefined);
    Deno.writeFileSync(`${directory}/pages-1.img`, new Uint8Array());
  }));

Deno.test("a key that was taken since it was looked at is an error that says so", () =>
  withImages([segment(ID)], async (images) => {
    const plan = planSegmentsOf(images);
    const other = Number(syscall("shmget", BigInt(KEY), 1n, 0o1600n));
    try {
      const error = await assertRejects(
        () =>
          SysvSegments.make(
            images,
            plan,
            new PageCounters(),
            new AbortController().signal,
          ),
        CkptError,
      );
      assertEquals(error.reasons[0].object, `System V segment ${ID}`);
      assertStringIncludes(error.reasons[0].why, "its key just now");
      assertEquals(Number(Deno.readTextFileSync(NEXT_ID)), -1);
    } finally {
      remove(other);
    }
  }));
