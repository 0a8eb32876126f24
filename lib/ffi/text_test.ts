import { assertEquals } from "@std/assert";
import { decodeText, encodeText } from "./text.ts";
import { seededRandom } from "../image/testing/random.ts";

Deno.test("any bytes survive as text", () => {
  const random = seededRandom(5);
  // Bytes that begin, continue and break characters.
  const alphabet = [0x41, 0x7f, 0x80, 0xbf, 0xc0, 0xc3, 0xe2, 0xed, 0xf0, 0xff];
  for (let round = 0; round < 5000; round++) {
    const length = Math.floor(random() * 12);
    const bytes = Uint8Array.from(
      { length },
      () => alphabet[Math.floor(random() * alphabet.length)],
    );
    assertEquals(encodeText(decodeText(bytes)), bytes);
  }
});

Deno.test("text that is UTF-8 is what it looks like", () => {
  for (
    const text of ["", "/tmp/a", "/tmp/é語🦀", "\ufeffx", "a".repeat(5000)]
  ) {
    const bytes = new TextEncoder().encode(text);
    assertEquals(decodeText(bytes), text);
    assertEquals(encodeText(text), bytes);
  }
  assertEquals(decodeText(Uint8Array.of(0x2f, 0xff)), "/\udcff");
});
