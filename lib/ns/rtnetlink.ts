/** Messages about links, addresses and routes (rtnetlink(7)). Pure. */
import { decodeText } from "../ffi/text.ts";
import type { NetlinkAnswer } from "../files/netlink.ts";

export const ROUTE_MESSAGE = {
  newLink: 16,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  getRoute: 26,
  getRule: 34,
  getQdisc: 38,
} as const;

type Answer = Pick<NetlinkAnswer, "body">;

/** Attributes behind a structure of `start` bytes, the last of each type. */
export function attributesOf(
  body: Uint8Array<ArrayBuffer>,
  start: number,
): Map<number, Uint8Array<ArrayBuffer>> {
  const HEADER = 4;
  const TYPE = 0x3fff;
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const found = new Map<number, Uint8Array<ArrayBuffer>>();
  for (let at = start; at + HEADER <= body.length;) {
    const length = view.getUint16(at, true);
    if (length < HEADER || at + length > body.length) break;
    const type = view.getUint16(at + 2, true) & TYPE;
    found.set(type, body.slice(at + HEADER, at + length));
    at += (length + 3) & ~3;
  }
  return found;
}

function viewOf({ body }: Answer): DataView {
  return new DataView(body.buffer, body.byteOffset, body.length);
}

function uint32(bytes: Uint8Array<ArrayBuffer> | undefined): number {
  return bytes === undefined || bytes.length < 4
    ? 0
    : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

export interface Link {
  readonly index: number;
  /** IFF_* (netdevice(7)). */
  readonly flags: number;
  readonly mtu: number;
  readonly name: string;
}

/** Of RTM_NEWLINK: struct ifinfomsg and attributes. */
export function decodeLink(answer: Answer): Link {
  const IFLA = { ifname: 3, mtu: 4 };
  const view = viewOf(answer);
  const attributes = attributesOf(answer.body, 16);
  return {
    index: view.getInt32(4, true),
    flags: view.getUint32(8, true),
    mtu: uint32(attributes.get(IFLA.mtu)),
    name: decodeText(attributes.get(IFLA.ifname) ?? new Uint8Array())
      .replace(/\0.*$/s, ""),
  };
}

export interface Address {
  /** Of the device. */
  readonly index: number;
  /** The same for the same address. */
  readonly key: string;
  readonly body: Uint8Array<ArrayBuffer>;
}

/** Of RTM_NEWADDR: struct ifaddrmsg and attributes. */
export function decodeAddress(answer: Answer): Address {
  const IFA = { address: 1, local: 2 };
  const view = viewOf(answer);
  const attributes = attributesOf(answer.body, 8);
  const bytes = attributes.get(IFA.local) ?? attributes.get(IFA.address) ?? [];
  const [family, prefix] = answer.body;
  const index = view.byteLength < 8 ? 0 : view.getUint32(4, true);
  return {
    index,
    key: `${family} ${[...bytes]}/${prefix} ${index}`,
    body: answer.body,
  };
}

const AF_INET = 2;

function showAddress(family: number, bytes: Uint8Array | undefined): string {
  if (bytes === undefined) return "default";
  if (family === AF_INET) return [...bytes].join(".");
  return Array.from(
    { length: bytes.length / 2 },
    (_, i) => (bytes[2 * i] << 8 | bytes[2 * i + 1]).toString(16),
  ).join(":");
}

/** Of RTM_NEWROUTE: struct rtmsg and attributes. */
export function decodeRoute(
  answer: Answer,
): { isMadeByKernel: boolean; text: string } {
  const RTPROT_KERNEL = 2;
  const RTA_DST = 1;
  const [family, prefix, , , , protocol] = answer.body;
  const destination = attributesOf(answer.body, 12).get(RTA_DST);
  return {
    // The kernel's go with the addresses.
    isMadeByKernel: protocol === RTPROT_KERNEL,
    text: `${showAddress(family, destination)}/${prefix}`,
  };
}

/** Rules of every new namespace: priority and table. */
const DEFAULT_RULES: ReadonlySet<string> = new Set([
  "0 255",
  "32766 254",
  "32767 253",
  // Of multicast routing by IPv6.
  "32767 254",
]);

/** Of RTM_NEWRULE: struct fib_rule_hdr and attributes. */
export function decodeRule(
  answer: Answer,
): { isDefault: boolean; text: string } {
  const FRA = { priority: 6, table: 15 };
  const FR_ACT_TO_TBL = 1;
  const [, destination, source, tos, table, , , action] = answer.body;
  const attributes = attributesOf(answer.body, 12);
  const priority = uint32(attributes.get(FRA.priority));
  const to = attributes.has(FRA.table)
    ? uint32(attributes.get(FRA.table))
    : table;
  return {
    isDefault: destination === 0 && source === 0 && tos === 0 &&
      action === FR_ACT_TO_TBL && DEFAULT_RULES.has(`${priority} ${to}`),
    text: `${priority} (table ${to})`,
  };
}
