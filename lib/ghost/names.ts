/**
 * Names that files have for the moment in which they are opened: their old
 * ones, or ones beside these. Nothing of others is changed, and nothing stays,
 * even when ckpt is killed meanwhile: once begun, the calls of a moment are
 * made to the end.
 */
import { type CallArgument, Calls } from "../ffi/calls.ts";
import { CkptError, EXIT } from "../error.ts";
import { ECANCELED, EEXIST } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  type NR,
  O,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  AT_REMOVEDIR,
  fileSystemType,
  isReadOnly,
  mountedAt,
  nearestDirectory,
  splitPath,
  statusAt,
  statx,
} from "./calls.ts";
import { NFS } from "./fate.ts";

/** One file or directory, reached in two ways. */
export interface Name {
  /** As programs see it: it is opened by this. */
  readonly path: string;
  /** The same where it can be written: names are made and removed by this. */
  readonly at: string;
}

const OPEN_TREE_CLONE = 1n;
const OPEN_TREE_CLOEXEC = 0o2000000n;
const AT_EMPTY_PATH = 0x1000n;
const MOUNT_ATTR_RDONLY = 1n;
const MOUNT_ATTR_BYTES = 32;

/** Copies the mount that a path is on to nowhere: a descriptor of that. */
export type CloneMount = (path: string) => number;

/** The same from a directory: open_tree(2). */
export function cloneMountAt(directory: number, path: string): number {
  return Number(
    syscallBuffer1(
      "open_tree",
      BigInt(directory),
      terminated(encodeText(path)),
      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC,
    ),
  );
}

/**
 * Mounts that are read-only where the file system is not, each copied to
 * nowhere and made writable (mount_setattr(2)). Nobody sees the copies; they
 * end with this object or with ckpt.
 */
export class WritableMounts implements Disposable {
  readonly #copies = new Map<bigint, { fd: number; root: string }>();

  constructor(
    readonly clone: CloneMount = (path) => cloneMountAt(AT_FDCWD, path),
  ) {}

  /**
   * @param path of something that is there
   * @throws SyscallError where the mount may not be copied or made writable
   */
  wayTo(path: string): string {
    const { mountId } = statx(path);
    let copy = this.#copies.get(mountId);
    if (copy === undefined) {
      const root = mountedAt(path);
      const fd = this.clone(root);
      copy = { fd, root };
      this.#copies.set(mountId, copy);
      // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
      const attributes = BigUint64Array.of(0n, MOUNT_ATTR_RDONLY, 0n, 0n);
      syscallBuffer1(
        "mount_setattr",
        BigInt(fd),
        terminated(""),
        AT_EMPTY_PATH,
        addressOf(new Uint8Array(attributes.buffer)),
        BigInt(MOUNT_ATTR_BYTES),
      );
    }
    const rest = copy.root === "/" ? path : path.slice(copy.root.length);
    return `/proc/self/fd/${copy.fd}${rest}`;
  }

  /** Whether files can be made there, one way or the other. */
  canWrite(path: string): boolean {
    try {
      return !isReadOnly(this.wayTo(path));
    } catch (error) {
      if (error instanceof SyscallError) return false;
      throw error;
    }
  }

  [Symbol.dispose](): void {
    for (const { fd } of this.#copies.values()) close(fd);
    this.#copies.clear();
  }
}

/** How many names are tried where another file has the old one. */
const TRIES = 100;
/** NAME_MAX of linux/limits.h, in bytes. */
const LONGEST_NAME = 255;

/** struct stat of x86-64: what utimensat(2) takes is inside. */
export const STAT_BYTES = 144;
export const TIMES_OF_STAT = 72;

/**
 * The call that makes a file.
 *
 * @param at address of the name it gets
 * @param text puts a text to where the kernel finds it
 */
export type Creation = (at: number, text: (text: string) => number) => {
  readonly call: keyof typeof NR;
  readonly args: readonly CallArgument[];
};

/** What a moment makes, or finds. */
export interface MomentName extends Name {
  /** The call without which it is not there. */
  readonly made: number;
  readonly mountId: bigint;
}

/** What was in the way of earlier tries. */
interface Obstacles {
  /** How many names were taken, by the path that was wanted. */
  readonly taken: Map<string, number>;
  /** Directories that cannot be made. */
  readonly directories: Set<string>;
}

/**
 * Lets files have names for a moment.
 *
 * @param plan says what is to be done; it is asked again when something has a
 * name that was tried. What it returns is called when all is done.
 * @throws SyscallError of the first call that failed; nothing is left then
 */
export function inOneMoment<T>(
  mounts: WritableMounts,
  plan: (moment: Moment) => () => T,
): T {
  const obstacles = {
    taken: new Map<string, number>(),
    directories: new Set<string>(),
  };
  for (let i = 0;; i++) {
    const moment = new Moment(mounts, obstacles);
    const finish = plan(moment);
    const error = moment.pass();
    if (error === undefined) return finish();
    if (error.errno !== EEXIST || i === TRIES) throw error;
  }
}

/** After no other call. */
const ALWAYS = -1;

interface MomentCall {
  readonly call: keyof typeof NR;
  /** A descriptor that stays open. */
  readonly opens: boolean;
  readonly mayFail: boolean;
  /** Notes that something has the name. */
  readonly whenTaken: (() => void) | undefined;
}

/** System calls that are made one after the other, to the end. */
export class Moment {
  readonly #calls = new Calls();
  readonly #list: MomentCall[] = [];
  /** How it ends, last things first. */
  readonly #ends: (() => void)[] = [];
  readonly #directories = new Map<string, MomentName>();
  /** Kept alive for the kernel. */
  readonly #memory: Uint8Array<ArrayBuffer>[] = [];

  constructor(
    readonly mounts: WritableMounts,
    readonly obstacles: Obstacles,
  ) {}

  /**
   * The directory of a path. Those that are gone are there meanwhile; where
   * something else has the name of one, the nearest directory above takes its
   * place.
   *
   * @throws CkptError where no name can be made and removed
   */
  directoryOf(path: string): MomentName {
    const nearest = nearestDirectory(path);
    const missing: string[] = [];
    for (
      let { directory } = splitPath(path);
      directory !== nearest;
      { directory } = splitPath(directory)
    ) missing.unshift(splitPath(directory).name);
    let directory = this.#livingDirectory(takingNames(nearest));
    // On NFS a file in use keeps a name, so its directory could not go again.
    if (
      missing.length > 0 &&
      (directory.path !== nearest ||
        statusAt(below(directory, missing[0]).path) !== undefined ||
        fileSystemType(nearest) === NFS)
    ) return directory;
    for (const name of missing) {
      const next = below(directory, name);
      if (this.obstacles.directories.has(next.path)) return directory;
      directory = this.#directories.get(next.path) ??
        this.#momentaryDirectory(next, directory);
    }
    return directory;
  }

  /** Its times are afterwards as if no name had come and gone. */
  #livingDirectory(path: string): MomentName {
    let directory = this.#directories.get(path);
    if (directory !== undefined) return directory;
    const at = isReadOnly(path) ? this.mounts.wayTo(path) : path;
    const name = this.#text(at);
    const status = this.#room(new Uint8Array(STAT_BYTES));
    const made = this.#add("newfstatat", [AT_FDCWD, name, status, 0]);
    this.#ends.push(() =>
      this.#add(
        "utimensat",
        [AT_FDCWD, name, status + TIMES_OF_STAT, 0],
        { after: made, mayFail: true },
      )
    );
    directory = { path, at, made, mountId: statx(path).mountId };
    this.#directories.set(path, directory);
    return directory;
  }

  #momentaryDirectory(name: Name, inside: MomentName): MomentName {
    const { directories } = this.obstacles;
    const directory = this.#make(
      name,
      inside,
      makeDirectory,
      () => directories.add(name.path),
    );
    this.#directories.set(name.path, directory);
    return directory;
  }

  /** A new file with the last name of a path, or one beside that. */
  create(path: string, inside: MomentName, creation: Creation): MomentName {
    const { taken } = this.obstacles;
    const count = taken.get(path) ?? 0;
    const name = below(inside, nameBeside(splitPath(path).name, count));
    return this.#make(
      name,
      inside,
      creation,
      () => taken.set(path, count + 1),
    );
  }

  #make(
    name: Name,
    { made: after, mountId }: MomentName,
    creation: Creation,
    whenTaken: () => void,
  ): MomentName {
    const at = this.#text(name.at);
    const { call, args } = creation(at, (text) => this.#text(text));
    const made = this.#add(call, args, { after, whenTaken });
    if (call === "openat") this.#add("close", [{ result: made }]);
    const flags = call === "mkdirat" ? Number(AT_REMOVEDIR) : 0;
    this.#ends.push(() =>
      this.#add("unlinkat", [AT_FDCWD, at, flags], { after: made })
    );
    return { ...name, made, mountId };
  }

  /** What has a name, and keeps it. */
  existing(path: string): MomentName {
    const { mountId } = statx(path, false);
    return { path, at: path, made: ALWAYS, mountId };
  }

  /**
   * Opens what is at a path.
   *
   * @param of what has to be there for it
   * @returns what gives the descriptor when all is done
   */
  open(path: string, flags: number, of?: MomentName): () => number {
    const PRIVATE = 0o600;
    const opened = this.#add("openat", [
      AT_FDCWD,
      this.#text(path),
      flags | O.CLOEXEC,
      PRIVATE,
    ], { after: of?.made, opens: true });
    return () => this.#calls.result(0, opened);
  }

  /** Memory for the kernel, as long as the moment lasts. @returns its address */
  #room(bytes: Uint8Array<ArrayBuffer>): number {
    this.#memory.push(bytes);
    return Number(addressOf(bytes));
  }

  #text(text: string): number {
    return this.#room(terminated(encodeText(text)));
  }

  #add(
    call: keyof typeof NR,
    args: readonly CallArgument[],
    { after = ALWAYS, opens = false, mayFail = false, whenTaken }:
      & { after?: number | undefined }
      & Partial<MomentCall> = {},
  ): number {
    this.#list.push({ call, opens, mayFail, whenTaken });
    return this.#calls.add(call, args, after);
  }

  /** Does it. @returns why it failed; nothing is open then */
  pass(): SyscallError | undefined {
    for (const end of this.#ends.toReversed()) end();
    this.#calls.runToTheEnd(1);
    const results = this.#list.map((_, i) => this.#calls.result(0, i));
    const failed = this.#list.findIndex(({ mayFail }, i) =>
      results[i] < 0 && results[i] !== -ECANCELED && !mayFail
    );
    if (failed < 0) return undefined;
    for (const [i, { opens }] of this.#list.entries()) {
      if (opens && results[i] >= 0) close(results[i]);
    }
    const { call, whenTaken } = this.#list[failed];
    const error = new SyscallError(call, -results[failed]);
    if (error.errno === EEXIST) whenTaken?.();
    return error;
  }
}

export const makeDirectory: Creation = (at) => ({
  call: "mkdirat",
  args: [AT_FDCWD, at, 0o700],
});

/** A directory in which names can be made and removed: this or one above. */
function takingNames(directory: string): string {
  let nearest = directory;
  while (statx(nearest).fixed) {
    const { directory: above } = splitPath(nearest);
    if (
      nearest === "/" || statusAt(above)?.dev !== statusAt(nearest)?.dev
    ) throw fixedDirectory(nearest);
    nearest = above;
  }
  return nearest;
}

function fixedDirectory(directory: string): CkptError {
  return new CkptError(EXIT.failed, "making deleted files again", [{
    object: `directory ${directory}`,
    why: "it is immutable or append-only, so that no name can come and go",
    remedy: `take that flag away while ckpt restores: chattr -i -a`,
  }]);
}

/** @param count how many names were taken already */
function nameBeside(name: string, count: number): string {
  if (count === 0) return name;
  const mark = `.ckpt-ghost.${count}`;
  let beginning = name;
  while (encodeText(beginning).length + mark.length > LONGEST_NAME) {
    beginning = beginning.slice(0, -1);
  }
  return beginning + mark;
}

function below({ path, at }: Name, rest: string): Name {
  const join = (directory: string) =>
    directory === "/" ? `/${rest}` : `${directory}/${rest}`;
  return { path: join(path), at: join(at) };
}
