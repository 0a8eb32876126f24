import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { decodeImage, encodeImage } from "./framing.ts";
import {
  type Content,
  IMAGE_FILES,
  type ImageKind,
  imageName,
  isLegacyName,
  isRawName,
  parseImageName,
} from "./kinds.ts";
import { FieldError } from "./message.ts";
import { damages } from "./testing/damage.ts";
import { randomMessage, seededRandom } from "./testing/random.ts";

const KINDS = Object.keys(IMAGE_FILES) as ImageKind[];

function source(name: string) {
  return { directory: "/images", name };
}

function indexFor(kind: ImageKind): number | undefined {
  const { index } = IMAGE_FILES[kind];
  return index === "none" || index === "optional" ? undefined : 43;
}

/** Content of a kind with random values, and lengths that fit. */
function randomContent(random: () => number, kind: ImageKind): unknown {
  const { count, message, extra } = IMAGE_FILES[kind];
  if (count === "pagemap") {
    const entries = [1, 2, 3].map(() => randomMessage(random, message));
    return { pages_id: 7, entries };
  }
  const entry = () => {
    const entry = randomMessage(random, message);
    const bytes = (length: number) => new Uint8Array(length).fill(length);
    if (extra === "bytes") {
      for (const field of ["bytes", "length", "keys_bytes", "values_bytes"]) {
        if (field in entry) entry[field] = 3;
      }
      entry.extra = bytes("keys_bytes" in entry ? 6 : 3);
    } else if (extra === "queues") {
      Object.assign(entry, { inq_len: 5, outq_len: 0 });
      entry.extra = { inq: bytes(5), outq: bytes(0) };
    } else if (extra === "segment") {
      Object.assign(entry, { size: 5n, in_pagemaps: random() < 0.5 });
      if (!entry.in_pagemaps) entry.extra = bytes(5);
    } else if (extra === "messages") {
      entry.qnum = 2;
      entry.extra = [
        { mtype: 1n, data: bytes(5) },
        { mtype: 1n << 40n, data: bytes(16) },
      ];
    } else if (extra === "semaphores") {
      entry.nsems = 3;
      entry.extra = Uint16Array.of(1, 2, 65535);
    }
    return entry;
  };
  return count === "one" ? entry() : [entry(), entry()];
}

Deno.test("every kind of file survives encoding", () => {
  const random = seededRandom(3);
  for (const kind of KINDS) {
    for (let round = 0; round < 20; round++) {
      const content = randomContent(random, kind);
      const bytes = encodeImage(kind, content as Content<typeof kind>);
      const name = imageName(kind, indexFor(kind));
      assertEquals(decodeImage(kind, bytes, source(name)), content);
    }
  }
});

Deno.test("files have the bytes that the framing says", () => {
  const cases: [Uint8Array, number[]][] = [
    [
      encodeImage("inventory", { img_version: 2 }),
      [...[0x16, 0x31, 0x31, 0x58], ...[2, 0, 0, 0], ...[0x08, 0x02]],
    ],
    [
      encodeImage("fs", { cwd_id: 1, root_id: 2 }),
      [
        ...[0x19, 0x43, 0x56, 0x54, 0x12, 0x39, 0x40, 0x51],
        ...[4, 0, 0, 0, 0x08, 0x01, 0x10, 0x02],
      ],
    ],
    [
      encodeImage("stats-dump", {}),
      [0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57, 0, 0, 0, 0],
    ],
    [
      encodeImage("pagemap", { pages_id: 1, entries: [] }),
      [
        ...[0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56],
        ...[2, 0, 0, 0, 0x08, 0x01],
      ],
    ],
    [
      encodeImage("pipes-data", [
        { pipe_id: 1, bytes: 2, extra: Uint8Array.of(8, 9) },
      ]),
      [
        ...[0x19, 0x43, 0x56, 0x54, 0x09, 0x37, 0x45, 0x56],
        ...[4, 0, 0, 0, 0x08, 0x01, 0x10, 0x02, 8, 9],
      ],
    ],
  ];
  for (const [bytes, golden] of cases) assertEquals([...bytes], golden);
});

Deno.test("names lead to kinds and back", () => {
  for (const kind of KINDS) {
    const index = indexFor(kind);
    const name = imageName(kind, index);
    assertEquals(parseImageName(name), {
      kind,
      index: index === undefined ? undefined : BigInt(index),
    });
    assertEquals(isRawName(name), false);
    assertEquals(isLegacyName(name), false);
  }
  assertEquals(imageName("ghost-file", 0x1f), "ghost-file-1f.img");
  assertEquals(
    imageName("pagemap-shmem", 18446744073709551615n),
    "pagemap-shmem-18446744073709551615.img",
  );
  for (
    const other of [
      "core-01.img",
      "core-1f.img",
      "core.img",
      "core-1",
      "pstree-1.img",
      "stats-dump.img",
      "pages-1.img",
      "dump.log",
      "toString",
      "constructor-1.img",
    ]
  ) {
    assertEquals(parseImageName(other), undefined, other);
  }
});

Deno.test("what follows an entry has to be as long as the entry says", () => {
  const extra = new Uint8Array(3);
  assertThrows(
    () => encodeImage("pipes-data", [{ pipe_id: 1, bytes: 4, extra }]),
    FieldError,
    "field bytes: is 4, but 3 bytes are given",
  );
  const bytes = encodeImage("pipes-data", [{ pipe_id: 1, bytes: 3, extra }]);
  assertThrows(
    () => decodeImage("pipes-data", bytes.subarray(0, -1), source("x.img")),
    CkptError,
    "x.img, entry 0, field bytes: says that 3 bytes follow, but only 2",
  );
});

Deno.test("files of another kind or framing are told apart", () => {
  const fs = encodeImage("fs", { cwd_id: 1, root_id: 2 });
  assertThrows(
    () => decodeImage("ids", fs, source("ids-1.img")),
    CkptError,
    "ids-1.img: has the magic 0x51403912 of a fs image, not 0x54432030",
  );
  assertThrows(
    () => decodeImage("fs", fs.subarray(4), source("fs-1.img")),
    CkptError,
    "fs-1.img: has the framing of version 1.0",
  );
});

Deno.test("every damage of every kind of file is told with the file", () => {
  const random = seededRandom(4);
  let refused = 0;
  for (const kind of KINDS) {
    const name = imageName(kind, indexFor(kind));
    const good = encodeImage(
      kind,
      randomContent(random, kind) as Content<typeof kind>,
    );
    const step = Math.ceil(good.length / 100);
    const files = new Map([[name, good]]);
    for (const { what, bytes } of damages(files, random, step)) {
      if (bytes === undefined) continue;
      try {
        decodeImage(kind, bytes, source(name));
      } catch (error) {
        refused++;
        assert(error instanceof CkptError, `${name}, ${what}: ${error}`);
        assertEquals(error.exit, EXIT.image);
        assert(error.reasons[0].object.startsWith(name), error.message);
      }
    }
  }
  assert(refused > 1000);
});
