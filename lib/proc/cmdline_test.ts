import { assertEquals } from "@std/assert";
import { parseCmdline, parseComm } from "./cmdline.ts";

Deno.test("arguments end with a NUL, empty ones are kept", () => {
  assertEquals(parseCmdline(""), []);
  assertEquals(parseCmdline("\0"), [""]);
  assertEquals(parseCmdline("a\0\0b c\n\0\0"), ["a", "", "b c\n", ""]);
  assertEquals(parseCmdline("worker: overwritten"), ["worker: overwritten"]);
});

Deno.test("a thread name may hold newlines and parentheses", () => {
  assertEquals(parseComm("a) (b\n"), "a) (b");
  assertEquals(parseComm("x\ny\n\n"), "x\ny\n");
  assertEquals(parseComm("\n"), "");
});
