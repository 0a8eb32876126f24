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
/** Files of which JavaScript learns while the next ones are read. */
const PART = 1024;
/** Fewer files are read and written faster than a thread has begun. */
const WORTH_A_THREAD = 32;

/** Whether it may be saved here: what else it has is seen when it is read. */
export function isSmallFile(
  { status: { size, mode } }: LostFileInUse,
): boolean {
  return (mode & S_IF.MT) === S_IF.REG && size < SMALLEST_WITH_CHUNKS;
}

export class SmallFiles {
  /** Those whose content is in memory. */
  #held: HeldFiles[] = [];
  #bytes = 0;
  /** The directory of the images. */
  #images: number | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #isAllElseDone = false;

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
    let before: HeldFiles | undefined;
    const describe = () => {
      others.push(...before?.describe(this.writer, this.extensions) ?? []);
      before = undefined;
    };
    for (const part of parts(this.all, this.atOnce)) {
      if (this.#bytes + roomForAll(part) > this.atOnce) {
        describe();
        await this.#write();
      }
      this.#images ??= open(this.writer.unfinished, O.PATH | O.DIRECTORY);
      const held = new HeldFiles(part, this.#images);
      this.#held.push(held);
      this.#bytes += roomForAll(part);
      const reading = held.read();
      try {
        describe();
      } finally {
        await reading;
      }
      before = held;
    }
    describe();
    return others;
  }

  /**
   * Makes the images of those that were read, beside JavaScript.
   *
   * @throws CkptError naming the image that cannot be written
   */
  write(): Promise<void> {
    const writing = this.#write();
    this.#busy = writing;
    return writing;
  }

  async #write(): Promise<void> {
    for (let held; (held = this.#held[0]) !== undefined;) {
      await held.write(this.#isAllElseDone);
      held[Symbol.dispose]();
      this.#held.shift();
    }
    this.#bytes = 0;
  }

  /** JavaScript has nothing else to do: writing gets all processors. */
  hurry(): void {
    this.#isAllElseDone = true;
  }

  /** When nothing is read or written any more; frees the memory. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled([this.#busy]);
    for (const held of this.#held.splice(0)) held[Symbol.dispose]();
    if (this.#images !== undefined) close(this.#images);
    this.#images = undefined;
  }
}

/** Not more of them than may be in memory. */
function* parts(
  all: readonly NumberedFile[],
  most: number,
): Generator<NumberedFile[]> {
  let first = 0;
  let bytes = 0;
  for (let i = 0; i < all.length; i++) {
    const room = roomFor(all[i]);
    if (i - first === PART || i > first && bytes + room > most) {
      yield all.slice(first, i);
      first = i;
      bytes = 0;
    }
    bytes += room;
  }
  if (first < all.length) yield all.slice(first);
}

/** One byte more than there should be tells that there are more. */
function roomFor({ file: { status: { size } } }: NumberedFile): number {
  return Number(size) + 1;
}

function roomForAll(files: readonly NumberedFile[]): number {
  return files.reduce((sum, file) => sum + roomFor(file), 0);
}

/** A number of the tree's links in /proc is never longer. */
const PATH_BYTES = 64;
const NAME_BYTES = 64;
const AT_EMPTY_PATH = 0x1000;
/** struct iovec of the head of an image, and of the content. */
const PIECES_BYTES = 32;
const PIECE = { head: 0, headLength: 8, content: 16, contentLength: 24 };

/** Some small files, with their contents and images. */
class HeldFiles implements Disposable {
  readonly #contents: AnonymousMemory;
  readonly #pieces: Slots;
  readonly #flags: Slots;
  readonly #statuses: Slots;
  readonly #heads: Slots;
  readonly #noPath = new Slots(8, 1);
  readonly #reading = new Calls();
  readonly #statx: number;
  readonly #read: number;
  readonly #data: number;
  readonly #hole: number;
  readonly #attributes: number;
  readonly #getFlags: number;
  readonly #names: Slots;
  readonly #writing = new Calls();
  readonly #made: number;
  readonly #written: number;
  /** Of plain files, the numbers of their images; in this order in the slots. */
  readonly #ids: number[] = [];

  /** @param images a descriptor of their directory */
  constructor(readonly all: readonly NumberedFile[], images: number) {
    const count = all.length;
    this.#contents = new AnonymousMemory(roomForAll(all));
    this.#pieces = new Slots(PIECES_BYTES, count);
    this.#flags = new Slots(8, count);
    this.#statuses = new Slots(STATX_BYTES, count);
    this.#heads = new Slots(WHOLE_GHOST_HEAD_BYTES, count);
    this.#names = new Slots(NAME_BYTES, count);
    const paths = new Slots(PATH_BYTES, count);
    let { address } = this.#contents;
    for (let i = 0; i < count; i++) {
      const room = roomFor(all[i]);
      paths.setText(i, all[i].file.at);
      this.#pieces.setNumber(i, address, PIECE.content);
      this.#pieces.setNumber(i, room, PIECE.contentLength);
      address += room;
    }
    const reading = this.#reading;
    const opened = reading.add("openat", [
      AT_FDCWD,
      { slots: paths },
      O.RDONLY | O.NOATIME | O.NONBLOCK | O.CLOEXEC,
      0,
    ]);
    const file = { result: opened };
    // Of the file that is open: by its path it would take twice as long.
    this.#statx = reading.add("statx", [
      file,
      this.#noPath.address,
      AT_EMPTY_PATH,
      STATX_BASIC_STATS,
      { slots: this.#statuses },
    ]);
    this.#read = reading.add("pread64", [
      file,
      { loaded: this.#pieces, offset: PIECE.content },
      { loaded: this.#pieces, offset: PIECE.contentLength },
      0,
    ]);
    this.#data = reading.add("lseek", [file, 0, SEEK_DATA]);
    this.#hole = reading.add("lseek", [file, 0, SEEK_HOLE]);
    this.#attributes = reading.add("flistxattr", [file, 0, 0]);
    this.#getFlags = reading.add("ioctl", [
      file,
      FS_IOC_GETFLAGS,
      { slots: this.#flags },
    ]);
    reading.add("close", [file]);
    const writing = this.#writing;
    this.#made = writing.add("openat", [
      images,
      { slots: this.#names },
      O.WRONLY | O.CREAT | O.EXCL | O.CLOEXEC,
      0o600,
    ]);
    const image = { result: this.#made };
    this.#written = writing.add("pwritev", [
      image,
      { slots: this.#pieces },
      PIECES_BYTES / 16,
      0,
    ]);
    writing.add("close", [image]);
  }

  async read(): Promise<void> {
    const count = this.all.length;
    if (count < WORTH_A_THREAD) this.#reading.run(count);
    else await this.#reading.runBeside(count);
  }

  /**
   * Says what the images will be of those that were read.
   *
   * @returns those that are not plain
   */
  describe(
    writer: ImageWriter,
    extensions: ckpt_ghost_entry[],
  ): NumberedFile[] {
    const others: NumberedFile[] = [];
    for (let i = 0; i < this.all.length; i++) {
      if (!this.#isPlain(i)) {
        others.push(this.all[i]);
        continue;
      }
      const { id } = this.all[i];
      const accessed = this.#time(i, STATX.accessed);
      const modified = this.#time(i, STATX.modified);
      const name = imageName("ghost-file", id);
      writer.adoptRaw(
        name,
        this.#put(i, name, {
          uid: this.#word(i, STATX.uid),
          gid: this.#word(i, STATX.gid),
          mode: this.#word(i, STATX.mode) & 0xffff,
          dev: this.#device(i),
          ino: this.#statuses.number(i, STATX.inode),
          accessed,
          modified,
        }),
      );
      addExtension(extensions, {
        ghost_id: id,
        xattrs: [],
        allocated: [],
        inode_flags: this.#inodeFlags(i) || undefined,
        atime_ns: accessed.nanoseconds || undefined,
        mtime_ns: modified.nanoseconds || undefined,
      });
      this.#ids.push(id);
    }
    return others;
  }

  /** Whether its content in one piece and what `statx` and so on say is all. */
  #isPlain(i: number): boolean {
    const calls = this.#reading;
    const size = this.#pieces.number(i, PIECE.contentLength) - 1;
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

  /** As st_dev has it (new_encode_dev of the kernel's linux/kdev_t.h). */
  #device(i: number): number {
    const major = this.#word(i, STATX.deviceMajor);
    const minor = this.#word(i, STATX.deviceMinor);
    return (minor & 0xff | major << 8 | (minor & ~0xff) << 12) >>> 0;
  }

  #inodeFlags(i: number): number {
    return this.#reading.result(i, this.#getFlags) < 0
      ? 0
      : savedInodeFlags(this.#flags.view.getUint32(8 * i, true));
  }

  /** @returns how long the image will be */
  #put(i: number, name: string, ghost: WholeGhost): number {
    const to = this.#ids.length;
    this.#names.setText(to, name);
    const { bytes, address, size } = this.#heads;
    const end = (to + 1) * size;
    const start = putGhostHead(bytes, end, ghost);
    const pieces = this.#pieces;
    const content = pieces.number(i, PIECE.content);
    const length = pieces.number(i, PIECE.contentLength) - 1;
    pieces.setNumber(to, address + start, PIECE.head);
    pieces.setNumber(to, end - start, PIECE.headLength);
    pieces.setNumber(to, content, PIECE.content);
    pieces.setNumber(to, length, PIECE.contentLength);
    return end - start + length;
  }

  /**
   * Makes the images beside JavaScript.
   *
   * @param byAll processors, not only by one
   * @throws CkptError naming the image that cannot be written
   */
  async write(byAll: boolean): Promise<void> {
    const count = this.#ids.length;
    const calls = this.#writing;
    if (count < WORTH_A_THREAD) calls.run(count);
    else if (byAll) await calls.runBeside(count);
    else await calls.runInTurnBeside(count);
    for (let i = 0; i < count; i++) {
      const written = calls.result(i, this.#written);
      const length = this.#pieces.number(i, PIECE.headLength) +
        this.#pieces.number(i, PIECE.contentLength);
      if (written === length) continue;
      const failed = [calls.result(i, this.#made), written]
        .find((result) => result < 0);
      throw new CkptError(EXIT.failed, "saving deleted files", [{
        object: imageName("ghost-file", this.#ids[i]),
        why: failed === undefined
          ? "the file system took only a part of it"
          : describeErrno(failed),
        remedy: "make room, or name a directory on another file system",
      }]);
    }
  }

  [Symbol.dispose](): void {
    this.#contents[Symbol.dispose]();
  }
}
