/**
 * Makes small regular files without a name, thousands of them at once. What is
 * not plain about one is left to those that make them one by one.
 */
import { Calls, Slots, Texts } from "../ffi/calls.ts";
import { ECANCELED, EEXIST, EROFS } from "../ffi/errno.ts";
import { CkptError, EXIT } from "../error.ts";
import {
  AT_FDCWD,
  close,
  O,
  open,
  S_IF,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeWholeGhost } from "../image/ghost.ts";
import type { ImageSet } from "../image/image_set.ts";
import { imageName } from "../image/kinds.ts";
import { handsDown, putTimes, TIMES_BYTES } from "./attributes.ts";
import {
  nearestDirectory,
  remedyForDenied,
  splitPath,
  statx,
} from "./calls.ts";
import { SMALLEST_WITH_CHUNKS } from "./ghost_entry.ts";
import { STAT_BYTES, TIMES_OF_STAT } from "./names.ts";
import type { Ghost, Ghosts } from "./remaps.ts";

/** A ghost, and the path of all files that stand for it. */
export interface PlainWanted {
  readonly id: number;
  readonly path: string;
}

/** Made at once; their images are in memory for the moment. */
const AT_ONCE = 512;
/** The head and content of a small one. */
const IMAGE_BYTES = 4096 + SMALLEST_WITH_CHUNKS;

/**
 * @param keep is called with each that was made and an O_PATH descriptor of it,
 * also before an error
 * @throws CkptError naming the file that cannot be made
 */
export function makeSmallGhosts<T extends PlainWanted>(
  ghosts: Ghosts,
  all: readonly T[],
  keep: (made: T, fd: number) => void,
): void {
  if (all.length === 0) return;
  const images = open(ghosts.set.directory, O.PATH | O.DIRECTORY);
  try {
    const directories = new Directories();
    const there = all.filter(({ path }) => directories.isThere(path));
    for (let first = 0; first < there.length; first += AT_ONCE) {
      const some = there.slice(first, first + AT_ONCE);
      const read = new ReadImages(ghosts.set, images, some);
      makeSome(read, plainOnes(ghosts, read, some), keep);
    }
  } finally {
    close(images);
  }
}

/** Paths are in few directories. */
class Directories {
  readonly #known = new Map<string, boolean>();

  isThere(path: string): boolean {
    const { directory } = splitPath(path);
    let known = this.#known.get(directory);
    if (known === undefined) {
      known = nearestDirectory(path) === directory &&
        !statx(directory).fixed && !handsDown(directory);
      this.#known.set(directory, known);
    }
    return known;
  }
}

class ReadImages {
  readonly #slots: Slots;
  readonly #calls = new Calls();
  readonly #read: number;

  constructor(
    readonly set: ImageSet,
    images: number,
    wanted: readonly PlainWanted[],
  ) {
    const names = new Texts(
      wanted.map(({ id }) => imageName("ghost-file", id)),
    );
    this.#slots = new Slots(IMAGE_BYTES, wanted.length);
    const calls = this.#calls;
    const opened = calls.add("openat", [
      images,
      { loaded: names.pointers },
      O.RDONLY | O.CLOEXEC,
      0,
    ]);
    this.#read = calls.add("pread64", [
      { result: opened },
      { slots: this.#slots },
      IMAGE_BYTES,
      0,
    ]);
    calls.add("close", [{ result: opened }]);
    calls.run(wanted.length);
  }

  /** All of it; undefined when it cannot be read or is no small one. */
  bytes(i: number): Uint8Array | undefined {
    const length = this.#calls.result(i, this.#read);
    return length <= 0 || length === IMAGE_BYTES
      ? undefined
      : this.#slots.slot(i, length);
  }

  /** Where a byte of it is in memory. */
  address(i: number, position: number): number {
    return this.#slots.address + i * IMAGE_BYTES + position;
  }
}

interface Plain<T> {
  readonly wanted: T;
  readonly ghost: Ghost;
  /** Its place among those that were read. */
  readonly at: number;
}

function plainOnes<T extends PlainWanted>(
  ghosts: Ghosts,
  read: ReadImages,
  some: readonly T[],
): Plain<T>[] {
  return some.flatMap((wanted, at) => {
    const bytes = read.bytes(at);
    const image = bytes && decodeWholeGhost(ghosts.set, wanted.id, bytes);
    if (image === undefined || (image.entry.mode & S_IF.MT) !== S_IF.REG) {
      return [];
    }
    const ghost = ghosts.describe(wanted.id, image);
    const { xattrs, allocated, inode_flags, project } = ghost.extension;
    const isPlain = xattrs.length === 0 && allocated.length === 0 &&
      inode_flags === undefined && project === undefined;
    return isPlain ? [{ wanted, ghost, at }] : [];
  });
}

/** What each call needs of a file, as words. */
const WORD = { address: 0, length: 8, owner: 16, group: 24, mode: 32 };
const WORDS_BYTES = 40;
const PERMISSIONS = 0o7777;

function makeSome<T extends PlainWanted>(
  read: ReadImages,
  all: readonly Plain<T>[],
  keep: (made: T, fd: number) => void,
): void {
  const names = new Texts(all.map(({ wanted: { path } }) => path));
  const directories = new Texts(
    all.map(({ wanted: { path } }) => splitPath(path).directory),
  );
  const before = new Slots(STAT_BYTES, all.length);
  const words = new Slots(WORDS_BYTES, all.length);
  const times = new Slots(TIMES_BYTES, all.length);
  for (const [i, { ghost, at }] of all.entries()) {
    const { image: { chunks: [content] }, attributes } = ghost;
    const set = (word: number, value: number) =>
      words.view.setBigUint64(i * WORDS_BYTES + word, BigInt(value), true);
    set(WORD.address, read.address(at, content?.position ?? 0));
    set(WORD.length, content?.length ?? 0);
    set(WORD.owner, attributes.uid);
    set(WORD.group, attributes.gid);
    set(WORD.mode, attributes.mode & PERMISSIONS);
    putTimes(times.view, i * TIMES_BYTES, attributes);
  }
  const word = (offset: number) => ({ loaded: words, offset });
  const name = { loaded: names.pointers };
  const calls = new Calls();
  const directory = [AT_FDCWD, { loaded: directories.pointers }] as const;
  const seen = calls.add("newfstatat", [...directory, { slots: before }, 0]);
  const made = calls.add("openat", [
    AT_FDCWD,
    name,
    O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC,
    0o600,
  ], seen);
  const opened = calls.add("openat", [
    AT_FDCWD,
    name,
    O.PATH | O.NOFOLLOW | O.CLOEXEC,
    0,
  ], made);
  const steps: [what: string, call: number][] = [
    ["making it", made],
    ["opening it", opened],
    ["taking its name away", calls.add("unlinkat", [AT_FDCWD, name, 0], made)],
  ];
  // As if no name had come and gone.
  calls.add("utimensat", [
    ...directory,
    { slots: before, offset: TIMES_OF_STAT },
    0,
  ], made);
  const fd = { result: made };
  const written = calls.add("pwrite64", [
    fd,
    word(WORD.address),
    word(WORD.length),
    0,
  ]);
  // Each after what would change it again, as in attributes.ts.
  steps.push(
    ["its content", written],
    [
      "its owner",
      calls.add("fchown", [fd, word(WORD.owner), word(WORD.group)]),
    ],
    ["its mode", calls.add("fchmod", [fd, word(WORD.mode)])],
    ["its times", calls.add("utimensat", [fd, 0, { slots: times }, 0])],
  );
  calls.add("close", [fd]);
  calls.runToTheEnd(all.length);
  let failure: CkptError | undefined;
  for (const [i, { wanted, ghost }] of all.entries()) {
    const result = calls.result(i, opened);
    if (result >= 0) keep(wanted, result);
    // Another file has the name, or it takes another way to write there.
    if ([-EEXIST, -EROFS, -ECANCELED].includes(calls.result(i, made))) continue;
    const failed = steps.find(([, call]) => calls.result(i, call) < 0);
    const short = calls.result(i, written) !==
      (ghost.image.chunks[0]?.length ?? 0);
    if (failed === undefined && !short) continue;
    const error = failed &&
      new SyscallError(failed[0], -calls.result(i, failed[1]));
    failure ??= new CkptError(EXIT.failed, "making deleted files again", [{
      object: `file ${wanted.path}`,
      why: error?.message ?? "its file system took only a part of its content",
      remedy: error && remedyForDenied(error),
    }], { cause: error });
  }
  if (failure !== undefined) throw failure;
}
