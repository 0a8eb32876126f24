import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  LOGINUID_UNSET,
  parseLoginuid,
  parseOomScoreAdj,
  parsePersonality,
  parseTimerslackNs,
} from "./single_value.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

Deno.test("files of one value parse", () => {
  assertEquals(parsePersonality("00000000\n"), 0);
  assertEquals(parsePersonality("00040000\n"), 0x40000);
  assertEquals(parsePersonality("ffffffff\n"), 0xffffffff);
  assertEquals(parseOomScoreAdj("-1000\n"), -1000);
  assertEquals(parseOomScoreAdj("0\n"), 0);
  // Without a newline.
  assertEquals(parseLoginuid("4294967295"), LOGINUID_UNSET);
  assertEquals(parseLoginuid("1000"), 1000);
  assertEquals(parseTimerslackNs("50000\n"), 50000n);
  assertEquals(parseTimerslackNs("18446744073709551615\n"), 2n ** 64n - 1n);
});

Deno.test("other values are errors", () => {
  for (const text of ["", "\n", "1 2\n", "1\n2\n", "0x1\n"]) {
    assertThrows(() => parsePersonality(text), CkptError);
    assertThrows(() => parseOomScoreAdj(text), CkptError);
    assertThrows(() => parseLoginuid(text), CkptError);
    assertThrows(() => parseTimerslackNs(text), CkptError);
  }
  assertThrows(() => parsePersonality("100000000\n"), CkptError);
  assertThrows(() => parseOomScoreAdj("1001\n"), CkptError);
  assertThrows(() => parseOomScoreAdj("-1001\n"), CkptError);
  assertThrows(() => parseLoginuid("-1"), CkptError);
  assertThrows(() => parseLoginuid("4294967296"), CkptError);
});

Deno.test("damaged values either parse or give a CkptError", () => {
  assertParsesOrRejects(parsePersonality, ["00040000\n"]);
  assertParsesOrRejects(parseOomScoreAdj, ["-998\n"]);
  assertParsesOrRejects(parseLoginuid, ["4294967295"]);
  assertParsesOrRejects(parseTimerslackNs, ["50000\n"]);
});
