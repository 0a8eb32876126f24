/**
 * Makes Unix sockets that belong together: binds, listens, connects and accepts
 * as the programs did, and puts into their queues what nobody has read.
 */
import { O } from "../ffi/syscall.ts";
import type { ckpt_credentials_entry } from "../image/schema.gen.ts";
import { UnixBinder, type WantedUnix } from "./bind_unix_sockets.ts";
import { type PacketSender, UnixQueueFiller } from "./fill_unix_queues.ts";
import type { BufferSizes } from "./fresh_sockets.ts";
import { OptionSetter } from "./option_setter.ts";
import { setOtherFlags } from "./other_flags.ts";
import { carriesFiles, socketName } from "./socket_images.ts";
import { AF_UNIX, SOCK } from "./socket_kind.ts";
import {
  cloexecOfPair,
  type NumberWanted,
  type TableProgram,
} from "./table_program.ts";
import { losesPath } from "./unix_paths.ts";
import { equalNames, isPath, nameText } from "./unix_socket.ts";
import { isListening, UnixTopology } from "./unix_topology.ts";

/** The process that makes sockets. */
export interface UnixSocketOwner extends PacketSender {
  /** See {@link canBindAside}. */
  readonly bindsAside: boolean;
  /** The buffers of a socket that was just made; undefined: nobody knows. */
  readonly fresh?: BufferSizes | undefined;
}

/**
 * Fills and settles sockets that are made already.
 *
 * @param placeOf the number of a file that is in flight, by its id
 */
export type FinishUnixSockets = (placeOf: (id: number) => number) => void;

/**
 * @param wanted all that belong together ({@link UnixTopology.groups})
 * @returns what is still to be done when the files that are in flight to them
 * are there; undefined: nothing is
 */
export function makeUnixSockets(
  table: TableProgram,
  wanted: readonly WantedUnix[],
  owner: UnixSocketOwner,
): FinishUnixSockets | undefined {
  const maker = new UnixMaker(table, wanted, owner);
  maker.make();
  if (maker.waits) return (placeOf) => maker.finish(placeOf);
  maker.finish();
  return undefined;
}

const PR_SET_SECUREBITS = 28;
const SECBIT_NO_SETUID_FIXUP = 4;
const KEEP_ID = -1;

class UnixMaker {
  readonly #table: TableProgram;
  readonly #topology: UnixTopology<WantedUnix>;
  readonly #wanted: readonly WantedUnix[];
  readonly #owner: UnixSocketOwner;
  /** What peers that are gone have still to say. */
  readonly #lastWords: (() => void)[] = [];
  readonly #binder: UnixBinder;
  readonly #queues: UnixQueueFiller;
  /** Files are in flight to them that have to be there first. */
  readonly waits: boolean;

  constructor(
    table: TableProgram,
    wanted: readonly WantedUnix[],
    owner: UnixSocketOwner,
  ) {
    this.#table = table;
    this.#wanted = wanted;
    this.#owner = owner;
    this.#binder = new UnixBinder(table);
    this.#queues = new UnixQueueFiller(table, owner);
    this.#topology = new UnixTopology(wanted);
    this.waits = wanted.some(carriesFiles);
  }

  /** Makes all of them, with their names and peers. */
  make(): void {
    const topology = this.#topology;
    const accepted = this.#wanted.filter((one) => topology.isAccepted(one));
    const clients = new Set(accepted.map((one) => topology.partner(one)));
    const done = new Set<WantedUnix>(accepted);
    for (const one of this.#wanted) {
      if (done.has(one)) continue;
      const partner = topology.partner(one);
      if (clients.has(one)) this.#create(one);
      else if (partner !== undefined) {
        this.#pair(one, partner);
        done.add(partner);
      } else if (topology.isOrphan(one)) {
        this.#orphan(
          one,
          (fd) => this.#pair(one, { fd, cloexec: O.CLOEXEC }),
        );
      } else this.#create(one);
    }
    const bound = this.#wanted.filter((one) =>
      one.entry.name.length > 0 && !topology.isAccepted(one)
    );
    // Who connects has its name before; what has lost its path had it before
    // the one that has it now.
    const rank = (one: WantedUnix) =>
      (isListening(one) ? 2 : 0) + (one.entry.deleted ? 0 : 1);
    for (const one of bound.toSorted((a, b) => rank(a) - rank(b))) {
      this.#serve(one, accepted);
    }
    for (const one of accepted) {
      if (topology.listener(one) === undefined) this.#acceptAlone(one);
    }
  }

  /** Puts what nobody has read into their queues, and settles them. */
  finish(placeOf = this.#queues.placeOf): void {
    this.#queues.placeOf = placeOf;
    for (const say of this.#lastWords) say();
    for (const one of this.#wanted) {
      const partner = this.#topology.partner(one);
      if (partner !== undefined) this.#queues.fill(one, partner.fd);
      else if (this.#isOpenToAll(one)) this.#fillByName(one);
    }
    for (const one of this.#wanted) {
      if (one.outside !== undefined) this.#connectOutside(one, one.outside);
      this.#settle(one);
    }
  }

  #connectOutside(one: WantedUnix, name: Uint8Array): void {
    this.#table.program.call(
      "connect",
      [one.fd, ...this.#binder.addressOf(name)],
      `connecting ${socketName(one)} to ${nameText(name)} of the outside`,
    );
  }

  /** socket(2) into a descriptor. */
  #socket(type: number, fd: number, cloexec: number, name: string): void {
    const { program } = this.#table;
    program.call("socket", [AF_UNIX, type | O.CLOEXEC, 0], `making ${name}`);
    this.#table.settle(fd, cloexec);
  }

  #create(one: WantedUnix): void {
    this.#socket(one.entry.type, one.fd, one.cloexec, socketName(one));
  }

  /** socketpair(2) */
  #pair(one: WantedUnix, partner: NumberWanted): void {
    const { program } = this.#table;
    const cloexec = cloexecOfPair(one, partner);
    this.#as(one.extension.peer, () =>
      program.call(
        "socketpair",
        [AF_UNIX, one.entry.type | cloexec, 0, program.reserve(8)],
        () => `making ${socketName(one)}`,
      ));
    this.#table.settlePair(one, partner, cloexec);
  }

  /** One whose peer is gone: the peer is made, says what it said, and goes. */
  #orphan(one: WantedUnix, make: (temporary: number) => void): void {
    const table = this.#table;
    const temporary = this.waits ? table.temporary() : table.scratch[1];
    make(temporary);
    const say = () => {
      this.#queues.fill(one, temporary);
      if (one.extension.reset) {
        this.#queues.write(one.fd, new Uint8Array(1), socketName(one));
      }
      table.close(temporary);
    };
    if (this.waits) this.#lastWords.push(say);
    else say();
  }

  /** Binds one, and makes all connections that come by its name. */
  #serve(one: WantedUnix, accepted: readonly WantedUnix[]): void {
    if (one.place !== undefined) {
      this.#binder.elsewhere(
        one,
        one.place,
        () => this.#serveHere(one, accepted),
      );
    } else if (this.#owner.bindsAside && losesPath(one)) {
      this.#binder.aside(one, () => this.#serveHere(one, accepted));
    } else this.#serveHere(one, accepted);
  }

  #serveHere(one: WantedUnix, accepted: readonly WantedUnix[]): void {
    const topology = this.#topology;
    const { program } = this.#table;
    const { entry, fd, extension } = one;
    this.#binder.bind(one.fd, one);
    if (isListening(one)) {
      const pending = topology.pending(one);
      const { waiting } = extension;
      const count = Math.max(pending.length, waiting.length);
      const listen = (backlog: number) =>
        this.#as(extension.peer, () =>
          program.call(
            "listen",
            [fd, backlog],
            `listening at ${socketName(one)}`,
          ));
      listen(Math.max(entry.backlog, count));
      for (const server of accepted) {
        if (topology.listener(server) !== one) continue;
        this.#connectAndAccept(server, fd);
      }
      if (waiting.length > 0) this.#await(one, pending);
      else {
        for (const client of pending) {
          const { uid = 0, gid = 0 } = client.extension;
          this.#connect(client.fd, one, { pid: 0, uid, gid });
        }
      }
      if (count > entry.backlog) listen(entry.backlog);
    } else {
      for (const sender of this.#wanted) {
        if (topology.peer(sender) !== one) continue;
        if (topology.partner(sender) === one) continue;
        this.#connect(sender.fd, one, undefined);
      }
    }
    this.#binder.settleFile(one);
  }

  /** Connections that wait to be accepted and have sent something, or ended. */
  #await(listener: WantedUnix, clients: readonly WantedUnix[]): void {
    const table = this.#table;
    const { type } = listener.entry;
    for (const { ino, uid, gid, sent } of listener.extension.waiting) {
      const client = clients.find(({ entry }) => entry.ino === ino);
      const fd = client?.fd ?? table.scratch[0];
      if (client === undefined) {
        const name = `what waits for ${socketName(listener)}`;
        this.#socket(type, fd, O.CLOEXEC, name);
      }
      this.#connect(fd, listener, { pid: 0, uid, gid });
      for (const bytes of sent) {
        const packet = {
          bytes,
          sender: undefined,
          name: undefined,
          rights: [],
        };
        this.#queues.send(fd, packet, listener);
      }
      if (client === undefined) table.close(fd);
    }
  }

  /** Takes packets from any socket, not only from its peer. */
  #isOpenToAll(one: WantedUnix): boolean {
    return one.entry.type === SOCK.DGRAM && !this.#topology.isOrphan(one) &&
      this.#topology.peer(one) === undefined;
  }

  /** A client, or what stands in for one that is gone, and its server. */
  #connectAndAccept(server: WantedUnix, listener: number): void {
    const table = this.#table;
    const client = this.#topology.partner(server);
    const connect = (fd: number) => {
      this.#connect(fd, server, server.extension.peer);
      table.program.call(
        "accept4",
        [listener, 0, 0, O.CLOEXEC],
        `accepting ${socketName(server)}`,
      );
      table.settle(server.fd, server.cloexec);
    };
    if (client !== undefined) connect(client.fd);
    else {
      this.#orphan(server, (temporary) => {
        const name = `the peer of ${socketName(server)}`;
        this.#socket(server.entry.type, temporary, O.CLOEXEC, name);
        connect(temporary);
      });
    }
  }

  /** One that was accepted by a socket that is gone. */
  #acceptAlone(server: WantedUnix): void {
    if (this.#owner.bindsAside && isPath(server.entry.name)) {
      this.#binder.aside(server, () => this.#acceptHere(server));
    } else this.#acceptHere(server);
  }

  #acceptHere(server: WantedUnix): void {
    const table = this.#table;
    const { program } = table;
    const [listener] = table.scratch;
    const name = `what accepted ${socketName(server)}`;
    this.#socket(server.entry.type, listener, O.CLOEXEC, name);
    this.#binder.bind(listener, server);
    const client = this.#topology.partner(server);
    this.#as(
      client?.extension.peer,
      () => program.call("listen", [listener, 1], `listening for ${name}`),
    );
    this.#connectAndAccept(server, listener);
    if (isPath(server.entry.name)) this.#binder.unlink(server);
    table.close(listener);
  }

  #connect(
    fd: number,
    to: WantedUnix,
    as: ckpt_credentials_entry | undefined,
  ): void {
    this.#as(as, () =>
      this.#table.program.call(
        "connect",
        [fd, ...this.#binder.address(to)],
        `connecting to ${socketName(to)}`,
      ));
  }

  /**
   * Borrows the effective ids that the other end shall see (SO_PEERCRED). With
   * the capabilities of root all the same, so that no permission hinders.
   */
  #as(peer: ckpt_credentials_entry | undefined, call: () => void): void {
    const { uid = 0, gid = 0 } = peer ?? {};
    if (uid === 0 && gid === 0) {
      call();
      return;
    }
    const { program } = this.#table;
    const set = (uid: number, gid: number, bits: number) => {
      const purpose = "borrowing the user ids for a socket";
      program.call("prctl", [PR_SET_SECUREBITS, bits, 0, 0, 0], purpose);
      program.call("setresgid", [KEEP_ID, gid, KEEP_ID], purpose);
      program.call("setresuid", [KEEP_ID, uid, KEEP_ID], purpose);
    };
    set(uid, gid, SECBIT_NO_SETUID_FIXUP);
    call();
    set(0, 0, SECBIT_NO_SETUID_FIXUP);
    program.call(
      "prctl",
      [PR_SET_SECUREBITS, 0, 0, 0, 0],
      "taking the user ids of root again",
    );
  }

  /** What came from sockets that are not connected to it. */
  #fillByName(one: WantedUnix): void {
    const { packets } = one;
    if (packets.length === 0) return;
    const table = this.#table;
    const [temporary] = table.scratch;
    const name = `a sender to ${socketName(one)}`;
    this.#socket(one.entry.type, temporary, O.CLOEXEC, name);
    this.#binder.reach(one, (address) => {
      for (const packet of packets) {
        const sender = this.#wanted.find(({ entry }) =>
          packet.name !== undefined && equalNames(entry.name, packet.name)
        );
        this.#queues.send(sender?.fd ?? temporary, packet, one, address);
      }
    });
    table.close(temporary);
  }

  /** Options, ends and flags: when nothing is sent any more. */
  #settle(one: WantedUnix): void {
    const { program } = this.#table;
    const { entry, extension, fd, flags } = one;
    const name = () => `descriptor ${fd} (${socketName(one)})`;
    const { uid = 0, gid = 0 } = extension;
    if (uid !== 0 || gid !== 0) {
      program.call(
        "fchown",
        [fd, uid, gid],
        () => `setting the owner of ${name()}`,
      );
    }
    const { opts } = entry;
    const options = new OptionSetter(program, fd, name);
    const { fresh } = this.#owner;
    const isFresh = !this.#queues.enlarged.has(fd);
    options.common(opts, isFresh ? fresh : undefined);
    if (opts.reuseaddr || opts.so_reuseport) {
      options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
    }
    options.further(extension.options);
    if (entry.shutdown) {
      program.call(
        "shutdown",
        [fd, entry.shutdown - 1],
        () => `shutting ${name()}`,
        { mayFail: this.#topology.isOrphan(one) },
      );
    }
    setOtherFlags(program, fd, flags, name, 0);
  }
}
