/**
 * TCP connections that wait to be accepted, of which the tree has the end that
 * has connected. The other is looked up in the kernel's memory; a restore
 * connects them in truth, one after the other, and sends again what was sent.
 */
import { CkptError, EXIT } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import type { Program } from "../ffi/program.ts";
import { close } from "../ffi/syscall.ts";
import type { ckpt_unaccepted_entry } from "../image/schema.gen.ts";
import { addressText, encodeAddress, wireWords } from "./inet_address.ts";
import type { SeenInetSocket } from "./inet_socket.ts";
import {
  type KernelSockets,
  kernelSockets,
  type UnacceptedConnection,
} from "./kernel_sockets.ts";
import { type ConnectionImage, firstSequences } from "./make_connections.ts";
import { sharingPorts } from "./make_inet_socket.ts";
import { join } from "./netlink.ts";
import { actOn, type UnfinishedSocket } from "./own_hands.ts";
import { OptionSetter } from "./option_setter.ts";
import { AF_INET, AF_INET6, IPPROTO_TCP } from "./socket_kind.ts";
import { SO, SOL_SOCKET } from "./sockopt.ts";
import { awaitsAccept, type SocketHolder } from "./sockets.ts";
import type { ReadConnection, ReadConnections } from "./tcp_connection.ts";
import { hasSentFin, isConnected } from "./tcp_state.ts";
import { F_SETFL } from "./other_flags.ts";

/** By the inodes of the sockets that have connected. */
export type Unaccepted = ReadonlyMap<number, ckpt_unaccepted_entry>;

/**
 * Reads those of a tree that stands still, while packets of its connections are
 * blocked.
 *
 * @param connections as they were read
 * @throws CkptError naming the socket that cannot be saved
 */
export function readUnaccepted(
  processes: readonly SocketHolder[],
  connections: ReadConnections,
): Unaccepted {
  const kernel = kernelSockets();
  const clients = new Map<string, number>();
  for (const { descriptors } of processes) {
    for (const { socket } of descriptors) {
      if (socket?.family !== "inet" || !isConnected(socket.state)) continue;
      clients.set(keyOfClient(socket), socket.ino);
    }
  }
  const found = new Map<number, ckpt_unaccepted_entry>();
  const done = new Set<number>();
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, socket } of descriptors) {
      if (!awaitsAccept(socket) || done.has(socket.ino)) continue;
      done.add(socket.ino);
      const object = `descriptor ${fd} (${link}) of task ${tid}`;
      for (const one of queueOf(kernel, tid, fd, object)) {
        const ino = clients.get(keyOf(one));
        if (ino === undefined) throw foreign(object, one);
        const received = withoutOverlap(one, connections.get(ino));
        found.set(ino, { index: found.size, received });
      }
    }
  }
  return found;
}

/** What the client has not been told that it has come is the client's still. */
export function withoutOverlap(
  { received, next }: Pick<UnacceptedConnection, "received" | "next">,
  client: Pick<ReadConnection, "state" | "stream"> | undefined,
): Uint8Array {
  if (client === undefined) return received;
  const { stream } = client;
  const overlap = next - firstSequences(client, stream).send | 0;
  const twice = Math.max(0, Math.min(overlap, stream.outq_len));
  return received.subarray(0, received.length - twice);
}

function keyOfClient({ local, remote }: SeenInetSocket): string {
  return keyOf({ client: local, server: remote! });
}

function keyOf(
  { client, server }: Pick<UnacceptedConnection, "client" | "server">,
): string {
  return [client, server].map((end) => `${wireWords(end)}:${end.port}`).join();
}

function queueOf(
  kernel: KernelSockets | string,
  pid: number,
  fd: number,
  object: string,
): UnacceptedConnection[] {
  if (typeof kernel === "string") throw unreadable(object, kernel);
  const own = getDescriptorOf(pid, fd);
  try {
    return kernel.unacceptedConnections(own);
  } catch (error) {
    if (error instanceof NoSuchMemory) throw unreadable(object, error.message);
    throw error;
  } finally {
    close(own);
  }
}

const ACTION = "looking at connections that wait to be accepted";
const REMEDY = "dump again when it is accepted, or give --skip-in-flight: it " +
  "is lost";

function unreadable(object: string, why: string): CkptError {
  return new CkptError(EXIT.refused, ACTION, [{
    object,
    why: "a TCP connection waits to be accepted, and the kernel's memory " +
      `cannot be read: ${why}`,
    remedy: REMEDY,
  }]);
}

function foreign(object: string, { client }: UnacceptedConnection): CkptError {
  const family = client.words.length === 1 ? AF_INET : AF_INET6;
  return new CkptError(EXIT.refused, ACTION, [{
    object,
    why: `a TCP connection of ${addressText(family, client)}, which is not ` +
      "part of the program, waits to be accepted: the kernel gives the end " +
      "of it that could be saved to accept(2) alone",
    remedy: REMEDY,
  }]);
}

/** A connection, and the process that has made its socket. */
export interface UnconnectedSocket extends UnfinishedSocket {
  readonly image: ConnectionImage;
}

/**
 * Connects them in the order in which they wait. Their packets must not be
 * blocked, and who listens has to be there.
 *
 * @throws CkptError
 */
export function connectUnaccepted(
  sockets: readonly UnconnectedSocket[],
  interfaces: ReadonlyMap<string, number>,
): void {
  const rank = ({ image: { extension } }: UnconnectedSocket) =>
    extension.unaccepted!.index;
  for (const socket of sockets.toSorted((a, b) => rank(a) - rank(b))) {
    actOn(
      socket,
      (program, own) => planClient(program, own, socket.image, interfaces),
    );
  }
}

const SHUT_WR = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SETTABLE = 0o46000;
const MAXSEG = 2;
const WINDOW_CLAMP = 10;
const ROOM = 1 << 29;

function planClient(
  program: Program,
  fd: number,
  { entry, extension, stream }: ConnectionImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { family, opts, flags, ifname } = entry;
  const what = "a connection that waits to be accepted";
  const { uid = 0, gid = 0 } = extension;
  if (uid !== 0 || gid !== 0) {
    program.call("fchown", [fd, uid, gid], `setting the owner of ${what}`);
  }
  const options = new OptionSetter(program, fd, what);
  if (entry.v6only !== undefined) options.v6only(entry.v6only);
  options.sharing(true, opts.so_reuseport ?? false);
  options.common(opts);
  options.ip(entry);
  options.tcp(entry.tcp_opts ?? {});
  options.further(
    extension.options.filter(({ level, name }) =>
      level !== IPPROTO_TCP || name !== MAXSEG && name !== WINDOW_CLAMP
    ),
  );
  const setFlags = (value: number) =>
    program.call("fcntl", [fd, F_SETFL, value], `setting the flags of ${what}`);
  const place = (
    call: "bind" | "connect",
    port: number,
    words: readonly number[],
  ) => {
    const scope = interfaces.get(ifname ?? "") ?? 0;
    const address = encodeAddress(family, { port, words, scope });
    program.call(
      call,
      [fd, program.bytes(address), address.length],
      `${call === "bind" ? "binding" : "connecting"} ${what}`,
    );
  };
  // It is there at once: who listens has room, and is on this host.
  setFlags(0);
  // Its port is but one end of a connection: others may have it, too.
  sharingPorts(options, () => place("bind", entry.src_port, entry.src_addr));
  place("connect", entry.dst_port, entry.dst_addr);
  // What the other end cannot take yet waits here, as it did.
  const bytes = join([extension.unaccepted!.received, stream.extra.outq]);
  if (bytes.length > 0) {
    options.int(SOL_SOCKET, SO.SNDBUFFORCE, ROOM);
    program.call(
      "sendto",
      [
        ...[fd, program.bytes(bytes), bytes.length],
        ...[MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0],
      ],
      `sending what was sent by ${what}`,
      { whole: true },
    );
    options.buffers(opts);
  }
  options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
  if (hasSentFin(entry.state)) {
    program.call("shutdown", [fd, SHUT_WR], `shutting ${what}`);
  }
  setFlags(flags & SETTABLE);
}
