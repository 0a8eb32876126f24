import { assertEquals } from "@std/assert";
import type { ckpt_file_entry } from "../image/schema.gen.ts";
import { packBuildId } from "./build_id.ts";
import {
  findDifference,
  type FoundFile,
  unrecordedMethods,
  VALIDATION_METHODS,
  type ValidationMethod,
} from "./validation.ts";

const ID = packBuildId(Uint8Array.of(1, 2, 3, 4));
const OTHER_ID = packBuildId(Uint8Array.of(1, 2, 3, 5));
const DIGEST = new Uint8Array(32).fill(7);

function found(change: Partial<FoundFile> = {}): FoundFile {
  return {
    mode: 0o100755,
    size: 10n,
    device: 0n,
    buildId: () => ID,
    modified: () => 1_000_000_005n,
    digest: () => Promise.resolve(DIGEST),
    ...change,
  };
}

function extension(change: Partial<ckpt_file_entry>): ckpt_file_entry {
  return { id: 1, watched: [], ...change };
}

async function differs(
  now: FoundFile,
  recorded: { mode?: number; size?: bigint; build_id?: number[] },
  more: Partial<ckpt_file_entry> = {},
  methods: readonly ValidationMethod[] = VALIDATION_METHODS,
): Promise<string | undefined> {
  return (await findDifference(
    {
      entry: { build_id: [], ...recorded },
      extension: extension(more),
    },
    now,
    new Set(methods),
  ))?.why;
}

const WHOLE = { mode: 0o100755, size: 10n, build_id: ID };
const TIME = { modified_s: 1n, modified_ns: 5 };

Deno.test("the same file does not differ, by whatever was recorded", async () => {
  const digest = { digest: DIGEST, digest_bytes: 10n };
  for (const more of [{}, TIME, digest, { ...TIME, ...digest }]) {
    assertEquals(await differs(found(), WHOLE, more), undefined);
    assertEquals(await differs(found(), {}, more), undefined);
  }
});

Deno.test("the first difference is told, with what is and what was", async () => {
  const other = found({
    mode: 0o100644,
    size: 11n,
    buildId: () => OTHER_ID,
    modified: () => -1n,
    digest: () => Promise.resolve(new Uint8Array(32)),
  });
  const all: [
    Parameters<typeof differs>[1],
    Partial<ckpt_file_entry>,
    string,
  ][] = [
    [WHOLE, TIME, "its mode is 100644, it was 100755"],
    [
      { size: 10n },
      TIME,
      "its size is 11, it was 10: the file has changed since the dump",
    ],
    [
      { build_id: ID },
      TIME,
      "its build-id is 01020305, it was 01020304: it is another version",
    ],
    [
      {},
      TIME,
      "it was modified 1969-12-31 23:59:59.999999999 UTC, and when it was " +
      "dumped 1970-01-01 00:00:01.000000005 UTC",
    ],
    [
      {},
      { digest: DIGEST, digest_bytes: 4n },
      `the checksum of its content is ${"00".repeat(32)}, it was ${
        "07".repeat(32)
      }`,
    ],
  ];
  for (const [recorded, more, why] of all) {
    assertEquals(await differs(other, recorded, more), why);
    assertEquals(await differs(other, recorded, more, []), undefined);
  }
  assertEquals(
    await differs(found({ buildId: () => [] }), { build_id: ID }),
    "its build-id is missing, it was 01020304: it is another version",
  );
});

Deno.test("a checksum that was recorded for want of a build-id is compared like one", async () => {
  const digest = { digest: DIGEST, digest_bytes: 4n };
  const other = found({ digest: () => Promise.resolve(new Uint8Array(32)) });
  const compared = async (
    recorded: Parameters<typeof differs>[1],
    method: ValidationMethod,
  ) => await differs(other, recorded, digest, [method]) !== undefined;
  assertEquals(await compared({}, "buildid"), true);
  assertEquals(await compared({}, "checksum"), true);
  assertEquals(await compared({}, "filesize"), false);
  assertEquals(await compared({ build_id: ID }, "buildid"), false);
});

Deno.test("methods for which an image has nothing are known", () => {
  const entry = { size: 10n, build_id: [] };
  const digest = (bytes: bigint) =>
    extension({ digest: DIGEST, digest_bytes: bytes });
  const unknown = (extension?: ckpt_file_entry, build_id: number[] = []) =>
    unrecordedMethods(VALIDATION_METHODS, [{
      entry: { ...entry, build_id },
      extension,
    }]);
  assertEquals(unknown(), ["buildid", "mtime", "checksum"]);
  assertEquals(unknown(extension(TIME), ID), ["checksum"]);
  assertEquals(unknown(digest(4n)), ["mtime", "checksum"]);
  assertEquals(unknown(digest(10n)), ["mtime"]);
});
