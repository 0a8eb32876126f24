/**
 * Multicast groups that sockets have joined. The kernel lists the groups of
 * each network interface (/proc/net/igmp, igmp6); whether a socket has joined
 * one, and which senders it wants to hear, it tells of each socket
 * (MCAST_MSFILTER, RFC 3678).
 */
import type { Reason } from "../error.ts";
import { EADDRNOTAVAIL, ENOPROTOOPT } from "../ffi/errno.ts";
import type { Program } from "../ffi/program.ts";
import { Calls, Slots } from "../ffi/calls.ts";
import { SyscallError } from "../ffi/syscall.ts";
import type { ckpt_membership_entry } from "../image/schema.gen.ts";
import { AF_INET, AF_INET6, IPPROTO_IP, IPPROTO_IPV6 } from "./socket_kind.ts";

/** A group that some socket of the host has joined. */
export interface HostGroup {
  readonly interface: string;
  /** Number of the interface. */
  readonly index: number;
  /** 4 bytes of IPv4 or 16 of IPv6. */
  readonly group: Uint8Array;
}

const MCAST_JOIN_GROUP = 42;
const MCAST_MSFILTER = 48;
const MCAST_EXCLUDE = 0;
/** struct sockaddr_storage. */
const STORAGE = 128;
/** struct group_req: interface, padding, group. */
const GROUP_REQ = 8 + STORAGE;
/** struct group_filter: interface, group, mode, number of sources, sources. */
const FILTER = { group: 8, mode: 136, count: 140, sources: 144 } as const;
/** Words of a question: socket, level, length. */
const FILTER_QUESTION = { level: 8, length: 16 } as const;
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

/** A socket, by a descriptor of ckpt's own for it. */
export interface AskedSocket {
  readonly fd: number;
  readonly family: number;
}

/** The groups that each of some sockets has joined. */
export function readMemberships(
  sockets: readonly AskedSocket[],
): ckpt_membership_entry[][] {
  if (sockets.length === 0) return [];
  // A socket of IPv6 can join groups of IPv4, too.
  const ipv4 = parseIgmp(hostGroups("/proc/net/igmp"));
  const both = sockets.some(({ family }) => family === AF_INET6)
    ? [...ipv4, ...parseIgmp6(hostGroups("/proc/net/igmp6"))]
    : ipv4;
  const questions = sockets.flatMap(({ fd, family }, socket) =>
    (family === AF_INET6 ? both : ipv4).map((group) => ({ socket, fd, group }))
  );
  const found: ckpt_membership_entry[][] = sockets.map(() => []);
  askFilters(questions).forEach((filter, i) => {
    const { socket, group } = questions[i];
    if (filter !== undefined) found[socket].push(decodeFilter(filter, group));
  });
  return found;
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

interface FilterQuestion {
  readonly fd: number;
  readonly group: HostGroup;
}

/** struct group_filter of each; undefined where the socket has not joined it. */
function askFilters(
  questions: readonly FilterQuestion[],
): (DataView<ArrayBuffer> | undefined)[] {
  const answers = askFiltersWith(questions, 0);
  // The kernel tells how many senders there are, and as many as have room.
  const long = answers.flatMap((answer, i) =>
    answer !== undefined && answer.getUint32(FILTER.count, true) > 0 ? [i] : []
  );
  const again = askFiltersWith(long.map((i) => questions[i]), MOST_SOURCES);
  long.forEach((at, i) => answers[at] = again[i]);
  return answers;
}

function askFiltersWith(
  questions: readonly FilterQuestion[],
  sources: number,
): (DataView<ArrayBuffer> | undefined)[] {
  const size = FILTER.sources + sources * STORAGE;
  const values = new Slots(size, questions.length);
  const asked = new Slots(FILTER_QUESTION.length + 8, questions.length);
  questions.forEach(({ fd, group: { index, group } }, i) => {
    const at = i * size;
    values.view.setUint32(at, index, true);
    putAddress(values.bytes, at + FILTER.group, group);
    values.view.setUint32(at + FILTER.count, sources, true);
    asked.view.setUint32(i * asked.size, fd, true);
    asked.view.setUint32(
      i * asked.size + FILTER_QUESTION.level,
      levelOf(familyOf(group)),
      true,
    );
    asked.view.setUint32(i * asked.size + FILTER_QUESTION.length, size, true);
  });
  const calls = new Calls();
  const call = calls.add("getsockopt", [
    { loaded: asked },
    { loaded: asked, offset: FILTER_QUESTION.level },
    MCAST_MSFILTER,
    { slots: values },
    { slots: asked, offset: FILTER_QUESTION.length },
  ]);
  calls.run(questions.length);
  return questions.map((_, i) => {
    const errno = -calls.result(i, call);
    if (errno <= 0) return new DataView(values.bytes.buffer, i * size, size);
    // A raw socket of IPv6 cannot join groups of IPv4.
    if (errno === EADDRNOTAVAIL || errno === ENOPROTOOPT) return undefined;
    throw new SyscallError("getsockopt", errno);
  });
}

function decodeFilter(
  filter: DataView<ArrayBuffer>,
  { interface: name, group }: HostGroup,
): ckpt_membership_entry {
  const count = filter.getUint32(FILTER.count, true);
  return {
    family: familyOf(group),
    group,
    interface: name,
    mode: filter.getUint32(FILTER.mode, true),
    sources: Array.from({ length: count }, (_, i) => {
      const at = filter.byteOffset + FILTER.sources + i * STORAGE +
        addressAt(group.length);
      return new Uint8Array(filter.buffer.slice(at, at + group.length));
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
  what: () => string,
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
        () => `joining a multicast group by interface ${name} with ${what()}`,
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
