/**
 * Directories in which Unix sockets are bound whose names lead to other files
 * or nowhere, while their files have other names: each is beside these, so that
 * the file can go there, and is the root directory of the process that binds.
 * They go when that is done; a guard removes them when ckpt is killed.
 */
import { CkptError, EXIT } from "../error.ts";
import { Guard } from "../ffi/guard.ts";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isElsewhere, wayThrough } from "../files/make_unix_sockets.ts";
import type { UnixSocketImage } from "../files/socket_images.ts";
import { pathOf } from "../files/unix_socket.ts";
import { rmdir, splitPath, unlinkIfThere } from "../ghost/calls.ts";
import { isOneOf } from "../ghost/attributes.ts";
import { ENOENT } from "../ffi/errno.ts";
import { makeDirectory, openAt } from "../mnt/calls.ts";
import { readRandomUuid } from "../proc/read.ts";
import type { NamedFile } from "./mount_services.ts";
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
   * @param wayTo how ckpt gets at a file
   * @throws CkptError naming the socket; nothing is left then
   */
  static make(
    { sockets }: Pick<TreeImages, "sockets">,
    wayTo: (file: NamedFile) => string,
  ): SocketPlaces {
    const made = new SocketPlaces();
    try {
      for (const image of sockets.unix.values()) {
        if (!isElsewhere(image)) continue;
        const { entry: { id, mnt_id }, extension } = image;
        const { directory } = splitPath(extension.other_names[0]);
        try {
          made.#make(image, wayTo({ id, name: directory, mnt_id }));
        } catch (error) {
          if (!(error instanceof SyscallError)) throw error;
          throw new CkptError(EXIT.failed, "binding Unix sockets", [{
            object: extension.other_names[0],
            why: error.message,
          }], { cause: error });
        }
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  #make({ entry: { id, name } }: UnixSocketImage, directory: string): void {
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
    const beside = open(encodeText(directory), DIRECTORY);
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
