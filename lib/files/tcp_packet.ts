/**
 * Packets of TCP that ckpt sends to a socket of this host in the stead of its
 * peer, which has sent them once.
 */
import { encodeIpPacket } from "./ip_packet.ts";
import type { ConnectionAddress } from "./network_lock.ts";
import { IPPROTO_TCP } from "./socket_kind.ts";

/** Of the header of TCP (RFC 9293, 3.1). */
export const FLAG = { FIN: 1, RST: 4, ACK: 16 } as const;

/** A packet without bytes to the local end of a connection. */
export interface Packet extends ConnectionAddress {
  readonly sequence: number;
  readonly acknowledged: number;
  readonly flags: number;
}

const TCP_HEADER = 20;
const CHECKSUM = 16;
/** In words of 32 bits, in the upper half of the byte. */
const DATA_OFFSET = TCP_HEADER / 4 << 4;
const WINDOW = 0xffff;

/** The packet with its header of IP, checksums filled in. */
export function encodePacket(packet: Packet): Uint8Array<ArrayBuffer> {
  const segment = new Uint8Array(TCP_HEADER);
  const view = new DataView(segment.buffer);
  view.setUint16(0, packet.remotePort);
  view.setUint16(2, packet.localPort);
  view.setUint32(4, packet.sequence);
  view.setUint32(8, packet.acknowledged);
  view.setUint8(12, DATA_OFFSET);
  view.setUint8(13, packet.flags);
  view.setUint16(14, WINDOW);
  return encodeIpPacket(packet, IPPROTO_TCP, segment, CHECKSUM);
}
