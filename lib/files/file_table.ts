/**
 * The files of an image: every open file description and every file that is
 * mapped, executed, or a directory in use gets one entry with an id.
 */
import {
  fd_types,
  type file_entry,
  type fown_entry,
  type remap_file_path_entry,
  remap_type,
} from "../image/schema.gen.ts";
import { type FileStatus, O, S_IF } from "../ffi/syscall.ts";
import { inodeKey } from "../ghost/files_in_use.ts";
import { SavedFiles } from "../ghost/save.ts";

export const NO_OWNER: Readonly<fown_entry> = {
  uid: 0,
  euid: 0,
  signum: 0,
  pid_type: 0,
  pid: 0,
};

/** A regular file, directory, device or other file reached by a path. */
export interface NamedFile {
  /** What the link to it in /proc showed. */
  path: string;
  /** O_* flags to open it with. */
  flags: number;
  pos: bigint;
  owner: fown_entry;
  status: FileStatus;
  /** Of its mount; only where that is in a namespace of the tree's own. */
  mountId?: number;
}

/** Which mounts the image tells of. */
export interface KnownMounts {
  withMount(mountId: number): unknown;
}

export class FileTable {
  readonly entries: file_entry[] = [];
  /** What is to be opened instead of paths that do not lead to their files. */
  readonly remaps: remap_file_path_entry[] = [];
  readonly #shared = new Map<string, number>();
  readonly #once = new Map<object | string, number>();
  readonly #pipeIds = new Map<string, number>();
  readonly #takenPipeIds = new Set<number>();

  /**
   * @param saved where the files are that have no path
   * @param mounts where the tree has mount namespaces of its own
   */
  constructor(
    readonly saved: SavedFiles = new SavedFiles(),
    readonly mounts?: KnownMounts,
  ) {}

  /** A new id for an entry; `make` gets it. */
  add(make: (id: number) => file_entry): number {
    const id = this.entries.length + 1;
    this.entries.push(make(id));
    return id;
  }

  /** The entry with an id that {@link add} gave. */
  entry(id: number): file_entry {
    return this.entries[id - 1];
  }

  /** The id of the entry of `key`, which `add` makes when there is none yet. */
  once(key: object | string, add: () => number): number {
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
    const { path: link, status } = file;
    const { path, remap } = this.saved.placeOf({ link, status });
    const id = this.#addPath(file, path);
    if (remap === undefined) return id;
    this.remaps.push(
      "ghost" in remap
        ? { orig_id: id, remap_id: remap.ghost, remap_type: remap_type.GHOST }
        : {
          orig_id: id,
          remap_id: this.#addLink(remap.link, file),
          remap_type: remap_type.LINKED,
        },
    );
    return id;
  }

  /** The link that a dump made to a file. */
  #addLink(
    path: string,
    { status, mountId }: Pick<NamedFile, "status" | "mountId">,
  ): number {
    const key = `link ${mountId ?? ""} ${path}`;
    let id = this.#shared.get(key);
    if (id === undefined) {
      const flags = 0;
      const file = { path, flags, pos: 0n, owner: NO_OWNER, status, mountId };
      id = this.#addPath(file, path);
      this.#shared.set(key, id);
    }
    return id;
  }

  /** An open file that is no file with a path, though it is called so. */
  addUnreached(
    name: string,
    flags: number,
    pos: bigint,
    fown: fown_entry,
  ): number {
    return this.add((id) => ({
      type: fd_types.REG,
      id,
      reg: { id, flags, pos, fown, name, build_id: [] },
    }));
  }

  /** A file below /proc that tells of a process that has ended. */
  addOfEnded(file: NamedFile, pid: number): number {
    const id = this.#addPath(file, file.path);
    this.remaps.push({
      orig_id: id,
      remap_id: pid,
      remap_type: remap_type.PROCFS,
    });
    return id;
  }

  #addPath(file: NamedFile, name: string): number {
    return this.add((id) => ({
      type: fd_types.REG,
      id,
      reg: {
        id,
        flags: file.flags,
        pos: file.pos,
        fown: file.owner,
        name,
        mnt_id: this.#mountOf(file),
        size: sizeToCheck(file),
        // Not known of a file whose task is gone.
        mode: file.status.mode || undefined,
        build_id: [],
      },
    }));
  }

  #mountOf({ mountId }: NamedFile): number | undefined {
    if (mountId === undefined || this.mounts === undefined) return undefined;
    return this.mounts.withMount(mountId) === undefined ? undefined : mountId;
  }

  /** A file that is only reached, not held open: one entry for each way. */
  addReached(
    path: string,
    flags: number,
    status: FileStatus,
    mountId?: number,
  ): number {
    const key = `${flags} ${inodeKey(status)} ${mountId ?? ""} ${path}`;
    let id = this.#shared.get(key);
    if (id === undefined) {
      const file = { path, flags, pos: 0n, owner: NO_OWNER, status, mountId };
      id = this.addNamed(file);
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
