import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { readImageSet } from "./image_set.ts";
import { decodeManifest, MANIFEST_NAME } from "./manifest.ts";
import { showAll, summarize } from "./show.ts";
import { type Damage, damages } from "./testing/damage.ts";
import {
  minimalImage,
  writeWithManifest,
  writeWithoutManifest,
} from "./testing/minimal_image.ts";
import { seededRandom } from "./testing/random.ts";
import { validateImageSet } from "./validate/mod.ts";

/** Every file but the pages. */
function metadata(directory: string): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const { name } of Deno.readDirSync(directory)) {
    if (name.startsWith("pages-")) continue;
    files.set(name, Deno.readFileSync(`${directory}/${name}`));
  }
  return files;
}

/** Applies a damage, runs, and puts the good file back. */
async function withDamage(
  directory: string,
  { name, bytes }: Damage,
  run: () => void | Promise<void>,
) {
  const path = `${directory}/${name}`;
  const good = Deno.readFileSync(path);
  if (bytes === undefined) Deno.removeSync(path);
  else Deno.writeFileSync(path, bytes);
  try {
    await run();
  } finally {
    Deno.writeFileSync(path, good);
  }
}

async function inDirectory(test: (directory: string) => void | Promise<void>) {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    await test(directory);
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("a damaged image without manifest fails as one, or can be shown", () =>
  inDirectory(async (directory) => {
    writeWithoutManifest(directory, minimalImage());
    let count = 0;
    let refused = 0;
    const random = seededRandom(6);
    for (const damage of damages(metadata(directory), random, 11)) {
      count++;
      await withDamage(directory, damage, () => {
        try {
          const set = readImageSet(directory);
          validateImageSet(set);
          summarize(set);
          assert([...showAll(set)].length > 0);
        } catch (error) {
          refused++;
          const what = `${damage.name}, ${damage.what}`;
          assert(error instanceof CkptError, `${what}: ${error}`);
          assertEquals(error.exit, EXIT.image, what);
          assert(error.reasons.every(({ object, why }) => object && why), what);
        }
      });
    }
    assert(count > 1000 && refused > count / 2, `${refused} of ${count}`);
    validateImageSet(readImageSet(directory));
  }));

Deno.test("with a manifest every damage is found, and the file named", () =>
  inDirectory(async (directory) => {
    await writeWithManifest(directory, minimalImage());
    const random = seededRandom(7);
    const good = metadata(directory);
    for (const damage of damages(good, random, 67)) {
      const { name, what, bytes } = damage;
      if (bytes && equal(bytes, good.get(name)!)) continue;
      // Without its manifest an image is taken for one of CRIU's.
      if (name === MANIFEST_NAME && bytes === undefined) continue;
      await withDamage(directory, damage, () => {
        const error = assertThrows(
          () => readImageSet(directory),
          CkptError,
          name === "inventory.img" && bytes === undefined
            ? "no inventory.img"
            : name,
          `${name}, ${what}`,
        );
        assertEquals(error.exit, EXIT.image);
      });
    }
    readImageSet(directory);
  }));

Deno.test("every flipped bit of the manifest itself is found", () =>
  inDirectory(async (directory) => {
    await writeWithManifest(directory, minimalImage());
    const good = Deno.readFileSync(`${directory}/${MANIFEST_NAME}`);
    assert(!("why" in decodeManifest(good)));
    for (let bit = 0; bit < 8 * good.length; bit++) {
      const bytes = good.slice();
      bytes[bit >> 3] ^= 1 << (bit & 7);
      assert("why" in decodeManifest(bytes), `bit ${bit}`);
    }
  }));

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
