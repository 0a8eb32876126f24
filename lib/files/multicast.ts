/**
 * Multicast groups that sockets have joined. The kernel lists the groups of
 * each network interface (/proc/net/igmp, igmp6); whether a socket has joined
 * one, and which senders it wants to hear, it tells of each socket
 * (MCAST_MSFILTER, RFC 3678).
 */
import type { Reason } from "../error.ts";
import { EADDRNOTAVAIL, ENOPROTOOPT } from "../ffi/errno.ts";
import type { Program } from "../ffi/program.ts";
import { addressOf, syscall, SyscallError } from "../ffi/syscall.ts";
import type { ckpt_membership_entry } from "../image/schema.gen.ts";
import { IPPROTO_IP, IPPROTO_IPV6 } from "./socket_options.ts";

/** A group that some socket of the host has joined. */
export interface HostGroup {
  readonly interface: string;
  /** Number of the interface. */
  readonly index: number;
  /** 4 bytes of IPv4 or 16 of IPv6. */
  readonly group: Uint8Array;
}

const AF_INET = 2;
const AF_INET6 = 10;
const MCAST_JOIN_GROUP = 42;
const MCAST_MSFILTER = 48;
const MCAST_EXCLUDE = 0;
/** struct sockaddr_storage. */
const STORAGE = 128;
/** struct group_req: interface, padding, group. */
const GROUP_REQ = 8 + STORAGE;
/** struct group_filter: interface, group, mode, number of sources, sources. */
const FILTER = { group: 8, mode: 136, count: 140, sources: 144 } as const;
/** Of IPv4 and IPv6, as `igmp_max_msf` and `mld_max_msf` may allow. */
const MOST_SOURCES = 512;

/** @param text of /proc/net/igmp (igmp_mc_seq_show in net/ipv4/igmp.c) */
export function parseIgmp(text: string): HostGroup[] {
  const groups: HostGroup[] = [];
  let device: { interface: string; index: number } | undefined;
  for (const line of text.split("\n")) {
    const head = /^(\d+)\s+(\S+)\s*:/.exec(line);
    if (head !== null) {
      device = { index: Number(head[1]), interface: head[2] };
    }
    const found = /^\t+([0-9A-F]{8})\s/.exec(line);
    if (found === null || device === undefined) continue;
    // As the word lies in memory.
    const word = Uint32Array.of(parseInt(found[1], 16));
    groups.push({ ...device, group: new Uint8Array(word.buffer) });
  }
  return groups;
}

/** @param text of /proc/net/igmp6 (igmp6_mc_seq_show in net/ipv6/mcast.c) */
export function parseIgmp6(text: string): HostGroup[] {
  return text.split("\n").flatMap((line) => {
    const found = /^(\d+)\s+(\S+)\s+([0-9a-f]{32})\s/.exec(line);
    if (found === null) return [];
    const group = Uint8Array.from(
      { length: 16 },
      (_, i) => parseInt(found[3].slice(2 * i, 2 * i + 2), 16),
    );
    return [{ index: Number(found[1]), interface: found[2], group }];
  });
}

/** What the host has joined now. */
function hostGroups(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    // A kernel without it.
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/**
 * The groups that a socket has joined.
 *
 * @param fd a descriptor of ckpt's own for it
 */
export function readMemberships(
  fd: number,
  family: number,
): ckpt_membership_entry[] {
  // A socket of IPv6 can join groups of IPv4, too.
  return [
    ...parseIgmp(hostGroups("/proc/net/igmp")),
    ...family === AF_INET6 ? parseIgmp6(hostGroups("/proc/net/igmp6")) : [],
  ].flatMap((group) => membership(fd, group) ?? []);
}

function familyOf(group: Uint8Array): number {
  return group.length === 4 ? AF_INET : AF_INET6;
}

function levelOf(family: number): number {
  return family === AF_INET ? IPPROTO_IP : IPPROTO_IPV6;
}

/** Where the address is in struct sockaddr_in and sockaddr_in6. */
function addressAt(length: number): number {
  return length === 4 ? 4 : 8;
}

function putAddress(
  bytes: Uint8Array<ArrayBuffer>,
  at: number,
  address: Uint8Array,
): void {
  new DataView(bytes.buffer).setUint16(at, familyOf(address), true);
  bytes.set(address, at + addressAt(address.length));
}

function membership(
  fd: number,
  { interface: name, index, group }: HostGroup,
): ckpt_membership_entry | undefined {
  const family = familyOf(group);
  const filter = new Uint8Array(FILTER.sources + MOST_SOURCES * STORAGE);
  const view = new DataView(filter.buffer);
  view.setUint32(0, index, true);
  putAddress(filter, FILTER.group, group);
  view.setUint32(FILTER.count, MOST_SOURCES, true);
  const length = new Uint8Array(Uint32Array.of(filter.length).buffer);
  try {
    syscall(
      "getsockopt",
      BigInt(fd),
      BigInt(levelOf(family)),
      BigInt(MCAST_MSFILTER),
      addressOf(filter),
      addressOf(length),
    );
  } catch (error) {
    // A raw socket of IPv6 cannot join groups of IPv4.
    const none = error instanceof SyscallError &&
      (error.errno === EADDRNOTAVAIL || error.errno === ENOPROTOOPT);
    if (none) return undefined;
    throw error;
  }
  const count = view.getUint32(FILTER.count, true);
  return {
    family,
    group,
    interface: name,
    mode: view.getUint32(FILTER.mode, true),
    sources: Array.from({ length: count }, (_, i) => {
      const at = FILTER.sources + i * STORAGE + addressAt(group.length);
      return filter.slice(at, at + group.length);
    }),
  };
}

/** Interfaces that are not there (any more). */
export function missingInterfaces(
  object: string,
  memberships: readonly ckpt_membership_entry[],
  interfaces: ReadonlyMap<string, number>,
): Reason[] {
  return memberships.flatMap(({ interface: name }) =>
    interfaces.has(name) ? [] : [{
      object,
      why: `it has joined a multicast group by interface ${name}, which ` +
        "this host does not have",
      remedy: "make such an interface first: ip link add",
    }]
  );
}

/** Lets a socket join its groups again. */
export function joinGroups(
  program: Program,
  fd: number,
  memberships: readonly ckpt_membership_entry[],
  interfaces: ReadonlyMap<string, number>,
  what: string,
): void {
  for (const { family, group, interface: name, mode, sources } of memberships) {
    const index = interfaces.get(name)!;
    const request = new Uint8Array(GROUP_REQ);
    new DataView(request.buffer).setUint32(0, index, true);
    putAddress(request, FILTER.group, group);
    const set = (option: number, value: Uint8Array) =>
      program.call(
        "setsockopt",
        [fd, levelOf(family), option, program.bytes(value), value.length],
        `joining a multicast group by interface ${name} with ${what}`,
      );
    set(MCAST_JOIN_GROUP, request);
    if (mode === MCAST_EXCLUDE && sources.length === 0) continue;
    const filter = new Uint8Array(FILTER.sources + sources.length * STORAGE);
    const view = new DataView(filter.buffer);
    filter.set(request);
    view.setUint32(FILTER.mode, mode, true);
    view.setUint32(FILTER.count, sources.length, true);
    sources.forEach((source, i) =>
      putAddress(filter, FILTER.sources + i * STORAGE, source)
    );
    set(MCAST_MSFILTER, filter);
  }
}
