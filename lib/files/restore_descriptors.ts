/**
 * Plans how the processes of a tree get their descriptors again. Every open
 * file description is made once: by the process that comes first in the tree
 * of those that hold it, or, of a pipe, one of its descriptions. The others
 * fetch it from there (pidfd_getfd(2)).
 *
 * Four phases, each of which every process ends before any begins the next:
 *
 *   open    makes descriptions, at their numbers, and at numbers above all
 *           processes' those that only others hold
 *   fetch   takes what others have made
 *   watch   sends what is in flight, and adds files to epolls: all numbers lead
 *           to what they led to
 *   finish  sets who gets signals, and takes locks; tasks that get them have to
 *           exist, and what is above all processes' numbers has to be closed
 */
import { Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import {
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type file_lock_entry,
  type fown_entry,
  type reg_file_entry,
} from "../image/schema.gen.ts";
import { FILE_MEMBERS } from "../image/validate/file_table.ts";
import { encodeText } from "../ffi/text.ts";
import { FD_CLOEXEC, GONE } from "./descriptors.ts";
import { NO_OWNER } from "./file_table.ts";
import { restoreOwner } from "./owner.ts";
import { type Disarmed, makeEpoll, watch } from "./epoll.ts";
import { makeEventfd } from "./eventfd.ts";
import type { BufferSizes } from "./fresh_sockets.ts";
import { makeFanotify } from "./fanotify.ts";
import { makeInotify } from "./inotify.ts";
import {
  entryAt,
  type EpollPlan,
  NO_OBJECTS,
  type ObjectImages,
  planEpolls,
  type WatchedFile,
} from "./object_images.ts";
import { restoreLocks } from "./file_locks.ts";
import type { PipeImages } from "./pipe_images.ts";
import { makeSignalfd } from "./signalfd.ts";
import { makeTimerfd } from "./timerfd.ts";
import { makeInetSocket } from "./make_inet_socket.ts";
import { interfacesOf } from "./interfaces.ts";
import { makeNetlinkSocket } from "./netlink_socket.ts";
import { makePacketSocket } from "./packet_socket.ts";
import {
  type FinishUnixSockets,
  makeUnixSockets,
} from "./make_unix_sockets.ts";
import {
  filesInFlight,
  isFilledByCkpt,
  isOutside,
  NO_SOCKETS,
  type SocketImages,
  type UnixSocketImage,
} from "./socket_images.ts";
import { UnixTopology } from "./unix_topology.ts";
import {
  makeDeadPidfds,
  makeFifo,
  makePidfd,
  makePipe,
  type Wanted,
} from "./make_descriptions.ts";
import { type NumbersAbove, TableProgram } from "./table_program.ts";
import { F_SETFL } from "./other_flags.ts";

const SEEK_SET = 0;
/** Marks a position that is not to be set (CRIU writes it for /dev/kmsg). */
const NO_POSITION = 2n ** 64n - 1n;
/** Flags that act on open(2) and are no state of an open file. */
const ACTING_FLAGS = O.CREAT | O.EXCL | O.TRUNC | O.CLOEXEC;
/** O_TMPFILE without the bit that it has in common with O_DIRECTORY. */
const TMPFILE_BIT = O.TMPFILE & ~O.DIRECTORY;

/** Flags to open a file anew with; O_TMPFILE would make another one. */
function openFlags(flags: number): number {
  const rest = flags & ~ACTING_FLAGS;
  return (rest & TMPFILE_BIT) === 0 ? rest : rest & ~O.TMPFILE;
}

/** Kinds that ckpt makes, and that have a name of their own only. */
const WITHOUT_PATH: ReadonlySet<number> = new Set([
  fd_types.MEMFD,
  fd_types.NS,
  fd_types.BPFMAP,
  fd_types.PACKETSK,
]);

/** A process as far as its descriptors go. */
export interface DescriptorTable {
  readonly pid: number;
  /** Processes with the same number share one table. */
  readonly filesId: number;
  readonly entries: readonly fdinfo_entry[];
  /** Where the calls of each phase are added. */
  readonly programs: DescriptorPrograms;
  /** Descriptors for the work that it does not have, as others do. */
  readonly absent?: readonly number[];
}

export interface DescriptorPrograms {
  readonly open: Program;
  readonly fetch: Program;
  readonly watch: Program;
  readonly finish: Program;
  /** Filled in: what is to be looked at when `watch` has run. */
  readonly disarmed: Disarmed[];
  /** Filled in: sockets to be connected when `open` has run. */
  readonly connections: { readonly id: number; readonly fd: number }[];
}

/** Programs that nothing was added to. */
export function emptyPrograms(): DescriptorPrograms {
  return {
    open: new Program(),
    fetch: new Program(),
    watch: new Program(),
    finish: new Program(),
    disarmed: [],
    connections: [],
  };
}

export interface FileImages extends PipeImages {
  /** By their ids. */
  readonly files: ReadonlyMap<number, file_entry>;
  /** What is opened in the stead of paths, by the ids of the files. */
  readonly made?: ReadonlyMap<number, MadeDescriptor>;
  /** Paths that lead to files of other mount namespaces, by their ids. */
  readonly sources?: ReadonlyMap<number, string>;
  readonly objects?: ObjectImages;
  readonly sockets?: SocketImages;
  readonly locks?: readonly file_lock_entry[];
  /** Whether a process exists that is not of the tree. */
  readonly exists?: (pid: number) => boolean;
  /** See `canBindAside` in unix_paths.ts. */
  readonly bindsAside?: boolean;
  /** See fresh_sockets.ts. */
  readonly freshBuffers?: BufferSizes;
  /** Directories to bind Unix sockets in, by the ids of these. */
  readonly places?: ReadonlyMap<number, number>;
  /** Processes that alone can open a file, by its id: /dev/tty. */
  readonly openers?: ReadonlyMap<number, number>;
}

/** Descriptors the agents were given, by the id of the file they stand for. */
export type GivenDescriptors = ReadonlyMap<number, GivenDescriptor>;

export interface GivenDescriptor {
  /** Its number in every agent. */
  fd: number;
  /** Whether to open the same file anew, with the flags of the image. */
  reopen: boolean;
}

/**
 * Adds the calls of each phase to the programs of the processes.
 *
 * @param unordered of all processes in the order of the tree; all of them exist
 * before the first one opens anything
 * @param above where the descriptors for the work are; nothing else is open
 * @returns the number above all that any process uses meanwhile, which its
 * limit has to allow
 */
export function restoreDescriptors(
  unordered: readonly DescriptorTable[],
  images: FileImages,
  given: GivenDescriptors,
  above: NumbersAbove,
): number {
  const tables = unordered.map((table) => ({
    ...table,
    entries: table.entries.toSorted((a, b) => a.fd - b.fd),
  }));
  const tree = new TreePlan(tables, images, given);
  const seen = new Set<number>();
  const plans = tables.filter(({ filesId }) =>
    !seen.has(filesId) && seen.add(filesId)
  ).map((table) => new TablePlan(table, tree, above));
  for (const plan of plans) plan.open();
  // What is in flight may be a socket with others in flight.
  while (plans.some((plan) => plan.openFlight())) continue;
  for (const plan of plans) plan.fetch();
  for (const plan of plans) plan.watch();
  for (const plan of plans) plan.finish();
  // Nobody closes anything any more: that would end record locks.
  const locks = Map.groupBy(images.locks ?? [], ({ pid }) => pid);
  for (const { pid, entries, programs } of tables) {
    const own = locks.get(pid);
    if (own === undefined) continue;
    restoreLocks(
      programs.finish,
      own,
      (fd) => tree.name(entryAt(entries, fd)!.id),
    );
  }
  return plans.reduce((most, { end }) => Math.max(most, end), above.free);
}

/** What stands for a file that its path does not lead to. */
export type MadeDescriptor =
  /** The very description. */
  | { readonly reopen: false; readonly fd: number }
  /** What leads every agent to it. */
  | { readonly reopen: true; readonly path: string };

function pathOf({ fd }: GivenDescriptor): string {
  return `/proc/self/fd/${fd}`;
}

interface Place {
  readonly pid: number;
  readonly fd: number;
}

/** What the plans of all processes have in common. */
class TreePlan {
  /** Where a description is when all processes have opened theirs. */
  readonly made = new Map<number, Place>();
  /** Descriptions whose owner is set, by the first that holds them. */
  readonly finished = new Set<number>();
  /** Of descriptions that have to be made together, all ids by each of them. */
  readonly #groups = new Map<number, number[]>();
  /** By the ids of Unix sockets, what the first of their group is. */
  readonly #unixGroups = new Map<number, number>();
  /** By such a first one, who has to make the group. */
  readonly #makers = new Map<number, number>();
  readonly #pids: ReadonlySet<number>;
  /** Ids of all that processes have, or that is in flight. */
  readonly #held: ReadonlySet<number>;
  /** By their inodes, the names of sockets of the outside. */
  readonly #outside: ReadonlyMap<number, Uint8Array>;
  /** Numbers of network interfaces. */
  readonly interfaces: ReadonlyMap<string, number>;
  /** What epolls watch, by their ids. */
  readonly epolls: ReadonlyMap<number, EpollPlan>;

  constructor(
    tables: readonly DescriptorTable[],
    readonly images: FileImages,
    readonly given: GivenDescriptors,
  ) {
    this.epolls = planEpolls(tables, images.files, this.objects);
    this.#pids = new Set(tables.map(({ pid }) => pid));
    const held = tables.flatMap(({ entries }) => entries.map(({ id }) => id));
    this.#held = new Set([...held, ...filesInFlight(this.sockets, held)]);
    const { inet, packet, unix } = this.sockets;
    this.#outside = new Map(
      [...unix.values()].filter(({ entry }) => isOutside(entry))
        .map(({ entry: { ino, name } }) => [ino, name]),
    );
    this.interfaces = interfacesOf([
      ...inet.values(),
      ...[...packet.values()].map(({ extension }) => ({
        entry: {},
        extension,
      })),
    ]);
    this.#groupUnixSockets(tables);
    for (const [id, pid] of images.openers ?? []) this.#makers.set(id, pid);
    /** By types, and what those of a group have in common. */
    const groups = new Map<number, Map<number, number[]>>();
    for (const id of this.#held) {
      const file = this.file(id);
      const key = this.#groupOf(file);
      if (key === undefined) continue;
      const alike = groups.get(file.type) ?? new Map<number, number[]>();
      groups.set(file.type, alike);
      const group = alike.get(key) ?? [];
      group.push(id);
      alike.set(key, group);
      this.#groups.set(id, group);
    }
  }

  /** What those that are made together have in common; undefined: alone. */
  #groupOf({ id, type, pipe, fifo, pidfd }: file_entry): number | undefined {
    switch (type) {
      case fd_types.PIPE:
        return this.given.has(id) ? undefined : pipe!.pipe_id;
      case fd_types.FIFO:
        return this.given.has(id) ? undefined : fifo!.pipe_id;
      case fd_types.PIDFD:
        return pidfd!.nspid === GONE && !this.given.has(id)
          ? pidfd!.ino
          : undefined;
      case fd_types.UNIXSK:
        return this.given.has(id) ? undefined : this.#unixGroups.get(id);
    }
    return undefined;
  }

  get objects(): ObjectImages {
    return this.images.objects ?? NO_OBJECTS;
  }

  get sockets(): SocketImages {
    return this.images.sockets ?? NO_SOCKETS;
  }

  /** SO_PEERCRED tells who made a pair, or listens: that one makes it again. */
  #groupUnixSockets(tables: readonly DescriptorTable[]): void {
    // Of those that share a table, the first makes all.
    const pids = new Set(
      new Map(tables.toReversed().map(({ filesId, pid }) => [filesId, pid]))
        .values(),
    );
    const sockets = [...this.sockets.unix.values()].filter(({ entry }) =>
      this.#held.has(entry.id) && this.given.get(entry.id)?.reopen !== false
    );
    for (const group of new UnixTopology(sockets).groups()) {
      const [{ entry: { id: first } }] = group;
      for (const { entry } of group) this.#unixGroups.set(entry.id, first);
      const maker = group.toSorted((a, b) => b.entry.state - a.entry.state)
        .map(({ extension }) => extension.peer?.pid)
        .find((pid) => pid !== undefined && pids.has(pid));
      if (maker !== undefined) this.#makers.set(first, maker);
    }
  }

  exists(pid: number): boolean {
    return this.#pids.has(pid) || (this.images.exists?.(pid) ?? false);
  }

  /** The name of the socket of the outside that one sends to. */
  outside({ entry: { peer } }: UnixSocketImage): Uint8Array | undefined {
    return peer === 0 ? undefined : this.#outside.get(peer);
  }

  /** Files in flight to the sockets that were made together with one. */
  flightTo(id: number): number[] {
    return this.group(id).flatMap((id) =>
      this.sockets.unix.get(id)?.packets ?? []
    ).flatMap(({ rights }) => rights);
  }

  /** The process that has to make it; undefined: the first that holds it. */
  maker(id: number): number | undefined {
    return this.#makers.get(this.#unixGroups.get(id) ?? id);
  }

  /** What a process has to make, though it may not hold it. */
  madeBy(pid: number): number[] {
    return [...this.#makers].filter(([, maker]) => maker === pid)
      .map(([first]) => first);
  }

  /** All that have to be made together with one. */
  group(id: number): readonly number[] {
    return this.#groups.get(id) ?? [id];
  }

  file(id: number): file_entry {
    return this.images.files.get(id)!;
  }

  /** The entry with the path of a file that has one. */
  path(id: number): reg_file_entry {
    const { reg, fifo, tty } = this.file(id);
    return reg ?? this.file((fifo ?? tty)!.regf_id!).reg!;
  }

  /** The descriptor of a file that its path does not lead to. */
  madeFor(id: number): MadeDescriptor | undefined {
    return this.images.made?.get(this.file(id).fifo?.regf_id ?? id);
  }

  /** What to open for it. */
  source(id: number): string {
    const made = this.madeFor(id);
    if (made === undefined) {
      const { id: path, name } = this.path(id);
      return this.images.sources?.get(path) ?? name;
    }
    return made.reopen ? made.path : `/proc/self/fd/${made.fd}`;
  }

  /** Flags and owner, wherever the kind of file has them. */
  state(id: number): { flags: number; fown: fown_entry } {
    const file = this.file(id);
    switch (file.type) {
      case fd_types.REG:
      case fd_types.FIFO:
      case fd_types.EXT:
        return this.path(id);
      case fd_types.NS:
        return { flags: file.nsf!.flags, fown: NO_OWNER };
    }
    return file[FILE_MEMBERS[file.type]] as { flags: number; fown: fown_entry };
  }

  name(id: number): string {
    const { tty, pipe, pidfd, efd, tfd, sgfd, epfd, memfd } = this.file(id);
    const { usk, isk, nlsk, psk, ify, ffy, nsf, bpf } = this.file(id);
    const socket = usk ?? isk ?? nlsk;
    if (psk !== undefined) return "a packet socket";
    if (socket !== undefined) return `socket:[${socket.ino}]`;
    if (efd !== undefined) return "an eventfd";
    if (tfd !== undefined) return "a timerfd";
    if (sgfd !== undefined) return "a signalfd";
    if (epfd !== undefined) return "an epoll instance";
    if (memfd !== undefined) return "a memfd";
    if (nsf !== undefined) return "a namespace";
    if (bpf !== undefined) return `the map "${bpf.map_name}" of eBPF`;
    if (ify !== undefined) return "an inotify instance";
    if (ffy !== undefined) return "a fanotify group";
    if (tty !== undefined) return "the terminal";
    if (pipe !== undefined) return `pipe:[${pipe.pipe_id}]`;
    if (pidfd === undefined) return this.path(id).name;
    return pidfd.nspid === GONE
      ? "a pidfd of a process that is gone"
      : `a pidfd of process ${pidfd.nspid}`;
  }
}

/** A file that is to be made. */
interface WantedFile extends Wanted {
  readonly id: number;
}

class TablePlan {
  readonly #pid: number;
  readonly #programs: DescriptorPrograms;
  /** Ascending. */
  readonly #entries: readonly fdinfo_entry[];
  readonly #tree: TreePlan;
  readonly #table: TableProgram;
  /** By the id of a description, its lowest descriptor. */
  readonly #firsts = new Map<number, fdinfo_entry>();
  /** Numbers that are open. */
  readonly #open = new Set<number>();
  /** By ids, descriptors that are here only to be watched or sent. */
  readonly #borrowed = new Map<number, number>();
  /** Sockets that files are in flight to, by one id of each group. */
  readonly #unfilled = new Map<number, FinishUnixSockets>();

  constructor(
    { pid, programs, entries, absent }: DescriptorTable,
    tree: TreePlan,
    above: NumbersAbove,
  ) {
    this.#pid = pid;
    this.#programs = programs;
    this.#entries = entries;
    this.#tree = tree;
    this.#table = new TableProgram(programs.open, above, absent);
    for (const entry of this.#entries) {
      if (!this.#firsts.has(entry.id)) this.#firsts.set(entry.id, entry);
    }
  }

  get end(): number {
    return this.#table.end;
  }

  open(): void {
    const { given, made } = this.#tree;
    for (const id of this.#tree.madeBy(this.#pid)) this.#make(id);
    for (const entry of this.#entries) {
      const { id, fd } = entry;
      const replacement = given.get(id);
      if (replacement?.reopen === false) {
        this.#duplicate(replacement.fd, entry);
        continue;
      }
      if (!made.has(id)) {
        if (this.#tree.maker(id) !== undefined) continue;
        this.#make(id);
      }
      const place = made.get(id)!;
      if (place.pid === this.#pid && !this.#open.has(fd)) {
        this.#duplicate(place.fd, entry);
      }
    }
  }

  /**
   * Makes what is in flight to sockets of this process and nobody has made.
   *
   * @returns whether there was any
   */
  openFlight(): boolean {
    const missing = [...this.#unfilled.keys()].flatMap((id) =>
      this.#tree.flightTo(id)
    ).filter((id) => !this.#isThere(id));
    for (const id of missing) {
      if (!this.#isThere(id)) this.#make(id);
    }
    return missing.length > 0;
  }

  #isThere(id: number): boolean {
    const { given, made } = this.#tree;
    return made.has(id) || given.get(id)?.reopen === false;
  }

  fetch(): void {
    this.#table.program = this.#programs.fetch;
    const byOwner = new Map<number, fdinfo_entry[]>();
    for (const entry of this.#entries) {
      if (this.#open.has(entry.fd)) continue;
      const { pid } = this.#tree.made.get(entry.id)!;
      const entries = byOwner.get(pid);
      if (entries === undefined) byOwner.set(pid, [entry]);
      else entries.push(entry);
    }
    for (const entry of this.#neededForWork()) {
      const { pid } = this.#tree.made.get(entry.id)!;
      byOwner.set(pid, [...byOwner.get(pid) ?? [], entry]);
    }
    for (const [owner, entries] of byOwner) this.#fetchFrom(owner, entries);
  }

  /** What epolls watch or sockets are sent here, and is not here yet. */
  #neededForWork(): fdinfo_entry[] {
    return [
      ...this.#epolls().flatMap(({ watched }) => watched)
        .map(({ file }) => file),
      ...[...this.#unfilled.keys()].flatMap((id) => this.#tree.flightTo(id)),
    ].flatMap((id) => {
      const made = this.#tree.made.get(id);
      if (
        made === undefined || made.pid === this.#pid ||
        this.#firsts.has(id) || this.#borrowed.has(id)
      ) return [];
      const fd = this.#table.temporary();
      this.#borrowed.set(id, fd);
      const { type } = this.#tree.file(id);
      return [{ id, fd, flags: FD_CLOEXEC, type }];
    });
  }

  #epolls(): { fd: number; watched: readonly WatchedFile[] }[] {
    return [...this.#tree.epolls].flatMap(([id, { pid, watched }]) =>
      pid === this.#pid ? [{ fd: this.#firsts.get(id)!.fd, watched }] : []
    );
  }

  watch(): void {
    const { watch: program, disarmed } = this.#programs;
    this.#table.program = program;
    for (const finish of this.#unfilled.values()) {
      finish((id) => this.#placeOf(id));
    }
    for (const { fd, watched } of this.#epolls()) {
      disarmed.push(...watch(
        this.#table,
        fd,
        watched.map(({ number, events, data, file }) => {
          const entry = entryAt(this.#entries, number);
          return {
            number,
            events,
            data,
            at: entry?.id === file ? number : this.#placeOf(file),
            cloexec: entry && cloexecOf(entry),
          };
        }),
      ));
    }
  }

  /** A descriptor that is here. */
  #placeOf(id: number): number {
    const { given, made } = this.#tree;
    return this.#firsts.get(id)?.fd ?? this.#borrowed.get(id) ??
      made.get(id)?.fd ?? given.get(id)!.fd;
  }

  #fetchFrom(owner: number, entries: readonly fdinfo_entry[]): void {
    const table = this.#table;
    const [pidfd] = table.scratch;
    table.program.call("pidfd_open", [owner, 0], () => `finding task ${owner}`);
    table.settle(pidfd, O.CLOEXEC);
    for (const entry of entries) {
      const { id, fd } = entry;
      const first = this.#firsts.get(id);
      if (first !== undefined && first !== entry) {
        this.#duplicate(first.fd, entry);
        continue;
      }
      table.program.call(
        "pidfd_getfd",
        [pidfd, this.#tree.made.get(id)!.fd, 0],
        () =>
          `fetching descriptor ${fd} (${this.#tree.name(id)}) from task ` +
          owner,
      );
      table.settle(fd, cloexecOf(entry));
      this.#open.add(fd);
    }
    table.close(pidfd);
  }

  finish(): void {
    const { given, finished } = this.#tree;
    for (const { id, fd } of this.#firsts.values()) {
      if (finished.has(id)) continue;
      finished.add(id);
      if (given.get(id)?.reopen !== false) this.#finish(id, fd);
    }
  }

  #finish(id: number, fd: number): void {
    const { flags, fown } = this.#tree.state(id);
    const hasOwner = fown.pid !== 0 || fown.signum !== 0;
    if (!hasOwner && (flags & O.ASYNC) === 0 || flags & O.PATH) return;
    const program = this.#programs.finish;
    const what = () => `descriptor ${fd} (${this.#tree.name(id)})`;
    restoreOwner(program, fd, fown, what);
    if (flags & O.ASYNC) {
      // open(2) does not register for signals; fcntl does.
      program.call(
        "fcntl",
        [fd, F_SETFL, flags & ~ACTING_FLAGS],
        () => `setting the flags of ${what()}`,
      );
    }
  }

  /** With all that has to be made together. */
  #make(id: number): void {
    const wanted = this.#tree.group(id).map((id) => this.#place(id));
    if (this.#tree.given.has(id)) this.#openPath(wanted[0]);
    else this.#makeFile(this.#tree.file(id), wanted);
  }

  /** By a switch: there may be thousands, and each has members of its own. */
  #makeFile(file: file_entry, wanted: readonly WantedFile[]): void {
    const tree = this.#tree;
    const table = this.#table;
    const { type, id } = file;
    const { inet, netlink, packet } = tree.sockets;
    const [first] = wanted;
    switch (type) {
      case fd_types.UNIXSK:
        return this.#makeUnixSockets(id, wanted);
      case fd_types.NETLINKSK:
        return makeNetlinkSocket(table, first, netlink.get(id)!);
      case fd_types.PACKETSK:
        if (tree.madeFor(id) !== undefined) break;
        return makePacketSocket(table, first, packet.get(id)!, tree.interfaces);
      case fd_types.INETSK: {
        const socket = inet.get(id)!;
        const { interfaces, images: { freshBuffers } } = tree;
        makeInetSocket(table, first, socket, interfaces, freshBuffers);
        if (isFilledByCkpt(socket)) {
          this.#programs.connections.push({ id, fd: first.fd });
        }
        return;
      }
      case fd_types.EVENTFD: {
        const isSemaphore = tree.objects.semaphores.has(id);
        return makeEventfd(table, first, file.efd!, isSemaphore);
      }
      case fd_types.TIMERFD:
        return makeTimerfd(table, first, file.tfd!);
      case fd_types.SIGNALFD:
        return makeSignalfd(table, first, file.sgfd!);
      case fd_types.EVENTPOLL:
        return makeEpoll(table, first, tree.objects.busyPolling.get(id));
      case fd_types.INOTIFY:
        return makeInotify(table, first);
      case fd_types.FANOTIFY:
        return makeFanotify(table, first, file.ffy!);
      case fd_types.PIPE: {
        const content = tree.images.pipes.get(file.pipe!.pipe_id);
        return makePipe(table, wanted, content, () => tree.name(id));
      }
      case fd_types.FIFO:
        return this.#makeFifo(file.fifo!.pipe_id, wanted);
      case fd_types.PIDFD: {
        const { nspid } = file.pidfd!;
        return nspid === GONE
          ? makeDeadPidfds(table, wanted)
          : makePidfd(table, first, nspid);
      }
    }
    this.#openPath(first);
  }

  #makeUnixSockets(id: number, wanted: readonly WantedFile[]): void {
    const tree = this.#tree;
    const finish = makeUnixSockets(
      this.#table,
      wanted.map((one) => {
        const image = tree.sockets.unix.get(one.id)!;
        return {
          ...one,
          ...image,
          outside: tree.outside(image),
          place: tree.images.places?.get(one.id),
        };
      }),
      {
        pid: this.#pid,
        exists: (pid) => tree.exists(pid),
        bindsAside: tree.images.bindsAside ?? false,
        fresh: tree.images.freshBuffers,
      },
    );
    if (finish !== undefined) this.#unfilled.set(id, finish);
  }

  #makeFifo(pipeId: number, wanted: readonly WantedFile[]): void {
    const tree = this.#tree;
    makeFifo(
      this.#table,
      wanted.map((one) => ({
        ...one,
        path: tree.source(one.id),
        flags: tree.madeFor(one.id) === undefined
          ? one.flags
          : one.flags & ~O.NOFOLLOW,
        unconnected: tree.images.unconnected.has(one.id),
      })),
      tree.images.fifos.get(pipeId),
    );
  }

  /** Decides where a description that is made here is to be. */
  #place(id: number): WantedFile {
    const own = this.#firsts.get(id);
    const fd = own?.fd ?? this.#table.temporary();
    if (own !== undefined) this.#open.add(fd);
    this.#tree.made.set(id, { pid: this.#pid, fd });
    const { flags } = this.#tree.state(id);
    return { id, fd, flags, cloexec: own ? cloexecOf(own) : O.CLOEXEC };
  }

  #openPath({ id, fd, flags, cloexec }: WantedFile): void {
    const replacement = this.#tree.given.get(id);
    const made = this.#tree.madeFor(id);
    const { type, reg, memfd } = this.#tree.file(id);
    const source = replacement !== undefined
      ? pathOf(replacement)
      : WITHOUT_PATH.has(type)
      ? this.#tree.name(id)
      : this.#tree.path(id).name;
    if (made?.reopen === false) this.#table.duplicate(made.fd, fd, cloexec);
    else {
      this.#table.open(
        made !== undefined
          ? made.path
          : replacement === undefined && memfd === undefined
          ? this.#tree.source(id)
          : source,
        // Of a link in /proc, the last part has to be followed.
        openFlags(flags) & ~(made === undefined ? 0 : O.NOFOLLOW),
        fd,
        cloexec,
        () => `opening ${source} for descriptor ${fd}`,
      );
    }
    const { pos } = reg ?? memfd ?? { pos: NO_POSITION };
    if (flags & O.PATH || pos === 0n || pos === NO_POSITION) return;
    this.#table.program.call(
      "lseek",
      [fd, pos, SEEK_SET],
      () => `setting the position of descriptor ${fd} (${source})`,
    );
  }

  #duplicate(from: number, entry: fdinfo_entry): void {
    this.#table.duplicate(from, entry.fd, cloexecOf(entry));
    this.#open.add(entry.fd);
  }
}

function cloexecOf({ flags }: fdinfo_entry): number {
  return (flags & FD_CLOEXEC) !== 0 ? O.CLOEXEC : 0;
}

/**
 * Root and working directory (chroot(2), fchdir(2)).
 *
 * @param sources what to open in the stead of paths, by the ids of the files
 */
export function restoreDirectories(
  program: Program,
  cwd: reg_file_entry,
  root: reg_file_entry,
  sources: ReadonlyMap<number, string> = new Map(),
): void {
  const pathOf = ({ id, name }: reg_file_entry) =>
    program.text(encodeText(sources.get(id) ?? name));
  const fd = program.call(
    "openat",
    [
      AT_FDCWD,
      pathOf(cwd),
      O.PATH | O.DIRECTORY | O.CLOEXEC,
      0,
    ],
    `opening the working directory ${cwd.name}`,
  );
  if (root.name !== "/") {
    program.call(
      "chroot",
      [pathOf(root)],
      `changing the root directory to ${root.name}`,
    );
  }
  program.call("fchdir", [fd], `changing to the directory ${cwd.name}`);
  program.call("close", [fd], "closing the working directory");
}
