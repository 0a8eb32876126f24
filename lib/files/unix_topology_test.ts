import { assertEquals } from "@std/assert";
import type { unix_sk_entry } from "../image/schema.gen.ts";
import { NO_OWNER } from "./file_table.ts";
import { noExtension, type UnixSocketImage } from "./socket_images.ts";
import { SOCK } from "./socket_kind.ts";
import { STATE } from "./unix_socket.ts";
import { UnixTopology } from "./unix_topology.ts";

function socket(
  id: number,
  rest: Partial<unix_sk_entry>,
  more: Partial<UnixSocketImage> = {},
): UnixSocketImage {
  return {
    entry: {
      ...{ id, ino: id, type: SOCK.STREAM, state: STATE.ESTABLISHED, flags: 2 },
      ...{ uflags: 0, backlog: 0, peer: 0, fown: NO_OWNER },
      opts: {} as unix_sk_entry["opts"],
      name: new Uint8Array(0),
      ...rest,
    },
    packets: [],
    extension: noExtension(id),
    ...more,
  };
}

const NAME = Uint8Array.of(0, 65);

function idsOf(groups: UnixSocketImage[][]): number[][] {
  return groups.map((group) => group.map(({ entry }) => entry.id).sort())
    .sort((a, b) => a[0] - b[0]);
}

Deno.test("what belongs together is one group, and nothing else", () => {
  const listener = socket(1, { state: STATE.LISTEN, name: NAME });
  const server = socket(2, { peer: 3, name: NAME });
  const client = socket(3, { peer: 2 });
  const waiting = socket(4, { peer: 1 });
  const alone = socket(5, { state: STATE.CLOSE });
  const pair = [socket(6, { peer: 7 }), socket(7, { peer: 6 })];
  const sender = socket(8, { type: SOCK.DGRAM, name: Uint8Array.of(0, 66) });
  const receiver = socket(9, { type: SOCK.DGRAM, state: STATE.CLOSE }, {
    packets: [{
      bytes: new Uint8Array(1),
      sender: undefined,
      name: Uint8Array.of(0, 66),
      rights: [],
    }],
  });
  const topology = new UnixTopology([
    ...[listener, server, client, waiting, alone],
    ...pair,
    sender,
    receiver,
  ]);
  assertEquals(idsOf(topology.groups()), [[1, 2, 3, 4], [5], [6, 7], [8, 9]]);
  assertEquals(topology.partner(server), client);
  assertEquals(topology.partner(waiting), undefined);
  assertEquals(topology.listener(server), listener);
  assertEquals(topology.pending(listener), [waiting]);
});

Deno.test("of a connection, the accepted end has its name from the one that listened", () => {
  const other = Uint8Array.of(0, 66);
  const listener = socket(1, { state: STATE.LISTEN, name: NAME });
  const server = socket(2, { peer: 3, name: NAME });
  const client = socket(3, { peer: 2, name: other });
  const here = new UnixTopology([listener, server, client]);
  assertEquals([server, client].map((one) => here.isAccepted(one)), [
    true,
    false,
  ]);
  // Without the listener, the end that has a name is the accepted one.
  const end = socket(4, { peer: 5, name: NAME });
  const gone = new UnixTopology([end, socket(5, { peer: 4 })]);
  assertEquals(gone.isAccepted(end), true);
  assertEquals(gone.listener(end), undefined);
});

Deno.test("a socket whose peer is gone is told by its state; of datagrams, only our images tell", () => {
  const stream = socket(1, { shutdown: 3 });
  const dgram = socket(2, { type: SOCK.DGRAM });
  const lost = socket(3, { type: SOCK.DGRAM }, {
    extension: { ...noExtension(3), lost_peer: true },
  });
  const topology = new UnixTopology([stream, dgram, lost]);
  assertEquals(
    [stream, dgram, lost].map((one) => topology.isOrphan(one)),
    [true, false, true],
  );
});
