/**
 * Sockets of IP without a connection of TCP: TCP, UDP, UDP-Lite, raw ones and
 * those of ping. What is seen of one, what cannot be saved, its entry in
 * files.img, and how it is made again.
 */
import type { Reason } from "../error.ts";
import { EADDRINUSE, EADDRNOTAVAIL, ENOTCONN } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import type { Program } from "../ffi/program.ts";
import type {
  ckpt_membership_entry,
  fown_entry,
  inet_sk_entry,
  ip_opts_entry,
  tcp_opts_entry,
} from "../image/schema.gen.ts";
import type { Wanted } from "./make_descriptions.ts";
import { holderOf } from "./outside_holders.ts";
import type { InetSocketImage } from "./socket_images.ts";
import { SOCK_RAW } from "./inet_kinds.ts";
import { interfaceIndex, interfaceName, interfacesOf } from "./interfaces.ts";
import { joinGroups, missingInterfaces } from "./multicast.ts";
import { SOCK } from "./unix_queue.ts";
import { OptionSetter } from "./option_setter.ts";
import {
  readIpOptions,
  readSocketMemory,
  readSocketOptions,
  readTcpInfo,
  readTcpOptions,
  readTcpUlp,
  type SocketOptions,
} from "./socket_options.ts";
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  setInt,
  setOption,
  SO,
  type SocketKind,
  SOL_SOCKET,
} from "./sockopt.ts";
import type { SocketCalls } from "./socket_calls.ts";
import type { TableProgram } from "./table_program.ts";
import {
  hasReceivedFin,
  isConnected,
  isConnection,
  RCV_SHUTDOWN,
  TCP_STATE,
} from "./tcp_state.ts";
import { SHUT_BOTH, STATE } from "./unix_socket.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";

export const AF_INET = 2;
export const AF_INET6 = 10;

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

export interface SeenInetSocket {
  readonly family: "inet";
  readonly ino: number;
  readonly kind: SocketKind;
  /** TCP_* of net/tcp_states.h. */
  readonly state: number;
  readonly backlog: number;
  /** Connections that wait to be accepted. */
  readonly waiting: number;
  readonly local: InetAddress;
  /** Undefined: not connected. */
  readonly remote: InetAddress | undefined;
  /** Name of the interface of `local.scope`. */
  readonly interface: string | undefined;
  readonly options: SocketOptions;
  readonly ip: { ip_opts: ip_opts_entry; v6only: boolean | undefined };
  readonly tcp: tcp_opts_entry | undefined;
  readonly shutdown: number;
  /** Of TCP: it was connected once. */
  readonly hasEnded: boolean;
  readonly hasError: boolean;
  /** Bytes or datagrams wait to be read. */
  readonly hasUnread: boolean;
  /**
   * Memory of what was sent and is still here: packets that a device has not
   * taken yet, or a datagram that is not complete yet (UDP_CORK, MSG_MORE).
   */
  readonly corked: number;
  /** Multicast groups that it has joined. */
  readonly memberships: readonly ckpt_membership_entry[];
  /** A byte sent with MSG_OOB waits to be read. */
  readonly hasUrgent: boolean;
  readonly protocolAbove: string | undefined;
}

/** What was asked for, of connections. */
export interface ConnectionOptions {
  /** Save them. */
  readonly tcpEstablished?: boolean;
  /** Leave them out: they are closed after a restore. */
  readonly tcpClose?: boolean;
  /** Leave out those that wait to be accepted. */
  readonly skipInFlight?: boolean;
  /** Connect Unix datagram sockets to those of the outside again by name. */
  readonly extUnixSk?: boolean;
  /** As given by --external. */
  readonly external?: readonly string[];
}

/** Why a socket cannot be saved, and the option with which it could be. */
export interface SocketProblem {
  readonly why: string;
  readonly remedy?: string;
  readonly option?: string;
}

/** Lets a port be shared with any other socket; {@link REPAIR_OFF} is silent. */
const TCP_REPAIR = 19;
const REPAIR_ON = 1;
const REPAIR_OFF = -1;
const MSG_PEEK = 2n;
const MSG_DONTWAIT = 0x40n;
const POLLIN = 0x1;
const POLLPRI = 0x2;
const POLLHUP = 0x10;
const POLLRDHUP = 0x2000;

/**
 * @param fd a descriptor of ckpt's own for the socket
 * @param calls what these tell of it
 * @param memberships in multicast groups
 */
export function lookAtInetSocket(
  fd: number,
  ino: bigint,
  kind: SocketKind,
  calls: SocketCalls,
  hasError: boolean,
  memberships: readonly ckpt_membership_entry[],
): SeenInetSocket {
  const { events } = calls;
  const { domain, type } = kind;
  const isTcp = type === SOCK.STREAM;
  const local = decodeAddress(calls.local!);
  const info = isTcp ? tcpInfo(fd) : undefined;
  const table = type === SOCK_RAW
    ? "raw"
    : info?.state === TCP_STATE.SYN_SENT
    ? "tcp"
    : undefined;
  const remote = table === undefined
    ? calls.peer && decodeAddress(calls.peer)
    : remoteInProc(table, domain, Number(ino));
  const state = info?.state ??
    (remote === undefined ? STATE.CLOSE : STATE.ESTABLISHED);
  return {
    family: "inet",
    ino: Number(ino),
    kind,
    backlog: 0,
    waiting: 0,
    ...info,
    state,
    local,
    remote,
    interface: local.scope === 0 ? undefined : interfaceName(fd, local.scope),
    options: readSocketOptions(fd, kind),
    ip: readIpOptions(fd, kind),
    tcp: isTcp ? readTcpOptions(fd) : undefined,
    shutdown: isTcp
      ? isConnected(state) && (events & POLLRDHUP) !== 0 ? RCV_SHUTDOWN : 0
      : (events & POLLHUP) !== 0
      ? 3
      : (events & POLLRDHUP) !== 0
      ? 1
      : 0,
    hasEnded: isTcp && state === STATE.CLOSE && !hasError &&
      hasEnded(fd),
    hasUnread: (events & POLLIN) !== 0,
    corked: isTcp ? 0 : readSocketMemory(fd).sending,
    memberships,
    hasUrgent: isTcp && (events & POLLPRI) !== 0,
    protocolAbove: isTcp && isConnected(state) ? protocolAbove(fd) : undefined,
    hasError,
  };
}

/** The name of a protocol between TCP and the program, such as tls. */
function protocolAbove(fd: number): string | undefined {
  const name = readTcpUlp(fd);
  if (name.every((byte) => byte === 0)) return undefined;
  return new TextDecoder().decode(name).replaceAll("\0", "");
}

/** struct tcp_info; of one that listens, what it tells of its queue. */
function tcpInfo(
  fd: number,
): { state: number; backlog: number; waiting: number } {
  const view = readTcpInfo(fd);
  const state = view.getUint8(0);
  const listens = state === STATE.LISTEN;
  return {
    state,
    // tcpi_unacked and tcpi_sacked (tcp_get_info in net/ipv4/tcp.c).
    waiting: listens ? view.getUint32(24, true) : 0,
    backlog: listens ? view.getUint32(28, true) : 0,
  };
}

/** A socket that never was connected says so; another gives the end of file. */
function hasEnded(fd: number): boolean {
  try {
    syscallBuffer1(
      "recvfrom",
      BigInt(fd),
      new Uint8Array(1),
      1n,
      MSG_PEEK | MSG_DONTWAIT,
    );
    return true;
  } catch (error) {
    if (error instanceof SyscallError) return error.errno !== ENOTCONN;
    throw error;
  }
}

/** getsockname(2). */
export function localAddress(fd: number): InetAddress {
  const address = new Uint8Array(LONGEST_ADDRESS);
  const length = new Uint8Array([LONGEST_ADDRESS, 0, 0, 0]);
  syscallBuffer1("getsockname", BigInt(fd), address, addressOf(length));
  return decodeAddress(address);
}

/** What getpeername(2) does not tell of raw sockets, nor in SYN_SENT. */
function remoteInProc(
  table: "raw" | "tcp",
  domain: number,
  ino: number,
): InetAddress | undefined {
  const path = `/proc/net/${table}${domain === AF_INET6 ? "6" : ""}`;
  const found = remoteInTable(Deno.readTextFileSync(path), ino);
  return found?.words.every((word) => word === 0) ? undefined : found;
}

/** @param text of /proc/net/raw, tcp and the like, with addresses as words in memory */
export function remoteInTable(
  text: string,
  ino: number,
): InetAddress | undefined {
  for (const line of text.split("\n").slice(1)) {
    const words = line.trim().split(/\s+/);
    if (Number(words[9]) !== ino) continue;
    const [address, port] = words[2].split(":");
    return {
      port: parseInt(port, 16),
      words: address.match(/.{8}/g)!.map((word) => parseInt(word, 16)),
      scope: 0,
    };
  }
  return undefined;
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

/** @returns why it cannot be saved, undefined when it can */
export function inetSocketProblem(
  socket: SeenInetSocket,
  options: ConnectionOptions,
): SocketProblem | undefined {
  const problem = socket.kind.type === SOCK.STREAM
    ? tcpProblem(socket, options)
    : undefined;
  if (problem !== undefined) return problem;
  if (socket.corked > 0 && socket.kind.type !== SOCK.DGRAM) {
    return {
      why: "it holds a packet that is not complete yet (MSG_MORE), which is " +
        "not supported of raw sockets",
      remedy: "dump again when the program has sent it",
    };
  }
  return socket.hasError
    ? {
      why: "it has an error that the program has not seen yet, which is not " +
        "supported",
    }
    : undefined;
}

function tcpProblem(
  socket: SeenInetSocket,
  options: ConnectionOptions,
): SocketProblem | undefined {
  const { kind, state, remote, waiting } = socket;
  if (waiting > 0 && !options.skipInFlight && !options.tcpEstablished) {
    return {
      why: "a TCP connection waits to be accepted",
      remedy: "give --tcp-established, if its other end is part of the " +
        "program; or dump again when it is accepted, or give " +
        "--skip-in-flight: it is lost",
      option: "--skip-in-flight",
    };
  }
  if (
    state === STATE.LISTEN || state === STATE.CLOSE ||
    state === TCP_STATE.SYN_SENT || options.tcpClose
  ) {
    return undefined;
  }
  const to = remote === undefined
    ? ""
    : ` to ${addressText(kind.domain, remote)}`;
  if (!isConnected(state)) {
    return { why: `a TCP socket of state ${state}${to} is not supported` };
  }
  if (!options.tcpEstablished) {
    return {
      why: `it is a TCP connection${to}`,
      remedy: "give --tcp-established: it is saved, and no packet of it is " +
        "let through until the restore; or --tcp-close: it is closed then",
      option: "--tcp-established",
    };
  }
  if (socket.hasUrgent) {
    return {
      why: `an urgent byte (MSG_OOB) waits in the connection${to}, which is ` +
        "not supported",
      remedy: "dump again when the program has read it",
    };
  }
  if (socket.protocolAbove !== undefined) {
    return {
      why: `the kernel speaks ${socket.protocolAbove} in the connection${to} ` +
        "(TCP_ULP), which is not supported",
    };
  }
  if (hasReceivedFin(state) && socket.interface !== undefined) {
    return {
      why: `the connection${to} by interface ${socket.interface} is half ` +
        "closed by its peer, which is not supported for link-local addresses",
      remedy: "dump again when the program has closed it",
    };
  }
  return undefined;
}

/**
 * The entry of files.img.
 *
 * @param connection what was read of it since, where it is one
 */
export function describeInetSocket(
  socket: SeenInetSocket,
  id: number,
  flags: number,
  fown: fown_entry,
  connection?: { readonly state: number; readonly shutdown: number },
): inet_sk_entry {
  const { kind, local, remote, options, ip, tcp } = socket;
  const none = local.words.map(() => 0);
  return {
    id,
    ino: socket.ino,
    family: kind.domain,
    type: kind.type,
    proto: kind.protocol,
    state: connection?.state ?? socket.state,
    src_port: local.port,
    dst_port: remote?.port ?? 0,
    flags,
    backlog: socket.backlog,
    src_addr: [...local.words],
    dst_addr: [...remote?.words ?? none],
    fown,
    opts: options.opts,
    v6only: ip.v6only,
    ip_opts: ip.ip_opts,
    ifname: socket.interface,
    shutdown: socket.hasEnded
      ? SHUT_BOTH
      : (connection ?? socket).shutdown || undefined,
    tcp_opts: tcp,
  };
}

function sourceOf(entry: inet_sk_entry, scope: number): InetAddress {
  return { port: entry.src_port, words: entry.src_addr, scope };
}

/**
 * Where to bind it. To bind(2) an address of IPv6 is to set IPV6_V6ONLY; where
 * that is not set, it was connect(2) that chose the address.
 */
function bindAddress(entry: inet_sk_entry, scope: number): InetAddress {
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
function bindsAnyway({ type, state, shutdown }: inet_sk_entry): boolean {
  return type === SOCK.STREAM &&
    (state === TCP_STATE.SYN_SENT ||
      state === STATE.CLOSE && shutdown === SHUT_BOTH);
}

function isBound({ src_port, src_addr }: inet_sk_entry): boolean {
  return src_port !== 0 || src_addr.some((word) => word !== 0);
}

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

function protocolName({ proto, type }: inet_sk_entry): string {
  if (type === SOCK_RAW) return `raw socket of protocol ${proto}`;
  return NAMES.get(proto) ?? "ping";
}

const NAMES: ReadonlyMap<number, string> = new Map([
  [IPPROTO_TCP, "TCP"],
  [IPPROTO_UDP, "UDP"],
  [IPPROTO_UDPLITE, "UDP-Lite"],
]);

/** A socket for the echoes of ICMP (icmp(7)). */
function isPing({ type, proto }: Pick<inet_sk_entry, "type" | "proto">) {
  return type === SOCK.DGRAM &&
    (proto === IPPROTO_ICMP || proto === IPPROTO_ICMPV6);
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
  if (v6only && entry.type !== SOCK_RAW) on(IPPROTO_IPV6, IPV6_V6ONLY);
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

/** socket(2), and all that it takes until it is as it was. */
export function makeInetSocket(
  table: TableProgram,
  { flags, fd, cloexec }: Wanted,
  { entry, extension, stream }: InetSocketImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { program } = table;
  const { family, type, proto, opts } = entry;
  const what = () =>
    `descriptor ${fd} (${protocolName(entry)} ${
      addressText(family, sourceOf(entry, 0))
    })`;
  const make = () =>
    program.call(
      "socket",
      [family, type | O.CLOEXEC, proto],
      () => `making ${what()}`,
    );
  if (isPing(entry)) asPingGroup(program, make);
  else make();
  table.move(table.take(), fd, cloexec);
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
  if (entry.v6only !== undefined && type !== SOCK_RAW) {
    options.v6only(entry.v6only);
  }
  options.sharing(true, opts.so_reuseport ?? false);
  options.common(opts);
  options.ip(entry);
  if (type === SOCK_RAW) options.raw(entry);
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

function settle(
  program: Program,
  fd: number,
  flags: number,
  what: () => string,
): void {
  program.call(
    "fcntl",
    [fd, F_SETFL, flags & SETTABLE_FLAGS],
    () => `setting the flags of ${what()}`,
  );
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
    const address = encodeAddress(family, bindAddress(entry, scope));
    const repair = (how: number) =>
      bindsAnyway(entry) && options.int(IPPROTO_TCP, TCP_REPAIR, how);
    repair(REPAIR_ON);
    program.call(
      "bind",
      [fd, program.bytes(address), address.length],
      () => `binding ${what()}`,
    );
    repair(REPAIR_OFF);
  }
  options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
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
      program.call(
        "fcntl",
        [fd, F_SETFL, O.NONBLOCK],
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
  settle(program, fd, flags, what);
}
