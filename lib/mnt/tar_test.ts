import { assertEquals, assertThrows } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { TarError, TarReader } from "./read_tar.ts";
import {
  BLOCK,
  type FileType,
  paddingAfter,
  type PlacedSocket,
  TAR_END,
  type TreeEntry,
} from "./tar.ts";
import { encodeEntry } from "./write_tar.ts";

class Random {
  readonly #next: () => number;

  constructor(seed: number) {
    this.#next = seededRandom(seed);
  }

  below(limit: number): number {
    return Math.floor(this.#next() * limit);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }
}

const TYPES: FileType[] = [
  "file",
  "hard link",
  "symbolic link",
  "character device",
  "block device",
  "directory",
  "fifo",
];

function randomEntry(random: Random, types = TYPES): TreeEntry {
  const type = random.pick(types);
  const path = () =>
    "." + Array.from(
      { length: random.below(6) + 1 },
      () =>
        "/" +
        random.pick(["a", "ü", "\udc80\udcff", "x=\n y", "n".repeat(120)]),
    ).join("");
  const time = () => ({
    seconds: BigInt(random.below(2 ** 32)) * 9n - 2n ** 33n,
    nanoseconds: random.pick([0, 1, 999_999_999, random.below(1_000_000_000)]),
  });
  const segments = [];
  let end = 0;
  if (type === "file") {
    for (let i = random.below(5); i > 0; i--) {
      const offset = end + (random.below(2) === 0 ? 4096 : 2 ** 35);
      const length = 1 + random.below(9000);
      segments.push({ offset, length });
      end = offset + length;
    }
  }
  return {
    path: path(),
    type,
    mode: random.below(0o10000),
    uid: random.pick([0, 1000, 2 ** 32 - 2]),
    gid: random.pick([0, 1000, 2 ** 32 - 2]),
    modified: time(),
    accessed: random.below(2) === 0 ? undefined : time(),
    target: type === "hard link"
      ? path()
      : type === "symbolic link"
      ? `/${"t".repeat(random.below(300))}`
      : "",
    major: type.endsWith("device") ? random.below(4096) : 0,
    minor: type.endsWith("device") ? random.below(1 << 20) : 0,
    size: type === "file" ? end + random.below(2) * 12345 : 0,
    segments,
    xattrs: Array.from({ length: random.below(3) }, (_, i) => ({
      name: `user.${i}`,
      value: Uint8Array.from(
        { length: random.below(300) },
        () => random.below(256),
      ),
    })),
    flags: random.pick([0, 0x10, 0x40]),
  };
}

/** All bytes of an archive whose files hold zeros. */
function archiveOf(entries: TreeEntry[], sockets: PlacedSocket[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const [i, entry] of entries.entries()) {
    parts.push(encodeEntry(entry, i === 0 ? sockets : []));
    const data = entry.segments.reduce((sum, { length }) => sum + length, 0);
    parts.push(new Uint8Array(data + paddingAfter(data)));
  }
  parts.push(TAR_END);
  const bytes = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

function readAll(bytes: Uint8Array) {
  let at = 0;
  const take = (length: number) => {
    if (at + length > bytes.length) throw new TarError("it ends too early");
    at += length;
    return bytes.subarray(at - length, at);
  };
  const reader = new TarReader({ take });
  const entries: TreeEntry[] = [];
  for (let entry = reader.next(); entry !== undefined; entry = reader.next()) {
    entries.push(entry);
    const data = entry.segments.reduce((sum, { length }) => sum + length, 0);
    take(data + paddingAfter(data));
  }
  return { entries, sockets: [...reader.sockets] };
}

Deno.test("what is written is read, whatever it is", () => {
  const random = new Random(1);
  for (let round = 0; round < 200; round++) {
    const entries = Array.from(
      { length: 1 + random.below(6) },
      () => randomEntry(random),
    );
    const sockets = Array.from({ length: random.below(3) }, () => ({
      after: random.below(6),
      entry: {
        ...randomEntry(random, ["fifo"]),
        type: "socket" as const,
        flags: 0,
      },
    }));
    const bytes = archiveOf(entries, sockets);
    assertEquals(bytes.length % BLOCK, 0);
    assertEquals(readAll(bytes), { entries, sockets });
  }
});

Deno.test("damaged archives are errors of the archive, never others", () => {
  const random = new Random(2);
  for (let round = 0; round < 1000; round++) {
    const bytes = archiveOf([randomEntry(random), randomEntry(random)], []);
    for (let i = random.below(4); i >= 0; i--) {
      bytes[random.below(Math.min(bytes.length, 4096))] = random.below(256);
    }
    try {
      readAll(bytes);
    } catch (error) {
      if (!(error instanceof TarError)) throw error;
    }
  }
});

Deno.test("no entry leads out of the tree", () => {
  const entry = randomEntry(new Random(3), ["fifo"]);
  for (const path of ["/etc/passwd", "./../x", "./a/../../b", ".."]) {
    const bytes = archiveOf([{ ...entry, path }], []);
    assertThrows(() => readAll(bytes), TarError, "leads out of the tree");
  }
});
