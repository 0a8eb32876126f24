import { assertEquals } from "@std/assert";
import { bytesOfText, textOfBytes } from "./bytes.ts";
import { randomNumbers } from "./testing/mutations.ts";

Deno.test("valid UTF-8 is decoded as it is", () => {
  for (const text of ["", "plain", "é😀\u{10ffff}", "\ufeffname", "\ufffd"]) {
    const bytes = new TextEncoder().encode(text);
    assertEquals(textOfBytes(bytes), text);
    assertEquals(bytesOfText(text), bytes);
  }
});

Deno.test("each byte that is no UTF-8 becomes one surrogate", () => {
  const cases: [number[], string][] = [
    [[0x61, 0xff, 0x62], "a\udcffb"],
    [[0xc3], "\udcc3"],
    [[0xe2, 0x82], "\udce2\udc82"],
    // Overlong, a surrogate, and beyond the last character.
    [[0xc0, 0x80], "\udcc0\udc80"],
    [[0xed, 0xb2, 0x80], "\udced\udcb2\udc80"],
    [[0xf4, 0x90, 0x80, 0x80], "\udcf4\udc90\udc80\udc80"],
    // A real replacement character beside a broken one.
    [[0xef, 0xbf, 0xbd, 0x80], "\ufffd\udc80"],
  ];
  for (const [bytes, text] of cases) {
    assertEquals(textOfBytes(Uint8Array.from(bytes)), text);
    assertEquals(bytesOfText(text), Uint8Array.from(bytes));
  }
});

Deno.test("random bytes come back as they were", () => {
  const random = randomNumbers(7);
  // Bytes that begin, continue and break sequences.
  const pool = [
    ...[0x00, 0x41, 0x7f, 0x80, 0x90, 0x9f, 0xa0, 0xbd, 0xbf, 0xc0, 0xc2],
    ...[0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff],
  ];
  for (let round = 0; round < 5000; round++) {
    const bytes = Uint8Array.from(
      { length: random(12) },
      () => pool[random(pool.length)],
    );
    assertEquals(bytesOfText(textOfBytes(bytes)), bytes);
  }
});
