/**
 * Pipes and fifos of a tree, and open files with locks, that a process outside
 * holds, too: what is in them is not the tree's alone.
 */
import { CkptError, EXIT } from "../error.ts";
import { decodeText } from "../ffi/text.ts";
import {
  type FileStatus,
  readLink,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  listDescriptors,
  listProcesses,
  readComm,
  readFdInfo,
  readStat,
} from "../proc/read.ts";
import {
  type DescriptorPlace,
  isSameDescription,
  nameOf as placeName,
} from "./description_index.ts";
import { areWatched, type WatchedLine } from "./epoll.ts";
import { livingThread } from "../task/process_tree.ts";

/** A process outside the tree, by one of its descriptors. */
export interface Holder {
  readonly pid: number;
  readonly name: string;
  readonly fd: number;
}

/**
 * A pipe or fifo by which all its descriptors can be told; or an open file
 * description, by one of its places.
 */
export interface PipeIdentity {
  /** What /proc/PID/fd/N leads to. */
  readonly link: string;
  readonly status: Pick<FileStatus, "dev" | "ino" | "mode">;
  readonly description?: DescriptorPlace;
}

const PIPE_LINK = "pipe:[";

/** Whether a descriptor is an end of a pipe or an open fifo. */
export function isPipe({ status }: PipeIdentity): boolean {
  return (status.mode & S_IF.MT) === S_IF.IFO;
}

/** Whether it has a name in a file system. */
export function isFifo(pipe: PipeIdentity): boolean {
  return isPipe(pipe) && !pipe.link.startsWith(PIPE_LINK);
}

/** The same for all descriptors of one pipe or fifo, and for no other. */
export function pipeKey({ status, description }: PipeIdentity): string {
  if (description !== undefined) return placeName(description);
  return `${status.dev}:${status.ino}`;
}

export class OutsideHolders {
  readonly #holders = new Map<string, Holder>();
  /** Processes that held nothing. */
  readonly #harmless = new Set<number>();

  /**
   * Looks through the descriptors of all processes outside the tree.
   *
   * @param before an earlier look: only processes that are new since then are
   * looked at, and those that held something then. So it is short enough for a
   * tree that stands still; a child that left the tree is found, an end that
   * was handed to an old process in between is not.
   * @param belongs whether a holder is of the tree all the same: one that was
   * born since the tree was listed
   * @param flight descriptors of ckpt's own that stand for what is in flight
   */
  constructor(
    pipes: Iterable<PipeIdentity>,
    tree: ReadonlySet<number>,
    before?: OutsideHolders,
    belongs: (pid: number) => boolean = () => false,
    flight: ReadonlySet<number> = new Set(),
  ) {
    const wanted = new WantedPipes(pipes);
    const processes = wanted.isEmpty ? [] : listProcesses();
    const known = before === undefined ? new Set() : before.#harmless;
    for (const pid of processes) {
      if (tree.has(pid)) continue;
      const held = known.has(pid) ? [] : heldBy(pid, wanted).filter(
        ([, fd]) => pid !== Deno.pid || !flight.has(fd),
      );
      if (held.length === 0) this.#harmless.add(pid);
      else if (belongs(pid)) continue;
      for (const [key, fd] of held) {
        if (this.#holders.has(key)) continue;
        this.#holders.set(key, { pid, name: nameOf(pid), fd });
      }
    }
  }

  holder(pipe: PipeIdentity): Holder | undefined {
    return this.#holders.get(pipeKey(pipe));
  }
}

class WantedPipes {
  readonly #byLink = new Map<string, string>();
  readonly #fifoInodes = new Set<bigint>();
  readonly #fifos = new Set<string>();
  readonly #descriptions = new Map<string, DescriptorPlace[]>();

  constructor(pipes: Iterable<PipeIdentity>) {
    for (const pipe of pipes) {
      const { link, description } = pipe;
      if (description !== undefined) {
        const known = this.#descriptions.get(link);
        if (known === undefined) this.#descriptions.set(link, [description]);
        else known.push(description);
      } else if (isFifo(pipe)) {
        this.#fifoInodes.add(pipe.status.ino);
        this.#fifos.add(pipeKey(pipe));
      } else this.#byLink.set(pipe.link, pipeKey(pipe));
    }
  }

  get isEmpty(): boolean {
    return this.#byLink.size === 0 && this.#fifos.size === 0 &&
      this.#descriptions.size === 0;
  }

  /** The key of what a descriptor is, when it is wanted. */
  keyOf(pid: number, fd: number): string | undefined {
    const path = `/proc/${pid}/fd/${fd}`;
    const link = decodeText(readLink(path));
    const same = this.#descriptions.get(link)
      ?.find((place) => isSameDescription(place, { pid, fd }));
    if (same !== undefined) return placeName(same);
    const key = this.#byLink.get(link);
    if (key !== undefined && link[0] === "/") {
      // Another file system may be mounted where that process is.
      return pipeKey({ link, status: stat(path) }) === key ? key : undefined;
    }
    if (key !== undefined || this.#fifos.size === 0 || link[0] !== "/") {
      return key;
    }
    // A fifo may have several names. The inode is asked first: stat(2) may
    // wait long for a file on another host.
    const { ino } = readFdInfo(pid, fd);
    if (ino !== undefined && !this.#fifoInodes.has(ino)) return undefined;
    const found = pipeKey({ link, status: stat(path) });
    return this.#fifos.has(found) ? found : undefined;
  }
}

/** A process, or one of its descriptors, may go away while we look. */
function heldBy(pid: number, wanted: WantedPipes): [key: string, fd: number][] {
  const held: [string, number][] = [];
  // The descriptors of a leader that has ended are found by another thread.
  let tid = pid;
  let fds = unlessGone(() => listDescriptors(pid)) ?? [];
  if (fds.length === 0) {
    tid = unlessGone(() => livingThread(readStat(pid))) ?? pid;
    if (tid !== pid) fds = unlessGone(() => listDescriptors(tid)) ?? [];
  }
  for (const fd of fds) {
    const key = unlessGone(() => wanted.keyOf(tid, fd));
    if (key !== undefined) held.push([key, fd]);
  }
  return held;
}

function nameOf(pid: number): string {
  return unlessGone(() => readComm(pid)) ?? "";
}

/** Of processes that ckpt may not look at, too. */
function unlessHidden<T>(look: () => T): T | undefined {
  try {
    return unlessGone(look);
  } catch (error) {
    if (error instanceof CkptError) return undefined;
    throw error;
  }
}

function unlessGone<T>(look: () => T): T | undefined {
  try {
    return look();
  } catch (error) {
    if (
      error instanceof SyscallError ||
      error instanceof CkptError && error.exit !== EXIT.permission
    ) return undefined;
    throw error;
  }
}

/** Who has a path open, for errors. */
export function holderOfPath(path: string): Holder | undefined {
  const file = { link: path, status: stat(path) };
  return new OutsideHolders([file], new Set()).holder(file);
}

/**
 * Who has open what an epoll watches, for errors.
 *
 * @param nth it is the entry after so many others with its number
 */
export function holderOfWatched(
  epoll: DescriptorPlace,
  { number, inode }: WatchedLine,
  nth: number,
): Holder | undefined {
  for (const pid of listProcesses()) {
    for (const fd of unlessHidden(() => listDescriptors(pid)) ?? []) {
      const isIt = unlessHidden(() =>
        readFdInfo(pid, fd).ino === inode &&
        areWatched([{ candidate: { pid, fd }, epoll, number, nth }])[0]
      );
      if (isIt) return { pid, name: nameOf(pid), fd };
    }
  }
  return undefined;
}

/** Who has a socket open, for errors. */
export function holderOf(ino: number): string {
  const socket = {
    link: `socket:[${ino}]`,
    status: { dev: 0n, ino: BigInt(ino), mode: S_IF.SOCK },
  };
  const holder = new OutsideHolders([socket], new Set()).holder(socket);
  return holder === undefined
    ? "a process that cannot be seen"
    : `task ${holder.pid} (${holder.name})`;
}
