import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseAuxv } from "./auxv.ts";
import { randomNumbers } from "./testing/mutations.ts";

function bytesOf(words: bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(words).buffer);
}

Deno.test("auxv gives pairs and keeps the end", () => {
  assertEquals(
    parseAuxv(bytesOf([33n, 0x7ffd1000n, 16n, 2n ** 64n - 1n, 0n, 0n])),
    [[33n, 0x7ffd1000n], [16n, 2n ** 64n - 1n], [0n, 0n]],
  );
  assertEquals(parseAuxv(new Uint8Array()), []);
});

Deno.test("bytes that do not begin at a multiple of eight parse", () => {
  const shifted = new Uint8Array(17);
  shifted.set(bytesOf([0n, 7n]), 1);
  assertEquals(parseAuxv(shifted.subarray(1)), [[0n, 7n]]);
});

Deno.test("half entries, as of 32-bit tasks, and a missing end are errors", () => {
  const half = assertThrows(() => parseAuxv(new Uint8Array(8)), CkptError);
  assertStringIncludes(half.message, "8 bytes are no whole number");
  const open = assertThrows(() => parseAuxv(bytesOf([6n, 4096n])), CkptError);
  assertStringIncludes(open.message, "the last entry is not AT_NULL");
});

Deno.test("random bytes either parse or give a CkptError", () => {
  const random = randomNumbers(3);
  let parsed = 0;
  for (let round = 0; round < 2000; round++) {
    const bytes = new Uint8Array(16 * random(4) + random(2) * random(16))
      .map(() => random(2) * random(256));
    if (random(2) === 0) bytes.fill(0, -16);
    try {
      assertEquals(parseAuxv(bytes).length, bytes.length / 16);
      parsed++;
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
    }
  }
  assertEquals(parsed > 100 && parsed < 1900, true);
});
