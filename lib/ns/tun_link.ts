/**
 * The network devices of tun.ts as the network has them: what is made with a
 * device goes with it when its program ends, so a restore makes it again.
 */
import { CkptError, EXIT } from "../error.ts";
import { SyscallError } from "../ffi/syscall.ts";
import {
  encodeAttributes,
  encodeMessage,
  NetlinkSocket,
  NLM_F,
} from "../files/netlink.ts";
import type { ckpt_tun_link_entry } from "../image/schema.gen.ts";
import {
  attributesOf,
  decodeAddress,
  decodeLink,
  ROUTE_MESSAGE,
} from "./rtnetlink.ts";
import { readSysctls } from "./network.ts";
import { writeSysctls } from "./sysctl.ts";

const NETLINK_ROUTE = 0;
const IFLA = { ADDRESS: 1, MTU: 4, TXQLEN: 13, LINKINFO: 18 } as const;
const INFO_DATA = 2;
const IFLA_TUN = { OWNER: 1, GROUP: 2, PI: 4, DISABLED_QUEUES: 9 } as const;
const IFINFOMSG = 16;
const RTMSG = 12;
const RTA_OIF = 4;
const RTPROT_KERNEL = 2;
const RTM_F_CLONED = 0x200;
const IFF_UP = 1;
/** UP, NOARP, PROMISC, ALLMULTI, MULTICAST. */
const SETTABLE = IFF_UP | 0x80 | 0x100 | 0x200 | 0x1000;

/** A device as it is now. */
export interface SeenTunLink {
  /** A packet has no header with its protocol (IFF_NO_PI). */
  readonly noPi: boolean;
  readonly disabledQueues: number;
  readonly link: ckpt_tun_link_entry;
}

/** Of ckpt's network namespace; undefined: it is gone. */
export function readTunLink(name: string): SeenTunLink | undefined {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const answer = route.dump(ROUTE_MESSAGE.getLink)
    .find((one) => decodeLink(one).name === name);
  if (answer === undefined) return undefined;
  const { index, flags, mtu } = decodeLink(answer);
  const attributes = attributesOf(answer.body, IFINFOMSG);
  const info = attributesOf(attributes.get(IFLA.LINKINFO) ?? NOTHING, 0);
  const data = attributesOf(info.get(INFO_DATA) ?? NOTHING, 0);
  const number = (bytes: Uint8Array<ArrayBuffer> | undefined) =>
    bytes === undefined || bytes.length < 4
      ? undefined
      : new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const address = attributes.get(IFLA.ADDRESS);
  return {
    noPi: data.get(IFLA_TUN.PI)?.[0] === 0,
    disabledQueues: number(data.get(IFLA_TUN.DISABLED_QUEUES)) ?? 0,
    link: {
      index,
      flags: flags & SETTABLE,
      mtu,
      queue_length: number(attributes.get(IFLA.TXQLEN)) ?? 0,
      hardware_address: address?.length ? address : undefined,
      owner: number(data.get(IFLA_TUN.OWNER)),
      group: number(data.get(IFLA_TUN.GROUP)),
      addresses: route.dump(ROUTE_MESSAGE.getAddress)
        .map(({ body }) => body)
        .filter((body) =>
          new DataView(body.buffer).getUint32(4, true) === index
        ),
      routes: route.dump(ROUTE_MESSAGE.getRoute)
        .map(({ body }) => body)
        .filter((body) => leadsTo(body, index)),
      sysctls: DIRECTORIES.flatMap((directory) =>
        readSysctls(`${directory}/${name}`)
      ),
    },
  };
}

const NOTHING = new Uint8Array(0);
/** Below them each device has its own. */
const DIRECTORIES = [
  ...["ipv4/conf", "ipv6/conf", "ipv4/neigh", "ipv6/neigh"],
].map((name) => `/proc/sys/net/${name}`);
const GENERATION = "addr_gen_mode";
const NO_GENERATION = "1";

/** A route by one device that the kernel does not make by itself. */
function leadsTo(body: Uint8Array<ArrayBuffer>, index: number): boolean {
  const protocol = body[5];
  const flags = new DataView(body.buffer).getUint32(8, true);
  const device = attributesOf(body, RTMSG).get(RTA_OIF);
  return protocol !== RTPROT_KERNEL && (flags & RTM_F_CLONED) === 0 &&
    device !== undefined &&
    new DataView(device.buffer).getUint32(0, true) === index;
}

/** Whether ckpt's network namespace has a device. */
export function hasLink(name: string): boolean {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  return route.dump(ROUTE_MESSAGE.getLink)
    .some((answer) => decodeLink(answer).name === name);
}

/**
 * Gives a new device what it had.
 *
 * @throws CkptError naming what the kernel did not take
 */
export function restoreTunLink(name: string, link: ckpt_tun_link_entry): void {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const send = (
    type: number,
    flags: number,
    body: Uint8Array,
    what: string,
  ) => {
    try {
      route.transact(encodeMessage(type, flags | NLM_F.ACK, 1, body), 1);
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(EXIT.failed, `restoring ${what}`, [{
        object: `the network device ${name}`,
        why: error.message,
      }], { cause: error });
    }
  };
  // Otherwise the kernel chooses an address of IPv6 when it goes up.
  const generation = `/proc/sys/net/ipv6/conf/${name}/${GENERATION}`;
  const values = link.sysctls.map(({ name, value }) =>
    [`/proc/sys/${name}`, value] as const
  );
  const [last, first] = [true, false].map((isLast) =>
    values.filter(([path]) => (path === generation) === isLast)
  );
  if (last.length > 0) writeSysctls([[generation, NO_GENERATION]]);
  writeSysctls(first.toSorted(([a], [b]) => a < b ? -1 : 1));
  send(ROUTE_MESSAGE.newLink, 0, encodeLink(link), "its settings");
  const create = NLM_F.CREATE | NLM_F.EXCL;
  // The kernel may have given it some itself when it went up.
  const addresses = link.addresses.map((body) =>
    decodeAddress({ body: new Uint8Array(body) })
  );
  const left = new Set(addresses.map(({ key }) => key));
  for (const answer of route.dump(ROUTE_MESSAGE.getAddress)) {
    const { index, key, body } = decodeAddress(answer);
    if (index !== link.index || left.delete(key)) continue;
    send(ROUTE_MESSAGE.deleteAddress, 0, body, "its addresses");
  }
  for (const { key, body } of addresses) {
    if (!left.has(key)) continue;
    send(ROUTE_MESSAGE.newAddress, create, body, "an address");
  }
  for (const body of link.routes) {
    send(
      ROUTE_MESSAGE.newRoute,
      NLM_F.CREATE | NLM_F.REPLACE,
      withoutState(body),
      "a route",
    );
  }
  writeSysctls(last);
}

/** struct ifinfomsg, and attributes. */
function encodeLink(
  { index, flags, mtu, queue_length, hardware_address }: ckpt_tun_link_entry,
): Uint8Array<ArrayBuffer> {
  const word = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);
  const attributes = encodeAttributes([
    [IFLA.MTU, word(mtu)],
    [IFLA.TXQLEN, word(queue_length)],
    ...hardware_address === undefined
      ? []
      : [[IFLA.ADDRESS, hardware_address] as const],
  ]);
  const body = new Uint8Array(IFINFOMSG + attributes.length);
  const view = new DataView(body.buffer);
  view.setInt32(4, index, true);
  view.setUint32(8, flags, true);
  view.setUint32(12, SETTABLE, true);
  body.set(attributes, IFINFOMSG);
  return body;
}

/** Of a route: its flags are told by the kernel, not to it. */
function withoutState(
  route: Uint8Array,
): Uint8Array<ArrayBuffer> {
  const body = new Uint8Array(route);
  new DataView(body.buffer).setUint32(8, 0, true);
  return body;
}
