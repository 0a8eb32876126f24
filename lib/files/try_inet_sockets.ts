/** Whether this host lets sockets of IP have the addresses they had. */
import type { Reason } from "../error.ts";
import { EADDRINUSE, EADDRNOTAVAIL } from "../ffi/errno.ts";
import {
  close,
  O,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import type { inet_sk_entry } from "../image/schema.gen.ts";
import { addressText, encodeAddress } from "./inet_address.ts";
import { interfaceIndex, interfacesOf } from "./interfaces.ts";
import {
  bindAddress,
  bindsAnyway,
  isBound,
  isPing,
  protocolName,
  sourceOf,
} from "./make_inet_socket.ts";
import { missingInterfaces } from "./multicast.ts";
import { holderOf } from "./outside_holders.ts";
import type { InetSocketImage } from "./socket_images.ts";
import { IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOCK } from "./socket_kind.ts";
import { setInt, setOption, SO, SOL_SOCKET } from "./sockopt.ts";
import { isConnection } from "./tcp_state.ts";

/**
 * Binds each that is no connection for a moment, to see whether this host lets
 * it.
 */
export function inetProblems(sockets: Iterable<InetSocketImage>): Reason[] {
  const reasons: Reason[] = [];
  for (const { entry, extension } of sockets) {
    // Who may have those of ping is told by the group (asPingGroup).
    if (isConnection(entry) || isPing(entry) || bindsAnyway(entry)) continue;
    const fd = Number(
      syscall(
        "socket",
        BigInt(entry.family),
        BigInt(entry.type | O.CLOEXEC),
        BigInt(entry.proto),
      ),
    );
    try {
      tryAddress(fd, entry, extension);
      const { memberships } = extension;
      const object = `${protocolName(entry)} socket:[${entry.ino}]`;
      reasons.push(
        ...missingInterfaces(
          object,
          memberships,
          interfacesOf([
            { entry, extension },
          ]),
        ),
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      reasons.push({
        object: `${protocolName(entry)} ${
          addressText(entry.family, sourceOf(entry, 0))
        }`,
        ...whyNot(entry, error),
      });
    } finally {
      close(fd);
    }
  }
  return reasons;
}

function whyNot(
  entry: inet_sk_entry,
  error: SyscallError,
): Omit<Reason, "object"> {
  switch (error.errno) {
    case EADDRINUSE:
      return whoHasPort(entry);
    case EADDRNOTAVAIL:
      return { why: "this host has no such address" };
    default:
      return { why: error.message };
  }
}

/** IP_TRANSPARENT and the like have to be there before bind(2). */
const IP_FREEBIND = 15;
const IPV6_V6ONLY = 26;
const EARLY_OPTIONS: ReadonlySet<string> = new Set([
  `${IPPROTO_IP} 19`,
  `${IPPROTO_IPV6} 75`,
  `${IPPROTO_IPV6} 78`,
]);

function tryAddress(
  fd: number,
  entry: inet_sk_entry,
  { uid = 0, gid = 0, options }: InetSocketImage["extension"],
): void {
  const { opts, ip_opts, v6only, proto } = entry;
  const on = (level: number, name: number) => setInt(fd, level, name, 1);
  if (uid !== 0 || gid !== 0) {
    syscall("fchown", BigInt(fd), BigInt(uid), BigInt(gid));
  }
  if (proto === IPPROTO_TCP || opts.reuseaddr) on(SOL_SOCKET, SO.REUSEADDR);
  if (opts.so_reuseport) on(SOL_SOCKET, SO.REUSEPORT);
  if (ip_opts?.freebind) on(IPPROTO_IP, IP_FREEBIND);
  if (v6only && entry.type !== SOCK.RAW) on(IPPROTO_IPV6, IPV6_V6ONLY);
  for (const { level, name } of options) {
    if (EARLY_OPTIONS.has(`${level} ${name}`)) on(level, name);
  }
  if (opts.so_bound_dev !== undefined) {
    const name = new TextEncoder().encode(`${opts.so_bound_dev}\0`);
    setOption(fd, SOL_SOCKET, SO.BINDTODEVICE, name);
  }
  if (!isBound(entry)) return;
  const scope = entry.ifname === undefined
    ? 0
    : interfaceIndex(fd, entry.ifname);
  const address = encodeAddress(entry.family, bindAddress(entry, scope));
  syscallBuffer1("bind", BigInt(fd), address, BigInt(address.length));
}

function whoHasPort(
  { proto, src_port }: inet_sk_entry,
): Omit<Reason, "object"> {
  const name = proto === IPPROTO_TCP ? "tcp" : "udp";
  for (const path of [`/proc/net/${name}`, `/proc/net/${name}6`]) {
    let text: string;
    try {
      text = Deno.readTextFileSync(path);
    } catch (error) {
      // A kernel without IPv6.
      if (error instanceof Deno.errors.NotFound) continue;
      throw error;
    }
    const ino = socketOfPort(text, src_port);
    if (ino === undefined) continue;
    return {
      why: `the port is in use by ${holderOf(ino)}`,
      remedy: "end that first",
    };
  }
  return {
    why: "connections of this port have ended so short a time ago that late " +
      "packets may come (TIME_WAIT), and were not made with SO_REUSEADDR",
    remedy: `try again in a minute, or remove them: ss -K sport = :${src_port}`,
  };
}

/** The inode of the first socket in /proc/net/tcp or udp with this port. */
export function socketOfPort(text: string, port: number): number | undefined {
  const end = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const line of text.split("\n").slice(1)) {
    const words = line.trim().split(/\s+/);
    if (words[1]?.endsWith(end) && words[9] !== "0") return Number(words[9]);
  }
  return undefined;
}
