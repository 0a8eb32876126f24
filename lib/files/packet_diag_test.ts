import { assertEquals } from "@std/assert";
import { parse } from "./packet_diag.ts";

/** Of a kernel: a socket bound to lo that asked for promiscuous mode twice. */
const ANSWER = Uint8Array.fromHex(
  "11030300084b4100224f0000000000001c000000" + // header, cookie, info
    "01000000000000000000000000000000000000000100000030000100" +
    "0100000002000000010006000102030405060000" + "00".repeat(24),
);

const NO_RINGS = { receiving: undefined, sending: undefined };

Deno.test("what packet sockets have asked of interfaces is read, as often as they did", () => {
  const once = {
    index: 1,
    type: 1,
    addr: Uint8Array.of(1, 2, 3, 4, 5, 6),
  };
  assertEquals(parse(ANSWER, 0x414b08), [
    { copyThreshold: 0, memberships: [once, once], rings: NO_RINGS },
  ]);
  assertEquals(parse(ANSWER, 5), []);
});
