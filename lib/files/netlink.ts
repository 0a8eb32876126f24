/**
 * Messages to the kernel over netlink(7): attributes within attributes, and
 * batches that are carried out as a whole or not at all.
 */
import {
  addressOf,
  close,
  O,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { AF_NETLINK, SOCK } from "./socket_kind.ts";
import { setInt, SO, SOL_SOCKET } from "./sockopt.ts";

export const NLM_F = {
  REQUEST: 1,
  ACK: 4,
  DUMP: 0x300,
  REPLACE: 0x100,
  EXCL: 0x200,
  CREATE: 0x400,
} as const;
export const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
export const NLMSG_HEADER = 16;
const ATTRIBUTE_HEADER = 4;
const NLA_F_NESTED = 0x8000;

/** A value of an attribute: bytes, a number of 32 bits (big endian), others. */
export type AttributeValue =
  | Uint8Array
  | string
  | number
  | readonly Attribute[];
export type Attribute = readonly [type: number, value: AttributeValue];

/** struct nlattr, one after the other, each padded to 4 bytes. */
export function encodeAttributes(
  attributes: readonly Attribute[],
): Uint8Array<ArrayBuffer> {
  const parts = attributes.map(([type, value]) => {
    const bytes = encodeValue(value);
    const out = new Uint8Array(align(ATTRIBUTE_HEADER + bytes.length));
    const view = new DataView(out.buffer);
    view.setUint16(0, ATTRIBUTE_HEADER + bytes.length, true);
    view.setUint16(2, Array.isArray(value) ? type | NLA_F_NESTED : type, true);
    out.set(bytes, ATTRIBUTE_HEADER);
    return out;
  });
  return join(parts);
}

function encodeValue(value: AttributeValue): Uint8Array {
  if (typeof value === "string") return new TextEncoder().encode(`${value}\0`);
  if (typeof value === "number") {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value);
    return bytes;
  }
  return value instanceof Uint8Array ? value : encodeAttributes(value);
}

export function join(
  parts: readonly Uint8Array[],
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function align(length: number): number {
  return (length + 3) & ~3;
}

/** struct nlmsghdr and what follows it. */
export function encodeMessage(
  type: number,
  flags: number,
  sequence: number,
  body: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(align(NLMSG_HEADER + body.length));
  const view = new DataView(out.buffer);
  view.setUint32(0, NLMSG_HEADER + body.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, NLM_F.REQUEST | flags, true);
  view.setUint32(8, sequence, true);
  out.set(body, NLMSG_HEADER);
  return out;
}

const BUFFER = 65536;
/** struct tcmsg: bytes. */
const LONGEST_REQUEST = 20;

/** One message that the kernel sent. */
export interface NetlinkAnswer {
  readonly type: number;
  /** With its header, and padded to 4 bytes. */
  readonly whole: Uint8Array<ArrayBuffer>;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** A socket to one part of the kernel. */
export class NetlinkSocket implements Disposable {
  readonly #fd: number;

  /** @throws SyscallError EPROTONOSUPPORT: the kernel does not have it */
  constructor(protocol: number) {
    this.#fd = Number(
      syscall(
        "socket",
        BigInt(AF_NETLINK),
        BigInt(SOCK.RAW | O.CLOEXEC),
        BigInt(protocol),
      ),
    );
  }

  /**
   * Sends messages and waits until the one with the number `last`, which has to
   * ask for it (NLM_F_ACK), is acknowledged.
   *
   * @throws SyscallError what the kernel answered to the first that failed
   */
  transact(messages: Uint8Array<ArrayBuffer>, last: number): void {
    setInt(this.#fd, SOL_SOCKET, SO.SNDBUFFORCE, 2 * messages.length + BUFFER);
    const length = BigInt(messages.length);
    syscallBuffer1("write", BigInt(this.#fd), messages, length);
    const buffer = new Uint8Array(BUFFER);
    const view = new DataView(buffer.buffer);
    let failure: SyscallError | undefined;
    for (let done = false; !done;) {
      const length = Number(syscall(
        "read",
        BigInt(this.#fd),
        addressOf(buffer),
        BigInt(BUFFER),
      ));
      for (let at = 0; at + NLMSG_HEADER <= length;) {
        if (view.getUint16(at + 4, true) === NLMSG_ERROR) {
          const errno = -view.getInt32(at + NLMSG_HEADER, true);
          if (errno !== 0) failure ??= new SyscallError("write", errno);
          // Of a batch that fails as a whole, only the failures are told.
          done ||= failure !== undefined ||
            view.getUint32(at + 8, true) === last;
        }
        at += align(view.getUint32(at, true));
      }
    }
    if (failure !== undefined) {
      this.#drain(buffer);
      throw failure;
    }
  }

  /**
   * Asks for a list (NLM_F_DUMP).
   *
   * @param body of the request, which most kinds of lists ignore
   * @throws SyscallError what the kernel answered
   */
  dump(type: number, body = new Uint8Array(LONGEST_REQUEST)): NetlinkAnswer[] {
    const request = encodeMessage(type, NLM_F.DUMP, 1, body);
    const length = BigInt(request.length);
    syscallBuffer1("write", BigInt(this.#fd), request, length);
    const found: NetlinkAnswer[] = [];
    for (;;) {
      const buffer = new Uint8Array(BUFFER);
      const view = new DataView(buffer.buffer);
      const length = Number(
        syscallBuffer1("read", BigInt(this.#fd), buffer, BigInt(BUFFER)),
      );
      for (let at = 0; at + NLMSG_HEADER <= length;) {
        const size = view.getUint32(at, true);
        const type = view.getUint16(at + 4, true);
        if (type === NLMSG_DONE) return found;
        if (type === NLMSG_ERROR) {
          const errno = -view.getInt32(at + NLMSG_HEADER, true);
          throw new SyscallError("write", errno);
        }
        const whole = buffer.slice(at, at + align(size));
        const body = whole.slice(NLMSG_HEADER, size);
        found.push({ type, whole, body });
        at += align(size);
      }
    }
  }

  /** Throws away what else was answered. */
  #drain(buffer: Uint8Array<ArrayBuffer>): void {
    const MSG_DONTWAIT = 0x40n;
    try {
      for (;;) {
        syscallBuffer1(
          "recvfrom",
          BigInt(this.#fd),
          buffer,
          BigInt(BUFFER),
          MSG_DONTWAIT,
        );
      }
    } catch (error) {
      // EAGAIN: that was all.
      if (!(error instanceof SyscallError)) throw error;
    }
  }

  [Symbol.dispose](): void {
    close(this.#fd);
  }
}
