/**
 * epoll(7): which files an instance watches, and `eventpoll_file_entry`.
 *
 * The kernel knows what is watched as a pair of an open file and the descriptor
 * number it was added by. The number may have been closed or given to another
 * file since; kcmp(2) tells which file it is.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import type { Program, Result } from "../ffi/program.ts";
import {
  deviceNumbers,
  type FileStatus,
  O,
  SyscallError,
} from "../ffi/syscall.ts";
import type {
  eventpoll_file_entry,
  eventpoll_tfd_entry,
  fown_entry,
} from "../image/schema.gen.ts";
import type { DescriptorPlace } from "./description_index.ts";
import { unknownDetail } from "./details.ts";
import type { Wanted } from "./make_descriptions.ts";
import { setOtherFlags } from "./other_flags.ts";
import type { TableProgram } from "./table_program.ts";

export interface Epoll {
  readonly kind: "epoll";
  readonly watched: readonly WatchedLine[];
}

/** One line of fdinfo. */
export interface WatchedLine {
  /** The descriptor number by which it was added. */
  readonly number: number;
  /** EPOLL* bits. */
  readonly events: number;
  readonly data: bigint;
  readonly pos: bigint;
  readonly inode: bigint;
  /** As the kernel numbers it: 20 bits for the minor number. */
  readonly device: number;
}

/** An open file of the tree that an instance watches. */
export interface Watched extends WatchedLine {
  /** Where its open file description was first seen. */
  readonly target: DescriptorPlace;
}

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_MOD = 3;
const EPOLLONESHOT = 0x4000_0000;
/** EPOLLET, EPOLLONESHOT, EPOLLWAKEUP, EPOLLEXCLUSIVE: how, not what. */
const MODES = 0xf000_0000;
/** EPOLLIN, EPOLLPRI, EPOLLOUT, EPOLLRDHUP: some of it is true of most files. */
const ANY_EVENT = 0x2007;
const EPOLL_EVENT_BYTES = 12;

const LINE =
  /^tfd:\s*(\d+) events:\s*([0-9a-f]+) data:\s*([0-9a-f]+)\s+pos:(-?\d+) ino:([0-9a-f]+) sdev:([0-9a-f]+)$/;

/** @param details of fdinfo (ep_show_fdinfo in fs/eventpoll.c) */
export function parseEpoll(details: readonly string[]): Epoll {
  return {
    kind: "epoll",
    watched: details.filter((line) => line.startsWith("tfd:")).map((line) => {
      const found = LINE.exec(line);
      if (found === null) throw unknownDetail("tfd:", line);
      const [, number, events, data, pos, inode, device] = found;
      return {
        number: Number(number),
        events: parseInt(events, 16),
        data: BigInt(`0x${data}`),
        pos: BigInt(pos),
        inode: BigInt(`0x${inode}`),
        device: parseInt(device, 16),
      };
    }),
  };
}

/** _IOW(0x8A, 0x01, struct epoll_params), linux/eventpoll.h */
const EPIOCSPARAMS = 0x40088a01;
/** A descriptor that may be what is watched. */
export interface Candidate extends DescriptorPlace {
  readonly link: string;
  readonly status: Pick<FileStatus, "ino" | "dev">;
  /** Where its description was first seen, if that was not here. */
  readonly sameAs: DescriptorPlace | undefined;
}

type SeenCandidate = Omit<Candidate, "pid">;

function candidateOf(
  pid: number,
  { fd, link, status, sameAs }: SeenCandidate,
): Candidate {
  return { pid, fd, link, status, sameAs };
}

/** Is a candidate what the n-th entry of an instance with a number stands for? */
export interface WatchQuestion {
  readonly candidate: DescriptorPlace;
  readonly epoll: DescriptorPlace;
  readonly number: number;
  readonly nth: number;
}

/** Answers such questions. */
export type AreWatched = (questions: readonly WatchQuestion[]) => boolean[];

/** The descriptors of a tree, as places to look for what is watched. */
export class Candidates {
  /** By pid, and there by their numbers; of those that were asked for. */
  readonly #numbers = new Map<number, ReadonlyMap<number, SeenCandidate>>();
  #byInode: ReadonlyMap<bigint, readonly Candidate[]> | undefined;

  /** @param processes in the order of the tree */
  constructor(
    readonly processes: readonly {
      /** By which its descriptors were looked at. */
      readonly tid: number;
      readonly descriptors: readonly SeenCandidate[];
    }[],
  ) {}

  #at(pid: number, number: number): Candidate | undefined {
    let numbers = this.#numbers.get(pid);
    if (numbers === undefined) {
      const process = this.processes.find(({ tid }) => tid === pid);
      numbers = new Map(process?.descriptors.map((seen) => [seen.fd, seen]));
      this.#numbers.set(pid, numbers);
    }
    const seen = numbers.get(number);
    return seen && candidateOf(pid, seen);
  }

  /** Seldom needed: most numbers are still those of the files. */
  #ofInode(inode: bigint): readonly Candidate[] {
    this.#byInode ??= Map.groupBy(
      this.processes.flatMap(({ tid, descriptors }) =>
        descriptors.filter(({ sameAs }) => sameAs === undefined)
          .map((seen) => candidateOf(tid, seen))
      ),
      ({ status }) => status.ino,
    );
    return this.#byInode.get(inode) ?? [];
  }

  /** What others have by a number. */
  #elsewhere(pid: number, number: number): Candidate[] {
    return this.processes.flatMap(({ tid }) =>
      tid === pid ? [] : this.#at(tid, number) ?? []
    );
  }

  /**
   * Finds the open file of every entry of some instances; undefined for one
   * that the tree has no descriptor of.
   *
   * @throws SyscallError when something of it was closed meanwhile
   */
  resolve(
    epolls: readonly {
      readonly place: DescriptorPlace;
      readonly watched: readonly WatchedLine[];
    }[],
    ask: AreWatched = areWatched,
  ): (Watched | undefined)[][] {
    // Most watch what their own process has: all these are asked at once.
    const likely: WatchQuestion[] = [];
    const all = epolls.map(({ place: epoll, watched }) => {
      const met = new Map<number, number>();
      return watched.map((line) => {
        const { number } = line;
        const nth = met.get(number) ?? 0;
        met.set(number, nth + 1);
        const own = this.#at(epoll.pid, number);
        const seems = own !== undefined && looksLike(own, line);
        const isAsked = seems && !isOneOfAKind(own);
        if (isAsked) likely.push({ candidate: own, epoll, number, nth });
        return { line, nth, own: seems ? own : undefined, isAsked };
      });
    });
    const answers = ask(likely).values();
    return all.map((entries, i) =>
      entries.map(({ line, nth, own, isAsked }) => {
        const isOwn = isAsked ? answers.next().value! : own !== undefined;
        const found = isOwn
          ? own
          : this.#seek(epolls[i].place, line, nth, own, ask);
        if (found === undefined) return undefined;
        const { sameAs, pid, fd } = found;
        return { ...line, target: sameAs ?? { pid, fd } };
      })
    );
  }

  /**
   * Finds one that is not what its own process has by its number.
   *
   * @param own which it is not
   */
  #seek(
    epoll: DescriptorPlace,
    line: WatchedLine,
    nth: number,
    own: Candidate | undefined,
    ask: AreWatched,
  ): Candidate | undefined {
    const { number, inode } = line;
    const isIt = (candidate: Candidate) =>
      (candidate.pid !== own?.pid || candidate.fd !== own.fd) &&
      looksLike(candidate, line) &&
      (isOneOfAKind(candidate) ||
        ask([{ candidate, epoll, number, nth }])[0]);
    return this.#elsewhere(epoll.pid, number).find(isIt) ??
      this.#ofInode(inode).find(isIt);
  }
}

/**
 * The device of a file with a path is that of its superblock in the line, but
 * not on every file system in the status (btrfs, overlayfs).
 */
function looksLike({ link, status }: Candidate, line: WatchedLine): boolean {
  if (status.ino !== line.inode) return false;
  if (link.startsWith("/")) return true;
  const { major, minor } = deviceNumbers(status.dev);
  return ((major << 20 | minor) >>> 0) === line.device;
}

/**
 * A socket has one open file, so that its inode tells all. Asking the kernel
 * would take long where thousands are watched: it counts them each time.
 */
function isOneOfAKind({ link }: Candidate): boolean {
  return link.startsWith("socket:");
}

const KCMP_EPOLL_TFD = 7;

/** What kcmp(2) is asked: two tasks, a descriptor, struct kcmp_epoll_slot. */
const ASKED = { tasks: [0, 8], fd: 16, slot: 24 } as const;
const ASKED_BYTES = 40;

/** Asks the kernel, all at once. */
export function areWatched(questions: readonly WatchQuestion[]): boolean[] {
  if (questions.length === 0) return [];
  const slots = new Slots(ASKED_BYTES, questions.length);
  questions.forEach(({ candidate, epoll, number, nth }, i) => {
    slots.setNumber(i, candidate.pid, ASKED.tasks[0]);
    slots.setNumber(i, epoll.pid, ASKED.tasks[1]);
    slots.setNumber(i, candidate.fd, ASKED.fd);
    const slot = i * ASKED_BYTES + ASKED.slot;
    slots.view.setUint32(slot, epoll.fd, true);
    slots.view.setUint32(slot + 4, number, true);
    slots.view.setUint32(slot + 8, nth, true);
  });
  const calls = new Calls();
  const compared = calls.add("kcmp", [
    { loaded: slots, offset: ASKED.tasks[0] },
    { loaded: slots, offset: ASKED.tasks[1] },
    KCMP_EPOLL_TFD,
    { loaded: slots, offset: ASKED.fd },
    { slots, offset: ASKED.slot },
  ]);
  calls.run(questions.length);
  return questions.map((_, i) => {
    const result = calls.result(i, compared);
    if (result < 0) throw new SyscallError("kcmp", -result);
    return result === 0;
  });
}

export function dumpEpoll(
  id: number,
  tfd: eventpoll_tfd_entry[],
  flags: number,
  fown: fown_entry,
): eventpoll_file_entry {
  return { id, flags, fown, tfd };
}

/** @param tfd the number by which CRIU finds the file */
export function dumpWatched(
  { events, data, pos, inode, device }: WatchedLine,
  tfd: number,
): eventpoll_tfd_entry {
  return {
    id: 0,
    tfd,
    events,
    data,
    dev: device,
    inode,
    pos: BigInt.asUintN(64, pos),
  };
}

/** Makes the instance; {@link watch} adds to it what it watches. */
export function makeEpoll(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
  busyPolling?: Uint8Array,
): void {
  const what = () => `descriptor ${fd}, an epoll instance`;
  table.program.call("epoll_create1", [O.CLOEXEC], () => `making ${what()}`);
  table.settle(fd, cloexec);
  setOtherFlags(table.program, fd, flags, what, 0);
  if (busyPolling === undefined) return;
  table.program.call(
    "ioctl",
    [fd, EPIOCSPARAMS, table.program.bytes(busyPolling)],
    () => `letting ${what()} poll busily`,
  );
}

/** What is to be watched, and where its descriptor is. */
export interface ToWatch {
  readonly number: number;
  readonly events: number;
  readonly data: bigint;
  /** A descriptor of the process that is now what `number` was. */
  readonly at: number;
  /** What `number` is now: the flags of its descriptor; undefined: nothing. */
  readonly cloexec: number | undefined;
}

/** An entry that is to be found disarmed, if its file let it fire. */
export interface Disarmed {
  /** Of epoll_wait(2): how many entries have fired. */
  readonly fired: Result;
  /** Makes one that has not fired wait for errors only. */
  readonly quieten: (program: Program) => void;
}

/**
 * Adds what an instance watches. Where a number is not (or no longer) that of
 * the file, it is made so for the moment of the call: the kernel keeps the
 * entry as long as the file is open anywhere.
 *
 * @returns entries that were disarmed (EPOLLONESHOT): no call makes one so, it
 * has to fire
 */
export function watch(
  table: TableProgram,
  epoll: number,
  entries: readonly ToWatch[],
): Disarmed[] {
  const disarmed = entries.filter(isDisarmed);
  // While they are the only ones, no other entry can fire in their stead.
  const found = disarmed.map((entry) => addAndFire(table, epoll, entry));
  for (const entry of entries) {
    if (!isDisarmed(entry)) add(table, epoll, entry, entry.events);
  }
  return found;
}

/** It has fired: the kernel leaves only how it watched. */
function isDisarmed({ events }: ToWatch): boolean {
  return (events & EPOLLONESHOT) !== 0 && (events & ~MODES) === 0;
}

function addAndFire(
  table: TableProgram,
  epoll: number,
  entry: ToWatch,
): Disarmed {
  add(table, epoll, entry, entry.events | ANY_EVENT);
  const fired = table.program.call(
    "epoll_wait",
    [epoll, table.program.reserve(EPOLL_EVENT_BYTES), 1, 0],
    `disarming descriptor ${entry.number} in epoll ${epoll}`,
  );
  return {
    fired,
    quieten: (program) =>
      atNumber(
        table,
        program,
        epoll,
        entry,
        (epoll) => control(program, epoll, EPOLL_CTL_MOD, entry, entry.events),
      ),
  };
}

function add(
  table: TableProgram,
  epoll: number,
  entry: ToWatch,
  events: number,
): void {
  const { program } = table;
  atNumber(
    table,
    program,
    epoll,
    entry,
    (epoll) => control(program, epoll, EPOLL_CTL_ADD, entry, events),
  );
}

function atNumber(
  table: TableProgram,
  program: Program,
  epoll: number,
  { number, at, cloexec }: ToWatch,
  act: (epoll: number) => void,
): void {
  if (number === at) return act(epoll);
  const before = table.program;
  table.program = program;
  const [kept] = table.scratch;
  if (cloexec !== undefined) table.duplicate(number, kept, O.CLOEXEC);
  table.duplicate(at, number, O.CLOEXEC);
  act(number === epoll ? kept : epoll);
  if (cloexec === undefined) table.close(number);
  else {
    table.duplicate(kept, number, cloexec);
    table.close(kept);
  }
  table.program = before;
}

function control(
  program: Program,
  epoll: number,
  operation: number,
  { number, data }: ToWatch,
  events: number,
): void {
  // struct epoll_event is packed: the data follow the events at once.
  const event = new DataView(new ArrayBuffer(EPOLL_EVENT_BYTES));
  event.setUint32(0, events >>> 0, true);
  event.setBigUint64(4, data, true);
  program.call(
    "epoll_ctl",
    [epoll, operation, number, program.bytes(new Uint8Array(event.buffer))],
    () => `watching descriptor ${number} by epoll ${epoll}`,
  );
}
