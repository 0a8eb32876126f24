/**
 * getsockopt(2) and setsockopt(2): the numbers of levels and options, and single
 * calls.
 */
import { addressOf, syscall } from "../ffi/syscall.ts";
import { IPPROTO_ICMP, IPPROTO_ICMPV6 } from "./socket_kind.ts";

export const SOL_SOCKET = 1;

export const SOL_RAW = 255;
export const SOL_PACKET = 263;
export const SOL_NETLINK = 270;

/** include/uapi/asm-generic/socket.h. */
export const SO = {
  REUSEADDR: 2,
  TYPE: 3,
  DONTROUTE: 5,
  BROADCAST: 6,
  SNDBUF: 7,
  RCVBUF: 8,
  KEEPALIVE: 9,
  OOBINLINE: 10,
  NO_CHECK: 11,
  PRIORITY: 12,
  LINGER: 13,
  REUSEPORT: 15,
  PASSCRED: 16,
  PEERCRED: 17,
  RCVLOWAT: 18,
  RCVTIMEO: 20,
  SNDTIMEO: 21,
  BINDTODEVICE: 25,
  /** SO_GET_FILTER is the same number. */
  ATTACH_FILTER: 26,
  SNDBUFFORCE: 32,
  RCVBUFFORCE: 33,
  PASSSEC: 34,
  MARK: 36,
  PROTOCOL: 38,
  DOMAIN: 39,
  PEEK_OFF: 42,
  ATTACH_REUSEPORT_CBPF: 51,
  MEMINFO: 55,
  BUF_LOCK: 72,
} as const;

export const IP = {
  TOS: 1,
  TTL: 2,
  HDRINCL: 3,
  PKTINFO: 8,
  FREEBIND: 15,
  NODEFRAG: 22,
} as const;
/** Of a raw socket of ICMP: which messages it gets, by both protocols. */
export const ICMP_FILTERS: ReadonlyMap<
  number,
  readonly [level: number, bytes: number]
> = new Map([[IPPROTO_ICMP, [SOL_RAW, 4]], [IPPROTO_ICMPV6, [58, 32]]]);
export const ICMP_FILTER = 1;
export const IP_MULTICAST_IF = 32;
export const IPV6_V6ONLY = 26;
export const IPV6_RECVPKTINFO = 49;
export const TCP = {
  NODELAY: 1,
  CORK: 3,
  KEEPIDLE: 4,
  KEEPINTVL: 5,
  KEEPCNT: 6,
} as const;
export const TCP_MAXSEG = 2;

/**
 * Bytes of the longest option but for filters, and extension headers of IPv6.
 */
export const LONGEST_OPTION = 64;
/** Bytes of struct sock_filter: code u16, jt u8, jf u8, k u32. */
export const FILTER_INSTRUCTION = 8;

/**
 * getsockopt(2): as many bytes as the kernel gives.
 *
 * @throws SyscallError
 */
export function getOption(
  fd: number,
  level: number,
  name: number,
  room = LONGEST_OPTION,
): Uint8Array<ArrayBuffer> {
  const value = new Uint8Array(room);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, room, true);
  syscall(
    "getsockopt",
    BigInt(fd),
    BigInt(level),
    BigInt(name),
    addressOf(value),
    addressOf(length),
  );
  return value.slice(0, new DataView(length.buffer).getUint32(0, true));
}

/** An option that is an int. */
export function getInt(fd: number, level: number, name: number): number {
  return new DataView(getOption(fd, level, name, 4).buffer).getInt32(0, true);
}

/** Bytes of memory for what is queued in a socket, in both directions. */
export function socketMemory(fd: number): {
  receiving: number;
  sending: number;
} {
  return memoryIn(getOption(fd, SOL_SOCKET, SO.MEMINFO));
}

/** The same of a value of SO_MEMINFO. */
export function memoryIn(
  { buffer }: Uint8Array<ArrayBuffer>,
): { receiving: number; sending: number } {
  // SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_ALLOC (linux/sock_diag.h).
  const [receiving, , sending] = new Uint32Array(buffer);
  return { receiving, sending };
}

export function setInt(
  fd: number,
  level: number,
  name: number,
  value: number,
): void {
  setOption(fd, level, name, intBytes(value));
}

/** setsockopt(2). */
export function setOption(
  fd: number,
  level: number,
  name: number,
  bytes: Uint8Array<ArrayBuffer>,
): void {
  syscall(
    "setsockopt",
    BigInt(fd),
    BigInt(level),
    BigInt(name),
    addressOf(bytes),
    BigInt(bytes.length),
  );
}

function intBytes(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setInt32(0, value | 0, true);
  return bytes;
}
