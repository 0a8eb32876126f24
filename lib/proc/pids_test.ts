import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { numericNames, parseChildren } from "./pids.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

Deno.test("children are numbers with a space after each", () => {
  assertEquals(parseChildren(""), []);
  assertEquals(parseChildren("31678 "), [31678]);
  assertEquals(parseChildren("9 10 8 "), [9, 10, 8]);
  assertThrows(() => parseChildren("9 -10 "), CkptError);
  assertThrows(() => parseChildren("9,10"), CkptError);
});

Deno.test("directory names that are numbers are sorted by value", () => {
  assertEquals(
    numericNames(["10", "self", "9", "0", "08", "-1", "1e3", "", "4194304"]),
    [0, 9, 10, 4194304],
  );
});

Deno.test("damaged children either parse or give a CkptError", () => {
  assertParsesOrRejects(parseChildren, ["31678 31679 4 "]);
});
