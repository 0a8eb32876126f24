/** What all checks of open files have in common: which there are, and limits. */
import { imageName } from "../kinds.ts";
import { fd_types, type file_entry } from "../schema.gen.ts";

export const FILES = imageName("files");

export const PERMISSIONS = 0o7777;

/** MAX_LFS_FILESIZE of the kernel's include/linux/fs.h. */
export const LARGEST_FILE = 2n ** 63n - 1n;

/** Which member of file_entry belongs to a type. */
export const FILE_MEMBERS: Readonly<Record<number, keyof file_entry>> = {
  [fd_types.REG]: "reg",
  [fd_types.PIPE]: "pipe",
  [fd_types.FIFO]: "fifo",
  [fd_types.INETSK]: "isk",
  [fd_types.UNIXSK]: "usk",
  [fd_types.EVENTFD]: "efd",
  [fd_types.EVENTPOLL]: "epfd",
  [fd_types.INOTIFY]: "ify",
  [fd_types.SIGNALFD]: "sgfd",
  [fd_types.PACKETSK]: "psk",
  [fd_types.TTY]: "tty",
  [fd_types.FANOTIFY]: "ffy",
  [fd_types.NETLINKSK]: "nlsk",
  [fd_types.NS]: "nsf",
  [fd_types.TUNF]: "tunf",
  [fd_types.EXT]: "ext",
  [fd_types.TIMERFD]: "tfd",
  [fd_types.MEMFD]: "memfd",
  [fd_types.BPFMAP]: "bpf",
  [fd_types.PIDFD]: "pidfd",
};

/** Does something with a file and the number of its entry. */
type Look = (file: file_entry, number: number) => void;

/** The files of files.img by their ids and types. */
export class FileTable {
  /** False when files.img is missing or damaged: then nothing can be said. */
  known = false;
  /** Numbers of shared memory that memfds have their content in. */
  readonly sharedMemory = new Set<bigint>();
  readonly #files: file_entry[] = [];
  /** Numbers of entries, by their types. */
  readonly #byType = new Map<number, number[]>();
  /** The first file of each id, and the others of those that have several. */
  readonly #firsts = new Map<number, file_entry>();
  readonly #further = new Map<number, file_entry[]>();

  /** The first file with an id. */
  file(id: number): file_entry | undefined {
    return this.#firsts.get(id);
  }

  /** The type of a file that mappings and directories may name, or undefined. */
  type(id: number): number | undefined {
    return this.has(fd_types.REG, id)
      ? fd_types.REG
      : this.#firsts.get(id)?.type;
  }

  has(type: number, id: number): boolean {
    return this.#firsts.get(id)?.type === type ||
      this.#further.size > 0 &&
        (this.#further.get(id)?.some((file) => file.type === type) ?? false);
  }

  /** @returns false when the id is taken; a tun has a regular twin */
  add(file: file_entry): boolean {
    const { id, type } = file;
    const number = this.#files.push(file) - 1;
    const alike = this.#byType.get(type);
    if (alike === undefined) this.#byType.set(type, [number]);
    else alike.push(number);
    const first = this.#firsts.get(id);
    if (first === undefined) {
      this.#firsts.set(id, file);
      return true;
    }
    const further = this.#further.get(id) ?? [];
    further.push(file);
    this.#further.set(id, further);
    const twins = [first.type, type];
    return further.length === 1 && twins.includes(fd_types.REG) &&
      twins.includes(fd_types.TUNF);
  }

  /** Looks at all files of a type. */
  each(type: number, look: Look): void {
    for (const number of this.#byType.get(type) ?? []) {
      look(this.#files[number], number);
    }
  }
}

export type Wrong = (field: string, why: string) => void;

export const HIGHEST_DESCRIPTOR = 0x3fffffff;
