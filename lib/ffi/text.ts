/**
 * Text as the kernel has it: bytes, usually UTF-8 but not always. A byte that
 * is not UTF-8 becomes the lone surrogate U+DC00 + byte, as Python's
 * "surrogateescape" does, so that every path survives the way to a string and
 * back.
 */

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();

/** @returns a string from which {@link encodeText} makes the same bytes */
export function decodeText(bytes: Uint8Array): string {
  const ascii = decodeAscii(bytes);
  if (ascii !== undefined) return ascii;
  try {
    return strict.decode(bytes);
  } catch {
    return decodeEscaped(bytes);
  }
}

/** The bytes of a string made by {@link decodeText}, or of any other. */
export function encodeText(text: string): Uint8Array<ArrayBuffer> {
  if (text.isWellFormed()) return encoder.encode(text);
  const parts: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code >= 0xdc80 && code <= 0xdcff) parts.push(code - 0xdc00);
    else for (const byte of encoder.encode(character)) parts.push(byte);
  }
  return Uint8Array.from(parts);
}

/** The same, to where there is room for it. @returns how many bytes it took */
export function encodeTextInto(text: string, room: Uint8Array): number {
  if (text.isWellFormed()) return encoder.encodeInto(text, room).written;
  const bytes = encodeText(text);
  room.set(bytes);
  return bytes.length;
}

function decodeAscii(bytes: Uint8Array): string | undefined {
  // Longer texts are rare, and too many arguments for one call.
  if (bytes.length > 1024) return undefined;
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] >= 0x80) return undefined;
  }
  return String.fromCharCode.apply(null, bytes as unknown as number[]);
}

function decodeEscaped(bytes: Uint8Array): string {
  let text = "";
  let position = 0;
  while (position < bytes.length) {
    const length = sequenceLength(bytes, position);
    if (length === 0) text += String.fromCharCode(0xdc00 + bytes[position]);
    else text += strict.decode(bytes.subarray(position, position + length));
    position += length || 1;
  }
  return text;
}

/** How many bytes form one valid character at `position`; 0 if none do. */
function sequenceLength(bytes: Uint8Array, position: number): number {
  const first = bytes[position];
  const length = first < 0x80
    ? 1
    : first < 0xc2
    ? 0
    : first < 0xe0
    ? 2
    : first < 0xf0
    ? 3
    : first < 0xf5
    ? 4
    : 0;
  if (length === 0 || position + length > bytes.length) return 0;
  try {
    strict.decode(bytes.subarray(position, position + length));
    return length;
  } catch {
    return 0;
  }
}
