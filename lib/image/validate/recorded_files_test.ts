/** What images of ours tell about files and snapshots, and what is refused of it. */
import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import type { ckpt_file_entry, ckpt_snapshot_entry } from "../schema.gen.ts";
import {
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const SNAPSHOT = {
  subvolume: "/a",
  snapshot: "/a.ckpt-snapshot.1",
  parent: new Uint8Array(16),
};

function complaints(
  files: Partial<ckpt_file_entry>[],
  snapshots: ckpt_snapshot_entry[] = [],
): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    writeWithoutManifest(directory, minimalImage());
    Deno.writeFileSync(
      `${directory}/ckpt-files.img`,
      encodeImage(
        "ckpt-files",
        files.map((file) => ({ id: 2, watched: [], ...file })),
      ),
    );
    Deno.writeFileSync(
      `${directory}/ckpt-snapshots.img`,
      encodeImage("ckpt-snapshots", snapshots),
    );
    return wrongIn(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("what a file is recognised by has to be complete, and about a file", () => {
  const digest = new Uint8Array(32);
  const at = "ckpt-files.img, entry 0, field";
  assertEquals(
    complaints([{ modified_s: 1n, modified_ns: 5, digest, digest_bytes: 1n }]),
    [],
  );
  assertEquals(complaints([{ modified_ns: 1_000_000_000 }]), [
    `${at} modified_ns: 1000000000 is more than a second`,
  ]);
  assertEquals(
    complaints([{ digest: digest.subarray(1), digest_bytes: 1n }]),
    [`${at} digest: has 31 bytes, not 32`],
  );
  assertEquals(complaints([{ digest_bytes: 1n }]), [
    `${at} digest_bytes: is there without digest, or digest without it`,
  ]);
  assertEquals(complaints([{ id: 999, modified_s: 1n }]), [
    `${at} id: 999 is no file with a path`,
  ]);
});

Deno.test("a snapshot is named once, by absolute paths and a uuid", () => {
  const at = "ckpt-snapshots.img, entry";
  assertEquals(complaints([], [SNAPSHOT]), []);
  assertEquals(complaints([], [{ ...SNAPSHOT, subvolume: "a" }]), [
    `${at} 0, field subvolume: a is no absolute path`,
  ]);
  assertEquals(
    complaints([], [SNAPSHOT, { ...SNAPSHOT, snapshot: "/b" }]),
    [`${at} 1, field subvolume: /a is there twice`],
  );
  assertEquals(
    complaints([], [{ ...SNAPSHOT, parent: new Uint8Array(15) }]),
    [`${at} 0, field parent: has 15 bytes, not 16`],
  );
});
