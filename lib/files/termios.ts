/** The settings of a terminal (termios(3)), as the kernel and as images have them. */
import type { termios_entry } from "../image/schema.gen.ts";

/** sizeof(struct termios2) */
export const TERMIOS2_BYTES = 44;

/** c_iflag, c_oflag and c_lflag. */
export function termiosFlags(
  termios: Uint8Array<ArrayBuffer>,
): { input: number; output: number; local: number } {
  const view = new DataView(termios.buffer);
  return {
    input: view.getUint32(0, true),
    output: view.getUint32(4, true),
    local: view.getUint32(12, true),
  };
}

const FLAG_BYTES = 16;
const CC_AT = FLAG_BYTES + 1;
const CC_BYTES = 19;

/** Special characters, by their places in c_cc. */
export const CC = {
  VINTR: 0,
  VQUIT: 1,
  VERASE: 2,
  VKILL: 3,
  VEOF: 4,
  VSTART: 8,
  VSTOP: 9,
  VSUSP: 10,
  VEOL: 11,
  VREPRINT: 12,
  VWERASE: 14,
  VLNEXT: 15,
  VEOL2: 16,
} as const;

/** One of c_cc. */
export function specialCharacter(
  termios: Uint8Array,
  character: number,
): number {
  return termios[CC_AT + character];
}

/** A copy of struct termios2 with other c_iflag, c_oflag, c_lflag or c_cc. */
export function changeTermios(
  termios: Uint8Array<ArrayBuffer>,
  { input, output, local, characters = {} }: {
    input?: number;
    output?: number;
    local?: number;
    characters?: Readonly<Record<number, number>>;
  },
): Uint8Array<ArrayBuffer> {
  const changed = termios.slice();
  const view = new DataView(changed.buffer);
  if (input !== undefined) view.setUint32(0, input, true);
  if (output !== undefined) view.setUint32(4, output, true);
  if (local !== undefined) view.setUint32(12, local, true);
  for (const [character, value] of Object.entries(characters)) {
    changed[CC_AT + Number(character)] = value;
  }
  return changed;
}
/** Elements of c_cc in the format, of which the first five hold bytes. */
const CC_ELEMENTS = 19;

export function dumpTermios(bytes: Uint8Array<ArrayBuffer>): termios_entry {
  const view = new DataView(bytes.buffer);
  const cc = new Uint8Array(CC_ELEMENTS * 4);
  cc.set(bytes.subarray(CC_AT, CC_AT + CC_BYTES));
  const [c_ispeed, c_ospeed] = bytes.length === TERMIOS2_BYTES
    ? [view.getUint32(36, true), view.getUint32(40, true)]
    : [0, 0];
  return {
    c_iflag: view.getUint32(0, true),
    c_oflag: view.getUint32(4, true),
    c_cflag: view.getUint32(8, true),
    c_lflag: view.getUint32(12, true),
    c_line: bytes[FLAG_BYTES],
    c_ispeed,
    c_ospeed,
    c_cc: [...new Uint32Array(cc.buffer)],
  };
}

/** struct termios2 of an entry; its beginning is struct termios. */
export function termiosBytes(entry: termios_entry): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TERMIOS2_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, entry.c_iflag, true);
  view.setUint32(4, entry.c_oflag, true);
  view.setUint32(8, entry.c_cflag, true);
  view.setUint32(12, entry.c_lflag, true);
  bytes[FLAG_BYTES] = entry.c_line;
  const cc = new Uint8Array(Uint32Array.from(entry.c_cc).buffer);
  bytes.set(cc.subarray(0, CC_BYTES), CC_AT);
  view.setUint32(36, entry.c_ispeed, true);
  view.setUint32(40, entry.c_ospeed, true);
  return bytes;
}
