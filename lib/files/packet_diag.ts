/**
 * What the kernel tells of packet sockets that no call on the socket itself
 * does (NETLINK_SOCK_DIAG, linux/packet_diag.h).
 */
import type { packet_mclist } from "../image/schema.gen.ts";
import { askSocketDiag, readAttributes } from "./sock_diag.ts";

export interface PacketDetails {
  readonly copyThreshold: number;
  /** Addresses and modes asked of interfaces (PACKET_ADD_MEMBERSHIP). */
  readonly memberships: readonly packet_mclist[];
  readonly hasRing: boolean;
}

const AF_PACKET = 17;
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
    hasRing: attributes.has(ATTRIBUTE.receiving) ||
      attributes.has(ATTRIBUTE.sending),
  }];
}
