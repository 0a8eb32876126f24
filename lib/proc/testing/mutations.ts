/**
 * Damages text at random, for the tests that no text can make a parser throw
 * anything but a CkptError. The numbers come from a seed, so that a failure
 * can be repeated.
 */
import { assertInstanceOf } from "@std/assert";
import { CkptError, EXIT } from "../../error.ts";

const ROUNDS = 3000;

/** Pieces that parsers are likely to stumble over. */
const PIECES = [
  "",
  " ",
  "\n",
  "\t",
  "\0",
  "-",
  ":",
  "/",
  "(",
  ") ",
  "\\",
  "\\012",
  "0",
  "-1",
  "00000000000000000000",
  "18446744073709551616",
  "99999999999999999999999",
  "ffffffffffffffffffff",
  "0x",
  "1e3",
  "Infinity",
  "__proto__",
  "constructor",
  " - ",
  "é",
  "\udc80",
  "\ufffd",
  "😀",
];

/** Runs the parser on damaged forms of the samples. */
export function assertParsesOrRejects(
  parse: (text: string) => unknown,
  samples: readonly string[],
): void {
  const random = randomNumbers(20);
  for (let round = 0; round < ROUNDS; round++) {
    let text = samples[random(samples.length)];
    for (let damage = random(4); damage >= 0; damage--) {
      text = damaged(text, random);
    }
    try {
      parse(text);
    } catch (error) {
      assertInstanceOf(
        error,
        CkptError,
        `${JSON.stringify(text)} gave ${error}`,
      );
      if (error.exit !== EXIT.failed || error.reasons.length === 0) throw error;
    }
  }
}

function damaged(text: string, random: (below: number) => number): string {
  const at = random(text.length + 1);
  const to = Math.min(text.length, at + random(12));
  switch (random(5)) {
    case 0: // cut off
      return text.slice(0, at);
    case 1: // leave out
      return text.slice(0, at) + text.slice(to);
    case 2: // repeat
      return text.slice(0, to) + text.slice(at);
    case 3: // overwrite
      return text.slice(0, at) + PIECES[random(PIECES.length)] +
        text.slice(to);
    default: // insert
      return text.slice(0, at) + PIECES[random(PIECES.length)] +
        text.slice(at);
  }
}

/** xorshift32: integers from 0 up to, not including, a bound. */
export function randomNumbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
