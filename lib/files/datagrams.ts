/**
 * Datagrams of UDP that nobody has read yet, and bytes that a TCP connection
 * has left behind that has ended: read without taking them out, and put back as
 * packets that ckpt sends from here to here. And datagrams that are not complete
 * yet: looked up in the kernel, and begun again.
 */
import { CkptError, EXIT } from "../error.ts";
import { ENOBUFS, ETIMEDOUT } from "../ffi/errno.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { pause } from "../ffi/pause.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import {
  addressOf,
  close,
  syscall,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import type {
  ckpt_corked_entry,
  ckpt_datagram_entry,
  inet_sk_entry,
} from "../image/schema.gen.ts";
import {
  decodeAddress,
  encodeAddress,
  type InetAddress,
  localAddress,
  MAPPED_IPV4,
  wireWords,
} from "./inet_address.ts";
import { encodeIpPacket, LocalPackets } from "./ip_packet.ts";
import { type InetSocketImage, socketName } from "./socket_images.ts";
import {
  AF_INET,
  AF_INET6,
  IPPROTO_TCP,
  IPPROTO_UDP,
  SOCK,
} from "./socket_kind.ts";
import {
  getInt,
  getOption,
  setInt,
  setOption,
  SO,
  socketMemory,
  SOL_SOCKET,
} from "./sockopt.ts";
import { hasUnread, mayBeCorked, type SocketHolder } from "./sockets.ts";
import { encodePacket, FLAG } from "./tcp_packet.ts";
import { queuedBytes, type QueuedPacket, readUnixQueue } from "./unix_queue.ts";
import { STATE } from "./unix_socket.ts";

/** What was read of the sockets of a tree, by their inodes. */
export interface UnreadInet {
  readonly datagrams: ReadonlyMap<number, readonly ckpt_datagram_entry[]>;
  /** Of connections that have ended. */
  readonly bytes: ReadonlyMap<number, Uint8Array<ArrayBuffer>>;
  readonly corked: ReadonlyMap<number, ckpt_corked_entry>;
}

/**
 * Reads them. The tree has to stand still.
 *
 * @throws CkptError
 */
export async function readUnread(
  processes: readonly SocketHolder[],
): Promise<UnreadInet> {
  const datagrams = new Map<number, readonly ckpt_datagram_entry[]>();
  const bytes = new Map<number, Uint8Array<ArrayBuffer>>();
  const corked = new Map<number, ckpt_corked_entry>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, socket } of descriptors) {
      if (!hasUnread(socket)) continue;
      const own = getDescriptorOf(tid, fd);
      try {
        if (socket.hasEnded) {
          const left = readBytes(own);
          if (left.length > 0) bytes.set(socket.ino, left);
        } else if (socket.hasUnread) {
          datagrams.set(socket.ino, readDatagrams(own));
        }
        if (mayBeCorked(socket)) {
          const object = `descriptor ${fd} (${link}) of task ${tid}`;
          const begun = await readCorked(own, object);
          if (begun !== undefined) corked.set(socket.ino, begun);
        }
      } finally {
        close(own);
      }
    }
  }
  return { datagrams, bytes, corked };
}

async function readCorked(
  fd: number,
  object: string,
): Promise<ckpt_corked_entry | undefined> {
  const { kernelSockets } = await import("./kernel_sockets.ts");
  const kernel = kernelSockets();
  let why = kernel;
  if (typeof kernel !== "string") {
    try {
      const corked = kernel.corkedDatagram(fd);
      if (corked === undefined) return undefined;
      const { content, family, to, hops, trafficClass } = corked;
      const { level, tos } = CONTROL[family];
      return {
        content,
        destination: encodeAddress(family, to),
        hops: hops || undefined,
        // To give it one would change its priority, too (SO_PRIORITY).
        traffic_class: trafficClass === (getInt(fd, level, tos) & 0xff)
          ? undefined
          : trafficClass,
      };
    } catch (error) {
      if (!(error instanceof NoSuchMemory)) throw error;
      why = error.message;
    }
  }
  throw new CkptError(EXIT.refused, "reading what is in sockets", [{
    object,
    why: "it may hold a datagram that is not complete yet (UDP_CORK, " +
      `MSG_MORE), and the kernel's memory cannot be read: ${why}`,
    remedy: "dump again when the program has sent it",
  }]);
}

function readDatagrams(fd: number): ckpt_datagram_entry[] {
  // The kernel looks into the queues of UDP as into those of Unix datagrams.
  return readUnixQueue(fd, SOCK.DGRAM, false).flatMap((packet) =>
    partsOf(packet).map((content) => ({ content, source: packet.name }))
  );
}

/** The datagrams that were sent (UDP_GRO). */
export function partsOf(
  { bytes, segment = bytes.length }: Pick<QueuedPacket, "bytes" | "segment">,
): Uint8Array<ArrayBuffer>[] {
  if (segment >= bytes.length) return [bytes];
  const count = Math.ceil(bytes.length / segment);
  return Array.from(
    { length: count },
    (_, i) => bytes.slice(i * segment, (i + 1) * segment),
  );
}

const MSG_PEEK = 2n;
const MSG_DONTWAIT = 0x40n;

function readBytes(fd: number): Uint8Array<ArrayBuffer> {
  const buffer = new Uint8Array(queuedBytes(fd));
  if (buffer.length === 0) return buffer;
  const length = syscallBuffer1(
    "recvfrom",
    BigInt(fd),
    buffer,
    BigInt(buffer.length),
    MSG_PEEK | MSG_DONTWAIT,
  );
  return buffer.slice(0, Number(length));
}

/** The address behind the family, which its length tells. */
function decodeSource(source: Uint8Array): InetAddress {
  const family = source.length > 16 ? AF_INET6 : AF_INET;
  const bytes = new Uint8Array(2 + source.length);
  new DataView(bytes.buffer).setUint16(0, family, true);
  bytes.set(source, 2);
  return decodeAddress(bytes);
}

const UDP_HEADER = 8;
const UDP_CHECKSUM = 6;
const LOOPBACK = [0x0100007f];
const LOOPBACK6 = [0, 0, 0, 0x01000000];

/** RFC 768. */
export function encodeUdp(
  from: number,
  to: number,
  content: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(UDP_HEADER + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, from);
  view.setUint16(2, to);
  view.setUint16(4, bytes.length);
  bytes.set(content, UDP_HEADER);
  return bytes;
}

/**
 * Puts back what was unread in a socket that a process has made again.
 *
 * @param theirs its number there
 * @returns how many datagrams did not come through
 * @throws CkptError
 */
export function fillUnread(
  pid: number,
  theirs: number,
  image: InetSocketImage,
): number {
  const fd = getDescriptorOf(pid, theirs);
  try {
    if (image.extension.unread !== undefined) putBytes(fd, image);
    const lost = putDatagrams(fd, image);
    if (image.extension.corked !== undefined) {
      beginDatagram(fd, image.extension.corked);
    }
    return lost;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "putting back what nobody had read", [{
      object: socketName(image),
      why: error.message,
    }]);
  } finally {
    close(fd);
  }
}

const MSG_MORE = 0x8000n;

/** What a datagram can be given alone (ip(7), ipv6(7)), by its family. */
const CONTROL: Readonly<
  Record<number, { level: number; ttl: number; tos: number }>
> = {
  [AF_INET]: { level: 0, ttl: 2, tos: 1 },
  [AF_INET6]: { level: 41, ttl: 52, tos: 67 },
};
/** struct cmsghdr, and one number with what aligns it. */
const CONTROL_HEADER = 16;
const CONTROL_BYTES = 24;

function encodeControl(
  { destination, hops, traffic_class }: ckpt_corked_entry,
): Uint8Array<ArrayBuffer> {
  const family = new DataView(destination.slice().buffer).getUint16(0, true);
  const { level, ttl, tos } = CONTROL[family];
  const given = [[ttl, hops], [tos, traffic_class]] as const;
  const set = given.filter(([, value]) => value !== undefined);
  const bytes = new Uint8Array(set.length * CONTROL_BYTES);
  const view = new DataView(bytes.buffer);
  set.forEach(([type, value], i) => {
    const at = i * CONTROL_BYTES;
    view.setBigUint64(at, BigInt(CONTROL_HEADER + 4), true);
    view.setInt32(at + 8, level, true);
    view.setInt32(at + 12, type, true);
    view.setInt32(at + CONTROL_HEADER, value!, true);
  });
  return bytes;
}

function beginDatagram(fd: number, entry: ckpt_corked_entry): void {
  const { content, destination } = entry;
  // An empty array has no address.
  const bytes = content.length === 0 ? new Uint8Array(1) : content.slice();
  const to = destination.slice();
  const control = encodeControl(entry);
  const vector = BigUint64Array.of(addressOf(bytes), BigInt(content.length));
  // struct msghdr
  const message = BigUint64Array.of(
    ...[addressOf(to), BigInt(to.length)],
    ...[addressOf(new Uint8Array(vector.buffer)), 1n],
    control.length === 0 ? 0n : addressOf(control),
    ...[BigInt(control.length), 0n],
  );
  const at = new Uint8Array(message.buffer);
  syscallBuffer1("sendmsg", BigInt(fd), at, MSG_MORE);
}

/** @returns how many did not come through */
function putDatagrams(
  fd: number,
  { entry, extension: { datagrams } }: InetSocketImage,
): number {
  using packets = new LocalPackets();
  using target = new Target(fd, entry);
  return datagrams.filter(({ content, source }) => {
    const from = decodeSource(source);
    const remote = wireWords(from);
    const local = target.addressFor(from);
    if (local?.length !== remote.length) return true;
    const segment = encodeUdp(from.port, entry.src_port, content);
    const before = socketMemory(fd).receiving;
    try {
      packets.send(
        encodeIpPacket({ local, remote }, IPPROTO_UDP, segment, UDP_CHECKSUM),
        local,
      );
    } catch (error) {
      if (error instanceof SyscallError) return true;
      throw error;
    }
    return !arrives(() => socketMemory(fd).receiving > before);
  }).length;
}

const ARRIVAL_MS = 50;

/** Packets are taken in by the kernel a moment later. */
function arrives(isThere: () => boolean): boolean {
  const end = performance.now() + ARRIVAL_MS;
  while (!isThere()) {
    if (performance.now() > end) return false;
    pause(1);
  }
  return true;
}

/** A socket that is made such that it gets what is sent from here. */
class Target implements Disposable {
  readonly #fd: number;
  readonly #entry: inet_sk_entry;
  #isConnected = false;

  constructor(fd: number, entry: inet_sk_entry) {
    this.#fd = fd;
    this.#entry = entry;
    setInt(fd, SOL_SOCKET, SO.RCVBUFFORCE, ROOM);
    // It comes by the loopback device.
    if (entry.opts.so_bound_dev !== undefined) this.#bindToDevice("");
  }

  /** Where to send what came from there; undefined: it cannot be sent. */
  addressFor(from: InetAddress): readonly number[] | undefined {
    const { src_addr, opts, dst_port } = this.#entry;
    let local = wireWords({ port: 0, words: src_addr, scope: 0 });
    const isShared = opts.reuseaddr || opts.so_reuseport;
    if (isShared && dst_port === 0 && this.#connect(from)) {
      // To an address that the kernel has chosen, if it had none.
      local = wireWords(localAddress(this.#fd));
    }
    const length = wireWords(from).length;
    if (local.every((word) => word === 0)) {
      return length === 1 ? LOOPBACK : LOOPBACK6;
    }
    return isMulticast(local) ? undefined : local;
  }

  /** Of several sockets with one port, that with the sender as its peer gets it. */
  #connect(from: InetAddress): boolean {
    const { family } = this.#entry;
    const words = family === AF_INET6 && from.words.length === 1
      ? [0, 0, MAPPED_IPV4, ...from.words]
      : from.words;
    const to = encodeAddress(family, { ...from, words });
    try {
      connect(this.#fd, to);
      this.#isConnected = true;
      return true;
    } catch (error) {
      // There is no way there (any more).
      if (error instanceof SyscallError) return false;
      throw error;
    }
  }

  #bindToDevice(name: string): void {
    const bytes = new TextEncoder().encode(`${name}\0`);
    setOption(this.#fd, SOL_SOCKET, SO.BINDTODEVICE, bytes);
  }

  [Symbol.dispose](): void {
    const { so_bound_dev, so_rcvbuf, so_buf_lock } = this.#entry.opts;
    // The kernel doubles what it is given.
    setInt(this.#fd, SOL_SOCKET, SO.RCVBUFFORCE, so_rcvbuf >>> 1);
    if (so_buf_lock !== undefined) {
      setInt(this.#fd, SOL_SOCKET, SO.BUF_LOCK, so_buf_lock);
    }
    // AF_UNSPEC takes the peer away, and what the kernel has chosen for it.
    if (this.#isConnected) connect(this.#fd, new Uint8Array(16));
    if (so_bound_dev !== undefined) this.#bindToDevice(so_bound_dev);
  }
}

/** 224.0.0.0/4 or ff00::/8, which others would hear, too. */
function isMulticast(words: readonly number[]): boolean {
  const first = words[0] & 0xff;
  return words.length === 1 ? first >= 224 : first === 0xff;
}

function connect(fd: number, address: Uint8Array<ArrayBuffer>): void {
  syscallBuffer1("connect", BigInt(fd), address, BigInt(address.length));
}

const TCP = { REPAIR: 19, REPAIR_QUEUE: 20, QUEUE_SEQ: 21, INFO: 11 } as const;
/** Ends the repair without a window probe. */
const REPAIR_OFF = -1;
const RECEIVE_QUEUE = 1;
const NO_QUEUE = 0;
const SO_ERROR = 4;
/** Nobody is asked at this port: the connection is one in name only. */
const DISCARD = 9;
const CHUNK = 1 << 15;
const ROOM = 1 << 29;
const SEQUENCE = 1;

/**
 * Puts bytes into a socket whose connection has ended: it is connected under
 * repair, which sends nothing, gets the bytes, and is told by ckpt that the
 * peer has gone.
 */
function putBytes(
  fd: number,
  { entry, extension: { unread } }: InetSocketImage,
): void {
  const bytes = unread!;
  const { family, src_addr, src_port, opts } = entry;
  const tcp = (name: number, value: number) =>
    setInt(fd, IPPROTO_TCP, name, value);
  const local = wireWords({ port: 0, words: src_addr, scope: 0 });
  const remote = local.length === 1 ? LOOPBACK : LOOPBACK6;
  tcp(TCP.REPAIR, 1);
  tcp(TCP.REPAIR_QUEUE, RECEIVE_QUEUE);
  tcp(TCP.QUEUE_SEQ, SEQUENCE);
  setInt(fd, SOL_SOCKET, SO.RCVBUFFORCE, ROOM);
  const words = family === AF_INET6 && remote.length === 1
    ? [0, 0, MAPPED_IPV4, ...remote]
    : remote;
  connect(fd, encodeAddress(family, { port: DISCARD, words, scope: 0 }));
  for (let at = 0; at < bytes.length; at += CHUNK) {
    const part = bytes.slice(at, at + CHUNK);
    const sent = syscall(
      "sendto",
      BigInt(fd),
      addressOf(part),
      BigInt(part.length),
      0n,
      0n,
      0n,
    );
    if (sent !== BigInt(part.length)) throw new SyscallError("sendto", ENOBUFS);
  }
  tcp(TCP.REPAIR_QUEUE, NO_QUEUE);
  using packets = new LocalPackets();
  const packet = encodePacket({
    ...{ local, remote, localPort: src_port, remotePort: DISCARD },
    sequence: SEQUENCE + bytes.length >>> 0,
    acknowledged: 0,
    flags: FLAG.RST,
  });
  packets.send(packet, local);
  const isClosed = () =>
    getOption(fd, IPPROTO_TCP, TCP.INFO, 1)[0] === STATE.CLOSE;
  if (!arrives(isClosed)) throw new SyscallError("sendto", ETIMEDOUT);
  // That the peer was gone is known to the program already.
  getInt(fd, SOL_SOCKET, SO_ERROR);
  tcp(TCP.REPAIR, REPAIR_OFF);
  setInt(fd, SOL_SOCKET, SO.RCVBUFFORCE, opts.so_rcvbuf >>> 1);
  if (opts.so_buf_lock !== undefined) {
    setInt(fd, SOL_SOCKET, SO.BUF_LOCK, opts.so_buf_lock);
  }
}
