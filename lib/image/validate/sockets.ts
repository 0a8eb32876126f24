/** Checks sockets, what is queued in them, and how they belong together. */

import { imageName } from "../kinds.ts";
import {
  type ckpt_socket_entry,
  fd_types,
  type inet_sk_entry,
  type sk_opts_entry,
  type unix_sk_entry,
} from "../schema.gen.ts";
import type { FileTable } from "./file_table.ts";
import type { Findings } from "./findings.ts";

const FILES = imageName("files");
const QUEUES = imageName("sk-queues");
const EXTENSIONS = imageName("ckpt-sockets");

const ESTABLISHED = 1;
const CLOSE = 7;
const LISTEN = 10;
const UNIX_TYPES: ReadonlySet<number> = new Set([1, 2, 5]);
const UNIX_STATES: ReadonlySet<number> = new Set([ESTABLISHED, CLOSE, LISTEN]);
/** Words of an address, by AF_INET and AF_INET6. */
const ADDRESS_WORDS: ReadonlyMap<number, number> = new Map([[2, 1], [10, 4]]);
const LARGEST_PORT = 65535;
const SHUT_BOTH = 3;
const PERMISSIONS = 0o7777;
const S_IFSOCK = 0o140000;
/** BPF_MAXINSNS. */
const LONGEST_FILTER = 4096;
/** IFNAMSIZ, with a zero at the end. */
const LONGEST_INTERFACE = 15;
/** struct tcp_md5sig (TCP_MD5SIG_EXT) */
const LONGEST_OPTION = 216;
/** PACKET_VERSION */
const TPACKET_V3 = 2;
/** As lib/files/packet_rings.ts saves at most. */
const LARGEST_RINGS = 128 << 20;
const SCM_RIGHTS = 1;
/** SCM_MAX_FD of the kernel's include/net/scm.h. */
const MOST_RIGHTS = 253;
const TCP = 6;
const STREAM = 1;
/** ESTABLISHED, FIN_WAIT1 and 2, CLOSE_WAIT, LAST_ACK, CLOSING. */
const CONNECTED: ReadonlySet<number> = new Set([1, 4, 5, 8, 9, 11]);
/** TCPI_OPT_*. */
const OPTION = { timestamps: 1, scale: 4 } as const;
/** TCP_MAX_WSCALE (RFC 7323). */
const LARGEST_SCALE = 14;
const WINDOW = ["snd_wl1", "max_window", "rcv_wnd", "rcv_wup"] as const;

type Wrong = (field: string, why: string) => void;

export function checkSockets(findings: Findings, table: FileTable): void {
  const unix = new Map<number, unix_sk_entry>();
  const connections = new Set<number>();
  const wrongIn = (number: number) => (field: string, why: string) =>
    findings.add(FILES, number, field, why);
  table.each(fd_types.UNIXSK, ({ usk }, number) => {
    if (usk === undefined) return;
    if (unix.has(usk.ino)) {
      findings.add(FILES, number, "usk.ino", `${usk.ino} is there twice`);
    }
    unix.set(usk.ino, usk);
  });
  table.each(fd_types.UNIXSK, ({ usk }, number) => {
    if (usk !== undefined) checkUnix(usk, unix, wrongIn(number));
  });
  table.each(fd_types.INETSK, ({ isk }, number) => {
    if (isk === undefined) return;
    const wrong = wrongIn(number);
    checkInet(isk, wrong);
    if (!isConnection(isk)) return;
    if (connections.has(isk.ino)) wrong("isk.ino", `${isk.ino} is there twice`);
    connections.add(isk.ino);
    checkStream(findings, isk, wrong);
  });
  checkQueues(findings, table);
  checkExtensions(findings, table, unix);
  checkPacketRings(findings, table);
}

/** Types of files that are sockets. */
const SOCKETS: ReadonlySet<number | undefined> = new Set([
  fd_types.UNIXSK,
  fd_types.INETSK,
  fd_types.NETLINKSK,
  fd_types.PACKETSK,
]);

/** The kernel takes the rings themselves, or not; how far they are, is ours. */
function checkPacketRings(findings: Findings, table: FileTable): void {
  (findings.read("ckpt-sockets", undefined) ?? []).forEach((entry, i) => {
    const { id, packet_rings: rings } = entry;
    if (rings === undefined) return;
    const wrong = (field: string, why: string) =>
      findings.add(EXTENSIONS, i, `packet_rings.${field}`, why);
    const { rx_ring, tx_ring, version = 0 } = table.file(id)?.psk ?? {};
    if ((rx_ring ?? tx_ring) === undefined) {
      wrong("received", `${id} is no packet socket with a ring`);
    }
    if (version > TPACKET_V3) {
      wrong("received", `version ${version} is unknown`);
    }
    const hasBlocks = version === TPACKET_V3;
    const places = (hasBlocks ? rx_ring?.block_nr : rx_ring?.frame_nr) ?? 1;
    if (rings.received >= places) {
      wrong("received", `${rings.received} is beyond the ring`);
    }
    if (rings.sent >= (tx_ring?.frame_nr ?? 1)) {
      wrong("sent", `${rings.sent} is beyond the ring`);
    }
    let size = 0;
    for (const ring of [rx_ring, tx_ring]) {
      if (ring === undefined) continue;
      const { block_size, block_nr, frame_size, frame_nr } = ring;
      size += block_size * block_nr;
      const inBlock = Math.floor(block_size / frame_size);
      if (frame_nr !== inBlock * block_nr || size > LARGEST_RINGS) {
        wrong("parts", "are of rings that do not exist");
      }
    }
    for (const { offset, content } of rings.parts) {
      if (offset + content.length > size) {
        wrong("parts", "are beyond the rings");
      }
    }
  });
}

function checkUnix(
  { type, state, peer, name, shutdown, file_perms, opts }: unix_sk_entry,
  unix: ReadonlyMap<number, unix_sk_entry>,
  wrong: Wrong,
): void {
  if (!UNIX_TYPES.has(type)) wrong("usk.type", `${type} is no type of socket`);
  if (!UNIX_STATES.has(state)) {
    wrong("usk.state", `${state} is no state of a Unix socket`);
  }
  if (state === LISTEN && (name.length === 0 || type === 2)) {
    wrong("usk.state", "it cannot listen");
  }
  const other = unix.get(peer);
  if (peer !== 0 && other === undefined) {
    wrong("usk.peer", `${peer} is no Unix socket of files.img`);
  } else if (other !== undefined && other.type !== type) {
    wrong("usk.peer", `${peer} is of another type`);
  }
  // CRIU keeps the type with them.
  const kind = (file_perms?.mode ?? 0) & ~PERMISSIONS;
  if (kind !== 0 && kind !== S_IFSOCK) {
    wrong(
      "usk.file_perms.mode",
      `0${file_perms!.mode.toString(8)} is more than permissions`,
    );
  }
  checkCommon("usk", opts, shutdown, wrong);
}

function checkInet(entry: inet_sk_entry, wrong: Wrong): void {
  const words = ADDRESS_WORDS.get(entry.family);
  if (words === undefined) {
    wrong("isk.family", `${entry.family} is neither IPv4 nor IPv6`);
  }
  for (const field of ["src_addr", "dst_addr"] as const) {
    const { length } = entry[field];
    if (words !== undefined && length !== words) {
      wrong(`isk.${field}`, `has ${length} words, not ${words}`);
    }
  }
  for (const field of ["src_port", "dst_port"] as const) {
    const port = entry[field];
    if (port > LARGEST_PORT) wrong(`isk.${field}`, `${port} is no port`);
  }
  if ((entry.ifname?.length ?? 0) > LONGEST_INTERFACE) {
    wrong("isk.ifname", `"${entry.ifname}" is no name of an interface`);
  }
  checkCommon("isk", entry.opts, entry.shutdown, wrong);
}

/** TCP in a state in which it has a peer. */
function isConnection({ proto, state }: inet_sk_entry): boolean {
  return proto === TCP && CONNECTED.has(state);
}

/** The queues and numbers of a connection, which --tcp-close leaves out. */
function checkStream(
  findings: Findings,
  { ino, type, src_port, dst_port }: inet_sk_entry,
  wrong: Wrong,
): void {
  if (type !== STREAM) wrong("isk.type", `${type} is no type of TCP`);
  if (src_port === 0 || dst_port === 0) {
    wrong("isk.state", "a TCP connection has two ports");
  }
  const stream = findings.read("tcp-stream", ino);
  const name = imageName("tcp-stream", ino);
  if (stream === undefined) {
    if (!findings.set.inventory.tcp_close) {
      wrong("isk.state", `${name} is missing`);
    }
    return;
  }
  const problem = (field: string, why: string) =>
    findings.add(name, 0, field, why);
  const { opt_mask, rcv_wscale, timestamp, unsq_len } = stream;
  if (unsq_len === undefined) problem("unsq_len", "is missing");
  else if (unsq_len > stream.outq_len) {
    problem("unsq_len", `${unsq_len} is more than the queue has`);
  }
  if ((opt_mask & OPTION.scale) !== 0) {
    if (rcv_wscale === undefined) problem("rcv_wscale", "is missing");
    for (const field of ["snd_wscale", "rcv_wscale"] as const) {
      if ((stream[field] ?? 0) > LARGEST_SCALE) {
        problem(field, `${stream[field]} is more than ${LARGEST_SCALE}`);
      }
    }
  }
  if ((opt_mask & OPTION.timestamps) !== 0 && timestamp === undefined) {
    problem("timestamp", "is missing");
  }
  if (stream.snd_wnd === undefined) return;
  for (const field of WINDOW) {
    if (stream[field] === undefined) problem(field, "is missing");
  }
}

function checkCommon(
  member: string,
  { so_filter, so_bound_dev }: sk_opts_entry,
  shutdown: number | undefined,
  wrong: Wrong,
): void {
  if ((shutdown ?? 0) > SHUT_BOTH) {
    wrong(`${member}.shutdown`, `${shutdown} is more than both halves`);
  }
  if (so_filter.length > LONGEST_FILTER) {
    wrong(`${member}.opts.so_filter`, `has ${so_filter.length} instructions`);
  }
  if ((so_bound_dev?.length ?? 0) > LONGEST_INTERFACE) {
    wrong(
      `${member}.opts.so_bound_dev`,
      `"${so_bound_dev}" is no name of an interface`,
    );
  }
}

function checkQueues(findings: Findings, table: FileTable): void {
  const queues = findings.read("sk-queues", undefined) ?? [];
  queues.forEach(({ id_for, scm }, i) => {
    if (table.file(id_for)?.usk === undefined) {
      findings.add(QUEUES, i, "id_for", `${id_for} is no Unix socket`);
    }
    if (scm.length > 1 || scm.some(({ type }) => type !== SCM_RIGHTS)) {
      findings.add(QUEUES, i, "scm", "holds more than one SCM_RIGHTS");
    }
    const rights = scm.flatMap(({ rights }) => rights);
    if (rights.length > MOST_RIGHTS) {
      findings.add(QUEUES, i, "scm.rights", `has ${rights.length} files`);
    }
    for (const id of rights) {
      if (table.file(id) !== undefined) continue;
      findings.add(QUEUES, i, "scm.rights", `${id} is no file of files.img`);
    }
  });
}

function checkExtensions(
  findings: Findings,
  table: FileTable,
  unix: ReadonlyMap<number, unix_sk_entry>,
): void {
  const packets = Map.groupBy(
    findings.read("sk-queues", undefined) ?? [],
    ({ id_for }) => id_for,
  );
  const seen = new Set<number>();
  (findings.read("ckpt-sockets", undefined) ?? []).forEach((entry, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(EXTENSIONS, i, field, why);
    if (!SOCKETS.has(table.file(entry.id)?.type)) {
      wrong("id", `${entry.id} is no socket of files.img`);
    }
    checkExtension(entry, unix, wrong);
    if (seen.has(entry.id)) wrong("id", `${entry.id} is there twice`);
    seen.add(entry.id);
    const wanted = packets.get(entry.id)?.length ?? 0;
    const { length } = entry.packets;
    if (length > 0 && length !== wanted) {
      wrong("packets", `are ${length}, but ${wanted} are queued`);
    }
  });
}

function checkExtension(
  {
    options,
    pending,
    other_names,
    datagrams,
    memberships,
    corked,
    waiting,
    shared_port,
  }: ckpt_socket_entry,
  unix: ReadonlyMap<number, unix_sk_entry>,
  wrong: Wrong,
): void {
  for (const { value } of options) {
    if (value.length > LONGEST_OPTION) {
      wrong("options", `one has ${value.length} bytes`);
    }
  }
  for (const name of other_names) {
    if (!name.startsWith("/") || name.includes("\0")) {
      wrong("other_names", `"${name}" is no path`);
    }
  }
  for (const { source } of datagrams) {
    // struct sockaddr_in and sockaddr_in6 without the family.
    if (source.length !== 14 && source.length !== 26) {
      wrong("datagrams.source", `has ${source.length} bytes`);
    }
  }
  const toward = corked?.destination.length ?? 16;
  if (toward !== 16 && toward !== 28) {
    wrong("corked.destination", `has ${toward} bytes`);
  }
  for (const { family, group, interface: name, sources } of memberships) {
    const length = 4 * (ADDRESS_WORDS.get(family) ?? 0);
    if (length === 0) wrong("memberships.family", `${family} is unknown`);
    if ([group, ...sources].some((one) => one.length !== length)) {
      wrong("memberships", "has an address of another family");
    }
    if (name.length === 0 || name.length > LONGEST_INTERFACE) {
      wrong("memberships.interface", `"${name}" is no name of an interface`);
    }
  }
  for (const ino of pending) {
    if (!unix.has(ino)) wrong("pending", `${ino} is no Unix socket`);
  }
  if ((shared_port?.program?.length ?? 0) % 8 !== 0) {
    wrong("shared_port.program", "is no whole number of instructions");
  }
  for (const { ino } of waiting) {
    if (ino !== 0 && !unix.has(ino)) {
      wrong("waiting", `${ino} is no Unix socket`);
    }
  }
}
