/** Makes sockets of IP again, but for what make_connections.ts does of TCP. */
import type { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import type { inet_sk_entry } from "../image/schema.gen.ts";
import {
  addressText,
  encodeAddress,
  type InetAddress,
  MAPPED_IPV4,
} from "./inet_address.ts";
import type { BufferSizes } from "./fresh_sockets.ts";
import type { Wanted } from "./make_descriptions.ts";
import { joinGroups } from "./multicast.ts";
import { OptionSetter } from "./option_setter.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";
import type { InetSocketImage } from "./socket_images.ts";
import {
  AF_INET6,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  SOCK,
} from "./socket_kind.ts";
import { SO, SOL_SOCKET } from "./sockopt.ts";
import type { TableProgram } from "./table_program.ts";
import { isConnection, TCP_STATE } from "./tcp_state.ts";
import { SHUT_BOTH, STATE } from "./unix_socket.ts";

const TCP_REPAIR = 19;
const REPAIR_ON = 1;
/** TCP_REPAIR_OFF_NO_WP: sends nothing. */
const REPAIR_OFF = -1;

export function sourceOf(entry: inet_sk_entry, scope: number): InetAddress {
  return { port: entry.src_port, words: entry.src_addr, scope };
}

/**
 * Where to bind it. To bind(2) an address of IPv6 is to set IPV6_V6ONLY; where
 * that is not set, it was connect(2) that chose the address.
 */
export function bindAddress(entry: inet_sk_entry, scope: number): InetAddress {
  const { family, v6only, dst_port, src_addr } = entry;
  const source = sourceOf(entry, scope);
  const wasChosen = family === AF_INET6 && v6only === false && dst_port !== 0 &&
    src_addr[2] !== MAPPED_IPV4;
  return wasChosen ? { ...source, words: [0, 0, 0, 0] } : source;
}

/**
 * Of a socket of TCP that is being connected or whose connection has ended, the
 * port is but one end of a connection: others may have it, too.
 */
export function bindsAnyway({ type, state, shutdown }: inet_sk_entry): boolean {
  return type === SOCK.STREAM &&
    (state === TCP_STATE.SYN_SENT ||
      state === STATE.CLOSE && shutdown === SHUT_BOTH);
}

export function isBound({ src_port, src_addr }: inet_sk_entry): boolean {
  return src_port !== 0 || src_addr.some((word) => word !== 0);
}

export function protocolName({ proto, type }: inet_sk_entry): string {
  if (type === SOCK.RAW) return `raw socket of protocol ${proto}`;
  return NAMES.get(proto) ?? "ping";
}

const NAMES: ReadonlyMap<number, string> = new Map([
  [IPPROTO_TCP, "TCP"],
  [IPPROTO_UDP, "UDP"],
  [IPPROTO_UDPLITE, "UDP-Lite"],
]);

/** A socket for the echoes of ICMP (icmp(7)). */
export function isPing({ type, proto }: Pick<inet_sk_entry, "type" | "proto">) {
  return type === SOCK.DGRAM &&
    (proto === IPPROTO_ICMP || proto === IPPROTO_ICMPV6);
}

const KEEP_ID = -1;
const PING_GROUPS = "/proc/sys/net/ipv4/ping_group_range";

/** Only some groups may have sockets of ping, and that of root need not be one. */
function asPingGroup(program: Program, make: () => void): void {
  const [first, last] = Deno.readTextFileSync(PING_GROUPS).split("\t").map(
    Number,
  );
  if (first === 0 || first > last) return void make();
  const set = (gid: number) =>
    program.call(
      "setresgid",
      [KEEP_ID, gid, KEEP_ID],
      "borrowing a group that may have sockets of ping",
    );
  set(first);
  make();
  set(0);
}

const SHUT_RDWR = 2;

/**
 * socket(2), and all that it takes until it is as it was.
 *
 * @param fresh the buffers of a datagram socket that was just made
 */
export function makeInetSocket(
  table: TableProgram,
  { flags, fd, cloexec }: Wanted,
  { entry, extension, stream }: InetSocketImage,
  interfaces: ReadonlyMap<string, number>,
  fresh?: BufferSizes,
): void {
  const { program } = table;
  const { family, type, proto, opts } = entry;
  const what = () =>
    `descriptor ${fd} (${protocolName(entry)} ${
      addressText(family, sourceOf(entry, 0))
    })`;
  const make = () => {
    program.call(
      "socket",
      [family, type | O.CLOEXEC, proto],
      () => `making ${what()}`,
    );
    table.settle(fd, cloexec);
  };
  if (isPing(entry)) asPingGroup(program, make);
  else make();
  // The rest is done by ckpt (make_connections.ts).
  if (stream !== undefined) return settle(program, fd, flags, what);
  const { uid = 0, gid = 0 } = extension;
  // Before bind(2): only sockets of one user share a port.
  if (uid !== 0 || gid !== 0) {
    program.call(
      "fchown",
      [fd, uid, gid],
      () => `setting the owner of ${what()}`,
    );
  }
  const options = new OptionSetter(program, fd, what);
  // The kernel does not let it be set for raw sockets, which have a number.
  if (entry.v6only !== undefined && type !== SOCK.RAW) {
    options.v6only(entry.v6only);
  }
  options.sharing(true, opts.so_reuseport ?? false);
  options.common(opts, type === SOCK.DGRAM ? fresh : undefined);
  options.ip(entry);
  if (type === SOCK.RAW) options.raw(entry);
  if (type === SOCK.STREAM) options.tcp(entry.tcp_opts ?? {});
  options.further(extension.options);
  joinGroups(program, fd, extension.memberships, interfaces, what);
  if (isConnection(entry)) {
    options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
    // Reading gives the end, writing EPIPE, though the kernel says ENOTCONN.
    program.call("shutdown", [fd, SHUT_RDWR], () => `closing ${what()}`, {
      mayFail: true,
    });
    return settle(program, fd, flags, what);
  }
  // When those that it shares its port with are there, too (shared_ports.ts).
  if (extension.shared_port !== undefined) return;
  placeInetSocket(options, { entry, extension }, interfaces);
}

/** @param has the flags it has already */
function settle(
  program: Program,
  fd: number,
  flags: number,
  what: () => string,
  has = 0,
): void {
  const wanted = flags & SETTABLE_FLAGS;
  if (wanted === has) return;
  program.call(
    "fcntl",
    [fd, F_SETFL, wanted],
    () => `setting the flags of ${what()}`,
  );
}

/** Whatever other socket has the port that `bind` takes (SK_FORCE_REUSE). */
export function sharingPorts(options: OptionSetter, bind: () => void): void {
  options.int(IPPROTO_TCP, TCP_REPAIR, REPAIR_ON);
  bind();
  options.int(IPPROTO_TCP, TCP_REPAIR, REPAIR_OFF);
}

/** bind(2), listen(2), connect(2), shutdown(2): what makes others see it. */
export function placeInetSocket(
  options: OptionSetter,
  { entry, extension }: InetSocketImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { program, fd } = options;
  const what = () => options.what;
  const { family, type, opts, flags } = entry;
  const scope = interfaces.get(entry.ifname ?? "") ?? 0;
  if (isBound(entry)) {
    const bind = () => {
      const address = encodeAddress(family, bindAddress(entry, scope));
      program.call(
        "bind",
        [fd, program.bytes(address), address.length],
        () => `binding ${what()}`,
      );
    };
    if (bindsAnyway(entry)) sharingPorts(options, bind);
    else bind();
  }
  if (!opts.reuseaddr) options.int(SOL_SOCKET, SO.REUSEADDR, 0);
  let has = 0;
  // Bytes that were left behind are put back by ckpt (datagrams.ts).
  if (extension.unread !== undefined) {
    return settle(program, fd, flags, what);
  }
  if (entry.state === STATE.LISTEN) {
    program.call("listen", [fd, entry.backlog], () => `listening at ${what()}`);
  } else if (
    entry.dst_port !== 0 || entry.dst_addr.some((word) => word !== 0)
  ) {
    const isTcp = type === SOCK.STREAM;
    // Nobody waits here until it is connected; whether it is, the program sees.
    if (isTcp) {
      has = O.NONBLOCK;
      program.call(
        "fcntl",
        [fd, F_SETFL, has],
        () => `not waiting for ${what()}`,
      );
    }
    const address = encodeAddress(family, {
      port: entry.dst_port,
      words: entry.dst_addr,
      scope,
    });
    program.call(
      "connect",
      [fd, program.bytes(address), address.length],
      () => `connecting ${what()}`,
      { mayFail: isTcp },
    );
  }
  if (entry.shutdown) {
    // What is not connected is shut, too, though the kernel says ENOTCONN.
    program.call(
      "shutdown",
      [fd, entry.shutdown - 1],
      () => `shutting ${what()}`,
      { mayFail: true },
    );
  }
  settle(program, fd, flags, what, has);
}
