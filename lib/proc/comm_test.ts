import { assertEquals } from "@std/assert";
import { parseComm } from "./comm.ts";

Deno.test("a thread name may hold newlines and parentheses", () => {
  assertEquals(parseComm("a) (b\n"), "a) (b");
  assertEquals(parseComm("x\ny\n\n"), "x\ny\n");
  assertEquals(parseComm("\n"), "");
});
