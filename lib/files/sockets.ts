/**
 * The sockets of a tree: what is seen of each, which cannot be saved, and what
 * is queued in them.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EACCES } from "../ffi/errno.ts";
import {
  closeAll,
  getDescriptorOf,
  getDescriptors,
  openPidfd,
} from "../ffi/pidfd.ts";
import { close, type FileStatus, S_IF, SyscallError } from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import type { ckpt_membership_entry } from "../image/schema.gen.ts";
import { LongOption } from "./further_options.ts";
import {
  type ConnectionOptions,
  inetSocketProblem,
  lookAtInetSocket,
  type SeenInetSocket,
  type SocketProblem,
} from "./inet_socket.ts";
import { isSupportedInet } from "./inet_kinds.ts";
import { readMemberships } from "./multicast.ts";
import {
  lookAtNetlinkSocket,
  netlinkProblem,
  type SeenNetlinkSocket,
} from "./netlink_socket.ts";
import {
  lookAtPacketSocket,
  packetProblem,
  type SeenPacketSocket,
} from "./packet_socket.ts";
import type { OutsideHolders, PipeIdentity } from "./outside_holders.ts";
import { readKind, withOptionsOf } from "./socket_options.ts";
import { sorted } from "./sorted_descriptors.ts";
import {
  AF_INET,
  AF_INET6,
  AF_NETLINK,
  AF_PACKET,
  AF_UNIX,
  IPPROTO_IP,
  IPPROTO_UDP,
  IPPROTO_UDPLITE,
  isInet,
  SOCK,
  type SocketKind,
} from "./socket_kind.ts";
import { IP_MULTICAST_IF } from "./sockopt.ts";
import {
  memoryOfOneMessage,
  type QueuedPacket,
  readShortStreams,
  readUnixQueue,
  UnreadableQueue,
  withRightsAtEnd,
} from "./unix_queue.ts";
import { parseOne, unixSocket, type UnixSocketsAtOnce } from "./sock_diag.ts";
import {
  type AskedSocket,
  askSockets,
  type SocketCalls,
} from "./socket_calls.ts";
import {
  hasQueue,
  isPath,
  lookAtUnixSocket,
  nameText,
  type SeenUnixSocket,
  STATE,
  UnixListeners,
  type UnixNeighbours,
  unixSocketProblem,
  type WayToRoot,
} from "./unix_socket.ts";

export type SeenSocket =
  | SeenUnixSocket
  | SeenInetSocket
  | SeenNetlinkSocket
  | SeenPacketSocket
  /** One that nothing more was asked of, because it cannot be saved. */
  | { readonly family: "other"; readonly why: string };

const POLLERR = 0x8;

/** Families by the names that errors give them. */
const FAMILIES: Readonly<Record<number, string>> = {
  38: "a socket of the kernel's cryptography",
  40: "a vsock socket",
  44: "an XDP socket",
};

export function isSocket({ mode }: Pick<FileStatus, "mode">): boolean {
  return (mode & S_IF.MT) === S_IF.SOCK;
}

/** A socket of another process. */
export interface SocketPlace {
  /** Its descriptor there. */
  readonly fd: number;
  readonly ino: bigint;
}

/** So many are open in ckpt at the same time. */
const AT_ONCE = 256;

/**
 * Asks sockets of another process; changes nothing.
 *
 * @param unix sockets of the host, the same for all processes of a tree
 * @param wayToRoot undefined: the tree has no mount namespaces of its own
 * @returns by their descriptors there
 */
export function lookAtSockets(
  pidfd: number,
  places: readonly SocketPlace[],
  unix: UnixSocketsAtOnce,
  wayToRoot?: WayToRoot,
): ReadonlyMap<number, SeenSocket> {
  const seen = new Map<number, SeenSocket>();
  for (let first = 0; first < places.length; first += AT_ONCE) {
    const some = places.slice(first, first + AT_ONCE);
    const fds = getDescriptors(pidfd, some.map(({ fd }) => fd));
    try {
      const found = withOptionsOf(
        fds,
        isKnown,
        (answered) => lookAtAll(fds, some, answered, unix, wayToRoot),
      );
      found.forEach((socket, i) => seen.set(some[i].fd, socket));
    } finally {
      closeAll(fds);
    }
  }
  return seen;
}

function lookAtAll(
  fds: readonly number[],
  places: readonly SocketPlace[],
  answered: Uint32Array<ArrayBuffer>,
  unix: UnixSocketsAtOnce,
  wayToRoot: WayToRoot | undefined,
): SeenSocket[] {
  const kinds = fds.map(readKind);
  const isUnix = ({ domain }: SocketKind) => domain === AF_UNIX;
  unix.expect(kinds.filter(isUnix).length);
  const asked = fds.map((fd, i) => {
    const { ino } = places[i];
    const told = isUnix(kinds[i]) ? unix.get(Number(ino)) : undefined;
    return { fd, ino, told };
  });
  const calls = askSockets(asked, answered);
  const joining = fds.map((fd, i) => ({ fd, family: kinds[i].domain, i }))
    .filter(({ i }) => mayJoinGroups(kinds[i]));
  const joined = readMemberships(joining);
  const memberships = new Map(joining.map(({ i }, n) => [i, joined[n]]));
  return asked.map((socket, i) => {
    const number = calls.number(i);
    const groups = memberships.get(i) ?? [];
    const known = groups.length === 0 ? toldByNumbers.get(number) : undefined;
    if (known !== undefined) return known;
    try {
      const { of } = calls;
      const seen = lookAt(socket, kinds[i], of(i), groups, wayToRoot);
      if (number !== 0 && isToldByNumber(seen)) toldByNumbers.set(number, seen);
      return seen;
    } catch (error) {
      if (error instanceof SyscallError && error.errno === EACCES) {
        return {
          family: "other",
          why: "it has a filter of eBPF, which is not supported",
        };
      }
      if (error instanceof LongOption) {
        return {
          family: "other",
          why: `its option ${error.message} (setsockopt(2)) is too long`,
        };
      }
      throw error;
    }
  });
}

/** Those of which a number tells all ({@link AnsweredSockets.number}). */
const toldByNumbers = new Map<number, SeenSocket>();

/** Whether nothing else was looked up to see all of a socket. */
function isToldByNumber(socket: SeenSocket): boolean {
  if (socket.family !== "unix" && socket.family !== "inet") return false;
  // The answers hold the length of the filter.
  if (socket.options.opts.so_filter.length > 0) return false;
  return socket.family === "unix"
    ? !isPath(socket.diag.name)
    : socket.kind.type === SOCK.DGRAM && socket.local.scope === 0 &&
      socket.memberships.length === 0;
}

/** Of a family and protocol that can be saved. */
function isKnown(kind: SocketKind): boolean {
  return isInet(kind)
    ? isSupportedInet(kind)
    : [AF_UNIX, AF_NETLINK, AF_PACKET].includes(kind.domain);
}

function mayJoinGroups(kind: SocketKind): boolean {
  return isInet(kind) && kind.type !== SOCK.STREAM && isKnown(kind);
}

const OF_ANOTHER_NAMESPACE: SeenSocket = {
  family: "other",
  why: "it belongs to another network namespace, which is not supported",
};

function lookAt(
  { fd, ino, told }: AskedSocket,
  kind: SocketKind,
  calls: SocketCalls,
  memberships: readonly ckpt_membership_entry[],
  wayToRoot: WayToRoot | undefined,
): SeenSocket {
  const { events } = calls;
  const hasError = (events & POLLERR) !== 0;
  switch (kind.domain) {
    case AF_UNIX:
      return told === undefined ? OF_ANOTHER_NAMESPACE : lookAtUnixSocket(
        fd,
        parseOne(told),
        kind,
        calls,
        hasError,
        wayToRoot,
      );
    case AF_INET:
    case AF_INET6:
      if (!isSupportedInet(kind)) {
        return {
          family: "other",
          why: `a socket of protocol ${kind.protocol} is not supported`,
        };
      }
      return lookAtInetSocket(fd, ino, kind, calls, hasError, memberships);
    case AF_NETLINK:
      return lookAtNetlinkSocket(fd, ino, kind, events, hasError);
    case AF_PACKET:
      return lookAtPacketSocket(fd, ino, kind, events, hasError) ??
        OF_ANOTHER_NAMESPACE;
    default:
      return {
        family: "other",
        why: `${
          FAMILIES[kind.domain] ?? `a socket of family ${kind.domain}`
        } is not supported yet`,
      };
  }
}

export interface SocketHolder {
  readonly pid: number;
  readonly tid?: number;
  readonly descriptors: readonly {
    readonly fd: number;
    readonly link: string;
    readonly status: FileStatus;
    readonly socket?: SeenSocket | undefined;
    /** Of a network device that the program serves. */
    readonly tun?: { readonly hasUnread: boolean } | undefined;
    readonly sameAs?: object | undefined;
  }[];
}

/** Each once, with the first descriptor of it. */
export function* socketsOf(processes: readonly SocketHolder[]) {
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, status, socket } of sorted(descriptors).sockets) {
      if (socket !== undefined) yield { pid: tid, fd, link, status, socket };
    }
  }
}

/** Whether a tree has a socket of which something is true. */
export function anySocket(
  processes: readonly SocketHolder[],
  isSo: (socket: SeenSocket) => boolean,
): boolean {
  return socketsOf(processes).some(({ socket }) => isSo(socket));
}

/** The sockets of a tree and their peers, of which somebody outside may know. */
export function socketsAmong(
  processes: readonly SocketHolder[],
): PipeIdentity[] {
  return [...socketsOf(processes)].flatMap(({ link, status, socket }) => {
    const own = { link, status };
    if (socket.family !== "unix") return [own];
    const { peer, pending } = socket.diag;
    return [
      own,
      ...[peer ?? 0, ...pending].filter((ino) => ino !== 0).map((ino) =>
        identity(ino, status)
      ),
    ];
  });
}

/** All sockets are on one file system. */
function identity(ino: number, { dev }: Pick<FileStatus, "dev">): PipeIdentity {
  return {
    link: `socket:[${ino}]`,
    status: { dev, ino: BigInt(ino), mode: S_IF.SOCK },
  };
}

/** Whether descriptors are in flight in one of them (scm_fds of fdinfo). */
export function hasFlight(
  processes: readonly {
    readonly descriptors: readonly (SocketHolder["descriptors"][number] & {
      readonly info: { readonly extra: readonly string[] };
    })[];
  }[],
): boolean {
  return processes.some(({ descriptors }) =>
    sorted(descriptors).sockets.some(({ info: { extra } }) =>
      extra.some((line) => /^scm_fds:\s*[1-9]/.test(line))
    )
  );
}

/** Whether datagrams.ts can save what a socket of IP has not been asked for. */
export function hasUnread(
  socket: SeenSocket | undefined,
): socket is SeenInetSocket {
  return socket?.family === "inet" && (socket.hasUnread &&
      (socket.hasEnded || isUdp(socket)) || mayBeCorked(socket));
}

function isUdp({ kind }: SeenInetSocket): boolean {
  return kind.protocol === IPPROTO_UDP && kind.type === SOCK.DGRAM;
}

/** Whether others may have its port, too, so that there is an order of them. */
export function mayShareItsPort(
  socket: SeenSocket | undefined,
): socket is SeenInetSocket {
  return socket?.family === "inet" && socket.local.port !== 0 &&
    socket.options.opts.so_reuseport === true &&
    (socket.kind.type === SOCK.DGRAM || socket.state === STATE.LISTEN);
}

/**
 * Whether it is one that sends to multicast groups, as far as it shows: it has
 * told how, or is a member of one.
 */
export function sendsToGroups(
  socket: SeenSocket | undefined,
): socket is SeenInetSocket {
  return socket?.family === "inet" && socket.kind.type !== SOCK.STREAM &&
    (socket.memberships.length > 0 ||
      socket.options.further.some(({ level, name }) =>
        level === IPPROTO_IP && SENDING_TO_GROUPS.has(name)
      ));
}

/** IP_MULTICAST_TTL, IP_MULTICAST_LOOP */
const SENDING_TO_GROUPS: ReadonlySet<number> = new Set([
  ...[IP_MULTICAST_IF, 33, 34],
]);

/** Whether it listens, and TCP connections wait to be accepted by it. */
export function awaitsAccept(
  socket: SeenSocket | undefined,
): socket is SeenInetSocket {
  return socket?.family === "inet" && socket.waiting > 0;
}

/** Whether it may hold a datagram that is not complete yet. */
export function mayBeCorked({ kind, corked }: SeenInetSocket): boolean {
  const { protocol, type } = kind;
  return corked > 0 && type === SOCK.DGRAM &&
    (protocol === IPPROTO_UDP || protocol === IPPROTO_UDPLITE);
}

/** Whether connections wait at it that only the kernel's memory tells all of. */
export function holdsWaiting(
  { diag: { state, pending } }: SeenUnixSocket,
  others: UnixNeighbours,
): boolean {
  return state === STATE.LISTEN &&
    pending.some((ino) => ino === 0 || (others.of(ino)?.unread ?? 0) > 0);
}

/** Whether waiting_connections.ts has something to read. */
export function anyWaiting(processes: readonly SocketHolder[]): boolean {
  const others = new TreeSockets(processes).neighbours();
  return socketsOf(processes).some(({ socket }) =>
    socket.family === "unix" && holdsWaiting(socket, others)
  );
}

/** Whether packet_rings.ts has something to look at. */
export function anyPacketRings(processes: readonly SocketHolder[]): boolean {
  return socketsOf(processes).some(({ socket }) =>
    socket.family === "packet" &&
    (socket.rings.receiving ?? socket.rings.sending) !== undefined
  );
}

/** What cannot be put back: packets that raw sockets and the like have got. */
export function* lostPackets(
  processes: readonly SocketHolder[],
): Generator<string> {
  for (const { pid, tid = pid, descriptors } of processes) {
    for (const { fd, link, tun } of sorted(descriptors).devices) {
      if (tun?.hasUnread) yield `descriptor ${fd} (${link}) of task ${tid}`;
    }
  }
  for (const { pid, fd, link, socket } of socketsOf(processes)) {
    const isLost = socket.family === "packet" &&
        socket.rings.receiving === undefined || socket.family === "inet" &&
        socket.kind.type !== SOCK.STREAM && !isUdp(socket);
    if (isLost && socket.hasUnread) {
      yield `descriptor ${fd} (${link}) of task ${pid}`;
    }
  }
}

/** Netlink sockets with messages, of which nobody can make another. */
export function unreadMessages(processes: readonly SocketHolder[]): Reason[] {
  return [...socketsOf(processes)].flatMap(({ pid, fd, link, socket }) =>
    socket.family === "netlink" && socket.hasUnread
      ? [{
        object: `descriptor ${fd} (${link}) of task ${pid}`,
        why: "it is a netlink socket with messages that nobody has read yet, " +
          "which is not supported",
        remedy: "dump again when the program has read them",
      }]
      : []
  );
}

/** Every socket of a tree, to judge each by its neighbours. */
export class TreeSockets {
  readonly #unix: ReadonlyMap<number, SeenUnixSocket>;
  #listeners: UnixListeners | undefined;

  /** @param hasUnseen there may be others, in flight, that were not seen yet */
  constructor(
    readonly processes: readonly SocketHolder[],
    readonly options: ConnectionOptions = {},
    readonly hasUnseen = false,
  ) {
    this.#unix = new Map(
      [...socketsOf(processes)].flatMap(({ socket }) =>
        socket.family === "unix" ? [[socket.diag.ino, socket] as const] : []
      ),
    );
  }

  /** @returns why a socket cannot be saved, undefined when it can */
  problem(
    { link, status }: {
      readonly link: string;
      readonly status: FileStatus;
    },
    socket: SeenSocket,
    outside: OutsideHolders,
  ): SocketProblem | undefined {
    if (socket.family === "other") return { why: socket.why };
    const holder = outside.holder({ link, status });
    if (socket.family === "unix") {
      const others = this.neighbours(outside, status);
      const leadsOut = this.#problemOfOutsidePeer(socket, others);
      if (leadsOut !== undefined) return leadsOut;
      const why = unixSocketProblem(socket, others);
      if (why !== undefined) return { why };
    } else {
      const problem = socket.family === "inet"
        ? inetSocketProblem(socket, this.options)
        : socket.family === "netlink"
        ? netlinkProblem(socket)
        : packetProblem(socket);
      if (problem !== undefined) return problem;
    }
    return holder && {
      why: `task ${holder.pid} (${holder.name}) outside of the program has ` +
        `it, too, as descriptor ${holder.fd}`,
    };
  }

  /**
   * Sees to it that the names in datagrams are those of sockets of the tree.
   *
   * @throws CkptError
   */
  confirmSenders(queues: SocketQueues): void {
    const names = new Set(
      [...this.#unix.values()].map(({ diag }) => decodeText(diag.name)),
    );
    for (const { pid, fd, link, socket } of socketsOf(this.processes)) {
      if (socket.family !== "unix" || socket.diag.peer !== undefined) continue;
      for (const { name } of queues.get(socket.diag.ino) ?? []) {
        if (name.length === 0) continue;
        if (names.has(decodeText(name))) continue;
        throw refusal(
          `descriptor ${fd} (${link}) of task ${pid}`,
          `it holds a packet of ${nameText(name)}, a socket that is not part ` +
            "of the program; that is not supported yet",
        );
      }
    }
  }

  /** The peer that is not part of the tree, if something can be done about it. */
  #problemOfOutsidePeer(
    { diag }: SeenUnixSocket,
    others: UnixNeighbours,
  ): SocketProblem | undefined {
    const { peer = 0, type } = diag;
    if (peer === 0 || others.of(peer) !== undefined) return undefined;
    const why = `its peer is a socket of ${
      others.holder(peer) ?? "a process outside of the program"
    }`;
    if (type === SOCK.DGRAM && isReachable(unixSocket(peer)?.name)) {
      if (this.options.extUnixSk) return undefined;
      const option = "--ext-unix-sk";
      return {
        why,
        remedy: `give ${option}: at restore it is connected again by name`,
        option,
      };
    }
    const option = `--external unix[${diag.ino}]`;
    if (this.#isExternal(diag.ino) || others.holder(peer) === undefined) return;
    return {
      why,
      remedy: `give ${option}: its peer is gone then after the restore, ` +
        `unless another is given: ckpt restore --inherit-fd fd[N]:socket:[${diag.ino}]`,
      option,
    };
  }

  #isExternal(ino: number): boolean {
    return this.options.external?.includes(`unix[${ino}]`) ?? false;
  }

  neighbours(
    outside?: OutsideHolders,
    status: Pick<FileStatus, "dev"> = { dev: 0n },
  ): UnixNeighbours {
    return {
      of: (ino) => this.#unix.get(ino),
      listeners: () =>
        this.#listeners ??= new UnixListeners(this.#unix.values()),
      mayBeUnseen: this.hasUnseen,
      outside: (ino) => {
        const found = this.#unix.has(ino) ? undefined : unixSocket(ino);
        return this.options.extUnixSk && isReachable(found?.name)
          ? found
          : undefined;
      },
      isExternal: (ino) => this.#isExternal(ino),
      holder: (ino) => {
        const holder = outside?.holder(identity(ino, status));
        return holder &&
          `task ${holder.pid} (${holder.name}) outside of the program`;
      },
    };
  }
}

/** Whether a name can be connected to from any directory. */
function isReachable(name: Uint8Array | undefined): boolean {
  return name !== undefined && name.length > 0 &&
    (!isPath(name) || name[0] === SLASH);
}

const SLASH = 0x2f;

/** What was queued in each, by its inode. */
export type SocketQueues = ReadonlyMap<number, readonly QueuedPacket[]>;

export const NO_QUEUES: SocketQueues = new Map();

/**
 * Reads the queues of Unix sockets; nothing is taken out. The tree has to stand
 * still. What came with packets (SCM_RIGHTS) is open in ckpt then.
 *
 * @throws CkptError naming the socket that cannot be saved
 */
export function readSocketQueues(
  processes: readonly SocketHolder[],
): SocketQueues {
  const queues = new Map<number, readonly QueuedPacket[]>();
  const others = new TreeSockets(processes).neighbours();
  const short = readShort(processes);
  for (const { pid, fd, link, socket } of socketsOf(processes)) {
    // What has an error is read only where its peer has left one.
    if (socket.family !== "unix" || !hasQueue(socket)) continue;
    const object = `descriptor ${fd} (${link}) of task ${pid}`;
    const packets = short.get(socket) ?? readQueue(pid, fd, socket, object);
    if (packets.length === 0) continue;
    const { ino, peer, type } = socket.diag;
    queues.set(
      ino,
      type === SOCK.STREAM
        ? placeRights(packets, others.of(peer ?? 0)?.unread)
        : packets,
    );
  }
  return queues;
}

/** What is in the streams that are read many at once. */
function readShort(
  processes: readonly SocketHolder[],
): ReadonlyMap<SeenSocket, readonly QueuedPacket[]> {
  const found = new Map<SeenSocket, readonly QueuedPacket[]>();
  const streams = [...socketsOf(processes)].filter(({ socket }) =>
    socket.family === "unix" && hasQueue(socket) &&
    socket.diag.type === SOCK.STREAM
  );
  for (const [pid, all] of Map.groupBy(streams, ({ pid }) => pid)) {
    const pidfd = openPidfd(pid);
    try {
      for (let first = 0; first < all.length; first += AT_ONCE) {
        const some = all.slice(first, first + AT_ONCE);
        const fds = getDescriptors(pidfd, some.map(({ fd }) => fd));
        try {
          readShortStreams(fds).forEach((packets, i) => {
            if (packets !== undefined) found.set(some[i].socket, packets);
          });
        } finally {
          closeAll(fds);
        }
      }
    } finally {
      close(pidfd);
    }
  }
  return found;
}

/**
 * Decides with which bytes of a stream descriptors are sent again.
 *
 * @param memory of all that the sender has sent; undefined: it is gone
 */
function placeRights(
  packets: readonly QueuedPacket[],
  memory: number | undefined,
): readonly QueuedPacket[] {
  if (packets.every(({ rights }) => rights.length === 0)) return packets;
  const ofOneCallEach = packets.reduce(
    (sum, { bytes }) => sum + memoryOfOneMessage(bytes.length),
    0,
  );
  if (ofOneCallEach === memory) return packets;
  return packets.flatMap((packet) =>
    packet.rights.length === 0 ? [packet] : withRightsAtEnd(packet)
  );
}

function readQueue(
  pid: number,
  fd: number,
  { diag, hasError }: SeenUnixSocket,
  object: string,
): QueuedPacket[] {
  // Reading would take the error away; the socket is refused anyway.
  if (hasError && diag.type !== SOCK.STREAM) return [];
  const own = getDescriptorOf(pid, fd);
  try {
    return readUnixQueue(own, diag.type, (diag.shutdown & 1) !== 0);
  } catch (error) {
    if (error instanceof UnreadableQueue) throw refusal(object, error.message);
    throw error;
  } finally {
    close(own);
  }
}

function refusal(object: string, why: string): CkptError {
  return new CkptError(EXIT.refused, "reading what is in sockets", [
    { object, why },
  ]);
}
