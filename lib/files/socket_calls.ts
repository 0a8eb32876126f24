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
/** struct pollfd, memory, lengths of two addresses, addresses. */
const AT = {
  events: 4,
  revents: 6,
  unread: 8,
  localLength: 16,
  peerLength: 24,
  local: 32,
  peer: 32 + ADDRESS,
} as const;
const ANSWER = 32 + 2 * ADDRESS;

/** @param fds descriptors of ckpt's own */
export function askSockets(fds: readonly number[]): SocketCalls[] {
  const slots = new Slots(ANSWER, fds.length);
  const numbers = Slots.of(fds);
  fds.forEach((fd, i) => {
    const at = i * ANSWER;
    slots.view.setInt32(at, fd, true);
    slots.view.setInt16(at + AT.events, POLLIN | POLLPRI | POLLRDHUP, true);
    slots.view.setUint32(at + AT.localLength, ADDRESS, true);
    slots.view.setUint32(at + AT.peerLength, ADDRESS, true);
  });
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
  calls.run(fds.length);
  return fds.map((_, i) => {
    const result = calls.result(i, polled);
    if (result < 0) throw new SyscallError("poll", -result);
    const at = i * ANSWER;
    const address = (call: number, from: number) =>
      calls.result(i, call) < 0
        ? undefined
        : slots.bytes.slice(at + from, at + from + ADDRESS);
    return {
      events: slots.view.getInt16(at + AT.revents, true),
      local: address(named, AT.local),
      peer: address(connected, AT.peer),
      unread: slots.view.getInt32(at + AT.unread, true),
    };
  });
}
