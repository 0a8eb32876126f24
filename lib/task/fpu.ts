/**
 * FPU and vector registers: the XSAVE area as ptrace gives it (regset
 * NT_X86_XSTATE, standard layout) and the image's user_x86_fpregs_entry.
 *
 *   +0     FXSAVE area, 512 bytes: x87 and SSE (components 0 and 1)
 *   +512   header: xstate_bv, xcomp_bv, zeros
 *   +576   components 2 and up, where this CPU has them
 *
 * (Intel SDM volume 1, chapter 13; arch/x86/kernel/fpu/xstate.c)
 */
import { CkptError, EXIT } from "../error.ts";
import type { XsaveLayout } from "../ffi/thread_state.ts";
import type {
  user_x86_fpregs_entry,
  user_x86_xsave_entry,
} from "../image/schema.gen.ts";
import type { Program } from "../ffi/program.ts";

const HEADER = 512;
const LEAST_LENGTH = 576;

const X87 = 1n;
const SSE = 2n;
const PKRU = 9;

const INITIAL_CONTROL_WORD = 0x37f;
const INITIAL_MXCSR = 0x1f80;
/** What CPUs mean that report no mask (Intel SDM, "MXCSR_MASK"). */
const DEFAULT_MXCSR_MASK = 0xffbf;
/** With this Linux starts programs: keys that nobody has allocated. */
const LINUX_INITIAL_PKRU = 0x5555_5554;

/** Components that the message holds, by number. */
const COMPONENTS = [
  { number: 2, name: "YMM", field: "ymmh_space", count: 64, word: 4 },
  { number: 3, name: "MPX bounds", field: "bndreg_state", count: 8, word: 8 },
  { number: 4, name: "MPX control", field: "bndcsr_state", count: 8, word: 8 },
  {
    number: 5,
    name: "AVX-512 masks",
    field: "opmask_reg",
    count: 8,
    word: 8,
  },
  {
    number: 6,
    name: "AVX-512 upper halves",
    field: "zmm_upper",
    count: 64,
    word: 8,
  },
  {
    number: 7,
    name: "AVX-512 registers 16 to 31",
    field: "hi16_zmm",
    count: 128,
    word: 8,
  },
  { number: PKRU, name: "protection keys", field: "pkru", count: 2, word: 4 },
] as const;

type Component = typeof COMPONENTS[number];

/** Names for errors, of components that the message has no field for. */
const OTHER_NAMES: Record<number, string> = {
  10: "PASID",
  17: "AMX tile configuration",
  18: "AMX tiles",
  19: "APX registers",
};

const IN_MESSAGE = COMPONENTS.reduce((mask, c) => mask | bit(c.number), 3n);

/** AMX: a CRIU image may say that it was in use, and never has its content. */
const AMX = bit(17) | bit(18);
const ALL_COMPONENTS = 0xffff_ffff_ffff_ffffn;

/** Arrays of initial state, shared: most components are not in use. */
const ZEROS = new Map<Component, number[] | bigint[]>(
  COMPONENTS.map((c) => [
    c,
    c.word === 4
      ? new Array<number>(c.count).fill(0)
      : new Array<bigint>(c.count).fill(0n),
  ]),
);

/**
 * @param raw starts at a multiple of 8, at least 576 bytes
 * @param layout of the CPU that it was read on
 */
export function fpuEntry(
  raw: Uint8Array,
  layout: XsaveLayout,
): user_x86_fpregs_entry {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const bv = view.getBigUint64(HEADER, true);
  const xsave = { xstate_bv: bv } as user_x86_xsave_entry;
  for (const component of COMPONENTS) {
    // PKRU is what the thread has, whatever the header says.
    const inUse = (bv & bit(component.number)) !== 0n ||
      component.number === PKRU;
    setField(
      xsave,
      component,
      inUse && layout.components[2 * component.number + 1] !== 0
        ? elements(raw, layout, component)
        : ZEROS.get(component)!,
    );
  }
  return {
    cwd: view.getUint16(0, true),
    swd: view.getUint16(2, true),
    twd: view.getUint16(4, true),
    fop: view.getUint16(6, true),
    rip: view.getBigUint64(8, true),
    rdp: view.getBigUint64(16, true),
    mxcsr: view.getUint32(24, true),
    mxcsr_mask: view.getUint32(28, true),
    st_space: words32(raw, 32, 32),
    xmm_space: words32(raw, 160, 64),
    padding: [],
    xsave,
  };
}

function elements(
  raw: Uint8Array,
  layout: XsaveLayout,
  { number, count, word }: Component,
): number[] | bigint[] {
  const at = layout.components[2 * number];
  const size = layout.components[2 * number + 1];
  const start = raw.byteOffset + at;
  if (word === 8) {
    return Array.from(new BigUint64Array(raw.buffer, start, count));
  }
  // PKRU: the area may be smaller than the field's two words.
  const values = words32(raw, at, Math.min(count, size / 4));
  while (values.length < count) values.push(0);
  return values;
}

function words32(raw: Uint8Array, at: number, count: number): number[] {
  return Array.from(new Uint32Array(raw.buffer, raw.byteOffset + at, count));
}

/**
 * What the message has no field for and this thread uses, such as AMX tiles,
 * for an image of ckpt's own: for each component its number, its size, and its
 * bytes; numbers are 32 bits wide.
 *
 * @param raw as for {@link fpuEntry}
 * @returns undefined when there is nothing
 */
export function extraComponents(
  raw: Uint8Array,
  layout: XsaveLayout,
): Uint8Array<ArrayBuffer> | undefined {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const used = view.getBigUint64(HEADER, true) & ~IN_MESSAGE;
  if (used === 0n) return undefined;
  const numbers = [...bits(used)];
  const sizes = numbers.map((number) => layout.components[2 * number + 1]);
  const out = new Uint8Array(sizes.reduce((sum, size) => sum + 8 + size, 0));
  const outView = new DataView(out.buffer);
  let to = 0;
  numbers.forEach((number, i) => {
    const from = layout.components[2 * number];
    outView.setUint32(to, number, true);
    outView.setUint32(to + 4, sizes[i], true);
    out.set(raw.subarray(from, from + sizes[i]), to + 8);
    to += 8 + sizes[i];
  });
  return out;
}

/**
 * Lets the process use the components in `extra`, where a process must ask for
 * that (arch_prctl(2); Documentation/arch/x86/xstate.rst). For the leader,
 * before its threads' registers are set.
 */
export function restoreFpuPermission(
  program: Program,
  extra: Uint8Array,
): void {
  const ARCH_REQ_XCOMP_PERM = 0x1023;
  const AMX_TILES = 18;
  for (const { number } of extraRecords(extra, "asking for the FPU")) {
    if (number !== AMX_TILES) continue;
    program.call(
      "arch_prctl",
      [ARCH_REQ_XCOMP_PERM, number],
      "asking to use AMX tiles",
    );
  }
}

/**
 * The area to give to ckpt_set_fpu.
 *
 * @param layout of the CPU it is for, which need not be the one it came from
 * @param extra from {@link extraComponents}
 * @throws CkptError image, when an array is shorter than it must be; refused,
 *   when this CPU lacks a component that the thread uses
 */
export function rawFpu(
  entry: user_x86_fpregs_entry,
  layout: XsaveLayout,
  tid: number,
  extra?: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const action = `restoring the FPU registers of thread ${tid}`;
  const raw = new Uint8Array(Math.max(layout.size, LEAST_LENGTH));
  const view = new DataView(raw.buffer);
  const mask = entry.mxcsr_mask === 0 ? DEFAULT_MXCSR_MASK : entry.mxcsr_mask;
  view.setUint16(0, entry.cwd, true);
  view.setUint16(2, entry.swd, true);
  view.setUint16(4, entry.twd, true);
  view.setUint16(6, entry.fop, true);
  view.setBigUint64(8, entry.rip, true);
  view.setBigUint64(16, entry.rdp, true);
  view.setUint32(24, entry.mxcsr & mask, true);
  view.setUint32(28, entry.mxcsr_mask, true);
  put32(raw, 32, array(entry.st_space, 32, "st_space", action));
  put32(raw, 160, array(entry.xmm_space, 64, "xmm_space", action));

  const wanted = entry.xsave?.xstate_bv ?? X87 | SSE;
  let bv = wanted & (X87 | SSE);
  // The message's own rule is that both are always in use, so values that are
  // not the initial ones count even where the header does not say so.
  if (!isInitialX87(raw, view)) bv |= X87;
  if (
    view.getUint32(24, true) !== INITIAL_MXCSR || !isZero(raw, 160, 256)
  ) bv |= SSE;

  if (entry.xsave !== undefined) {
    for (const component of COMPONENTS) {
      bv |= putComponent(raw, layout, entry.xsave, component, action);
    }
    if ((entry.xsave.cet?.cet ?? 0n) !== 0n) {
      throw lacking(action, "shadow stack (CET)", "ckpt cannot restore it");
    }
  }

  let extras = 0n;
  if (extra !== undefined) {
    for (const { number, bytes } of extraRecords(extra, action)) {
      const at = layout.components[2 * number];
      const size = layout.components[2 * number + 1];
      if (size !== bytes.length) {
        if (bytes.every((byte) => byte === 0)) continue;
        throw lacking(action, nameOf(number));
      }
      raw.set(bytes, at);
      extras |= bit(number);
    }
  } else if (wanted !== ALL_COMPONENTS && (wanted & AMX) !== 0n) {
    throw lacking(
      action,
      nameOf(18),
      "the image says that it is in use, and has not its content",
    );
  }
  view.setBigUint64(HEADER, bv | extras, true);
  return layout.size < raw.length ? raw.slice(0, LEAST_LENGTH) : raw;
}

/** Puts one component in place. Returns its bit of xstate_bv, or 0n. */
function putComponent(
  raw: Uint8Array<ArrayBuffer>,
  layout: XsaveLayout,
  xsave: user_x86_xsave_entry,
  component: Component,
  action: string,
): bigint {
  const { number, field, count, word } = component;
  const given: readonly (number | bigint)[] = xsave[field];
  let inUse = (xsave.xstate_bv & bit(number)) !== 0n;
  if (given.length === 0) {
    return inUse && layout.components[2 * number + 1] !== 0 ? bit(number) : 0n;
  }
  // Without its bit the kernel makes PKRU zero, whatever stands in the area.
  if (number === PKRU && given[0] !== 0) inUse = true;
  if (!inUse) return 0n;
  const values = array(given, count, field, action);

  const at = layout.components[2 * number];
  const size = layout.components[2 * number + 1];
  if (size === 0) {
    const initial = values.every((value) => value === 0 || value === 0n) ||
      number === PKRU && values[0] === LINUX_INITIAL_PKRU;
    if (initial) return 0n;
    throw lacking(action, component.name);
  }
  if (word === 8) {
    new BigUint64Array(raw.buffer, at, count).set(values as bigint[]);
  } else {
    put32(raw, at, values.slice(0, size / 4) as number[]);
  }
  return bit(number);
}

function array<T>(
  values: readonly T[],
  count: number,
  field: string,
  action: string,
): readonly T[] {
  if (values.length >= count) {
    return values.length === count ? values : values.slice(0, count);
  }
  throw new CkptError(EXIT.image, action, [{
    object: `field ${field}`,
    why: `it has ${values.length} elements, and must have ${count}`,
  }]);
}

function put32(
  raw: Uint8Array<ArrayBuffer>,
  at: number,
  values: readonly number[],
): void {
  new Uint32Array(raw.buffer, at, values.length).set(values);
}

function isInitialX87(raw: Uint8Array, view: DataView): boolean {
  return view.getUint16(0, true) === INITIAL_CONTROL_WORD &&
    isZero(raw, 2, 22) && isZero(raw, 32, 128);
}

function isZero(raw: Uint8Array, at: number, length: number): boolean {
  for (let i = at; i < at + length; i++) if (raw[i] !== 0) return false;
  return true;
}

function extraRecords(
  extra: Uint8Array,
  action: string,
): { number: number; bytes: Uint8Array }[] {
  const view = new DataView(extra.buffer, extra.byteOffset, extra.byteLength);
  const damaged = (why: string) =>
    new CkptError(EXIT.image, action, [{
      object: "the additional FPU components",
      why,
    }]);
  const records = [];
  for (let at = 0; at < extra.length;) {
    if (extra.length - at < 8) throw damaged("the last one is cut off");
    const number = view.getUint32(at, true);
    const size = view.getUint32(at + 4, true);
    if (number > 62 || (IN_MESSAGE & bit(number)) !== 0n) {
      throw damaged(`there is no such component as ${number}`);
    }
    if (size > extra.length - at - 8) {
      throw damaged(`component ${number} has not its ${size} bytes`);
    }
    const bytes = extra.subarray(at + 8, at + 8 + size);
    records.push({ number, bytes });
    at += 8 + size;
  }
  return records;
}

function setField(
  xsave: user_x86_xsave_entry,
  component: Component,
  values: number[] | bigint[],
): void {
  (xsave as unknown as Record<string, unknown>)[component.field] = values;
}

function nameOf(number: number): string {
  return OTHER_NAMES[number] ?? `XSAVE component ${number}`;
}

function lacking(action: string, name: string, why?: string): CkptError {
  return new CkptError(EXIT.refused, action, [{
    object: name,
    why: why ?? "the thread uses it, and this CPU does not have it",
    remedy: why === undefined
      ? "restore on a CPU of the kind the program was dumped on"
      : undefined,
  }]);
}

function bit(number: number): bigint {
  return 1n << BigInt(number);
}

function* bits(mask: bigint): Generator<number> {
  for (let number = 0; mask !== 0n; number++, mask >>= 1n) {
    if ((mask & 1n) !== 0n) yield number;
  }
}
