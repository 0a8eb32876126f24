/**
 * Saves small regular files without a name, thousands of them at once: most are
 * plain, and an image of their own for each costs more than their content. That
 * is kept in memory until the program goes on, and written to images then.
 */
import { AnonymousMemory } from "../ffi/anonymous_memory.ts";
import { Calls, Slots } from "../ffi/calls.ts";
import { describeErrno, EOPNOTSUPP } from "../ffi/errno.ts";
import {
  AT_FDCWD,
  BLOCK as STAT_BLOCK,
  close,
  O,
  open,
  S_IF,
} from "../ffi/syscall.ts";
import { CkptError, EXIT } from "../error.ts";
import {
  putGhostHead,
  type TimeOfGhost,
  WHOLE_GHOST_HEAD_BYTES,
  type WholeGhost,
} from "../image/ghost.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type { ckpt_ghost_entry } from "../image/schema.gen.ts";
import { FS_IOC_GETFLAGS, savedInodeFlags } from "./attributes.ts";
import { STATX, STATX_BASIC_STATS, STATX_BYTES } from "./calls.ts";
import { BLOCK, SEEK_DATA, SEEK_HOLE } from "./content.ts";
import type { LostFileInUse } from "./files_in_use.ts";
import {
  addExtension,
  MICROSECOND,
  SMALLEST_WITH_CHUNKS,
} from "./ghost_entry.ts";

/** A file and the number of its image. */
export interface NumberedFile {
  readonly id: number;
  readonly file: LostFileInUse;
}

const STATUS_BLOCK = Number(STAT_BLOCK);
/** Contents that are in memory at the same time, bytes. */
const HELD_AT_ONCE = 64 << 20;

/** Fewer files are read and written faster than a thread has begun. */
const WORTH_A_THREAD = 32;

/** Whether an image of its own is more than its content, as far as one sees. */
export function isSmallFile(
  { status: { size, mode } }: LostFileInUse,
): boolean {
  return (mode & S_IF.MT) === S_IF.REG && size < SMALLEST_WITH_CHUNKS;
}

export class SmallFiles {
  /** Those whose content is in memory. */
  #held: HeldFiles | undefined;
  #busy: Promise<unknown> = Promise.resolve();

  /**
   * @param extensions gets what CRIU's images have no field for
   * @param atOnce bytes of contents in memory at the same time
   */
  constructor(
    readonly all: readonly NumberedFile[],
    readonly writer: ImageWriter,
    readonly extensions: ckpt_ghost_entry[],
    readonly atOnce = HELD_AT_ONCE,
  ) {}

  /**
   * Reads them beside JavaScript, while they cannot change.
   *
   * @returns those that are not plain (they have holes, attributes, ...), and
   * are not saved
   * @throws CkptError naming the image that cannot be written
   */
  read(): Promise<NumberedFile[]> {
    const reading = this.#read();
    this.#busy = reading;
    return reading;
  }

  async #read(): Promise<NumberedFile[]> {
    const others: NumberedFile[] = [];
    for (const part of parts(this.all, this.atOnce)) {
      await this.#writeHeld();
      this.#held = new HeldFiles(part);
      others.push(...await this.#held.read());
    }
    return others;
  }

  /**
   * Makes the images of those that were read, beside JavaScript.
   *
   * @throws CkptError naming the image that cannot be written
   */
  write(): Promise<void> {
    const writing = this.#writeHeld();
    this.#busy = writing;
    return writing;
  }

  async #writeHeld(): Promise<void> {
    using held = this.#held;
    this.#held = undefined;
    await held?.write(this.writer, this.extensions);
  }

  /** When nothing is read or written any more; frees the memory. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled([this.#busy]);
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
  }
}

/** As many as may be in memory. */
function* parts(
  all: readonly NumberedFile[],
  most: number,
): Generator<NumberedFile[]> {
  let part: NumberedFile[] = [];
  let bytes = 0;
  for (const one of all) {
    bytes += roomFor(one);
    if (bytes > most && part.length > 0) {
      yield part;
      part = [];
      bytes = roomFor(one);
    }
    part.push(one);
  }
  if (part.length > 0) yield part;
}

/** One byte more than there should be tells that there are more. */
function roomFor({ file: { status: { size } } }: NumberedFile): number {
  return Number(size) + 1;
}

/** A number of the tree's links in /proc is never longer. */
const PATH_BYTES = 64;
const NAME_BYTES = 64;
const AT_EMPTY_PATH = 0x1000;
/** Address and length of the content in memory. */
const CONTENT_BYTES = 16;
/** struct iovec of the head, and of the content. */
const PIECES_BYTES = 32;
const IOVECS = 2;

/** What there is to know of some small files, and their contents. */
class HeldFiles implements Disposable {
  readonly #contents: AnonymousMemory;
  readonly #places: Slots;
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
  /** The indices of those that can be saved. */
  readonly #plain: number[] = [];

  constructor(readonly all: readonly NumberedFile[]) {
    const count = all.length;
    this.#contents = new AnonymousMemory(
      all.reduce((sum, one) => sum + roomFor(one), 0),
    );
    const paths = new Slots(PATH_BYTES, count);
    this.#places = new Slots(CONTENT_BYTES, count);
    this.#flags = new Slots(8, count);
    this.#statuses = new Slots(STATX_BYTES, count);
    let { address } = this.#contents;
    for (const [i, one] of all.entries()) {
      paths.setText(i, one.file.at);
      this.#places.setNumber(i, address);
      this.#places.setNumber(i, roomFor(one), 8);
      address += roomFor(one);
    }
    const calls = this.#calls;
    const opened = calls.add("openat", [
      AT_FDCWD,
      { slots: paths },
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
      { loaded: this.#places },
      { loaded: this.#places, offset: 8 },
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

  /** @returns those that are not plain */
  async read(): Promise<NumberedFile[]> {
    const count = this.all.length;
    if (count < WORTH_A_THREAD) this.#calls.run(count);
    else await this.#calls.runBeside(count);
    const others: NumberedFile[] = [];
    for (let i = 0; i < count; i++) {
      if (this.#isPlain(i)) this.#plain.push(i);
      else others.push(this.all[i]);
    }
    return others;
  }

  /** Whether its content in one piece and what `statx` and so on say is all. */
  #isPlain(i: number): boolean {
    const calls = this.#calls;
    const size = this.#places.number(i, 8) - 1;
    if (
      calls.result(i, this.#statx) !== 0 || calls.result(i, this.#read) !== size
    ) return false;
    if (
      size > 0 && (calls.result(i, this.#data) !== 0 ||
        calls.result(i, this.#hole) !== size)
    ) return false;
    const attributes = calls.result(i, this.#attributes);
    if (attributes !== 0 && attributes !== -EOPNOTSUPP) return false;
    const statuses = this.#statuses;
    const allocated = STATUS_BLOCK * statuses.number(i, STATX.blocks);
    return allocated <= Math.ceil(size / BLOCK) * BLOCK &&
      statuses.number(i, STATX.inode) <= Number.MAX_SAFE_INTEGER &&
      this.#seconds(i, STATX.accessed) <= Number.MAX_SAFE_INTEGER &&
      this.#seconds(i, STATX.modified) <= Number.MAX_SAFE_INTEGER;
  }

  /** Those before 1970 are very large. */
  #seconds(i: number, at: number): number {
    return this.#statuses.number(i, at);
  }

  #time(i: number, at: number): TimeOfGhost & { nanoseconds: number } {
    const nanoseconds = this.#word(i, at + 8);
    return {
      seconds: this.#seconds(i, at),
      microseconds: Math.floor(nanoseconds / MICROSECOND),
      nanoseconds: nanoseconds % MICROSECOND,
    };
  }

  /** 32 bits of what statx(2) told. */
  #word(i: number, at: number): number {
    return this.#statuses.view.getUint32(i * STATX_BYTES + at, true);
  }

  /**
   * Makes the images beside JavaScript.
   *
   * @throws CkptError naming the image that cannot be written
   */
  async write(
    writer: ImageWriter,
    extensions: ckpt_ghost_entry[],
  ): Promise<void> {
    const images = open(writer.unfinished, O.PATH | O.DIRECTORY);
    try {
      const written = new WrittenImages(this.#plain.length, images);
      for (const [to, i] of this.#plain.entries()) {
        const { id } = this.all[i];
        const accessed = this.#time(i, STATX.accessed);
        const modified = this.#time(i, STATX.modified);
        const length = written.put(to, imageName("ghost-file", id), {
          uid: this.#word(i, STATX.uid),
          gid: this.#word(i, STATX.gid),
          mode: this.#word(i, STATX.mode) & 0xffff,
          dev: this.#device(i),
          ino: this.#statuses.number(i, STATX.inode),
          accessed,
          modified,
        }, {
          address: this.#places.number(i),
          length: this.#places.number(i, 8) - 1,
        });
        writer.adoptRaw(written.names[to], length);
        addExtension(extensions, {
          ghost_id: id,
          xattrs: [],
          allocated: [],
          inode_flags: this.#inodeFlags(i) || undefined,
          atime_ns: accessed.nanoseconds || undefined,
          mtime_ns: modified.nanoseconds || undefined,
        });
      }
      await written.write();
    } finally {
      close(images);
    }
  }

  /** As st_dev has it (new_encode_dev of the kernel's linux/kdev_t.h). */
  #device(i: number): number {
    const major = this.#word(i, STATX.deviceMajor);
    const minor = this.#word(i, STATX.deviceMinor);
    return (minor & 0xff | major << 8 | (minor & ~0xff) << 12) >>> 0;
  }

  #inodeFlags(i: number): number {
    return this.#calls.result(i, this.#getFlags) < 0
      ? 0
      : savedInodeFlags(this.#flags.view.getUint32(8 * i, true));
  }

  [Symbol.dispose](): void {
    this.#contents[Symbol.dispose]();
  }
}

/** Makes images at once. */
class WrittenImages {
  readonly names: string[] = [];
  readonly #names: Slots;
  readonly #heads: Slots;
  readonly #pieces: Slots;
  readonly #calls = new Calls();
  readonly #made: number;
  readonly #written: number;

  /** @param directory a descriptor of it */
  constructor(count: number, directory: number) {
    this.#names = new Slots(NAME_BYTES, count);
    this.#heads = new Slots(WHOLE_GHOST_HEAD_BYTES, count);
    this.#pieces = new Slots(PIECES_BYTES, count);
    const calls = this.#calls;
    this.#made = calls.add("openat", [
      directory,
      { slots: this.#names },
      O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC,
      0o600,
    ]);
    const fd = { result: this.#made };
    this.#written = calls.add("pwritev", [
      fd,
      { slots: this.#pieces },
      IOVECS,
      0,
    ]);
    calls.add("close", [fd]);
  }

  /**
   * @param i the next number
   * @returns how long the image will be
   */
  put(
    i: number,
    name: string,
    ghost: WholeGhost,
    content: { address: number; length: number },
  ): number {
    this.names.push(name);
    this.#names.setText(i, name);
    const { bytes, address, size } = this.#heads;
    const end = (i + 1) * size;
    const start = putGhostHead(bytes, end, ghost);
    this.#pieces.setNumber(i, address + start);
    this.#pieces.setNumber(i, end - start, 8);
    this.#pieces.setNumber(i, content.address, 16);
    this.#pieces.setNumber(i, content.length, 24);
    return end - start + content.length;
  }

  /** @throws CkptError naming the image that cannot be written */
  async write(): Promise<void> {
    const count = this.names.length;
    if (count < WORTH_A_THREAD) this.#calls.run(count);
    else await this.#calls.runInTurnBeside(count);
    for (const [i, name] of this.names.entries()) {
      const length = this.#pieces.number(i, 8) + this.#pieces.number(i, 24);
      const written = this.#calls.result(i, this.#written);
      if (written === length) continue;
      const failed = [this.#calls.result(i, this.#made), written]
        .find((result) => result < 0);
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
