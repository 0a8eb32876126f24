import { assertEquals } from "@std/assert";
import type { ckpt_socket_option } from "../image/schema.gen.ts";
import { addKeys } from "./md5_keys.ts";

/** As the kernel answers, of a socket of a family with the inode 77. */
function answer(family: number, keys: number[][]): Uint8Array<ArrayBuffer> {
  const message = new Uint8Array(72 + 8 + 4 + 100 * keys.length);
  const view = new DataView(message.buffer);
  message[0] = family;
  view.setUint32(68, 77, true);
  // another attribute
  view.setUint16(72, 5, true);
  view.setUint16(74, 8, true);
  view.setUint16(80, 4 + 100 * keys.length, true);
  view.setUint16(82, 18, true);
  keys.forEach((key, i) => message.set(key, 84 + 100 * i));
  return message;
}

const SECRET = [0x6b, 0x65, 0x79];
const PADDING = Array.from({ length: 12 }, () => 0);

Deno.test("keys of TCP-MD5 are options of their socket, by the family of that", () => {
  const four = [2, 24, 3, 0, 10, 9, 8, 0, ...PADDING, ...SECRET];
  const six = [10, 64, 3, 0, 0xfd, ...PADDING, 0, 0, 1, ...SECRET];
  const found = new Map<number, readonly ckpt_socket_option[]>();
  addKeys(answer(10, [four, six]), found);
  const [mapped, plain] = found.get(77)!;
  assertEquals([mapped.level, mapped.name, mapped.value.length], [6, 32, 216]);
  assertEquals(mapped.value[0], 10);
  assertEquals([...mapped.value.subarray(18, 24)], [255, 255, 10, 9, 8, 0]);
  // flags, length of the prefix, of the key
  assertEquals([...mapped.value.subarray(128, 132)], [1, 24, 3, 0]);
  assertEquals([...mapped.value.subarray(136, 140)], [...SECRET, 0]);
  assertEquals([plain.value[8], plain.value[23]], [0xfd, 1]);
  assertEquals(plain.value[129], 64);
  addKeys(answer(2, [four]), found);
  assertEquals(found.get(77)!.map(({ value }) => [...value.subarray(0, 8)]), [
    [2, 0, 0, 0, 10, 9, 8, 0],
  ]);
  found.clear();
  addKeys(answer(2, []), found);
  assertEquals(found.size, 0);
});
