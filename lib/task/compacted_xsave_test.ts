import { assertEquals } from "@std/assert";
import { standardXsave } from "./compacted_xsave.ts";

/** YMM as every CPU has it, masks of AVX-512, and protection keys. */
const LAYOUT = {
  size: 2700,
  components: Uint32Array.from(
    { length: 128 },
    (_, i) =>
      ({
        4: 576,
        5: 256,
        10: 1088,
        11: 64,
        12: 1152,
        13: 512,
        18: 2688,
        19: 8,
      })[
        i
      ] ?? 0,
  ),
};
/** The masks begin at a multiple of 64; 8 is one of the kernel's own. */
const COMPACTION = Uint32Array.from(
  { length: 128 },
  (_, i) => ({ 4: 256, 10: 64, 11: 1, 12: 512, 16: 24, 18: 8 })[i] ?? 0,
);

const ALL = 0x2ffn;
const PKRU = 0x5555_5554;

function area(used: bigint, xcompBv: bigint): Uint8Array<ArrayBuffer> {
  const bytes = Uint8Array.from({ length: 2700 }, (_, i) => i * 7 % 251);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(512, used, true);
  view.setBigUint64(520, xcompBv, true);
  return bytes;
}

function standard(bytes: Uint8Array<ArrayBuffer>, features = ALL) {
  return standardXsave(bytes, features, PKRU, LAYOUT, COMPACTION);
}

Deno.test("components are found one behind the other, as far as the area has them", () => {
  // YMM at 576, then that of the kernel is at 832, and AVX-512 begins at 896.
  const used = 0x167n;
  const bytes = area(used, 1n << 63n | used);
  const out = standard(bytes);
  assertEquals(out.subarray(0, 24), bytes.subarray(0, 24));
  assertEquals(out.subarray(24, 28), bytes.subarray(24, 28));
  assertEquals(out.subarray(32, 416), bytes.subarray(32, 416));
  assertEquals(out.subarray(576, 832), bytes.subarray(576, 832));
  assertEquals(out.subarray(1088, 1152), bytes.subarray(832, 896));
  assertEquals(out.subarray(1152, 1664), bytes.subarray(896, 1408));
  const view = new DataView(out.buffer);
  assertEquals(view.getBigUint64(512, true), used & ALL);
  assertEquals(view.getBigUint64(520, true), 0n);
  assertEquals(view.getUint32(2688, true), PKRU);
});

Deno.test("what is in its initial state is that, whatever the area holds", () => {
  const out = standard(area(0n, 1n << 63n | 0x67n));
  const view = new DataView(out.buffer);
  assertEquals(view.getUint16(0, true), 0x37f);
  assertEquals(view.getUint32(24, true), 0x1f80);
  assertEquals(out.subarray(32, 512).every((byte) => byte === 0), true);
  assertEquals(out.subarray(576, 2688).every((byte) => byte === 0), true);
});

Deno.test("rounding is that of the area when only the upper halves are in use", () => {
  const bytes = area(4n, 1n << 63n | 4n);
  const out = standard(bytes);
  assertEquals(out.subarray(24, 28), bytes.subarray(24, 28));
  assertEquals(out.subarray(576, 832), bytes.subarray(576, 832));
});

Deno.test("without compaction all are where ptrace has them, but for those a program cannot see", () => {
  const bytes = area(0x67n, 0n);
  const out = standard(bytes, 0x27n);
  assertEquals(out.subarray(1088, 1152), bytes.subarray(1088, 1152));
  assertEquals(out.subarray(1152, 1664).every((byte) => byte === 0), true);
});
