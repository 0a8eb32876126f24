import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseChildren } from "./pids.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

Deno.test("children are numbers with a space after each", () => {
  assertEquals(parseChildren(""), []);
  assertEquals(parseChildren("31678 "), [31678]);
  assertEquals(parseChildren("9 10 8 "), [9, 10, 8]);
  assertThrows(() => parseChildren("9 -10 "), CkptError);
  assertThrows(() => parseChildren("9,10"), CkptError);
});

Deno.test("damaged children either parse or give a CkptError", () => {
  assertParsesOrRejects(parseChildren, ["31678 31679 4 "]);
});
