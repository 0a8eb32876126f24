import { assertEquals } from "@std/assert";
import { socketOfPort } from "./try_inet_sockets.ts";

Deno.test("the socket of a port is found in /proc/net/tcp", () => {
  const text = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    "   0: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 100 1 0",
    "   1: 0100007F:1F90 00000000:0000 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0",
    "   2: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 200 1 0",
    "",
  ].join("\n");
  assertEquals(socketOfPort(text, 8080), 200);
  assertEquals(socketOfPort(text, 8081), 100);
  assertEquals(socketOfPort(text, 80), undefined);
});
