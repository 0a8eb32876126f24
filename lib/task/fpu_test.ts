import { assert, assertEquals, assertThrows } from "@std/assert";
import { checked } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import {
  hostXsaveLayout,
  readThreads,
  type XsaveLayout,
} from "../ffi/thread_state.ts";
import { CkptError, EXIT } from "../error.ts";
import { extraComponents, fpuEntry, rawFpu } from "./fpu.ts";
import { AgentTask } from "./testing/agent_task.ts";

/** Sizes of the components in every layout (Intel SDM volume 1, 13.5). */
const SIZES: Record<number, number> = {
  2: 256,
  3: 64,
  4: 64,
  5: 64,
  6: 512,
  7: 1024,
  9: 8,
  17: 64,
  18: 8192,
};

/** A CPU that has these components, in this order, `gap` bytes apart. */
function cpu(numbers: number[], gap = 0): XsaveLayout {
  const components = new Uint32Array(128);
  let at = 576;
  for (const number of numbers) {
    components[2 * number] = at;
    components[2 * number + 1] = SIZES[number];
    at += SIZES[number] + gap;
  }
  return { size: at, components };
}

const EVERYTHING = cpu([2, 3, 4, 5, 6, 7, 9, 17, 18]);
const OTHER_ORDER = cpu([9, 18, 17, 7, 6, 5, 4, 3, 2], 64);
const AVX_ONLY = cpu([2]);

/** xorshift, so that a failure can be repeated. */
function randomBytes(length: number, seed: number): Uint8Array {
  let x = seed * 2654435761 | 1;
  return Uint8Array.from({ length }, () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x;
  });
}

/** An area in which the given components, of 0 and up, have random content. */
function area(
  layout: XsaveLayout,
  used: number[],
  seed = 1,
): Uint8Array<ArrayBuffer> {
  const raw = new Uint8Array(layout.size);
  const view = new DataView(raw.buffer);
  view.setUint16(0, 0x37f, true);
  view.setUint32(24, 0x1f80, true);
  view.setUint32(28, 0xffff, true);
  let bv = 0n;
  for (const number of used) {
    bv |= 1n << BigInt(number);
    const bytes = (length: number) => randomBytes(length, seed + number);
    if (number === 0) {
      raw.set(bytes(24), 0);
      raw[5] = 0; // the tag byte is one byte wide
      raw.set(bytes(128), 32);
    } else if (number === 1) {
      view.setUint32(24, 0x1fa0, true);
      raw.set(bytes(256), 160);
    } else {
      const [at, size] = layout.components.subarray(2 * number);
      raw.set(bytes(size), at);
    }
  }
  view.setBigUint64(512, bv, true);
  return raw;
}

Deno.test("any combination of components comes back byte by byte", () => {
  const numbers = [0, 1, 2, 3, 4, 5, 6, 7, 9, 17, 18];
  for (let set = 0; set < 1 << numbers.length; set += 7) {
    const used = numbers.filter((_, i) => set >> i & 1);
    const raw = area(EVERYTHING, used, set);
    const back = rawFpu(
      fpuEntry(raw, EVERYTHING),
      EVERYTHING,
      1,
      extraComponents(raw, EVERYTHING),
    );
    assertEquals(back, raw, `components ${used}`);
  }
});

Deno.test("components are put where another CPU has them", () => {
  const used = [0, 1, 2, 5, 7, 9, 18];
  const raw = area(EVERYTHING, used, 3);
  const there = rawFpu(
    fpuEntry(raw, EVERYTHING),
    OTHER_ORDER,
    1,
    extraComponents(raw, EVERYTHING),
  );
  assertEquals(there, area(OTHER_ORDER, used, 3));
});

Deno.test("arrays have as many elements as readers of the format require", () => {
  const raw = area(EVERYTHING, [0, 1, 2]);
  for (const layout of [EVERYTHING, AVX_ONLY]) {
    const entry = fpuEntry(raw, layout);
    const { xsave } = entry;
    assert(xsave);
    assertEquals([entry.st_space.length, entry.xmm_space.length], [32, 64]);
    assertEquals(
      [
        xsave.ymmh_space.length,
        xsave.bndreg_state.length,
        xsave.bndcsr_state.length,
        xsave.opmask_reg.length,
        xsave.zmm_upper.length,
        xsave.hi16_zmm.length,
        xsave.pkru.length,
      ],
      [64, 8, 8, 8, 64, 128, 2],
    );
  }
});

const LACKING: [number, string][] = [
  [5, "AVX-512 masks"],
  [7, "AVX-512 registers 16 to 31"],
  [9, "protection keys"],
  [18, "AMX tiles"],
];
for (const [number, name] of LACKING) {
  Deno.test(`a CPU that lacks ${name} is refused when they are in use`, () => {
    const raw = area(EVERYTHING, [number]);
    const extra = extraComponents(raw, EVERYTHING);
    const error = assertThrows(
      () => rawFpu(fpuEntry(raw, EVERYTHING), AVX_ONLY, 42, extra),
      CkptError,
    );
    assertEquals(error.exit, EXIT.refused);
    assertEquals(error.reasons[0].object, name);
  });
}

Deno.test("a component that is in its initial state may be lacking", () => {
  const raw = area(EVERYTHING, [0, 1, 2]);
  const entry = fpuEntry(raw, EVERYTHING);
  entry.xsave!.xstate_bv |= 1n << 7n | 1n << 9n;
  entry.xsave!.pkru = [0x5555_5554, 0];
  assertEquals(rawFpu(entry, AVX_ONLY, 1), area(AVX_ONLY, [0, 1, 2]));
});

Deno.test("an image that has AMX in use without its content is refused", () => {
  const entry = fpuEntry(area(EVERYTHING, [18]), EVERYTHING);
  const error = assertThrows(() => rawFpu(entry, EVERYTHING, 1), CkptError);
  assertEquals(error.exit, EXIT.refused);
});

Deno.test("an image without xsave holds x87 and SSE", () => {
  const raw = area(AVX_ONLY, [0, 1]);
  const entry = { ...fpuEntry(raw, AVX_ONLY), xsave: undefined };
  assertEquals(rawFpu(entry, AVX_ONLY, 1), raw);
});

Deno.test("x87 and SSE values count even if the header does not say so", () => {
  const raw = area(AVX_ONLY, [0, 1]);
  const entry = fpuEntry(raw, AVX_ONLY);
  entry.xsave!.xstate_bv = 0n;
  assertEquals(rawFpu(entry, AVX_ONLY, 1), raw);
});

Deno.test("protection keys count even if the header does not say so", () => {
  const raw = area(EVERYTHING, [9]);
  const entry = fpuEntry(raw, EVERYTHING);
  entry.xsave!.pkru[1] = 0;
  entry.xsave!.xstate_bv = 0n;
  const back = fpuEntry(rawFpu(entry, EVERYTHING, 1), EVERYTHING);
  assertEquals(back.xsave!.xstate_bv, 1n << 9n);
  assertEquals(back.xsave!.pkru, entry.xsave!.pkru);
});

Deno.test("absent arrays are zeros, and all ones in xstate_bv mean what there is", () => {
  const entry = fpuEntry(area(AVX_ONLY, [0, 1]), AVX_ONLY);
  Object.assign(entry.xsave!, {
    xstate_bv: 0xffff_ffff_ffff_ffffn,
    ymmh_space: [],
    pkru: [],
    bndreg_state: [],
    bndcsr_state: [],
    opmask_reg: [],
    zmm_upper: [],
    hi16_zmm: [],
  });
  const expected = area(AVX_ONLY, [0, 1]);
  new DataView(expected.buffer).setBigUint64(512, 7n, true);
  assertEquals(rawFpu(entry, AVX_ONLY, 1), expected);
});

Deno.test("an array that is too short is refused by its name", () => {
  for (const field of ["st_space", "xmm_space"] as const) {
    const entry = fpuEntry(area(AVX_ONLY, []), AVX_ONLY);
    entry[field].pop();
    const error = assertThrows(() => rawFpu(entry, AVX_ONLY, 1), CkptError);
    assertEquals(
      [error.exit, error.reasons[0].object],
      [EXIT.image, `field ${field}`],
    );
  }
  const entry = fpuEntry(area(AVX_ONLY, [2]), AVX_ONLY);
  entry.xsave!.ymmh_space.pop();
  const error = assertThrows(() => rawFpu(entry, AVX_ONLY, 1), CkptError);
  assertEquals(error.reasons[0].object, "field ymmh_space");
});

Deno.test("bits of mxcsr that the CPU does not have are cleared", () => {
  const entry = fpuEntry(area(AVX_ONLY, [1]), AVX_ONLY);
  entry.mxcsr = 0xffff_ffff;
  entry.mxcsr_mask = 0xffbf;
  const view = new DataView(rawFpu(entry, AVX_ONLY, 1).buffer);
  assertEquals(view.getUint32(24, true), 0xffbf);
});

Deno.test("damaged additional components are refused", () => {
  const entry = fpuEntry(area(EVERYTHING, []), EVERYTHING);
  const whole = extraComponents(area(EVERYTHING, [17]), EVERYTHING)!;
  const wrongNumber = whole.slice();
  wrongNumber[0] = 2;
  for (
    const extra of [whole.slice(0, 7), whole.slice(0, 20), wrongNumber]
  ) {
    const error = assertThrows(
      () => rawFpu(entry, EVERYTHING, 1, extra),
      CkptError,
    );
    assertEquals(error.exit, EXIT.image);
  }
});

Deno.test("this CPU and kernel take the area, and give it back the same", () => {
  const layout = hostXsaveLayout();
  // PKRU of 1s would forbid the task its own memory, and MPX is gone.
  const used = [0, 1, 2, 5, 6, 7].filter((number) =>
    number < 2 || layout.components[2 * number + 1] !== 0
  );
  using task = new AgentTask();
  const tids = Int32Array.of(task.pid);
  const entry = fpuEntry(readThreads(tids)[0].xsave, layout);
  const wanted = fpuEntry(area(layout, used, 5), layout);
  wanted.xsave!.pkru = entry.xsave!.pkru;
  wanted.mxcsr_mask = entry.mxcsr_mask;
  wanted.fop &= 0x7ff; // of 11 bits
  const raw = rawFpu(wanted, layout, task.pid);
  checked(
    library("restore").ckpt_set_fpu(task.pid, raw, BigInt(raw.length)),
    "setting the FPU registers",
  );
  const got = fpuEntry(readThreads(tids)[0].xsave, layout);
  wanted.xsave!.xstate_bv = new DataView(raw.buffer).getBigUint64(512, true);
  assertEquals(got, wanted);
});
