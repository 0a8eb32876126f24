/** The files of `/proc/PID` that hold one number. */
import { onlyLine } from "./lines.ts";
import { decimal, decimalBigint, hexBigint, signedDecimal } from "./numbers.ts";
import { malformed } from "./malformed.ts";

/** personality: 32 bits, as personality(2) returns them. */
export function parsePersonality(
  text: string,
  source = "personality",
): number {
  const place = onlyLine(text, source);
  const value = hexBigint(place.text, place);
  if (value > 0xffffffffn) throw malformed(place, "expected 32 bits");
  return Number(value);
}

/** oom_score_adj: -1000 to 1000. */
export function parseOomScoreAdj(
  text: string,
  source = "oom_score_adj",
): number {
  const place = onlyLine(text, source);
  const value = signedDecimal(place.text, place);
  if (value < -1000 || value > 1000) {
    throw malformed(place, "expected a value from -1000 to 1000");
  }
  return value;
}

/** The loginuid of a task whose loginuid was never set. */
export const LOGINUID_UNSET = 0xffffffff;

/** loginuid: a user id or {@linkcode LOGINUID_UNSET}. */
export function parseLoginuid(text: string, source = "loginuid"): number {
  const place = onlyLine(text, source);
  const value = decimal(place.text, place);
  if (value > LOGINUID_UNSET) throw malformed(place, "expected 32 bits");
  return value;
}

/** timerslack_ns: 64 bits of nanoseconds. */
export function parseTimerslackNs(
  text: string,
  source = "timerslack_ns",
): bigint {
  const place = onlyLine(text, source);
  return decimalBigint(place.text, place);
}
