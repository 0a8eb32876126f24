import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { encodeEntry, encodeImage } from "./framing.ts";
import { readGhost } from "./ghost.ts";
import { type ImageSet, readImageSet } from "./image_set.ts";
import { messageType } from "./message.ts";
import { minimalImage, writeWithoutManifest } from "./testing/minimal_image.ts";
import { seededRandom } from "./testing/random.ts";

async function withGhost(
  parts: Uint8Array[],
  test: (set: ImageSet, content: Uint8Array) => void,
) {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeWithoutManifest(directory, minimalImage());
    const content = new Uint8Array(
      await new Blob(
        parts as Uint8Array<ArrayBuffer>[],
      ).arrayBuffer(),
    );
    Deno.writeFileSync(`${directory}/ghost-file-1f.img`, content);
    test(readImageSet(directory), content);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

const owner = { uid: 1, gid: 2, mode: 0o100644 };
const data = (length: number, value: number) =>
  new Uint8Array(length).fill(value);

const chunkHead = (off: number, len: number, filling = 0) => {
  const entry = encodeEntry(messageType("ghost_chunk_entry"), {
    len: BigInt(len),
    off: BigInt(off),
  });
  if (filling === 0) return entry;
  // Field 15, which nobody knows.
  const bytes = [15 << 3 | 2, filling & 0x7f | 0x80, filling >> 7];
  const filled = Uint8Array.of(...entry, ...bytes, ...data(filling, 0));
  new DataView(filled.buffer).setUint32(0, filled.length - 4, true);
  return filled;
};

Deno.test("a ghost file in one piece is found behind its header", () =>
  withGhost([encodeImage("ghost-file", owner), data(100, 7)], (set, bytes) => {
    const { entry, chunks } = readGhost(set, 0x1f);
    assertEquals(entry, owner);
    assertEquals(chunks, [{
      offset: 0,
      length: 100,
      position: bytes.length - 100,
    }]);
  }));

Deno.test("the chunks of a ghost file are found where they lie", () =>
  withGhost([
    encodeImage("ghost-file", { ...owner, chunks: true, size: 1_000_000n }),
    chunkHead(0, 4096),
    data(4096, 1),
    chunkHead(900_000, 8192),
    data(8192, 2),
  ], (set, bytes) => {
    const { chunks } = readGhost(set, 0x1f);
    assertEquals(chunks.map(({ offset, length }) => [offset, length]), [
      [0, 4096],
      [900_000, 8192],
    ]);
    assertEquals(
      chunks.map(({ position, length }) => [
        bytes[position - 1] === 1,
        bytes[position],
        bytes[position + length - 1],
      ]),
      [[false, 1, 1], [false, 2, 2]],
    );
  }));

Deno.test("chunks that overlap, or go beyond either file, are refused", async () => {
  const header = encodeImage("ghost-file", {
    ...owner,
    chunks: true,
    size: 10_000n,
  });
  const cases: [Uint8Array[], string][] = [
    [[chunkHead(0, 5)], "entry 1, field len: 5 bytes, but 0 are left"],
    [
      [chunkHead(0, 5), data(5, 1), chunkHead(4, 1), data(1, 1)],
      "entry 2, field off: 4 is before 5",
    ],
    [[chunkHead(9_999, 2), data(2, 1)], "is beyond the file's 10000"],
    [[data(2, 1)], "entry 1: only 2 bytes are left"],
    [[chunkHead(2 ** 53, 2 ** 53)], "entry 1, field len"],
  ];
  for (const [parts, words] of cases) {
    await withGhost([header, ...parts], (set) => {
      assertThrows(() => readGhost(set, 0x1f), CkptError, words);
    });
  }
});

Deno.test("chunks are found behind heads of any length", async () => {
  const random = seededRandom(3);
  const parts = [
    encodeImage("ghost-file", { ...owner, chunks: true, size: 1n << 40n }),
  ];
  let offset = 0;
  const expected: [number, number][] = [];
  for (let i = 0; i < 300; i++) {
    offset += Math.floor(random() * 2 ** Math.floor(random() * 31));
    const length = 1 + Math.floor(random() * 5000);
    const filling = i % 2 * Math.floor(random() * 4096);
    parts.push(chunkHead(offset, length, filling), data(length, i));
    expected.push([offset, length]);
    offset += length;
  }
  await withGhost(parts, (set, bytes) => {
    const { chunks } = readGhost(set, 0x1f);
    assertEquals(
      chunks.map(({ offset, length }) => [offset, length]),
      expected,
    );
    for (const [i, { position, length }] of chunks.entries()) {
      assertEquals(
        [bytes[position], bytes[position + length - 1]],
        [i % 256, i % 256],
      );
    }
  });
});
