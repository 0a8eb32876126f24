/**
 * Makes the files of an image that have no name, before any process exists.
 * Each has its old name only for the moment in which it is opened: whatever
 * happens afterwards, nothing of it stays. The processes open it anew through
 * the descriptor (/proc/self/fd), so that /proc shows the path it had.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EINVAL, EOPNOTSUPP, EROFS, EXDEV } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  O,
  open,
  S_IF,
  stat,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { ImageSet } from "../image/image_set.ts";
import { imageName } from "../image/kinds.ts";
import type { file_entry } from "../image/schema.gen.ts";
import type { Report } from "../report.ts";
import {
  isOneOf,
  setAttributes,
  setEarlyFlags,
  setTimes,
} from "./attributes.ts";
import {
  isReadOnly,
  nearestDirectory,
  remedyForDenied,
  rmdir,
  splitPath,
  statusAt,
  unlink,
} from "./calls.ts";
import { copyProgress, copyRange } from "./content.ts";
import { makeSmallGhosts } from "./make_small.ts";
import {
  inDirectory,
  type Name,
  withName,
  withNameIn,
  WritableMounts,
} from "./names.ts";
import { type Ghost, Ghosts, type Remap } from "./remaps.ts";

/** A descriptor of ckpt's that stands for a file of the image. */
export interface MadeFile {
  readonly fd: number;
  /**
   * Whether it is to be opened anew (it is O_PATH). Otherwise it is the very
   * description: flags that open(2) keeps only for a name or a new file.
   */
  readonly reopen: boolean;
}

/** A file of files.img that needs one. */
interface Wanted {
  readonly id: number;
  readonly path: string;
  readonly flags: number;
}

/** Flags that act on open(2) and are no state of an open file. */
const ACTING_FLAGS = O.CREAT | O.EXCL | O.TRUNC | O.CLOEXEC | O.NOCTTY;
const TMPFILE_BIT = O.TMPFILE & ~O.DIRECTORY;

export class MadeFiles implements Disposable {
  readonly byFile = new Map<number, MadeFile>();
  readonly #fds: number[] = [];
  readonly #fifos = new Map<number, Ghost>();
  readonly #mounts = new WritableMounts();

  private constructor() {}

  /**
   * @param remaps by the ids of the files
   * @throws CkptError naming the file that cannot be made; nothing is left then
   */
  static async make(
    set: ImageSet,
    remaps: ReadonlyMap<number, Remap>,
    files: ReadonlyMap<number, file_entry>,
    report: Report,
  ): Promise<MadeFiles> {
    const made = new MadeFiles();
    try {
      const groups = Map.groupBy(
        remaps,
        ([, remap]) =>
          remap.kind === "ghost" ? `ghost ${remap.id}` : `link ${remap.path}`,
      );
      const ghosts = new Ghosts(set);
      const all = [...groups.values()].map((group) => {
        const [[, remap]] = group;
        const wanted = group.map(([id]) => {
          const { name, flags } = files.get(id)!.reg!;
          return { id, path: name, flags };
        });
        return { remap, wanted };
      });
      made.#makeSmall(ghosts, all);
      const left = new Map<number, readonly Wanted[]>();
      for (const { remap, wanted } of all) {
        if (made.byFile.has(wanted[0].id)) continue;
        if (remap.kind === "link") made.#openLinked(remap.path, wanted);
        else left.set(remap.id, wanted);
      }
      const inside = ghostsInside(set, left);
      const nested = new Set([...inside.values()].flat());
      const tree = { ghosts, wanted: left, inside };
      for (const [id, wanted] of left) {
        if (nested.has(id)) continue;
        await made.#makeGhost(tree, id, wanted, report);
      }
      made.#mounts[Symbol.dispose]();
      const missing = [...remaps.keys()].find((id) => !made.byFile.has(id));
      if (missing !== undefined) throw inNoDirectory(set, missing);
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  get fds(): readonly number[] {
    return this.#fds;
  }

  [Symbol.dispose](): void {
    this.#mounts[Symbol.dispose]();
    for (const fd of this.#fds.splice(0)) close(fd);
    this.byFile.clear();
  }

  #keep(fd: number): number {
    this.#fds.push(fd);
    return fd;
  }

  /** Those that only have to be opened anew, by one path. */
  #makeSmall(
    ghosts: Ghosts,
    all: readonly { remap: Remap; wanted: readonly Wanted[] }[],
  ): void {
    const plain = all.flatMap(({ remap, wanted }) => {
      const [{ path }] = wanted;
      return remap.kind === "ghost" &&
          wanted.every((one) =>
            one.path === path && (one.flags & (O.NOFOLLOW | TMPFILE_BIT)) === 0
          )
        ? [{ id: remap.id, path, wanted }]
        : [];
    });
    makeSmallGhosts(ghosts, plain, ({ wanted }, fd) => {
      this.#keep(fd);
      for (const { id } of wanted) this.byFile.set(id, { fd, reopen: true });
    });
  }

  async #makeGhost(
    tree: GhostTree,
    id: number,
    wanted: readonly Wanted[],
    report: Report,
  ): Promise<void> {
    const { ghosts } = tree;
    const ghost = ghosts.read(id);
    const [{ path }] = wanted;
    if ((ghost.attributes.mode & S_IF.MT) === S_IF.DIR) {
      attempt(path, () => this.#makeDirectory(tree, id, ghost, undefined));
      return;
    }
    const fd = attempt(path, () => this.#create(ghost, wanted));
    if ((ghost.attributes.mode & S_IF.MT) === S_IF.REG) {
      await attemptAsync(
        path,
        () =>
          fillGhost(fd, ghost, ghosts.set.path(imageName("ghost-file", id)), {
            name: path,
            report,
          }),
      );
    }
    setAttributes(fd, `making the deleted file ${path}`, ghost.attributes);
    if ((ghost.attributes.mode & S_IF.MT) === S_IF.IFO) {
      this.#fifos.set(fd, ghost);
    }
  }

  /** Once fifos have their content: that it was written changed their times. */
  setTimes(): void {
    for (const [fd, { attributes }] of this.#fifos) setTimes(fd, attributes);
  }

  /** @returns an O_PATH descriptor of the file, which has no name any more */
  #create(ghost: Ghost, wanted: readonly Wanted[]): number {
    const nameless = wanted.find(({ flags }) => (flags & TMPFILE_BIT) !== 0);
    const made = nameless && this.#createNameless(nameless);
    const rest = wanted.filter((one) => !this.byFile.has(one.id));
    if (made !== undefined) {
      for (const { id } of rest) {
        this.byFile.set(id, { fd: made, reopen: true });
      }
      return made;
    }
    const [first, ...others] = Map.groupBy(rest, ({ path }) => path);
    return withName(
      first[0],
      this.#mounts,
      (at) => createNamed(at, ghost),
      unlink,
      (name) => {
        // While it has one name, it can get another.
        for (const [path, group] of others) {
          try {
            withName(
              path,
              this.#mounts,
              (at) => linkPath(name.at, at),
              unlink,
              (other) => this.#openNamed(other.path, group),
            );
          } catch (error) {
            // The path was that of another mount of the file system.
            if (!isOneOf(error, EXDEV)) throw error;
            this.#openNamed(name.path, group);
          }
        }
        return this.#openNew(name, first[1]);
      },
    );
  }

  /**
   * A directory, and while it has a name those that were in it: what ".." leads
   * to is the same then.
   */
  #makeDirectory(
    tree: GhostTree,
    id: number,
    ghost: Ghost,
    inside: Name | undefined,
  ): void {
    const wanted = tree.wanted.get(id)!;
    const [{ path }] = wanted;
    const use = (name: Name) => {
      const fd = this.#openNew(name, wanted);
      for (const child of tree.inside.get(id) ?? []) {
        this.#makeDirectory(tree, child, tree.ghosts.read(child), name);
      }
      return fd;
    };
    const create = (at: string) => createNamed(at, ghost);
    const fd = inside === undefined
      ? withName(path, this.#mounts, create, rmdir, use)
      : withNameIn(inside, path, create, rmdir, use);
    const own = open(`/proc/self/fd/${fd}`, O.RDONLY | O.DIRECTORY);
    try {
      setEarlyFlags(own, ghost.attributes);
    } finally {
      close(own);
    }
    setAttributes(fd, `making the deleted file ${path}`, ghost.attributes);
  }

  /**
   * A file that never had a name (O_TMPFILE), by the descriptor that made it.
   *
   * @returns undefined where the file system cannot make one
   */
  #createNameless({ id, path, flags }: Wanted): number | undefined {
    const fd = inDirectory(path, this.#mounts, (directory) => {
      try {
        return open(encodeText(directory.path), flags & ~ACTING_FLAGS, 0o600);
      } catch (error) {
        if (isOneOf(error, EOPNOTSUPP, EINVAL)) return undefined;
        throw error;
      }
    });
    if (fd === undefined) return undefined;
    this.byFile.set(id, { fd: this.#keep(fd), reopen: false });
    return this.#keep(open(`/proc/self/fd/${fd}`, O.PATH));
  }

  /** @returns an O_PATH descriptor by which it can be written to */
  #openNew({ path, at }: Name, wanted: readonly Wanted[]): number {
    const fd = this.#openNamed(path, wanted);
    return at === path
      ? fd
      : this.#keep(open(encodeText(at), O.PATH | O.NOFOLLOW));
  }

  /** Opens a file while it has a name. @returns an O_PATH descriptor of it */
  #openNamed(name: string, wanted: readonly Wanted[]): number {
    const path = encodeText(name);
    const fd = this.#keep(open(path, O.PATH | O.NOFOLLOW));
    const type = stat(fd).mode & S_IF.MT;
    for (const { id, flags } of wanted) {
      // Through a link of /proc, this flag could not be given. Opening others
      // by name might wait (fifos) or act (devices).
      const byName = (flags & O.NOFOLLOW) !== 0 &&
        ((flags & O.PATH) !== 0 || type === S_IF.REG || type === S_IF.DIR);
      const clean = flags & ~ACTING_FLAGS &
        ~((flags & TMPFILE_BIT) === 0 ? 0 : O.TMPFILE);
      this.byFile.set(
        id,
        byName
          ? { fd: this.#keep(open(path, clean)), reopen: false }
          : { fd, reopen: true },
      );
    }
    return fd;
  }

  /** A file with other names: it has its old one for a moment. */
  #openLinked(link: string, wanted: readonly Wanted[]): void {
    for (const [path, group] of Map.groupBy(wanted, ({ path }) => path)) {
      try {
        withName(
          path,
          this.#mounts,
          (at) => linkPath(link, at),
          unlink,
          (name) => this.#openNamed(name.path, group),
        );
      } catch (error) {
        if (!isOneOf(error, EXDEV, EROFS)) throw failure(path, error);
        attempt(path, () => this.#openNamed(link, group));
      }
    }
  }
}

/** What is to be made of ghosts. */
interface GhostTree {
  readonly ghosts: Ghosts;
  readonly wanted: ReadonlyMap<number, readonly Wanted[]>;
  /** Directories by the one that they were in. */
  readonly inside: ReadonlyMap<number, readonly number[]>;
}

/** It is said to be in one that is no directory, or is in it itself. */
function inNoDirectory(set: ImageSet, file: number): CkptError {
  return new CkptError(EXIT.image, `restoring from ${set.directory}`, [{
    object: `${imageName("ckpt-ghosts")}, file ${file}, field parent`,
    why: "leads to no directory",
  }]);
}

function ghostsInside(
  set: ImageSet,
  ghosts: ReadonlyMap<number, readonly Wanted[]>,
): Map<number, number[]> {
  const inside = new Map<number, number[]>();
  for (const entry of set.read("ckpt-ghosts", undefined) ?? []) {
    const { ghost_id, parent } = entry;
    if (parent === undefined || !ghosts.has(parent) || !ghosts.has(ghost_id)) {
      continue;
    }
    const others = inside.get(parent);
    if (others === undefined) inside.set(parent, [ghost_id]);
    else others.push(ghost_id);
  }
  return inside;
}

function createNamed(name: string, { image, attributes }: Ghost): void {
  const { mode } = attributes;
  const path = terminated(encodeText(name));
  const here = BigInt(AT_FDCWD);
  const PRIVATE = 0o600;
  switch (mode & S_IF.MT) {
    case S_IF.REG:
      close(open(encodeText(name), O.CREAT | O.EXCL | O.WRONLY, PRIVATE));
      break;
    case S_IF.DIR:
      syscallBuffer1("mkdirat", here, path, 0o700n);
      break;
    case S_IF.LNK: {
      const target = terminated(encodeText(image.entry.symlnk_target ?? ""));
      syscallBuffer0("symlinkat", target, here, addressOf(path));
      break;
    }
    default:
      syscallBuffer1(
        "mknodat",
        here,
        path,
        BigInt((mode & S_IF.MT) | PRIVATE),
        BigInt(image.entry.rdev ?? 0),
      );
  }
}

function linkPath(from: string, name: string): void {
  const target = terminated(encodeText(name));
  syscallBuffer1(
    "linkat",
    BigInt(AT_FDCWD),
    terminated(encodeText(from)),
    BigInt(AT_FDCWD),
    addressOf(target),
  );
}

const FALLOC_FL_KEEP_SIZE = 1n;

async function fillGhost(
  fd: number,
  ghost: Ghost,
  imagePath: string,
  { name, report }: { name: string; report: Report },
): Promise<void> {
  const { image: { entry, chunks }, extension, attributes } = ghost;
  const file = open(`/proc/self/fd/${fd}`, O.RDWR);
  try {
    setEarlyFlags(file, attributes);
    const last = chunks.at(-1);
    const size = entry.chunks
      ? entry.size ?? 0n
      : BigInt(last === undefined ? 0 : last.offset + last.length);
    syscall("ftruncate", BigInt(file), size);
    for (const { start, end } of extension.allocated) {
      try {
        syscall(
          "fallocate",
          BigInt(file),
          FALLOC_FL_KEEP_SIZE,
          start,
          end - start,
        );
      } catch (error) {
        // Where space cannot be reserved, none is.
        if (!isOneOf(error, EOPNOTSUPP)) throw error;
      }
    }
    if (chunks.length === 0) return;
    const source = open(encodeText(imagePath), O.RDONLY);
    try {
      const total = chunks.reduce((sum, { length }) => sum + length, 0);
      const done = copyProgress(`making ${name} (bytes)`, total, report);
      for (const { offset, length, position } of chunks) {
        await copyRange(source, position, file, offset, length, done);
      }
    } finally {
      close(source);
    }
  } finally {
    close(file);
  }
}

function attempt<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw failure(path, error);
  }
}

async function attemptAsync<T>(
  path: string,
  call: () => Promise<T>,
): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw failure(path, error);
  }
}

const MOUNT_FOR_WRITING =
  "mount its file system for writing while ckpt restores";

function failure(path: string, error: unknown): unknown {
  if (!(error instanceof SyscallError)) return error;
  return new CkptError(EXIT.failed, "making deleted files again", [{
    object: `file ${path}`,
    why: error.message,
    remedy: error.errno === EROFS ? MOUNT_FOR_WRITING : remedyForDenied(error),
  }], { cause: error });
}

/** Files without a name that could not be made, for want of a writable file system. */
export function unmakeable(
  remaps: ReadonlyMap<number, Remap>,
  files: ReadonlyMap<number, file_entry>,
): Reason[] {
  const paths = new Set(
    [...remaps].flatMap(([id, { kind }]) =>
      kind === "ghost" ? [files.get(id)!.reg!.name] : []
    ),
  );
  using mounts = new WritableMounts();
  const readOnly = new Map(
    [...new Set([...paths].map((path) => splitPath(path).directory))].map(
      (directory) => {
        const nearest = nearestDirectory(`${directory}/x`);
        const isWritable = !isReadOnly(nearest) || mounts.canWrite(nearest);
        return [directory, !isWritable] as const;
      },
    ),
  );
  return [...paths].filter((path) => readOnly.get(splitPath(path).directory))
    .map(
      (path) => ({
        object: `file ${path}`,
        why: "it was deleted while in use, so ckpt has to make it again, but " +
          "its file system is mounted read-only",
        remedy: MOUNT_FOR_WRITING,
      }),
    );
}

/**
 * Links that a dump has made and that are not there any more, or are other
 * files.
 */
export function missingLinks(remaps: ReadonlyMap<number, Remap>): Reason[] {
  const paths = new Set(
    [...remaps.values()].flatMap((remap) =>
      remap.kind === "link" ? [remap.path] : []
    ),
  );
  return [...paths].filter((path) => statusAt(path) === undefined).map(
    (path) => ({
      object: `file ${path}`,
      why: "this link, which the dump has made, is gone",
      remedy: "put it back; ckpt clean removes it, and then the image cannot " +
        "be restored any more",
    }),
  );
}
