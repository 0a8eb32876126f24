import { assertEquals } from "@std/assert";
import { encodeImage } from "../framing.ts";
import { type Content, type Entry, imageName } from "../kinds.ts";
import {
  type ckpt_packet_rings_entry,
  type ckpt_socket_entry,
  fd_types,
  type inet_sk_entry,
  type packet_sock_entry,
  type sk_opts_entry,
  type unix_sk_entry,
} from "../schema.gen.ts";
import {
  type MinimalImage,
  minimalImage,
  writeWithoutManifest,
} from "../testing/minimal_image.ts";
import { wrongIn } from "./testing/wrong_in.ts";

const fown = { uid: 0, euid: 0, signum: 0, pid_type: 0, pid: 0 };

function options(): sk_opts_entry {
  return {
    so_sndbuf: 1,
    so_rcvbuf: 1,
    so_snd_tmo_sec: 0n,
    so_snd_tmo_usec: 0n,
    so_rcv_tmo_sec: 0n,
    so_rcv_tmo_usec: 0n,
    so_filter: [],
  };
}

interface Parts {
  image: MinimalImage;
  pair: [unix_sk_entry, unix_sk_entry];
  inet: inet_sk_entry;
  queues: Content<"sk-queues">;
  streams: Entry<"tcp-stream">[];
  extensions: ckpt_socket_entry[];
  packet: packet_sock_entry;
  rings: ckpt_packet_rings_entry;
}

function parts(): Parts {
  const unix = (id: number, ino: number, peer: number): unix_sk_entry => ({
    ...{ id, ino, peer, type: 1, state: 1, flags: 2, uflags: 0, backlog: 0 },
    fown,
    opts: options(),
    name: new Uint8Array(0),
  });
  const pair: Parts["pair"] = [unix(20, 901, 902), unix(21, 902, 901)];
  const inet: inet_sk_entry = {
    ...{ id: 22, ino: 903, family: 10, type: 1, proto: 6, state: 10 },
    ...{ src_port: 80, dst_port: 0, flags: 2, backlog: 5 },
    src_addr: [0, 0, 0, 0],
    dst_addr: [0, 0, 0, 0],
    fown,
    opts: options(),
  };
  const ring = { block_size: 4096, block_nr: 2, frame_size: 2048, frame_nr: 4 };
  const packet: packet_sock_entry = {
    ...{ id: 23, type: 3, protocol: 0, flags: 2, ifindex: 0, version: 2 },
    ...{ reserve: 0, aux_data: false, orig_dev: false, vnet_hdr: false },
    ...{ loss: false, timestamp: 0, copy_thresh: 0, mclist: [] },
    rx_ring: { ...ring, retire_tmo: 8, sizeof_priv: 0, features: 0 },
    tx_ring: { ...ring, retire_tmo: 0, sizeof_priv: 0, features: 0 },
    fown,
    opts: options(),
  };
  const noMore = {
    ...{ options: [], pending: [], packets: [], other_names: [] },
    ...{ datagrams: [], memberships: [], waiting: [] },
  };
  const rings = {
    ...{ received: 1, sent: 3 },
    parts: [{ offset: 12288, content: new Uint8Array(4096) }],
  };
  const image = minimalImage();
  image.files.push(
    ...pair.map((usk) => ({ type: fd_types.UNIXSK, id: usk.id, usk })),
    { type: fd_types.INETSK, id: 22, isk: inet },
    { type: fd_types.PACKETSK, id: 23, psk: packet },
  );
  return {
    image,
    pair,
    inet,
    streams: [],
    queues: [{ id_for: 20, length: 3, scm: [], extra: new Uint8Array(3) }],
    extensions: [
      { ...noMore, id: 20, packets: [{}] },
      { ...noMore, id: 23, packet_rings: rings },
    ],
    packet,
    rings,
  };
}

/** What is told to be wrong. */
function wrong(change: (parts: Parts) => void): string[] {
  const directory = Deno.makeTempDirSync({ prefix: "ckpt-image-" });
  try {
    const all = parts();
    change(all);
    writeWithoutManifest(directory, all.image);
    Deno.writeFileSync(
      `${directory}/sk-queues.img`,
      encodeImage("sk-queues", all.queues),
    );
    Deno.writeFileSync(
      `${directory}/ckpt-sockets.img`,
      encodeImage("ckpt-sockets", all.extensions),
    );
    for (const stream of all.streams) {
      Deno.writeFileSync(
        `${directory}/${imageName("tcp-stream", all.inet.ino)}`,
        encodeImage("tcp-stream", stream),
      );
    }
    return wrongIn(directory).map((one) => one.replace(/entry \d+, /, ""));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** A connection whose stream is the given one, or missing. */
function connected(
  change?: (stream: Entry<"tcp-stream">) => void,
): (parts: Parts) => void {
  return ({ inet, streams }) => {
    Object.assign(inet, { state: 8, dst_port: 5000 });
    if (change === undefined) return;
    const stream: Entry<"tcp-stream"> = {
      ...{ inq_len: 2, inq_seq: 7, outq_len: 3, outq_seq: 9, unsq_len: 3 },
      ...{ opt_mask: 7, snd_wscale: 7, rcv_wscale: 14, timestamp: 5 },
      ...{ snd_wl1: 1, snd_wnd: 1, max_window: 1, rcv_wnd: 1, rcv_wup: 1 },
      mss_clamp: 1460,
      extra: { inq: new Uint8Array(2), outq: new Uint8Array(3) },
    };
    change(stream);
    streams.push(stream);
  };
}

Deno.test("a TCP connection with its stream is fine", async () => {
  assertEquals(await wrong(connected(() => {})), []);
});

Deno.test("sockets that fit together are fine", async () => {
  assertEquals(await wrong(() => {}), []);
});

const STREAM = "tcp-stream-387.img, field";

const RINGS = "ckpt-sockets.img, field packet_rings";

const DAMAGES: readonly (readonly [(parts: Parts) => void, string])[] = [
  [
    ({ rings }) => rings.received = 2,
    `${RINGS}.received: 2 is beyond the ring`,
  ],
  [({ rings }) => rings.sent = 4, `${RINGS}.sent: 4 is beyond the ring`],
  [
    ({ rings }) => rings.parts[0].offset = 12289,
    `${RINGS}.parts: are beyond the rings`,
  ],
  [
    ({ packet }) => packet.rx_ring!.frame_nr = 5,
    `${RINGS}.parts: are of rings that do not exist`,
  ],
  [
    ({ packet }) => packet.tx_ring!.frame_size = 0,
    `${RINGS}.parts: are of rings that do not exist`,
  ],
  [
    ({ packet }) => packet.version = 3,
    `${RINGS}.received: version 3 is unknown`,
  ],
  [
    ({ extensions }) => extensions[1].id = 22,
    `${RINGS}.received: 22 is no packet socket with a ring`,
  ],
  [
    connected(),
    "files.img, field isk.state: tcp-stream-387.img is missing",
  ],
  [
    connected((stream) => stream.unsq_len = 4),
    `${STREAM} unsq_len: 4 is more than the queue has`,
  ],
  [
    connected((stream) => delete stream.rcv_wscale),
    `${STREAM} rcv_wscale: is missing`,
  ],
  [
    connected((stream) => stream.snd_wscale = 15),
    `${STREAM} snd_wscale: 15 is more than 14`,
  ],
  [
    connected((stream) => delete stream.timestamp),
    `${STREAM} timestamp: is missing`,
  ],
  [
    connected((stream) => delete stream.rcv_wup),
    `${STREAM} rcv_wup: is missing`,
  ],
  [
    ({ pair }) => pair[1].ino = 901,
    "files.img, field usk.ino: 901 is there twice",
  ],
  [
    ({ pair }) => pair[0].type = 3,
    "files.img, field usk.type: 3 is no type of socket",
  ],
  [
    ({ pair }) => pair[0].state = 4,
    "files.img, field usk.state: 4 is no state of a Unix socket",
  ],
  [
    ({ pair }) => pair[0].state = 10,
    "files.img, field usk.state: it cannot listen",
  ],
  [
    ({ pair }) => pair[0].peer = 5,
    "files.img, field usk.peer: 5 is no Unix socket of files.img",
  ],
  [
    ({ pair }) => pair[0].type = 5,
    "files.img, field usk.peer: 902 is of another type",
  ],
  [
    ({ pair }) => pair[0].shutdown = 4,
    "files.img, field usk.shutdown: 4 is more than both halves",
  ],
  [
    ({ pair }) => pair[0].file_perms = { mode: 0o100755, uid: 0, gid: 0 },
    "files.img, field usk.file_perms.mode: 0100755 is more than permissions",
  ],
  [
    ({ inet }) => inet.family = 3,
    "files.img, field isk.family: 3 is neither IPv4 nor IPv6",
  ],
  [
    ({ inet }) => inet.family = 2,
    "files.img, field isk.src_addr: has 4 words, not 1",
  ],
  [
    ({ inet }) => inet.dst_port = 65536,
    "files.img, field isk.dst_port: 65536 is no port",
  ],
  [
    ({ inet }) => inet.opts.so_bound_dev = "x".repeat(16),
    `files.img, field isk.opts.so_bound_dev: "${
      "x".repeat(16)
    }" is no name of an interface`,
  ],
  [
    ({ inet }) => inet.opts.so_filter = new Array(4097).fill(0n),
    "files.img, field isk.opts.so_filter: has 4097 instructions",
  ],
  [
    ({ queues }) => queues[0].id_for = 22,
    "sk-queues.img, field id_for: 22 is no Unix socket",
  ],
  [
    ({ extensions }) => extensions[0].packets.push({}),
    "ckpt-sockets.img, field packets: are 2, but 1 are queued",
  ],
  [
    ({ extensions }) => extensions[0].other_names.push("/a", "b"),
    'ckpt-sockets.img, field other_names: "b" is no path',
  ],
  [
    ({ extensions }) => extensions[0].pending.push(903),
    "ckpt-sockets.img, field pending: 903 is no Unix socket",
  ],
  [
    ({ extensions }) => extensions[0].id = 1,
    "ckpt-sockets.img, field id: 1 is no socket of files.img",
  ],
  [
    ({ extensions }) =>
      extensions[0].options.push({
        level: 1,
        name: 1,
        value: new Uint8Array(217),
      }),
    "ckpt-sockets.img, field options: one has 217 bytes",
  ],
];

Deno.test("sockets that do not fit together are told by field", async () => {
  for (const [change, expected] of DAMAGES) {
    const found = await wrong(change);
    assertEquals(found.includes(expected), true, `${expected}\n${found}`);
  }
});
