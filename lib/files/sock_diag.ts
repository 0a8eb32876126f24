/**
 * What the kernel tells of Unix sockets that no call on the socket itself does:
 * its peer, who waits to be accepted, how it is shut (NETLINK_SOCK_DIAG,
 * linux/unix_diag.h).
 */
import {
  close,
  O,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { ENOENT } from "../ffi/errno.ts";
import { AF_NETLINK, AF_UNIX, SOCK } from "./socket_kind.ts";

export interface UnixDiag {
  /** Inode of the socket; 0 for one that no descriptor leads to. */
  readonly ino: number;
  /** SOCK.STREAM, SOCK.DGRAM or SOCK.SEQPACKET. */
  readonly type: number;
  /** TCP_* of net/tcp_states.h. */
  readonly state: number;
  /** sun_path as bound: a path ends with a zero, an abstract name begins so. */
  readonly name: Uint8Array<ArrayBuffer>;
  /** The file it is bound to, 32 bits of its inode. */
  readonly fileIno: number | undefined;
  /** The device of its file system, as the kernel numbers it: 20 bits minor. */
  readonly fileDevice: number | undefined;
  /**
   * Inode of its peer; 0: the peer has no descriptor (any more, or not yet);
   * undefined: it never had one.
   */
  readonly peer: number | undefined;
  /** Inodes of those that wait to be accepted, the first first. */
  readonly pending: readonly number[];
  /** Of one that listens: as listen(2) was told. */
  readonly backlog: number;
  /** Of one that listens: how many wait to be accepted. */
  readonly waiting: number;
  /** RCV_SHUTDOWN 1, SEND_SHUTDOWN 2. */
  readonly shutdown: number;
}

const NETLINK_SOCK_DIAG = 4n;
const SOCK_DIAG_BY_FAMILY = 20;
const NLM_F_REQUEST = 1;
const NLM_F_DUMP = 0x300;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLMSG_HEADER = 16;
/** struct unix_diag_req. */
const UNIX_REQUEST = 24;
const ANSWER_LENGTH = 16;
/** Where struct unix_diag_msg has it. */
const INODE = 4;
const ATTRIBUTE_HEADER = 4;
const ALL_STATES = 0xffffffff;
/** Name, file, peer, pending connections, queue lengths. */
const SHOW = 0x1f;
const ATTRIBUTE = {
  name: 0,
  file: 1,
  peer: 2,
  pending: 3,
  queues: 4,
  shutdown: 6,
} as const;
const LISTEN = 10;
/** No answer of the kernel is longer (NLMSG_GOODSIZE, 32 KiB for a dump). */
const BUFFER = 65536;

/** One Unix socket of ckpt's network namespace; undefined: there is none. */
export function unixSocket(ino: number): UnixDiag | undefined {
  const message = askOne(ino);
  return message && parseOne(message);
}

function askOne(ino: number): Uint8Array<ArrayBuffer> | undefined {
  try {
    return answers(ino, 0)[0];
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOENT) {
      return undefined;
    }
    throw error;
  }
}

/** All Unix sockets of ckpt's network namespace. */
export function unixSockets(): UnixDiag[] {
  return answers(0, NLM_F_DUMP).map(parseOne);
}

/** From so many on, all of the host are asked for at once. */
const MANY = 16;

/** The Unix sockets of ckpt's network namespace, as they were at one moment. */
export class UnixSocketsAtOnce {
  #all: ReadonlyMap<number, Uint8Array<ArrayBuffer>> | undefined;

  /** Says how many will be asked for. */
  expect(count: number): void {
    if (count < MANY || this.#all !== undefined) return;
    this.#all = new Map(
      answers(0, NLM_F_DUMP).map((message) => [inodeOf(message), message]),
    );
  }

  /** What {@link parseOne} reads; undefined: there is none. */
  get(ino: number): Uint8Array<ArrayBuffer> | undefined {
    return this.#all?.get(ino) ?? askOne(ino);
  }
}

function inodeOf(message: Uint8Array<ArrayBuffer>): number {
  return new DataView(message.buffer).getUint32(INODE, true);
}

function answers(ino: number, flags: number): Uint8Array<ArrayBuffer>[] {
  const request = new Uint8Array(UNIX_REQUEST);
  const view = new DataView(request.buffer);
  view.setUint8(0, AF_UNIX);
  view.setUint32(4, ALL_STATES, true);
  view.setUint32(8, ino, true);
  view.setUint32(12, SHOW, true);
  // Any cookie (INET_DIAG_NOCOOKIE).
  view.setInt32(16, -1, true);
  view.setInt32(20, -1, true);
  return askSocketDiag(request, flags);
}

/**
 * Asks for sockets of one family.
 *
 * @param body of the request, which begins with the family
 * @param flags NLM_F_DUMP where several may answer
 * @throws SyscallError what the kernel answered
 */
export function askSocketDiag(
  body: Uint8Array,
  flags = NLM_F_DUMP,
): Uint8Array<ArrayBuffer>[] {
  const fd = Number(
    syscall(
      "socket",
      BigInt(AF_NETLINK),
      BigInt(SOCK.RAW | O.CLOEXEC),
      NETLINK_SOCK_DIAG,
    ),
  );
  try {
    const request = new Uint8Array(NLMSG_HEADER + body.length);
    request.set(body, NLMSG_HEADER);
    const view = new DataView(request.buffer);
    view.setUint32(0, request.length, true);
    view.setUint16(4, SOCK_DIAG_BY_FAMILY, true);
    view.setUint16(6, NLM_F_REQUEST | flags, true);
    syscallBuffer1("write", BigInt(fd), request, BigInt(request.length));
    const found: Uint8Array<ArrayBuffer>[] = [];
    const buffer = new Uint8Array(BUFFER);
    for (;;) {
      const length = Number(
        syscallBuffer1("read", BigInt(fd), buffer, BigInt(BUFFER)),
      );
      const ended = splitAnswer(buffer.subarray(0, length), found);
      if (ended || flags === 0) return found;
    }
  } finally {
    close(fd);
  }
}

/** @returns whether that was all */
export function splitAnswer(
  answer: Uint8Array<ArrayBuffer>,
  found: Uint8Array<ArrayBuffer>[],
): boolean {
  const view = new DataView(answer.buffer, answer.byteOffset, answer.length);
  for (let at = 0; at + NLMSG_HEADER <= answer.length;) {
    const length = view.getUint32(at, true);
    const type = view.getUint16(at + 4, true);
    if (type === NLMSG_DONE) return true;
    if (type === NLMSG_ERROR) {
      throw new SyscallError("write", -view.getInt32(at + NLMSG_HEADER, true));
    }
    found.push(answer.slice(at + NLMSG_HEADER, at + length));
    at += align(length);
  }
  return false;
}

/** By their types. @param from where they begin */
export function readAttributes(
  message: Uint8Array<ArrayBuffer>,
  from: number,
): ReadonlyMap<number, Uint8Array<ArrayBuffer>> {
  const view = new DataView(message.buffer);
  const attributes = new Map<number, Uint8Array<ArrayBuffer>>();
  for (let at = from; at + ATTRIBUTE_HEADER <= message.length;) {
    const length = view.getUint16(at, true);
    attributes.set(
      view.getUint16(at + 2, true),
      message.slice(at + ATTRIBUTE_HEADER, at + length),
    );
    at += align(length);
  }
  return attributes;
}

/** @param message struct unix_diag_msg and attributes */
export function parseOne(message: Uint8Array<ArrayBuffer>): UnixDiag {
  const view = new DataView(message.buffer);
  const word = (at: number) => view.getUint32(at, true);
  const listens = message[2] === LISTEN;
  // Most have few attributes; a map of them would take longer than all else.
  const found: Writable<UnixDiag> = {
    ino: word(INODE),
    type: message[1],
    state: message[2],
    name: NOTHING,
    fileIno: undefined,
    fileDevice: undefined,
    peer: undefined,
    pending: [],
    backlog: 0,
    waiting: 0,
    shutdown: 0,
  };
  for (let at = ANSWER_LENGTH; at + ATTRIBUTE_HEADER <= message.length;) {
    const length = view.getUint16(at, true);
    const content = at + ATTRIBUTE_HEADER;
    switch (view.getUint16(at + 2, true)) {
      case ATTRIBUTE.name:
        found.name = message.slice(content, at + length);
        break;
      case ATTRIBUTE.file:
        found.fileIno = word(content);
        found.fileDevice = word(content + 4);
        break;
      case ATTRIBUTE.peer:
        found.peer = word(content);
        break;
      case ATTRIBUTE.pending:
        found.pending = Array.from(
          { length: (length - ATTRIBUTE_HEADER) / 4 },
          (_, i) => word(content + 4 * i),
        );
        break;
      case ATTRIBUTE.queues:
        found.waiting = listens ? word(content) : 0;
        found.backlog = listens ? word(content + 4) : 0;
        break;
      case ATTRIBUTE.shutdown:
        found.shutdown = message[content];
    }
    at += align(length);
  }
  return found;
}

type Writable<T> = { -readonly [K in keyof T]: T[K] };
const NOTHING = new Uint8Array(0);

function align(length: number): number {
  return (length + 3) & ~3;
}
