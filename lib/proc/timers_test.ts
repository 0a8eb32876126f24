import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseTimers } from "./timers.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const TEXT = `
ID: 2
signal: 10/0000000000000000
notify: signal/tid.31675
ClockID: -6
ID: 1
signal: 0/0000000000000000
notify: none/pid.0
ClockID: 0
ID: 0
signal: 34/ffffdeadbeefcafe
notify: thread/pid.31675
ClockID: 1
`.slice(1);

Deno.test("timers gives each timer in the order of the file", () => {
  assertEquals(parseTimers(TEXT), [
    {
      id: 2,
      signal: 10,
      value: 0n,
      notify: "signal",
      toThread: true,
      sigevNotify: 4,
      target: 31675,
      clockId: -6,
    },
    {
      id: 1,
      signal: 0,
      value: 0n,
      notify: "none",
      toThread: false,
      sigevNotify: 1,
      target: 0,
      clockId: 0,
    },
    {
      id: 0,
      signal: 34,
      value: 0xffffdeadbeefcafen,
      notify: "thread",
      toThread: false,
      sigevNotify: 2,
      target: 31675,
      clockId: 1,
    },
  ]);
  assertEquals(parseTimers(""), []);
});

Deno.test("incomplete and unknown timers are errors that name the line", () => {
  const cases: [string, string, string][] = [
    [TEXT.replace("ClockID: 1\n", ""), "line 11", '"ClockID: "'],
    [TEXT.replace("ID: 1\n", "id: 1\n"), "line 5", '"ID: "'],
    [TEXT.replace("10/", "10 "), "line 2", "NUMBER/VALUE"],
    [TEXT.replace("34/", "34/f"), "line 10", "64 bits"],
    [TEXT.replace("none", "nobody"), "line 7", "KIND"],
    [TEXT.replace("tid.", "tid-"), "line 3", "KIND"],
    [TEXT.replace("-6", "six"), "line 4", "signed"],
  ];
  for (const [text, line, why] of cases) {
    const error = assertThrows(() => parseTimers(text, "t"), CkptError);
    assertEquals(error.reasons[0].object, `t, ${line}`);
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged timers either parse or give a CkptError", () => {
  assertParsesOrRejects(parseTimers, [TEXT]);
});
