/**
 * Keeps TCP connections from hearing anything while their sockets are being
 * saved, are gone, or are being made: a table of nf_tables that drops their
 * packets in both directions. So no reset gets out, and the peers try again.
 *
 * Two kinds of tables: while ckpt works, one that the kernel removes when ckpt
 * ends, however it ends (NFT_TABLE_F_OWNER, Linux 5.12); and, from the end of
 * the program to its restore, one that stays. That has the name by which CRIU
 * finds it, too, so that each can restore what the other has dumped.
 */
import { CkptError, EXIT, type ExitCode } from "../error.ts";
import { ENOENT, EPERM } from "../ffi/errno.ts";
import { SyscallError } from "../ffi/syscall.ts";
import {
  type Attribute,
  encodeAttributes,
  encodeMessage,
  join,
  NetlinkSocket,
  NLM_F,
} from "./netlink.ts";
import { IPPROTO_TCP } from "./socket_kind.ts";

/** A connection, as its packets show it. Words as they lie in memory. */
export interface ConnectionAddress {
  /** One word each of IPv4, also of a mapped address, or four of IPv6. */
  readonly local: readonly number[];
  readonly remote: readonly number[];
  readonly localPort: number;
  readonly remotePort: number;
}

const NETLINK_NETFILTER = 12;
const NFNL_SUBSYS_NFTABLES = 10;
const BATCH_BEGIN = 0x10;
const BATCH_END = 0x11;
const MESSAGE = {
  newTable: 0,
  getTable: 1,
  deleteTable: 2,
  newChain: 3,
  newRule: 6,
  newSet: 9,
  newElements: 12,
  deleteElements: 14,
} as const;
const NFPROTO_INET = 1;
const NFT_TABLE_F_OWNER = 2;
const LIST_ELEM = 1;
const DATA_VALUE = 1;
/** NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT. */
const HOOKS = { input: 1, output: 3 } as const;
const NF_ACCEPT = 1;
const NF_DROP = 0;
/** NFT_REG32_00: the others follow, 4 bytes each. */
const REGISTER = 8;
const META = { mark: 3, nfproto: 15, l4proto: 16 } as const;
const NETWORK = 1;
const TRANSPORT = 2;
/** Types of nft(8) in a concatenation, 6 bits each: how it shows the sets. */
const TYPES = { ipv4: 7, ipv6: 8, port: 13 } as const;

/** The mark of packets that a table of ckpt's or CRIU's lets through. */
export const LET_THROUGH = 0xc114;

/** What differs between the two versions of IP. */
const FAMILIES = [
  // NFPROTO_IPV4: offsets of the addresses in the header.
  { set: "conns4", nfproto: 2, length: 4, source: 12, destination: 16 },
  { set: "conns6", nfproto: 10, length: 16, source: 8, destination: 24 },
] as const;
type Family = typeof FAMILIES[number];

/** The name of the table that stays, as CRIU makes it of the same field. */
export function lockName(runId: string): string {
  return `CRIU-${runId.slice(0, 21)}`;
}

interface Step {
  readonly type: number;
  readonly flags: number;
  readonly attributes: readonly Attribute[];
}

/** The table, its sets, chains and rules. */
function tableSteps(name: string, owned: boolean): Step[] {
  const flags = NLM_F.CREATE | NLM_F.EXCL;
  const steps: Step[] = [{
    type: MESSAGE.newTable,
    flags,
    attributes: [[1, name], [2, owned ? NFT_TABLE_F_OWNER : 0]],
  }];
  FAMILIES.forEach(({ set, length }, i) => {
    const address = length === 4 ? TYPES.ipv4 : TYPES.ipv6;
    const keyType = [address, TYPES.port, address, TYPES.port]
      .reduce((type, part) => type << 6 | part, 0);
    steps.push({
      type: MESSAGE.newSet,
      flags,
      attributes: [
        [1, name],
        [2, set],
        [3, 0],
        [4, keyType],
        [5, 2 * length + 8],
        [10, i + 1],
      ],
    });
  });
  for (const chain of ["input", "output"] as const) {
    steps.push({
      type: MESSAGE.newChain,
      flags,
      attributes: [
        [1, name],
        [3, chain],
        [4, [[1, HOOKS[chain]], [2, 0]]],
        [5, NF_ACCEPT],
        [7, "filter"],
      ],
    });
    for (const family of FAMILIES) {
      steps.push({
        type: MESSAGE.newRule,
        flags: NLM_F.CREATE,
        attributes: [
          [1, name],
          [2, chain],
          [4, dropRule(family).map((part) => [LIST_ELEM, part])],
        ],
      });
    }
  }
  return steps;
}

/** Packets of TCP whose addresses are in the set, whichever direction. */
function dropRule(
  { set, nfproto, length, source, destination }: Family,
): Attribute[][] {
  const expression = (name: string, data: Attribute[]): Attribute[] => [
    [1, name],
    [2, data],
  ];
  const meta = (key: number) => expression("meta", [[1, REGISTER], [2, key]]);
  const compare = (operation: number, value: Uint8Array) =>
    expression("cmp", [
      [1, REGISTER],
      [2, operation],
      [3, [[DATA_VALUE, value]]],
    ]);
  const load = (word: number, base: number, offset: number, length: number) =>
    expression("payload", [
      [1, REGISTER + word],
      [2, base],
      [3, offset],
      [4, length],
    ]);
  const words = length / 4;
  return [
    meta(META.mark),
    compare(1, new Uint8Array(Uint32Array.of(LET_THROUGH).buffer)),
    meta(META.nfproto),
    compare(0, Uint8Array.of(nfproto)),
    meta(META.l4proto),
    compare(0, Uint8Array.of(IPPROTO_TCP)),
    load(0, NETWORK, source, length),
    load(words, TRANSPORT, 0, 2),
    load(words + 1, NETWORK, destination, length),
    load(2 * words + 1, TRANSPORT, 2, 2),
    expression("lookup", [[1, set], [2, REGISTER]]),
    expression("immediate", [[1, 0], [2, [[2, [[1, NF_DROP]]]]]]),
  ];
}

/** An attribute cannot be longer than 64 KiB. */
const ELEMENTS_AT_ONCE = 1000;
const ATTRIBUTE_HEADER = 4;

/** Both directions of each connection; the kernel takes one that it has. */
function elementSteps(
  name: string,
  connections: readonly ConnectionAddress[],
): Step[] {
  return FAMILIES.flatMap(({ set, length }) => {
    const all = connections.filter(({ local }) => local.length * 4 === length);
    const pairs = ELEMENTS_AT_ONCE / 2;
    return Array.from(
      { length: Math.ceil(all.length / pairs) },
      (_, i): Step => ({
        type: MESSAGE.newElements,
        flags: NLM_F.CREATE,
        attributes: [
          [1, name],
          [2, set],
          [3, encodeElements(all.slice(i * pairs, (i + 1) * pairs), length)],
        ],
      }),
    );
  });
}

/** Address, port, address, port, as the rules load them. */
function encodeElements(
  connections: readonly ConnectionAddress[],
  addressLength: number,
): Uint8Array {
  const key = 2 * addressLength + 8;
  const element = 3 * ATTRIBUTE_HEADER + key;
  const bytes = new Uint8Array(2 * connections.length * element);
  const view = new DataView(bytes.buffer);
  let at = 0;
  const end = (words: readonly number[], port: number) => {
    for (const word of words) {
      view.setUint32(at, word, true);
      at += 4;
    }
    view.setUint16(at, port);
    at += 4;
  };
  for (const { local, localPort, remote, remotePort } of connections) {
    for (const outwards of [true, false]) {
      // List element, its key, the value of that.
      for (let depth = 0; depth < 3; depth++) {
        view.setUint16(at, element - depth * ATTRIBUTE_HEADER, true);
        view.setUint16(at + 2, 1, true);
        at += ATTRIBUTE_HEADER;
      }
      if (outwards) end(local, localPort);
      end(remote, remotePort);
      if (!outwards) end(local, localPort);
    }
  }
  return bytes;
}

function nfgenmsg(family: number, resource: number): Uint8Array {
  const bytes = new Uint8Array(4);
  bytes[0] = family;
  new DataView(bytes.buffer).setUint16(2, resource);
  return bytes;
}

function carryOut(socket: NetlinkSocket, steps: readonly Step[]): void {
  if (steps.length === 0) return;
  const marker = (type: number) =>
    encodeMessage(type, 0, 0, nfgenmsg(0, NFNL_SUBSYS_NFTABLES));
  const messages = steps.map(({ type, flags, attributes }, i) =>
    encodeMessage(
      NFNL_SUBSYS_NFTABLES << 8 | type,
      flags | (i === steps.length - 1 ? NLM_F.ACK : 0),
      i + 1,
      join([nfgenmsg(NFPROTO_INET, 0), encodeAttributes(attributes)]),
    )
  );
  socket.transact(
    join([marker(BATCH_BEGIN), ...messages, marker(BATCH_END)]),
    steps.length,
  );
}

function open(): NetlinkSocket {
  return explained(() => new NetlinkSocket(NETLINK_NETFILTER));
}

/** Says what to do about a failure, which may be that nothing is there. */
function explained<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    const isForbidden = error.errno === EPERM;
    const exit: ExitCode = isForbidden ? EXIT.permission : EXIT.failed;
    throw new CkptError(exit, "blocking the traffic of TCP connections", [{
      object: "nf_tables",
      why: error.message,
      remedy: isForbidden
        ? "ckpt needs the capability CAP_NET_ADMIN in the network namespace"
        : "ckpt needs Linux 5.12 or newer with CONFIG_NF_TABLES_INET; try: " +
          "modprobe nf_tables",
    }], { cause: error });
  }
}

/** A table that is there for as long as ckpt works. */
export class NetworkLock implements Disposable {
  readonly #name: string;
  readonly #socket: NetlinkSocket;

  private constructor(name: string, socket: NetlinkSocket) {
    this.#name = name;
    this.#socket = socket;
  }

  /**
   * Makes the table; nothing is blocked yet. The kernel removes it when this
   * is disposed of, or ckpt ends.
   *
   * @throws CkptError when the kernel cannot do that
   */
  static prepare(runId: string): NetworkLock {
    const name = `ckpt-${runId}`;
    const socket = open();
    try {
      explained(() => carryOut(socket, tableSteps(name, true)));
      return new NetworkLock(name, socket);
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  block(connections: readonly ConnectionAddress[]): void {
    explained(() =>
      carryOut(this.#socket, elementSteps(this.#name, connections))
    );
  }

  /** Lets all through again; faster than to remove the table. */
  unblock(): void {
    explained(() =>
      carryOut(
        this.#socket,
        FAMILIES.map(({ set }) => ({
          type: MESSAGE.deleteElements,
          flags: 0,
          attributes: [[1, this.#name], [2, set]],
        })),
      )
    );
  }

  /** Blocks them until {@link removeLock}, also when ckpt has ended. */
  leave(name: string, connections: readonly ConnectionAddress[]): void {
    const steps = [
      ...tableSteps(name, false),
      ...elementSteps(name, connections),
    ];
    explained(() => carryOut(this.#socket, steps));
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/**
 * A table that a dump has left here. The socket stays open: to close one after
 * a table is gone takes 10 ms, in which the kernel waits for all processors
 * (nft_rcv_nl_event in net/netfilter/nf_tables_api.c).
 */
export class LeftLock implements Disposable {
  private constructor(
    readonly name: string,
    readonly socket: NetlinkSocket,
  ) {}

  /** @returns undefined: there is none of this name */
  static find(name: string): LeftLock | undefined {
    const socket = open();
    const request = encodeMessage(
      NFNL_SUBSYS_NFTABLES << 8 | MESSAGE.getTable,
      NLM_F.ACK,
      1,
      join([nfgenmsg(NFPROTO_INET, 0), encodeAttributes([[1, name]])]),
    );
    let isThere = false;
    try {
      isThere = ifThere(() => socket.transact(request, 1));
      return isThere ? new LeftLock(name, socket) : undefined;
    } finally {
      if (!isThere) socket[Symbol.dispose]();
    }
  }

  /** @returns whether it was still there */
  remove(): boolean {
    return ifThere(() =>
      carryOut(this.socket, [{
        type: MESSAGE.deleteTable,
        flags: 0,
        attributes: [[1, this.name]],
      }])
    );
  }

  [Symbol.dispose](): void {
    this.socket[Symbol.dispose]();
  }
}

/** @returns whether there was such a table */
export function removeLock(name: string): boolean {
  using lock = LeftLock.find(name);
  return lock?.remove() ?? false;
}

function ifThere(act: () => void): boolean {
  try {
    act();
    return true;
  } catch (error) {
    if (error instanceof SyscallError && error.errno === ENOENT) return false;
    return explained(() => {
      throw error;
    });
  }
}
