import { assert, assertEquals } from "@std/assert";
import { bytesIn, halve, type StoredRange } from "./stored_pages.ts";

const PAGE = 4096n;

/** Ranges of some pages each, with gaps between them. */
function rangesOf(...pages: number[]): StoredRange[] {
  let start = 0x10000n;
  let offset = 0n;
  return pages.map((count) => {
    const size = BigInt(count) * PAGE;
    const range = { start, end: start + size, offset };
    start = range.end + PAGE;
    offset += size;
    return range;
  });
}

Deno.test("stored pages are halved at a page, in the middle of a range if need be", () => {
  assertEquals(halve(rangesOf(3)), [
    [{ start: 0x10000n, end: 0x11000n, offset: 0n }],
    [{ start: 0x11000n, end: 0x13000n, offset: 0x1000n }],
  ]);
  const [one, other] = rangesOf(2, 2);
  assertEquals(halve([one, other]), [[one], [other]]);
  assertEquals(halve([]), [[], []]);
});

Deno.test("halves of any ranges are all of them, once and in order", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const counts = Array.from(
      { length: seed % 7 },
      (_, i) => 1 + (seed * (i + 3) * 7919) % 11,
    );
    const all = rangesOf(...counts);
    const [first, second] = halve(all);
    const difference = bytesIn(second) - bytesIn(first);
    assert(difference === 0n || difference === PAGE, `seed ${seed}`);
    const pagesOf = (ranges: readonly StoredRange[]) =>
      ranges.flatMap(({ start, end, offset }) =>
        Array.from(
          { length: Number((end - start) / PAGE) },
          (_, i) => [start + BigInt(i) * PAGE, offset + BigInt(i) * PAGE],
        )
      );
    assertEquals([...pagesOf(first), ...pagesOf(second)], pagesOf(all));
  }
});
