import { assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { difference, intersection, joined, type Range } from "./ranges.ts";

const LENGTH = 64;

function rangesOf(bits: readonly boolean[]): Range[] {
  return joined(
    bits.flatMap((bit, i) =>
      bit ? [{ start: BigInt(i), end: BigInt(i + 1) }] : []
    ),
  );
}

function bitsOf(ranges: readonly Range[]): boolean[] {
  return Array.from(
    { length: LENGTH },
    (_, i) => ranges.some(({ start, end }) => start <= i && i < end),
  );
}

Deno.test("sets of random addresses are intersected, subtracted and joined", () => {
  const random = seededRandom(3);
  const set = () => {
    const often = random();
    return Array.from({ length: LENGTH }, () => random() < often);
  };
  for (let round = 0; round < 500; round++) {
    const [a, b] = [set(), set()];
    assertEquals(bitsOf(rangesOf(a)), a);
    const both = intersection(rangesOf(a), rangesOf(b));
    assertEquals(bitsOf(both), a.map((bit, i) => bit && b[i]));
    const left = difference(rangesOf(a), rangesOf(b));
    assertEquals(bitsOf(left), a.map((bit, i) => bit && !b[i]));
    assertEquals(joined(both), joined(rangesOf(bitsOf(both))));
  }
});

Deno.test("ranges that touch are kept apart until they are joined", () => {
  const touching = [{ start: 0n, end: 4n }, { start: 4n, end: 8n }];
  assertEquals(intersection(touching, [{ start: 2n, end: 6n }]), [
    { start: 2n, end: 4n },
    { start: 4n, end: 6n },
  ]);
  assertEquals(joined(touching), [{ start: 0n, end: 8n }]);
});
