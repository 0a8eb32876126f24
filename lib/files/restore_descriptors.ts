/**
 * Plans how the processes of a tree get their descriptors again. Every open
 * file description is made once: by the process that comes first in the tree
 * of those that hold it, or, of a pipe, one of its descriptions. The others
 * fetch it from there (pidfd_getfd(2)).
 *
 * Three phases, each of which every process ends before any begins the next:
 *
 *   open    makes descriptions, at their numbers, and at numbers above all
 *           processes' those that only others hold
 *   fetch   takes what others have made
 *   finish  sets who gets signals; tasks that get them have to exist, and what
 *           is above all processes' numbers has to be closed
 */
import type { Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import {
  type fdinfo_entry,
  type file_entry,
  type fown_entry,
  type reg_file_entry,
} from "../image/schema.gen.ts";
import { encodeText } from "../ffi/text.ts";
import { FD_CLOEXEC, GONE } from "./descriptors.ts";
import { restoreOwner } from "./owner.ts";
import type { PipeImages } from "./pipe_images.ts";
import {
  makeDeadPidfds,
  makeFifo,
  makePidfd,
  makePipe,
  type Wanted,
} from "./make_descriptions.ts";
import { type NumbersAbove, TableProgram } from "./table_program.ts";

const F_SETFL = 4;
const SEEK_SET = 0;
/** Marks a position that is not to be set (CRIU writes it for /dev/kmsg). */
const NO_POSITION = 2n ** 64n - 1n;
/** Flags that act on open(2) and are no state of an open file. */
const ACTING_FLAGS = O.CREAT | O.EXCL | O.TRUNC | O.CLOEXEC;

/** A process as far as its descriptors go. */
export interface DescriptorTable {
  readonly pid: number;
  /** Processes with the same number share one table. */
  readonly filesId: number;
  readonly entries: readonly fdinfo_entry[];
  /** Where the calls of each phase are added. */
  readonly programs: DescriptorPrograms;
}

export interface DescriptorPrograms {
  readonly open: Program;
  readonly fetch: Program;
  readonly finish: Program;
}

export interface FileImages extends PipeImages {
  /** By their ids. */
  readonly files: ReadonlyMap<number, file_entry>;
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
 * @param tables of all processes in the order of the tree; all of them exist
 * before the first one opens anything
 * @param above where the descriptors for the work are; nothing else is open
 * @returns the number above all that any process uses meanwhile, which its
 * limit has to allow
 */
export function restoreDescriptors(
  tables: readonly DescriptorTable[],
  images: FileImages,
  given: GivenDescriptors,
  above: NumbersAbove,
): number {
  const tree = new TreePlan(tables, images, given);
  const seen = new Set<number>();
  const plans = tables.filter(({ filesId }) =>
    !seen.has(filesId) && seen.add(filesId)
  ).map((table) => new TablePlan(table, tree, above));
  for (const plan of plans) plan.open();
  for (const plan of plans) plan.fetch();
  for (const plan of plans) plan.finish();
  return plans.reduce((most, { end }) => Math.max(most, end), above.free);
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
  /** Ids of descriptions that have to be made together. */
  readonly #groups = new Map<string, number[]>();

  constructor(
    tables: readonly DescriptorTable[],
    readonly images: FileImages,
    readonly given: GivenDescriptors,
  ) {
    const ids = new Set(
      tables.flatMap(({ entries }) => entries.map(({ id }) => id)),
    );
    for (const id of ids) {
      if (given.get(id)?.reopen === false) continue;
      const key = this.#groupOf(id);
      const group = this.#groups.get(key);
      if (group === undefined) this.#groups.set(key, [id]);
      else group.push(id);
    }
  }

  #groupOf(id: number): string {
    const { pipe, fifo, pidfd } = this.file(id);
    if (this.given.has(id)) return `given ${id}`;
    if (pipe !== undefined) return `pipe ${pipe.pipe_id}`;
    if (fifo !== undefined) return `fifo ${fifo.pipe_id}`;
    if (pidfd?.nspid === GONE) return `gone ${pidfd.ino}`;
    return `file ${id}`;
  }

  group(id: number): readonly number[] {
    return this.#groups.get(this.#groupOf(id))!;
  }

  file(id: number): file_entry {
    return this.images.files.get(id)!;
  }

  /** The entry with the path of a file that has one. */
  path(id: number): reg_file_entry {
    const { reg, fifo } = this.file(id);
    return reg ?? this.file(fifo!.regf_id!).reg!;
  }

  /** Flags and owner, wherever the kind of file has them. */
  state(id: number): { flags: number; fown: fown_entry } {
    const { tty, pipe, pidfd } = this.file(id);
    return tty ?? pipe ?? pidfd ?? this.path(id);
  }

  name(id: number): string {
    const { tty, pipe, pidfd } = this.file(id);
    if (tty !== undefined) return "the terminal";
    if (pipe !== undefined) return `pipe:[${pipe.pipe_id}]`;
    if (pidfd === undefined) return this.path(id).name;
    return pidfd.nspid === GONE
      ? "a pidfd of a process that is gone"
      : `a pidfd of process ${pidfd.nspid}`;
  }
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

  constructor(
    { pid, programs, entries }: DescriptorTable,
    tree: TreePlan,
    above: NumbersAbove,
  ) {
    this.#pid = pid;
    this.#programs = programs;
    this.#entries = entries.toSorted((a, b) => a.fd - b.fd);
    this.#tree = tree;
    this.#table = new TableProgram(programs.open, above);
    for (const entry of this.#entries) {
      if (!this.#firsts.has(entry.id)) this.#firsts.set(entry.id, entry);
    }
  }

  get end(): number {
    return this.#table.end;
  }

  open(): void {
    const { given, made } = this.#tree;
    for (const entry of this.#entries) {
      const { id, fd } = entry;
      const replacement = given.get(id);
      if (replacement?.reopen === false) {
        this.#duplicate(replacement.fd, entry);
        continue;
      }
      if (!made.has(id)) this.#make(id);
      const place = made.get(id)!;
      if (place.pid === this.#pid && !this.#open.has(fd)) {
        this.#duplicate(place.fd, entry);
      }
    }
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
    for (const [owner, entries] of byOwner) this.#fetchFrom(owner, entries);
  }

  #fetchFrom(owner: number, entries: readonly fdinfo_entry[]): void {
    const table = this.#table;
    const [pidfd] = table.scratch;
    table.program.call("pidfd_open", [owner, 0], `finding task ${owner}`);
    table.move(table.take(), pidfd, O.CLOEXEC);
    for (const entry of entries) {
      const { id, fd } = entry;
      const first = this.#firsts.get(id)!;
      if (first !== entry) {
        this.#duplicate(first.fd, entry);
        continue;
      }
      table.program.call(
        "pidfd_getfd",
        [pidfd, this.#tree.made.get(id)!.fd, 0],
        `fetching descriptor ${fd} (${this.#tree.name(id)}) from task ${owner}`,
      );
      table.move(table.take(), fd, cloexecOf(entry));
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
    if (flags & O.PATH) return;
    const program = this.#programs.finish;
    const what = `descriptor ${fd} (${this.#tree.name(id)})`;
    restoreOwner(program, fd, fown, what);
    if (flags & O.ASYNC) {
      // open(2) does not register for signals; fcntl does.
      program.call(
        "fcntl",
        [fd, F_SETFL, flags & ~ACTING_FLAGS],
        `setting the flags of ${what}`,
      );
    }
  }

  /** With all that has to be made together. */
  #make(id: number): void {
    const tree = this.#tree;
    const table = this.#table;
    const wanted = tree.group(id).map((id) => this.#place(id));
    const { pipe, fifo, pidfd } = tree.file(id);
    if (tree.given.has(id)) this.#openPath(wanted[0]);
    else if (pipe !== undefined) {
      const content = tree.images.pipes.get(pipe.pipe_id);
      makePipe(table, wanted, content, tree.name(id));
    } else if (fifo !== undefined) {
      makeFifo(
        table,
        wanted.map((one) => ({
          ...one,
          path: tree.path(one.id).name,
          unconnected: tree.images.unconnected.has(one.id),
        })),
        tree.images.fifos.get(fifo.pipe_id),
      );
    } else if (pidfd?.nspid === GONE) makeDeadPidfds(table, wanted);
    else if (pidfd !== undefined) makePidfd(table, wanted[0], pidfd.nspid);
    else this.#openPath(wanted[0]);
  }

  /** Decides where a description that is made here is to be. */
  #place(id: number): Wanted & { id: number } {
    const own = this.#firsts.get(id);
    const fd = own?.fd ?? this.#table.temporary();
    if (own !== undefined) this.#open.add(fd);
    this.#tree.made.set(id, { pid: this.#pid, fd });
    const { flags } = this.#tree.state(id);
    return { id, fd, flags, cloexec: own ? cloexecOf(own) : O.CLOEXEC };
  }

  #openPath({ id, fd, flags, cloexec }: Wanted & { id: number }): void {
    const { given } = this.#tree;
    const replacement = given.get(id);
    const source = replacement === undefined
      ? this.#tree.path(id).name
      : `/proc/self/fd/${replacement.fd}`;
    this.#table.open(
      source,
      flags & ~ACTING_FLAGS,
      fd,
      cloexec,
      `opening ${source} for descriptor ${fd}`,
    );
    const pos = this.#tree.file(id).reg?.pos ?? NO_POSITION;
    if (flags & O.PATH || pos === 0n || pos === NO_POSITION) return;
    this.#table.program.call(
      "lseek",
      [fd, pos, SEEK_SET],
      `setting the position of descriptor ${fd} (${source})`,
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

/** Root and working directory (chroot(2), fchdir(2)). */
export function restoreDirectories(
  program: Program,
  cwd: reg_file_entry,
  root: reg_file_entry,
): void {
  const fd = program.call(
    "openat",
    [
      AT_FDCWD,
      program.text(encodeText(cwd.name)),
      O.PATH | O.DIRECTORY | O.CLOEXEC,
      0,
    ],
    `opening the working directory ${cwd.name}`,
  );
  if (root.name !== "/") {
    program.call(
      "chroot",
      [program.text(encodeText(root.name))],
      `changing the root directory to ${root.name}`,
    );
  }
  program.call("fchdir", [fd], `changing to the directory ${cwd.name}`);
  program.call("close", [fd], "closing the working directory");
}
