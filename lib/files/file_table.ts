/**
 * The files of an image: every open file description and every file that is
 * mapped, executed, or a directory in use gets one entry with an id.
 */
import {
  fd_types,
  type file_entry,
  type fown_entry,
} from "../image/schema.gen.ts";
import { encodeText } from "../ffi/text.ts";
import {
  type FileStatus,
  lstat,
  O,
  S_IF,
  SyscallError,
} from "../ffi/syscall.ts";

export const NO_OWNER: Readonly<fown_entry> = {
  uid: 0,
  euid: 0,
  signum: 0,
  pid_type: 0,
  pid: 0,
};

/** A regular file, directory, device or other file reached by a path. */
export interface NamedFile {
  path: string;
  /** O_* flags to open it with. */
  flags: number;
  pos: bigint;
  owner: fown_entry;
  status: FileStatus;
}

export class FileTable {
  readonly entries: file_entry[] = [];
  readonly #shared = new Map<string, number>();
  readonly #once = new Map<object, number>();
  readonly #pipeIds = new Map<string, number>();
  readonly #takenPipeIds = new Set<number>();

  /** A new id for an entry; `make` gets it. */
  add(make: (id: number) => file_entry): number {
    const id = this.entries.length + 1;
    this.entries.push(make(id));
    return id;
  }

  /** The id of the entry of `key`, which `add` makes when there is none yet. */
  once(key: object, add: () => number): number {
    let id = this.#once.get(key);
    if (id === undefined) {
      id = add();
      this.#once.set(key, id);
    }
    return id;
  }

  /** The id that {@link once} gave. */
  idOf(key: object): number {
    return this.#once.get(key)!;
  }

  /**
   * The number of a pipe or fifo in the image: its inode, unless that is longer
   * than the 32 bits of the format and another one ends with the same.
   *
   * @param key the same for all descriptors of the pipe
   */
  pipeId(key: string, inode: bigint): number {
    let id = this.#pipeIds.get(key);
    if (id === undefined) {
      id = Number(BigInt.asUintN(32, inode));
      while (this.#takenPipeIds.has(id)) id = (id + 1) >>> 0;
      this.#takenPipeIds.add(id);
      this.#pipeIds.set(key, id);
    }
    return id;
  }

  /** An open file description: an entry of its own. */
  addNamed(file: NamedFile): number {
    return this.add((id) => ({
      type: fd_types.REG,
      id,
      reg: {
        id,
        flags: file.flags,
        pos: file.pos,
        fown: file.owner,
        name: file.path,
        size: sizeToCheck(file),
        mode: file.status.mode,
        build_id: [],
      },
    }));
  }

  /** A file that is only reached, not held open: one entry per path and flags. */
  addReached(path: string, flags: number, status: FileStatus): number {
    const key = `${flags} ${path}`;
    let id = this.#shared.get(key);
    if (id === undefined) {
      id = this.addNamed({ path, flags, pos: 0n, owner: NO_OWNER, status });
      this.#shared.set(key, id);
    }
    return id;
  }
}

/**
 * The size that restore compares: of regular files, but not of one that is
 * only appended to, such as a log.
 */
function sizeToCheck({ flags, status }: NamedFile): bigint | undefined {
  if ((status.mode & S_IF.MT) !== S_IF.REG) return undefined;
  if (flags & O.APPEND && (flags & O.ACCMODE) === O.WRONLY) return undefined;
  return status.size;
}

/**
 * Whether opening `path` gives the file with this status back; if not, why.
 *
 * @returns undefined when it does
 */
export function whyPathMisleads(
  path: string,
  status: FileStatus,
): string | undefined {
  let found: FileStatus;
  try {
    found = lstat(encodeText(path));
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return status.nlink === 0n
      ? "the file was deleted while in use; saving such files is not " +
        "supported yet"
      : `its path leads nowhere: ${error.message}`;
  }
  if (found.dev === status.dev && found.ino === status.ino) return undefined;
  return "its path leads to another file now (it was replaced); saving such " +
    "files is not supported yet";
}
