/**
 * Numbers as `/proc` writes them, read strictly: nothing but the digits is
 * accepted, and a value that a Number cannot hold exactly is an error, never
 * rounded.
 */
import { malformed, type Place } from "./malformed.ts";

const LARGEST_U64 = 2n ** 64n - 1n;
const DIGITS = /^[0-9]+$/;
const SIGNED_DIGITS = /^-?[0-9]+$/;
const OCTAL_DIGITS = /^[0-7]+$/;
const HEX_DIGITS = /^[0-9a-f]+$/;

/** `%u`, `%lu`, `%llu` that may need all 64 bits. */
export function decimalBigint(text: string, place: Place): bigint {
  if (!DIGITS.test(text) || text.length > 20) {
    throw malformed(place, `expected a decimal number, found ${quote(text)}`);
  }
  return fittingU64(BigInt(text), place);
}

/** `%u`, `%lu`: a count or an address that a Number holds exactly. */
export function decimal(text: string, place: Place): number {
  if (!DIGITS.test(text) || text.length > 20) {
    throw malformed(place, `expected a decimal number, found ${quote(text)}`);
  }
  return exact(text, place);
}

/** `%d`, `%ld`: may be negative. */
export function signedDecimal(text: string, place: Place): number {
  if (!SIGNED_DIGITS.test(text) || text.length > 20) {
    throw malformed(place, `expected a signed number, found ${quote(text)}`);
  }
  return exact(text, place);
}

/** `%o`: file flags and umasks; at most 32 bits. */
export function octal(text: string, place: Place): number {
  const value = OCTAL_DIGITS.test(text) ? Number.parseInt(text, 8) : Infinity;
  if (value > 0xffffffff) {
    throw malformed(
      place,
      `expected an octal number of 32 bits, found ${quote(text)}`,
    );
  }
  return value;
}

/** `%x`, `%016llx` without 0x: at most 64 bits. */
export function hexBigint(text: string, place: Place): bigint {
  if (!HEX_DIGITS.test(text) || text.length > 16) {
    throw malformed(
      place,
      `expected a hexadecimal number of 64 bits, found ${quote(text)}`,
    );
  }
  return BigInt(`0x${text}`);
}

function exact(text: string, place: Place): number {
  const value = Number(text);
  // Multiples of a page stay exact far above 2^53, so the test is not
  // isSafeInteger alone.
  if (!Number.isSafeInteger(value) && BigInt(value) !== BigInt(text)) {
    throw malformed(place, `the number ${text} is too large to be exact`);
  }
  // "-0" is no negative zero.
  return value === 0 ? 0 : value;
}

function fittingU64(value: bigint, place: Place): bigint {
  if (value > LARGEST_U64) {
    throw malformed(place, `the number ${value} needs more than 64 bits`);
  }
  return value;
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 40));
}
