/**
 * What a socket has here when it is made: most sockets have the same, and need
 * not be given it.
 */
import { close, O, syscall } from "../ffi/syscall.ts";
import type { sk_opts_entry, tcp_opts_entry } from "../image/schema.gen.ts";
import { AF_INET, AF_UNIX, IPPROTO_TCP, SOCK } from "./socket_kind.ts";
import { getInt, SO, SOL_SOCKET, TCP } from "./sockopt.ts";

function ofFresh<T>(family: number, type: number, ask: (fd: number) => T): T {
  const flags = BigInt(type | O.CLOEXEC);
  const fd = Number(syscall("socket", BigInt(family), flags, 0n));
  try {
    return ask(fd);
  } finally {
    close(fd);
  }
}

/** The sizes of its buffers. */
export type BufferSizes = Pick<sk_opts_entry, "so_sndbuf" | "so_rcvbuf">;

/** Of Unix and datagram sockets (sock_init_data_uid in net/core/sock.c). */
export function freshBuffers(): BufferSizes {
  return ofFresh(AF_UNIX, SOCK.DGRAM, (fd) => ({
    so_sndbuf: getInt(fd, SOL_SOCKET, SO.SNDBUF),
    so_rcvbuf: getInt(fd, SOL_SOCKET, SO.RCVBUF),
  }));
}

/** Whether one that was just made has such buffers already. */
export function areFresh(
  { so_sndbuf, so_rcvbuf, so_buf_lock }: sk_opts_entry,
  fresh: BufferSizes | undefined,
): boolean {
  return so_buf_lock === 0 && so_sndbuf === fresh?.so_sndbuf &&
    so_rcvbuf === fresh.so_rcvbuf;
}

/** When and how often sockets of TCP ask a silent peer. */
export function freshKeepalive(): tcp_opts_entry {
  return ofFresh(AF_INET, SOCK.STREAM, (fd) => ({
    keepcnt: getInt(fd, IPPROTO_TCP, TCP.KEEPCNT),
    keepidle: getInt(fd, IPPROTO_TCP, TCP.KEEPIDLE),
    keepintvl: getInt(fd, IPPROTO_TCP, TCP.KEEPINTVL),
  }));
}
