/** Packets: fields in their places, and checksums that a receiver accepts. */
import { assertEquals } from "@std/assert";
import { encodePacket, FLAG } from "./tcp_packet.ts";

/** The sum of RFC 1071 over all of it is 0xffff when the checksum is right. */
function sum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i] << 8 | bytes[i + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

const word = (...bytes: number[]) =>
  new Uint32Array(Uint8Array.from(bytes).buffer)[0];

for (const version of [4, 6]) {
  Deno.test(`a packet of IPv${version} goes from the peer to here, with checksums that fit`, () => {
    const local = version === 4
      ? [word(10, 0, 0, 1)]
      : [word(0xfd, 9, 0, 0), 0, 0, word(0, 0, 0, 1)];
    const remote = version === 4
      ? [word(192, 168, 7, 9)]
      : [word(0xfd, 9, 0, 0), 0, 0, word(0, 0, 0, 2)];
    const bytes = encodePacket({
      local,
      remote,
      localPort: 0x1234,
      remotePort: 0x5678,
      sequence: 0xfffffffe,
      acknowledged: 7,
      flags: FLAG.FIN | FLAG.ACK,
    });
    const header = version === 4 ? 20 : 40;
    const view = new DataView(bytes.buffer);
    assertEquals(bytes.length, header + 20);
    assertEquals(bytes[0] >> 4, version);
    const from = version === 4 ? 12 : 8;
    assertEquals(
      [...bytes.subarray(from, from + 4 * remote.length)],
      [...new Uint8Array(Uint32Array.from(remote).buffer)],
    );
    assertEquals(
      [...bytes.subarray(from + 4 * remote.length, header)],
      [...new Uint8Array(Uint32Array.from(local).buffer)],
    );
    assertEquals(view.getUint16(header), 0x5678);
    assertEquals(view.getUint16(header + 2), 0x1234);
    assertEquals(view.getUint32(header + 4), 0xfffffffe);
    assertEquals(view.getUint32(header + 8), 7);
    assertEquals(bytes[header + 13], 0x11);
    if (version === 4) assertEquals(sum(bytes.subarray(0, header)), 0xffff);
    assertEquals(sum(bytes.subarray(from), 6 + 20), 0xffff);
  });
}
