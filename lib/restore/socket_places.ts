/**
 * Directories in which Unix sockets are bound that cannot be bound at their
 * names ({@link isElsewhere}): each is beside the names of the file, so that it
 * can go there, and is the root directory of the process that binds.
 * They go when that is done; a guard removes them when ckpt is killed.
 */
import { CkptError, EXIT } from "../error.ts";
import { Guard } from "../ffi/guard.ts";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isElsewhere, namesOf, wayThrough } from "../files/unix_paths.ts";
import type { UnixSocketImage } from "../files/socket_images.ts";
import type { SocketRoot } from "../files/taken_addresses.ts";
import { pathOf } from "../files/unix_socket.ts";
import { UnixTopology } from "../files/unix_topology.ts";
import { openInRoot, rmdir, splitPath, unlinkIfThere } from "../ghost/calls.ts";
import { isOneOf } from "../ghost/attributes.ts";
import { ENOENT } from "../ffi/errno.ts";
import { makeDirectory, openAt } from "../mnt/calls.ts";
import { readRandomUuid } from "../proc/read.ts";
import type { TreeImages } from "./task_images.ts";

/** A directory, and what may be in it. */
interface Place {
  /** That it is in. */
  readonly beside: number;
  /** All names below that, in the order of their removal. */
  readonly names: readonly { name: string; isDirectory: boolean }[];
  readonly guard: Guard;
}

const DIRECTORY = O.PATH | O.DIRECTORY | O.CLOEXEC;

export class SocketPlaces implements Disposable {
  /** Descriptors, by the ids of the sockets. */
  readonly byFile = new Map<number, number>();
  readonly #places: Place[] = [];

  private constructor() {}

  /**
   * @param isSplit whether processes are in different mount namespaces
   * @param rootOf see taken_addresses.ts
   * @throws CkptError naming the socket; nothing is left then
   */
  static make(
    { sockets }: Pick<TreeImages, "sockets">,
    isSplit: boolean,
    rootOf: (mount: number | undefined) => SocketRoot,
  ): SocketPlaces {
    const made = new SocketPlaces();
    const all = [...sockets.unix.values()];
    const topology = new UnixTopology(all);
    try {
      for (const image of all) {
        if (!isElsewhere(image, isSplit) || topology.isAccepted(image)) {
          continue;
        }
        const names = namesOf(image);
        const fail = (why: string, cause?: Error) => {
          const reason = { object: names[0], why };
          throw new CkptError(EXIT.failed, "binding Unix sockets", [reason], {
            cause,
          });
        };
        const [directory, ...others] = new Set(
          names.map((name) => splitPath(name).directory),
        );
        if (others.length > 0) fail(`it is in ${others[0]}, too`);
        try {
          made.#make(image, openFrom(rootOf(image.entry.mnt_id), directory));
        } catch (error) {
          if (error instanceof SyscallError) fail(error.message, error);
          throw error;
        }
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** @param beside a descriptor of the directory that its file is to be in */
  #make({ entry: { id, name } }: UnixSocketImage, beside: number): void {
    const { directories, file } = wayThrough(pathOf(name));
    const root = `.ckpt-socket-${readRandomUuid().slice(0, 8)}`;
    const below = directories.map((directory) => `${root}/${directory}`);
    const names = [
      { name: `${root}/${file}`, isDirectory: false },
      ...[root, ...below].toReversed().map((name) => ({
        name,
        isDirectory: true,
      })),
    ];
    try {
      const guard = Guard.start(
        names.map(({ name, isDirectory }) => ({
          path: `/proc/self/fd/${beside}/.`,
          remove: name,
          isDirectory,
        })),
      );
      this.#places.push({ beside, names, guard });
    } catch (error) {
      close(beside);
      throw error;
    }
    for (const name of [root, ...below]) makeDirectory(beside, name);
    this.byFile.set(id, openAt(beside, root, DIRECTORY));
  }

  /** When all sockets are bound. */
  remove(): void {
    for (const fd of this.byFile.values()) close(fd);
    this.byFile.clear();
    for (const { beside, names, guard } of this.#places.splice(0)) {
      try {
        for (const { name, isDirectory } of names) {
          removeIfThere(`/proc/self/fd/${beside}/${name}`, isDirectory);
        }
      } finally {
        close(beside);
        guard.end();
      }
    }
  }

  [Symbol.dispose](): void {
    this.remove();
  }
}

function openFrom(root: SocketRoot, directory: string): number {
  return typeof root === "number"
    ? openInRoot(root, directory)
    : open(encodeText(directory), DIRECTORY);
}

function removeIfThere(path: string, isDirectory: boolean): void {
  if (!isDirectory) {
    unlinkIfThere(path);
    return;
  }
  try {
    rmdir(path);
  } catch (error) {
    if (!isOneOf(error, ENOENT)) throw error;
  }
}
