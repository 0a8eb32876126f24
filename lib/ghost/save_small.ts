/**
 * Saves small regular files without a name, thousands of them at once: most are
 * plain, and an image of their own for each costs more than their content.
 */
import { Calls, Slots, Texts } from "../ffi/calls.ts";
import { describeErrno, EOPNOTSUPP } from "../ffi/errno.ts";
import { close, O, open, S_IF } from "../ffi/syscall.ts";
import { CkptError, EXIT } from "../error.ts";
import { encodeImage } from "../image/framing.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type { ckpt_ghost_entry } from "../image/schema.gen.ts";
import { FS_IOC_GETFLAGS, savedInodeFlags } from "./attributes.ts";
import { AskedFiles } from "./calls.ts";
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
    for (let first = 0; first < small.length; first += AT_ONCE) {
      const some = small.slice(first, first + AT_ONCE);
      others.push(...saveSome(some, images, writer, extensions));
    }
  } finally {
    close(images);
  }
  return others;
}

function saveSome(
  some: readonly NumberedFile[],
  images: number,
  writer: ImageWriter,
  extensions: ckpt_ghost_entry[],
): NumberedFile[] {
  const seen = new SeenFiles(some.map(({ file }) => file));
  const plain: number[] = [];
  const others: NumberedFile[] = [];
  for (const [i, one] of some.entries()) {
    if (seen.isPlain(i, Number(one.file.status.size))) plain.push(i);
    else others.push(one);
  }
  const names = plain.map((i) => imageName("ghost-file", some[i].id));
  const texts = new Texts(names);
  const pieces = new Slots(16, plain.length);
  for (const [n, i] of plain.entries()) {
    const { id, file: { status } } = some[i];
    const times = seen.times(i);
    const head = encodeImage("ghost-file", ghostEntry(status, times));
    const { address, length } = seen.putBefore(i, head, Number(status.size));
    pieces.view.setBigUint64(16 * n, BigInt(address), true);
    pieces.view.setBigUint64(16 * n + 8, BigInt(length), true);
    writer.adoptRaw(names[n], length);
    addExtension(extensions, {
      ghost_id: id,
      xattrs: [],
      allocated: [],
      inode_flags: seen.inodeFlags(i) || undefined,
      ...belowMicroseconds(times),
    });
  }
  const calls = new Calls();
  const made = calls.add("openat", [
    images,
    { loaded: texts.pointers },
    O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC,
    0o600,
  ]);
  const written = calls.add("pwrite64", [
    { result: made },
    { loaded: pieces },
    { loaded: pieces, offset: 8 },
    0,
  ]);
  calls.add("close", [{ result: made }]);
  calls.run(plain.length);
  for (const [n, name] of names.entries()) {
    const length = pieces.view.getBigUint64(16 * n + 8, true);
    const result = calls.result(n, written);
    if (BigInt(result) === length) continue;
    const failed = [made, written].map((call) => calls.result(n, call))
      .find((result) => result < 0);
    throw new CkptError(EXIT.failed, "saving deleted files", [{
      object: name,
      why: failed === undefined
        ? "the file system took only a part of it"
        : describeErrno(failed),
      remedy: "make room, or name a directory on another file system",
    }]);
  }
  return others;
}

/** What there is to know of some small files, and their contents. */
class SeenFiles {
  readonly #files: AskedFiles;
  readonly #contents: Slots;
  readonly #flags: Slots;
  readonly #calls = new Calls();
  readonly #read: number;
  readonly #data: number;
  readonly #hole: number;
  readonly #attributes: number;
  readonly #getFlags: number;

  constructor(files: readonly LostFileInUse[]) {
    const count = files.length;
    this.#contents = new Slots(HEAD_ROOM + SMALLEST_WITH_CHUNKS, count);
    this.#flags = new Slots(8, count);
    const calls = this.#calls;
    this.#files = new AskedFiles(calls, files.map(({ at }) => at));
    const opened = calls.add("openat", [
      ...this.#files.path,
      O.RDONLY | O.NOATIME | O.NONBLOCK | O.CLOEXEC,
      0,
    ]);
    const fd = { result: opened };
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
    calls.run(count);
  }

  /** Whether its content in one piece and what `times` and so on say is all. */
  isPlain(i: number, size: number): boolean {
    const result = (call: number) => this.#calls.result(i, call);
    const attributes = result(this.#attributes);
    const data = [{ offset: 0, length: size }];
    return this.#files.isKnown(i) && result(this.#read) === size &&
      (size === 0 ||
        result(this.#data) === 0 && result(this.#hole) === size) &&
      (attributes === 0 || attributes === -EOPNOTSUPP) &&
      !mayHaveUnwritten(data, this.#files.status(i).allocated);
  }

  times(i: number) {
    return this.#files.status(i);
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
