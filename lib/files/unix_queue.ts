/**
 * What is queued in a Unix socket, read without taking it out (MSG_PEEK). Its
 * users have to stand still. Where there is more than one packet, the offset of
 * peeking (SO_PEEK_OFF) is moved for the moment.
 */
import { EAGAIN } from "../ffi/errno.ts";
import { addressOf, syscall, SyscallError } from "../ffi/syscall.ts";
import type { ckpt_credentials_entry } from "../image/schema.gen.ts";
import { getInt, setInt, SO, SOL_SOCKET } from "./socket_options.ts";

export const SOCK = { STREAM: 1, DGRAM: 2, SEQPACKET: 5 } as const;

export interface QueuedPacket {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What SO_PASSCRED gives the receiver; undefined: it did not ask. */
  readonly sender: ckpt_credentials_entry | undefined;
  /** Name of the sending socket of a datagram; empty: it has none. */
  readonly name: Uint8Array<ArrayBuffer>;
}

const MSG_OOB = 1;
const MSG_PEEK = 2;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const FIONREAD = 0x541bn;
const SCM_CREDENTIALS = 2;
const CONTROL_HEADER = 16;
const SUN_PATH = 2;
const LONGEST_NAME = 110;
const ROOM_FOR_CONTROL = 256;
const ROOM_FOR_PACKET = 1 << 18;

/** Says why a queue cannot be saved. */
export class UnreadableQueue extends Error {}

/**
 * @param fd a descriptor of ckpt's own for a socket that does not listen, and
 * has no error that waits to be told
 * @param type SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET
 * @param ended whether nothing more can come (RCV_SHUTDOWN)
 * @throws UnreadableQueue, or SyscallError
 */
export function readUnixQueue(
  fd: number,
  type: number,
  ended: boolean,
): QueuedPacket[] {
  return type === SOCK.STREAM
    ? readStream(fd)
    : readPackets(fd, type === SOCK.SEQPACKET && ended);
}

/** FIONREAD: bytes of a stream, or of the first packet. */
export function queuedBytes(fd: number): number {
  const count = new Int32Array(1);
  syscall(
    "ioctl",
    BigInt(fd),
    FIONREAD,
    addressOf(new Uint8Array(count.buffer)),
  );
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
  // Bytes of one sender end where those of another begin.
  return peekOn(fd, () => {
    const packets: QueuedPacket[] = [];
    for (let done = 0; done < length;) {
      const packet = receive(fd, buffer);
      if (packet.bytes.length === 0) {
        throw new UnreadableQueue("the kernel does not tell all it holds");
      }
      done += packet.bytes.length;
      packets.push(packet);
    }
    return packets;
  });
}

function holdsUrgentByte(fd: number): boolean {
  try {
    receive(fd, new Uint8Array(1), MSG_OOB);
    return true;
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
}

/** @param endless whether an empty queue gives no bytes instead of EAGAIN */
function readPackets(fd: number, endless: boolean): QueuedPacket[] {
  const first = tryReceive(fd, new Uint8Array(0));
  if (first === undefined || endless && first.length === 0) return [];
  return peekOn(fd, () => {
    // From an offset on, a packet without bytes is seen but once.
    const packets: QueuedPacket[] = first.length === 0 ? [first] : [];
    let buffer = new Uint8Array(ROOM_FOR_PACKET);
    for (let offset = 0;;) {
      const packet = tryReceive(fd, buffer);
      if (packet === undefined || endless && packet.length === 0) {
        return packets;
      }
      if (packet.length > buffer.length) {
        buffer = new Uint8Array(packet.length);
        setInt(fd, SOL_SOCKET, SO.PEEK_OFF, offset);
        continue;
      }
      offset += packet.length;
      packets.push(packet);
    }
  });
}

/** With an offset that each look moves on, from the beginning. */
function peekOn<T>(fd: number, read: () => T): T {
  const before = getInt(fd, SOL_SOCKET, SO.PEEK_OFF);
  setInt(fd, SOL_SOCKET, SO.PEEK_OFF, 0);
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
      BigInt(flags | MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT),
    ),
  );
  return {
    length,
    bytes: buffer.slice(0, length),
    sender: readCredentials(control.subarray(0, Number(message[5]))),
    name: name.slice(SUN_PATH, Math.max(SUN_PATH, Number(message[1]))),
  };
}

/** Of the control messages (cmsg(3)), the one with credentials. */
function readCredentials(
  control: Uint8Array<ArrayBuffer>,
): ckpt_credentials_entry | undefined {
  const view = new DataView(control.buffer, control.byteOffset, control.length);
  for (let at = 0; at + CONTROL_HEADER <= control.length;) {
    const length = Number(view.getBigUint64(at, true));
    const level = view.getInt32(at + 8, true);
    const type = view.getInt32(at + 12, true);
    if (level === SOL_SOCKET && type === SCM_CREDENTIALS) {
      return {
        pid: view.getUint32(at + CONTROL_HEADER, true),
        uid: view.getUint32(at + CONTROL_HEADER + 4, true),
        gid: view.getUint32(at + CONTROL_HEADER + 8, true),
      };
    }
    at += (length + 7) & ~7;
  }
  return undefined;
}
