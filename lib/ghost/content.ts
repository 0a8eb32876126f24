/** Where the data of a file lie, and copying them without filling its holes. */
import { EINVAL, ENXIO, EOPNOTSUPP, EXDEV } from "../ffi/errno.ts";
import { addressOf, syscall, syscallBuffer1 } from "../ffi/syscall.ts";
import type { Report } from "../report.ts";
import { isOneOf } from "./attributes.ts";

export interface Segment {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
}

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;

/** Parts of a file that are no holes (lseek(2)), ascending. */
export function dataSegments(fd: number, size: number): Segment[] {
  const segments: Segment[] = [];
  for (let at = 0; at < size;) {
    let offset: number;
    try {
      offset = seek(fd, at, SEEK_DATA);
    } catch (error) {
      if (isOneOf(error, ENXIO)) break;
      throw error;
    }
    const end = Math.min(seek(fd, offset, SEEK_HOLE), size);
    if (offset >= size || end <= offset) break;
    segments.push({ offset, length: end - offset });
    at = end;
  }
  return segments;
}

function seek(fd: number, offset: number, whence: number): number {
  return Number(syscall("lseek", BigInt(fd), BigInt(offset), BigInt(whence)));
}

/** File systems give space in blocks, of this size or smaller. */
const BLOCK = 4096;

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

/** Below this nobody waits long enough to see progress. */
const WORTH_PROGRESS = 64 << 20;
/** A turn of the event loop costs as much as copying some blocks. */
const TOLD_EVERY = 16 << 20;

/**
 * What {@link copyRange} is to call: tells how far a copy has come, and stops
 * it when it is to be stopped.
 *
 * @param step what is done, for people
 * @param total bytes
 */
export function copyProgress(
  step: string,
  total: number,
  report: Report,
): (bytes: number) => Promise<void> {
  let done = 0;
  let told = 0;
  return async (bytes) => {
    done += bytes;
    if (total < WORTH_PROGRESS || done - told < TOLD_EVERY) return;
    told = done;
    report.progress(step, done, total);
    await report.letSignalsIn();
    report.signal.throwIfAborted();
  };
}

/** One call copies no more, so that signals and progress are not kept long. */
const AT_ONCE = 64 << 20;

/**
 * Copies bytes from file to file inside the kernel; file systems that can share
 * blocks do so (copy_file_range(2)).
 *
 * @param done told after every step how many bytes were copied by it
 * @throws SyscallError; Error when `from` ends early
 */
export async function copyRange(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  length: number,
  done: (bytes: number) => Promise<void>,
): Promise<void> {
  for (let copied = 0; copied < length;) {
    const count = copySome(
      from,
      fromOffset + copied,
      to,
      toOffset + copied,
      Math.min(AT_ONCE, length - copied),
    );
    if (count === 0) {
      throw new Error(`a file ended ${length - copied} bytes too early`);
    }
    copied += count;
    await done(count);
  }
}

function copySome(
  from: number,
  fromOffset: number,
  to: number,
  toOffset: number,
  length: number,
): number {
  const source = offsetOf(fromOffset);
  const target = offsetOf(toOffset);
  try {
    return Number(
      syscallBuffer1(
        "copy_file_range",
        BigInt(from),
        source,
        BigInt(to),
        addressOf(target),
        BigInt(length),
      ),
    );
  } catch (error) {
    // Between file systems of different kinds it does not work.
    if (!isOneOf(error, EXDEV, EINVAL, EOPNOTSUPP)) throw error;
  }
  syscall("lseek", BigInt(to), BigInt(toOffset), 0n);
  return Number(
    syscall(
      "sendfile",
      BigInt(to),
      BigInt(from),
      addressOf(source),
      BigInt(length),
    ),
  );
}

function offsetOf(value: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigInt64(0, BigInt(value), true);
  return bytes;
}
