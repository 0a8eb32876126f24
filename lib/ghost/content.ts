/** Where the data of a file lie, and copying them without filling its holes. */
import { EINVAL, ENODATA, EOPNOTSUPP } from "../ffi/errno.ts";
import { Slots } from "../ffi/calls.ts";
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
        return whole === 0 || allocated < whole
          ? []
          : [{ offset: 0, length: whole }];
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
}

/** struct range of c/lib/ranges.c. */
const RANGE_BYTES = 24;
/**
 * From here on a second processor helps, if reading takes time: the kernel lets
 * only one write to a file.
 */
const WORTH_TWO = 8 << 20;
/** Below this nobody waits long enough to see progress. */
const WORTH_PROGRESS = 64 << 20;
const PROGRESS_MS = 100;

function isWorthTwo(from: number, total: number): boolean {
  return total >= WORTH_TWO &&
    fileSystemType(`/proc/self/fd/${from}`) !== TMPFS;
}

/** struct copy_progress of c/lib/ranges.c. */
interface Progress {
  /** Bytes copied; whether to end early. */
  readonly progress: BigUint64Array;
}

/**
 * Waits for what is copied beside JavaScript.
 *
 * @param step what is done, for people
 * @throws SyscallError; Error when `from` ends early; what the signal has
 */
async function copied(
  parts: readonly (Progress & { readonly result: Promise<bigint> })[],
  total: number,
  step: string,
  report: Report,
): Promise<void> {
  using _shown = total < WORTH_PROGRESS ? undefined : every(PROGRESS_MS, () => {
    const done = parts.reduce((sum, { progress }) => sum + progress[0], 0n);
    report.progress(step, done, total);
    if (report.aborted()) {
      for (const { progress } of parts) progress[1] = 1n;
    }
  });
  const results = await Promise.all(parts.map(({ result }) => result));
  report.signal.throwIfAborted();
  for (const result of results.map(Number)) {
    if (result === -ENODATA) throw new Error("a file ended too early");
    if (result < 0) throw new SyscallError("copying its content", -result);
  }
}

/** A file whose data become chunks of an image. */
export interface ChunkedContent {
  /** Bytes. */
  readonly size: number;
  readonly allocated: number;
  /** Where in the image they begin. */
  readonly position: number;
  /** Whether they are to lie so that blocks can be shared. */
  readonly isAligned: boolean;
}

/** struct content of c/lib/ranges.c. */
const CONTENT_BYTES = 56;
const AT = {
  files: 16,
  size: 24,
  position: 32,
  isAligned: 40,
  processors: 44,
  needed: 48,
} as const;

/**
 * Saves the data of a file in chunks, beside JavaScript, which finds out nothing
 * about them: there may be thousands, and copying begins at once.
 *
 * @param step what is done, for people
 * @returns how many bytes of blocks they need
 * @throws as {@link copied}
 */
export async function saveInChunks(
  from: number,
  image: number,
  { size, allocated, position, isAligned }: ChunkedContent,
  step: string,
  report: Report,
): Promise<number> {
  const content = new Uint8Array(CONTENT_BYTES);
  const view = new DataView(content.buffer);
  view.setInt32(AT.files, from, true);
  view.setInt32(AT.files + 4, image, true);
  view.setBigUint64(AT.size, BigInt(size), true);
  view.setBigUint64(AT.position, BigInt(position), true);
  view.setUint32(AT.isAligned, isAligned ? 1 : 0, true);
  const total = Math.min(size, allocated);
  view.setUint32(AT.processors, isWorthTwo(from, total) ? 2 : 1, true);
  const result = library("ranges").ckpt_save_content(content);
  const progress = new BigUint64Array(content.buffer, 0, 2);
  await copied([{ progress, result }], total, step, report);
  return Number(view.getBigUint64(AT.needed, true));
}

/**
 * Copies ranges of a file to another, beside JavaScript.
 *
 * @param step what is done, for people
 * @throws as {@link copied}
 */
export async function copyRanges(
  from: number,
  to: number,
  ranges: readonly Range[],
  step: string,
  report: Report,
): Promise<void> {
  const total = ranges.reduce((sum, { length }) => sum + length, 0);
  const parts = (isWorthTwo(from, total) ? halves(ranges, total) : [ranges])
    .map((part) => beginCopy(from, to, part));
  await copied(parts, total, step, report);
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

/** Begins to copy, beside JavaScript. */
function beginCopy(
  from: number,
  to: number,
  ranges: readonly Range[],
): Progress & { result: Promise<bigint> } {
  const slots = new Slots(RANGE_BYTES, ranges.length);
  for (const [i, range] of ranges.entries()) {
    slots.setNumber(i, range.from);
    slots.setNumber(i, range.to, 8);
    slots.setNumber(i, range.length, 16);
  }
  const progress = new BigUint64Array(2);
  const result = library("ranges").ckpt_copy_ranges(
    from,
    to,
    slots.bytes,
    BigInt(ranges.length),
    new Uint8Array(progress.buffer),
  );
  return { progress, result };
}
