/**
 * The sizes of the buffers that a socket has here when it is made: most sockets
 * have them, and need not be given any.
 */
import { close, O, syscall } from "../ffi/syscall.ts";
import type { sk_opts_entry } from "../image/schema.gen.ts";
import { getInt, SO, SOL_SOCKET } from "./sockopt.ts";
import { AF_UNIX } from "./unix_socket.ts";
import { SOCK } from "./unix_queue.ts";

export type BufferSizes = Pick<sk_opts_entry, "so_sndbuf" | "so_rcvbuf">;

/** Of Unix and datagram sockets (sock_init_data_uid in net/core/sock.c). */
export function freshBuffers(): BufferSizes {
  const type = BigInt(SOCK.DGRAM | O.CLOEXEC);
  const fd = Number(syscall("socket", BigInt(AF_UNIX), type, 0n));
  try {
    const ask = (name: number) => getInt(fd, SOL_SOCKET, name);
    return { so_sndbuf: ask(SO.SNDBUF), so_rcvbuf: ask(SO.RCVBUF) };
  } finally {
    close(fd);
  }
}

/** Whether one that was just made has such buffers already. */
export function areFresh(
  { so_sndbuf, so_rcvbuf, so_buf_lock }: sk_opts_entry,
  fresh: BufferSizes | undefined,
): boolean {
  return so_buf_lock === 0 && so_sndbuf === fresh?.so_sndbuf &&
    so_rcvbuf === fresh.so_rcvbuf;
}
