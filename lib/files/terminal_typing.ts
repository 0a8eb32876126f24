/**
 * How bytes get into the line discipline of a terminal as they were: typed in
 * canonical mode, whatever its own modes are, for a line that is not complete
 * can be made in no other way. Bytes that mean something are quoted (VLNEXT).
 * Pure.
 */
import type { Line } from "./line_discipline.ts";

/** Keys, and the modes to type them in. */
export interface Typed {
  readonly characters: SpecialCharacters;
  readonly keys: Uint8Array<ArrayBuffer>;
}

/** Special characters; 0: there is none. */
export interface SpecialCharacters {
  readonly next: number;
  readonly eof: number;
  readonly eol: number;
  readonly kill: number;
}

const NEWLINE = 10;
export const XON = 0o21;
export const XOFF = 0o23;
const CANDIDATES = [0x16, 0x04, 0x15, 0x0f];

/**
 * @param bytes what can be read then
 * @param lines that are complete; what follows them is not
 * @param quotesNext the next key is to be quoted
 */
export function typing(
  bytes: Uint8Array,
  lines: readonly Line[],
  quotesNext: boolean,
): Typed[] {
  const typed: Typed[] = [];
  let at = 0;
  for (const { length, endedByEof } of lines) {
    const line = bytes.subarray(at, at + length);
    typed.push(
      endedByEof ? typeLine(line, "eof") : typeLine(line, "its last byte"),
    );
    at += length;
  }
  const rest = bytes.subarray(at);
  if (rest.length > 0) typed.push(typeLine(rest, "nothing"));
  if (quotesNext) {
    const characters = charactersFor(0);
    typed.push({ characters, keys: Uint8Array.of(characters.next) });
  }
  return typed;
}

/** To be echoed, and to be forgotten by {@link SpecialCharacters.kill} then. */
export function typingOfEchoes(echoes: Uint8Array): Typed {
  return typeLine(echoes, "nothing");
}

function typeLine(
  line: Uint8Array,
  completedBy: "its last byte" | "eof" | "nothing",
): Typed {
  const last = completedBy === "its last byte"
    ? line[line.length - 1]
    : undefined;
  const content = last === undefined ? line : line.subarray(0, -1);
  const characters = charactersFor(last === NEWLINE ? 0 : last ?? 0);
  const special = new Set([
    NEWLINE,
    // Perhaps they stop and start output.
    XON,
    XOFF,
    ...Object.values(characters),
  ]);
  special.delete(0);
  const keys = [...content].flatMap((byte) =>
    special.has(byte) ? [characters.next, byte] : [byte]
  );
  if (last !== undefined) keys.push(last);
  else if (completedBy === "eof") keys.push(characters.eof);
  return { characters, keys: Uint8Array.from(keys) };
}

function charactersFor(eol: number): SpecialCharacters {
  const [next, eof, kill] = CANDIDATES.filter((key) => key !== eol);
  return { next, eof, eol, kill };
}
