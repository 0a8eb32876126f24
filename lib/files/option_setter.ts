/** Gives sockets the options they had. */
import {
  type Data,
  type Program,
  type Purpose,
  textOf,
} from "../ffi/program.ts";
import type {
  ckpt_socket_option,
  inet_sk_entry,
  sk_opts_entry,
  tcp_opts_entry,
} from "../image/schema.gen.ts";
import { areFresh, type BufferSizes } from "./fresh_sockets.ts";
import { locksFilter } from "./further_options.ts";
import {
  AF_INET,
  AF_INET6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_RAW,
  IPPROTO_TCP,
} from "./socket_kind.ts";
import {
  FILTER_INSTRUCTION,
  ICMP_FILTER,
  ICMP_FILTERS,
  IP,
  IPV6_RECVPKTINFO,
  IPV6_V6ONLY,
  SO,
  SOL_SOCKET,
  TCP,
} from "./sockopt.ts";

/** Writes setsockopt(2) calls for one socket. */
export class OptionSetter {
  readonly #what: Purpose;

  /** @param what how errors call the socket */
  constructor(
    readonly program: Program,
    readonly fd: number,
    what: Purpose,
  ) {
    this.#what = what;
  }

  get what(): string {
    return textOf(this.#what);
  }

  int(level: number, name: number, value: number): void {
    this.#set(level, name, this.program.int32(value));
  }

  bytes(level: number, name: number, value: Uint8Array): void {
    this.#set(level, name, this.program.bytes(value));
  }

  #set(level: number, name: number, value: Data): void {
    this.program.call(
      "setsockopt",
      [this.fd, level, name, value, value.length],
      () => `setting option ${level}:${name} of ${this.what}`,
    );
  }

  /**
   * All that every socket has, but the permissions to share an address.
   *
   * @param fresh the buffers it has; undefined: nobody knows
   */
  common(opts: sk_opts_entry, fresh?: BufferSizes): void {
    if (!areFresh(opts, fresh)) this.buffers(opts);
    this.modes(opts);
    this.filter(opts);
  }

  /** Those of them that are neither about buffers nor a filter. */
  modes(opts: sk_opts_entry): void {
    const set = (name: number, value: number | undefined) => {
      if (value !== undefined) this.int(SOL_SOCKET, name, value);
    };
    const turnOn = (name: number, value: boolean | undefined) => {
      if (value) this.int(SOL_SOCKET, name, 1);
    };
    this.#timeout(SO.SNDTIMEO, opts.so_snd_tmo_sec, opts.so_snd_tmo_usec);
    this.#timeout(SO.RCVTIMEO, opts.so_rcv_tmo_sec, opts.so_rcv_tmo_usec);
    set(SO.PRIORITY, opts.so_priority || undefined);
    set(SO.RCVLOWAT, opts.so_rcvlowat === 1 ? undefined : opts.so_rcvlowat);
    set(SO.MARK, opts.so_mark || undefined);
    turnOn(SO.PASSCRED, opts.so_passcred);
    turnOn(SO.PASSSEC, opts.so_passsec);
    turnOn(SO.DONTROUTE, opts.so_dontroute);
    turnOn(SO.NO_CHECK, opts.so_no_check);
    turnOn(SO.BROADCAST, opts.so_broadcast);
    turnOn(SO.KEEPALIVE, opts.so_keepalive);
    set(SO.OOBINLINE, opts.so_oobinline || undefined);
    if (opts.so_bound_dev !== undefined) {
      const name = new TextEncoder().encode(`${opts.so_bound_dev}\0`);
      this.bytes(SOL_SOCKET, SO.BINDTODEVICE, name);
    }
    if (opts.so_linger !== undefined) {
      const value = new Int32Array([1, opts.so_linger]);
      this.bytes(SOL_SOCKET, SO.LINGER, new Uint8Array(value.buffer));
    }
  }

  /** The sizes of both buffers, and whether the kernel may change them. */
  buffers({ so_sndbuf, so_rcvbuf, so_buf_lock }: sk_opts_entry): void {
    this.room(so_sndbuf, so_rcvbuf);
    if (so_buf_lock !== undefined) {
      this.int(SOL_SOCKET, SO.BUF_LOCK, so_buf_lock);
    }
  }

  /** Bytes of both buffers, as the kernel tells them. */
  room(sending: number, receiving: number): void {
    // The kernel doubles what it is given.
    this.int(SOL_SOCKET, SO.SNDBUFFORCE, sending >>> 1);
    this.int(SOL_SOCKET, SO.RCVBUFFORCE, receiving >>> 1);
  }

  filter({ so_filter }: sk_opts_entry): void {
    if (so_filter.length > 0) this.#filter(so_filter);
  }

  #timeout(name: number, seconds: bigint, micros: bigint): void {
    if (seconds === 0n && micros === 0n) return;
    const value = new BigUint64Array([seconds, micros]);
    this.bytes(SOL_SOCKET, name, new Uint8Array(value.buffer));
  }

  #filter(filter: readonly bigint[]): void {
    const code = new Uint8Array(filter.length * FILTER_INSTRUCTION);
    const view = new DataView(code.buffer);
    filter.forEach((word, i) => {
      const at = i * FILTER_INSTRUCTION;
      view.setUint16(at, Number(word >> 48n), true);
      view.setUint8(at + 2, Number(word >> 40n & 0xffn));
      view.setUint8(at + 3, Number(word >> 32n & 0xffn));
      view.setUint32(at + 4, Number(word & 0xffffffffn), true);
    });
    this.attach(SO.ATTACH_FILTER, code);
  }

  /** @param code struct sock_filter, one after the other */
  attach(
    name: typeof SO.ATTACH_FILTER | typeof SO.ATTACH_REUSEPORT_CBPF,
    code: Uint8Array,
  ): void {
    const { program } = this;
    // struct sock_fprog: length, then the address.
    const length = code.length / FILTER_INSTRUCTION;
    const value = program.words([length, program.bytes(code)]);
    program.call(
      "setsockopt",
      [this.fd, SOL_SOCKET, name, value, 16],
      () => `attaching the filter of ${this.what}`,
    );
  }

  /** SO_REUSEADDR and SO_REUSEPORT. */
  sharing(reuseAddress: boolean, reusePort: boolean): void {
    this.int(SOL_SOCKET, SO.REUSEADDR, reuseAddress ? 1 : 0);
    this.int(SOL_SOCKET, SO.REUSEPORT, reusePort ? 1 : 0);
  }

  ip({ family, ip_opts }: Pick<inet_sk_entry, "family" | "ip_opts">): void {
    const { freebind, pktinfo, tos, ttl } = ip_opts ?? {};
    if (freebind) this.int(IPPROTO_IP, IP.FREEBIND, 1);
    if (pktinfo && family === AF_INET6) {
      this.int(IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
    } else if (pktinfo) this.int(IPPROTO_IP, IP.PKTINFO, 1);
    if (tos) this.int(IPPROTO_IP, IP.TOS, tos);
    if (ttl) this.int(IPPROTO_IP, IP.TTL, ttl);
  }

  /** What only raw sockets have. */
  raw(
    { family, proto, ip_opts }: Pick<
      inet_sk_entry,
      "family" | "proto" | "ip_opts"
    >,
  ): void {
    const { hdrincl, nodefrag, icmpv_filter = [] } = ip_opts?.raw ?? {};
    // IPPROTO_RAW has it without being asked.
    if (hdrincl || proto === IPPROTO_RAW && family === AF_INET) {
      this.int(IPPROTO_IP, IP.HDRINCL, hdrincl ? 1 : 0);
    }
    if (nodefrag) this.int(IPPROTO_IP, IP.NODEFRAG, 1);
    const filter = ICMP_FILTERS.get(proto);
    if (filter === undefined || icmpv_filter.length === 0) return;
    const value = new Uint8Array(Uint32Array.from(icmpv_filter).buffer);
    this.bytes(filter[0], ICMP_FILTER, value);
  }

  v6only(value: boolean): void {
    this.int(IPPROTO_IPV6, IPV6_V6ONLY, value ? 1 : 0);
  }

  /** @param has what it has already */
  tcp(options: tcp_opts_entry, has: tcp_opts_entry = {}): void {
    const set = (name: number, key: keyof tcp_opts_entry) => {
      const value = options[key];
      if (!value || value === has[key]) return;
      this.int(IPPROTO_TCP, name, Number(value));
    };
    set(TCP.NODELAY, "nodelay");
    set(TCP.CORK, "cork");
    set(TCP.KEEPCNT, "keepcnt");
    set(TCP.KEEPIDLE, "keepidle");
    set(TCP.KEEPINTVL, "keepintvl");
  }

  /** After the filter: one of these locks it. */
  further(options: readonly ckpt_socket_option[], withLocks = true): void {
    for (const option of options) {
      if (!locksFilter(option)) {
        this.bytes(option.level, option.name, option.value);
      }
    }
    if (withLocks) this.locks(options);
  }

  /** Those of them after which the filter cannot be changed any more. */
  locks(options: readonly ckpt_socket_option[]): void {
    for (const option of options) {
      if (locksFilter(option)) {
        this.bytes(option.level, option.name, option.value);
      }
    }
  }
}
