import { assertEquals } from "@std/assert";
import { clockOffsets, parseClockOffsets } from "./clocks.ts";

const SECOND = 1_000_000_000n;
const at = (seconds: bigint, nanoseconds: bigint) => ({
  tv_sec: seconds,
  tv_nsec: nanoseconds,
});

Deno.test("offsets are as the kernel shows them", () => {
  const text =
    "monotonic       70000         0\nboottime            -3 999999999\n";
  assertEquals(
    parseClockOffsets(text),
    new Map([["monotonic", 70000n * SECOND], ["boottime", -2n * SECOND - 1n]]),
  );
});

Deno.test("clocks go on from those of the image", () => {
  const image = { monotonic: at(100n, 5n), boottime: at(200n, 0n) };
  const now = { monotonic: 40n * SECOND + 7n, boottime: 300n * SECOND + 1n };
  assertEquals(
    clockOffsets(image, now, new Map()),
    "monotonic 59 999999998\nboottime -101 999999999\n",
  );
});

Deno.test("the offsets of ckpt's own namespace are none of the host's", () => {
  const image = { monotonic: at(100n, 0n), boottime: at(100n, 0n) };
  const now = { monotonic: 100n * SECOND, boottime: 100n * SECOND };
  const own = new Map([["monotonic", 70n * SECOND]]);
  assertEquals(
    clockOffsets(image, now, own),
    "monotonic 70 0\nboottime 0 0\n",
  );
});
