/** The kinds of sockets of IP that ckpt knows. */
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  SOCK,
  type SocketKind,
} from "./socket_kind.ts";

/** Whether ckpt knows such a socket of IP. */
export function isSupportedInet(
  { type, protocol }: Pick<SocketKind, "type" | "protocol">,
): boolean {
  if (type === SOCK.RAW) return true;
  const known = TYPES.get(protocol);
  return known === type;
}

/** The types of socket of each protocol, but for raw ones. */
const TYPES: ReadonlyMap<number, number> = new Map([
  [IPPROTO_TCP, SOCK.STREAM],
  [IPPROTO_UDP, SOCK.DGRAM],
  [IPPROTO_UDPLITE, SOCK.DGRAM],
  [IPPROTO_ICMP, SOCK.DGRAM],
  [IPPROTO_ICMPV6, SOCK.DGRAM],
]);
