import { assertEquals } from "@std/assert";
import type {
  ckpt_segment_entry,
  ipc_shm_entry,
  vma_entry,
} from "../schema.gen.ts";
import {
  type ImagePart,
  minimalImage,
  writeTree,
} from "../testing/minimal_image.ts";
import { VMA_STATUS } from "../vma_status.ts";
import { wrongIn } from "./testing/wrong_in.ts";

/** Of the dumper in the minimal image. */
const NAMESPACE = 3;
const MAP_SHARED_ANONYMOUS = 0x21;

interface Parts {
  segments: ipc_shm_entry[];
  extensions: ckpt_segment_entry[];
  area: vma_entry;
  /** Ids of those whose pages are stored. */
  stored: number[];
}

function segment(id: number): ipc_shm_entry {
  return {
    desc: { key: 7, uid: 0, gid: 0, cuid: 0, cgid: 0, mode: 0o3600, id },
    size: 4097n,
    in_pagemaps: true,
  };
}

/** What is wrong with an image of a process that is attached to segment 5. */
function wrong(change: (parts: Parts) => void): string[] {
  const parts: Parts = {
    segments: [segment(5), segment(6)],
    extensions: [{ id: 5, changed: 1n }],
    area: {
      start: 0x1000n,
      end: 0x2000n,
      pgoff: 4096n,
      shmid: 5n,
      prot: 3,
      flags: MAP_SHARED_ANONYMOUS,
      status: VMA_STATUS.REGULAR | VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC,
      fd: -1n,
    },
    stored: [5, 6],
  };
  change(parts);
  const image = minimalImage();
  image.mm.vmas.unshift(parts.area);
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeTree(directory, [image], [
      ["ipcns-shm", NAMESPACE, parts.segments],
      ["ckpt-segments", undefined, parts.extensions],
      ...parts.stored.map((id): ImagePart => [
        "pagemap-shmem",
        id,
        { pages_id: 50 + id, entries: [] },
      ]),
    ]);
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("segments and what is attached to them have nothing wrong", async () => {
  assertEquals(await wrong(() => {}), []);
});

const SHM = `ipcns-shm-${NAMESPACE}.img`;

const WRONG: [what: string, (parts: Parts) => void, string][] = [
  [
    "an area of a segment that is not there",
    ({ area }) => area.shmid = 7n,
    "mm-4242.img, entry 0, field vmas[0].shmid: 7 is no System V segment of " +
    "ipcns-shm",
  ],
  [
    "an area that goes beyond the segment",
    ({ area }) => area.end += 4096n,
    "mm-4242.img, entry 0, field vmas[0]: goes beyond the end of System V " +
    "segment 5",
  ],
  [
    "an id twice",
    ({ segments }) => segments[1].desc.id = 5,
    `${SHM}, entry 1, field desc.id: 5 is there twice`,
  ],
  [
    "an id that none can have",
    ({ segments, stored }) => {
      segments[1].desc.id = 2 ** 31;
      stored[1] = 2 ** 31;
    },
    `${SHM}, entry 1, field desc.id: 2147483648 is no id`,
  ],
  [
    "an empty segment",
    ({ segments }) => segments[1].size = 0n,
    `${SHM}, entry 1, field size: is 0`,
  ],
  [
    "a segment larger than any address space",
    ({ segments }) => segments[1].size = 1n << 48n,
    `${SHM}, entry 1, field size: is 281474976710656`,
  ],
  [
    "an unknown bit in the mode",
    ({ segments }) => segments[1].desc.mode = 0o4600,
    `${SHM}, entry 1, field desc.mode: 04600 has unknown bits`,
  ],
  [
    "pages that are missing",
    ({ stored }) => stored.pop(),
    "pagemap-shmem-6.img: is missing",
  ],
  [
    "an extension of no segment",
    ({ extensions }) => extensions.push({ id: 8, changed: 1n }),
    "ckpt-segments.img, entry 1, field id: 8 is no segment of the program's",
  ],
];

for (const [what, change, expected] of WRONG) {
  Deno.test(`${what} is wrong`, async () => {
    assertEquals(await wrong(change), [expected]);
  });
}
