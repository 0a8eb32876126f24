import { assertEquals } from "@std/assert";
import { describeInherited, inheritedRanges } from "./inherited_pages.ts";

Deno.test("ranges that touch become one in the image, and none no entry", () => {
  const pages = { entries: [], guards: [] };
  assertEquals(describeInherited({ ...pages, inherited: [] }), undefined);
  assertEquals(
    describeInherited({
      ...pages,
      inherited: [
        { start: 0x1000n, end: 0x3000n },
        { start: 0x3000n, end: 0x4000n },
        { start: 0x8000n, end: 0x9000n },
      ],
    }),
    {
      ranges: [
        { start: 0x1000n, end: 0x4000n },
        { start: 0x8000n, end: 0x9000n },
      ],
    },
  );
});

Deno.test("of whatever an image says only whole pages in order are taken", () => {
  assertEquals(inheritedRanges(undefined), []);
  assertEquals(
    inheritedRanges({
      ranges: [
        { start: 0x8000n, end: 0xa000n },
        { start: 0x1001n, end: 0x4fffn },
        { start: 0x9000n, end: 0xb000n },
        { start: 0x7000n, end: 0x6000n },
        { start: 0x5100n, end: 0x5900n },
      ],
    }),
    [{ start: 0x2000n, end: 0x4000n }, { start: 0x8000n, end: 0xb000n }],
  );
});
