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
import { FileMap } from "./file_map.ts";
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
/** Of fewer files nothing is begun before all are known. */
const WORTH_EXPECTING = 256;

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

export class SmallFiles implements AsyncDisposable {
  readonly #isHeld: boolean;
  readonly #atOnce: number;
  /** Those that are begun before all is known that is to be saved. */
  #expected: SomeFiles | undefined;
  /** Which of them, by their inodes. */
  readonly #indices = new FileMap<number>();
  /** Of these, those that are to be saved. */
  #taken: (NumberedFile | undefined)[] = [];
  #begun: Promise<void> = Promise.resolve();
  /** Those whose content is in memory. */
  #held: SomeFiles[] = [];
  #bytes = 0;
  /** The directory of the images. */
  #images: number | undefined;
  #busy: Promise<unknown> = Promise.resolve();
  #isAllElseDone = false;

  constructor(
    readonly writer: ImageWriter,
    { isHeld, atOnce = HELD_AT_ONCE }: SmallFilesOptions,
  ) {
    this.#isHeld = isHeld;
    this.#atOnce = atOnce;
  }

  /**
   * Names files that will most likely be saved: from looking at the program
   * while it ran.
   */
  expect(files: readonly LostFileInUse[]): void {
    if (files.length < WORTH_EXPECTING) return;
    const all: NumberedFile[] = [];
    let room = this.#isHeld ? this.#atOnce : Infinity;
    for (const file of files) {
      const { descriptor, mount, status } = file;
      if (
        descriptor === undefined || mount !== "reached" || !isSmallFile(file) ||
        this.#indices.get(status) !== undefined
      ) continue;
      const one = { id: all.length + 1, file };
      room -= roomFor(one);
      if (room < 0) break;
      this.#indices.set(status, all.length);
      all.push(one);
    }
    if (all.length > 0) this.#expected = this.#some(all);
  }

  /** Begins to save those, beside JavaScript, when they cannot change. */
  begin(): void {
    const reading = this.#expected?.take(this.#firstSteps | STEP.inTurn);
    if (reading === undefined) return;
    this.#begun = reading;
    this.#busy = reading;
  }

  /** How many numbers are taken. */
  get expectedCount(): number {
    return this.#expected?.all.length ?? 0;
  }

  /** @returns the number that a file has, if it was expected */
  take(file: LostFileInUse): number | undefined {
    const index = this.#indices.get(file.status);
    if (index === undefined) return undefined;
    const id = index + 1;
    this.#taken[index] = { id, file };
    return id;
  }

  get #firstSteps(): number {
    return this.#isHeld ? STEP.read : STEP.read | STEP.write;
  }

  #some(all: readonly NumberedFile[]): SomeFiles {
    this.#images ??= open(this.writer.unfinished, O.PATH | O.DIRECTORY);
    return new SomeFiles(all, this.#images, this.#isHeld);
  }

  /**
   * Reads them beside JavaScript, while they cannot change.
   *
   * @param more that were not expected
   * @param extensions gets what CRIU's images have no field for
   * @returns those that are not plain (they have holes, attributes, ...), and
   * are not saved
   * @throws CkptError naming the image that cannot be written
   */
  read(
    more: readonly NumberedFile[],
    extensions: ckpt_ghost_entry[],
  ): Promise<NumberedFile[]> {
    const reading = this.#read(more, extensions);
    this.#busy = reading;
    return reading;
  }

  async #read(
    more: readonly NumberedFile[],
    extensions: ckpt_ghost_entry[],
  ): Promise<NumberedFile[]> {
    const others: NumberedFile[] = [];
    const expected = this.#expected;
    if (expected !== undefined) {
      this.#held.push(expected);
      this.#bytes = expected.room;
      await Promise.all([this.#begun, expected.help()]);
      others.push(
        ...expected.describe(this.writer, extensions, this.#taken),
      );
    }
    const most = this.#isHeld ? this.#atOnce : Infinity;
    for (const part of parts(more, most)) {
      const some = this.#some(part);
      if (this.#isHeld && this.#bytes + some.room > this.#atOnce) {
        await this.#write();
      }
      this.#held.push(some);
      this.#bytes += some.room;
      await some.take(this.#firstSteps);
      others.push(...some.describe(this.writer, extensions, part));
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
    this.#bytes = 0;
  }

  /** JavaScript has nothing else to do: writing gets all processors. */
  hurry(): void {
    this.#isAllElseDone = true;
  }

  /** When nothing is read or written any more; frees the memory. Never throws. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.allSettled([this.#begun, this.#busy]);
    this.#expected?.[Symbol.dispose]();
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
const GHOST_BYTES = 64;
const AT = {
  tid: 0,
  fd: 4,
  id: 8,
  size: 12,
  inode: 16,
  held: 24,
  device: 32,
  state: 36,
  imageSize: 44,
  inodeFlags: 48,
  accessed: 52,
  modified: 56,
} as const;
const NOT_PLAIN = 1;

/** struct small_ghosts. */
const JOB_BYTES = 40;
const JOB = {
  all: 0,
  count: 8,
  images: 16,
  magics: 20,
  steps: 28,
  next: 32,
} as const;

const DESCRIPTOR = /^\/proc\/(\d+)\/fd\/(\d+)$/;

/** Some small files, with their contents and images. */
class SomeFiles implements Disposable {
  readonly #contents: AnonymousMemory | undefined;
  readonly #ghosts: Slots;
  readonly #job = new Uint8Array(JOB_BYTES);
  /** Bytes that their images take at most. */
  readonly room: number;

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
    this.room = all.reduce((sum, one) => sum + roomFor(one), 0);
    if (isHeld) this.#contents = new AnonymousMemory(this.room);
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
      view.setBigUint64(at + AT.inode, file.status.ino, true);
      view.setUint32(at + AT.device, Number(file.status.dev), true);
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
    const job = new DataView(this.#job.buffer);
    job.setUint32(JOB.steps, steps, true);
    job.setBigUint64(JOB.next, 0n, true);
    if (this.all.length < WORTH_A_THREAD) {
      library("ghostsNow").save_few_ghosts(this.#job);
    } else await this.help();
  }

  /** Takes the steps of what nobody has taken yet, by one more processor. */
  async help(): Promise<void> {
    await library("ghosts").ckpt_save_small_ghosts(this.#job);
  }

  /**
   * Says what the images are of those that were read.
   *
   * @param wanted of them, each at its place; the images of others go
   * @returns those that are not plain
   * @throws CkptError naming the image that cannot be written
   */
  describe(
    writer: ImageWriter,
    extensions: ckpt_ghost_entry[],
    wanted: readonly (NumberedFile | undefined)[],
  ): NumberedFile[] {
    this.mustBeWritten();
    const { view } = this.#ghosts;
    const others: NumberedFile[] = [];
    for (let i = 0; i < this.all.length; i++) {
      const at = i * GHOST_BYTES;
      const one = wanted[i];
      if (one === undefined) {
        this.#leaveOut(i, writer);
        continue;
      }
      if (view.getInt32(at + AT.state, true) === NOT_PLAIN) {
        others.push(one);
        continue;
      }
      const { id } = one;
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

  /** What was expected and is not to be saved: it may be written already. */
  #leaveOut(i: number, writer: ImageWriter): void {
    const state = i * GHOST_BYTES + AT.state;
    if (this.#ghosts.view.getInt32(state, true) !== 0) return;
    this.#ghosts.view.setInt32(state, NOT_PLAIN, true);
    if (this.#contents !== undefined) return;
    const name = imageName("ghost-file", this.all[i].id);
    Deno.removeSync(`${writer.unfinished}/${name}`);
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
