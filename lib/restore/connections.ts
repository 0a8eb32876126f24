/**
 * The TCP connections of a restore: what was asked for, whether this host can
 * have them, and the block of their traffic, which lasts until all sockets are
 * there. It is the one that the dump has left; where there is none any more,
 * the kernel removes ckpt's own when ckpt ends.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { makeRoomForDescriptors } from "../ffi/descriptor_room.ts";
import {
  addressOfConnection,
  type ConnectionImage,
  connectionProblems,
  connectionsAmong,
  MadeConnections,
  type MadeSocket,
} from "../files/make_connections.ts";
import { interfacesOf } from "../files/interfaces.ts";
import { LeftLock, lockName, NetworkLock } from "../files/network_lock.ts";
import {
  hasBeenLeftUnread,
  type InetSocketImage,
  withoutConnections,
} from "../files/socket_images.ts";
import { isConnection } from "../files/tcp_state.ts";
import { readRandomUuid } from "../proc/read.ts";
import type { UnfinishedSocket } from "../files/own_hands.ts";
import type { UnconnectedSocket } from "../files/unaccepted.ts";
import type { Report } from "../report.ts";
import type { RestoreOptions } from "./options.ts";
import type { TreeImages } from "./task_images.ts";

/**
 * The images with the connections that are wanted.
 *
 * @throws CkptError when no option says what is to become of them
 */
export function chooseConnections(
  images: TreeImages,
  { tcpEstablished, tcpClose }: RestoreOptions,
): TreeImages {
  const { inet } = images.sockets;
  const all = [...inet.values()].filter(({ entry }) => isConnection(entry));
  if (all.length === 0) return images;
  const count = all.length === 1
    ? "a TCP connection"
    : `${all.length} TCP connections`;
  const refuse = (why: string, remedy: string) => {
    const action = `restoring from ${images.set.directory}`;
    throw new CkptError(EXIT.refused, action, [{
      object: "files.img",
      why,
      remedy,
    }]);
  };
  if (tcpEstablished && tcpClose) {
    refuse(
      `--tcp-established and --tcp-close are given for ${count}`,
      "leave one of them out",
    );
  }
  if (tcpClose) {
    return { ...images, sockets: withoutConnections(images.sockets) };
  }
  if (all.some(({ stream }) => stream === undefined)) {
    refuse(
      `the program had ${count}, left out by --tcp-close`,
      "give --tcp-close: they are closed",
    );
  }
  if (!tcpEstablished) {
    refuse(
      `the program has ${count}`,
      "give --tcp-established; or --tcp-close: they are closed",
    );
  }
  return images;
}

/** What is done to sockets that are no connections when they are made. */
export interface SocketFiller {
  /** Gives those that share a port their addresses. */
  place(sockets: readonly UnfinishedSocket[]): void;
  /** Connects those that wait to be accepted. */
  connect(sockets: readonly UnconnectedSocket[]): void;
  /** @param fd the number of a socket in a process */
  fill(pid: number, fd: number, image: InetSocketImage): void;
}

/** The sockets that a process has made. */
export interface SocketsOfProcess {
  readonly pid: number;
  readonly sockets: readonly MadeSocket[];
}

/** CRIU's number for its rules of iptables. */
const IPTABLES = 0;

export class RestoredConnections implements Disposable {
  readonly #images: ReadonlyMap<number, ConnectionImage>;
  readonly #interfaces: ReadonlyMap<string, number>;
  readonly #unread: ReadonlyMap<number, InetSocketImage>;
  /** Those that share a port. */
  readonly #unplaced: ReadonlyMap<number, InetSocketImage>;
  /** Those that wait to be accepted. */
  readonly #unaccepted: ReadonlyMap<number, ConnectionImage>;
  readonly #made = new MadeConnections();
  #lock: NetworkLock | undefined;
  /** The table that a dump has left; undefined: there is none. */
  readonly #left: LeftLock | undefined;
  readonly problems: readonly Reason[];
  /** Whether CRIU has blocked them in a way that ckpt does not end. */
  readonly areBlockedByIptables: boolean;

  private constructor(images: TreeImages) {
    const { inet } = images.sockets;
    const { dump_criu_run_id, network_lock_method = IPTABLES } =
      images.set.inventory;
    const connections = connectionsAmong(inet.values());
    this.#images = new Map(connections.map((one) => [one.entry.id, one]));
    this.#unread = new Map(
      [...inet].filter(([, { extension }]) => hasBeenLeftUnread(extension)),
    );
    this.#unplaced = new Map(
      [...inet].filter(([, { extension }]) =>
        extension.shared_port !== undefined
      ),
    );
    this.#unaccepted = new Map(
      [...inet].flatMap(([id, image]) => {
        const { stream, extension } = image;
        return stream === undefined || extension.unaccepted === undefined
          ? []
          : [[id, { ...image, stream }]];
      }),
    );
    const had = [...inet.values()].some(({ entry }) => isConnection(entry));
    this.areBlockedByIptables = had && network_lock_method === IPTABLES;
    const name = lockName(dump_criu_run_id ?? "");
    this.#left = had && dump_criu_run_id !== undefined
      ? LeftLock.find(name)
      : undefined;
    if (connections.length === 0) {
      this.#interfaces = new Map();
      this.problems = [];
      return;
    }
    makeRoomForDescriptors(connections.length);
    this.#interfaces = interfacesOf(connections);
    if (this.#left === undefined) {
      this.#lock = NetworkLock.prepare(readRandomUuid());
      this.#lock.block(connections.map(addressOfConnection));
    }
    try {
      this.problems = connectionProblems(connections, this.#interfaces);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Blocks the traffic of the connections and looks whether they can be.
   *
   * @throws CkptError when the kernel cannot block them
   */
  static prepare(images: TreeImages): RestoredConnections {
    return new RestoredConnections(images);
  }

  /** @param filler of those that are no connections; undefined: there are none */
  makeAll(
    made: readonly SocketsOfProcess[],
    filler: SocketFiller | undefined,
  ): void {
    filler?.place(
      made.flatMap(({ pid, sockets }) =>
        sockets.flatMap(({ id, fd }) => {
          const image = this.#unplaced.get(id);
          return image === undefined ? [] : [{ pid, fd, image }];
        })
      ),
    );
    filler?.connect(
      made.flatMap(({ pid, sockets }) =>
        sockets.flatMap(({ id, fd }) => {
          const image = this.#unaccepted.get(id);
          return image === undefined ? [] : [{ pid, fd, image }];
        })
      ),
    );
    for (const one of made) this.#make(one, filler);
  }

  #make(
    { pid, sockets }: SocketsOfProcess,
    filler: SocketFiller | undefined,
  ): void {
    const isConnected = ({ id }: MadeSocket) => this.#images.has(id);
    this.#made.make(
      pid,
      sockets.filter(isConnected),
      this.#images,
      this.#interfaces,
    );
    for (const { id, fd } of sockets) {
      const image = this.#unread.get(id);
      if (image !== undefined) filler?.fill(pid, fd, image);
    }
  }

  /** What fills sockets with what nobody has read. */
  async filler(report: Report): Promise<SocketFiller | undefined> {
    const special = [this.#unread, this.#unplaced, this.#unaccepted];
    if (special.every(({ size }) => size === 0)) return undefined;
    const { connectUnaccepted } = await import("../files/unaccepted.ts");
    const { placeSharedPorts } = await import("../files/shared_ports.ts");
    const { fillUnread } = await import("../files/datagrams.ts");
    const interfaces = interfacesOf([
      ...this.#unplaced.values(),
      ...this.#unaccepted.values(),
    ]);
    const place = (sockets: readonly UnfinishedSocket[]) =>
      placeSharedPorts(sockets, interfaces);
    const connect = (sockets: readonly UnconnectedSocket[]) =>
      connectUnaccepted(sockets, interfaces);
    const fill: SocketFiller["fill"] = (pid, fd, image) => {
      const lost = fillUnread(pid, fd, image);
      if (lost === 0) return;
      report.log(
        2,
        `descriptor ${fd} of task ${pid}: ${lost} datagrams that nobody had ` +
          "read are lost: the kernel does not let them through",
      );
    };
    return { place, connect, fill };
  }

  /** When nothing but this can fail any more: all of them, at one moment. */
  goOn(): void {
    this.#made.close();
    this.#left?.remove();
    this.#lock?.unblock();
    this.#made.goOn();
  }

  [Symbol.dispose](): void {
    this.#made[Symbol.dispose]();
    this.#lock?.[Symbol.dispose]();
    this.#left?.[Symbol.dispose]();
  }
}
