import { assertEquals } from "@std/assert";
import { socketOfPortId } from "./netlink_socket.ts";

Deno.test("who has a port id is found in /proc/net/netlink", () => {
  const text = [
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode",
    "0000000000000000 0   4242       00000011 0        0        0     2        0        3001",
    "0000000000000000 15  4242       00000000 0        0        0     2        0        3002",
    "",
  ].join("\n");
  assertEquals(socketOfPortId(text, 15, 4242), 3002);
  assertEquals(socketOfPortId(text, 0, 4242), 3001);
  assertEquals(socketOfPortId(text, 0, 1), undefined);
});
