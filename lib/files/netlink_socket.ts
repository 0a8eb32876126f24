/**
 * Netlink sockets of programs (netlink(7)): what is seen of one, what cannot be
 * saved, its entry in files.img, and how it is made again.
 */
import type { Reason } from "../error.ts";
import { EADDRINUSE } from "../ffi/errno.ts";
import { O, syscall, syscallBuffer1, SyscallError } from "../ffi/syscall.ts";
import { addressOf, close } from "../ffi/syscall.ts";
import type { fown_entry, netlink_sk_entry } from "../image/schema.gen.ts";
import type { Wanted } from "./make_descriptions.ts";
import { holderOf } from "./outside_holders.ts";
import type { NetlinkSocketImage } from "./socket_images.ts";
import { OptionSetter } from "./option_setter.ts";
import { readSocketOptions, type SocketOptions } from "./socket_options.ts";
import { AF_NETLINK, SOCK, type SocketKind } from "./socket_kind.ts";
import { getOption, SOL_NETLINK } from "./sockopt.ts";
import type { TableProgram } from "./table_program.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";

export interface SeenNetlinkSocket {
  readonly family: "netlink";
  readonly ino: number;
  readonly kind: SocketKind;
  /** 0: it is not bound. */
  readonly portId: number;
  /** Multicast groups that it has joined: bit 0 of the first is group 1. */
  readonly groups: readonly number[];
  /** Where it sends to; zeros: to the kernel. */
  readonly peer: { readonly portId: number; readonly groups: number };
  readonly options: SocketOptions;
  readonly hasUnread: boolean;
  readonly hasError: boolean;
}

const ADD_MEMBERSHIP = 1;
const LIST_MEMBERSHIPS = 9;
const ADDRESS = 12;
const CONNECTED = 1;
const POLLIN = 1;

/**
 * @param fd a descriptor of ckpt's own for the socket
 * @param events what poll(2) tells of it
 */
export function lookAtNetlinkSocket(
  fd: number,
  ino: bigint,
  kind: SocketKind,
  events: number,
  hasError: boolean,
): SeenNetlinkSocket {
  return {
    family: "netlink",
    ino: Number(ino),
    kind,
    portId: addressBy("getsockname", fd).portId,
    groups: [
      ...new Uint32Array(getOption(fd, SOL_NETLINK, LIST_MEMBERSHIPS).buffer),
    ],
    peer: addressBy("getpeername", fd),
    options: readSocketOptions(fd, kind),
    hasUnread: (events & POLLIN) !== 0,
    hasError,
  };
}

function addressBy(
  call: "getsockname" | "getpeername",
  fd: number,
): { portId: number; groups: number } {
  const address = new Uint8Array(ADDRESS);
  const length = new Uint8Array([ADDRESS, 0, 0, 0]);
  syscallBuffer1(call, BigInt(fd), address, addressOf(length));
  const view = new DataView(address.buffer);
  return { portId: view.getUint32(4, true), groups: view.getUint32(8, true) };
}

/** struct sockaddr_nl. */
function encodeAddress(
  portId: number,
  groups: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(ADDRESS);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(4, portId, true);
  view.setUint32(8, groups, true);
  return bytes;
}

/** @returns why it cannot be saved, undefined when it can */
export function netlinkProblem(
  { hasError }: SeenNetlinkSocket,
): { why: string; remedy?: string } | undefined {
  return hasError
    ? {
      why: "it has lost messages, which the program has not been told yet " +
        "(ENOBUFS); that is not supported",
      remedy: "dump again when the program has read from it",
    }
    : undefined;
}

export function describeNetlinkSocket(
  { ino, kind, portId, groups, peer, options }: SeenNetlinkSocket,
  id: number,
  flags: number,
  fown: fown_entry,
): netlink_sk_entry {
  const isConnected = peer.portId !== 0 || peer.groups !== 0;
  // CRIU takes no more than one word, and refuses an image with more.
  const last = groups.findLastIndex((word) => word !== 0);
  return {
    id,
    ino,
    protocol: kind.protocol,
    state: isConnected ? CONNECTED : 0,
    flags,
    portid: portId,
    groups: groups.slice(0, Math.max(last + 1, 1)),
    dst_portid: peer.portId,
    dst_group: groupOf(peer.groups),
    fown,
    opts: options.opts,
  };
}

/** The number of a group by its bit, as CRIU has it. */
function groupOf(mask: number): number {
  return mask === 0 ? 0 : 32 - Math.clz32(mask);
}

/** Tries each port id for a moment, to see whether this host lets it. */
export function netlinkProblems(
  sockets: Iterable<NetlinkSocketImage>,
): Reason[] {
  return [...sockets].flatMap(({ entry }) => {
    const { protocol, portid } = entry;
    const object = `netlink socket:[${entry.ino}] of protocol ${protocol}`;
    let fd: number | undefined;
    try {
      fd = Number(
        syscall(
          "socket",
          BigInt(AF_NETLINK),
          BigInt(SOCK.RAW | O.CLOEXEC),
          BigInt(protocol),
        ),
      );
      if (portid === 0) return [];
      const address = encodeAddress(portid, 0);
      syscallBuffer1("bind", BigInt(fd), address, BigInt(ADDRESS));
      return [];
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      return error.errno === EADDRINUSE
        ? [{
          object,
          why: `its port id ${portid} is in use by ${whoHas(entry)}`,
          remedy: "end that first",
        }]
        : [{ object, why: `this kernel does not have it: ${error.message}` }];
    } finally {
      if (fd !== undefined) close(fd);
    }
  });
}

function whoHas({ protocol, portid }: netlink_sk_entry): string {
  const text = Deno.readTextFileSync("/proc/net/netlink");
  const ino = socketOfPortId(text, protocol, portid);
  return ino === undefined ? "a process that cannot be seen" : holderOf(ino);
}

/** @param text of /proc/net/netlink (netlink_native_seq_show) */
export function socketOfPortId(
  text: string,
  protocol: number,
  portId: number,
): number | undefined {
  for (const line of text.split("\n").slice(1)) {
    const words = line.trim().split(/\s+/);
    if (Number(words[1]) === protocol && Number(words[2]) === portId) {
      return Number(words[9]);
    }
  }
  return undefined;
}

/** socket(2), and all that it takes until it is as it was. */
export function makeNetlinkSocket(
  table: TableProgram,
  { flags, fd, cloexec }: Wanted,
  { entry, extension }: NetlinkSocketImage,
): void {
  const { program } = table;
  const { protocol, opts, portid, groups, state, dst_portid, dst_group } =
    entry;
  const what = `descriptor ${fd} (netlink socket of protocol ${protocol})`;
  const type = extension.type ?? SOCK.RAW;
  program.call(
    "socket",
    [AF_NETLINK, type | O.CLOEXEC, protocol],
    `making ${what}`,
  );
  table.settle(fd, cloexec);
  const { uid = 0, gid = 0 } = extension;
  if (uid !== 0 || gid !== 0) {
    program.call("fchown", [fd, uid, gid], `setting the owner of ${what}`);
  }
  const options = new OptionSetter(program, fd, what);
  options.common(opts);
  if (opts.reuseaddr) options.sharing(true, false);
  options.further(extension.options);
  const call = (name: "bind" | "connect", portId: number, mask: number) =>
    program.call(
      name,
      [fd, program.bytes(encodeAddress(portId, mask)), ADDRESS],
      name === "bind" ? `binding ${what}` : `connecting ${what}`,
    );
  if (portid !== 0 || groups.some((word) => word !== 0)) {
    call("bind", portid, groups[0] ?? 0);
  }
  groups.slice(1).forEach((word, i) => {
    for (let bit = 0; bit < 32; bit++) {
      if ((word >>> bit & 1) === 0) continue;
      options.int(SOL_NETLINK, ADD_MEMBERSHIP, 32 * (i + 1) + bit + 1);
    }
  });
  if (state === CONNECTED) {
    call("connect", dst_portid, dst_group === 0 ? 0 : 1 << dst_group - 1);
  }
  program.call(
    "fcntl",
    [fd, F_SETFL, flags & SETTABLE_FLAGS],
    `setting the flags of ${what}`,
  );
}
