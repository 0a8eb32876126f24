/**
 * What sockets hold that no call shows without taking it out, or none at all:
 * looked up in the kernel's memory, while nobody uses them.
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelPages, PAGE_FIELDS } from "../ffi/kernel_pages.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";
import type { InetAddress } from "./inet_address.ts";
import { join } from "./netlink.ts";
import { AF_INET } from "./socket_kind.ts";

const WANTED = {
  ...PAGE_FIELDS,
  socket: ["sk"],
  sock: [
    ...["sk_write_queue", "sk_receive_queue", "sk_peer_cred"],
    ...["sk_reuseport_cb", "__sk_common.skc_family", "__sk_common.skc_num"],
    ...["__sk_common.skc_dport", "__sk_common.skc_daddr"],
    ...["__sk_common.skc_rcv_saddr", "__sk_common.skc_v6_daddr"],
    "__sk_common.skc_v6_rcv_saddr",
  ],
  inet_connection_sock: ["icsk_accept_queue.rskq_accept_head"],
  request_sock: ["dl_next", "sk"],
  tcp_sock: ["rcv_nxt"],
  sock_reuseport: ["num_socks", "prog", "socks"],
  bpf_prog: ["orig_prog"],
  sock_fprog_kern: ["len", "filter"],
  cred: ["euid", "egid"],
  sk_buff: [
    ...["next", "len", "data_len", "head", "data", "end"],
    ...["transport_header", "sk", "cb"],
  ],
  unix_skb_parms: ["fp"],
  skb_shared_info: ["nr_frags", "frag_list", "frags"],
  udp_sock: ["pending", "len"],
  ipv6_pinfo: ["cork.hop_limit", "cork.tclass"],
  inet_sock: [
    ...["pinet6", "mc_index", "mc_addr"],
    "cork.base.ttl",
    "cork.base.tos",
    "cork.fl.u.ip4.daddr",
    "cork.fl.u.ip4.uli.ports.dport",
    "cork.fl.u.ip6.daddr",
    "cork.fl.u.ip6.uli.ports.dport",
    "cork.fl.u.ip6.__fl_common.flowic_oif",
  ],
} as const;

/** A datagram that is not complete yet (UDP_CORK, MSG_MORE). */
export interface CorkedDatagram {
  readonly content: Uint8Array<ArrayBuffer>;
  /** Where it goes to: an address of the family. */
  readonly family: number;
  readonly to: InetAddress;
  /** How many hosts it may pass (0: as many as by default), and its class. */
  readonly hops: number;
  readonly trafficClass: number;
}

/** A Unix connection that waits to be accepted. */
export interface WaitingConnection {
  /** What its maker has sent, packet by packet. */
  readonly sent: readonly Uint8Array<ArrayBuffer>[];
  /** Ids of its maker (SO_PEERCRED). */
  readonly uid: number;
  readonly gid: number;
  /** Descriptors are among it (SCM_RIGHTS). */
  readonly hasRights: boolean;
}

/** The place of a socket among those that share its port (SO_REUSEPORT). */
export interface SharedPort {
  /** The same for all of a group. */
  readonly group: bigint;
  readonly index: number;
  /** How many sockets have the port. */
  readonly count: number;
  /**
   * Which of them gets a packet is decided by these instructions (struct
   * sock_filter); "eBPF": by others, which the kernel does not keep.
   */
  readonly program: Uint8Array<ArrayBuffer> | "eBPF" | undefined;
}

/** How datagrams to multicast groups leave (IP_MULTICAST_IF). */
export interface MulticastDevice {
  /** Number of the interface; 0: the kernel chooses. */
  readonly index: number;
  /** The source: 4 bytes. */
  readonly address: Uint8Array<ArrayBuffer>;
}

/** A TCP connection that waits to be accepted, as its client sees it. */
export interface UnacceptedConnection {
  readonly client: InetAddress;
  readonly server: InetAddress;
  readonly received: Uint8Array<ArrayBuffer>;
  /** The number of the byte that comes next. */
  readonly next: number;
}

/** struct sock_filter */
const INSTRUCTION = 8;
const MOST_INSTRUCTIONS = 4096;
const MOST_SOCKETS = 65536;
const UDP_HEADER = 8;
/** skb_frag_t: struct page or netmem, length, offset. */
const FRAGMENT = 16;
const MOST_FRAGMENTS = 64;
/** More buffers than a queue of a socket ever has. */
const MOST_BUFFERS = 1 << 20;

let opened: KernelSockets | string | undefined;

/**
 * Opened once, which takes a tenth of a second.
 *
 * @returns why it cannot be done here, where that is so
 */
export function kernelSockets(): KernelSockets | string {
  return opened ??= KernelSockets.open();
}

export class KernelSockets {
  readonly #kernel: KernelStructures;
  readonly #pages: KernelPages;

  private constructor(kernel: KernelStructures) {
    this.#kernel = kernel;
    this.#pages = new KernelPages(kernel);
  }

  static open(): KernelSockets | string {
    const kernel = KernelStructures.open(WANTED);
    if (typeof kernel === "string") return kernel;
    try {
      return new KernelSockets(kernel);
    } catch (error) {
      kernel[Symbol.dispose]();
      if (error instanceof NoSuchMemory) return error.message;
      throw error;
    }
  }

  /**
   * @param fd of ckpt's own, of a socket of UDP
   * @returns undefined: there is none
   * @throws NoSuchMemory
   */
  corkedDatagram(fd: number): CorkedDatagram | undefined {
    const kernel = this.#kernel;
    const socket = this.#socketOf(fd);
    const family = kernel.number(socket, "udp_sock", "pending", 4);
    if (family === 0) return undefined;
    const parts = this.#buffers(kernel.at(socket, "sock", "sk_write_queue"))
      .map((buffer) => this.#content(buffer, this.#headerOf(buffer)));
    const length = kernel.number(socket, "udp_sock", "len", 2);
    const content = join(parts).slice(UDP_HEADER);
    // Of this datagram the kernel knows the length, too.
    if (content.length + UDP_HEADER !== length) throw new NoSuchMemory(socket);
    const to = this.#destination(socket, family);
    const ipv6 = family === AF_INET
      ? 0n
      : kernel.pointer(socket, "inet_sock", "pinet6");
    const [hops, trafficClass] = ipv6 === 0n
      ? ["ttl", "tos"].map((field) =>
        kernel.number(socket, "inet_sock", `cork.base.${field}`, 1)
      )
      : ["hop_limit", "tclass"].map((field) =>
        kernel.number(ipv6, "ipv6_pinfo", `cork.${field}`, 1)
      );
    return { content, family, to, hops, trafficClass };
  }

  /**
   * @param fd of ckpt's own, of a Unix socket that listens
   * @returns the one that is accepted next first
   * @throws NoSuchMemory
   */
  waitingConnections(fd: number): WaitingConnection[] {
    const kernel = this.#kernel;
    const queueOf = (socket: bigint) =>
      this.#buffers(kernel.at(socket, "sock", "sk_receive_queue"));
    return queueOf(this.#socketOf(fd)).map((buffer) => {
      const end = kernel.pointer(buffer, "sk_buff", "sk");
      const maker = kernel.pointer(end, "sock", "sk_peer_cred");
      const packets = queueOf(end);
      return {
        sent: packets.map((packet) => this.#content(packet, 0)),
        uid: kernel.number(maker, "cred", "euid", 4),
        gid: kernel.number(maker, "cred", "egid", 4),
        hasRights: packets.some((packet) => {
          const control = kernel.at(packet, "sk_buff", "cb");
          return kernel.pointer(control, "unix_skb_parms", "fp") !== 0n;
        }),
      };
    });
  }

  /**
   * @param fd of ckpt's own, of a TCP socket that listens
   * @returns the one that is accepted next first
   * @throws NoSuchMemory
   */
  unacceptedConnections(fd: number): UnacceptedConnection[] {
    const kernel = this.#kernel;
    const found: UnacceptedConnection[] = [];
    let request = kernel.pointer(
      this.#socketOf(fd),
      "inet_connection_sock",
      "icsk_accept_queue.rskq_accept_head",
    );
    for (; request !== 0n;) {
      if (found.length > MOST_SOCKETS) throw new NoSuchMemory(request);
      const end = kernel.pointer(request, "request_sock", "sk");
      found.push(this.#unaccepted(end));
      request = kernel.pointer(request, "request_sock", "dl_next");
    }
    return found;
  }

  #unaccepted(end: bigint): UnacceptedConnection {
    const kernel = this.#kernel;
    const number = (field: string) =>
      kernel.number(end, "sock", `__sk_common.skc_${field}`, 2);
    const isIpv4 = number("family") === AF_INET;
    const words = (field: string) => {
      const name = `__sk_common.skc_${isIpv4 ? "" : "v6_"}${field}`;
      const address = kernel.at(end, "sock", name);
      const bytes = kernel.memory.read(address, isIpv4 ? 4 : 16);
      return [...new Uint32Array(bytes.buffer)];
    };
    const port = number("dport");
    const queue = this.#buffers(kernel.at(end, "sock", "sk_receive_queue"));
    return {
      // The port of the other end is in network order.
      client: {
        port: (port & 0xff) << 8 | port >>> 8,
        words: words("daddr"),
        scope: 0,
      },
      server: { port: number("num"), words: words("rcv_saddr"), scope: 0 },
      next: kernel.number(end, "tcp_sock", "rcv_nxt", 4),
      received: join(queue.map((buffer) => this.#content(buffer, 0))),
    };
  }

  /**
   * @param fd of ckpt's own, of a socket of IP
   * @returns undefined: it is in no group
   * @throws NoSuchMemory
   */
  sharedPort(fd: number): SharedPort | undefined {
    const kernel = this.#kernel;
    const socket = this.#socketOf(fd);
    const group = kernel.pointer(socket, "sock", "sk_reuseport_cb");
    if (group === 0n) return undefined;
    const count = kernel.number(group, "sock_reuseport", "num_socks", 2);
    if (count > MOST_SOCKETS) throw new NoSuchMemory(group);
    const list = kernel.memory.read(
      kernel.at(group, "sock_reuseport", "socks"),
      8 * count,
    );
    const index = new BigUint64Array(list.buffer).indexOf(socket);
    if (index === -1) return undefined;
    const program = kernel.pointer(group, "sock_reuseport", "prog");
    return { group, index, count, program: this.#instructions(program) };
  }

  /**
   * @param fd of ckpt's own, of a socket of IP
   * @throws NoSuchMemory
   */
  multicastDevice(fd: number): MulticastDevice {
    const kernel = this.#kernel;
    const socket = this.#socketOf(fd);
    return {
      index: kernel.number(socket, "inet_sock", "mc_index", 4),
      address: kernel.memory.read(kernel.at(socket, "inet_sock", "mc_addr"), 4),
    };
  }

  #instructions(program: bigint): SharedPort["program"] {
    if (program === 0n) return undefined;
    const kernel = this.#kernel;
    const original = kernel.pointer(program, "bpf_prog", "orig_prog");
    if (original === 0n) return "eBPF";
    const count = kernel.number(original, "sock_fprog_kern", "len", 2);
    if (count > MOST_INSTRUCTIONS) throw new NoSuchMemory(original);
    const filter = kernel.pointer(original, "sock_fprog_kern", "filter");
    return kernel.memory.read(filter, count * INSTRUCTION);
  }

  #socketOf(fd: number): bigint {
    const file = this.#kernel.file(fd);
    const socket = this.#kernel.pointer(file, "file", "private_data");
    return this.#kernel.pointer(socket, "socket", "sk");
  }

  #destination(socket: bigint, family: number): InetAddress {
    const isIpv4 = family === AF_INET;
    const flow = `cork.fl.u.ip${isIpv4 ? 4 : 6}`;
    const { memory } = this.#kernel;
    const at = (field: string) =>
      this.#kernel.at(socket, "inet_sock", `${flow}.${field}`);
    const address = memory.read(at("daddr"), isIpv4 ? 4 : 16);
    const port = new DataView(memory.read(at("uli.ports.dport"), 2).buffer);
    const words = [...new Uint32Array(address.buffer)];
    // Only these belong to one interface (fe80::/10).
    const isLinkLocal = !isIpv4 && (words[0] & 0xc0ff) === 0x80fe;
    const device = isLinkLocal
      ? memory.read(at("__fl_common.flowic_oif"), 4)
      : new Uint8Array(4);
    return {
      port: port.getUint16(0),
      words,
      scope: new DataView(device.buffer).getInt32(0, true),
    };
  }

  /** The addresses of the buffers in a queue. */
  #buffers(queue: bigint): bigint[] {
    const found: bigint[] = [];
    const next = (address: bigint) =>
      this.#kernel.pointer(address, "sk_buff", "next");
    for (let at = next(queue); at !== queue; at = next(at)) {
      found.push(at);
      if (found.length > MOST_BUFFERS) throw new NoSuchMemory(queue);
    }
    return found;
  }

  /** Bytes of headers of IP, which are not written yet. */
  #headerOf(buffer: bigint): number {
    const kernel = this.#kernel;
    const before = kernel.pointer(buffer, "sk_buff", "data") -
      kernel.pointer(buffer, "sk_buff", "head");
    return kernel.number(buffer, "sk_buff", "transport_header", 2) -
      Number(before);
  }

  /** @param skip bytes at its beginning that are not of interest */
  #content(buffer: bigint, skip: number): Uint8Array<ArrayBuffer> {
    const kernel = this.#kernel;
    const number = (field: string) =>
      kernel.number(buffer, "sk_buff", field, 4);
    const [length, inFragments] = [number("len"), number("data_len")];
    const data = kernel.pointer(buffer, "sk_buff", "data");
    const shared = kernel.pointer(buffer, "sk_buff", "head") +
      BigInt(number("end"));
    const linear = length - inFragments - skip;
    if (
      linear < 0 ||
      kernel.pointer(shared, "skb_shared_info", "frag_list") !== 0n
    ) throw new NoSuchMemory(buffer);
    const parts = linear === 0
      ? []
      : [kernel.memory.read(data + BigInt(skip), linear)];
    const count = kernel.number(shared, "skb_shared_info", "nr_frags", 1);
    if (count > MOST_FRAGMENTS) throw new NoSuchMemory(shared);
    const list = kernel.at(shared, "skb_shared_info", "frags");
    for (let i = 0; i < count; i++) {
      const fragment = new DataView(
        kernel.memory.read(list + BigInt(i * FRAGMENT), FRAGMENT).buffer,
      );
      const page = this.#pages.address(fragment.getBigUint64(0, true));
      const offset = BigInt(fragment.getUint32(12, true));
      const size = fragment.getUint32(8, true);
      parts.push(kernel.memory.read(page + offset, size));
    }
    return join(parts);
  }
}
