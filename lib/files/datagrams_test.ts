import { assertEquals } from "@std/assert";
import { encodeUdp, partsOf } from "./datagrams.ts";
import { encodeIpPacket } from "./ip_packet.ts";

/** All words together, as a receiver adds them: 0xffff when nothing is wrong. */
function sum(bytes: Uint8Array): number {
  let total = 0;
  bytes.forEach((byte, i) => total += i % 2 === 0 ? byte << 8 : byte);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  return total;
}

Deno.test("a datagram goes from its sender to here, with checksums that fit, also with an odd length", () => {
  for (const content of [new Uint8Array(0), Uint8Array.of(1, 2, 255)]) {
    for (
      const [local, remote] of [
        [[0x0100007f], [0x0201000a]],
        [[0, 0, 0, 0x01000000], [0x80fe, 0, 5, 0x02000000]],
      ]
    ) {
      const segment = encodeUdp(1234, 53, content);
      const packet = encodeIpPacket({ local, remote }, 17, segment, 6);
      const isIpv6 = local.length === 4;
      const header = isIpv6 ? 40 : 20;
      assertEquals(packet.length, header + 8 + content.length);
      if (!isIpv6) assertEquals(sum(packet.subarray(0, header)), 0xffff);
      const pseudo = Uint8Array.of(0, 17, 0, 8 + content.length);
      const covered = packet.subarray(isIpv6 ? 8 : 12);
      assertEquals(sum(Uint8Array.of(...pseudo, ...covered)), 0xffff);
      assertEquals([...packet.subarray(header, header + 6)], [
        ...[1234 >> 8, 1234 & 255, 0, 53, 0, 8 + content.length],
      ]);
    }
  }
});

Deno.test("what the kernel gives as one is several datagrams again, of which the last may be shorter", () => {
  const bytes = Uint8Array.of(1, 2, 3, 4, 5);
  const parts = (segment?: number) =>
    partsOf({ bytes, segment }).map((part) => [...part]);
  assertEquals(parts(), [[1, 2, 3, 4, 5]]);
  assertEquals(parts(5), [[1, 2, 3, 4, 5]]);
  assertEquals(parts(2), [[1, 2], [3, 4], [5]]);
  assertEquals(partsOf({ bytes: new Uint8Array(0) }).length, 1);
});
