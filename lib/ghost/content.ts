/** Where the data of a file lie, and copying them without filling its holes. */
import { EINVAL, ENODATA, EOPNOTSUPP } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import { every } from "../ffi/pause.ts";
import { addressOf, syscall, SyscallError } from "../ffi/syscall.ts";
import type { Report } from "../report.ts";
import { isOneOf } from "./attributes.ts";
import { fileSystemType } from "./calls.ts";

export interface Segment {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
}

/** Asked for at once. */
const SEGMENTS = 4096;
let firstRoom: BigUint64Array<ArrayBuffer> | undefined;

/** Parts of a file that are no holes (lseek(2)), ascending. */
export function dataSegments(fd: number, size: number): Segment[] {
  for (let room = SEGMENTS;; room *= 8) {
    const found = room === SEGMENTS
      ? firstRoom ??= new BigUint64Array(2 * room)
      : new BigUint64Array(2 * room);
    const count = Number(
      library("ranges").ckpt_data_ranges(
        fd,
        BigInt(size),
        new Uint8Array(found.buffer),
        BigInt(room),
      ),
    );
    if (count < 0) throw new SyscallError("lseek", -count);
    if (count === room) continue;
    return Array.from({ length: count }, (_, i) => ({
      offset: Number(found[2 * i]),
      length: Number(found[2 * i + 1]),
    }));
  }
}

/** File systems give space in blocks, of this size or smaller. */
export const BLOCK = 4096;

/**
 * Whether a file takes more space than its data need: what was allocated and
 * not written, or what the file system keeps about it.
 *
 * @param allocated bytes
 */
export function mayHaveUnwritten(
  segments: readonly Segment[],
  allocated: bigint,
): boolean {
  const needed = segments.reduce(
    (sum, { length }) => sum + Math.ceil(length / BLOCK) * BLOCK,
    0,
  );
  return allocated > needed;
}

const FS_IOC_FIEMAP = 0xc020660bn;
const EXTENT_LAST = 0x1;
const EXTENT_UNWRITTEN = 0x800;
const FIEMAP_BYTES = 32;
const EXTENT_BYTES = 56;
const EXTENTS = 256;

/**
 * Parts of a file that were allocated but never written (fallocate(2)), also
 * behind its end (fiemap.rst of the kernel). Where the file system does not
 * tell (tmpfs): all of it, when it takes as much.
 *
 * @param allocated bytes that it takes
 */
export function unwrittenSegments(
  fd: number,
  size: number,
  allocated: bigint,
): Segment[] {
  const buffer = new Uint8Array(FIEMAP_BYTES + EXTENTS * EXTENT_BYTES);
  const view = new DataView(buffer.buffer);
  const segments: Segment[] = [];
  for (let start = 0n;;) {
    view.setBigUint64(0, start, true);
    view.setBigUint64(8, (1n << 63n) - 1n - start, true);
    // Without FIEMAP_FLAG_SYNC, which writes all to the disk: what has data in
    // memory only may count as unwritten; then its space is made first.
    view.setUint32(16, 0, true);
    view.setUint32(24, EXTENTS, true);
    try {
      syscall("ioctl", BigInt(fd), FS_IOC_FIEMAP, addressOf(buffer));
    } catch (error) {
      if (isOneOf(error, EOPNOTSUPP, EINVAL)) {
        const whole = Math.ceil(size / BLOCK) * BLOCK;
        return allocated < whole ? [] : [{ offset: 0, length: whole }];
      }
      throw error;
    }
    const count = view.getUint32(20, true);
    let last = count === 0;
    for (let i = 0; i < count; i++) {
      const at = FIEMAP_BYTES + i * EXTENT_BYTES;
      const offset = view.getBigUint64(at, true);
      const length = view.getBigUint64(at + 16, true);
      const flags = view.getUint32(at + 40, true);
      if ((flags & EXTENT_UNWRITTEN) !== 0) {
        segments.push({ offset: Number(offset), length: Number(length) });
      }
      last ||= (flags & EXTENT_LAST) !== 0;
      start = offset + length;
    }
    if (last) return segments;
  }
}

const TMPFS = 0x1021994n;
/** File systems whose files cannot share blocks: ext4 and tmpfs. */
const SHARES_NO_BLOCKS: ReadonlySet<bigint> = new Set([0xef53n, TMPFS]);

/**
 * Whether files of these file systems may share blocks.
 *
 * @param one statfs.f_type
 */
export function mayShareBlocks(one: bigint, other: bigint): boolean {
  return one === other && !SHARES_NO_BLOCKS.has(one);
}

/** What is copied from one file to another. */
export interface Range {
  /** Bytes from the beginning of the files. */
  readonly from: number;
  readonly to: number;
  readonly length: number;
  /** Written before it. */
  readonly head?: Uint8Array;
}

/** struct range of c/lib/ranges.c, in words. */
const RANGE_WORDS = 5;
/**
 * From here on a second processor helps, if reading takes time: the kernel lets
 * only one write to a file.
 */
const WORTH_TWO = 8 << 20;
/** Below this nobody waits long enough to see progress. */
const WORTH_PROGRESS = 64 << 20;
const PROGRESS_MS = 100;

/**
 * Copies ranges of a file to another, beside JavaScript.
 *
 * @param step what is done, for people
 * @throws SyscallError; Error when `from` ends early; what the signal has
 */
export async function copyRanges(
  from: number,
  to: number,
  ranges: readonly Range[],
  step: string,
  report: Report,
): Promise<void> {
  const total = ranges.reduce((sum, { length }) => sum + length, 0);
  const helps = total >= WORTH_TWO &&
    fileSystemType(`/proc/self/fd/${from}`) !== TMPFS;
  const parts = (helps ? halves(ranges, total) : [ranges])
    .map((part) => new RangeCopy(from, to, part));
  using _shown = total < WORTH_PROGRESS ? undefined : every(PROGRESS_MS, () => {
    const done = parts.reduce((sum, part) => sum + part.done, 0n);
    report.progress(step, done, total);
    if (report.aborted()) { for (const part of parts) part.cancel(); }
  });
  const results = await Promise.all(parts.map((part) => part.run()));
  report.signal.throwIfAborted();
  for (const result of results) {
    if (result === -ENODATA) throw new Error("a file ended too early");
    if (result < 0) throw new SyscallError("copying its content", -result);
  }
}

/** Cut where blocks begin. */
function halves(ranges: readonly Range[], total: number): readonly Range[][] {
  const parts: Range[][] = [[], []];
  let left = total / 2;
  for (const range of ranges) {
    const { from, to, length } = range;
    const first = length <= left ? length : left - left % BLOCK;
    left -= first;
    if (first === length) parts[0].push(range);
    else if (first === 0) parts[1].push(range);
    else {
      parts[0].push({ ...range, length: first });
      parts[1].push({
        from: from + first,
        to: to + first,
        length: length - first,
      });
    }
    if (first < length) left = 0;
  }
  return parts.filter((part) => part.length > 0);
}

/** A call of C that runs beside JavaScript. */
class RangeCopy {
  readonly #words: BigUint64Array<ArrayBuffer>;
  /** Kept alive for C. */
  readonly #heads: Uint8Array<ArrayBuffer>;
  /** Bytes copied; whether to end early. */
  readonly #progress = new BigUint64Array(2);

  constructor(
    readonly from: number,
    readonly to: number,
    readonly ranges: readonly Range[],
  ) {
    this.#words = new BigUint64Array(RANGE_WORDS * ranges.length);
    this.#heads = new Uint8Array(
      ranges.reduce((sum, { head }) => sum + (head?.length ?? 0), 0),
    );
    const start = addressOf(this.#heads);
    let at = 0;
    for (const [i, { from, to, length, head }] of ranges.entries()) {
      if (head !== undefined) this.#heads.set(head, at);
      const size = head?.length ?? 0;
      const place = start + BigInt(at);
      this.#words.set(
        [BigInt(from), BigInt(to), BigInt(length), place, BigInt(size)],
        RANGE_WORDS * i,
      );
      at += size;
    }
  }

  get done(): bigint {
    return this.#progress[0];
  }

  cancel(): void {
    this.#progress[1] = 1n;
  }

  async run(): Promise<number> {
    return Number(
      await library("ranges").ckpt_copy_ranges(
        this.from,
        this.to,
        new Uint8Array(this.#words.buffer),
        BigInt(this.ranges.length),
        new Uint8Array(this.#progress.buffer),
      ),
    );
  }
}
