/** Addresses of IP, as the images, the kernel and people write them. */
import { addressOf, syscallBuffer1 } from "../ffi/syscall.ts";
import { AF_INET, AF_INET6 } from "./socket_kind.ts";

/** An address as CRIU writes it. */
export interface InetAddress {
  /** 0: none. */
  readonly port: number;
  /** As they lie in memory: one word of IPv4, four of IPv6. */
  readonly words: readonly number[];
  /** Number of the interface of a link-local address, 0: none. */
  readonly scope: number;
}

export const MAPPED_IPV4 = 0xffff0000;

/** An address as packets have it: a mapped one is of IPv4. */
export function wireWords({ words }: InetAddress): readonly number[] {
  return words.length === 4 && words[0] === 0 && words[1] === 0 &&
      words[2] === MAPPED_IPV4
    ? words.slice(3)
    : words;
}

/** getsockname(2). */
export function localAddress(fd: number): InetAddress {
  const address = new Uint8Array(LONGEST_ADDRESS);
  const length = new Uint8Array([LONGEST_ADDRESS, 0, 0, 0]);
  syscallBuffer1("getsockname", BigInt(fd), address, addressOf(length));
  return decodeAddress(address);
}

const LONGEST_ADDRESS = 28;

/** struct sockaddr_in and sockaddr_in6. */
export function decodeAddress(bytes: Uint8Array<ArrayBuffer>): InetAddress {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const isIpv6 = view.getUint16(0, true) === AF_INET6;
  const at = isIpv6 ? [8, 12, 16, 20] : [4];
  return {
    port: view.getUint16(2),
    words: at.map((offset) => view.getUint32(offset, true)),
    scope: isIpv6 ? view.getUint32(24, true) : 0,
  };
}

export function encodeAddress(
  family: number,
  { port, words, scope }: InetAddress,
): Uint8Array<ArrayBuffer> {
  const isIpv6 = family === AF_INET6;
  const bytes = new Uint8Array(isIpv6 ? LONGEST_ADDRESS : 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family, true);
  view.setUint16(2, port);
  words.forEach((word, i) =>
    view.setUint32((isIpv6 ? 8 : 4) + 4 * i, word, true)
  );
  if (isIpv6) view.setUint32(24, scope, true);
  return bytes;
}

/** As people write it: 127.0.0.1:80, [::1]:80. */
export function addressText(family: number, address: InetAddress): string {
  const bytes = new Uint8Array(Uint32Array.from(address.words).buffer);
  if (family === AF_INET) return `${bytes.join(".")}:${address.port}`;
  const view = new DataView(bytes.buffer);
  const groups = Array.from(
    { length: 8 },
    (_, i) => view.getUint16(2 * i).toString(16),
  ).join(":");
  const short = groups.replace(/(^|:)0(:0)+(:|$)/, "::");
  return `[${short}]:${address.port}`;
}
