/**
 * Packet sockets (packet(7)): what is seen of one, what cannot be saved, its
 * entry in files.img, and how it is made again.
 */
import type { Reason } from "../error.ts";
import { addressOf, O, syscallBuffer1 } from "../ffi/syscall.ts";
import type {
  fown_entry,
  packet_mclist,
  packet_sock_entry,
} from "../image/schema.gen.ts";
import { hasInterface, interfaceName } from "./interfaces.ts";
import type { Wanted } from "./make_descriptions.ts";
import { packetDetails, type PacketRings } from "./packet_diag.ts";
import type { PacketSocketImage } from "./socket_images.ts";
import { OptionSetter } from "./option_setter.ts";
import { readSocketOptions, type SocketOptions } from "./socket_options.ts";
import { AF_PACKET, type SocketKind } from "./socket_kind.ts";
import { getInt, SOL_PACKET } from "./sockopt.ts";
import type { TableProgram } from "./table_program.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";

export interface SeenPacketSocket {
  readonly family: "packet";
  readonly ino: number;
  readonly kind: SocketKind;
  /** As it lies in memory, in network order. */
  readonly protocol: number;
  /** Number of the interface it is bound to, and its name; 0: all. */
  readonly ifindex: number;
  readonly interface: string | undefined;
  readonly values: Readonly<Record<keyof typeof OPTION, number>>;
  readonly copyThreshold: number;
  readonly memberships: readonly packet_mclist[];
  readonly rings: PacketRings;
  readonly options: SocketOptions;
  readonly hasUnread: boolean;
  readonly hasError: boolean;
}

/** include/uapi/linux/if_packet.h */
const OPTION = {
  AUXDATA: 8,
  ORIGDEV: 9,
  VERSION: 10,
  RESERVE: 12,
  LOSS: 14,
  VNET_HDR: 15,
  TIMESTAMP: 17,
  FANOUT: 18,
} as const;
/** PACKET_FANOUT_CBPF, PACKET_FANOUT_EBPF */
const CHOOSERS = [6, 7];
const ADD_MEMBERSHIP = 1;
const COPY_THRESHOLD = 7;
/** CRIU's number for a socket that is in no group. */
const NO_FANOUT = 0xffffffff;
/** struct sockaddr_ll and packet_mreq. */
const ADDRESS = 20;
const MREQ = 16;
const POLLIN = 1;

/**
 * @param fd a descriptor of ckpt's own for the socket
 * @param events what poll(2) tells of it
 * @returns undefined for a socket of another network namespace
 */
export function lookAtPacketSocket(
  fd: number,
  ino: bigint,
  kind: SocketKind,
  events: number,
  hasError: boolean,
): SeenPacketSocket | undefined {
  const details = packetDetails(Number(ino));
  if (details === undefined) return undefined;
  const address = new Uint8Array(32);
  const length = new Uint8Array([32, 0, 0, 0]);
  syscallBuffer1("getsockname", BigInt(fd), address, addressOf(length));
  const view = new DataView(address.buffer);
  const ifindex = view.getInt32(4, true);
  const entries = Object.entries(OPTION).map(([key, name]) =>
    [key, getInt(fd, SOL_PACKET, name)] as const
  );
  return {
    family: "packet",
    ino: Number(ino),
    kind,
    protocol: view.getUint16(2, true),
    ifindex,
    interface: ifindex === 0 ? undefined : interfaceName(fd, ifindex),
    values: Object.fromEntries(entries) as SeenPacketSocket["values"],
    copyThreshold: details.copyThreshold,
    memberships: details.memberships,
    rings: details.rings,
    options: readSocketOptions(fd, kind),
    hasUnread: (events & POLLIN) !== 0,
    hasError,
  };
}

/** @returns why it cannot be saved, undefined when it can */
export function packetProblem(
  { hasError, values: { FANOUT } }: SeenPacketSocket,
): { why: string; remedy?: string } | undefined {
  if (CHOOSERS.includes(FANOUT >>> 16 & 0xff)) {
    return {
      why: "it is in a fanout group in which a program of BPF chooses " +
        "(PACKET_FANOUT_DATA), and the kernel does not give its instructions",
      remedy: "let the program use another kind of group, such as " +
        "PACKET_FANOUT_HASH",
    };
  }
  return hasError
    ? {
      why: "it has an error that the program has not seen yet, which is not " +
        "supported",
      remedy: "dump again when the program has read from it",
    }
    : undefined;
}

export function describePacketSocket(
  socket: SeenPacketSocket,
  id: number,
  flags: number,
  fown: fown_entry,
): packet_sock_entry {
  const { kind, protocol, ifindex, values, options } = socket;
  return {
    id,
    type: kind.type,
    protocol,
    flags,
    ifindex,
    fown,
    opts: options.opts,
    version: values.VERSION,
    reserve: values.RESERVE,
    aux_data: values.AUXDATA !== 0,
    orig_dev: values.ORIGDEV !== 0,
    vnet_hdr: values.VNET_HDR !== 0,
    loss: values.LOSS !== 0,
    timestamp: values.TIMESTAMP,
    copy_thresh: socket.copyThreshold,
    mclist: [...socket.memberships],
    fanout: values.FANOUT === 0 ? undefined : values.FANOUT >>> 0,
    rx_ring: socket.rings.receiving,
    tx_ring: socket.rings.sending,
  };
}

/** Interfaces that are not there (any more). */
export function packetProblems(
  sockets: Iterable<PacketSocketImage>,
): Reason[] {
  return [...sockets].flatMap(({ entry, extension }) => {
    const { interface: name = entry.ifindex } = extension;
    return entry.ifindex === 0 || hasInterface(name) ? [] : [{
      object: `the packet socket with id ${entry.id} in files.img`,
      why: `this host has no interface ${name}`,
      remedy: "make such an interface first: ip link add",
    }];
  });
}

/** socket(2), and all that it takes until it is as it was. */
export function makePacketSocket(
  table: TableProgram,
  { fd, cloexec }: Wanted,
  image: PacketSocketImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { program } = table;
  const what = `descriptor ${fd} (a packet socket)`;
  // Without a protocol it gets nothing until it is bound.
  program.call(
    "socket",
    [AF_PACKET, image.entry.type | O.CLOEXEC, 0],
    `making ${what}`,
  );
  table.settle(fd, cloexec);
  const options = new OptionSetter(program, fd, what);
  preparePacketSocket(options, image);
  filterPacketSocket(options, image);
  placePacketSocket(options, image, interfaces);
}

/** All options that rings hinder; of what it does not get anything yet. */
export function preparePacketSocket(
  options: OptionSetter,
  { entry, extension }: PacketSocketImage,
): void {
  const { program, fd, what } = options;
  const { uid = 0, gid = 0 } = extension;
  if (uid !== 0 || gid !== 0) {
    program.call("fchown", [fd, uid, gid], `setting the owner of ${what}`);
  }
  options.common({ ...entry.opts, so_filter: [] });
  if (entry.opts.reuseaddr) options.sharing(true, false);
  const set = (name: number, value: number | boolean) => {
    if (value) options.int(SOL_PACKET, name, Number(value));
  };
  set(OPTION.VERSION, entry.version);
  set(OPTION.RESERVE, entry.reserve);
  set(OPTION.AUXDATA, entry.aux_data);
  set(OPTION.ORIGDEV, entry.orig_dev);
  set(OPTION.VNET_HDR, entry.vnet_hdr);
  set(OPTION.LOSS, entry.loss);
  set(OPTION.TIMESTAMP, entry.timestamp);
  set(COPY_THRESHOLD, entry.copy_thresh);
  options.further(extension.options, false);
}

export function filterPacketSocket(
  options: OptionSetter,
  { entry, extension }: PacketSocketImage,
): void {
  options.filter(entry.opts);
  options.locks(extension.options);
}

/** Lets it get what it is to get. */
export function placePacketSocket(
  options: OptionSetter,
  { entry, extension }: PacketSocketImage,
  interfaces: ReadonlyMap<string, number>,
): void {
  const { program, fd, what } = options;
  for (const { index, type, addr } of entry.mclist) {
    const request = new Uint8Array(MREQ);
    const view = new DataView(request.buffer);
    view.setInt32(0, index, true);
    view.setUint16(4, type, true);
    view.setUint16(6, addr.length, true);
    request.set(addr, 8);
    options.bytes(SOL_PACKET, ADD_MEMBERSHIP, request);
  }
  const address = new Uint8Array(ADDRESS);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_PACKET, true);
  view.setUint16(2, entry.protocol, true);
  const { interface: name } = extension;
  const ifindex = interfaces.get(name ?? "") ?? entry.ifindex;
  view.setInt32(4, ifindex, true);
  program.call(
    "bind",
    [fd, program.bytes(address), ADDRESS],
    `binding ${what}`,
  );
  const { fanout = NO_FANOUT } = entry;
  if (fanout !== NO_FANOUT) options.int(SOL_PACKET, OPTION.FANOUT, fanout);
  program.call(
    "fcntl",
    [fd, F_SETFL, entry.flags & SETTABLE_FLAGS],
    `setting the flags of ${what}`,
  );
}
