/** Sockets, as entries of files.img, sk-queues.img and ckpt-sockets.img. */
import type { Description } from "../files/descriptors.ts";
import type { FileTable } from "../files/file_table.ts";
import {
  describeInetSocket,
  type SeenInetSocket,
} from "../files/inet_socket.ts";
import {
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_TCP,
  SOCK,
} from "../files/socket_kind.ts";
import type { SocketQueues } from "../files/sockets.ts";
import type { ReadConnections } from "../files/tcp_connection.ts";
import { isConnected, TCP_STATE } from "../files/tcp_state.ts";
import { describeNetlinkSocket } from "../files/netlink_socket.ts";
import type { readPacketRings } from "../files/packet_rings.ts";
import { describePacketSocket } from "../files/packet_socket.ts";
import { noExtension } from "../files/socket_images.ts";
import type { UnreadInet } from "../files/datagrams.ts";
import type { Md5Keys } from "../files/md5_keys.ts";
import type { FoundMulticastDevices } from "../files/multicast_devices.ts";
import type { FoundSharedPorts } from "../files/shared_ports.ts";
import type { Unaccepted } from "../files/unaccepted.ts";
import type { WaitingConnections } from "../files/waiting_connections.ts";
import {
  describeOutside,
  describeUnixSocket,
  hasLostPeer,
  isReset,
  type UnixNeighbours,
} from "../files/unix_socket.ts";
import type { Entry } from "../image/kinds.ts";
import {
  type ckpt_socket_entry,
  type ckpt_socket_option,
  fd_types,
  type file_entry,
} from "../image/schema.gen.ts";

/** What is known of the sockets of a tree. */
export interface SocketsOfTree {
  readonly unix: UnixNeighbours;
  readonly connections: ReadConnections;
}

export function describeSocket(
  id: number,
  { socket, flags, owner }: Description,
  tree: SocketsOfTree,
): file_entry {
  if (socket?.family === "inet") {
    const connection = tree.connections.get(socket.ino);
    const isk = describeInetSocket(socket, id, flags, owner, connection);
    return { type: fd_types.INETSK, id, isk };
  }
  if (socket?.family === "unix") {
    const usk = describeUnixSocket(socket, id, flags, owner, tree.unix);
    return { type: fd_types.UNIXSK, id, usk };
  }
  if (socket?.family === "netlink") {
    const nlsk = describeNetlinkSocket(socket, id, flags, owner);
    return { type: fd_types.NETLINKSK, id, nlsk };
  }
  if (socket?.family === "packet") {
    const psk = describePacketSocket(socket, id, flags, owner);
    return { type: fd_types.PACKETSK, id, psk };
  }
  throw new Error("a socket is described that cannot be saved");
}

const TYPES = {
  unix: fd_types.UNIXSK,
  inet: fd_types.INETSK,
  netlink: fd_types.NETLINKSK,
  packet: fd_types.PACKETSK,
  other: fd_types.UND,
} as const;

export function socketType({ socket }: Description): number {
  return TYPES[socket!.family];
}

const SCM_RIGHTS = 1;

/** The outside socket that one is connected to; undefined: to none. */
export function describePeerOutside(
  { socket }: Description,
  { unix }: SocketsOfTree,
  table: FileTable,
): void {
  if (socket?.family !== "unix") return;
  const { diag: { peer = 0 }, options } = socket;
  const outside = peer === 0 ? undefined : unix.outside(peer);
  if (outside === undefined || unix.of(peer) !== undefined) return;
  table.once(
    `outside ${peer}`,
    () =>
      table.add((id) => ({
        type: fd_types.UNIXSK,
        id,
        usk: describeOutside(outside, id, options.opts),
      })),
  );
}

/** What was read of sockets that few have. */
export interface MoreOfSockets {
  /** What is queued in sockets of IP. */
  unread?: UnreadInet | undefined;
  /** Unix connections that have sent something, or are closed. */
  waiting?: WaitingConnections | undefined;
  sharedPorts?: FoundSharedPorts | undefined;
  multicastDevices?: FoundMulticastDevices | undefined;
  md5Keys?: Md5Keys | undefined;
  /** TCP connections that wait to be accepted. */
  unaccepted?: Unaccepted | undefined;
  packetRings?: ReturnType<typeof readPacketRings> | undefined;
}

export interface DescribedSockets {
  readonly queues: Entry<"sk-queues">[];
  readonly extensions: ckpt_socket_entry[];
}

/**
 * @param descriptions of all processes, as often as they are held
 * @param files the table in which they have their entries
 * @param flight ids of the files that came with packets
 * @param more what else was read of them
 */
export function describeSockets(
  descriptions: Iterable<Description>,
  contents: SocketQueues,
  files: FileTable,
  flight: ReadonlyMap<number, number> = new Map(),
  more: MoreOfSockets = {},
): DescribedSockets {
  const { unread, waiting, sharedPorts, unaccepted, packetRings } = more;
  const queues: Entry<"sk-queues">[] = [];
  const extensions: ckpt_socket_entry[] = [];
  for (const description of new Set(descriptions)) {
    const { socket, status: { uid, gid } } = description;
    if (socket === undefined || socket.family === "other") continue;
    const id = files.idOf(description);
    const extension: ckpt_socket_entry = {
      ...noExtension(id),
      options: [...furtherOptions(socket, more.multicastDevices?.options)],
    };
    if (uid !== 0 || gid !== 0) Object.assign(extension, { uid, gid });
    if (socket.family === "inet") {
      const { ino, memberships } = socket;
      extension.options.push(...more.md5Keys?.get(ino) ?? []);
      extension.memberships = [...memberships];
      extension.datagrams = [...unread?.datagrams.get(ino) ?? []];
      extension.unread = unread?.bytes.get(ino);
      extension.corked = unread?.corked.get(ino);
      extension.shared_port = sharedPorts?.ports.get(ino);
      extension.unaccepted = unaccepted?.get(ino);
    }
    if (socket.family === "packet") {
      extension.interface = socket.interface;
      extension.packet_rings = packetRings?.get(socket.ino);
    }
    if (socket.family === "netlink" && socket.kind.type !== SOCK.RAW) {
      extension.type = socket.kind.type;
    }
    if (socket.family === "unix") {
      const { diag } = socket;
      const packets = contents.get(diag.ino) ?? [];
      for (const { bytes, rights } of packets) {
        queues.push({
          id_for: id,
          length: bytes.length,
          scm: rights.length === 0 ? [] : [{
            type: SCM_RIGHTS,
            rights: rights.map((fd) => flight.get(fd)!),
          }],
          extra: bytes,
        });
      }
      extension.peer = socket.peer;
      extension.pending = diag.pending.filter((ino) => ino !== 0);
      extension.waiting = [...waiting?.get(diag.ino) ?? []];
      extension.reset = isReset(socket) || undefined;
      extension.lost_peer = hasLostPeer(socket) || undefined;
      // What was accepted has the file of what listens.
      const isBound = files.entries[id - 1].usk?.file_perms !== undefined;
      extension.other_names = isBound ? [...socket.file!.otherNames] : [];
      // Where it has a peer, all is from that.
      const isOpenToAll = diag.peer === undefined;
      extension.packets = packets.map(({ sender, name }) => ({
        sender,
        name: isOpenToAll && name.length > 0 ? name : undefined,
      }));
      if (!extension.packets.some(({ sender, name }) => sender ?? name)) {
        extension.packets = [];
      }
    }
    if (isMore(extension)) extensions.push(extension);
  }
  return { queues, extensions };
}

/** Those that can be set again. */
function furtherOptions(
  socket: Exclude<NonNullable<Description["socket"]>, { family: "other" }>,
  devices: FoundMulticastDevices["options"] = new Map(),
): readonly ckpt_socket_option[] {
  const { further } = socket.options;
  if (socket.family !== "inet") return further;
  const device = devices.get(socket.ino);
  if (device !== undefined) {
    const others = further.filter(({ level, name }) =>
      level !== device.level || name !== device.name
    );
    return [...others, device];
  }
  return wasConnected(socket)
    ? further.filter(({ level, name }) =>
      !OF_THE_CONNECTION.has(`${level} ${name}`)
    )
    : further;
}

function wasConnected({ state, hasEnded }: SeenInetSocket): boolean {
  return isConnected(state) || state === TCP_STATE.SYN_SENT || hasEnded;
}

/**
 * What the kernel itself sets when a connection is made: the size of segments,
 * and values for multicast, which TCP has no use for and does not let be set.
 */
const OF_THE_CONNECTION: ReadonlySet<string> = new Set([
  `${IPPROTO_TCP} 2`,
  ...[32, 33, 34].map((name) => `${IPPROTO_IP} ${name}`),
  ...[17, 18, 19].map((name) => `${IPPROTO_IPV6} ${name}`),
]);

function isMore({ id: _, ...rest }: ckpt_socket_entry): boolean {
  return Object.values(rest).some((value) =>
    Array.isArray(value) ? value.length > 0 : value !== undefined
  );
}

/**
 * Brings files into the order that CRIU needs: a Unix socket whose peer has
 * another peer comes behind it.
 */
export function inOrder(files: readonly file_entry[]): file_entry[] {
  const peers = new Map(
    files.flatMap(({ usk }) => usk ? [[usk.ino, usk.peer] as const] : []),
  );
  const follows = ({ usk }: file_entry) =>
    usk !== undefined && usk.peer !== 0 && peers.get(usk.peer) !== usk.ino;
  return [
    ...files.filter((file) => !follows(file)),
    ...files.filter(follows),
  ];
}
