/**
 * The build-id of a program or library: the name that the linker gave to
 * exactly this one (elf(5), NT_GNU_BUILD_ID).
 */
import { pread } from "../ffi/syscall.ts";

/** The head of most programs and libraries, with their notes. */
const ELF_HEAD = 4096;
/** Where CRIU gives up looking as well. */
const FURTHEST = 1 << 20;
const LONGEST = 512;
const MOST_HEADERS = 1024;

const MAGIC = 0x7f454c46;
const CLASS_64 = 2;
const LITTLE_ENDIAN = 1;
const PT_NOTE = 4;
const NT_GNU_BUILD_ID = 3;
const GNU = 0x554e47;

const beginning = new Uint8Array(ELF_HEAD);

/** That of an open file, if it has one. */
export function readBuildId(fd: number): Uint8Array | undefined {
  const length = pread(fd, beginning, 0n);
  return findBuildId(beginning.subarray(0, length), (offset, wanted) => {
    const bytes = new Uint8Array(wanted);
    return bytes.subarray(0, pread(fd, bytes, BigInt(offset)));
  });
}

/**
 * @param head the first bytes of a file, as many as there are or 4096
 * @param more reads others of its bytes; fewer than asked for where it ends
 * @returns undefined when it is no 64-bit program, or has none
 */
export function findBuildId(
  head: Uint8Array,
  more: (offset: number, length: number) => Uint8Array,
): Uint8Array | undefined {
  const file = viewOf(head);
  if (
    head.length < 64 || file.getUint32(0) !== MAGIC || head[4] !== CLASS_64 ||
    head[5] !== LITTLE_ENDIAN
  ) return undefined;
  const bytes = (offset: number, length: number) =>
    offset + length <= head.length
      ? head.subarray(offset, offset + length)
      : offset + length <= FURTHEST
      ? more(offset, length)
      : new Uint8Array();
  const size = file.getUint16(54, true);
  const count = Math.min(file.getUint16(56, true), MOST_HEADERS);
  const headers = bytes(Number(file.getBigUint64(32, true)), size * count);
  if (size < 56 || headers.length < size * count) return undefined;
  const view = viewOf(headers);
  for (let at = 0; at < headers.length; at += size) {
    if (view.getUint32(at, true) !== PT_NOTE) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const length = Number(view.getBigUint64(at + 32, true));
    const unit = Number(view.getBigUint64(at + 48, true)) === 8 ? 8 : 4;
    const found = amongNotes(bytes(offset, length), unit);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** @param unit what the parts of a note are aligned to */
function amongNotes(notes: Uint8Array, unit: number): Uint8Array | undefined {
  const view = viewOf(notes);
  const whole = (length: number) => Math.ceil(length / unit) * unit;
  for (let at = 0; at + 12 <= notes.length;) {
    const nameLength = view.getUint32(at, true);
    const length = view.getUint32(at + 4, true);
    const start = at + whole(12 + nameLength);
    if (start + length > notes.length) return undefined;
    if (
      view.getUint32(at + 8, true) === NT_GNU_BUILD_ID && nameLength === 4 &&
      view.getUint32(at + 12, true) === GNU && length > 0 && length <= LONGEST
    ) return notes.slice(start, start + length);
    at = start + whole(length);
  }
  return undefined;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

/** As reg_file_entry has it: filled up with zeros to whole 32-bit words. */
export function packBuildId(id: Uint8Array): number[] {
  const bytes = new Uint8Array(Math.ceil(id.length / 4) * 4);
  bytes.set(id);
  const view = viewOf(bytes);
  return Array.from(
    { length: bytes.length / 4 },
    (_, i) => view.getUint32(4 * i, true),
  );
}

/** In hexadecimal, with the zeros at its end. */
export function formatBuildId(words: readonly number[]): string {
  const bytes = new Uint8Array(words.length * 4);
  const view = viewOf(bytes);
  words.forEach((word, i) => view.setUint32(4 * i, word, true));
  return bytes.toHex();
}
