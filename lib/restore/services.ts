/**
 * The descriptors of ckpt's that agents have for their work, and the numbers
 * under which they have them.
 */
import { Program } from "../ffi/program.ts";
import { AT_FDCWD } from "../ffi/syscall.ts";
import { highestWatched, readObjectImages } from "../files/object_images.ts";
import type { MadeFile } from "../ghost/make.ts";
import type { FileRoot, MountServices } from "./mount_services.ts";
import type { TreeImages } from "./task_images.ts";

const F_DUPFD_CLOEXEC = 1030;

/** Descriptors of ckpt's that the agents have for their work. */
export interface Services {
  /** The directory of the images. */
  images: number;
  /** Shared memory, by the id of the object. */
  shared: ReadonlyMap<bigint, number>;
  /** What stands in for files of the outside. */
  given: readonly number[];
  /** ckpt's own /proc/PID/fd: what is to be opened anew is found there. */
  own: number;
  /** What stands for files that no path leads to, by their ids. */
  made: ReadonlyMap<number, MadeFile>;
  /** Directories in which Unix sockets are bound, by the ids of these. */
  places: ReadonlyMap<number, number>;
  /** Where the tree has mount namespaces of its own. */
  mounts?: MountServices;
  /** Roots, as descriptors, of files of other namespaces than their users'. */
  roots?: ReadonlyMap<number, FileRoot>;
  /** Ids of io_urings that a process makes before all others. */
  rings: readonly number[];
}

/** Where the agents have them: above all numbers that any process uses. */
export class ServiceNumbers {
  /** Numbers of ckpt's, each once, in the order of their new numbers. */
  readonly sources: readonly number[];
  readonly #places: ReadonlyMap<number, number>;
  /** The first number that belongs to no process. */
  readonly base: number;
  /** What leads to files of other namespaces, by their ids. */
  readonly rootedPaths: ReadonlyMap<number, string>;
  /** ... and to those that no path leads to. */
  readonly madePaths: ReadonlyMap<number, string>;

  constructor(
    { processes, files, set }: TreeImages,
    readonly services: Services,
  ) {
    const { images, shared, given, own, made, places, mounts, roots } =
      services;
    // There may be as many deleted files as a process can have open: the
    // agents only get those that they cannot open by a path.
    this.sources = [
      ...new Set([
        images,
        own,
        ...shared.values(),
        ...given,
        ...[...made.values()].flatMap(({ fd, reopen }) => reopen ? [] : [fd]),
        ...places.values(),
        ...mounts === undefined ? [] : [
          mounts.proc,
          mounts.outside,
          mounts.own,
          ...[...mounts.namespaces.values()].flatMap((
            { namespace, root },
          ) => [namespace, root]),
          ...[...roots?.values() ?? []].map(({ fd }) => fd),
        ],
      ]),
    ];
    this.#places = new Map(this.sources.map((source, i) => [source, i]));
    this.base = 1 + processes.reduce(
      (most, { descriptors }) =>
        descriptors.reduce((most, { fd }) => Math.max(most, fd), most),
      highestWatched(
        files,
        readObjectImages(set),
        Math.max(2, ...this.sources),
      ),
    );
    this.rootedPaths = new Map(
      [...roots ?? []].map(([id, { fd, rest }]) => [
        id,
        `/proc/self/fd/${this.of(fd)}${rest}`,
      ]),
    );
    this.madePaths = new Map([
      ...this.rootedPaths,
      ...[...made].map(([id, { fd, reopen }]) =>
        [
          id,
          reopen
            ? `/proc/self/fd/${this.of(own)}/${fd}`
            : `/proc/self/fd/${this.of(fd)}`,
        ] as const
      ),
    ]);
  }

  /** Where an agent finds /proc: a descriptor, or AT_FDCWD. */
  get proc(): number {
    const { mounts } = this.services;
    return mounts === undefined ? AT_FDCWD : this.of(mounts.proc);
  }

  /** The number in an agent of a descriptor of ckpt's. */
  of(source: number): number {
    return this.base + this.#places.get(source)!;
  }

  /** For the page image of the process itself. */
  get pages(): number {
    return this.base + this.sources.length;
  }

  /** For an io_uring, in the process that makes it. */
  ring(id: number): number {
    return this.pages + 1 + this.services.rings.indexOf(id);
  }

  /** From here on numbers are free. */
  get free(): number {
    return this.pages + 1 + this.services.rings.length;
  }
}

/**
 * Moves what the first agent got from ckpt; everything below is closed.
 *
 * @param from the pid of ckpt, for an agent that was not started by it and has
 * to take them from there
 */
export function moveServices(
  program: Program,
  numbers: ServiceNumbers,
  from?: number,
): void {
  const pidfd = from === undefined
    ? undefined
    : program.call("pidfd_open", [from, 0], "finding ckpt");
  for (const source of numbers.sources) {
    const purpose = "moving the agent's descriptors";
    const here = pidfd === undefined
      ? source
      : program.call("pidfd_getfd", [pidfd, source, 0], purpose);
    program.call("fcntl", [here, F_DUPFD_CLOEXEC, numbers.base], purpose);
    if (typeof here === "object") program.call("close", [here], purpose);
  }
  program.call(
    "close_range",
    [0, numbers.base - 1, 0],
    "closing inherited files",
  );
}
