/**
 * Saves small regular files without a name, thousands of them at once: most are
 * plain, and an image of their own for each costs more than their content.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { describeErrno, EOPNOTSUPP } from "../ffi/errno.ts";
import { AT_FDCWD, close, O, open, S_IF } from "../ffi/syscall.ts";
import { CkptError, EXIT } from "../error.ts";
import { encodeImage } from "../image/framing.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type { ckpt_ghost_entry } from "../image/schema.gen.ts";
import { FS_IOC_GETFLAGS, savedInodeFlags } from "./attributes.ts";
import {
  decodeStatx,
  type ExtendedStatus,
  STATX_BASIC_STATS,
  STATX_BYTES,
} from "./calls.ts";
import { mayHaveUnwritten, SEEK_DATA, SEEK_HOLE } from "./content.ts";
import type { LostFileInUse } from "./files_in_use.ts";
import {
  addExtension,
  belowMicroseconds,
  ghostEntry,
  SMALLEST_WITH_CHUNKS,
} from "./ghost_entry.ts";

/** A file and the number of its image. */
export interface NumberedFile {
  readonly id: number;
  readonly file: LostFileInUse;
}

/** Saved at once; their contents are in memory for the moment. */
const AT_ONCE = 512;
/** Before the content: the head of the image. */
const HEAD_ROOM = 256;

/**
 * @param extensions gets what CRIU's images have no field for
 * @returns the others, not saved: larger ones, those with holes, attributes, ...
 * @throws CkptError naming the image that cannot be written
 */
export function saveSmallGhosts(
  all: readonly NumberedFile[],
  writer: ImageWriter,
  extensions: ckpt_ghost_entry[],
): NumberedFile[] {
  const small: NumberedFile[] = [];
  const others: NumberedFile[] = [];
  for (const one of all) {
    const { size, mode } = one.file.status;
    const isSmall = (mode & S_IF.MT) === S_IF.REG &&
      size < SMALLEST_WITH_CHUNKS;
    (isSmall ? small : others).push(one);
  }
  if (small.length === 0) return others;
  const images = open(writer.unfinished, O.PATH | O.DIRECTORY);
  try {
    const room = Math.min(small.length, AT_ONCE);
    const looked = new LookedAt(room);
    const written = new WrittenImages(room, images);
    for (let first = 0; first < small.length; first += AT_ONCE) {
      const some = small.slice(first, first + AT_ONCE);
      others.push(...saveSome(some, looked, written, writer, extensions));
    }
  } finally {
    close(images);
  }
  return others;
}

function saveSome(
  some: readonly NumberedFile[],
  looked: LookedAt,
  written: WrittenImages,
  writer: ImageWriter,
  extensions: ckpt_ghost_entry[],
): NumberedFile[] {
  looked.look(some);
  const others: NumberedFile[] = [];
  const names: string[] = [];
  for (const [i, one] of some.entries()) {
    const { id, file: { status } } = one;
    const size = Number(status.size);
    if (!looked.isPlain(i, size)) {
      others.push(one);
      continue;
    }
    const times = looked.status(i);
    const head = encodeImage("ghost-file", ghostEntry(status, times));
    const { address, length } = looked.putBefore(i, head, size);
    const name = imageName("ghost-file", id);
    written.put(names.length, name, address, length);
    names.push(name);
    writer.adoptRaw(name, length);
    addExtension(extensions, {
      ghost_id: id,
      xattrs: [],
      allocated: [],
      inode_flags: looked.inodeFlags(i) || undefined,
      ...belowMicroseconds(times),
    });
  }
  written.write(names);
  return others;
}

/** A number of the tree's links in /proc is never longer. */
const PATH_BYTES = 64;
const AT_EMPTY_PATH = 0x1000;

/** What there is to know of some small files, and their contents. */
class LookedAt {
  readonly #paths: Slots;
  readonly #contents: Slots;
  readonly #flags: Slots;
  readonly #statuses: Slots;
  readonly #noPath = new Slots(8, 1);
  readonly #calls = new Calls();
  readonly #statx: number;
  readonly #read: number;
  readonly #data: number;
  readonly #hole: number;
  readonly #attributes: number;
  readonly #getFlags: number;

  /** @param count of the files that are looked at at once, at most */
  constructor(count: number) {
    this.#paths = new Slots(PATH_BYTES, count);
    this.#contents = new Slots(HEAD_ROOM + SMALLEST_WITH_CHUNKS, count);
    this.#flags = new Slots(8, count);
    this.#statuses = new Slots(STATX_BYTES, count);
    const calls = this.#calls;
    const opened = calls.add("openat", [
      AT_FDCWD,
      { slots: this.#paths },
      O.RDONLY | O.NOATIME | O.NONBLOCK | O.CLOEXEC,
      0,
    ]);
    const fd = { result: opened };
    // Of the file that is open: by its path it would take twice as long.
    this.#statx = calls.add("statx", [
      fd,
      this.#noPath.address,
      AT_EMPTY_PATH,
      STATX_BASIC_STATS,
      { slots: this.#statuses },
    ]);
    this.#read = calls.add("pread64", [
      fd,
      { slots: this.#contents, offset: HEAD_ROOM },
      SMALLEST_WITH_CHUNKS,
      0,
    ]);
    this.#data = calls.add("lseek", [fd, 0, SEEK_DATA]);
    this.#hole = calls.add("lseek", [fd, 0, SEEK_HOLE]);
    this.#attributes = calls.add("flistxattr", [fd, 0, 0]);
    this.#getFlags = calls.add("ioctl", [
      fd,
      FS_IOC_GETFLAGS,
      { slots: this.#flags },
    ]);
    calls.add("close", [fd]);
  }

  look(some: readonly NumberedFile[]): void {
    for (const [i, { file: { at } }] of some.entries()) {
      this.#paths.setText(i, at);
    }
    this.#calls.run(some.length);
  }

  /** Whether its content in one piece and what `status` and so on say is all. */
  isPlain(i: number, size: number): boolean {
    const result = (call: number) => this.#calls.result(i, call);
    const attributes = result(this.#attributes);
    const data = [{ offset: 0, length: size }];
    return result(this.#statx) === 0 && result(this.#read) === size &&
      (size === 0 ||
        result(this.#data) === 0 && result(this.#hole) === size) &&
      (attributes === 0 || attributes === -EOPNOTSUPP) &&
      !mayHaveUnwritten(data, this.status(i).allocated);
  }

  status(i: number): ExtendedStatus {
    return decodeStatx(this.#statuses.view, i * STATX_BYTES);
  }

  inodeFlags(i: number): number {
    return this.#calls.result(i, this.#getFlags) < 0
      ? 0
      : savedInodeFlags(this.#flags.view.getUint32(8 * i, true));
  }

  /** Where the image is, with this head before the content. */
  putBefore(
    i: number,
    head: Uint8Array,
    size: number,
  ): { address: number; length: number } {
    const start = HEAD_ROOM - head.length;
    this.#contents.slot(i).set(head, start);
    const { address, size: step } = this.#contents;
    return {
      address: address + i * step + start,
      length: head.length + size,
    };
  }
}

const NAME_BYTES = 64;

/** Makes some images at once. */
class WrittenImages {
  readonly #names: Slots;
  /** Address and length of each. */
  readonly #pieces: Slots;
  readonly #calls = new Calls();
  readonly #made: number;
  readonly #written: number;

  /** @param directory a descriptor of it */
  constructor(count: number, directory: number) {
    this.#names = new Slots(NAME_BYTES, count);
    this.#pieces = new Slots(16, count);
    const calls = this.#calls;
    this.#made = calls.add("openat", [
      directory,
      { slots: this.#names },
      O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC,
      0o600,
    ]);
    const fd = { result: this.#made };
    this.#written = calls.add("pwrite64", [
      fd,
      { loaded: this.#pieces },
      { loaded: this.#pieces, offset: 8 },
      0,
    ]);
    calls.add("close", [fd]);
  }

  put(i: number, name: string, address: number, length: number): void {
    this.#names.setText(i, name);
    this.#pieces.view.setBigUint64(16 * i, BigInt(address), true);
    this.#pieces.view.setBigUint64(16 * i + 8, BigInt(length), true);
  }

  /** @throws CkptError naming the image that cannot be written */
  write(names: readonly string[]): void {
    this.#calls.run(names.length);
    for (const [i, name] of names.entries()) {
      const length = Number(this.#pieces.view.getBigUint64(16 * i + 8, true));
      const results = [this.#made, this.#written]
        .map((call) => this.#calls.result(i, call));
      if (results[1] === length) continue;
      const failed = results.find((result) => result < 0);
      throw new CkptError(EXIT.failed, "saving deleted files", [{
        object: name,
        why: failed === undefined
          ? "the file system took only a part of it"
          : describeErrno(failed),
        remedy: "make room, or name a directory on another file system",
      }]);
    }
  }
}
