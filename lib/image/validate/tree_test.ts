import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../../error.ts";
import { encodeImage } from "../framing.ts";
import { readImageSet } from "../image_set.ts";
import { imageName } from "../kinds.ts";
import type { pstree_entry } from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { validateImageSet } from "./mod.ts";

/** One more process: its place in the tree, and what is special about it. */
interface Child {
  place: pstree_entry;
  dead?: boolean;
  change?: (image: MinimalImage) => void;
}

const ROOT = 4242;

function place(pid: number, ppid: number, sid = ROOT, pgid = ROOT) {
  return { pid, ppid, pgid, sid, threads: [pid] };
}

/** Writes the minimal image with children, and returns what is wrong with it. */
async function complaints(...children: Child[]): Promise<string[]> {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const root = minimalImage(ROOT);
    root.pstree.push(...children.map((child) => child.place));
    children.forEach(({ place: { pid }, dead, change }, i) => {
      const image = minimalImage(pid);
      image.pagemap.pages_id = i + 2;
      change?.(image);
      if (dead) {
        image.core.tc!.task_state = 2;
        const core = { mtype: 1, tc: image.core.tc! };
        const path = `${directory}/${imageName("core", pid)}`;
        Deno.writeFileSync(path, encodeImage("core", core));
      } else writeWithoutManifest(directory, image);
    });
    writeWithoutManifest(directory, root);
    const set = await readImageSet(directory);
    try {
      validateImageSet(set);
      return [];
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
      return error.reasons.map(({ object, why }) => `${object}: ${why}`);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("a tree with children, sessions and a dead process is fine", async () => {
  assertEquals(
    await complaints(
      { place: place(10, ROOT) },
      { place: place(11, 10, 11, 11) },
      { place: place(12, 11, 11, 11) },
      // Its leader is dead and gone; the root stands in.
      { place: place(13, ROOT, 999, 999) },
      // What a dead process has for a thread means nothing.
      { place: { ...place(14, 10), threads: [3826944800] }, dead: true },
    ),
    [],
  );
});

Deno.test("a tree that cannot be made is refused, with the process", async () => {
  const cases: [Child[], string][] = [
    [
      [{ place: place(10, 11) }, { place: place(11, ROOT) }],
      "pstree.img, entry 1, field ppid: 11 does not come before it",
    ],
    [
      [{ place: place(10, 0) }],
      "pstree.img, entry 1, field ppid: is a second root",
    ],
    [
      [{ place: place(10, ROOT) }, { place: place(11, 10, 999, 11) }],
      "pstree.img, entry 2, field sid: 999 is no ancestor of 11",
    ],
    [
      [{ place: place(10, ROOT, 10, 10) }, {
        place: place(11, ROOT, ROOT, 10),
      }],
      "pstree.img, entry 2, field pgid: 10 is in another session",
    ],
    [
      [{ place: { ...place(10, ROOT), threads: [10, ROOT] } }],
      "pstree.img, entry 1, field threads: 4242 is taken by another task",
    ],
    [
      [{ place: { ...place(10, ROOT), threads: [] }, dead: true }],
      "pstree.img, entry 1, field threads: a dead process has one element",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.ids.uts_ns_id = 20 }],
      "ids-10.img, entry 0, field uts_ns_id: differs from the parent's",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.ids.mnt_ns_id = 20 }],
      "ids-10.img, entry 0, field mnt_ns_id: differs from the parent's",
    ],
    [
      [{ place: place(10, ROOT), change: (i) => i.pagemap.pages_id = 1 }],
      "pagemap-10.img, entry 0, field pages_id: 1 is that of pagemap-4242.img",
    ],
  ];
  for (const [children, words] of cases) {
    const told = await complaints(...children);
    assertEquals(told.filter((one) => one.startsWith(words)).length, 1, words);
  }
});

Deno.test("a tree deeper than the limit is refused, and soon", async () => {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const image = minimalImage(1);
    const length = 100_000;
    image.pstree = Array.from(
      { length },
      (_, i) => place(i + 1, i, i === length - 1 ? 7 : 5),
    );
    writeWithoutManifest(directory, image);
    const set = await readImageSet(directory);
    assertThrows(() => validateImageSet(set), CkptError, "generations below");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
