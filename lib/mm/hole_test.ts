import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { type AddressRange, findHole } from "./hole.ts";

const LOWEST = 0x10000;
const HIGHEST = 0x7fff_ffff_f000;
const MARGIN = 4 * 1024 * 1024;

Deno.test("an empty address space has a hole, above the lowest addresses", () => {
  assertEquals(findHole([], 4096), LOWEST + MARGIN);
});

Deno.test("a full address space has none", () => {
  assertEquals(findHole([{ start: 0, end: HIGHEST }], 4096), undefined);
  assertEquals(findHole([], HIGHEST), undefined);
});

Deno.test("a gap of just the right size is found, one page less is not", () => {
  const at = 0x1_0000_0000;
  const taken = (gap: number) => [
    { start: 0, end: at },
    { start: at + gap, end: HIGHEST },
  ];
  const gap = MARGIN + 8192 + MARGIN;
  assertEquals(findHole(taken(gap), 8192), at + MARGIN);
  assertEquals(findHole(taken(gap - 4096), 8192), undefined);
});

Deno.test("vsyscall, above all user addresses, is in nobody's way", () => {
  const vsyscall = { start: 0xffffffffff600000, end: 0xffffffffff601000 };
  assertEquals(findHole([vsyscall], 4096), LOWEST + MARGIN);
  const rest = { start: 0, end: HIGHEST - MARGIN };
  assertEquals(findHole([vsyscall, rest], 4096), undefined);
});

/** Every gap between the ranges, from the sum of all of them. */
function gaps(taken: readonly AddressRange[]): AddressRange[] {
  const borders = new Set([LOWEST, HIGHEST]);
  for (const { start, end } of taken) borders.add(start).add(end);
  const sorted = [...borders].filter((at) => at >= LOWEST && at <= HIGHEST)
    .sort((a, b) => a - b);
  const found: { start: number; end: number }[] = [];
  for (let i = 1; i < sorted.length; i++) {
    const [start, end] = [sorted[i - 1], sorted[i]];
    if (taken.some((range) => range.start < end && start < range.end)) continue;
    const last = found.at(-1);
    if (last?.end === start) last.end = end;
    else found.push({ start, end });
  }
  return found;
}

Deno.test("a hole never touches anything, and is found whenever a gap has room", () => {
  const random = seededRandom(3);
  const pages = (most: number) => Math.floor(random() * most) * 4096;
  let foundOnes = 0;
  for (let round = 0; round < 4000; round++) {
    // A narrow window, so that many rounds have no room.
    const low = LOWEST + pages(2 ** 20);
    const window = pages(2 ** 14);
    const taken: AddressRange[] = [
      { start: 0, end: low },
      { start: low + window, end: HIGHEST },
    ];
    for (let i = Math.floor(random() * 12); i > 0; i--) {
      const start = low + Math.floor(random() * window / 4096) * 4096;
      taken.push({ start, end: start + pages(200) + 4096 });
    }
    taken.sort(() => random() - 0.5);
    const before = structuredClone(taken);
    const length = pages(4096) + 4096;
    const hole = findHole(taken, length);
    assertEquals(taken, before);
    const room = gaps(taken).filter(({ start, end }) =>
      end - start >= length + 2 * MARGIN
    );
    assertEquals(
      hole,
      room.length === 0 ? undefined : room[0].start + MARGIN,
    );
    if (hole === undefined) continue;
    foundOnes++;
    assert(hole >= LOWEST && hole + length <= HIGHEST);
    for (const { start, end } of taken) {
      assert(hole + length + MARGIN <= start || end <= hole - MARGIN);
    }
  }
  assert(foundOnes > 500 && foundOnes < 3500, `${foundOnes} had room`);
});
