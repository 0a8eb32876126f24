/**
 * What is queued in a Unix socket, read without taking it out (MSG_PEEK). Its
 * users have to stand still. Where there is more than one packet, the offset of
 * peeking (SO_PEEK_OFF) is moved for the moment.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { EAGAIN } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  syscall,
  SyscallError,
  trySyscall,
} from "../ffi/syscall.ts";
import type { ckpt_credentials_entry } from "../image/schema.gen.ts";
import { AF_UNIX, IPPROTO_UDP, SOCK } from "./socket_kind.ts";
import { getInt, setInt, SO, SOL_SOCKET } from "./sockopt.ts";

export interface QueuedPacket {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What SO_PASSCRED gives the receiver; undefined: it did not ask. */
  readonly sender: ckpt_credentials_entry | undefined;
  /** Name of the sending socket of a datagram; empty: it has none. */
  readonly name: Uint8Array<ArrayBuffer>;
  /** Descriptors that came with it (SCM_RIGHTS), now of ckpt's own. */
  readonly rights: readonly number[];
  /**
   * Of UDP, bytes of each of the datagrams that the kernel gives as one
   * (UDP_GRO); undefined: it is one.
   */
  readonly segment?: number | undefined;
}

const MSG_OOB = 1;
const MSG_PEEK = 2;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_CMSG_CLOEXEC = 0x40000000;
const FIONREAD = 0x541bn;
const SIOCOUTQ = 0x5411n;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const SCM_PIDFD = 4;
const UDP_GRO = 104;
const CONTROL_HEADER = 16;
const SUN_PATH = 2;
const LONGEST_NAME = 110;
/** The kernel sends no more than 253 descriptors at once (SCM_MAX_FD). */
const ROOM_FOR_CONTROL = 2048;
const ROOM_FOR_PACKET = 1 << 18;

/** Says why a queue cannot be saved. */
export class UnreadableQueue extends Error {}

/**
 * @param fd a descriptor of ckpt's own for a socket that does not listen, and
 * has no error that waits to be told
 * @param type SOCK.STREAM, SOCK.DGRAM or SOCK.SEQPACKET
 * @param ended whether nothing more can come (RCV_SHUTDOWN)
 * @throws UnreadableQueue, or SyscallError
 */
export function readUnixQueue(
  fd: number,
  type: number,
  ended: boolean,
): QueuedPacket[] {
  const read = () =>
    type === SOCK.STREAM
      ? readStream(fd)
      : readPackets(fd, type === SOCK.SEQPACKET && ended);
  return getInt(fd, SOL_SOCKET, SO.PEEK_OFF) === NO_OFFSET
    ? read()
    : peekFrom(fd, NO_OFFSET, read);
}

/** Of what is asked of many sockets at once; the bytes are behind it. */
const AT = {
  count: 0,
  offset: 8,
  offsetLength: 16,
  urgent: 24,
  vector: 32,
  message: 48,
  name: 104,
  control: 216,
  bytes: 2264,
} as const;
/** Where the kernel tells the lengths of name and control messages (msghdr). */
const NAME_LENGTH = AT.message + 8;
const CONTROL_LENGTH = AT.message + 40;
/** Bytes of a stream that is read with others. */
const SHORT_STREAM = 1024;

/**
 * What is in streams of which one look shows all, of many at once.
 *
 * @param fds descriptors of ckpt's own for sockets as of {@link readUnixQueue}
 * @returns undefined for those that only that one reads
 */
export function readShortStreams(
  fds: readonly number[],
): (QueuedPacket[] | undefined)[] {
  const slots = new Slots(AT.bytes + SHORT_STREAM, fds.length);
  const { view, bytes, size, address } = slots;
  fds.forEach((_, i) => {
    const own = address + i * size;
    const words = [
      [AT.offsetLength, 4],
      [AT.vector, own + AT.bytes],
      [AT.vector + 8, SHORT_STREAM],
      [AT.message, own + AT.name],
      [NAME_LENGTH, LONGEST_NAME],
      [AT.message + 16, own + AT.vector],
      [AT.message + 24, 1],
      [AT.message + 32, own + AT.control],
      [CONTROL_LENGTH, ROOM_FOR_CONTROL],
    ];
    for (const [place, word] of words) slots.setNumber(i, word, place);
  });
  const fd = { loaded: Slots.of(fds) };
  const asking = new Calls();
  const look = MSG_PEEK | MSG_DONTWAIT;
  const offset = { slots, offset: AT.offset };
  const offsetLength = { slots, offset: AT.offsetLength };
  const urgent = { slots, offset: AT.urgent };
  asking.add("getsockopt", [fd, SOL_SOCKET, SO.PEEK_OFF, offset, offsetLength]);
  const counted = asking.add("ioctl", [fd, Number(FIONREAD), { slots }]);
  const outOfBand = asking.add("recvfrom", [fd, urgent, 1, look | MSG_OOB]);
  asking.run(fds.length);
  const count = (i: number) => view.getInt32(i * size + AT.count, true);
  // A look would move the offset of one that has it.
  const isShort = (i: number) =>
    asking.result(i, counted) === 0 && asking.result(i, outOfBand) < 0 &&
    view.getInt32(i * size + AT.offset, true) === NO_OFFSET &&
    count(i) > 0 && count(i) <= SHORT_STREAM;
  const short = fds.map((_, i) => i).filter(isShort);
  const messages = new Slots(8, short.length);
  short.forEach((i, round) =>
    messages.setNumber(round, address + i * size + AT.message)
  );
  const reading = new Calls();
  const received = reading.add("recvmsg", [
    { loaded: Slots.of(short.map((i) => fds[i])) },
    { loaded: messages },
    look | MSG_TRUNC | MSG_CMSG_CLOEXEC,
  ]);
  reading.run(short.length);
  const found: (QueuedPacket[] | undefined)[] = fds.map((_, i) =>
    asking.result(i, counted) === 0 && count(i) === 0 ? [] : undefined
  );
  short.forEach((i, round) => {
    const length = reading.result(round, received);
    if (length < 0) return;
    const at = i * size;
    const end = (from: number, length: number) =>
      from + Math.max(0, view.getUint32(at + length, true));
    const packet = {
      bytes: bytes.slice(at + AT.bytes, at + AT.bytes + length),
      ...readControl(
        bytes.subarray(
          at + AT.control,
          end(at + AT.control, CONTROL_LENGTH),
        ),
      ),
      name: bytes.slice(
        at + AT.name + SUN_PATH,
        Math.max(at + AT.name + SUN_PATH, end(at + AT.name, NAME_LENGTH)),
      ),
    };
    if (length === count(i)) found[i] = [packet];
    else closeRights([packet]);
  });
  return found;
}

/** FIONREAD: bytes of a stream, or of the first packet. */
export function queuedBytes(fd: number): number {
  return askCount(fd, FIONREAD);
}

/** SIOCOUTQ: memory of what a Unix socket has sent and nobody has read yet. */
function memoryInFlight(fd: number): number {
  return askCount(fd, SIOCOUTQ);
}

function askCount(fd: number, request: bigint): number {
  const count = new Int32Array(1);
  const bytes = new Uint8Array(count.buffer);
  syscall("ioctl", BigInt(fd), request, addressOf(bytes));
  return count[0];
}

function readStream(fd: number): QueuedPacket[] {
  const length = queuedBytes(fd);
  if (length === 0) return [];
  if (holdsUrgentByte(fd)) {
    throw new UnreadableQueue(
      "it holds an urgent byte (MSG_OOB), which is not supported",
    );
  }
  const buffer = new Uint8Array(length);
  const first = receive(fd, buffer);
  if (first.bytes.length === length) return [first];
  closeRights([first]);
  // Bytes of one sender end where those of another begin, and those that
  // descriptors came with are the last of a look.
  return peekFrom(fd, 0, () =>
    collect((packets) => {
      for (let done = 0; done < length;) {
        const packet = receive(fd, buffer);
        packets.push(packet);
        if (packet.bytes.length === 0) {
          throw new UnreadableQueue("the kernel does not tell all it holds");
        }
        done += packet.bytes.length;
      }
    }));
}

/**
 * Of bytes of a stream that were sent by several calls, only those of the last
 * came with the descriptors, and nobody can tell where they begin. A receiver
 * that reads as much at once as was sent gets them right with the last byte.
 */
export function withRightsAtEnd(packet: QueuedPacket): QueuedPacket[] {
  const last = packet.bytes.length - 1;
  if (last <= 0) return [packet];
  return [
    { ...packet, bytes: packet.bytes.slice(0, last), rights: [] },
    { ...packet, bytes: packet.bytes.slice(last) },
  ];
}

/** Gathers packets; when that fails, descriptors that came with them go. */
function collect(read: (packets: QueuedPacket[]) => void): QueuedPacket[] {
  const packets: QueuedPacket[] = [];
  try {
    read(packets);
    return packets;
  } catch (error) {
    closeRights(packets);
    throw error;
  }
}

function closeRights(packets: readonly QueuedPacket[]): void {
  for (const { rights } of packets) rights.forEach(close);
}

const probes = new Map<number, number>();

/** The {@link memoryInFlight} of a socket that has sent this by one call. */
export function memoryOfOneMessage(bytes: number): number {
  let known = probes.get(bytes);
  if (known === undefined) {
    const pair = new Int32Array(2);
    syscall(
      "socketpair",
      BigInt(AF_UNIX),
      BigInt(SOCK.STREAM | O.CLOEXEC),
      0n,
      addressOf(new Uint8Array(pair.buffer)),
    );
    try {
      const message = new Uint8Array(bytes);
      syscall(
        "sendto",
        BigInt(pair[0]),
        addressOf(message),
        BigInt(bytes),
        BigInt(MSG_DONTWAIT),
        0n,
        0n,
      );
      known = memoryInFlight(pair[0]);
    } finally {
      pair.forEach(close);
    }
    probes.set(bytes, known);
  }
  return known;
}

/** Of a buffer of its own, which is never moved. */
const ONE_BYTE = new Uint8Array(new ArrayBuffer(1));

function holdsUrgentByte(fd: number): boolean {
  const flags = MSG_OOB | MSG_PEEK | MSG_DONTWAIT;
  const to = addressOf(ONE_BYTE);
  return trySyscall("recvfrom", BigInt(fd), to, 1n, BigInt(flags)) >= 0;
}

/** @param endless whether an empty queue gives no bytes instead of EAGAIN */
function readPackets(fd: number, endless: boolean): QueuedPacket[] {
  const first = tryReceive(fd, new Uint8Array(0));
  if (first === undefined || endless && isEnd(first)) return [];
  return peekFrom(fd, 0, () =>
    collect((packets) => {
      // From an offset on, a packet without bytes is seen but once.
      if (first.length === 0) packets.push(first);
      else closeRights([first]);
      let buffer = new Uint8Array(ROOM_FOR_PACKET);
      for (let offset = 0;;) {
        const packet = tryReceive(fd, buffer);
        if (packet === undefined || endless && isEnd(packet)) return;
        if (packet.length > buffer.length) {
          closeRights([packet]);
          buffer = new Uint8Array(packet.length);
          setInt(fd, SOL_SOCKET, SO.PEEK_OFF, offset);
          continue;
        }
        offset += packet.length;
        packets.push(packet);
      }
    }));
}

function isEnd({ length, rights }: Received): boolean {
  return length === 0 && rights.length === 0;
}

/** SO_PEEK_OFF of a socket whose looks all begin at the first byte. */
const NO_OFFSET = -1;

/** With an offset that each look moves on, unless it is {@link NO_OFFSET}. */
function peekFrom<T>(fd: number, offset: number, read: () => T): T {
  const before = getInt(fd, SOL_SOCKET, SO.PEEK_OFF);
  setInt(fd, SOL_SOCKET, SO.PEEK_OFF, offset);
  try {
    return read();
  } finally {
    setInt(fd, SOL_SOCKET, SO.PEEK_OFF, before);
  }
}

interface Received extends QueuedPacket {
  /** Of the packet, of which `bytes` may be the beginning. */
  readonly length: number;
}

function tryReceive(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
): Received | undefined {
  try {
    return receive(fd, buffer);
  } catch (error) {
    if (error instanceof SyscallError && error.errno === EAGAIN) {
      return undefined;
    }
    throw error;
  }
}

function receive(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  flags = 0,
): Received {
  const name = new Uint8Array(LONGEST_NAME);
  const control = new Uint8Array(ROOM_FOR_CONTROL);
  // No address of an empty buffer.
  const data = buffer.length === 0 ? new Uint8Array(1) : buffer;
  const vector = new BigUint64Array([addressOf(data), BigInt(buffer.length)]);
  const message = new BigUint64Array([
    addressOf(name),
    BigInt(name.length),
    addressOf(new Uint8Array(vector.buffer)),
    1n,
    addressOf(control),
    BigInt(control.length),
    0n,
  ]);
  const length = Number(
    syscall(
      "recvmsg",
      BigInt(fd),
      addressOf(new Uint8Array(message.buffer)),
      BigInt(flags | MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT | MSG_CMSG_CLOEXEC),
    ),
  );
  return {
    length,
    bytes: buffer.slice(0, length),
    ...readControl(control.subarray(0, Number(message[5]))),
    name: name.slice(SUN_PATH, Math.max(SUN_PATH, Number(message[1]))),
  };
}

/** Control messages (cmsg(3)); pidfds of senders are closed. */
function readControl(
  control: Uint8Array<ArrayBuffer>,
): Pick<QueuedPacket, "sender" | "rights" | "segment"> {
  const view = new DataView(control.buffer, control.byteOffset, control.length);
  let sender: ckpt_credentials_entry | undefined;
  let segment: number | undefined;
  const rights: number[] = [];
  for (let at = 0; at + CONTROL_HEADER <= control.length;) {
    const length = Number(view.getBigUint64(at, true));
    const level = view.getInt32(at + 8, true);
    const type = view.getInt32(at + 12, true);
    const content = at + CONTROL_HEADER;
    const words = Math.floor((length - CONTROL_HEADER) / 4);
    const word = (i: number) => view.getUint32(content + 4 * i, true);
    if (level === SOL_SOCKET && type === SCM_CREDENTIALS) {
      sender = { pid: word(0), uid: word(1), gid: word(2) };
    } else if (level === SOL_SOCKET && type === SCM_RIGHTS) {
      for (let i = 0; i < words; i++) rights.push(word(i));
    } else if (level === SOL_SOCKET && type === SCM_PIDFD) {
      const pidfd = word(0) | 0;
      // The process of a sender may be gone: an error in its stead.
      if (pidfd >= 0) close(pidfd);
    } else if (level === IPPROTO_UDP && type === UDP_GRO) {
      segment = word(0);
    }
    at += (length + 7) & ~7;
  }
  return { sender, rights, segment };
}
