/**
 * Packets that ckpt sends to a socket of this host in the stead of whoever has
 * sent them once: they are marked, so that the tables that block all others let
 * them through.
 */
import { addressOf, close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import { encodeAddress } from "./inet_address.ts";
import { LET_THROUGH } from "./network_lock.ts";
import { AF_INET, AF_INET6, IPPROTO_RAW, SOCK } from "./socket_kind.ts";
import { setInt, SO, SOL_SOCKET } from "./sockopt.ts";

/** From where to where. One word each of IPv4, or four of IPv6. */
export interface IpAddresses {
  readonly local: readonly number[];
  readonly remote: readonly number[];
}

const HOPS = 64;

/**
 * A packet to the local address, with its header of IP (RFC 791, RFC 8200).
 *
 * @param segment what it carries; its checksum is filled in
 * @param checksumAt where that is
 */
export function encodeIpPacket(
  { local, remote }: IpAddresses,
  protocol: number,
  segment: Uint8Array,
  checksumAt: number,
): Uint8Array<ArrayBuffer> {
  const isIpv6 = local.length === 4;
  const header = isIpv6 ? 40 : 20;
  const bytes = new Uint8Array(header + segment.length);
  bytes.set(segment, header);
  const view = new DataView(bytes.buffer);
  const [from, to] = isIpv6 ? [8, 24] : [12, 16];
  remote.forEach((word, i) => view.setUint32(from + 4 * i, word, true));
  local.forEach((word, i) => view.setUint32(to + 4 * i, word, true));
  if (isIpv6) {
    view.setUint8(0, 6 << 4);
    view.setUint16(4, segment.length);
    view.setUint8(6, protocol);
    view.setUint8(7, HOPS);
  } else {
    view.setUint8(0, 4 << 4 | header / 4);
    view.setUint16(2, bytes.length);
    view.setUint8(8, HOPS);
    view.setUint8(9, protocol);
    view.setUint16(10, checksum(bytes.subarray(0, header)));
  }
  // Over a pseudo header, too: both addresses, the protocol, the length.
  const sum = protocol + segment.length;
  view.setUint16(header + checksumAt, checksum(bytes.subarray(from), sum));
  return bytes;
}

/** RFC 1071. */
function checksum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] << 8 | (bytes[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Sends packets from here to here; sockets are opened when they are needed. */
export class LocalPackets implements Disposable {
  readonly #sockets = new Map<number, number>();

  /**
   * @param packet with its header of IP
   * @param local the address it is for
   * @throws SyscallError
   */
  send(packet: Uint8Array<ArrayBuffer>, local: readonly number[]): void {
    const family = local.length === 4 ? AF_INET6 : AF_INET;
    let fd = this.#sockets.get(family);
    if (fd === undefined) {
      fd = Number(
        syscall(
          "socket",
          BigInt(family),
          BigInt(SOCK.RAW | O.CLOEXEC),
          BigInt(IPPROTO_RAW),
        ),
      );
      this.#sockets.set(family, fd);
      setInt(fd, SOL_SOCKET, SO.MARK, LET_THROUGH);
    }
    const to = encodeAddress(family, { port: 0, words: local, scope: 0 });
    const sent = syscall(
      "sendto",
      BigInt(fd),
      addressOf(packet),
      BigInt(packet.length),
      0n,
      addressOf(to),
      BigInt(to.length),
    );
    if (sent !== BigInt(packet.length)) throw new SyscallError("sendto", 0);
  }

  [Symbol.dispose](): void {
    for (const fd of this.#sockets.values()) close(fd);
  }
}
