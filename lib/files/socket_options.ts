/**
 * The options of sockets: those that CRIU's messages have a field for, and all
 * others that differ from those of a fresh socket of the same kind, as the
 * kernel gives them.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { EINVAL } from "../ffi/errno.ts";
import {
  type Data,
  type Program,
  type Purpose,
  textOf,
} from "../ffi/program.ts";
import { addressOf, close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import type {
  ckpt_socket_option,
  inet_sk_entry,
  ip_opts_entry,
  sk_opts_entry,
  tcp_opts_entry,
} from "../image/schema.gen.ts";

export const SOL_SOCKET = 1;
export const IPPROTO_IP = 0;
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_IPV6 = 41;
export const IPPROTO_ICMPV6 = 58;
export const IPPROTO_UDPLITE = 136;
const SOL_RAW = 255;
export const SOL_PACKET = 263;
export const SOL_NETLINK = 270;
export const AF_NETLINK = 16;
export const AF_PACKET = 17;

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

const IP = {
  TOS: 1,
  TTL: 2,
  HDRINCL: 3,
  PKTINFO: 8,
  FREEBIND: 15,
  NODEFRAG: 22,
} as const;
/** Of a raw socket of ICMP: which messages it gets, by both protocols. */
const FILTERS: ReadonlyMap<number, readonly [level: number, bytes: number]> =
  new Map([[IPPROTO_ICMP, [SOL_RAW, 4]], [IPPROTO_ICMPV6, [58, 32]]]);
const ICMP_FILTER = 1;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const TCP = {
  NODELAY: 1,
  CORK: 3,
  KEEPIDLE: 4,
  KEEPINTVL: 5,
  KEEPCNT: 6,
} as const;
const TCP_INFO = 11;
const TCP_ULP = 31;

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;

/** Options without a field of CRIU's, by their level, that can be set again. */
const FURTHER: ReadonlyMap<number, readonly number[]> = new Map([
  // Timestamps, RXQ_OVFL, PEEK_OFF, LOCK_FILTER, SELECT_ERR_QUEUE, BUSY_POLL,
  // MAX_PACING_RATE, ZEROCOPY, PREFER_BUSY_POLL, BUSY_POLL_BUDGET, TXREHASH,
  // RCVMARK, PASSPIDFD, RCVPRIORITY, PASSRIGHTS
  [SOL_SOCKET, [
    ...[29, 35, 37, 40, 42, 44, 45, 46, 47, 60, 69, 70, 74, 75, 76, 82, 83],
  ]],
  // RECVOPTS, RETOPTS, PKTINFO (of IPv6), MTU_DISCOVER, RECVERR, RECVTTL, RECVTOS, PASSSEC,
  // TRANSPARENT, RECVORIGDSTADDR, MINTTL, CHECKSUM, BIND_ADDRESS_NO_PORT,
  // RECVFRAGSIZE, RECVERR_RFC4884, multicast, UNICAST_IF, LOCAL_PORT_RANGE
  [IPPROTO_IP, [
    ...[
      6,
      7,
      8,
      10,
      11,
      12,
      13,
      18,
      19,
      20,
      21,
      23,
      24,
      25,
      26,
      32,
      33,
      34,
      49,
    ],
    ...[50, 51],
  ]],
  // CHECKSUM, UNICAST_HOPS, multicast, MTU_DISCOVER, RECVERR, MULTICAST_ALL,
  // HDRINCL, RECVPKTINFO, RECVHOPLIMIT, DONTFRAG, RECVTCLASS, TCLASS,
  // AUTOFLOWLABEL, ADDR_PREFERENCES, MINHOPCOUNT, RECVORIGDSTADDR, TRANSPARENT,
  // UNICAST_IF, RECVFRAGSIZE
  [IPPROTO_IPV6, [
    ...[7, 29, 36],
    ...[16, 17, 18, 19, 23, 25, 49, 51, 62, 66, 67, 70, 72, 73, 74, 75],
    ...[76, 77],
  ]],
  // MAXSEG, SYNCNT, LINGER2, DEFER_ACCEPT, WINDOW_CLAMP, CONGESTION,
  // THIN_LINEAR_TIMEOUTS, USER_TIMEOUT, FASTOPEN, NOTSENT_LOWAT, SAVE_SYN,
  // FASTOPEN_CONNECT, FASTOPEN_NO_COOKIE, INQ, TX_DELAY
  [IPPROTO_TCP, [2, 7, 8, 9, 10, 13, 16, 18, 23, 25, 27, 30, 34, 36, 37]],
  // CORK, NO_CHECK6_TX, NO_CHECK6_RX, SEGMENT, GRO
  [IPPROTO_UDP, [1, 101, 102, 103, 104]],
  // TX_HAS_OFF, QDISC_BYPASS, IGNORE_OUTGOING
  [SOL_PACKET, [19, 20, 23]],
  // PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, CAP_ACK, EXT_ACK,
  // GET_STRICT_CHK
  [SOL_NETLINK, [3, 4, 5, 8, 10, 11, 12]],
  // SEND_CSCOV, RECV_CSCOV
  [IPPROTO_UDPLITE, [1, 10, 11, 101, 102]],
]);
const LOCK_FILTER = 44;
const LONGEST_OPTION = 64;

/** What all sockets of a kind have in common: socket(2). */
export interface SocketKind {
  readonly domain: number;
  readonly type: number;
  readonly protocol: number;
}

export interface SocketOptions {
  readonly opts: sk_opts_entry;
  readonly further: readonly ckpt_socket_option[];
}

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

/** The same, as it was when the options of a socket were asked. */
export function readSocketMemory(fd: number): ReturnType<typeof socketMemory> {
  return memoryIn(ownQuestions().ask(fd).bytes(SOL_SOCKET, SO.MEMINFO)!);
}

function memoryIn(
  { buffer }: Uint8Array<ArrayBuffer>,
): { receiving: number; sending: number } {
  // SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_WMEM_ALLOC (linux/sock_diag.h).
  const [receiving, , sending] = new Uint32Array(buffer);
  return { receiving, sending };
}

/** Length and value of the answer to one question. */
const ANSWER = { length: 0, value: 8 } as const;
const ANSWER_BYTES = ANSWER.value + LONGEST_OPTION;

/** As much as the kernel gives of most options; the filter is only counted. */
function roomFor(level: number, name: number): number {
  return level === SOL_SOCKET && name === SO.ATTACH_FILTER ? 0 : LONGEST_OPTION;
}

/**
 * Options that are asked together, of many sockets at once: one call of native
 * code instead of one for each of a hundred options of each.
 */
class OptionQuestions {
  /** The descriptors of the sockets, and all answers of each. */
  #fds = new Slots(8, 0);
  #answers = new Slots(0, 0);
  #calls = new Calls();
  /** The sockets that were asked, each with its place among them. */
  #asked: ReadonlyMap<number, number> = new Map();
  /** By these places, the first that has answered the same. */
  #alike = new Uint32Array();
  /** What was made of answers, by that place and what it was made for. */
  readonly #made = new Map<string, unknown>();
  /** The place of the socket whose answers are looked at. */
  #place = 0;
  /** By level and name. */
  readonly #indices = new Map<number, number>();
  /** The answers of a socket before it is asked. */
  readonly #unanswered: Uint8Array;

  constructor(readonly options: readonly (readonly [number, number])[]) {
    this.#unanswered = new Uint8Array(options.length * ANSWER_BYTES);
    const view = new DataView(this.#unanswered.buffer);
    options.forEach(([level, name], i) => {
      this.#indices.set(level << 16 | name, i);
      view.setUint32(i * ANSWER_BYTES, roomFor(level, name), true);
    });
  }

  /** Asks sockets, all at once; the answers are there until {@link forget}. */
  askAll(fds: readonly number[]): void {
    this.forget();
    this.#askThem(fds);
    this.#asked = new Map(fds.map((fd, i) => [fd, i]));
    this.#alike = this.#calls.alike(this.#answers);
  }

  #askThem(fds: readonly number[]): void {
    if (this.#fds.count < fds.length) this.#makeRoom(fds.length);
    const { size, bytes } = this.#answers;
    fds.forEach((fd, i) => {
      this.#fds.view.setUint32(8 * i, fd, true);
      bytes.set(this.#unanswered, i * size);
    });
    this.#calls.run(fds.length);
  }

  #makeRoom(count: number): void {
    const fds = this.#fds = new Slots(8, count);
    const slots = this.#answers = new Slots(this.#unanswered.length, count);
    this.#calls = new Calls();
    this.options.forEach(([level, name], i) => {
      const at = i * ANSWER_BYTES;
      this.#calls.add("getsockopt", [
        { loaded: fds },
        level,
        name,
        { slots, offset: at + ANSWER.value },
        { slots, offset: at + ANSWER.length },
      ]);
    });
  }

  /** The answers of a socket, which is asked now unless it was before. */
  ask(fd: number): this {
    const place = this.#asked.get(fd);
    if (place === undefined) {
      this.forget();
      this.#askThem([fd]);
    }
    this.#place = place ?? 0;
    return this;
  }

  /**
   * What is made of the answers of a socket and of nothing else; the same for
   * all that have answered the same.
   *
   * @param purpose tells it from what else is made of the same answers
   */
  once<T>(fd: number, purpose: string, make: (asked: this) => T): T {
    const asked = this.ask(fd);
    const place = this.#asked.get(fd);
    if (place === undefined) return make(asked);
    const key = `${this.#alike[place]} ${purpose}`;
    let made = this.#made.get(key) as T | undefined;
    if (made === undefined) {
      made = make(asked);
      this.#made.set(key, made);
    }
    return made;
  }

  /** The numbers may stand for other sockets from now on. */
  forget(): void {
    this.#asked = new Map();
    this.#made.clear();
  }

  /** All that the kernel has, in their order. */
  answers(): ckpt_socket_option[] {
    return this.options.flatMap(([level, name]) => {
      const value = this.bytes(level, name);
      return value === undefined ? [] : [{ level, name, value }];
    });
  }

  /** Those that are not as in `usual`, the answers of another socket. */
  changes(usual: readonly ckpt_socket_option[]): ckpt_socket_option[] {
    const { bytes } = this.#answers;
    return usual.flatMap(({ level, name, value }, i) => {
      if (this.#calls.result(this.#place, i) < 0) return [];
      const length = this.length(level, name);
      const at = this.#answerAt(i) + ANSWER.value;
      const same = length === value.length &&
        value.every((byte, n) => bytes[at + n] === byte);
      return same ? [] : [{ level, name, value: bytes.slice(at, at + length) }];
    });
  }

  #index(level: number, name: number): number {
    return this.#indices.get(level << 16 | name)!;
  }

  #answerAt(index: number): number {
    return this.#place * this.#answers.size + index * ANSWER_BYTES;
  }

  /** What getsockopt(2) returned: -errno when it has failed. */
  result(level: number, name: number): number {
    return this.#calls.result(this.#place, this.#index(level, name));
  }

  /** The length that the kernel gave. */
  length(level: number, name: number): number {
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.length;
    return this.#answers.view.getUint32(at, true);
  }

  /** As many bytes as the kernel gives; undefined: it does not have it. */
  bytes(level: number, name: number): Uint8Array<ArrayBuffer> | undefined {
    if (this.result(level, name) < 0) return undefined;
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return this.#answers.bytes.slice(at, at + this.length(level, name));
  }

  /** The same without a copy: good until others are asked. */
  view(level: number, name: number): DataView {
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return new DataView(this.#answers.bytes.buffer, at, LONGEST_OPTION);
  }

  tryInt(level: number, name: number): number | undefined {
    if (this.result(level, name) < 0) return undefined;
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return this.#answers.view.getInt32(at, true);
  }

  /** @throws SyscallError when the kernel does not have it */
  int(level: number, name: number): number {
    const value = this.tryInt(level, name);
    if (value === undefined) throw new SyscallError("getsockopt", EINVAL);
    return value;
  }

  /** `undefined` for false: as CRIU leaves out what is not set. */
  flag(level: number, name: number): true | undefined {
    return this.tryInt(level, name) ? true : undefined;
  }
}

const questions = new Map<string, OptionQuestions>();

/** The same questions for all sockets of a kind. */
function questionsFor(
  key: string,
  options: () => (readonly [number, number])[],
): OptionQuestions {
  let known = questions.get(key);
  if (known === undefined) {
    known = new OptionQuestions(options());
    questions.set(key, known);
  }
  return known;
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
 */
export function withOptionsOf<T>(
  fds: readonly number[],
  isKnown: (kind: SocketKind) => boolean,
  work: () => T,
): T {
  const asked: OptionQuestions[] = [];
  const ask = (questions: OptionQuestions, fds: readonly number[]) => {
    if (fds.length === 0) return;
    asked.push(questions);
    questions.askAll(fds);
  };
  try {
    ask(kindQuestions(), fds);
    ask(commonQuestions(), fds);
    ask(ownQuestions(), fds);
    const kinds = new Map(fds.map((fd) => [fd, readKind(fd)]));
    const known = fds.filter((fd) => isKnown(kinds.get(fd)!));
    const alike = Map.groupBy(known, (fd) => keyOf(kinds.get(fd)!));
    for (const fds of alike.values()) {
      ask(freshOptions(kinds.get(fds[0])!).questions, fds);
    }
    const inet = known.filter((fd) => isInet(kinds.get(fd)!));
    ask(ipQuestions(), inet);
    const tcp = inet.filter((fd) => kinds.get(fd)!.type === SOCK_STREAM);
    ask(tcpQuestions(), tcp);
    ask(tcpInfoQuestions(), tcp);
    return work();
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

/** SO_PEERCRED: struct ucred. */
export function readPeer(fd: number): DataView {
  const asked = ownQuestions().ask(fd);
  return new DataView(asked.bytes(SOL_SOCKET, SO.PEERCRED)!.buffer);
}

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

/** struct sock_filter: code u16, jt u8, jf u8, k u32. */
const INSTRUCTION = 8;

/** @throws SyscallError EACCES for a program of eBPF, which cannot be read */
function readFilter(fd: number, asked: OptionQuestions): bigint[] {
  const errno = -asked.result(SOL_SOCKET, SO.ATTACH_FILTER);
  if (errno > 0) throw new SyscallError("getsockopt", errno);
  // The kernel counts in instructions here (sk_get_filter in net/core/filter.c).
  const count = asked.length(SOL_SOCKET, SO.ATTACH_FILTER);
  if (count === 0) return [];
  const bytes = new Uint8Array(count * INSTRUCTION);
  getFilter(fd, bytes, count);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, i) => {
    const at = i * INSTRUCTION;
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

/** What can be asked of a kind of socket, and what a new one answers. */
interface FreshOptions {
  readonly questions: OptionQuestions;
  readonly answers: readonly ckpt_socket_option[];
}

const fresh = new Map<string, FreshOptions>();

/** Of IPv4 or IPv6. */
export function isInet({ domain }: SocketKind): boolean {
  return domain === AF_INET || domain === AF_INET6;
}

function keyOf({ domain, type, protocol }: SocketKind): string {
  return `${domain} ${type} ${protocol}`;
}

/** Found out once for each kind. */
function freshOptions(kind: SocketKind): FreshOptions {
  const { domain, type, protocol } = kind;
  const key = keyOf(kind);
  let known = fresh.get(key);
  if (known === undefined) {
    const fd = freshSocket(domain, type, protocol);
    try {
      const answers = new OptionQuestions(
        levelsOf(kind).flatMap((level) =>
          FURTHER.get(level)!.map((name) => [level, name] as const)
        ),
      ).ask(fd).answers();
      // Nothing else is asked of sockets like it.
      const questions = new OptionQuestions(
        answers.map(({ level, name }) => [level, name]),
      );
      known = { questions, answers };
    } finally {
      close(fd);
    }
    fresh.set(key, known);
  }
  return known;
}

function freshSocket(domain: number, type: number, protocol: number): number {
  const make = (protocol: number) =>
    Number(
      syscall(
        "socket",
        BigInt(domain),
        BigInt(type | O.CLOEXEC),
        BigInt(protocol),
      ),
    );
  try {
    return make(protocol);
  } catch (error) {
    // Only some groups may have sockets of ping; others are alike.
    const isPing = type === SOCK_DGRAM &&
      (domain === AF_INET || domain === AF_INET6);
    if (error instanceof SyscallError && isPing) return make(IPPROTO_UDP);
    throw error;
  }
}

function readFurther(fd: number, kind: SocketKind): ckpt_socket_option[] {
  const { questions, answers } = freshOptions(kind);
  return questions.once(fd, "", (asked) => asked.changes(answers));
}

function levelsOf({ domain, type, protocol }: SocketKind): readonly number[] {
  const levels = [SOL_SOCKET];
  if (domain === AF_INET || domain === AF_INET6) {
    levels.push(IPPROTO_IP);
    if (type !== SOCK_RAW && FURTHER.has(protocol)) levels.push(protocol);
    if (domain === AF_INET6) levels.push(IPPROTO_IPV6);
  }
  if (domain === AF_PACKET) levels.push(SOL_PACKET);
  if (domain === AF_NETLINK) levels.push(SOL_NETLINK);
  return levels;
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
  return type === SOCK_RAW
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
      raw: kind.type !== SOCK_RAW ? undefined : {
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
  const filter = FILTERS.get(protocol);
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

function locks({ level, name }: ckpt_socket_option): boolean {
  return level === SOL_SOCKET && name === LOCK_FILTER;
}

/** Writes setsockopt(2) calls for one socket. */
export class OptionSetter {
  readonly #what: Purpose;

  /** @param what how errors call the socket */
  constructor(
    readonly program: Program,
    readonly fd: number,
    what: Purpose,
  ) {
    this.#what = what;
  }

  get what(): string {
    return textOf(this.#what);
  }

  int(level: number, name: number, value: number): void {
    this.#set(level, name, this.program.int32(value));
  }

  bytes(level: number, name: number, value: Uint8Array): void {
    this.#set(level, name, this.program.bytes(value));
  }

  #set(level: number, name: number, value: Data): void {
    this.program.call(
      "setsockopt",
      [this.fd, level, name, value, value.length],
      () => `setting option ${level}:${name} of ${this.what}`,
    );
  }

  /** All that every socket has, but the permissions to share an address. */
  common(opts: sk_opts_entry): void {
    const set = (name: number, value: number | undefined) => {
      if (value !== undefined) this.int(SOL_SOCKET, name, value);
    };
    const turnOn = (name: number, value: boolean | undefined) => {
      if (value) this.int(SOL_SOCKET, name, 1);
    };
    this.buffers(opts);
    this.#timeout(SO.SNDTIMEO, opts.so_snd_tmo_sec, opts.so_snd_tmo_usec);
    this.#timeout(SO.RCVTIMEO, opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec);
    set(SO.PRIORITY, opts.so_priority || undefined);
    set(SO.RCVLOWAT, opts.so_rcvlowat === 1 ? undefined : opts.so_rcvlowat);
    set(SO.MARK, opts.so_mark || undefined);
    turnOn(SO.PASSCRED, opts.so_passcred);
    turnOn(SO.PASSSEC, opts.so_passsec);
    turnOn(SO.DONTROUTE, opts.so_dontroute);
    turnOn(SO.NO_CHECK, opts.so_no_check);
    turnOn(SO.BROADCAST, opts.so_broadcast);
    turnOn(SO.KEEPALIVE, opts.so_keepalive);
    set(SO.OOBINLINE, opts.so_oobinline || undefined);
    if (opts.so_bound_dev !== undefined) {
      const name = new TextEncoder().encode(`${opts.so_bound_dev}\0`);
      this.bytes(SOL_SOCKET, SO.BINDTODEVICE, name);
    }
    if (opts.so_linger !== undefined) {
      const value = new Int32Array([1, opts.so_linger]);
      this.bytes(SOL_SOCKET, SO.LINGER, new Uint8Array(value.buffer));
    }
    this.filter(opts);
  }

  /** The sizes of both buffers, and whether the kernel may change them. */
  buffers({ so_sndbuf, so_rcvbuf, so_buf_lock }: sk_opts_entry): void {
    this.room(so_sndbuf, so_rcvbuf);
    if (so_buf_lock !== undefined) {
      this.int(SOL_SOCKET, SO.BUF_LOCK, so_buf_lock);
    }
  }

  /** Bytes of both buffers, as the kernel tells them. */
  room(sending: number, receiving: number): void {
    // The kernel doubles what it is given.
    this.int(SOL_SOCKET, SO.SNDBUFFORCE, sending >>> 1);
    this.int(SOL_SOCKET, SO.RCVBUFFORCE, receiving >>> 1);
  }

  filter({ so_filter }: sk_opts_entry): void {
    if (so_filter.length > 0) this.#filter(so_filter);
  }

  #timeout(name: number, seconds: bigint, micros: bigint): void {
    if (seconds === 0n && micros === 0n) return;
    const value = new BigUint64Array([seconds, micros]);
    this.bytes(SOL_SOCKET, name, new Uint8Array(value.buffer));
  }

  #filter(filter: readonly bigint[]): void {
    const code = new Uint8Array(filter.length * INSTRUCTION);
    const view = new DataView(code.buffer);
    filter.forEach((word, i) => {
      const at = i * INSTRUCTION;
      view.setUint16(at, Number(word >> 48n), true);
      view.setUint8(at + 2, Number(word >> 40n & 0xffn));
      view.setUint8(at + 3, Number(word >> 32n & 0xffn));
      view.setUint32(at + 4, Number(word & 0xffffffffn), true);
    });
    this.attach(SO.ATTACH_FILTER, code);
  }

  /** @param code struct sock_filter, one after the other */
  attach(
    name: typeof SO.ATTACH_FILTER | typeof SO.ATTACH_REUSEPORT_CBPF,
    code: Uint8Array,
  ): void {
    const { program } = this;
    // struct sock_fprog: length, then the address.
    const length = code.length / INSTRUCTION;
    const value = program.words([length, program.bytes(code)]);
    program.call(
      "setsockopt",
      [this.fd, SOL_SOCKET, name, value, 16],
      () => `attaching the filter of ${this.what}`,
    );
  }

  /** SO_REUSEADDR and SO_REUSEPORT. */
  sharing(reuseAddress: boolean, reusePort: boolean): void {
    this.int(SOL_SOCKET, SO.REUSEADDR, reuseAddress ? 1 : 0);
    this.int(SOL_SOCKET, SO.REUSEPORT, reusePort ? 1 : 0);
  }

  ip({ family, ip_opts }: Pick<inet_sk_entry, "family" | "ip_opts">): void {
    const { freebind, pktinfo, tos, ttl } = ip_opts ?? {};
    if (freebind) this.int(IPPROTO_IP, IP.FREEBIND, 1);
    if (pktinfo && family === AF_INET6) {
      this.int(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    } else if (pktinfo) this.int(IPPROTO_IP, IP.PKTINFO, 1);
    if (tos) this.int(IPPROTO_IP, IP.TOS, tos);
    if (ttl) this.int(IPPROTO_IP, IP.TTL, ttl);
  }

  /** What only raw sockets have. */
  raw({ proto, ip_opts }: Pick<inet_sk_entry, "proto" | "ip_opts">): void {
    const { hdrincl, nodefrag, icmpv_filter = [] } = ip_opts?.raw ?? {};
    // IPPROTO_RAW has it without being asked.
    if (hdrincl) this.int(IPPROTO_IP, IP.HDRINCL, 1);
    if (nodefrag) this.int(IPPROTO_IP, IP.NODEFRAG, 1);
    const filter = FILTERS.get(proto);
    if (filter === undefined || icmpv_filter.length === 0) return;
    const value = new Uint8Array(Uint32Array.from(icmpv_filter).buffer);
    this.bytes(filter[0], ICMP_FILTER, value);
  }

  v6only(value: boolean): void {
    this.int(IPPROTO_IPV6, IPV6_V6ONLY, value ? 1 : 0);
  }

  tcp(options: tcp_opts_entry): void {
    const { cork, nodelay, keepcnt, keepidle, keepintvl } = options;
    const set = (name: number, value: number | boolean | undefined) => {
      if (value) this.int(IPPROTO_TCP, name, Number(value));
    };
    set(TCP.NODELAY, nodelay);
    set(TCP.CORK, cork);
    set(TCP.KEEPCNT, keepcnt);
    set(TCP.KEEPIDLE, keepidle);
    set(TCP.KEEPINTVL, keepintvl);
  }

  /** After the filter: one of these locks it. */
  further(options: readonly ckpt_socket_option[], withLocks = true): void {
    for (const option of options) {
      if (!locks(option)) this.bytes(option.level, option.name, option.value);
    }
    if (withLocks) this.locks(options);
  }

  /** Those of them after which the filter cannot be changed any more. */
  locks(options: readonly ckpt_socket_option[]): void {
    for (const option of options) {
      if (locks(option)) this.bytes(option.level, option.name, option.value);
    }
  }
}
