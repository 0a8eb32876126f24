import { assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { FileMap } from "./file_map.ts";

Deno.test("files are told apart by device, number and link, in the order they came", () => {
  const random = seededRandom(5);
  const files = new FileMap<number>();
  const model = new Map<string, number>();
  // Some numbers are the same when they are rounded.
  const inodes = [1n, 2n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 64n - 1n];
  const one = <T>(of: readonly T[]) => of[Math.floor(random() * of.length)];
  for (let i = 0; i < 500; i++) {
    const [dev, ino, link] = [one([1n, 2n]), one(inodes), one(["", "/a"])];
    const key = `${dev} ${ino} ${link}`;
    assertEquals(files.get({ dev, ino }, link), model.get(key));
    files.set({ dev, ino }, i, link);
    model.set(key, i);
    assertEquals(files.get({ dev, ino }, link), i);
  }
  assertEquals(files.values(), [...model.values()]);
  assertEquals(files.size, model.size);
});
