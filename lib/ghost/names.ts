/**
 * Names that files have for the moment in which they are opened: their old
 * ones, or ones beside these. Nothing of others is changed, and nothing stays.
 */
import { EEXIST, EROFS } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isOneOf } from "./attributes.ts";
import {
  fileSystemType,
  isReadOnly,
  mountedAt,
  nearestDirectory,
  rmdir,
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

/**
 * Mounts that are read-only where the file system is not, each copied to
 * nowhere and made writable (open_tree(2), mount_setattr(2)). Nobody sees the
 * copies; they end with this object or with ckpt.
 */
export class WritableMounts implements Disposable {
  readonly #copies = new Map<bigint, { fd: number; root: string }>();

  /**
   * @param path of something that is there
   * @throws SyscallError where the mount may not be copied or made writable
   */
  wayTo(path: string): string {
    const { mountId } = statx(path);
    let copy = this.#copies.get(mountId);
    if (copy === undefined) {
      const root = mountedAt(path);
      const fd = Number(
        syscallBuffer1(
          "open_tree",
          BigInt(AT_FDCWD),
          terminated(encodeText(root)),
          OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC,
        ),
      );
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

/**
 * Lets `use` see a new file under its old name, or one beside that where it is
 * taken.
 *
 * @param create gets a name by which the file can be made
 */
export function withName<T>(
  path: string,
  mounts: WritableMounts,
  create: (at: string) => void,
  remove: (at: string) => void,
  use: (name: Name) => T,
): T {
  return inDirectory(
    path,
    mounts,
    (directory) => withNameIn(directory, path, create, remove, use),
  );
}

/** The same, in a directory that is there. */
export function withNameIn<T>(
  directory: Name,
  path: string,
  create: (at: string) => void,
  remove: (at: string) => void,
  use: (name: Name) => T,
): T {
  const old = splitPath(path).name;
  let name = below(directory, old);
  for (let i = 1;; i++) {
    try {
      create(name.at);
      break;
    } catch (error) {
      if (!isOneOf(error, EEXIST) || i > TRIES) throw error;
      name = below(directory, `${old}.ckpt-ghost.${i}`);
    }
  }
  try {
    return use(name);
  } finally {
    remove(name.at);
  }
}

function below({ path, at }: Name, rest: string): Name {
  const join = (directory: string) =>
    directory === "/" ? `/${rest}` : `${directory}/${rest}`;
  return { path: join(path), at: join(at) };
}

/**
 * Lets `use` see the directory of a path. Those that are gone are there
 * meanwhile; where something else has the name of one, the nearest directory
 * above takes its place.
 */
export function inDirectory<T>(
  path: string,
  mounts: WritableMounts,
  use: (directory: Name) => T,
): T {
  const nearest = nearestDirectory(path);
  const { directory } = splitPath(path);
  const missing: string[] = [];
  for (let at = directory; at !== nearest; at = splitPath(at).directory) {
    missing.unshift(splitPath(at).name);
  }
  const [first] = missing;
  const top = { path: nearest, at: nearest };
  // On NFS a file in use keeps a name, so its directory could not go again.
  if (
    first !== undefined &&
    (statusAt(below(top, first).path) !== undefined ||
      fileSystemType(nearest) === NFS)
  ) missing.length = 0;
  try {
    return withDirectories(top, missing, use);
  } catch (error) {
    if (!isOneOf(error, EROFS)) throw error;
  }
  return withDirectories(
    { path: nearest, at: mounts.wayTo(nearest) },
    missing,
    use,
  );
}

function withDirectories<T>(
  top: Name,
  missing: readonly string[],
  use: (directory: Name) => T,
): T {
  const made: Name[] = [];
  try {
    for (const name of missing) {
      const directory = below(made.at(-1) ?? top, name);
      syscallBuffer1(
        "mkdirat",
        BigInt(AT_FDCWD),
        terminated(encodeText(directory.at)),
        0o700n,
      );
      made.push(directory);
    }
    return use(made.at(-1) ?? top);
  } finally {
    for (const { at } of made.reverse()) rmdir(at);
  }
}
