/**
 * A network namespace that is the tree's own, with nothing in it but the
 * loopback device (network_namespaces(7)): that, its addresses, and the
 * values below /proc/sys/net.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { readSmallFile } from "../ffi/small_files.ts";
import { SyscallError } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import {
  encodeMessage,
  type NetlinkAnswer,
  NetlinkSocket,
  NLM_F,
} from "../files/netlink.ts";
import type {
  ckpt_sysctl_entry,
  net_device_entry,
  netns_entry,
} from "../image/schema.gen.ts";
import {
  type Address,
  attributesOf,
  decodeAddress,
  decodeLink,
  decodeRoute,
  decodeRule,
  ROUTE_MESSAGE,
} from "./rtnetlink.ts";
import { SYSCTL_LISTS, sysctlEntries } from "./sysctl_lists.ts";
import { writeSysctls } from "./sysctl.ts";

const NETLINK_ROUTE = 0;
const NETLINK_NETFILTER = 12;
const LOOPBACK = 1;
const IFF_UP = 1;
/** Devices that the kernel makes in every namespace for its modules. */
const FALLBACK_DEVICES: ReadonlySet<string> = new Set([
  "erspan0",
  "gre0",
  "gretap0",
  "ip6_vti0",
  "ip6gre0",
  "ip6tnl0",
  "ip_vti0",
  "sit0",
  "tunl0",
]);
const ROOT = "/proc/sys/net";

export interface Network {
  readonly namespace: netns_entry;
  readonly devices: readonly net_device_entry[];
  /** As `ip addr save` writes them. */
  readonly addresses: Uint8Array<ArrayBuffer>;
  readonly sysctls: readonly ckpt_sysctl_entry[];
}

/** What of ckpt's network namespace, which is the tree's own, is refused. */
export function networkProblems(): Reason[] {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const reasons: Reason[] = [];
  const refuse = (object: string, remedy: string) =>
    reasons.push({
      object,
      why: "it is part of the network namespace of the program, and is not " +
        "supported yet",
      remedy,
    });
  const links = route.dump(ROUTE_MESSAGE.getLink).map(decodeLink);
  for (const { name, index, flags } of links) {
    const isKnown = index === LOOPBACK ||
      FALLBACK_DEVICES.has(name) && (flags & IFF_UP) === 0;
    if (isKnown) continue;
    refuse(`the network device ${name}`, `remove it: ip link del ${name}`);
  }
  const routes = route.dump(ROUTE_MESSAGE.getRoute).map(decodeRoute);
  for (const { isMadeByKernel, text } of routes) {
    if (isMadeByKernel) continue;
    refuse(`the route to ${text}`, "remove it: ip route del");
  }
  for (const rule of route.dump(ROUTE_MESSAGE.getRule).map(decodeRule)) {
    if (rule.isDefault) continue;
    refuse(`the routing rule ${rule.text}`, "remove it: ip rule del");
  }
  for (const { kind } of route.dump(ROUTE_MESSAGE.getQdisc).map(decodeQdisc)) {
    if (kind === "noqueue" || kind === "noop") continue;
    refuse(`the queueing discipline ${kind}`, "remove it: tc qdisc del");
  }
  for (const table of packetFilters()) {
    refuse(table.object, table.remedy);
  }
  return reasons;
}

function decodeQdisc(answer: NetlinkAnswer): { kind: string } {
  const TCA_KIND = 1;
  const TCMSG = 20;
  const kind = attributesOf(answer.body, TCMSG).get(TCA_KIND);
  return { kind: kind === undefined ? "?" : text(kind) };
}

function text(bytes: Uint8Array<ArrayBuffer>): string {
  return decodeText(bytes).replace(/\0.*$/s, "");
}

const NFT_GETTABLE = 10 << 8 | 1;
const NFGENMSG = 4;
const NFTA_TABLE_NAME = 1;

/** Tables of nf_tables and iptables, but those by which ckpt blocks packets. */
function packetFilters(): { object: string; remedy: string }[] {
  const found: { object: string; remedy: string }[] = [];
  try {
    using netfilter = new NetlinkSocket(NETLINK_NETFILTER);
    for (const { body } of netfilter.dump(NFT_GETTABLE, new Uint8Array(4))) {
      const name = text(attributesOf(body, NFGENMSG).get(NFTA_TABLE_NAME)!);
      if (/^(ckpt|CRIU)-/.test(name)) continue;
      found.push({
        object: `the table ${name} of nf_tables`,
        remedy: `remove it: nft delete table ${name}`,
      });
    }
  } catch (error) {
    // A kernel without nf_tables has no tables.
    if (!(error instanceof SyscallError)) throw error;
  }
  for (const program of ["iptables", "ip6tables"]) {
    const path = `/proc/net/${program.replace("tables", "_tables_names")}`;
    for (const name of lines(path)) {
      found.push({
        object: `the table ${name} of ${program}`,
        remedy: "run the program without rules of it; nft(8) can tell if any",
      });
    }
  }
  return found;
}

function lines(path: string): string[] {
  try {
    return Deno.readTextFileSync(path).split("\n").filter((line) => line);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** All values of the namespace that ckpt is in; 600 files, 10 ms. */
export function readNetworkValues(): ckpt_sysctl_entry[] {
  return readSysctls(ROOT);
}

/**
 * Reads the namespace that ckpt is in.
 *
 * @param sysctls of {@link readNetworkValues}
 */
export function dumpNetwork(sysctls: readonly ckpt_sysctl_entry[]): Network {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const values = new Map(sysctls.map(({ name, value }) => [name, value]));
  const links = route.dump(ROUTE_MESSAGE.getLink).map(decodeLink);
  return {
    namespace: {
      def_conf: [],
      all_conf: [],
      nsids: [],
      def_conf4: sysctlEntries(SYSCTL_LISTS.conf4, values, "default"),
      all_conf4: sysctlEntries(SYSCTL_LISTS.conf4, values, "all"),
      def_conf6: sysctlEntries(SYSCTL_LISTS.conf6, values, "default"),
      all_conf6: sysctlEntries(SYSCTL_LISTS.conf6, values, "all"),
      unix_conf: sysctlEntries(SYSCTL_LISTS.unix, values),
      ipv4_sysctl: sysctlEntries(SYSCTL_LISTS.ipv4, values),
    },
    devices: links.filter(({ index }) => index === LOOPBACK).map((link) => ({
      type: LOOPBACK,
      ifindex: link.index,
      mtu: link.mtu,
      flags: link.flags,
      name: link.name,
      conf: [],
      conf4: sysctlEntries(SYSCTL_LISTS.conf4, values, link.name),
      conf6: sysctlEntries(SYSCTL_LISTS.conf6, values, link.name),
    })),
    addresses: savedAddresses(route.dump(ROUTE_MESSAGE.getAddress)),
    sysctls,
  };
}

/**
 * Text of all values below a directory that can be read and written; none where
 * it is not there.
 */
export function readSysctls(directory: string): ckpt_sysctl_entry[] {
  const found: ckpt_sysctl_entry[] = [];
  for (const { name, isDirectory } of Deno.readDirSync(directory)) {
    const path = `${directory}/${name}`;
    if (isDirectory) found.push(...readSysctls(path));
    else {
      try {
        const value = decodeText(readSmallFile(path)).replace(/\n$/, "");
        found.push({ name: path.slice("/proc/sys/".length), value });
      } catch (error) {
        // Commands that can only be written, and what was never set.
        if (!(error instanceof SyscallError)) throw error;
      }
    }
  }
  return found;
}

/** What `ip addr save` begins with (iproute2, ip/ipaddress.c). */
const ADDRESSES_MAGIC = 0x47361222;

function savedAddresses(
  answers: readonly NetlinkAnswer[],
): Uint8Array<ArrayBuffer> {
  const length = answers.reduce((sum, { whole }) => sum + whole.length, 4);
  const bytes = new Uint8Array(length);
  new DataView(bytes.buffer).setUint32(0, ADDRESSES_MAGIC, true);
  let at = 4;
  for (const { whole } of answers) {
    bytes.set(whole, at);
    at += whole.length;
  }
  return bytes;
}

/** @throws CkptError (image) when they are not what `ip addr save` writes */
export function parseAddresses(
  bytes: Uint8Array<ArrayBuffer>,
  file: string,
): Address[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const wrong = (why: string) =>
    new CkptError(EXIT.image, "reading the images", [{ object: file, why }]);
  if (bytes.length < 4 || view.getUint32(0, true) !== ADDRESSES_MAGIC) {
    throw wrong("is not what ip addr save writes");
  }
  const found: Address[] = [];
  for (let at = 4; at < bytes.length;) {
    const HEADER = 16;
    const length = at + HEADER > bytes.length ? 0 : view.getUint32(at, true);
    if (length < HEADER || at + length > bytes.length) {
      throw wrong("ends in the middle of an address");
    }
    const whole = bytes.slice(at, at + length);
    const type = view.getUint16(at + 4, true);
    if (type === ROUTE_MESSAGE.newAddress) {
      found.push(decodeAddress({ body: whole.slice(HEADER) }));
    }
    at += (length + 3) & ~3;
  }
  return found;
}

/** Makes the namespace that ckpt is in like the one of an image. */
export function restoreNetwork(
  devices: readonly net_device_entry[],
  addresses: readonly Address[],
  sysctls: readonly (readonly [path: string, value: string])[],
): void {
  using route = new NetlinkSocket(NETLINK_ROUTE);
  const ordered = [...sysctls].sort(([a], [b]) => a < b ? -1 : 1);
  // To forward packets, or not, sets others to what goes with it.
  writeSysctls(ordered.filter(([path]) => path.endsWith("/forwarding")));
  writeSysctls(ordered);
  for (const device of devices) setLink(route, device);
  const index = new Set(devices.map(({ ifindex }) => ifindex));
  const wanted = addresses.filter((address) => index.has(address.index));
  const keys = new Set(wanted.map(({ key }) => key));
  for (const address of route.dump(ROUTE_MESSAGE.getAddress)) {
    const { key, index: of } = decodeAddress(address);
    if (!index.has(of)) continue;
    if (keys.has(key)) keys.delete(key);
    else change(route, ROUTE_MESSAGE.deleteAddress, 0, address.body);
  }
  for (const { key, body } of wanted) {
    if (!keys.has(key)) continue;
    const flags = NLM_F.CREATE | NLM_F.EXCL;
    change(route, ROUTE_MESSAGE.newAddress, flags, body);
  }
}

function setLink(
  route: NetlinkSocket,
  { ifindex, flags, mtu }: net_device_entry,
): void {
  const IFINFOMSG = 16;
  const IFLA_MTU = 4;
  const body = new Uint8Array(IFINFOMSG + 8);
  const view = new DataView(body.buffer);
  view.setInt32(4, ifindex, true);
  view.setUint32(8, flags & IFF_UP, true);
  view.setUint32(12, IFF_UP, true);
  view.setUint16(IFINFOMSG, 8, true);
  view.setUint16(IFINFOMSG + 2, IFLA_MTU, true);
  view.setUint32(IFINFOMSG + 4, mtu, true);
  change(route, ROUTE_MESSAGE.newLink, 0, body);
}

function change(
  route: NetlinkSocket,
  type: number,
  flags: number,
  body: Uint8Array,
): void {
  try {
    route.transact(encodeMessage(type, flags | NLM_F.ACK, 1, body), 1);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "restoring the program's namespaces", [{
      object: "the loopback device",
      why: error.message,
    }], { cause: error });
  }
}
