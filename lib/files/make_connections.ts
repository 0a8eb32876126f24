/**
 * Makes TCP connections again, without a word to their peers (TCP_REPAIR, see
 * do_tcp_setsockopt in net/ipv4/tcp.c). The process that has to have one makes
 * a plain socket; the rest is done by a descriptor of ckpt's own, in two steps:
 *
 *   make     the connection with its sequence numbers, options and queues. It
 *            stays under repair: when the restore fails, nothing is sent.
 *   goOn     when nothing can fail any more: what was not sent yet is sent.
 *
 * A FIN cannot be put into a queue. Ours is sent again by shutdown(2) under
 * repair, which lets no packet out; that of the peer, and its answer to ours,
 * is a packet that ckpt itself sends from here to here (tcp_packet.ts).
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { describeErrno, EADDRNOTAVAIL } from "../ffi/errno.ts";
import { Calls, Slots } from "../ffi/calls.ts";
import { runOwnProgram } from "../ffi/own_program.ts";
import { closeAll, getDescriptors, openPidfd } from "../ffi/pidfd.ts";
import { pause } from "../ffi/pause.ts";
import { Program, type Result } from "../ffi/program.ts";
import { close, O, syscall } from "../ffi/syscall.ts";
import type { Entry } from "../image/kinds.ts";
import type { inet_sk_entry, tcp_opts_entry } from "../image/schema.gen.ts";
import {
  addressText,
  encodeAddress,
  type InetAddress,
} from "./inet_address.ts";
import { freshKeepalive } from "./fresh_sockets.ts";
import { holderOf } from "./outside_holders.ts";
import type { InetSocketImage } from "./socket_images.ts";
import { OptionSetter } from "./option_setter.ts";
import { IPPROTO_TCP, SOCK } from "./socket_kind.ts";
import { getOption, setInt } from "./sockopt.ts";
import { wireAddress } from "./tcp_connection.ts";
import {
  hasReceivedFin,
  hasSentFin,
  isConnection,
  TCP_STATE,
} from "./tcp_state.ts";
import { LocalPackets } from "./ip_packet.ts";
import { encodePacket, FLAG } from "./tcp_packet.ts";
import type { ConnectionAddress } from "./network_lock.ts";

/** include/uapi/linux/tcp.h */
const TCP = {
  MAXSEG: 2,
  WINDOW_CLAMP: 10,
  INFO: 11,
  REPAIR: 19,
  REPAIR_QUEUE: 20,
  QUEUE_SEQ: 21,
  REPAIR_OPTIONS: 22,
  TIMESTAMP: 24,
  REPAIR_WINDOW: 29,
} as const;
const QUEUE = { none: 0, receive: 1, send: 2 } as const;
const REPAIR_ON = 1;
/** Sends no window probe, to which a peer that is not there yet had no answer. */
const REPAIR_OFF = -1;
/** TCPI_OPT_* of the image, TCPOPT_* of TCP_REPAIR_OPTIONS. */
const OPTION = {
  timestamps: { bit: 1, code: 8 },
  sack: { bit: 2, code: 4 },
  scale: { bit: 4, code: 3 },
  mss: { code: 2 },
} as const;
/** MAX_TCP_WINDOW: no larger segment can be asked for. */
const LARGEST_SEGMENT = 32767;
/** Of what is put into a receive queue, all has to fit into one buffer. */
const CHUNK = 32768;
/** Memory the kernel needs for the bytes of a queue, generously. */
const OVERHEAD = 4;
const SMALLEST_ROOM = 1 << 18;
const LARGEST_ROOM = 1 << 29;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** struct sockaddr_in6, and the room for one. */
const ADDRESS_BYTES = 28;
const ADDRESS_ROOM = 32;
const SHUT_RD = 0;
const SHUT_WR = 1;

/** A connection of the images. */
export interface ConnectionImage extends InetSocketImage {
  readonly stream: Entry<"tcp-stream">;
}

/** Those that are to be connected again. */
export function connectionsAmong(
  sockets: Iterable<InetSocketImage>,
): ConnectionImage[] {
  return [...sockets].flatMap((socket) => {
    const { stream, extension } = socket;
    // Those that wait to be accepted are made by unaccepted.ts.
    return stream === undefined || !isConnection(socket.entry) ||
        extension.unaccepted !== undefined
      ? []
      : [{ ...socket, stream }];
  });
}

export function addressOfConnection(
  { entry }: Pick<InetSocketImage, "entry">,
): ConnectionAddress {
  return wireAddress(sourceOf(entry), destinationOf(entry));
}

function sourceOf({ src_port, src_addr }: inet_sk_entry): InetAddress {
  return { port: src_port, words: src_addr, scope: 0 };
}

function destinationOf({ dst_port, dst_addr }: inet_sk_entry): InetAddress {
  return { port: dst_port, words: dst_addr, scope: 0 };
}

function nameOfConnection(entry: inet_sk_entry): string {
  const { family } = entry;
  return `the TCP connection ${addressText(family, sourceOf(entry))} to ${
    addressText(family, destinationOf(entry))
  }`;
}

/** The sequence numbers with which each direction begins. */
export function firstSequences(
  { state }: Pick<inet_sk_entry, "state">,
  { inq_seq, inq_len, outq_seq, outq_len }: Entry<"tcp-stream">,
): { receive: number; send: number } {
  return {
    receive: inq_seq - inq_len - (hasReceivedFin(state) ? 1 : 0) >>> 0,
    send: outq_seq - outq_len - (hasSentFin(state) ? 1 : 0) >>> 0,
  };
}

/**
 * Tries each connection for a moment, to see whether this host lets it. Their
 * traffic has to be blocked.
 */
export function connectionProblems(
  connections: readonly ConnectionImage[],
  interfaces: ReadonlyMap<string, number>,
): Reason[] {
  const count = connections.length;
  const [from, to] = [1, 2].map(() => new Slots(ADDRESS_ROOM, count));
  connections.forEach((connection, i) => {
    const { source, destination } = socketAddresses(connection, interfaces);
    from.slot(i).set(source);
    to.slot(i).set(destination);
  });
  const families = Slots.of(connections.map(({ entry }) => entry.family));
  const on = new Slots(8, 1);
  on.view.setInt32(0, REPAIR_ON, true);
  const calls = new Calls();
  const type = SOCK.STREAM | O.CLOEXEC;
  const fd = {
    result: calls.add("socket", [{ loaded: families }, type, 0]),
  };
  const repair = calls.add(
    "setsockopt",
    [fd, IPPROTO_TCP, TCP.REPAIR, on.address, 4],
  );
  const bind = calls.add("bind", [fd, { slots: from }, ADDRESS_BYTES], repair);
  const connect = calls.add(
    "connect",
    [fd, { slots: to }, ADDRESS_BYTES],
    bind,
  );
  // No more than a few exist at a time.
  calls.add("close", [fd]);
  calls.run(count);
  const steps = [
    [fd.result, "making a socket"],
    [repair, "putting a socket under repair"],
    [bind, "binding it"],
    [connect, "connecting it"],
  ] as const;
  return connections.flatMap(({ entry }, i) => {
    const failed = steps.find(([call]) => calls.result(i, call) < 0);
    if (failed === undefined) return [];
    const [call, purpose] = failed;
    const errno = -calls.result(i, call);
    const object = nameOfConnection(entry);
    if (errno !== EADDRNOTAVAIL) {
      return [{ object, why: `${purpose}: ${text(errno)}` }];
    }
    return [
      call === bind
        ? {
          object,
          why: `this host has not the address ${
            addressText(entry.family, sourceOf(entry))
          }`,
          remedy: "give it to an interface first: ip address add",
        }
        : { object, ...whoHasIt(entry) },
    ];
  });
}

function text(errno: number): string {
  return describeErrno(errno);
}

/** Of a connection that exists already. */
function whoHasIt(entry: inet_sk_entry): Omit<Reason, "object"> {
  const ino = socketOfConnection(entry);
  return ino === undefined
    ? {
      why: "it exists already: its last packets are not acknowledged yet",
      remedy:
        `wait, or remove it: ss -K src :${entry.src_port} dst :${`${entry.dst_port}`}`,
    }
    : {
      why: `it exists already, and ${holderOf(ino)} has it`,
      remedy: "end that first",
    };
}

function socketOfConnection(
  { src_port, dst_port }: inet_sk_entry,
): number | undefined {
  const end = (port: number) =>
    `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  for (const path of ["/proc/net/tcp", "/proc/net/tcp6"]) {
    let lines: string[];
    try {
      lines = Deno.readTextFileSync(path).split("\n").slice(1);
    } catch (error) {
      // A kernel without IPv6.
      if (error instanceof Deno.errors.NotFound) continue;
      throw error;
    }
    for (const line of lines) {
      const words = line.trim().split(/\s+/);
      if (
        words[1]?.endsWith(end(src_port)) &&
        words[2]?.endsWith(end(dst_port)) && words[9] !== "0"
      ) return Number(words[9]);
    }
  }
  return undefined;
}

/** struct sockaddr_in or sockaddr_in6 of both ends. */
function socketAddresses(
  { entry }: ConnectionImage,
  interfaces: ReadonlyMap<string, number>,
) {
  const scope = interfaces.get(entry.ifname ?? "") ?? 0;
  const encode = (address: InetAddress) =>
    encodeAddress(entry.family, { ...address, scope });
  return {
    source: encode(sourceOf(entry)),
    destination: encode(destinationOf(entry)),
  };
}

/** bind(2) and connect(2) under repair. */
function connect(
  options: OptionSetter,
  connection: ConnectionImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { program, fd } = options;
  const call = (
    name: "bind" | "connect",
    address: Uint8Array,
    purpose: string,
  ) =>
    program.call(
      name,
      [fd, program.bytes(address), address.length],
      () => `${purpose} ${options.what}`,
    );
  const { source, destination } = socketAddresses(connection, interfaces);
  call("bind", source, "binding");
  call("connect", destination, "connecting");
}

/**
 * All that a connection is, but what can only be done at the very end.
 *
 * @param fresh the options that it has
 * @returns the calls that have to take all that they are given
 */
function planConnection(
  options: OptionSetter,
  connection: ConnectionImage,
  interfaces: ReadonlyMap<string, number>,
  fresh: tcp_opts_entry,
): Result[] {
  const { program, fd } = options;
  const { entry, extension, stream } = connection;
  const { opts } = entry;
  const { inq, outq } = stream.extra;
  const { uid = 0, gid = 0 } = extension;
  if (uid !== 0 || gid !== 0) {
    program.call(
      "fchown",
      [fd, uid, gid],
      () => `setting the owner of ${options.what}`,
    );
  }
  const tcp = (name: number, value: number) =>
    options.int(IPPROTO_TCP, name, value);
  tcp(TCP.REPAIR, REPAIR_ON);
  if (entry.v6only !== undefined) options.v6only(entry.v6only);
  options.modes(opts);
  options.ip(entry);
  options.tcp(entry.tcp_opts ?? {}, fresh);
  const early = ({ level, name }: { level: number; name: number }) =>
    level !== IPPROTO_TCP || name !== TCP.WINDOW_CLAMP && name !== TCP.MAXSEG;
  options.further(extension.options.filter(early), false);
  options.room(roomFor(outq.length), roomFor(inq.length));
  const first = firstSequences(entry, stream);
  tcp(TCP.REPAIR_QUEUE, QUEUE.receive);
  tcp(TCP.QUEUE_SEQ, first.receive);
  tcp(TCP.REPAIR_QUEUE, QUEUE.send);
  tcp(TCP.QUEUE_SEQ, first.send);
  // Else segments would be as small as those of a peer that told no size.
  tcp(TCP.MAXSEG, Math.min(stream.mss_clamp, LARGEST_SEGMENT));
  connect(options, connection, interfaces);
  tcp(TCP.MAXSEG, 0);
  options.bytes(IPPROTO_TCP, TCP.REPAIR_OPTIONS, encodeOptions(stream));
  if (stream.timestamp !== undefined) tcp(TCP.TIMESTAMP, stream.timestamp);
  const sends = [
    ...fill(options, QUEUE.receive, inq),
    ...fill(options, QUEUE.send, sentPart(stream)),
  ];
  if (!hasReceivedFin(entry.state)) setWindow(options, stream);
  else if (stream.snd_wnd !== undefined) {
    // Wide enough for the FIN that comes.
    const end = first.receive + inq.length >>> 0;
    setWindow(options, {
      ...stream,
      snd_wl1: end,
      rcv_wup: end,
      rcv_wnd: Math.max(stream.rcv_wnd!, 65535),
    });
  }
  tcp(TCP.REPAIR_QUEUE, QUEUE.none);
  options.further(extension.options.filter((one) => !early(one)), false);
  if (stream.unsq_len === 0) options.buffers(opts);
  return sends;
}

function roomFor(length: number): number {
  return Math.min(LARGEST_ROOM, SMALLEST_ROOM + OVERHEAD * length);
}

function sentPart(
  { unsq_len = 0, extra: { outq } }: Entry<"tcp-stream">,
): Uint8Array {
  return outq.subarray(0, outq.length - unsq_len);
}

function unsentPart(
  { unsq_len = 0, extra: { outq } }: Entry<"tcp-stream">,
): Uint8Array {
  return outq.subarray(outq.length - unsq_len);
}

/** struct tcp_repair_opt: code, value. */
export function encodeOptions(
  { opt_mask, mss_clamp, snd_wscale, rcv_wscale = 0 }: Entry<"tcp-stream">,
): Uint8Array {
  const { timestamps, sack, scale, mss } = OPTION;
  const words: number[] = [mss.code, mss_clamp];
  if (opt_mask & sack.bit) words.push(sack.code, 0);
  if (opt_mask & scale.bit) {
    words.push(scale.code, snd_wscale | rcv_wscale << 16);
  }
  if (opt_mask & timestamps.bit) words.push(timestamps.code, 0);
  return new Uint8Array(Uint32Array.from(words).buffer);
}

/** struct tcp_repair_window. */
function setWindow(
  options: OptionSetter,
  { snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup }: Entry<"tcp-stream">,
): void {
  if (snd_wnd === undefined) return;
  const words = [snd_wl1!, snd_wnd, max_window!, rcv_wnd!, rcv_wup!];
  const value = new Uint8Array(Uint32Array.from(words).buffer);
  options.bytes(IPPROTO_TCP, TCP.REPAIR_WINDOW, value);
}

/** Puts bytes into a queue; each call has to take all that it is given. */
function fill(
  options: OptionSetter,
  queue: number,
  bytes: Uint8Array,
): Result[] {
  if (bytes.length === 0) return [];
  options.int(IPPROTO_TCP, TCP.REPAIR_QUEUE, queue);
  return send(options, bytes);
}

function send(options: OptionSetter, bytes: Uint8Array): Result[] {
  const { program, fd } = options;
  return Array.from({ length: Math.ceil(bytes.length / CHUNK) }, (_, i) => {
    const part = bytes.subarray(i * CHUNK, (i + 1) * CHUNK);
    return program.call(
      "sendto",
      [fd, program.bytes(part), part.length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0],
      () => `filling the queues of ${options.what}`,
    );
  });
}

/** The socket a process has made for a connection. */
export interface MadeSocket {
  /** Of the file. */
  readonly id: number;
  /** Its number there. */
  readonly fd: number;
}

/** The connections of a restore; silent until they {@link goOn}. */
export class MadeConnections implements Disposable {
  readonly #made: { readonly fd: number; readonly image: ConnectionImage }[] =
    [];

  /**
   * @param pid of the process that has made the sockets
   * @throws CkptError naming the connection and what could not be set
   */
  make(
    pid: number,
    sockets: readonly MadeSocket[],
    images: ReadonlyMap<number, ConnectionImage>,
    interfaces: ReadonlyMap<string, number>,
  ): void {
    if (sockets.length === 0) return;
    const pidfd = openPidfd(pid);
    try {
      const own = getDescriptors(pidfd, sockets.map(({ fd }) => fd));
      const made = sockets.map(({ id }, i) => ({
        fd: own[i],
        image: images.get(id)!,
      }));
      for (const one of made) this.#made.push(one);
      const fresh = freshKeepalive();
      const batch = new Batch();
      for (const { fd, image } of made) {
        batch.add(
          fd,
          image,
          (options) => planConnection(options, image, interfaces, fresh),
        );
      }
      batch.run();
    } finally {
      close(pidfd);
    }
  }

  /**
   * What of it the kernel has to see as packets; nothing is let out yet.
   *
   * @throws CkptError
   */
  close(): void {
    using packets = new LocalPackets();
    for (const { fd, image } of this.#made) {
      const { entry: { state }, stream } = image;
      const { CLOSING } = TCP_STATE;
      if (closesInOrder(image)) {
        const batch = new Batch();
        batch.add(fd, image, endRepair);
        batch.run();
      }
      if (state === CLOSING) shutOwn(fd, image);
      if (hasReceivedFin(state)) receiveFin(packets, fd, image);
      if (state !== CLOSING && hasSentFin(state)) shutOwn(fd, image);
      if (state === TCP_STATE.FIN_WAIT2) receiveAck(packets, fd, image);
      if (hasReceivedFin(state) && !closesInOrder(image)) {
        const batch = new Batch();
        batch.add(fd, image, (options) => {
          setWindow(options, stream);
          return [];
        });
        batch.run();
      }
    }
  }

  /** Ends the repair; their traffic is not blocked any more. */
  goOn(): void {
    const batch = new Batch();
    for (const { fd, image } of this.#made) {
      if (!closesInOrder(image)) batch.add(fd, image, endRepair);
    }
    batch.run();
  }

  [Symbol.dispose](): void {
    closeAll(this.#made.map(({ fd }) => fd));
  }
}

/**
 * CLOSING comes of a FIN of the peer after one's own, which comes after bytes
 * that were not sent: their sending begins while the traffic is still blocked,
 * and the kernel sends them again.
 */
function closesInOrder({ entry, stream }: ConnectionImage): boolean {
  return entry.state === TCP_STATE.CLOSING && (stream.unsq_len ?? 0) > 0;
}

/** What is done to a connection when its traffic is not blocked any more. */
function endRepair(
  options: OptionSetter,
  { entry, stream, extension }: ConnectionImage,
): Result[] {
  options.int(IPPROTO_TCP, TCP.REPAIR, REPAIR_OFF);
  const { opts } = entry;
  // The end of the repair has taken them.
  if (opts.reuseaddr || opts.so_reuseport) {
    options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
  }
  const unsent = unsentPart(stream);
  const sends = send(options, unsent);
  const shut = (how: number) =>
    options.program.call(
      "shutdown",
      [options.fd, how],
      "shutting a connection",
    );
  if (unsent.length > 0) {
    options.buffers(opts);
    if (hasSentFin(entry.state)) shut(SHUT_WR);
  }
  if ((entry.shutdown ?? 0) & 1 && !hasReceivedFin(entry.state)) {
    shut(SHUT_RD);
  }
  options.filter(opts);
  options.locks(extension.options);
  return sends;
}

/** A program that has so many bytes is carried out before it gets more. */
const BATCH_BYTES = 1 << 20;

/** What is done to many connections by few programs. */
class Batch {
  #program = new Program();
  /** In the order of their operations. */
  #parts: {
    readonly image: ConnectionImage;
    /** The first operation of the next one. */
    readonly end: number;
    readonly sends: readonly Result[];
  }[] = [];

  /**
   * @param plan adds operations, and tells those that have to take all that
   * they are given
   * @throws CkptError when what was added before fails
   */
  add(
    fd: number,
    image: ConnectionImage,
    plan: (options: OptionSetter, image: ConnectionImage) => Result[],
  ): void {
    if (this.#program.size > BATCH_BYTES) this.run();
    const name = () => nameOfConnection(image.entry);
    const sends = plan(new OptionSetter(this.#program, fd, name), image);
    const end = this.#program.operationCount;
    this.#parts.push({ image, end, sends });
  }

  /** @throws CkptError naming the connection and what could not be done */
  run(): void {
    const program = this.#program;
    const parts = this.#parts;
    this.#program = new Program();
    this.#parts = [];
    const outcome = runOwnProgram(program);
    const { failure } = outcome;
    if (failure !== undefined) {
      const { image } = parts.find(({ end }) => failure.index < end)!;
      throw notRestored(image, `${failure.purpose}: ${text(failure.errno)}`);
    }
    for (const { image, sends } of parts) {
      const isWhole = (one: Result) =>
        outcome.result(one) === BigInt(program.argument(one, 2));
      if (sends.every(isWhole)) continue;
      const { inq_len, outq_len } = image.stream;
      throw notRestored(
        image,
        `the kernel takes only a part of its queues (${inq_len} and ` +
          `${outq_len} bytes)`,
      );
    }
  }
}

function notRestored({ entry }: ConnectionImage, why: string): CkptError {
  return new CkptError(EXIT.failed, "restoring TCP connections", [{
    object: nameOfConnection(entry),
    why,
  }]);
}

/** Our FIN, as if it had been sent, unless something before it was not. */
function shutOwn(fd: number, { stream }: ConnectionImage): void {
  if ((stream.unsq_len ?? 0) > 0) return;
  setInt(fd, IPPROTO_TCP, TCP.REPAIR_QUEUE, QUEUE.send);
  syscall("shutdown", BigInt(fd), BigInt(SHUT_WR));
  setInt(fd, IPPROTO_TCP, TCP.REPAIR_QUEUE, QUEUE.none);
}

function receiveFin(
  packets: LocalPackets,
  fd: number,
  image: ConnectionImage,
): void {
  const { entry, stream } = image;
  const { receive, send } = firstSequences(entry, stream);
  const address = addressOfConnection(image);
  const packet = encodePacket({
    ...address,
    sequence: receive + stream.inq_len >>> 0,
    acknowledged: send,
    flags: FLAG.FIN | FLAG.ACK,
  });
  packets.send(packet, address.local);
  awaitState(fd, image, (state) => hasReceivedFin(state));
}

/** FIN_WAIT2: the peer has acknowledged all, and says nothing yet. */
function receiveAck(
  packets: LocalPackets,
  fd: number,
  image: ConnectionImage,
): void {
  const { stream } = image;
  const address = addressOfConnection(image);
  const packet = encodePacket({
    ...address,
    sequence: stream.inq_seq,
    acknowledged: stream.outq_seq,
    flags: FLAG.ACK,
  });
  packets.send(packet, address.local);
  awaitState(fd, image, (state) => state === TCP_STATE.FIN_WAIT2);
}

const STATE_MS = 5000;

/** Packets are taken in by the kernel a moment later. */
function awaitState(
  fd: number,
  { entry }: ConnectionImage,
  isReached: (state: number) => boolean,
): void {
  const end = performance.now() + STATE_MS;
  for (;;) {
    const [state] = getOption(fd, IPPROTO_TCP, TCP.INFO, 1);
    if (isReached(state)) return;
    if (performance.now() > end) {
      throw new CkptError(EXIT.failed, "restoring TCP connections", [{
        object: nameOfConnection(entry),
        why: `the kernel does not bring it to state ${entry.state}; it stays ` +
          `in state ${state}`,
        remedy: "see that no rule of the firewall drops packets of the " +
          "loopback interface",
      }]);
    }
    pause(1);
  }
}
