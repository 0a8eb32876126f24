import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { encodeEntry, encodeImage } from "./framing.ts";
import {
  encodeAlignedGhostChunk,
  encodeGhostChunk,
  readGhost,
} from "./ghost.ts";
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

Deno.test("the head of a chunk is its message", () => {
  const random = seededRandom(3);
  const numbers = [0, 1, 127, 128, 2 ** 31, 2 ** 32, 2 ** 53 - 1];
  for (let i = 0; i < 1000; i++) {
    numbers.push(Math.floor(random() * 2 ** Math.floor(random() * 53)));
  }
  for (const [i, off] of numbers.entries()) {
    const len = numbers[(i * 7) % numbers.length];
    assertEquals(
      encodeGhostChunk(off, len),
      encodeEntry(messageType("ghost_chunk_entry"), {
        len: BigInt(len),
        off: BigInt(off),
      }),
    );
  }
});

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
    encodeGhostChunk(0, 4096),
    data(4096, 1),
    encodeGhostChunk(900_000, 8192),
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
    [[encodeGhostChunk(0, 5)], "entry 1, field len: 5 bytes, but 0 are left"],
    [
      [encodeGhostChunk(0, 5), data(5, 1), encodeGhostChunk(4, 1), data(1, 1)],
      "entry 2, field off: 4 is before 5",
    ],
    [[encodeGhostChunk(9_999, 2), data(2, 1)], "is beyond the file's 10000"],
    [[data(2, 1)], "entry 1: only 2 bytes are left"],
    [[encodeGhostChunk(2 ** 53, 2 ** 53)], "entry 1, field len"],
  ];
  for (const [parts, words] of cases) {
    await withGhost([header, ...parts], (set) => {
      assertThrows(() => readGhost(set, 0x1f), CkptError, words);
    });
  }
});

Deno.test("aligned chunks lie as in the file, wherever they begin, and are found", async () => {
  const random = seededRandom(3);
  const parts = [
    encodeImage("ghost-file", { ...owner, chunks: true, size: 1n << 40n }),
  ];
  let position = parts[0].length;
  let offset = 0;
  const expected: [number, number][] = [];
  for (let i = 0; i < 300; i++) {
    offset += Math.floor(random() * 3) * 4096 +
      (i % 3 === 0 ? Math.floor(random() * 4096) : 0);
    const length = 1 + Math.floor(random() * 5000);
    const head = encodeAlignedGhostChunk(offset, length, position);
    position += head.length;
    assertEquals((position - offset) % 4096, 0, `chunk ${i}`);
    parts.push(head, data(length, i));
    position += length;
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
