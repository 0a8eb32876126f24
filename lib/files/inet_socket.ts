/**
 * Sockets of IP: TCP, UDP, UDP-Lite, raw ones and those of ping. What is seen of
 * one, what cannot be saved, and its entry in files.img. make_inet_socket.ts
 * makes them again.
 */
import { ENOTCONN } from "../ffi/errno.ts";
import { syscallBuffer1, SyscallError } from "../ffi/syscall.ts";
import type {
  ckpt_membership_entry,
  fown_entry,
  inet_sk_entry,
  ip_opts_entry,
  tcp_opts_entry,
} from "../image/schema.gen.ts";
import {
  addressText,
  decodeAddress,
  type InetAddress,
} from "./inet_address.ts";
import { interfaceName } from "./interfaces.ts";
import type { SocketCalls } from "./socket_calls.ts";
import {
  readIpOptions,
  readSocketMemory,
  readSocketOptions,
  readTcpInfo,
  readTcpOptions,
  readTcpUlp,
  type SocketOptions,
} from "./socket_options.ts";
import { AF_INET6, SOCK, type SocketKind } from "./socket_kind.ts";
import {
  hasReceivedFin,
  isConnected,
  RCV_SHUTDOWN,
  TCP_STATE,
} from "./tcp_state.ts";
import { SHUT_BOTH, STATE } from "./unix_socket.ts";

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
  const table = type === SOCK.RAW
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
      remedy: "dump again when the program has asked for it (SO_ERROR, " +
        "MSG_ERRQUEUE)",
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
