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
  SOCK_DGRAM,
  SOCK_RAW,
  type SocketKind,
  SOL_NETLINK,
  SOL_PACKET,
  SOL_SOCKET,
} from "./sockopt.ts";

/** Options without a field of CRIU's, by their level, that can be set again. */
const FURTHER: ReadonlyMap<number, readonly number[]> = new Map([
  // Timestamps, RXQ_OVFL, PEEK_OFF, LOCK_FILTER, SELECT_ERR_QUEUE, BUSY_POLL,
  // MAX_PACING_RATE, ZEROCOPY, PREFER_BUSY_POLL, BUSY_POLL_BUDGET, TXREHASH,
  // RCVMARK, PASSPIDFD, RCVPRIORITY, PASSRIGHTS
  [SOL_SOCKET, [
    ...[29, 35, 37, 40, 42, 44, 45, 46, 47, 60, 69, 70, 74, 75, 76, 82, 83],
  ]],
  // RECVOPTS, RETOPTS, PKTINFO (of IPv6), MTU_DISCOVER, RECVERR, RECVTTL,
  // RECVTOS, PASSSEC, TRANSPARENT, RECVORIGDSTADDR, MINTTL, CHECKSUM,
  // BIND_ADDRESS_NO_PORT, RECVFRAGSIZE, RECVERR_RFC4884, multicast, UNICAST_IF,
  // LOCAL_PORT_RANGE
  [IPPROTO_IP, [
    ...[6, 7, 8, 10, 11, 12, 13, 18, 19, 20, 21, 23, 24, 25, 26, 32, 33, 34],
    ...[49, 50, 51],
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

/** What can be asked of a kind of socket, and what a new one answers. */
interface FreshOptions {
  readonly questions: OptionQuestions;
  readonly answers: readonly ckpt_socket_option[];
}

const fresh = new Map<string, FreshOptions>();

export function keyOf({ domain, type, protocol }: SocketKind): string {
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
    const isPing = type === SOCK_DGRAM &&
      (domain === AF_INET || domain === AF_INET6);
    if (error instanceof SyscallError && isPing) return make(IPPROTO_UDP);
    throw error;
  }
}

export function readFurther(
  fd: number,
  kind: SocketKind,
): ckpt_socket_option[] {
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

/** Whether nobody can change the filter of a socket after it. */
export function locksFilter({ level, name }: ckpt_socket_option): boolean {
  return level === SOL_SOCKET && name === LOCK_FILTER;
}
