/** Sockets, as entries of files.img, sk-queues.img and ckpt-sockets.img. */
import type { Description } from "../files/descriptors.ts";
import type { FileTable } from "../files/file_table.ts";
import { describeInetSocket } from "../files/inet_socket.ts";
import type { SocketQueues } from "../files/sockets.ts";
import {
  describeUnixSocket,
  hasLostPeer,
  isReset,
  type UnixNeighbours,
} from "../files/unix_socket.ts";
import type { Entry } from "../image/kinds.ts";
import {
  type ckpt_socket_entry,
  fd_types,
  type file_entry,
} from "../image/schema.gen.ts";

/** @param others the Unix sockets of the tree */
export function describeSocket(
  id: number,
  { socket, flags, owner }: Description,
  others: UnixNeighbours,
): file_entry {
  if (socket?.family === "inet") {
    const isk = describeInetSocket(socket, id, flags, owner);
    return { type: fd_types.INETSK, id, isk };
  }
  if (socket?.family === "unix") {
    const usk = describeUnixSocket(socket, id, flags, owner, others);
    return { type: fd_types.UNIXSK, id, usk };
  }
  throw new Error("a socket is described that cannot be saved");
}

export function socketType({ socket }: Description): number {
  return socket?.family === "inet" ? fd_types.INETSK : fd_types.UNIXSK;
}

export interface DescribedSockets {
  readonly queues: Entry<"sk-queues">[];
  readonly extensions: ckpt_socket_entry[];
}

/**
 * @param descriptions of all processes, as often as they are held
 * @param files the table in which they have their entries
 */
export function describeSockets(
  descriptions: Iterable<Description>,
  contents: SocketQueues,
  files: FileTable,
): DescribedSockets {
  const queues: Entry<"sk-queues">[] = [];
  const extensions: ckpt_socket_entry[] = [];
  for (const description of new Set(descriptions)) {
    const { socket, status: { uid, gid } } = description;
    if (socket === undefined || socket.family === "other") continue;
    const id = files.idOf(description);
    const extension: ckpt_socket_entry = {
      id,
      options: [...socket.options.further],
      pending: [],
      packets: [],
      other_names: [],
    };
    if (uid !== 0 || gid !== 0) Object.assign(extension, { uid, gid });
    if (socket.family === "unix") {
      const { diag } = socket;
      const packets = contents.get(diag.ino) ?? [];
      for (const { bytes } of packets) {
        queues.push({
          id_for: id,
          length: bytes.length,
          scm: [],
          extra: bytes,
        });
      }
      extension.peer = socket.peer;
      extension.pending = [...diag.pending];
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
