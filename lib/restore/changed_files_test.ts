import { assertEquals } from "@std/assert";
import { O } from "../ffi/syscall.ts";
import type { reg_file_entry } from "../image/schema.gen.ts";
import {
  type ImagePart,
  minimalImage,
} from "../image/testing/minimal_image.ts";
import { changedFiles } from "./changed_files.ts";
import { withTree } from "./testing/tree_images.ts";

/** What is said of a file that the image describes like this. */
async function told(
  file: Partial<reg_file_entry>,
  replaced: ReadonlySet<number> = new Set(),
  isLink = false,
  more: readonly ImagePart[] = [],
) {
  const image = minimalImage();
  // The others of the image need not be on this host.
  image.files = [image.files[1]];
  Object.assign(image.files[0].reg!, { mode: undefined, ...file });
  const reasons = await withTree(
    [image],
    (images) => {
      const files = [...images.files.values()];
      const link = files.find(({ reg }) => reg !== undefined)!.reg!;
      const other = { ...files[0], id: 99, reg: { ...link, id: 99 } };
      return changedFiles(
        {
          ...images,
          files: new Map([...images.files, [99, other]]),
          remaps: new Map(isLink ? [[99, { kind: "link", link }]] : []),
        },
        isLink ? replaced : new Set([...replaced, 99]),
      );
    },
    more,
  );
  return reasons.map(({ object, why, remedy }) => [object, why, remedy]);
}

Deno.test("a file that is as it was is no reason, any other way it is", async () => {
  const directory = await Deno.makeTempDir();
  const name = `${directory}/é`;
  try {
    await Deno.writeTextFile(name, "12345", { mode: 0o600 });
    await Deno.chmod(name, 0o640);
    assertEquals(await told({ name }), []);
    assertEquals(await told({ name, size: 5n, mode: 0o100640 }), []);
    assertEquals(await told({ name, size: 6n, mode: 0o100640 }), [[
      `file ${name}`,
      "its size is 5, it was 6: the file has changed since the dump",
      "put back the one of the dump, or give --file-validation none to take this one",
    ]]);
    for (
      const [subvolume, remedy] of [
        [directory, "give --from-snapshot: that is as it was at the dump; or "],
        [`${directory}/x`, ""],
      ]
    ) {
      const snapshots = [{
        subvolume,
        snapshot: "/s",
        parent: new Uint8Array(),
      }];
      const [changed] = await told({ name, size: 6n }, new Set(), false, [
        ["ckpt-snapshots", undefined, snapshots],
      ]);
      assertEquals(
        changed[2],
        `${remedy}put back the one of the dump, or give --file-validation none to take this one`,
      );
    }
    assertEquals(await told({ name, mode: 0o100644 }), [[
      `file ${name}`,
      "its mode is 100640, it was 100644",
      "put back the one of the dump, or give --file-validation none to take this one",
    ]]);
    assertEquals(await told({ name: `${name}x` }), [[
      `file ${name}x`,
      "stat: ENOENT (no such file or directory)",
      "put it back where it was at the dump",
    ]]);
    // A descriptor of ckpt's own takes its place.
    assertEquals(await told({ name: `${name}x` }, new Set([2])), []);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("a link is followed, unless it was opened as a link", async () => {
  const directory = await Deno.makeTempDir();
  const name = `${directory}/link`;
  try {
    await Deno.symlink("/dev/null", name);
    const link = Deno.lstatSync(name).mode!;
    const target = Deno.statSync(name).mode!;
    const flags = O.PATH | O.NOFOLLOW;
    assertEquals(await told({ name, mode: target }), []);
    assertEquals(await told({ name, mode: link, flags }), []);
    assertEquals((await told({ name, mode: link })).length, 1);
    assertEquals((await told({ name, mode: target, flags })).length, 1);
    // A name that a dump gave to a link is that link, and may lead nowhere.
    assertEquals(await told({ name, mode: link }, new Set(), true), []);
    Deno.removeSync(name);
    Deno.symlinkSync("to/nowhere", name);
    assertEquals(await told({ name, mode: link }, new Set(), true), []);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("files of the process itself come with it, those of the outside must be given", async () => {
  assertEquals(await told({ name: "/proc/99999999/status" }), []);
  assertEquals(await told({ name: "file[1:2]", ext: true }), [[
    "file file[1:2]",
    "the program got it from outside",
    "give it: --inherit-fd fd[N]:file[1:2]",
  ]]);
});
