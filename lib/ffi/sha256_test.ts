import { assertEquals } from "@std/assert";
import { sha256 } from "./sha256.ts";

Deno.test("both ways to a digest agree with Deno's, for every length", async () => {
  const bytes = new Uint8Array(300);
  for (let i = 0; i < bytes.length; i++) bytes[i] = i * 131 + (i >> 3);
  for (let length = 0; length <= bytes.length; length++) {
    const part = bytes.subarray(0, length);
    const digest = await crypto.subtle.digest("SHA-256", part);
    const wanted = new Uint8Array(digest).toHex();
    assertEquals(sha256(part), wanted);
    assertEquals(sha256(part, true), wanted);
  }
});
