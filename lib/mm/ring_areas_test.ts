import { assertEquals } from "@std/assert";
import { freeRanges } from "./ring_areas.ts";

const TOP = 0x7fff_ffff_f000n;

Deno.test("all that is free is one range where nothing is taken", () => {
  assertEquals(freeRanges([], 0x1000n), [{ start: 0x10000n, end: TOP }]);
});

Deno.test("free ranges are those between areas, in any order, that are long enough", () => {
  assertEquals(
    freeRanges([
      { start: 0x40000n, end: 0x50000n },
      { start: 0x20000n, end: 0x30000n },
      { start: 0x51000n, end: TOP },
    ], 0x2000n),
    [
      { start: 0x10000n, end: 0x20000n },
      { start: 0x30000n, end: 0x40000n },
    ],
  );
});
