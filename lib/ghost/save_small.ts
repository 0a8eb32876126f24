/**
 * Saves small regular files without a name, thousands of them at once
 * (c/lib/small_ghosts.c): most are plain, and an image of their own for each
 * costs more than their content. Of a program that is to go on, that is kept in
 * memory until it does, and written to images then.
 */
import { CkptError, EXIT } from "../error.ts";
import { AnonymousMemory } from "../ffi/anonymous_memory.ts";
import { Slots } from "../ffi/calls.ts";
import { describeErrno } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import { addressOf, close, O, open, S_IF } from "../ffi/syscall.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { IMAGE_FILES, imageName, IMG_COMMON_MAGIC } from "../image/kinds.ts";
import type { ckpt_ghost_entry } from "../image/schema.gen.ts";
import { savedInodeFlags } from "./attributes.ts";
import type { LostFileInUse } from "./files_in_use.ts";
import { addExtension, SMALLEST_WITH_CHUNKS } from "./ghost_entry.ts";

/** A file and the number of its image. */
export interface NumberedFile {
  readonly id: number;
  readonly file: LostFileInUse;
}

/** Contents that are in memory at the same time, bytes. */
const HELD_AT_ONCE = 64 << 20;
/** Fewer files are read and written faster than a thread has begun. */
const WORTH_A_THREAD = 32;

/** Whether it may be saved here: what else it has is seen when it is read. */
export function isSmallFile(
  { status: { size, mode } }: LostFileInUse,
): boolean {
  return (mode & S_IF.MT) === S_IF.REG && size < SMALLEST_WITH_CHUNKS;
}

export interface SmallFilesOptions {
  /** Whether the images are made by {@link SmallFiles.write} only. */
  isHeld: boolean;
  /** Bytes of contents in memory at the same time. */
  atOnce?: number;
}

export class SmallFiles {
  readonly #isHeld: boolean;
  readonly #atOnce: number;
  /** Those whose content is in memory. */
  #held: SomeFiles[] = [];
  /** The directory of the images. */
  #images: number | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #isAllElseDone = false;

  /** @param extensions gets what CRIU's images have no field for */
  constructor(
    readonly all: readonly NumberedFile[],
    readonly writer: ImageWriter,
    readonly extensions: ckpt_ghost_entry[],
    { isHeld, atOnce = HELD_AT_ONCE }: SmallFilesOptions,
  ) {
    this.#isHeld = isHeld;
    this.#atOnce = atOnce;
  }

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
    const most = this.#isHeld ? this.#atOnce : Infinity;
    for (const part of parts(this.all, most)) {
      await this.#write();
      this.#images ??= open(this.writer.unfinished, O.PATH | O.DIRECTORY);
      const some = new SomeFiles(part, this.#images, this.#isHeld);
      this.#held.push(some);
      await some.take(this.#isHeld ? STEP.read : STEP.read | STEP.write);
      others.push(...some.describe(this.writer, this.extensions));
    }
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
    for (let some; (some = this.#held[0]) !== undefined;) {
      if (this.#isHeld) {
        await some.take(
          this.#isAllElseDone ? STEP.write : STEP.write | STEP.inTurn,
        );
        some.mustBeWritten();
      }
      some[Symbol.dispose]();
      this.#held.shift();
    }
  }

  /** JavaScript has nothing else to do: writing gets all processors. */
  hurry(): void {
    this.#isAllElseDone = true;
  }

  /** When nothing is read or written any more; frees the memory. Never throws. */
  async settle(): Promise<void> {
    await Promise.allSettled([this.#busy]);
    for (const some of this.#held.splice(0)) some[Symbol.dispose]();
    if (this.#images !== undefined) close(this.#images);
    this.#images = undefined;
  }
}

/** Not more of them than may be in memory. */
function* parts(
  all: readonly NumberedFile[],
  most: number,
): Generator<readonly NumberedFile[]> {
  let first = 0;
  let bytes = 0;
  for (let i = 0; i < all.length; i++) {
    const room = roomFor(all[i]);
    if (i > first && bytes + room > most) {
      yield all.slice(first, i);
      first = i;
      bytes = 0;
    }
    bytes += room;
  }
  if (first < all.length) yield first === 0 ? all : all.slice(first);
}

/** Of c/lib/small_ghosts.c, as is all below. */
const HEAD_ROOM = 128;

/** One byte more than there should be tells that there are more. */
function roomFor({ file: { status: { size } } }: NumberedFile): number {
  return HEAD_ROOM + Number(size) + 1;
}

const STEP = { read: 1, write: 2, inTurn: 4 } as const;

/** struct small_ghost. */
const GHOST_BYTES = 48;
const AT = {
  tid: 0,
  fd: 4,
  id: 8,
  size: 12,
  held: 16,
  state: 24,
  imageSize: 32,
  inodeFlags: 36,
  accessed: 40,
  modified: 44,
} as const;
const NOT_PLAIN = 1;

/** struct small_ghosts. */
const JOB_BYTES = 40;
const JOB = { all: 0, count: 8, images: 16, magics: 20, steps: 28 } as const;

const DESCRIPTOR = /^\/proc\/(\d+)\/fd\/(\d+)$/;

/** Some small files, with their contents and images. */
class SomeFiles implements Disposable {
  readonly #contents: AnonymousMemory | undefined;
  readonly #ghosts: Slots;
  readonly #job = new Uint8Array(JOB_BYTES);

  /**
   * @param images a descriptor of their directory
   * @param isHeld whether contents stay in memory until they are written
   */
  constructor(
    readonly all: readonly NumberedFile[],
    images: number,
    isHeld: boolean,
  ) {
    const count = all.length;
    this.#ghosts = new Slots(GHOST_BYTES, count);
    if (isHeld) {
      this.#contents = new AnonymousMemory(
        all.reduce((sum, one) => sum + roomFor(one), 0),
      );
    }
    const { view } = this.#ghosts;
    let held = this.#contents?.address;
    for (let i = 0; i < count; i++) {
      const { id, file } = all[i];
      const at = i * GHOST_BYTES;
      const { tid, fd } = descriptorOf(file);
      view.setUint32(at + AT.tid, tid, true);
      view.setInt32(at + AT.fd, fd, true);
      view.setUint32(at + AT.id, id, true);
      view.setUint32(at + AT.size, Number(file.status.size), true);
      if (held === undefined) continue;
      this.#ghosts.setNumber(i, held, AT.held);
      held += roomFor(all[i]);
    }
    const job = new DataView(this.#job.buffer);
    if (count > 0) {
      job.setBigUint64(JOB.all, addressOf(this.#ghosts.bytes), true);
    }
    job.setBigUint64(JOB.count, BigInt(count), true);
    job.setInt32(JOB.images, images, true);
    job.setUint32(JOB.magics, IMG_COMMON_MAGIC, true);
    job.setUint32(JOB.magics + 4, IMAGE_FILES["ghost-file"].magic, true);
  }

  /** Takes steps beside JavaScript. */
  async take(steps: number): Promise<void> {
    new DataView(this.#job.buffer).setUint32(JOB.steps, steps, true);
    if (this.all.length < WORTH_A_THREAD) {
      library("ghostsNow").save_few_ghosts(this.#job);
    } else await library("ghosts").ckpt_save_small_ghosts(this.#job);
  }

  /**
   * Says what the images are of those that were read.
   *
   * @returns those that are not plain
   * @throws CkptError naming the image that cannot be written
   */
  describe(
    writer: ImageWriter,
    extensions: ckpt_ghost_entry[],
  ): NumberedFile[] {
    this.mustBeWritten();
    const { view } = this.#ghosts;
    const others: NumberedFile[] = [];
    for (let i = 0; i < this.all.length; i++) {
      const at = i * GHOST_BYTES;
      if (view.getInt32(at + AT.state, true) === NOT_PLAIN) {
        others.push(this.all[i]);
        continue;
      }
      const { id } = this.all[i];
      writer.adoptRaw(
        imageName("ghost-file", id),
        view.getUint32(at + AT.imageSize, true),
      );
      const flags = savedInodeFlags(view.getUint32(at + AT.inodeFlags, true));
      addExtension(extensions, {
        ghost_id: id,
        xattrs: [],
        allocated: [],
        inode_flags: flags || undefined,
        atime_ns: view.getUint32(at + AT.accessed, true) || undefined,
        mtime_ns: view.getUint32(at + AT.modified, true) || undefined,
      });
    }
    return others;
  }

  /** @throws CkptError naming the image that could not be written */
  mustBeWritten(): void {
    const { view } = this.#ghosts;
    for (let i = 0; i < this.all.length; i++) {
      const state = view.getInt32(i * GHOST_BYTES + AT.state, true);
      if (state >= 0) continue;
      throw new CkptError(EXIT.failed, "saving deleted files", [{
        object: imageName("ghost-file", this.all[i].id),
        why: describeErrno(state),
        remedy: "make room, or name a directory on another file system",
      }]);
    }
  }

  [Symbol.dispose](): void {
    this.#contents?.[Symbol.dispose]();
  }
}

/** What is only mapped, say, is found by nobody's descriptor: it is not plain. */
const NO_DESCRIPTOR = { tid: 0, fd: -1 };

function descriptorOf(file: LostFileInUse): { tid: number; fd: number } {
  const { descriptor } = file;
  if (descriptor !== undefined) return descriptor;
  const found = DESCRIPTOR.exec(file.at);
  return found === null
    ? NO_DESCRIPTOR
    : { tid: Number(found[1]), fd: Number(found[2]) };
}
