/**
 * What calls on sockets tell that are no options, asked of many sockets at once.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { SyscallError } from "../ffi/syscall.ts";

export interface SocketCalls {
  /** POLL* bits that poll(2) tells without waiting. */
  readonly events: number;
  /** What getsockname(2) tells, with zeros behind it; undefined: nothing. */
  readonly local: Uint8Array<ArrayBuffer> | undefined;
  /** What getpeername(2) tells; undefined: it is not connected. */
  readonly peer: Uint8Array<ArrayBuffer> | undefined;
  /** SIOCOUTQ: memory of what it has sent and nobody has read; of some kinds. */
  readonly unread: number;
}

const POLLIN = 0x1;
const POLLPRI = 0x2;
const POLLRDHUP = 0x2000;
const SIOCOUTQ = 0x5411;
/** struct sockaddr_un is the longest. */
const ADDRESS = 112;
/** More than what NETLINK_SOCK_DIAG tells of most Unix sockets. */
const MOST_TOLD = 208;
/** struct pollfd, memory, lengths of two addresses, addresses; what else is told. */
const AT = {
  events: 4,
  revents: 6,
  unread: 8,
  localLength: 16,
  peerLength: 24,
  local: 32,
  peer: 32 + ADDRESS,
  ino: 32 + 2 * ADDRESS,
  toldLength: 40 + 2 * ADDRESS,
  told: 48 + 2 * ADDRESS,
} as const;
const ANSWER = AT.told + MOST_TOLD;
/** Those of options begin with 1. */
const NO_OPTIONS = 0;

/** A socket, and what was told of it elsewhere. */
export interface AskedSocket {
  /** A descriptor of ckpt's own for it. */
  readonly fd: number;
  readonly ino: bigint;
  /** What NETLINK_SOCK_DIAG tells. */
  readonly told: Uint8Array<ArrayBuffer> | undefined;
}

/** What calls on some sockets tell. */
export interface AnsweredSockets {
  /** By their places. */
  readonly of: (place: number) => SocketCalls;
  /**
   * The number of all that one has answered, and was told of it: the same only
   * if all is the same. 0: it was too much for one.
   */
  readonly number: (place: number) => number;
}

/** @param answered numbers of what they have answered before, by descriptors */
export function askSockets(
  sockets: readonly AskedSocket[],
  answered: Uint32Array<ArrayBuffer>,
): AnsweredSockets {
  const count = sockets.length;
  const slots = new Slots(ANSWER, count);
  const { view, bytes } = slots;
  const numbers = Slots.of(sockets.map(({ fd }) => fd));
  for (let i = 0; i < count; i++) {
    const at = i * ANSWER;
    view.setInt32(at, sockets[i].fd, true);
    view.setInt16(at + AT.events, POLLIN | POLLPRI | POLLRDHUP, true);
    view.setUint32(at + AT.localLength, ADDRESS, true);
    view.setUint32(at + AT.peerLength, ADDRESS, true);
  }
  const calls = new Calls();
  const fd = { loaded: numbers };
  const polled = calls.add("poll", [{ slots }, 1, 0]);
  calls.add("ioctl", [fd, SIOCOUTQ, { slots, offset: AT.unread }]);
  const named = calls.add("getsockname", [
    fd,
    { slots, offset: AT.local },
    { slots, offset: AT.localLength },
  ]);
  const connected = calls.add("getpeername", [
    fd,
    { slots, offset: AT.peer },
    { slots, offset: AT.peerLength },
  ]);
  calls.run(count);
  sockets.forEach(({ ino, told }, i) => {
    const at = i * ANSWER;
    // The number of ckpt's own descriptor says nothing.
    view.setInt32(at, 0, true);
    view.setBigUint64(at + AT.ino, ino, true);
    if (told === undefined) return;
    view.setUint32(at + AT.toldLength, told.length, true);
    if (told.length <= MOST_TOLD) bytes.set(told, at + AT.told);
  });
  calls.numbers(NO_OPTIONS, slots, numbers, answered);
  return {
    of: (place) => {
      const result = calls.result(place, polled);
      if (result < 0) throw new SyscallError("poll", -result);
      const at = place * ANSWER;
      const address = (call: number, from: number) =>
        calls.result(place, call) < 0
          ? undefined
          : bytes.slice(at + from, at + from + ADDRESS);
      return {
        events: view.getInt16(at + AT.revents, true),
        local: address(named, AT.local),
        peer: address(connected, AT.peer),
        unread: view.getInt32(at + AT.unread, true),
      };
    },
    number: (place) => {
      const { fd, told } = sockets[place];
      return (told?.length ?? 0) <= MOST_TOLD ? answered[fd] : 0;
    },
  };
}
