/**
 * Freezes file systems (ioctl_fsfreeze in fs/ioctl.c: FIFREEZE) while the tree
 * stands still. Only then, for a task that waits for a frozen file system
 * cannot be stopped; and thawed before it goes on or ends. A guard thaws them
 * when ckpt is killed, or takes too long.
 */
import { CkptError, EXIT } from "../error.ts";
import { EBUSY, EINVAL } from "../ffi/errno.ts";
import { Guard } from "../ffi/guard.ts";
import {
  close,
  O,
  open,
  syscall,
  syscallBeside,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { Reason } from "../error.ts";
import {
  deviceOf,
  type FileSystem,
  fileSystemsOf,
  freezeReasons,
  Mounts,
} from "./file_systems.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import type { DependedFile } from "./depended_files.ts";

const FIFREEZE = 0xc0045877;
const FITHAW = 0xc0045878;

interface Frozen {
  readonly fileSystem: FileSystem;
  readonly fd: number;
  readonly guard: Guard;
}

/** Where ckpt writes during a dump. */
export interface OwnPlaces {
  readonly imagesDirectory: string;
  readonly workDirectory: string;
}

/** Why the file systems of a tree cannot be frozen, before it is stopped. */
export function freezeProblems(
  files: readonly DependedFile[],
  { imagesDirectory, workDirectory }: OwnPlaces,
  namespaces: SeenNamespaces | undefined,
): Reason[] {
  const mounts = new Mounts(namespaces);
  const deviceAt = (path: string) => {
    const mount = mounts.at(path);
    return mount === undefined ? undefined : deviceOf(mount);
  };
  const parent = imagesDirectory.slice(0, imagesDirectory.lastIndexOf("/")) ||
    "/";
  const own: [what: string, path: string, at: string][] = [
    ["the images directory", imagesDirectory, imagesDirectory],
    ["the images directory", imagesDirectory, parent],
    ["the work directory", workDirectory, workDirectory],
    ...listOwnOutputs(),
  ];
  const places = own.map(([what, path, at]) => ({
    what,
    path,
    device: deviceAt(at),
  }));
  return freezeReasons(
    fileSystemsOf(files, mounts),
    deviceAt("/"),
    // The parent only counts where the directory is still to be made.
    places[0].device === undefined ? places : places.filter((_, i) => i !== 1),
  );
}

/** Regular files that ckpt has open for writing: output, and its log. */
function listOwnOutputs(): [what: string, path: string, at: string][] {
  return [...Deno.readDirSync("/proc/self/fd")].flatMap(({ name }) => {
    const at = `/proc/self/fd/${name}`;
    try {
      const path = Deno.readLinkSync(at);
      const writes = /^flags:\s*[0-7]*[12]$/m.test(
        Deno.readTextFileSync(`/proc/self/fdinfo/${name}`),
      );
      return writes && path.startsWith("/") && Deno.statSync(at).isFile
        ? [["a file that ckpt writes to", path, at]]
        : [];
    } catch (error) {
      // That of the directory itself; or what is no file.
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
  });
}

/** Brings to disk what would have to be written when they are frozen. */
export async function syncBefore(
  files: readonly DependedFile[],
  namespaces: SeenNamespaces | undefined,
): Promise<void> {
  const mounts = new Mounts(namespaces);
  for (const { files: [{ at }] } of fileSystemsOf(files, mounts)) {
    const fd = open(encodeText(at), O.RDONLY | O.NONBLOCK);
    try {
      await syscallBeside("syncfs", BigInt(fd));
    } finally {
      close(fd);
    }
  }
}

export class FrozenFileSystems implements Disposable {
  readonly #frozen: Frozen[] = [];

  private constructor(readonly seconds: number) {}

  /**
   * @param files of a tree that stands still
   * @param seconds after which they are thawed whatever ckpt does
   * @throws CkptError naming the one that cannot be frozen; none is then
   */
  static freeze(
    files: readonly DependedFile[],
    places: OwnPlaces,
    seconds: number,
    namespaces: SeenNamespaces | undefined,
  ): FrozenFileSystems {
    // The tree may have opened others since it was looked at.
    const reasons = freezeProblems(files, places, namespaces);
    if (reasons.length > 0) throw new CkptError(EXIT.refused, ACTION, reasons);
    const frozen = new FrozenFileSystems(seconds);
    try {
      const mounts = new Mounts(namespaces);
      for (const fileSystem of fileSystemsOf(files, mounts)) {
        frozen.#freeze(fileSystem);
      }
      return frozen;
    } catch (error) {
      frozen[Symbol.dispose]();
      throw error;
    }
  }

  get fileSystems(): readonly FileSystem[] {
    return this.#frozen.map(({ fileSystem }) => fileSystem);
  }

  #freeze(fileSystem: FileSystem): void {
    const { files: [{ at: path }], mountPoint } = fileSystem;
    try {
      // The guard comes first: there is no moment without one.
      const guard = Guard.start([{ path, request: FITHAW }], this.seconds);
      let fd: number | undefined;
      try {
        fd = open(encodeText(path), O.RDONLY | O.NONBLOCK);
        syscall("ioctl", BigInt(fd), BigInt(FIFREEZE), 0n);
        this.#frozen.push({ fileSystem, fd, guard });
      } catch (error) {
        guard.end();
        if (fd !== undefined) close(fd);
        throw error;
      }
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(EXIT.failed, ACTION, [{
        object: mountPoint,
        why: error.errno === EBUSY
          ? "somebody else has frozen it"
          : error.message,
        remedy: error.errno === EBUSY
          ? `let it go first: fsfreeze --unfreeze ${fileSystem.at}`
          : "leave --freeze-fs out",
      }], { cause: error });
    }
  }

  /**
   * Thaws all of them.
   *
   * @throws CkptError when they were not frozen any more
   */
  thaw(): void {
    const early = this.#thaw();
    if (early.length === 0) return;
    throw new CkptError(
      EXIT.failed,
      ACTION,
      early.map(({ fileSystem: { mountPoint } }) => ({
        object: mountPoint,
        why:
          `it was thawed before the dump was complete, which took more than ` +
          `${this.seconds} seconds`,
        remedy: "give --freeze-fs=SECONDS more time, or --leave-running, " +
          "which copies the memory afterwards",
      })),
    );
  }

  /** @returns those that were not frozen any more */
  #thaw(): Frozen[] {
    return this.#frozen.splice(0).reverse().filter(({ fd, guard }) => {
      try {
        syscall("ioctl", BigInt(fd), BigInt(FITHAW), 0n);
        return false;
      } catch (error) {
        if (error instanceof SyscallError && error.errno === EINVAL) {
          return true;
        }
        throw error;
      } finally {
        guard.end();
        close(fd);
      }
    });
  }

  [Symbol.dispose](): void {
    this.#thaw();
  }
}

const ACTION = "freezing file systems";
