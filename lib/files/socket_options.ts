/** Reads the options of sockets, as the kernel gives them. */
import { addressOf, syscall, SyscallError } from "../ffi/syscall.ts";
import type {
  ckpt_credentials_entry,
  ckpt_socket_option,
  ip_opts_entry,
  sk_opts_entry,
  tcp_opts_entry,
} from "../image/schema.gen.ts";
import { freshOptions, readFurther } from "./further_options.ts";
import { OptionQuestions, questionsFor } from "./option_questions.ts";
import {
  AF_INET6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  isInet,
  SOCK,
  type SocketKind,
} from "./socket_kind.ts";
import {
  FILTER_INSTRUCTION,
  getOption,
  ICMP_FILTER,
  ICMP_FILTERS,
  IP,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  memoryIn,
  SO,
  socketMemory,
  SOL_SOCKET,
  TCP,
} from "./sockopt.ts";

const TCP_INFO = 11;
const TCP_ULP = 31;

export interface SocketOptions {
  readonly opts: sk_opts_entry;
  readonly further: readonly ckpt_socket_option[];
}

/** What `socketMemory` tells, as it was when the options were asked. */
export function readSocketMemory(fd: number): ReturnType<typeof socketMemory> {
  return ownQuestions().once(
    fd,
    "memory",
    (asked) => memoryIn(asked.bytes(SOL_SOCKET, SO.MEMINFO)!),
  );
}

const KIND = [SO.DOMAIN, SO.TYPE, SO.PROTOCOL];

function kindQuestions(): OptionQuestions {
  return questionsFor("kind", () => KIND.map((name) => [SOL_SOCKET, name]));
}

/**
 * Asks all that the functions below tell of some sockets at once, while `work`
 * calls them.
 *
 * @param fds descriptors of ckpt's own
 * @param isKnown whether more than its kind is asked of a socket
 * @param work gets numbers of what each has answered, by descriptors: the same
 * where all has the same answer, but for struct tcp_info
 */
export function withOptionsOf<T>(
  fds: readonly number[],
  isKnown: (kind: SocketKind) => boolean,
  work: (answered: Uint32Array<ArrayBuffer>) => T,
): T {
  const asked: OptionQuestions[] = [];
  const answered = new Uint32Array(1 + Math.max(0, ...fds));
  const ask = (
    questions: OptionQuestions,
    fds: readonly number[],
    { areNumbered } = { areNumbered: true },
  ) => {
    if (fds.length === 0) return;
    asked.push(questions);
    questions.askAll(fds, areNumbered ? answered : undefined);
  };
  try {
    ask(kindQuestions(), fds);
    ask(commonQuestions(), fds);
    const known: number[] = [];
    // All of a kind have one object for it.
    for (const [kind, some] of Map.groupBy(fds, readKind)) {
      if (!isKnown(kind)) continue;
      known.push(...some);
      ask(freshOptions(kind).questions, some);
    }
    const inet = known.filter((fd) => isInet(readKind(fd)));
    ask(ipQuestions(), inet);
    const tcp = inet.filter((fd) => readKind(fd).type === SOCK.STREAM);
    ask(tcpQuestions(), tcp);
    ask(tcpInfoQuestions(), tcp, { areNumbered: false });
    ask(ownQuestions(), fds);
    return work(answered);
  } finally {
    for (const questions of asked) questions.forget();
  }
}

/** @param fd a descriptor of ckpt's own for the socket */
export function readKind(fd: number): SocketKind {
  return kindQuestions().once(fd, "", (asked) => ({
    domain: asked.int(SOL_SOCKET, SO.DOMAIN),
    type: asked.int(SOL_SOCKET, SO.TYPE),
    protocol: asked.int(SOL_SOCKET, SO.PROTOCOL),
  }));
}

/** @param fd a descriptor of ckpt's own for the socket */
export function readSocketOptions(
  fd: number,
  kind: SocketKind,
): SocketOptions {
  return { opts: readCommon(fd), further: readFurther(fd, kind) };
}

/** Those of every socket that CRIU's message has a field for. */
const COMMON = [
  ...[SO.SNDBUF, SO.RCVBUF, SO.REUSEADDR, SO.PRIORITY, SO.RCVLOWAT, SO.MARK],
  ...[SO.PASSCRED, SO.PASSSEC, SO.DONTROUTE, SO.NO_CHECK, SO.REUSEPORT],
  ...[SO.BROADCAST, SO.KEEPALIVE, SO.OOBINLINE, SO.BUF_LOCK, SO.LINGER],
  ...[SO.SNDTIMEO, SO.RCVTIMEO, SO.BINDTODEVICE, SO.ATTACH_FILTER],
];

function commonQuestions(): OptionQuestions {
  return questionsFor("", () => COMMON.map((name) => [SOL_SOCKET, name]));
}

/** These are no options, but are asked as such; each socket has its own. */
function ownQuestions(): OptionQuestions {
  return questionsFor(
    "own",
    () => [SO.PEERCRED, SO.MEMINFO].map((name) => [SOL_SOCKET, name]),
  );
}

/** SO_PEERCRED; undefined: nobody has connected. */
export function readPeer(fd: number): ckpt_credentials_entry | undefined {
  return ownQuestions().once(fd, "peer", (asked) => {
    // struct ucred
    const { buffer } = asked.bytes(SOL_SOCKET, SO.PEERCRED)!;
    const [pid, uid, gid] = new Uint32Array(buffer);
    return uid === NOBODY ? undefined : { pid, uid, gid };
  });
}

const NOBODY = 0xffffffff;

function readCommon(fd: number): sk_opts_entry {
  const common = commonQuestions().once(
    fd,
    "",
    (asked) => decodeCommon(fd, asked),
  );
  const so_filter = readFilter(fd, commonQuestions().ask(fd));
  return so_filter.length === 0 ? common : { ...common, so_filter };
}

/** All but the filter, of which the answers tell only the length. */
function decodeCommon(fd: number, asked: OptionQuestions): sk_opts_entry {
  const of = (name: number) => asked.int(SOL_SOCKET, name);
  const isSet = (name: number) => asked.flag(SOL_SOCKET, name);
  const bytes = (name: number) =>
    asked.bytes(SOL_SOCKET, name) ?? getOption(fd, SOL_SOCKET, name);
  const timeout = (name: number) => new BigUint64Array(bytes(name).buffer);
  const [sendSeconds, sendMicros] = timeout(SO.SNDTIMEO);
  const [receiveSeconds, receiveMicros] = timeout(SO.RCVTIMEO);
  const linger = new Int32Array(bytes(SO.LINGER).buffer);
  const device = bytes(SO.BINDTODEVICE);
  return {
    so_sndbuf: of(SO.SNDBUF),
    so_rcvbuf: of(SO.RCVBUF),
    so_snd_tmo_sec: sendSeconds,
    so_snd_tmo_usec: sendMicros,
    so_rcv_tmo_sec: receiveSeconds,
    so_rcv_tmo_usec: receiveMicros,
    reuseaddr: isSet(SO.REUSEADDR),
    so_priority: of(SO.PRIORITY) >>> 0,
    so_rcvlowat: of(SO.RCVLOWAT),
    so_mark: of(SO.MARK) >>> 0 || undefined,
    so_passcred: isSet(SO.PASSCRED),
    so_passsec: isSet(SO.PASSSEC),
    so_dontroute: isSet(SO.DONTROUTE),
    so_no_check: isSet(SO.NO_CHECK),
    so_bound_dev: device.length > 1
      ? new TextDecoder().decode(device.subarray(0, device.indexOf(0)))
      : undefined,
    so_filter: [],
    so_reuseport: isSet(SO.REUSEPORT),
    so_broadcast: isSet(SO.BROADCAST),
    so_keepalive: isSet(SO.KEEPALIVE),
    so_oobinline: of(SO.OOBINLINE) || undefined,
    so_linger: linger[0] === 0 ? undefined : linger[1],
    so_buf_lock: asked.tryInt(SOL_SOCKET, SO.BUF_LOCK),
  };
}

/** @throws SyscallError EACCES for a program of eBPF, which cannot be read */
function readFilter(fd: number, asked: OptionQuestions): bigint[] {
  const errno = -asked.result(SOL_SOCKET, SO.ATTACH_FILTER);
  if (errno > 0) throw new SyscallError("getsockopt", errno);
  // The kernel counts in instructions here (sk_get_filter in net/core/filter.c).
  const count = asked.length(SOL_SOCKET, SO.ATTACH_FILTER);
  if (count === 0) return [];
  const bytes = new Uint8Array(count * FILTER_INSTRUCTION);
  getFilter(fd, bytes, count);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => {
    const at = i * FILTER_INSTRUCTION;
    return BigInt(view.getUint16(at, true)) << 48n |
      BigInt(view.getUint8(at + 2)) << 40n |
      BigInt(view.getUint8(at + 3)) << 32n |
      BigInt(view.getUint32(at + 4, true));
  });
}

function getFilter(
  fd: number,
  room: Uint8Array<ArrayBuffer>,
  count: number,
): void {
  const length = new Uint32Array([count]);
  syscall(
    "getsockopt",
    BigInt(fd),
    BigInt(SOL_SOCKET),
    BigInt(SO.ATTACH_FILTER),
    addressOf(room),
    addressOf(new Uint8Array(length.buffer)),
  );
}

function ipQuestions(): OptionQuestions {
  return questionsFor("IP", () => [
    ...Object.values(IP).map((name) => [IPPROTO_IP, name] as const),
    [IPPROTO_IPV6, IPV6_V6ONLY],
    [IPPROTO_IPV6, IPV6_RECVPKTINFO],
  ]);
}

export function readIpOptions(
  fd: number,
  kind: SocketKind,
): { ip_opts: ip_opts_entry; v6only: boolean | undefined } {
  const { domain, type } = kind;
  // Raw sockets have filters, too.
  return type === SOCK.RAW
    ? decodeIpOptions(fd, kind, ipQuestions().ask(fd))
    : ipQuestions().once(
      fd,
      `${domain}`,
      (asked) => decodeIpOptions(fd, kind, asked),
    );
}

function decodeIpOptions(
  fd: number,
  kind: SocketKind,
  asked: OptionQuestions,
): ReturnType<typeof readIpOptions> {
  return {
    ip_opts: {
      freebind: asked.flag(IPPROTO_IP, IP.FREEBIND),
      pktinfo: kind.domain === AF_INET6
        ? asked.flag(IPPROTO_IPV6, IPV6_RECVPKTINFO)
        : asked.flag(IPPROTO_IP, IP.PKTINFO),
      tos: asked.tryInt(IPPROTO_IP, IP.TOS) || undefined,
      ttl: asked.tryInt(IPPROTO_IP, IP.TTL) || undefined,
      raw: kind.type !== SOCK.RAW ? undefined : {
        hdrincl: asked.flag(IPPROTO_IP, IP.HDRINCL),
        nodefrag: asked.flag(IPPROTO_IP, IP.NODEFRAG),
        icmpv_filter: readIcmpFilter(fd, kind),
      },
    },
    v6only: kind.domain === AF_INET6
      ? asked.int(IPPROTO_IPV6, IPV6_V6ONLY) !== 0
      : undefined,
  };
}

function readIcmpFilter(fd: number, { protocol }: SocketKind): number[] {
  const filter = ICMP_FILTERS.get(protocol);
  if (filter === undefined) return [];
  const [level, bytes] = filter;
  const value = getOption(fd, level, ICMP_FILTER, bytes);
  return [...new Uint32Array(value.buffer)];
}

function tcpQuestions(): OptionQuestions {
  return questionsFor(
    "TCP",
    () =>
      [...Object.values(TCP), TCP_ULP].map((name) =>
        [IPPROTO_TCP, name] as const
      ),
  );
}

function tcpInfoQuestions(): OptionQuestions {
  return questionsFor("TCP info", () => [[IPPROTO_TCP, TCP_INFO]]);
}

/** The beginning of struct tcp_info; good until others are asked. */
export function readTcpInfo(fd: number): DataView {
  return tcpInfoQuestions().ask(fd).view(IPPROTO_TCP, TCP_INFO);
}

/** The name of a protocol between TCP and the program; zeros: there is none. */
export function readTcpUlp(fd: number): Uint8Array {
  return tcpQuestions().once(
    fd,
    "upper protocol",
    (asked) => asked.bytes(IPPROTO_TCP, TCP_ULP) ?? new Uint8Array(0),
  );
}

export function readTcpOptions(fd: number): tcp_opts_entry {
  return tcpQuestions().once(fd, "options", (asked) => ({
    cork: asked.flag(IPPROTO_TCP, TCP.CORK),
    nodelay: asked.flag(IPPROTO_TCP, TCP.NODELAY),
    keepcnt: asked.int(IPPROTO_TCP, TCP.KEEPCNT),
    keepidle: asked.int(IPPROTO_TCP, TCP.KEEPIDLE),
    keepintvl: asked.int(IPPROTO_TCP, TCP.KEEPINTVL),
  }));
}
