/**
 * What the kernel tells of packet sockets that no call on the socket itself
 * does (NETLINK_SOCK_DIAG, linux/packet_diag.h).
 */
import type { packet_mclist, packet_ring } from "../image/schema.gen.ts";
import { askSocketDiag, readAttributes } from "./sock_diag.ts";
import { AF_PACKET } from "./socket_kind.ts";

export interface PacketDetails {
  readonly copyThreshold: number;
  /** Addresses and modes asked of interfaces (PACKET_ADD_MEMBERSHIP). */
  readonly memberships: readonly packet_mclist[];
  readonly rings: PacketRings;
}

/** Rings of packets in memory. */
export interface PacketRings {
  readonly receiving: packet_ring | undefined;
  readonly sending: packet_ring | undefined;
}

/** INFO, MCLIST, RING_CFG. */
const SHOW = 7;
const REQUEST = 20;
const ANSWER = 16;
const ATTRIBUTE = {
  info: 0,
  memberships: 1,
  receiving: 2,
  sending: 3,
} as const;
const MEMBERSHIP = 44;

/** Undefined: there is none in ckpt's network namespace. */
export function packetDetails(ino: number): PacketDetails | undefined {
  const request = new Uint8Array(REQUEST);
  const view = new DataView(request.buffer);
  view.setUint8(0, AF_PACKET);
  view.setUint32(8, SHOW, true);
  return askSocketDiag(request).flatMap((message) => parse(message, ino))[0];
}

/** @param message struct packet_diag_msg and attributes */
export function parse(
  message: Uint8Array<ArrayBuffer>,
  ino: number,
): PacketDetails[] {
  if (new DataView(message.buffer).getUint32(4, true) !== ino) return [];
  const attributes = readAttributes(message, ANSWER);
  // struct packet_diag_info: index, version, reserve, copy_thresh, ...
  const info = new Uint32Array(attributes.get(ATTRIBUTE.info)!.buffer);
  const list = attributes.get(ATTRIBUTE.memberships) ?? new Uint8Array(0);
  const view = new DataView(list.buffer);
  const memberships: packet_mclist[] = [];
  for (let at = 0; at + MEMBERSHIP <= list.length; at += MEMBERSHIP) {
    // struct packet_diag_mclist: index, count, type, length, address.
    const one = {
      index: view.getUint32(at, true),
      type: view.getUint16(at + 8, true),
      addr: list.slice(at + 12, at + 12 + view.getUint16(at + 10, true)),
    };
    const count = view.getUint32(at + 4, true);
    for (let i = 0; i < count; i++) memberships.push(one);
  }
  return [{
    copyThreshold: info[3],
    memberships,
    rings: {
      receiving: parseRing(attributes.get(ATTRIBUTE.receiving)),
      sending: parseRing(attributes.get(ATTRIBUTE.sending)),
    },
  }];
}

/** @param value struct packet_diag_ring */
function parseRing(
  value: Uint8Array<ArrayBuffer> | undefined,
): packet_ring | undefined {
  if (value === undefined) return undefined;
  const [block_size, block_nr, frame_size, frame_nr, ...more] = new Uint32Array(
    value.buffer,
  );
  const [retire_tmo, sizeof_priv, features] = more;
  return {
    ...{ block_size, block_nr, frame_size, frame_nr },
    ...{ retire_tmo, sizeof_priv, features },
  };
}
