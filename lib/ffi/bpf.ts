/**
 * bpf(2): small programs that the kernel checks and runs in itself, written
 * instruction by instruction (Documentation/bpf/standardization).
 */
import { addressOf, syscall } from "./syscall.ts";

const CMD = {
  mapCreate: 0,
  mapLookup: 1,
  progLoad: 5,
  progRun: 10,
  linkCreate: 28,
  iterCreate: 33,
} as const;

/** union bpf_attr as far as it is used here, in bytes. */
const ATTR_BYTES = 120;

/** @param write fills in the attributes; those that are answers follow */
export function bpf(
  command: keyof typeof CMD,
  write: (attr: DataView) => void,
  read?: (attr: DataView) => void,
): number {
  const bytes = new Uint8Array(ATTR_BYTES);
  const attr = new DataView(bytes.buffer);
  write(attr);
  const size = BigInt(ATTR_BYTES);
  const result = syscall("bpf", BigInt(CMD[command]), addressOf(bytes), size);
  read?.(attr);
  return Number(result);
}

const MAP_ARRAY = 2;

/** An array of one value. @returns its descriptor */
export function createMap(valueBytes: number): number {
  return bpf("mapCreate", (attr) => {
    [MAP_ARRAY, 4, valueBytes, 1].forEach((value, i) =>
      attr.setUint32(i * 4, value, true)
    );
  });
}

/** Helpers (bpf-helpers(7)). */
export const HELPER = {
  lookup: 1,
  currentTask: 35,
  probeReadKernel: 113,
  seqWrite: 127,
  dPath: 147,
} as const;

/** struct bpf_insn; one with the name of a place jumps there. */
export type Instruction = bigint | { readonly jump: bigint; to: string };

/** @param offset from register `to` or `from`, where it is memory */
function instruction(
  code: number,
  to: number,
  from: number,
  offset = 0,
  value = 0,
): bigint {
  return BigInt(code) | BigInt(to | from << 4) << 8n |
    BigInt(offset & 0xffff) << 16n | BigInt(value >>> 0) << 32n;
}

export const move = (to: number, from: number) => instruction(0xbf, to, from);
export const set = (to: number, value: number) =>
  instruction(0xb7, to, 0, 0, value);
export const add = (to: number, value: number) =>
  instruction(0x07, to, 0, 0, value);
export const and = (to: number, value: number) =>
  instruction(0x57, to, 0, 0, value);
export const shiftRight = (to: number, bits: number) =>
  instruction(0x77, to, 0, 0, bits);
export const shiftLeft = (to: number, bits: number) =>
  instruction(0x67, to, 0, 0, bits);
export const addRegister = (to: number, from: number) =>
  instruction(0x0f, to, from);
export const call = (helper: number) => instruction(0x85, 0, 0, 0, helper);
export const EXIT = instruction(0x95, 0, 0);

/** Codes of loads and stores, by bytes. */
const SIZE: Readonly<Record<number, number>> = {
  1: 0x10,
  2: 0x08,
  4: 0x00,
  8: 0x18,
};
export const load = (to: number, from: number, offset: number, bytes = 8) =>
  instruction(0x61 | SIZE[bytes], to, from, offset);
export const store = (to: number, offset: number, from: number, bytes = 8) =>
  instruction(0x63 | SIZE[bytes], to, from, offset);
export const storeValue = (
  to: number,
  offset: number,
  value: number,
  bytes = 8,
) => instruction(0x62 | SIZE[bytes], to, 0, offset, value);
/** The address of a map, by its descriptor; two instructions. */
export const loadMap = (to: number, map: number) => [
  instruction(0x18, to, 1, 0, map),
  0n,
];

const jump =
  (code: number) => (register: number, value: number, to: string) => ({
    jump: instruction(code, register, 0, 0, value),
    to,
  });
export const jumpIfEqual = jump(0x15);
export const jumpIfNot = jump(0x55);
export const jumpIfAbove = jump(0x25);
/** Signed. */
export const jumpIfLess = jump(0xc5);
export const jumpTo = (to: string) => jump(0x05)(0, 0, to);

/** Parts of a program; a text names the place before what follows it. */
export type Code = readonly (Instruction | string | Code)[];

/** Puts a program together. */
export function assemble(code: Code): BigUint64Array<ArrayBuffer> {
  const flat = flatten(code);
  const places = new Map<string, number>();
  const words: Instruction[] = [];
  for (const part of flat) {
    if (typeof part === "string") places.set(part, words.length);
    else words.push(part);
  }
  return BigUint64Array.from(words, (word, i) => {
    if (typeof word === "bigint") return word;
    const distance = places.get(word.to)! - i - 1;
    return word.jump | BigInt(distance & 0xffff) << 16n;
  });
}

function flatten(code: Code): (Instruction | string)[] {
  return code.flatMap((part) =>
    typeof part === "string" || typeof part === "bigint" || "to" in part
      ? [part]
      : flatten(part)
  );
}

/** The helpers are for programs under a licence of this kind. */
const LICENCE = new TextEncoder().encode("Dual MIT/GPL\0");

/** What a program is for. */
export interface ProgramKind {
  /** enum bpf_prog_type. */
  readonly type: number;
  readonly flags?: number;
  /** enum bpf_attach_type. */
  readonly attachType?: number;
  /** The number of the kernel's function it is attached to. */
  readonly attachTo?: number;
}

/**
 * Has a program checked and made ready. @returns its descriptor
 *
 * @throws SyscallError where the kernel or its keeper does not allow it
 */
export function loadProgram(code: Code, kind: ProgramKind): number {
  const program = assemble(code);
  return bpf("progLoad", (attr) => {
    attr.setUint32(0, kind.type, true);
    attr.setUint32(4, program.length, true);
    attr.setBigUint64(8, addressOf(new Uint8Array(program.buffer)), true);
    attr.setBigUint64(16, addressOf(LICENCE), true);
    attr.setUint32(44, kind.flags ?? 0, true);
    attr.setUint32(68, kind.attachType ?? 0, true);
    attr.setUint32(108, kind.attachTo ?? 0, true);
  });
}
