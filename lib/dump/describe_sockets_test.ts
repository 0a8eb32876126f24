import { assertEquals } from "@std/assert";
import { fd_types, type file_entry } from "../image/schema.gen.ts";
import { NO_OWNER } from "../files/file_table.ts";
import { inOrder } from "./describe_sockets.ts";

function socket(id: number, ino: number, peer: number): file_entry {
  return {
    type: fd_types.UNIXSK,
    id,
    usk: {
      ...{ id, ino, peer, type: 1, state: 1, flags: 2, uflags: 0, backlog: 0 },
      fown: NO_OWNER,
      opts: {} as NonNullable<file_entry["usk"]>["opts"],
      name: new Uint8Array(0),
    },
  };
}

Deno.test("a socket whose peer has another peer comes behind it, others stay", () => {
  const files = [
    socket(1, 11, 13),
    socket(2, 12, 14),
    socket(3, 13, 0),
    socket(4, 14, 12),
    { type: fd_types.PIPE, id: 5 },
  ];
  assertEquals(inOrder(files).map(({ id }) => id), [2, 3, 4, 5, 1]);
});
