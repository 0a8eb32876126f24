/**
 * Makes Unix sockets that belong together: binds, listens, connects and accepts
 * as the programs did, and puts into their queues what nobody has read.
 */
import type { Data } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { splitPath } from "../ghost/calls.ts";
import type { ckpt_credentials_entry } from "../image/schema.gen.ts";
import type { Wanted } from "./make_descriptions.ts";
import {
  carriesFiles,
  type PacketImage,
  type UnixSocketImage,
} from "./socket_images.ts";
import { OptionSetter } from "./option_setter.ts";
import { SO, SOL_SOCKET } from "./sockopt.ts";
import type { TableProgram } from "./table_program.ts";
import { SOCK } from "./unix_queue.ts";
import {
  AF_UNIX,
  equalNames,
  isPath,
  nameText,
  pathOf,
} from "./unix_socket.ts";
import { isListening, UnixTopology } from "./unix_topology.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";

/** A socket that is to be made, and where. */
export interface WantedUnix extends Wanted, UnixSocketImage {
  /** Name of a socket of the outside that it sends to. */
  readonly outside?: Uint8Array | undefined;
  /** A descriptor of the directory in which it is bound; see {@link isElsewhere}. */
  readonly place?: number | undefined;
}

/** The process that makes sockets. */
export interface UnixSocketOwner {
  readonly pid: number;
  /** Whether a process exists, so that a packet may be called its. */
  readonly exists: (pid: number) => boolean;
  /** See {@link canBindAside}. */
  readonly bindsAside: boolean;
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

const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const SCM_RIGHTS = 1;
const SCM_CREDENTIALS = 2;
const SIOCUNIXFILE = 0x89e0;
/** Room for all that is queued (sk_setsockopt takes no more). */
const ROOM = 1 << 29;
const PR_SET_SECUREBITS = 28;
const SECBIT_NO_SETUID_FIXUP = 4;
const KEEP_ID = -1;
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_CMD_CREATE = 6;
const OPEN_TO_ALL = 0o777;

class UnixMaker {
  readonly #table: TableProgram;
  readonly #topology: UnixTopology<WantedUnix>;
  readonly #wanted: readonly WantedUnix[];
  readonly #owner: UnixSocketOwner;
  /** What peers that are gone have still to say. */
  readonly #lastWords: (() => void)[] = [];
  /** Of the root directory, while another one is it. */
  #rootNumber: number | undefined;
  #placeOf = (_id: number): number => {
    throw new Error("a file in flight is sent before it is there");
  };
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
        this.#orphan(one, (temporary) => this.#temporaryPair(one, temporary));
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
  finish(placeOf = this.#placeOf): void {
    this.#placeOf = placeOf;
    for (const say of this.#lastWords) say();
    for (const one of this.#wanted) {
      const partner = this.#topology.partner(one);
      if (partner !== undefined) this.#fill(one, partner.fd);
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
      [one.fd, ...this.#addressOf(name)],
      `connecting ${this.#name(one)} to ${nameText(name)} of the outside`,
    );
  }

  #name(one: UnixSocketImage): string {
    return `socket:[${one.entry.ino}]`;
  }

  /** socket(2) into a descriptor. */
  #socket(type: number, fd: number, cloexec: number, name: string): void {
    const { program } = this.#table;
    program.call("socket", [AF_UNIX, type | O.CLOEXEC, 0], `making ${name}`);
    this.#table.move(this.#table.take(), fd, cloexec);
  }

  #create(one: WantedUnix): void {
    this.#socket(one.entry.type, one.fd, one.cloexec, this.#name(one));
  }

  /** socketpair(2) into the two descriptors for the work. */
  #scratchPair(one: WantedUnix): void {
    const table = this.#table;
    const { program } = table;
    const [left, right] = table.scratch;
    const ends = program.reserve(8);
    this.#as(one.extension.peer, () =>
      program.call(
        "socketpair",
        [AF_UNIX, one.entry.type | O.CLOEXEC, 0, ends],
        () => `making ${this.#name(one)}`,
      ));
    const [first, second] = [table.take(), table.take()];
    table.move(first, left, O.CLOEXEC);
    table.move(second, right, O.CLOEXEC);
  }

  #pair(one: WantedUnix, partner: WantedUnix): void {
    const table = this.#table;
    const [left, right] = table.scratch;
    this.#scratchPair(one);
    table.duplicate(left, one.fd, one.cloexec);
    table.duplicate(right, partner.fd, partner.cloexec);
    table.close(left);
    table.close(right);
  }

  /** The other end gets a temporary number. */
  #temporaryPair(one: WantedUnix, temporary: number): void {
    const table = this.#table;
    const [left, right] = table.scratch;
    this.#scratchPair(one);
    table.duplicate(left, one.fd, one.cloexec);
    table.close(left);
    if (temporary === right) return;
    table.duplicate(right, temporary, O.CLOEXEC);
    table.close(right);
  }

  /** One whose peer is gone: the peer is made, says what it said, and goes. */
  #orphan(one: WantedUnix, make: (temporary: number) => void): void {
    const table = this.#table;
    const temporary = this.waits ? table.temporary() : table.scratch[1];
    make(temporary);
    const say = () => {
      this.#fill(one, temporary);
      if (one.extension.reset) {
        this.#write(one.fd, new Uint8Array(1), this.#name(one));
      }
      table.close(temporary);
    };
    if (this.waits) this.#lastWords.push(say);
    else say();
  }

  /** Binds one, and makes all connections that come by its name. */
  #serve(one: WantedUnix, accepted: readonly WantedUnix[]): void {
    if (one.place !== undefined) {
      this.#elsewhere(one, one.place, () => this.#serveHere(one, accepted));
    } else if (this.#owner.bindsAside && losesPath(one)) {
      this.#aside(one, () => this.#serveHere(one, accepted));
    } else this.#serveHere(one, accepted);
  }

  /**
   * Where nothing but the directories of a path exists: a file system in memory
   * that is mounted nowhere, and is the root meanwhile. So a path that is soon
   * to be gone is the one it was, whatever is there now.
   */
  #aside({ entry: { name, name_dir } }: WantedUnix, act: () => void): void {
    const table = this.#table;
    const { program } = table;
    const path = pathOf(name);
    const purpose = `making a place for ${path}`;
    program.call("fsopen", [program.text("tmpfs"), FSOPEN_CLOEXEC], purpose);
    const system = table.take();
    program.call(
      "fsconfig",
      [system, FSCONFIG_CMD_CREATE, 0, 0, 0],
      purpose,
    );
    program.call("fsmount", [system, FSMOUNT_CLOEXEC, 0], purpose);
    const mount = table.take();
    this.#withRoot(mount, purpose, () => {
      table.close(mount);
      table.close(system);
      const whole = path.startsWith("/") ? path : `${name_dir ?? ""}/${path}`;
      for (const directory of wayThrough(whole).directories) {
        program.call(
          "mkdirat",
          [AT_FDCWD, program.text(encodeText(directory)), OPEN_TO_ALL],
          purpose,
        );
      }
      act();
    });
  }

  /**
   * In a directory that has nothing but the way to the name it is bound to, and
   * from which its file goes to the directory above, where its names are.
   */
  #elsewhere(one: WantedUnix, place: number, act: () => void): void {
    const { program } = this.#table;
    const path = pathOf(one.entry.name);
    this.#withRoot(place, `binding ${path} elsewhere`, act);
    const [first, ...others] = namesOf(one).map((other) => ({
      other,
      to: program.text(encodeText(`../${splitPath(other).name}`)),
    }));
    const from = program.text(encodeText(wayThrough(path).file));
    program.call(
      "renameat2",
      [place, from, place, first.to, 0],
      `naming the file of ${path} ${first.other}`,
    );
    for (const { other, to } of others) {
      this.#replace([place, to], [place, first.to], first.other, other);
    }
  }

  /** With another root directory for the moment, which is the current one. */
  #withRoot(directory: number, purpose: string, act: () => void): void {
    const table = this.#table;
    const { program } = table;
    program.call(
      "openat",
      [AT_FDCWD, program.text("/"), O.PATH | O.DIRECTORY | O.CLOEXEC, 0],
      "opening the root directory",
    );
    // Sockets that are made here get any of the lower numbers.
    const root = this.#rootNumber ??= table.temporary();
    table.move(table.take(), root, O.CLOEXEC);
    const goTo = (directory: number) => {
      program.call("fchdir", [directory], purpose);
      program.call("chroot", [program.text(".")], purpose);
    };
    goTo(directory);
    act();
    goTo(root);
    table.close(root);
  }

  #serveHere(one: WantedUnix, accepted: readonly WantedUnix[]): void {
    const topology = this.#topology;
    const { program } = this.#table;
    const { entry, fd, extension } = one;
    this.#bind(one.fd, one);
    if (isListening(one)) {
      const pending = topology.pending(one);
      const { waiting } = extension;
      const count = Math.max(pending.length, waiting.length);
      const listen = (backlog: number) =>
        this.#as(extension.peer, () =>
          program.call(
            "listen",
            [fd, backlog],
            `listening at ${this.#name(one)}`,
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
    this.#settleFile(one);
  }

  /** Connections that wait to be accepted and have sent something, or ended. */
  #await(listener: WantedUnix, clients: readonly WantedUnix[]): void {
    const table = this.#table;
    const { type } = listener.entry;
    for (const { ino, uid, gid, sent } of listener.extension.waiting) {
      const client = clients.find(({ entry }) => entry.ino === ino);
      const fd = client?.fd ?? table.scratch[0];
      if (client === undefined) {
        const name = `what waits for ${this.#name(listener)}`;
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
        this.#send(fd, packet, listener);
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
        `accepting ${this.#name(server)}`,
      );
      table.move(table.take(), server.fd, server.cloexec);
    };
    if (client !== undefined) connect(client.fd);
    else {
      this.#orphan(server, (temporary) => {
        const name = `the peer of ${this.#name(server)}`;
        this.#socket(server.entry.type, temporary, O.CLOEXEC, name);
        connect(temporary);
      });
    }
  }

  /** One that was accepted by a socket that is gone. */
  #acceptAlone(server: WantedUnix): void {
    if (this.#owner.bindsAside && isPath(server.entry.name)) {
      this.#aside(server, () => this.#acceptHere(server));
    } else this.#acceptHere(server);
  }

  #acceptHere(server: WantedUnix): void {
    const table = this.#table;
    const { program } = table;
    const [listener] = table.scratch;
    const name = `what accepted ${this.#name(server)}`;
    this.#socket(server.entry.type, listener, O.CLOEXEC, name);
    this.#bind(listener, server);
    const client = this.#topology.partner(server);
    this.#as(
      client?.extension.peer,
      () => program.call("listen", [listener, 1], `listening for ${name}`),
    );
    this.#connectAndAccept(server, listener);
    if (isPath(server.entry.name)) this.#unlink(server);
    table.close(listener);
  }

  /** The address of one, valid in the directory that is made the current. */
  #address({ entry: { name } }: UnixSocketImage): readonly [Data, number] {
    return this.#addressOf(name);
  }

  #addressOf(name: Uint8Array): readonly [Data, number] {
    const bytes = new Uint8Array(2 + name.length);
    bytes[0] = AF_UNIX;
    bytes.set(name, 2);
    return [this.#table.program.bytes(bytes), bytes.length];
  }

  /** fchdir(2) to where the name of one begins. */
  #enter({ entry: { name, name_dir }, place }: WantedUnix): void {
    if (name_dir === undefined || !isPath(name) || name[0] === SLASH) return;
    if (place !== undefined) return;
    const table = this.#table;
    const { program } = table;
    program.call(
      "openat",
      [
        AT_FDCWD,
        program.text(encodeText(name_dir)),
        O.PATH | O.DIRECTORY | O.CLOEXEC,
        0,
      ],
      `opening the directory ${name_dir}`,
    );
    const fd = table.take();
    program.call("fchdir", [fd], `changing to the directory ${name_dir}`);
    table.close(fd);
  }

  #bind(fd: number, one: WantedUnix): void {
    const { program } = this.#table;
    const { name } = one.entry;
    this.#enter(one);
    // A socket that nobody has, as was seen before.
    if (isPath(name)) this.#unlink(one, true);
    program.call(
      "bind",
      [fd, ...this.#address(one)],
      `binding ${isPath(name) ? pathOf(name) : this.#name(one)}`,
    );
  }

  #unlink({ entry: { name } }: WantedUnix, mayFail = false): void {
    const { program } = this.#table;
    const path = pathOf(name);
    program.call(
      "unlinkat",
      [AT_FDCWD, program.text(encodeText(path)), 0],
      `removing ${path}`,
      { mayFail },
    );
  }

  /** When all have connected: owner and mode of the file, or its end. */
  #settleFile(one: WantedUnix): void {
    const { name, deleted } = one.entry;
    if (!isPath(name)) return;
    const { program } = this.#table;
    const { other_names } = one.extension;
    const path = pathOf(name);
    const place = program.text(encodeText(path));
    if (!deleted || other_names.length > 0) this.#settleAccess(one, place);
    if (one.place !== undefined) return;
    for (const other of other_names) {
      const to = program.text(encodeText(other));
      this.#replace([AT_FDCWD, to], [AT_FDCWD, place], path, other);
    }
    if (deleted) this.#unlink(one);
  }

  /** Gives a file a name that its old one had, which nobody has any more. */
  #replace(
    to: readonly [number, Data],
    from: readonly [number, Data],
    path: string,
    other: string,
  ): void {
    const { program } = this.#table;
    program.call("unlinkat", [...to, 0], `removing ${other}`, {
      mayFail: true,
    });
    program.call(
      "linkat",
      [...from, ...to, 0],
      `linking ${path} as ${other}`,
    );
  }

  #settleAccess(
    { entry: { name, file_perms } }: WantedUnix,
    place: Data,
  ): void {
    if (file_perms !== undefined) {
      const { program } = this.#table;
      const path = pathOf(name);
      const { uid, gid, mode } = file_perms;
      program.call("lchown", [place, uid, gid], `setting the owner of ${path}`);
      program.call("chmod", [place, mode], `setting the mode of ${path}`);
    }
  }

  #connect(
    fd: number,
    to: WantedUnix,
    as: ckpt_credentials_entry | undefined,
  ): void {
    this.#as(as, () =>
      this.#table.program.call(
        "connect",
        [fd, ...this.#address(to)],
        `connecting to ${this.#name(to)}`,
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
    const name = `a sender to ${this.#name(one)}`;
    this.#socket(one.entry.type, temporary, O.CLOEXEC, name);
    this.#reach(one, (address) => {
      for (const packet of packets) {
        const sender = this.#wanted.find(({ entry }) =>
          packet.name !== undefined && equalNames(entry.name, packet.name)
        );
        this.#send(sender?.fd ?? temporary, packet, one, address);
      }
    });
    table.close(temporary);
  }

  /** Finds an address of one, whose path may be gone. */
  #reach(one: WantedUnix, use: (address: readonly [Data, number]) => void) {
    const { name, deleted } = one.entry;
    if (!isPath(name) || !deleted && one.place === undefined) {
      this.#enter(one);
      use(this.#address(one));
      return;
    }
    const table = this.#table;
    table.program.call(
      "ioctl",
      [one.fd, SIOCUNIXFILE, 0],
      `finding the file of ${this.#name(one)}`,
    );
    const file = table.take();
    use(this.#addressOf(encodeText(`/proc/self/fd/${file}\0`)));
    table.close(file);
  }

  #fill(one: WantedUnix, sender: number): void {
    for (const packet of one.packets) this.#send(sender, packet, one);
  }

  #send(
    sender: number,
    { bytes, sender: credentials, rights }: PacketImage,
    one: WantedUnix,
    [address, length]: readonly [Data | number, number] = [0, 0],
  ): void {
    const { program } = this.#table;
    const name = this.#name(one);
    new OptionSetter(program, sender, name)
      .int(SOL_SOCKET, SO.SNDBUFFORCE, ROOM);
    const control = this.#control(credentials, rights);
    if (one.entry.type === SOCK.STREAM && control.length === 0) {
      this.#write(sender, bytes, name);
      return;
    }
    const content = program.bytes(bytes);
    const message = program.words([
      address,
      length,
      program.words([content, bytes.length]),
      1,
      control.length === 0 ? 0 : program.words(control),
      8 * control.length,
      0,
    ]);
    program.call(
      "sendmsg",
      [sender, message, MSG_DONTWAIT | MSG_NOSIGNAL],
      () => `filling ${name}`,
    );
  }

  /** Control messages (cmsg(3)): length, level and type, content, padded. */
  #control(
    credentials: ckpt_credentials_entry | undefined,
    rights: readonly number[],
  ): bigint[] {
    const words: bigint[] = [];
    const add = (type: number, content: readonly number[]) => {
      words.push(BigInt(16 + 4 * content.length));
      words.push(BigInt(SOL_SOCKET) | BigInt(type) << 32n);
      for (let i = 0; i < content.length; i += 2) {
        words.push(BigInt(content[i]) | BigInt(content[i + 1] ?? 0) << 32n);
      }
    };
    if (credentials !== undefined) {
      const { pid, uid, gid } = credentials;
      // The kernel takes no pid that nobody has.
      const known = this.#owner.exists(pid) ? pid : this.#owner.pid;
      add(SCM_CREDENTIALS, [known, uid, gid]);
    }
    if (rights.length > 0) add(SCM_RIGHTS, rights.map(this.#placeOf));
    return words;
  }

  #write(fd: number, bytes: Uint8Array, name: string): void {
    const { program } = this.#table;
    const content = program.bytes(bytes);
    program.call(
      "write",
      [fd, content, bytes.length],
      () => `filling ${name}`,
      { whole: true },
    );
  }

  /** Options, ends and flags: when nothing is sent any more. */
  #settle(one: WantedUnix): void {
    const { program } = this.#table;
    const { entry, extension, fd, flags } = one;
    const name = `descriptor ${fd} (${this.#name(one)})`;
    const { uid = 0, gid = 0 } = extension;
    if (uid !== 0 || gid !== 0) {
      program.call("fchown", [fd, uid, gid], `setting the owner of ${name}`);
    }
    const { opts } = entry;
    const options = new OptionSetter(program, fd, name);
    options.common(opts);
    if (opts.reuseaddr || opts.so_reuseport) {
      options.sharing(opts.reuseaddr ?? false, opts.so_reuseport ?? false);
    }
    options.further(extension.options);
    if (entry.shutdown) {
      program.call(
        "shutdown",
        [fd, entry.shutdown - 1],
        `shutting ${name}`,
        { mayFail: this.#topology.isOrphan(one) },
      );
    }
    program.call(
      "fcntl",
      [fd, F_SETFL, flags & SETTABLE_FLAGS],
      `setting the flags of ${name}`,
    );
  }
}

/** Whether nothing of the path of a bound one is left afterwards. */
export function losesPath({ entry, extension }: UnixSocketImage): boolean {
  return isPath(entry.name) && entry.deleted === true &&
    extension.other_names.length === 0;
}

/** The names that the file of a bound one is to have. */
export function namesOf({ entry, extension }: UnixSocketImage): string[] {
  const { name, name_dir, deleted } = entry;
  const path = pathOf(name);
  const whole = path.startsWith("/") ? path : `${name_dir ?? ""}/${path}`;
  return [...deleted ? [] : [whole], ...extension.other_names];
}

/**
 * Whether one is bound elsewhere than at its name: that leads to another file
 * or nowhere, or who binds it may be in another mount namespace.
 *
 * @param isSplit whether the tree is in several
 */
export function isElsewhere(image: UnixSocketImage, isSplit: boolean): boolean {
  const { name, deleted } = image.entry;
  return isPath(name) && (isSplit || deleted === true) &&
    namesOf(image).length > 0;
}

/** Whether processes are in different mount namespaces. */
export function isSplit(
  processes: readonly { readonly ids: { readonly mnt_ns_id?: number } }[],
): boolean {
  return new Set(processes.map(({ ids }) => ids.mnt_ns_id ?? 0)).size > 1;
}

/**
 * What a path goes through where there is nothing else, from the root.
 *
 * @returns its directories, each after the one it is in, and its end; relative,
 * without dots
 */
export function wayThrough(
  path: string,
): { directories: string[]; file: string } {
  const directories = new Set<string>();
  const parts: string[] = [];
  const names = path.split("/").filter((part) => part !== "" && part !== ".");
  for (const [i, part] of names.entries()) {
    if (part === "..") parts.pop();
    else parts.push(part);
    if (i < names.length - 1 && parts.length > 0) {
      directories.add(parts.join("/"));
    }
  }
  return { directories: [...directories], file: parts.join("/") };
}

/**
 * Whether each process of a tree has its root directory for itself: only then
 * it may have another one for a moment, and what becomes of a path that is soon
 * to be gone is nobody's business.
 */
export function canBindAside(
  processes: readonly { readonly ids: { readonly fs_id?: number } }[],
): boolean {
  const directories = processes.flatMap(({ ids: { fs_id } }) => fs_id ?? []);
  return new Set(directories).size === directories.length;
}

const SLASH = 0x2f;
