/** File locks of an image, each by a descriptor of a process that lives. */
import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import type { file_lock_entry } from "../schema.gen.ts";
import {
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const LOCK: file_lock_entry = {
  flag: 1,
  type: 1,
  pid: 4242,
  fd: 0,
  start: 5n,
  len: 10n,
};

async function problems(
  change: Partial<file_lock_entry>,
): Promise<readonly string[]> {
  const directory = Deno.makeTempDirSync();
  try {
    await writeWithoutManifest(directory, minimalImage());
    Deno.writeFileSync(
      `${directory}/filelocks.img`,
      encodeImage("filelocks", [{ ...LOCK, ...change }]),
    );
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("wrong locks are told", async () => {
  assertEquals(await problems({}), []);
  assertEquals(await problems({ len: 0n }), []);
  const entry = "filelocks.img, entry 0, field";
  for (
    const [change, expected] of [
      [{ flag: 3 }, `${entry} flag: 3 is no lock`],
      [{ type: 256 }, `${entry} type: 256 is no type of lock`],
      [{ pid: 7 }, `${entry} pid: 7 is no process that lives`],
      [{ fd: 99 }, `${entry} fd: process 4242 has no such one`],
      [{ start: -1n }, `${entry} start: -1, 10 bytes, is no part of a file`],
      [
        { start: 2n ** 63n - 1n },
        `${entry} start: 9223372036854775807, 10 bytes, is no part of a file`,
      ],
    ] as [Partial<file_lock_entry>, string][]
  ) assertEquals(await problems(change), [expected]);
});
