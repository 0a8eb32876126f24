import { assertEquals } from "@std/assert";
import { addressText, decodeAddress, encodeAddress } from "./inet_address.ts";

const LOOPBACK = 0x0100007f;

Deno.test("addresses are encoded as the kernel has them, and written as people do", () => {
  const four = { port: 80, words: [LOOPBACK], scope: 0 };
  const bytes = encodeAddress(2, four);
  assertEquals([...bytes.subarray(0, 8)], [2, 0, 0, 80, 127, 0, 0, 1]);
  assertEquals(decodeAddress(bytes), four);
  assertEquals(addressText(2, four), "127.0.0.1:80");
  const table: [number[], string][] = [
    [[0, 0, 0, 0], "[::]:443"],
    [[0, 0, 0, 0x01000000], "[::1]:443"],
    [[0x80fe, 0, 0, 0x02000000], "[fe80::2]:443"],
    [[0xb80d0120, 0, 0, 0], "[2001:db8::]:443"],
  ];
  for (const [words, text] of table) {
    const six = { port: 443, words, scope: 3 };
    assertEquals(decodeAddress(encodeAddress(10, six)), six);
    assertEquals(addressText(10, six), text);
  }
});
