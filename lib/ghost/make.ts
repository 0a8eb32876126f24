/**
 * Makes the files of an image that have no name, before any process exists.
 * Each has its old name only for the moment in which it is opened: whatever
 * happens afterwards, nothing of it stays. The processes open it anew through
 * the descriptor (/proc/self/fd), so that /proc shows the path it had.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EINVAL, EOPNOTSUPP, EROFS, EXDEV } from "../ffi/errno.ts";
import {
  AT_FDCWD,
  close,
  O,
  open,
  S_IF,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { ImageSet } from "../image/image_set.ts";
import { imageName } from "../image/kinds.ts";
import {
  fd_types,
  type file_entry,
  type reg_file_entry,
} from "../image/schema.gen.ts";
import type { Report } from "../report.ts";
import {
  type Attributes,
  hasLateFlags,
  isOneOf,
  setAttributes,
  setEarlyFlags,
  setLateFlags,
  setTimes,
} from "./attributes.ts";
import {
  isReadOnly,
  nearestDirectory,
  remedyForDenied,
  splitPath,
  statusAt,
} from "./calls.ts";
import { copyRanges } from "./content.ts";
import { fixedAmong, openFixed } from "./fixed_files.ts";
import { makeSmallGhosts } from "./make_small.ts";
import {
  type CloneMount,
  type Creation,
  inOneMoment,
  makeDirectory,
  type Moment,
  type MomentName,
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
  readonly #late: { fd: number; action: string; attributes: Attributes }[] = [];
  readonly #mounts: WritableMounts;
  /** Copies content of large files, one after the other. */
  #filling: Promise<void> = Promise.resolve();
  readonly #unfilled: { fd: number; path: string; ghost: Ghost }[] = [];

  private constructor(clone: CloneMount | undefined) {
    this.#mounts = new WritableMounts(clone);
  }

  /**
   * @param remaps by the ids of the files
   * @param wayTo how ckpt gets at a file, or to where it was
   * @param clone for ways to other mount namespaces
   * @throws CkptError naming the file that cannot be made; nothing is left then
   */
  static async make(
    set: ImageSet,
    remaps: ReadonlyMap<number, Remap>,
    files: ReadonlyMap<number, file_entry>,
    report: Report,
    wayTo: (entry: reg_file_entry) => string = nameOf,
    clone?: CloneMount,
  ): Promise<MadeFiles> {
    const made = new MadeFiles(clone);
    try {
      const groups = Map.groupBy(
        remaps,
        ([, remap]) =>
          remap.kind === "ghost"
            ? `ghost ${remap.id}`
            : `link ${remap.link.id}`,
      );
      const ghosts = new Ghosts(set);
      const all = [...groups.values()].map((group) => {
        const [[, remap]] = group;
        const wanted = group.map(([id]) => {
          const reg = files.get(id)!.reg!;
          return { id, path: wayTo(reg), flags: reg.flags };
        });
        return { remap, wanted };
      });
      made.#makeSmall(ghosts, all);
      const left = new Map<number, readonly Wanted[]>();
      for (const { remap, wanted } of all) {
        if (made.byFile.has(wanted[0].id)) continue;
        if (remap.kind === "link") {
          made.#openLinked(wayTo(remap.link), wanted);
        } else left.set(remap.id, wanted);
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
      made.#openFixed(remaps, files, wayTo);
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** Files that have their path, and cannot be opened by it as they were. */
  #openFixed(
    remaps: ReadonlyMap<number, Remap>,
    files: ReadonlyMap<number, file_entry>,
    wayTo: (entry: reg_file_entry) => string,
  ): void {
    const living = [...files.values()].flatMap(({ id, type, reg }) =>
      type === fd_types.REG && !remaps.has(id)
        ? [{ id, path: wayTo(reg!), flags: reg!.flags & ~ACTING_FLAGS }]
        : []
    );
    for (const file of fixedAmong(living)) {
      const fd = attempt(file.path, () => this.#keep(openFixed(file)));
      this.byFile.set(file.id, { fd, reopen: false });
    }
  }

  get fds(): readonly number[] {
    return this.#fds;
  }

  [Symbol.dispose](): void {
    this.#mounts[Symbol.dispose]();
    this.#unfilled.length = 0;
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
      attempt(path, () =>
        inOneMoment(
          this.#mounts,
          (moment) => this.#makeDirectory(moment, tree, id, ghost),
        ));
      return;
    }
    const fd = attempt(path, () => this.#create(ghost, wanted));
    if ((ghost.attributes.mode & S_IF.MT) === S_IF.REG) {
      attempt(path, () => shapeGhost(fd, ghost));
      if (ghost.image.chunks.length > 0) {
        this.#fillLater(
          { fd, path, ghost },
          ghosts.set.path(imageName("ghost-file", id)),
          report,
        );
        // No process may have a program that is open for writing.
        if ((ghost.attributes.mode & EXECUTABLE) !== 0) await this.filled();
        return;
      }
    }
    this.#setAttributes(fd, path, ghost);
  }

  #fillLater(
    file: { fd: number; path: string; ghost: Ghost },
    image: string,
    report: Report,
  ): void {
    this.#unfilled.push(file);
    this.#filling = this.#filling.then(async () => {
      if (this.#unfilled.includes(file)) await fillGhost(file, image, report);
    });
    // Who waits for it is told.
    this.#filling.catch(() => {});
  }

  /**
   * Waits until large files have their content, which is copied beside what
   * else is to be done. Until then they may be mapped, but by no program.
   */
  async filled(): Promise<void> {
    await this.#filling;
    for (const { fd, path, ghost } of this.#unfilled.splice(0)) {
      this.#setAttributes(fd, path, ghost);
    }
  }

  #setAttributes(fd: number, path: string, { attributes }: Ghost): void {
    const action = `making the deleted file ${path}`;
    setAttributes(fd, action, attributes);
    if (
      (attributes.mode & S_IF.MT) === S_IF.IFO || hasLateFlags(attributes)
    ) this.#late.push({ fd, action, attributes });
  }

  /**
   * What would hinder opening and mapping files, or is changed by it. To be
   * called when the processes have them, and fifos their content.
   */
  settle(): void {
    for (const { fd, action, attributes } of this.#late) {
      setTimes(fd, attributes);
      setLateFlags(fd, action, attributes);
    }
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
    const byPath = [...Map.groupBy(rest, ({ path }) => path)];
    try {
      return this.#createNamed(ghost, byPath, true);
    } catch (error) {
      // Directories of two projects (quotas) do not share files.
      if (!isOneOf(error, EXDEV)) throw error;
      return this.#createNamed(ghost, byPath, false);
    }
  }

  /** @param everyName whether it gets the others, too, while it has one */
  #createNamed(
    ghost: Ghost,
    [first, ...others]: readonly [path: string, wanted: readonly Wanted[]][],
    everyName: boolean,
  ): number {
    const type = ghost.attributes.mode & S_IF.MT;
    return inOneMoment(this.#mounts, (moment) => {
      const name = moment.create(
        first[0],
        moment.directoryOf(first[0]),
        creationOf(ghost),
      );
      const finish = this.#open(moment, name, first[1], type);
      const more = others.map(([path, group]) => {
        const directory = moment.directoryOf(path);
        const other = everyName && directory.mountId === name.mountId
          ? moment.create(path, directory, linkTo(name.at))
          : name;
        return this.#open(moment, other, group, type);
      });
      return () => {
        for (const finish of more) finish();
        return finish();
      };
    });
  }

  /**
   * A directory, and while it has a name those that were in it: what ".." leads
   * to is the same then.
   */
  #makeDirectory(
    moment: Moment,
    tree: GhostTree,
    id: number,
    ghost: Ghost,
    inside?: MomentName,
  ): () => void {
    const wanted = tree.wanted.get(id)!;
    const [{ path }] = wanted;
    const name = moment.create(
      path,
      inside ?? moment.directoryOf(path),
      makeDirectory,
    );
    const opened = this.#open(moment, name, wanted, S_IF.DIR);
    const children = (tree.inside.get(id) ?? []).map((child) =>
      this.#makeDirectory(moment, tree, child, tree.ghosts.read(child), name)
    );
    return () => {
      const fd = opened();
      const own = open(`/proc/self/fd/${fd}`, O.RDONLY | O.DIRECTORY);
      try {
        setEarlyFlags(own, ghost.attributes);
      } finally {
        close(own);
      }
      this.#setAttributes(fd, path, ghost);
      for (const finish of children) finish();
    };
  }

  /**
   * A file that never had a name (O_TMPFILE), by the descriptor that made it.
   *
   * @returns undefined where the file system cannot make one
   */
  #createNameless({ id, path, flags }: Wanted): number | undefined {
    let fd: number;
    try {
      fd = inOneMoment(this.#mounts, (moment) => {
        const directory = moment.directoryOf(path);
        return moment.open(directory.path, flags & ~ACTING_FLAGS, directory);
      });
    } catch (error) {
      if (isOneOf(error, EOPNOTSUPP, EINVAL)) return undefined;
      throw error;
    }
    this.byFile.set(id, { fd: this.#keep(fd), reopen: false });
    return this.#keep(open(`/proc/self/fd/${fd}`, O.PATH));
  }

  /**
   * Opens a file while it has a name.
   *
   * @param type of the file
   * @returns what gives an O_PATH descriptor by which it can be written to
   */
  #open(
    moment: Moment,
    name: MomentName,
    wanted: readonly Wanted[],
    type: number,
  ): () => number {
    const anew = moment.open(name.path, O.PATH | O.NOFOLLOW, name);
    const writable = name.at === name.path
      ? anew
      : moment.open(name.at, O.PATH | O.NOFOLLOW, name);
    const opened = wanted.map(({ id, flags }) => {
      // Through a link of /proc, this flag could not be given. Opening others
      // by name might wait (fifos) or act (devices).
      const byName = (flags & O.NOFOLLOW) !== 0 &&
        ((flags & O.PATH) !== 0 || type === S_IF.REG || type === S_IF.DIR);
      const clean = flags & ~ACTING_FLAGS &
        ~((flags & TMPFILE_BIT) === 0 ? 0 : O.TMPFILE);
      const fd = byName ? moment.open(name.path, clean, name) : anew;
      return { id, fd, reopen: !byName };
    });
    return () => {
      for (const fd of new Set([anew, writable])) this.#keep(fd());
      for (const { id, fd, reopen } of opened) {
        if (!reopen) this.#keep(fd());
        this.byFile.set(id, { fd: fd(), reopen });
      }
      return writable();
    };
  }

  /** A file with other names: it has its old one for a moment. */
  #openLinked(link: string, wanted: readonly Wanted[]): void {
    const type = (statusAt(link)?.mode ?? 0) & S_IF.MT;
    for (const [path, group] of Map.groupBy(wanted, ({ path }) => path)) {
      const openBy = (name: (moment: Moment) => MomentName) =>
        inOneMoment(
          this.#mounts,
          (moment) => this.#open(moment, name(moment), group, type),
        );
      try {
        openBy((moment) =>
          moment.create(path, moment.directoryOf(path), linkTo(link))
        );
      } catch (error) {
        if (!isOneOf(error, EXDEV, EROFS)) throw failure(path, error);
        attempt(path, () => openBy((moment) => moment.existing(link)));
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

function creationOf({ image, attributes: { mode } }: Ghost): Creation {
  const PRIVATE = 0o600;
  switch (mode & S_IF.MT) {
    case S_IF.REG:
      return (at) => ({
        call: "openat",
        args: [AT_FDCWD, at, O.CREAT | O.EXCL | O.WRONLY | O.CLOEXEC, PRIVATE],
      });
    case S_IF.LNK: {
      const target = image.entry.symlnk_target ?? "";
      return (at, text) => ({
        call: "symlinkat",
        args: [text(target), AT_FDCWD, at],
      });
    }
    default:
      return (at) => ({
        call: "mknodat",
        args: [
          AT_FDCWD,
          at,
          (mode & S_IF.MT) | PRIVATE,
          image.entry.rdev ?? 0,
        ],
      });
  }
}

/** Another name for the file with that name. */
function linkTo(from: string): Creation {
  return (at, text) => ({
    call: "linkat",
    args: [AT_FDCWD, text(from), AT_FDCWD, at, 0],
  });
}

const EXECUTABLE = 0o111;
const FALLOC_FL_KEEP_SIZE = 1n;

/** Gives it its size, flags that come first, and the space it had. */
function shapeGhost(fd: number, ghost: Ghost): void {
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
  } finally {
    close(file);
  }
}

async function fillGhost(
  { fd, path, ghost }: { fd: number; path: string; ghost: Ghost },
  imagePath: string,
  report: Report,
): Promise<void> {
  const ranges = ghost.image.chunks.map((
    { offset: to, length, position: from },
  ) => ({ from, to, length }));
  const fds: number[] = [];
  try {
    fds.push(open(encodeText(imagePath), O.RDONLY));
    fds.push(open(`/proc/self/fd/${fd}`, O.RDWR));
    const step = `making ${path} (bytes)`;
    await copyRanges(fds[0], fds[1], ranges, step, report);
  } catch (error) {
    throw failure(path, error);
  } finally {
    for (const fd of fds) close(fd);
  }
}

function attempt<T>(path: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw failure(path, error);
  }
}

/** How ckpt gets at a file of the image; undefined: it is not there yet. */
type WayTo = (entry: reg_file_entry) => string | undefined;

function nameOf({ name }: reg_file_entry): string {
  return name;
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
  wayTo: WayTo = nameOf,
  clone?: CloneMount,
): Reason[] {
  const names = new Map(
    [...remaps].flatMap(([id, { kind }]) => {
      const reg = files.get(id)!.reg!;
      const path = kind === "ghost" ? wayTo(reg) : undefined;
      return path === undefined ? [] : [[path, reg.name] as const];
    }),
  );
  const paths = [...names.keys()];
  using mounts = new WritableMounts(clone);
  const readOnly = new Map(
    [...new Set(paths.map((path) => splitPath(path).directory))].map(
      (directory) => {
        const nearest = nearestDirectory(`${directory}/x`);
        const isWritable = !isReadOnly(nearest) || mounts.canWrite(nearest);
        return [directory, !isWritable] as const;
      },
    ),
  );
  return paths.filter((path) => readOnly.get(splitPath(path).directory))
    .map(
      (path) => ({
        object: `file ${names.get(path)}`,
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
export function missingLinks(
  remaps: ReadonlyMap<number, Remap>,
  wayTo: WayTo = nameOf,
): Reason[] {
  const names = new Map(
    [...remaps.values()].flatMap((remap) => {
      if (remap.kind !== "link") return [];
      const path = wayTo(remap.link);
      return path === undefined ? [] : [[path, remap.link.name] as const];
    }),
  );
  return [...names].filter(([path]) => statusAt(path) === undefined).map(
    ([, name]) => ({
      object: `file ${name}`,
      why: "this link, which the dump has made, is gone",
      remedy: "put it back; ckpt clean removes it, and then the image cannot " +
        "be restored any more",
    }),
  );
}
