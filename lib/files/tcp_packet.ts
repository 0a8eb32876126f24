/**
 * Packets of TCP that ckpt sends to a socket of this host in the stead of its
 * peer, which has sent them once: they are marked, so that the tables that
 * block all others let them through.
 */
import { addressOf, close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import { encodeAddress } from "./inet_socket.ts";
import { type ConnectionAddress, LET_THROUGH } from "./network_lock.ts";
import { setInt, SO, SOL_SOCKET } from "./socket_options.ts";

/** Of the header of TCP (RFC 9293, 3.1). */
export const FLAG = { FIN: 1, ACK: 16 } as const;

/** A packet without bytes to the local end of a connection. */
export interface Packet extends ConnectionAddress {
  readonly sequence: number;
  readonly acknowledged: number;
  readonly flags: number;
}

const IPPROTO_TCP = 6;
const IPPROTO_RAW = 255;
const SOCK_RAW = 3;
const AF_INET = 2;
const AF_INET6 = 10;
const TCP_HEADER = 20;
/** In words of 32 bits, in the upper half of the byte. */
const DATA_OFFSET = TCP_HEADER / 4 << 4;
const WINDOW = 0xffff;
const HOPS = 64;

/** The packet with its header of IP (RFC 791, RFC 8200), checksums filled in. */
export function encodePacket(packet: Packet): Uint8Array<ArrayBuffer> {
  const { local, remote } = packet;
  const isIpv6 = local.length === 4;
  const header = isIpv6 ? 40 : 20;
  const bytes = new Uint8Array(header + TCP_HEADER);
  const view = new DataView(bytes.buffer);
  const [from, to] = isIpv6 ? [8, 24] : [12, 16];
  remote.forEach((word, i) => view.setUint32(from + 4 * i, word, true));
  local.forEach((word, i) => view.setUint32(to + 4 * i, word, true));
  if (isIpv6) {
    view.setUint8(0, 6 << 4);
    view.setUint16(4, TCP_HEADER);
    view.setUint8(6, IPPROTO_TCP);
    view.setUint8(7, HOPS);
  } else {
    view.setUint8(0, 4 << 4 | header / 4);
    view.setUint16(2, bytes.length);
    view.setUint8(8, HOPS);
    view.setUint8(9, IPPROTO_TCP);
    view.setUint16(10, checksum(bytes.subarray(0, header)));
  }
  view.setUint16(header, packet.remotePort);
  view.setUint16(header + 2, packet.localPort);
  view.setUint32(header + 4, packet.sequence);
  view.setUint32(header + 8, packet.acknowledged);
  view.setUint8(header + 12, DATA_OFFSET);
  view.setUint8(header + 13, packet.flags);
  view.setUint16(header + 14, WINDOW);
  // Over a pseudo header, too: both addresses, the protocol, the length.
  const sum = IPPROTO_TCP + TCP_HEADER;
  view.setUint16(header + 16, checksum(bytes.subarray(from), sum));
  return bytes;
}

/** RFC 1071; of an even number of bytes. */
function checksum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes[i] << 8 | bytes[i + 1];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Sends packets from here to here; sockets are opened when they are needed. */
export class LocalPackets implements Disposable {
  readonly #sockets = new Map<number, number>();

  /** @throws SyscallError */
  send(packet: Packet): void {
    const family = packet.local.length === 4 ? AF_INET6 : AF_INET;
    let fd = this.#sockets.get(family);
    if (fd === undefined) {
      fd = Number(
        syscall(
          "socket",
          BigInt(family),
          BigInt(SOCK_RAW | O.CLOEXEC),
          BigInt(IPPROTO_RAW),
        ),
      );
      this.#sockets.set(family, fd);
      setInt(fd, SOL_SOCKET, SO.MARK, LET_THROUGH);
    }
    const bytes = encodePacket(packet);
    const to = encodeAddress(family, {
      port: 0,
      words: packet.local,
      scope: 0,
    });
    const sent = syscall(
      "sendto",
      BigInt(fd),
      addressOf(bytes),
      BigInt(bytes.length),
      0n,
      addressOf(to),
      BigInt(to.length),
    );
    if (sent !== BigInt(bytes.length)) throw new SyscallError("sendto", 0);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#sockets.values()) close(fd);
  }
}
