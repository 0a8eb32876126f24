/**
 * TCP connections, from the first acknowledgement to the last: which states of
 * a socket are one, and what is read of it while its traffic is blocked.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { library } from "../ffi/library.ts";
import { checked } from "../ffi/cause.ts";
import { CkptError, EXIT } from "../error.ts";
import { describeErrno, EAGAIN, EBADMSG } from "../ffi/errno.ts";
import { closeAll, getDescriptors, openPidfd } from "../ffi/pidfd.ts";
import { addressOf, close, SyscallError } from "../ffi/syscall.ts";
import type { Entry } from "../image/kinds.ts";
import { addressText, type InetAddress, wireWords } from "./inet_address.ts";
import type { SeenInetSocket } from "./inet_socket.ts";
import type { ConnectionAddress } from "./network_lock.ts";
import { IPPROTO_TCP } from "./socket_kind.ts";
import { setInt } from "./sockopt.ts";
import type { SeenSocket } from "./sockets.ts";
import {
  hasQueuedFin,
  hasReceivedFin,
  hasSentFin,
  isConnected,
  RCV_SHUTDOWN,
  SEND_SHUTDOWN,
} from "./tcp_state.ts";

/** What was read of a connection. */
export interface ReadConnection {
  readonly state: number;
  /** RCV_SHUTDOWN, SEND_SHUTDOWN. */
  readonly shutdown: number;
  readonly stream: Entry<"tcp-stream">;
}

/** By the inodes of the sockets. */
export type ReadConnections = ReadonlyMap<number, ReadConnection>;

/** A connection was opened or closed between two looks at it. */
export class ConnectionChanged extends Error {}

/** struct connection of c/lib/connections.c. */
const RECORD = 320;
const AT = {
  error: 4,
  inSequence: 8,
  outSequence: 12,
  inLength: 16,
  outLength: 20,
  outQueued: 24,
  unsent: 28,
  mssClamp: 32,
  timestamp: 36,
  window: 40,
  inRoom: 60,
  in: 64,
  out: 72,
  outRoom: 80,
  info: 88,
} as const;
/** struct tcp_info. */
const INFO = { state: 0, options: 5, scales: 6 } as const;
/** TCPI_OPT_* that belong to the connection. */
const TCPI_OPT = { TIMESTAMPS: 1, SACK: 2, WSCALE: 4 } as const;
const KEPT_OPTIONS = TCPI_OPT.TIMESTAMPS | TCPI_OPT.SACK | TCPI_OPT.WSCALE;
const SIOCINQ = 0x541b;
const SIOCOUTQ = 0x5411;
/** The kernel copies whole buffers, also what is acknowledged of the first. */
const LARGEST_BUFFER = 1 << 19;
const TRIES = 5;
const TCP_REPAIR = 19;

/** How the packets of a connection look. */
export function wireAddress(
  local: InetAddress,
  remote: InetAddress,
): ConnectionAddress {
  return {
    local: wireWords(local),
    remote: wireWords(remote),
    localPort: local.port,
    remotePort: remote.port,
  };
}

interface Holder {
  readonly pid: number;
  readonly tid?: number;
  readonly descriptors: readonly {
    readonly fd: number;
    readonly socket?: SeenSocket | undefined;
  }[];
}

interface HeldConnection {
  readonly socket: SeenInetSocket;
  /** Of ckpt's own. */
  readonly fd: number;
}

/** Whether anything of a tree is a connection. */
export function hasConnections(processes: readonly Holder[]): boolean {
  return processes.some(({ descriptors }) =>
    descriptors.some(({ socket }) => asConnection(socket) !== undefined)
  );
}

/** How many there are, more than once where several processes have one. */
export function countConnections(processes: readonly Holder[]): number {
  return processes.reduce(
    (sum, { descriptors }) =>
      sum +
      descriptors.filter(({ socket }) => asConnection(socket) !== undefined)
        .length,
    0,
  );
}

function asConnection(
  socket: SeenSocket | undefined,
): SeenInetSocket | undefined {
  return socket?.family === "inet" && socket.kind.protocol === IPPROTO_TCP &&
      isConnected(socket.state)
    ? socket
    : undefined;
}

/**
 * The connections of a tree that stands still, each by a descriptor of ckpt's
 * own: as long as that is open, nothing is sent when the program ends.
 */
export class HeldConnections implements Disposable {
  readonly #held: readonly HeldConnection[];

  private constructor(held: readonly HeldConnection[]) {
    this.#held = held;
  }

  /** @throws SyscallError EMFILE: ckpt may not have so many descriptors */
  static of(processes: readonly Holder[]): HeldConnections {
    const held: HeldConnection[] = [];
    const known = new Set<number>();
    try {
      for (const { pid, tid = pid, descriptors } of processes) {
        const found: HeldConnection[] = [];
        for (const { fd, socket: seen } of descriptors) {
          const socket = asConnection(seen);
          if (socket === undefined || known.has(socket.ino)) continue;
          known.add(socket.ino);
          found.push({ socket, fd });
        }
        if (found.length === 0) continue;
        const pidfd = openPidfd(tid);
        try {
          const own = getDescriptors(pidfd, found.map(({ fd }) => fd));
          held.push(...found.map(({ socket }, i) => ({ socket, fd: own[i] })));
        } finally {
          close(pidfd);
        }
      }
      return new HeldConnections(held);
    } catch (error) {
      closeAll(held.map(({ fd }) => fd));
      throw error;
    }
  }

  /** @param without inodes of sockets that are left out */
  addresses(without: ReadonlySet<number> = new Set()): ConnectionAddress[] {
    return this.#held.filter(({ socket }) => !without.has(socket.ino))
      .map(({ socket: { local, remote } }) => wireAddress(local, remote!));
  }

  /**
   * Reads all; their traffic has to be blocked, and they are as before.
   *
   * @throws ConnectionChanged when one has ended by now
   * @throws CkptError naming the connection that cannot be read
   */
  read(): ReadConnections {
    for (let i = 1;; i++) {
      const read = readAll(this.#held);
      if (read !== undefined) return read;
      if (i === TRIES) {
        throw new ConnectionChanged("packets of TCP connections still arrive");
      }
    }
  }

  /** From here on, nothing is sent when they are closed. */
  silence(): void {
    for (const { fd } of this.#held) setInt(fd, IPPROTO_TCP, TCP_REPAIR, 1);
  }

  [Symbol.dispose](): void {
    closeAll(this.#held.map(({ fd }) => fd));
  }
}

/** @returns undefined when something came in meanwhile */
function readAll(
  held: readonly HeldConnection[],
): ReadConnections | undefined {
  if (held.length === 0) return new Map();
  const records = new Uint8Array(held.length * RECORD);
  const view = new DataView(records.buffer);
  const rooms = lengthsOf(held).map((length) => ({
    in: new Uint8Array(length.in),
    out: new Uint8Array(length.out === 0 ? 0 : length.out + LARGEST_BUFFER),
  }));
  held.forEach(({ fd }, i) => {
    const at = i * RECORD;
    view.setInt32(at, fd, true);
    view.setUint32(at + AT.inRoom, rooms[i].in.length, true);
    view.setUint32(at + AT.outRoom, rooms[i].out.length, true);
    for (const queue of ["in", "out"] as const) {
      const room = rooms[i][queue];
      if (room.length === 0) continue;
      view.setBigUint64(at + AT[queue], addressOf(room), true);
    }
  });
  checked(
    library("sockets").ckpt_read_connections(records, BigInt(held.length)),
    "reading TCP connections",
  );
  const read = new Map<number, ReadConnection>();
  for (const [i, { socket }] of held.entries()) {
    const record = new DataView(records.buffer, i * RECORD, RECORD);
    const error = record.getInt32(AT.error, true);
    if (error === EAGAIN) return undefined;
    if (error === EBADMSG) throw refuseUrgent(socket);
    if (error !== 0) {
      throw new Error(
        `socket:[${socket.ino}]: TCP_REPAIR: ${describeErrno(error)}`,
      );
    }
    read.set(socket.ino, decode(record, rooms[i], socket));
  }
  return read;
}

function refuseUrgent({ ino, kind, remote }: SeenInetSocket): CkptError {
  return new CkptError(EXIT.refused, "reading TCP connections", [{
    object: `socket:[${ino}]`,
    why: "an urgent byte (MSG_OOB), which the program has read before what " +
      `came earlier, stands in the connection to ${
        addressText(kind.domain, remote!)
      }; that is not supported`,
    remedy: "dump again when the program has read on",
  }]);
}

/** Bytes in both queues of each. */
function lengthsOf(
  held: readonly HeldConnection[],
): { in: number; out: number }[] {
  const fds = Slots.of(held.map(({ fd }) => fd));
  const slots = new Slots(8, held.length);
  const calls = new Calls();
  const fd = { loaded: fds };
  const asked = [
    calls.add("ioctl", [fd, SIOCINQ, { slots }]),
    calls.add("ioctl", [fd, SIOCOUTQ, { slots, offset: 4 }]),
  ];
  calls.run(held.length);
  return held.map((_, i) => {
    for (const call of asked) {
      const result = calls.result(i, call);
      if (result < 0) throw new SyscallError("ioctl", -result);
    }
    return {
      in: slots.view.getInt32(8 * i, true),
      out: slots.view.getInt32(8 * i + 4, true),
    };
  });
}

function decode(
  record: DataView,
  rooms: { in: Uint8Array; out: Uint8Array },
  socket: SeenInetSocket,
): ReadConnection {
  const u32 = (at: number) => record.getUint32(at, true);
  const info = (at: number) => record.getUint8(AT.info + at);
  const state = info(INFO.state);
  if (!isConnected(state)) {
    throw new ConnectionChanged(`socket:[${socket.ino}] has been closed`);
  }
  const inq = rooms.in.slice(0, u32(AT.inLength));
  // Our own FIN counts as one byte until it is acknowledged.
  const fin = hasQueuedFin(state) ? 1 : 0;
  const length = u32(AT.outQueued) - fin;
  const end = u32(AT.outLength);
  const outq = rooms.out.slice(end - length, end);
  const options = info(INFO.options) & KEPT_OPTIONS;
  const scales = info(INFO.scales);
  const window = (i: number) => u32(AT.window + 4 * i);
  const received = hasReceivedFin(state) ||
    (socket.shutdown & RCV_SHUTDOWN) !== 0;
  return {
    state,
    shutdown: (received ? RCV_SHUTDOWN : 0) |
      (hasSentFin(state) ? SEND_SHUTDOWN : 0),
    stream: {
      inq_len: inq.length,
      inq_seq: u32(AT.inSequence),
      outq_len: outq.length,
      outq_seq: u32(AT.outSequence),
      opt_mask: options,
      snd_wscale: scales & 15,
      mss_clamp: u32(AT.mssClamp),
      rcv_wscale: (options & TCPI_OPT.WSCALE) !== 0 ? scales >> 4 : undefined,
      timestamp: (options & TCPI_OPT.TIMESTAMPS) !== 0
        ? u32(AT.timestamp)
        : undefined,
      unsq_len: Math.min(outq.length, Math.max(0, u32(AT.unsent) - fin)),
      snd_wl1: window(0),
      snd_wnd: window(1),
      max_window: window(2),
      rcv_wnd: window(3),
      rcv_wup: window(4),
      extra: { inq, outq },
    },
  };
}
