import { assertEquals, assertObjectMatch } from "@std/assert";
import { readImageSet } from "./image_set.ts";
import { showAll, summarize } from "./show.ts";
import { minimalImage, writeWithManifest } from "./testing/minimal_image.ts";

async function inImage(
  test: (set: Awaited<ReturnType<typeof readImageSet>>) => void,
) {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage();
    image.inventory.plugins_entry = { plugins: ["ckpt:tsc"] };
    await writeWithManifest(directory, image);
    test(await readImageSet(directory));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the summary says who is in the image and how much memory", () =>
  inImage((set) => {
    assertObjectMatch(summarize(set), {
      ckpt_version: "0.0.0",
      needs: ["ckpt:tsc"],
      open_files: 4,
      page_bytes: 5 * 4096,
      tasks: [{
        pid: 4242,
        ppid: 0,
        name: "tiny",
        state: "alive",
        program: "/opt/demo/tiny",
        directory: "/srv",
        threads: 1,
        descriptors: 3,
        areas: 6,
        mapped_bytes: (3 + 6 + 2 + 33) * 4096,
        stored_bytes: 5 * 4096,
      }],
    });
  }));

Deno.test("all of an image can be shown as JSON", () =>
  inImage((set) => {
    const files = JSON.parse(JSON.stringify([...showAll(set)]));
    const entries = (name: string) =>
      files.find((file: { name: string }) => file.name === name).entries;
    assertEquals(entries("pages-1.img"), undefined);
    assertEquals(entries("pagemap-4242.img").slice(0, 2), [
      { pages_id: 1 },
      { vaddr: "4198400", compat_nr_pages: 0, flags: 4, nr_pages: "1" },
    ]);
    assertEquals(entries("inventory.img")[0].lsmtype, "NO_LSM");
    assertEquals(entries("fdinfo-2.img")[1].type, "REG");
    assertEquals(entries("fs-4242.img"), [{
      cwd_id: 3,
      root_id: 4,
      umask: 18,
    }]);
  }));
