/**
 * Between the bytes the kernel uses for names and JavaScript strings, without
 * loss. Names are bytes, mostly but not always UTF-8 (a thread name is cut
 * after 15 bytes, also in the middle of a character). A byte that is no UTF-8
 * becomes the lone surrogate U+DC80 + (byte - 0x80), as in Python's
 * "surrogateescape"; no valid UTF-8 yields such a code unit, so the way back
 * is exact.
 */

// ignoreBOM: a name may begin with the bytes of a byte order mark.
const lossy = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

const ESCAPE_BASE = 0xdc00;

/** Decodes bytes read from the kernel. Never fails. */
export function textOfBytes(bytes: Uint8Array): string {
  const text = lossy.decode(bytes);
  return text.includes("\ufffd") ? escapeInvalid(bytes) : text;
}

/** The bytes that {@linkcode textOfBytes} made this text from. */
export function bytesOfText(text: string): Uint8Array<ArrayBuffer> {
  if (text.isWellFormed()) return encoder.encode(text);
  const bytes: number[] = [];
  for (const character of text) {
    const code = character.codePointAt(0)!;
    if (code >= ESCAPE_BASE + 0x80 && code <= ESCAPE_BASE + 0xff) {
      bytes.push(code - ESCAPE_BASE);
    } else {
      bytes.push(...encoder.encode(character));
    }
  }
  return Uint8Array.from(bytes);
}

function escapeInvalid(bytes: Uint8Array): string {
  const parts: string[] = [];
  let validFrom = 0;
  let at = 0;
  while (at < bytes.length) {
    const length = sequenceLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    parts.push(
      lossy.decode(bytes.subarray(validFrom, at)),
      String.fromCharCode(ESCAPE_BASE + bytes[at]),
    );
    at++;
    validFrom = at;
  }
  parts.push(lossy.decode(bytes.subarray(validFrom)));
  return parts.join("");
}

/**
 * Length of the well-formed UTF-8 sequence that begins at `at`, 0 when there
 * is none (Unicode 15, table 3-7).
 */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at];
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4) return 0;
  const length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (at + length > bytes.length) return 0;
  const second = bytes[at + 1];
  const lowest = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const highest = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  if (second < lowest || second > highest) return 0;
  for (let i = 2; i < length; i++) {
    if ((bytes[at + i] & 0xc0) !== 0x80) return 0;
  }
  return length;
}
