/**
 * The line discipline of terminals (n_tty of the kernel, drivers/tty/n_tty.c):
 * what its memory means, and what is in it. Pure.
 */
import type { FieldOffsets } from "../ffi/btf.ts";

/** A line that is complete. */
export interface Line {
  /** With the byte that ends it, unless that is the end of file. */
  readonly length: number;
  readonly endedByEof: boolean;
}

/** What a line discipline holds. */
export interface HeldInput {
  /** What can be read, or will be; ends of file are none of it. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** In canonical mode; what follows them is a line that is not complete. */
  readonly lines: readonly Line[];
  readonly canonical: boolean;
  /** The next key has no special meaning (VLNEXT). */
  readonly quotesNext: boolean;
  /** Echoes that could not be written yet; OPOST is still to be done. */
  readonly echoes: Uint8Array<ArrayBuffer>;
  /** Whether all of its memory is used. */
  readonly full: boolean;
  /** How far its rings have turned. */
  readonly marks: string;
}

/** N_TTY_BUF_SIZE: the size of its three rings. */
const RING = 4096;
const END_OF_FILE = 0;

/** Fields of struct n_tty_data that are read. */
export const N_TTY_FIELDS = [
  "read_head",
  "read_tail",
  "canon_head",
  "echo_head",
  "echo_tail",
  "canon_column",
  "icanon",
  "lnext",
  "read_flags",
  "read_buf",
  "echo_buf",
] as const;

const MARKS = [
  "read_head",
  "read_tail",
  "canon_head",
  "echo_head",
  "echo_tail",
] as const;

/** Bytes of the structure to read. */
export function nTtyBytes(fields: FieldOffsets): number {
  const ends = [...fields].map(([name, bits]) =>
    bits / 8 +
    (name.endsWith("_buf") ? RING : name === "read_flags" ? RING / 8 : 8)
  );
  return Math.ceil(Math.max(...ends) / 8) * 8;
}

/**
 * @param memory struct n_tty_data
 * @param takesLines its terminal is in canonical mode, and EXTPROC is off
 */
export function readHeldInput(
  memory: Uint8Array<ArrayBuffer>,
  fields: FieldOffsets,
  takesLines: boolean,
): HeldInput {
  const view = new DataView(memory.buffer);
  const at = (name: typeof N_TTY_FIELDS[number]) => fields.get(name)! / 8;
  const count = (name: typeof N_TTY_FIELDS[number]) =>
    view.getBigUint64(at(name), true);
  const bit = (name: typeof N_TTY_FIELDS[number]) => {
    const bits = fields.get(name)!;
    return (memory[bits >>> 3] >>> (bits & 7) & 1) === 1;
  };
  const tail = count("read_tail");
  const held = Number(BigInt.asUintN(64, count("read_head") - tail));
  const finished = Number(BigInt.asUintN(64, count("canon_head") - tail));
  const canonical = bit("icanon") && takesLines;
  const flags = at("read_flags");
  const bytes: number[] = [];
  const lines: Line[] = [];
  let length = 0;
  for (let i = 0; i < held; i++) {
    const place = Number(tail + BigInt(i) & BigInt(RING - 1));
    const byte = memory[at("read_buf") + place];
    const ends = canonical && i < finished &&
      (memory[flags + (place >>> 3)] >>> (place & 7) & 1) === 1;
    const endedByEof = ends && byte === END_OF_FILE;
    if (!endedByEof) {
      bytes.push(byte);
      length++;
    }
    if (!ends) continue;
    lines.push({ length, endedByEof });
    length = 0;
  }
  return {
    bytes: Uint8Array.from(bytes),
    lines,
    canonical,
    quotesNext: canonical && bit("lnext"),
    echoes: readEchoes(
      memory.subarray(at("echo_buf"), at("echo_buf") + RING),
      count("echo_tail"),
      Number(BigInt.asUintN(64, count("echo_head") - count("echo_tail"))),
      view.getUint32(at("canon_column"), true),
    ),
    full: held >= RING - 1,
    marks: MARKS.map(count).join(),
  };
}

/** What stands in the ring of echoes for more than a byte. */
const OP = { start: 0xff, moveBack: 0x80, setColumn: 0x81, eraseTab: 0x82 };
const BACKSPACE = 8;
const TAB = 8;

function readEchoes(
  ring: Uint8Array<ArrayBuffer>,
  tail: bigint,
  length: number,
  canonColumn: number,
): Uint8Array<ArrayBuffer> {
  const byteAt = (i: number) => ring[Number(tail + BigInt(i) & 0xfffn)];
  const bytes: number[] = [];
  for (let i = 0; i < length; i++) {
    const byte = byteAt(i);
    if (byte !== OP.start) {
      bytes.push(byte);
      continue;
    }
    const op = byteAt(++i);
    if (op === OP.start) bytes.push(op);
    else if (op === OP.moveBack) bytes.push(BACKSPACE);
    else if (op === OP.eraseTab) {
      const operand = byteAt(++i);
      // From the start of the line, unless it says that a tab came before.
      const columns = operand & 0x80 ? operand : operand + canonColumn;
      const back = TAB - (columns & TAB - 1);
      for (let n = 0; n < back; n++) bytes.push(BACKSPACE);
    }
  }
  return Uint8Array.from(bytes);
}
