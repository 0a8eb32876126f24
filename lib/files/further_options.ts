/**
 * The options of sockets that CRIU's messages have no field for: those that
 * differ from the options of a fresh socket of the same kind.
 */
import { close, O, syscall, SyscallError } from "../ffi/syscall.ts";
import type { ckpt_socket_option } from "../image/schema.gen.ts";
import { OptionQuestions } from "./option_questions.ts";
import {
  AF_INET,
  AF_INET6,
  AF_NETLINK,
  AF_PACKET,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  SOCK,
  type SocketKind,
} from "./socket_kind.ts";
import {
  IP_MULTICAST_IF,
  LONGEST_OPTION,
  SOL_NETLINK,
  SOL_PACKET,
  SOL_RAW,
  SOL_SOCKET,
  TCP_MAXSEG,
} from "./sockopt.ts";

/**
 * Options without a field of CRIU's, by their level, that can be set again, and
 * in the order in which they are.
 */
const FURTHER: ReadonlyMap<number, readonly number[]> = new Map([
  // DEBUG, timestamps, RXQ_OVFL, PEEK_OFF, WIFI_STATUS, NOFCS, LOCK_FILTER,
  // SELECT_ERR_QUEUE, BUSY_POLL, MAX_PACING_RATE, ZEROCOPY, TXTIME,
  // PREFER_BUSY_POLL, BUSY_POLL_BUDGET, TXREHASH, RCVMARK, PASSPIDFD,
  // RCVPRIORITY, PASSRIGHTS; last the timestamps with 64 bits of time, which
  // the former ones would undo
  [SOL_SOCKET, [
    ...[1, 29, 35, 37, 40, 41, 42, 43, 44, 45, 46, 47, 60, 61, 69, 70, 74, 75],
    ...[76, 82, 83, 63, 64, 65],
  ]],
  // OPTIONS, ROUTER_ALERT, RECVOPTS, RETOPTS, PKTINFO (of IPv6), MTU_DISCOVER,
  // RECVERR, RECVTTL, RECVTOS, PASSSEC, TRANSPARENT, RECVORIGDSTADDR, MINTTL,
  // CHECKSUM, BIND_ADDRESS_NO_PORT, RECVFRAGSIZE, RECVERR_RFC4884, multicast,
  // UNICAST_IF, LOCAL_PORT_RANGE
  [IPPROTO_IP, [
    ...[4, 5, 6, 7, 8, 10, 11, 12, 13, 18, 19, 20, 21, 23, 24, 25, 26],
    ...[IP_MULTICAST_IF, 33, 34, 49, 50, 51],
  ]],
  // those of RFC 2292, FLOWINFO, UNICAST_HOPS, multicast, MTU_DISCOVER,
  // RECVERR, MULTICAST_ALL, ROUTER_ALERT_ISOLATE, RECVERR_RFC4884,
  // FLOWINFO_SEND, HDRINCL, RECVPKTINFO, RECVHOPLIMIT, extension headers to be
  // told of and to send, RECVPATHMTU, DONTFRAG, RECVTCLASS, TCLASS,
  // AUTOFLOWLABEL, ADDR_PREFERENCES, MINHOPCOUNT, RECVORIGDSTADDR, TRANSPARENT,
  // UNICAST_IF, RECVFRAGSIZE, FREEBIND
  [IPPROTO_IPV6, [
    ...[2, 3, 4, 5, 8, 11, 16, 17, 18, 19, 23, 25, 29, 30, 31, 33, 36, 49, 51],
    ...[53, 54, 55, 56, 57, 58, 59, 60, 62, 66, 67, 70, 72, 73, 74, 75, 76, 77],
    78,
  ]],
  // IPV6_CHECKSUM: of ICMPv6 it can only be set at this level
  [SOL_RAW, [7]],
  // MAXSEG, SYNCNT, LINGER2, DEFER_ACCEPT, WINDOW_CLAMP, CONGESTION,
  // THIN_LINEAR_TIMEOUTS, USER_TIMEOUT, FASTOPEN, NOTSENT_LOWAT, SAVE_SYN,
  // FASTOPEN_CONNECT, FASTOPEN_KEY, FASTOPEN_NO_COOKIE, INQ, TX_DELAY,
  // RTO_MAX_MS, RTO_MIN_US, DELACK_MAX_US
  [IPPROTO_TCP, [
    ...[TCP_MAXSEG, 7, 8, 9, 10, 13, 16, 18, 23, 25, 27, 30, 33, 34, 36, 37],
    ...[44, 45, 46],
  ]],
  // CORK, ENCAP, NO_CHECK6_TX, NO_CHECK6_RX, SEGMENT, GRO
  [IPPROTO_UDP, [1, 100, 101, 102, 103, 104]],
  // TX_HAS_OFF, QDISC_BYPASS, IGNORE_OUTGOING, VNET_HDR_SZ
  [SOL_PACKET, [19, 20, 23, 24]],
  // PKTINFO, BROADCAST_ERROR, NO_ENOBUFS, LISTEN_ALL_NSID, CAP_ACK, EXT_ACK,
  // GET_STRICT_CHK
  [SOL_NETLINK, [3, 4, 5, 8, 10, 11, 12]],
  // SEND_CSCOV, RECV_CSCOV, and those of UDP
  [IPPROTO_UDPLITE, [1, 10, 11, 100, 101, 102, 103, 104]],
]);
const LOCK_FILTER = 44;
/** TCP_MIN_MSS; less is what options of IP leave of a segment. */
const LEAST_MAXSEG = 88;

/** An option that is longer than ckpt takes it. */
export class LongOption extends Error {}

/** What can be asked of a kind of socket, and what a new one answers. */
interface FreshOptions {
  readonly questions: OptionQuestions;
  readonly answers: readonly ckpt_socket_option[];
}

const fresh = new Map<string, FreshOptions>();

function keyOf({ domain, type, protocol }: SocketKind): string {
  return `${domain} ${type} ${protocol}`;
}

/** Found out once for each kind. */
export function freshOptions(kind: SocketKind): FreshOptions {
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
    const isPing = type === SOCK.DGRAM &&
      (domain === AF_INET || domain === AF_INET6);
    if (error instanceof SyscallError && isPing) return make(IPPROTO_UDP);
    throw error;
  }
}

/** @throws LongOption */
export function readFurther(
  fd: number,
  kind: SocketKind,
): ckpt_socket_option[] {
  const { questions, answers } = freshOptions(kind);
  return questions.once(
    fd,
    "",
    (asked) => asked.changes(answers).filter(canBeSet),
  );
}

function canBeSet({ level, name, value }: ckpt_socket_option): boolean {
  if (value.length === LONGEST_OPTION) {
    throw new LongOption(`${level}:${name}`);
  }
  return level !== IPPROTO_TCP || name !== TCP_MAXSEG ||
    new DataView(value.buffer).getInt32(0, true) >= LEAST_MAXSEG;
}

function levelsOf({ domain, type, protocol }: SocketKind): readonly number[] {
  const levels = [SOL_SOCKET];
  if (domain === AF_INET || domain === AF_INET6) {
    levels.push(IPPROTO_IP);
    if (type !== SOCK.RAW && FURTHER.has(protocol)) levels.push(protocol);
    if (domain === AF_INET6) levels.push(IPPROTO_IPV6);
    if (domain === AF_INET6 && type === SOCK.RAW) levels.push(SOL_RAW);
  }
  if (domain === AF_PACKET) levels.push(SOL_PACKET);
  if (domain === AF_NETLINK) levels.push(SOL_NETLINK);
  return levels;
}

/** Whether nobody can change the filter of a socket after it. */
export function locksFilter({ level, name }: ckpt_socket_option): boolean {
  return level === SOL_SOCKET && name === LOCK_FILTER;
}
