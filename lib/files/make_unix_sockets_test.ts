import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { close, O, stat } from "../ffi/syscall.ts";
import {
  type ckpt_socket_entry,
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type sk_opts_entry,
  type unix_sk_entry,
} from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { lookAtDescriptors, TreeLook } from "./descriptors.ts";
import { NO_OWNER } from "./file_table.ts";
import { emptyPrograms, restoreDescriptors } from "./restore_descriptors.ts";
import { noExtension, type UnixSocketImage } from "./socket_images.ts";
import { readSocketQueues, TreeSockets } from "./sockets.ts";
import { SOCK } from "./socket_kind.ts";
import { describeUnixSocket, SHUT_BOTH, STATE } from "./unix_socket.ts";

const BASE = 300;
const OPTIONS: sk_opts_entry = {
  so_sndbuf: 50000,
  so_rcvbuf: 60000,
  so_snd_tmo_sec: 0n,
  so_snd_tmo_usec: 0n,
  so_rcv_tmo_sec: 0n,
  so_rcv_tmo_usec: 0n,
  so_priority: 0,
  so_rcvlowat: 1,
  so_filter: [],
  so_buf_lock: 3,
};

type Draft = { entry: unix_sk_entry; extension: ckpt_socket_entry } & {
  packets: UnixSocketImage["packets"][number][];
};

/** Random sockets, as an image tells of them. */
class Scenario {
  readonly sockets: Draft[] = [];
  readonly #random: () => number;

  constructor(readonly seed: number) {
    this.#random = seededRandom(seed);
    const count = 1 + this.#below(5);
    for (let i = 0; i < count; i++) this.#makeSome();
  }

  #below(n: number): number {
    return Math.floor(this.#random() * n);
  }

  #socket(type: number, state: number): Draft {
    const id = this.sockets.length + 1;
    const draft: Draft = {
      entry: {
        id,
        ino: 1000 + id,
        type,
        state,
        flags: O.RDWR | (this.#below(2) ? O.NONBLOCK : 0),
        uflags: 0,
        backlog: 0,
        peer: 0,
        fown: NO_OWNER,
        opts: OPTIONS,
        name: new Uint8Array(0),
      },
      extension: noExtension(id),
      packets: [],
    };
    this.sockets.push(draft);
    return draft;
  }

  #type(): number {
    return [SOCK.STREAM, SOCK.DGRAM, SOCK.SEQPACKET][this.#below(3)];
  }

  #fill(draft: Draft): void {
    const { type } = draft.entry;
    const count = type === SOCK.STREAM ? this.#below(2) : this.#below(4);
    for (let i = 0; i < count; i++) {
      // Of a stream no bytes are no packet, of SOCK_SEQPACKET they look like
      // the end of one that has ended.
      const length = this.#below(400) + (type === SOCK.DGRAM ? 0 : 1);
      const bytes = Uint8Array.from({ length }, () => this.#below(256));
      // Any of the sockets that there are, also the very one.
      const rights = type === SOCK.STREAM || this.#below(3) > 0
        ? []
        : Array.from(
          { length: 1 + this.#below(3) },
          () => 1 + this.#below(this.sockets.length),
        );
      draft.packets.push({ bytes, sender: undefined, name: undefined, rights });
    }
  }

  #name(draft: Draft): Uint8Array {
    const text = `\0ckpt-test-${Deno.pid}-${this.seed}-${draft.entry.id}`;
    return draft.entry.name = new TextEncoder().encode(text);
  }

  #who(): ckpt_socket_entry["peer"] {
    return { pid: 1, uid: this.#below(3) * 7, gid: this.#below(3) * 5 };
  }

  #join(a: Draft, b: Draft): void {
    a.entry.peer = b.entry.ino;
    b.entry.peer = a.entry.ino;
    this.#fill(a);
    this.#fill(b);
    if (a.entry.type === SOCK.DGRAM || this.#below(2) === 0) return;
    const how = 1 + this.#below(SHUT_BOTH);
    a.entry.shutdown = how;
    // The other end is shut the other way round.
    b.entry.shutdown = how === SHUT_BOTH ? how : SHUT_BOTH - how;
  }

  #makeSome(): void {
    const choice = this.#below(5);
    const state = STATE.ESTABLISHED;
    if (choice === 0) {
      const type = this.#type();
      const [a, b] = [this.#socket(type, state), this.#socket(type, state)];
      a.extension.peer = b.extension.peer = this.#who();
      if (type === SOCK.DGRAM && this.#below(2)) this.#name(a);
      this.#join(a, b);
    } else if (choice === 1) {
      const orphan = this.#socket(this.#type(), state);
      this.#fill(orphan);
      if (orphan.entry.type === SOCK.DGRAM) orphan.extension.lost_peer = true;
      else {
        orphan.entry.shutdown = SHUT_BOTH;
        // An error is looked for where nothing else is to be read.
        orphan.extension.reset = orphan.entry.type === SOCK.STREAM &&
            this.#below(2) > 0 || undefined;
      }
      orphan.extension.peer = this.#who();
    } else if (choice === 2) this.#makeListener();
    else if (choice === 3) this.#makeReceiver();
    else this.#socket(this.#type(), STATE.CLOSE);
  }

  #makeListener(): void {
    const type = this.#below(2) ? SOCK.STREAM : SOCK.SEQPACKET;
    const state = STATE.ESTABLISHED;
    const listener = this.#socket(type, STATE.LISTEN);
    const name = this.#name(listener);
    const who = this.#who();
    listener.entry.backlog = this.#below(5);
    listener.extension.peer = who;
    for (let i = this.#below(3); i > 0; i--) {
      const client = this.#socket(type, state);
      const server = this.#socket(type, state);
      server.entry.name = name;
      server.extension.peer = this.#who();
      client.extension.peer = who;
      if (this.#below(2)) this.#name(client);
      this.#join(client, server);
    }
    const pending = Array.from(
      { length: this.#below(listener.entry.backlog + 2) },
      () => this.#socket(type, state),
    );
    for (const client of pending) {
      client.entry.peer = listener.entry.ino;
      client.extension.peer = who;
    }
    listener.extension.pending = pending.map(({ entry }) => entry.ino)
      .reverse();
  }

  #makeReceiver(): void {
    const receiver = this.#socket(SOCK.DGRAM, STATE.CLOSE);
    this.#name(receiver);
    this.#fill(receiver);
    for (let i = this.#below(3); i > 0; i--) {
      const sender = this.#socket(SOCK.DGRAM, STATE.ESTABLISHED);
      sender.entry.peer = receiver.entry.ino;
      if (this.#below(2) === 0) continue;
      const name = this.#name(sender);
      receiver.packets.push({
        bytes: new Uint8Array(5).fill(i),
        sender: undefined,
        name,
        rights: [],
      });
    }
  }
}

/** What is compared; peers by the descriptors they have. */
function picture(
  { entry, extension, packets }: Draft,
  fdOf: (ino: number) => number | undefined,
): unknown {
  const { type, state, name, flags, backlog, shutdown, peer } = entry;
  return {
    ...{ type, state, flags, backlog, shutdown: shutdown ?? 0 },
    name: new TextDecoder().decode(name),
    peer: peer === 0 ? undefined : fdOf(peer),
    lostPeer: extension.lost_peer ?? false,
    reset: extension.reset ?? false,
    credentials: type === SOCK.DGRAM || state === STATE.CLOSE
      ? undefined
      : { ...extension.peer, pid: 0 },
    pending: extension.pending.map(fdOf),
    queue: packets.map(({ bytes, name, rights }) => [
      [...bytes].join(" "),
      name && new TextDecoder().decode(name),
      rights.map(fdOf),
    ]),
  };
}

/** What the kernel tells of the sockets of a task, by their descriptors. */
function seenIn(pid: number): Map<number, unknown> {
  const descriptors = lookAtDescriptors(pid, new TreeLook());
  const processes = [{ pid, descriptors }];
  const others = new TreeSockets(processes).neighbours();
  const queues = readSocketQueues(processes);
  const fds = new Map(
    descriptors.map(({ fd, status }) => [Number(status.ino), fd]),
  );
  return new Map(descriptors.flatMap(({ fd, info, socket }) => {
    if (socket?.family !== "unix") return [];
    const { diag, peer, hasError } = socket;
    const flags = info.flags & ~O.CLOEXEC;
    const entry = describeUnixSocket(socket, fd, flags, NO_OWNER, others);
    const packets = (queues.get(diag.ino) ?? []).map((packet) => {
      const { bytes, name } = packet;
      const rights = packet.rights.map((fd) => Number(stat(fd).ino));
      packet.rights.forEach(close);
      return {
        bytes,
        sender: undefined,
        name: diag.peer === undefined && name.length > 0 ? name : undefined,
        rights,
      };
    });
    const extension = {
      ...noExtension(fd),
      peer,
      pending: [...diag.pending],
      lost_peer: diag.type === SOCK.DGRAM && diag.peer === 0,
      reset: hasError,
    };
    return [
      [fd, picture({ entry, extension, packets }, (ino) => fds.get(ino))],
    ];
  }));
}

Deno.test("random groups of Unix sockets come back as the image has them", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const { sockets } = new Scenario(seed);
    using task = new AgentTask();
    const first = 10;
    const entries: fdinfo_entry[] = sockets.map(({ entry: { id } }) => ({
      id,
      fd: first + id,
      flags: 0,
      type: fd_types.UNIXSK,
    }));
    const files = new Map<number, file_entry>(
      sockets.map(({ entry }) => [
        entry.id,
        { type: fd_types.UNIXSK, id: entry.id, usk: entry },
      ]),
    );
    const programs = emptyPrograms();
    programs.open.call("close", [0], "closing the lifeline");
    restoreDescriptors(
      [{ pid: task.pid, filesId: 1, entries, programs }],
      {
        files,
        pipes: new Map(),
        fifos: new Map(),
        unconnected: new Set(),
        external: new Set(),
        sockets: {
          unix: new Map(sockets.map((one) => [one.entry.id, one])),
          inet: new Map(),
          netlink: new Map(),
          packet: new Map(),
        },
      },
      new Map(),
      { base: BASE, free: BASE },
    );
    for (const phase of ["open", "fetch", "watch", "finish"] as const) {
      task.run(programs[phase]);
    }
    const rest = new Program();
    rest.call("close_range", [BASE, 0xffffffff, 0], "closing the rest");
    task.run(rest);
    // Peers are told by inodes, what is in flight by ids.
    const byIno = new Map(
      sockets.flatMap(({ entry: { ino, id } }) =>
        [[ino, first + id], [id, first + id]] as const
      ),
    );
    const seen = seenIn(task.pid);
    for (const socket of sockets) {
      assertEquals(
        seen.get(first + socket.entry.id),
        picture(socket, (ino) => byIno.get(ino)),
        `seed ${seed}, socket ${socket.entry.id}`,
      );
    }
    assertEquals(seen.size, sockets.length, `seed ${seed}`);
  }
});
