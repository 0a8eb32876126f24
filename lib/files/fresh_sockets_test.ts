import { assert, assertEquals } from "@std/assert";
import { close, O, syscall } from "../ffi/syscall.ts";
import { areFresh, freshBuffers } from "./fresh_sockets.ts";
import { readKind, readSocketOptions } from "./socket_options.ts";
import { AF_INET, AF_INET6, AF_UNIX, SOCK } from "./socket_kind.ts";
import { setInt, SO, SOL_SOCKET } from "./sockopt.ts";

Deno.test("Unix and UDP sockets that were just made need no buffers", () => {
  const fresh = freshBuffers();
  for (
    const [family, type] of [
      [AF_UNIX, SOCK.STREAM],
      [AF_UNIX, SOCK.DGRAM],
      [AF_UNIX, SOCK.SEQPACKET],
      [AF_INET, SOCK.DGRAM],
      [AF_INET6, SOCK.DGRAM],
    ]
  ) {
    const flags = BigInt(type | O.CLOEXEC);
    const fd = Number(syscall("socket", BigInt(family), flags, 0n));
    try {
      const look = () => readSocketOptions(fd, readKind(fd)).opts;
      assert(areFresh(look(), fresh));
      assertEquals(areFresh(look(), undefined), false);
      // As large as before, but now the kernel may not change it.
      setInt(fd, SOL_SOCKET, SO.SNDBUFFORCE, fresh.so_sndbuf >>> 1);
      assertEquals(areFresh(look(), fresh), false);
    } finally {
      close(fd);
    }
  }
});
