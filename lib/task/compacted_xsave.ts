/**
 * The XSAVE area as the kernel keeps it for a thread that is not on a
 * processor, brought into the standard layout of ptrace(2): what
 * copy_xstate_to_uabi_buf of arch/x86/kernel/fpu/xstate.c does.
 *
 *   +0     FXSAVE area, 512 bytes
 *   +512   header: xstate_bv (what is not in its initial state), xcomp_bv
 *   +576   components 2 and up: where CPUID says, or, with bit 63 of xcomp_bv,
 *          those of xcomp_bv one behind the other
 *
 * (Intel SDM volume 1, chapter 13)
 */
import { library } from "../ffi/library.ts";
import type { XsaveLayout } from "../ffi/thread_state.ts";

const HEADER = 512;
const EXTENDED = 576;
const COMPACTED = 1n << 63n;

const X87 = 1n;
const SSE = 2n;
const YMM = 4n;
const PKRU = 9;
const COMPONENTS = 63;

const INITIAL_CONTROL_WORD = 0x37f;
const INITIAL_MXCSR = 0x1f80;
/** From the beginning of the FXSAVE area. */
const AT = { mxcsr: 24, mxcsrMask: 28, x87: 32, xmm: 160, xmmEnd: 416 };

/**
 * How the CPU packs components: [2 * i] is the size of component i, [2 * i + 1]
 * whether it begins at a multiple of 64 bytes.
 */
export type Compaction = Uint32Array;

/** That of the CPU that ckpt runs on. */
export function compactionOf(): Compaction {
  const compaction = new Uint32Array(128);
  library("cpu").ckpt_xsave_compaction(new Uint8Array(compaction.buffer));
  return compaction;
}

/**
 * @param area struct xregs_state, at least 576 bytes
 * @param features those that programs see
 * @param pkru of the thread: the kernel keeps it elsewhere
 */
export function standardXsave(
  area: Uint8Array<ArrayBuffer>,
  features: bigint,
  pkru: number,
  layout: XsaveLayout,
  compaction: Compaction,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(layout.size);
  const from = new DataView(area.buffer, area.byteOffset, area.length);
  const to = new DataView(out.buffer);
  const used = from.getBigUint64(HEADER, true) & features;
  const copy = (start: number, end: number) =>
    out.set(area.subarray(start, end), start);
  if ((used & X87) !== 0n) {
    copy(0, AT.mxcsr);
    copy(AT.x87, AT.xmm);
  } else to.setUint16(0, INITIAL_CONTROL_WORD, true);
  to.setUint32(
    AT.mxcsr,
    (used & (SSE | YMM)) !== 0n
      ? from.getUint32(AT.mxcsr, true)
      : INITIAL_MXCSR,
    true,
  );
  copy(AT.mxcsrMask, AT.x87);
  if ((used & SSE) !== 0n) copy(AT.xmm, AT.xmmEnd);
  to.setBigUint64(HEADER, used, true);
  const places = placesOf(
    from.getBigUint64(HEADER + 8, true),
    layout,
    compaction,
  );
  for (let i = 2; i < COMPONENTS; i++) {
    const place = places.get(i);
    const length = layout.components[2 * i + 1];
    if (i === PKRU || (used >> BigInt(i) & 1n) === 0n) continue;
    if (place === undefined || length === 0) continue;
    out.set(area.subarray(place, place + length), layout.components[2 * i]);
  }
  if (layout.components[2 * PKRU + 1] !== 0) {
    to.setUint32(layout.components[2 * PKRU], pkru, true);
  }
  return out;
}

function placesOf(
  xcompBv: bigint,
  { components }: XsaveLayout,
  compaction: Compaction,
): ReadonlyMap<number, number> {
  const places = new Map<number, number>();
  let next = EXTENDED;
  for (let i = 2; i < COMPONENTS; i++) {
    if ((xcompBv & COMPACTED) === 0n) {
      places.set(i, components[2 * i]);
    } else if ((xcompBv >> BigInt(i) & 1n) !== 0n) {
      if (compaction[2 * i + 1] !== 0) next = (next + 63) & ~63;
      places.set(i, next);
      next += compaction[2 * i];
    }
  }
  return places;
}
