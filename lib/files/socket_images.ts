/** What the images tell of sockets, and what of it cannot be restored yet. */
import type { Reason } from "../error.ts";
import type { ImageSet } from "../image/image_set.ts";
import type { Entry } from "../image/kinds.ts";
import type {
  ckpt_credentials_entry,
  ckpt_socket_entry,
  file_entry,
  inet_sk_entry,
  netlink_sk_entry,
  packet_sock_entry,
  unix_sk_entry,
} from "../image/schema.gen.ts";
import { isSupportedInet } from "./inet_kinds.ts";
import { isConnection } from "./tcp_state.ts";

export interface PacketImage {
  readonly bytes: Uint8Array;
  readonly sender: ckpt_credentials_entry | undefined;
  /** Of the socket it was sent from. */
  readonly name: Uint8Array | undefined;
  /** Ids of the files that came with it (SCM_RIGHTS). */
  readonly rights: readonly number[];
}

export interface UnixSocketImage {
  readonly entry: unix_sk_entry;
  readonly packets: readonly PacketImage[];
  readonly extension: ckpt_socket_entry;
}

/** As links in /proc call it. */
export function socketName(
  { entry }: { readonly entry: { readonly ino: number } },
): string {
  return `socket:[${entry.ino}]`;
}

export interface InetSocketImage {
  readonly entry: inet_sk_entry;
  readonly extension: ckpt_socket_entry;
  /** Of a TCP connection; undefined: it was left out, and comes back closed. */
  readonly stream?: Entry<"tcp-stream"> | undefined;
}

export interface NetlinkSocketImage {
  readonly entry: netlink_sk_entry;
  readonly extension: ckpt_socket_entry;
}

export interface PacketSocketImage {
  readonly entry: packet_sock_entry;
  readonly extension: ckpt_socket_entry;
}

/** Whether something remains to be done when its process has made it. */
export function isFilledByCkpt(
  { stream, extension }: InetSocketImage,
): boolean {
  return stream !== undefined || hasBeenLeftUnread(extension) ||
    extension.shared_port !== undefined;
}

export function hasBeenLeftUnread(
  { datagrams, unread, corked }: ckpt_socket_entry,
): boolean {
  return datagrams.length > 0 || (unread ?? corked) !== undefined;
}

/** By the ids of files. */
export interface SocketImages {
  readonly unix: ReadonlyMap<number, UnixSocketImage>;
  readonly inet: ReadonlyMap<number, InetSocketImage>;
  readonly netlink: ReadonlyMap<number, NetlinkSocketImage>;
  readonly packet: ReadonlyMap<number, PacketSocketImage>;
}

export const NO_SOCKETS: SocketImages = {
  unix: new Map(),
  inet: new Map(),
  netlink: new Map(),
  packet: new Map(),
};

export function noExtension(id: number): ckpt_socket_entry {
  return {
    id,
    options: [],
    pending: [],
    packets: [],
    other_names: [],
    datagrams: [],
    memberships: [],
    waiting: [],
  };
}

/** @param set validated */
export function readSocketImages(
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
): SocketImages {
  const extensions = new Map(
    (set.read("ckpt-sockets", undefined) ?? []).map((one) => [one.id, one]),
  );
  const queues = Map.groupBy(
    set.read("sk-queues", undefined) ?? [],
    ({ id_for }) => id_for,
  );
  const unix = new Map<number, UnixSocketImage>();
  const inet = new Map<number, InetSocketImage>();
  const netlink = new Map<number, NetlinkSocketImage>();
  const packet = new Map<number, PacketSocketImage>();
  for (const { id, usk, isk, nlsk, psk } of files.values()) {
    const extension = extensions.get(id) ?? noExtension(id);
    if (nlsk !== undefined) netlink.set(id, { entry: nlsk, extension });
    if (psk !== undefined) packet.set(id, { entry: psk, extension });
    if (isk !== undefined) {
      const stream = isConnection(isk)
        ? set.read("tcp-stream", isk.ino)
        : undefined;
      inet.set(id, { entry: isk, extension, stream });
    }
    if (usk === undefined) continue;
    const packets = (queues.get(id) ?? []).map(({ extra, scm }, i) => ({
      bytes: extra,
      rights: scm.flatMap(({ rights }) => rights),
      sender: extension.packets[i]?.sender,
      name: extension.packets[i]?.name,
    }));
    unix.set(id, { entry: usk, packets, extension });
  }
  return { unix, inet, netlink, packet };
}

/** With all TCP connections closed: their state is not used. */
export function withoutConnections(sockets: SocketImages): SocketImages {
  return {
    ...sockets,
    inet: new Map(
      [...sockets.inet].map((
        [id, socket],
      ) => [id, { ...socket, stream: undefined }]),
    ),
  };
}

/** What no version of an image that we restore has. */
export function unsupportedSockets(
  { unix, inet, packet }: SocketImages,
): Reason[] {
  const reasons: Reason[] = [];
  for (const { entry } of unix.values()) {
    if (entry.uflags !== 0 && !isOutside(entry)) {
      reasons.push({
        object: socketName({ entry }),
        why: "it leads outside of the program, which is not supported yet",
      });
    }
  }
  for (const { entry } of inet.values()) {
    const why = inetImageProblem(entry);
    if (why !== undefined) {
      reasons.push({ object: socketName({ entry }), why });
    }
  }
  for (const { entry, extension } of packet.values()) {
    if ((entry.rx_ring ?? entry.tx_ring) === undefined) continue;
    if (extension.packet_rings !== undefined) continue;
    reasons.push({
      object: `the packet socket with id ${entry.id} in files.img`,
      why: "it has a ring of packets in memory, and the image does not tell " +
        "where in it the kernel was",
    });
  }
  return reasons;
}

/** One of the outside, that others are connected to by its name. */
export function isOutside(
  { uflags, name, type }: Pick<unix_sk_entry, "uflags" | "name" | "type">,
): boolean {
  return uflags === EXTERN && name.length > 0 && type === DGRAM;
}

const EXTERN = 1;
const DGRAM = 2;

/** Whether descriptors are in flight to it. */
export function carriesFiles({ packets }: UnixSocketImage): boolean {
  return packets.some(({ rights }) => rights.length > 0);
}

/**
 * The files that are in flight in sockets, or in sockets that are in flight
 * there.
 *
 * @param held ids of what processes have
 */
export function filesInFlight(
  { unix }: SocketImages,
  held: Iterable<number>,
): number[] {
  // In most images nothing is, and many files are held.
  if (!unix.values().some(carriesFiles)) return [];
  const seen = new Set(held);
  const found: number[] = [];
  const look = (id: number) => {
    for (const { rights } of unix.get(id)?.packets ?? []) {
      for (const file of rights) {
        if (seen.has(file)) continue;
        seen.add(file);
        found.push(file);
        look(file);
      }
    }
  };
  for (const id of [...seen]) look(id);
  return found;
}

const TCP = 6;
const STREAM = 1;
const SYN_SENT = 2;
const CLOSE = 7;
const LISTEN = 10;

function inetImageProblem(entry: inet_sk_entry): string | undefined {
  const { proto, type, state } = entry;
  if (!isSupportedInet({ type, protocol: proto })) {
    return `a socket of type ${type} and protocol ${proto} is not supported`;
  }
  return proto === TCP && type === STREAM && state !== CLOSE &&
      state !== LISTEN && state !== SYN_SENT && !isConnection(entry)
    ? `a TCP socket of state ${state} is not supported`
    : undefined;
}
