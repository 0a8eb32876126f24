import { assert, assertEquals } from "@std/assert";
import { freePid } from "./namespaces.ts";

Deno.test("ckpt's own pid comes behind all that are wanted", () => {
  assertEquals(freePid(new Set([1, 5, 77]), 32768), 78);
  assertEquals(freePid(new Set([]), 32768), 2);
});

Deno.test("where the last pids are wanted, there is room between others", () => {
  const pid = freePid(new Set([2, 3000, 32700]), 32768);
  assertEquals(pid, 3001);
});

Deno.test("where there is no room at all, the kernel chooses", () => {
  const all = new Set(Array.from({ length: 400 }, (_, i) => 1 + i));
  assertEquals(freePid(all, 450), 0);
  assert(freePid(all, 4000) > 400);
});
