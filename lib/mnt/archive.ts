/**
 * The bytes of an archive in an image file: gzip, as other tools expect it, but
 * of stored blocks (c/lib/archive.c), marked so in the comment of the gzip
 * header. What others have written is inflated into memory first.
 */
import { describeErrno, EBADMSG, ENODATA } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import {
  addressOf,
  close,
  pread,
  pwrite,
  stat,
  syscall,
  terminated,
} from "../ffi/syscall.ts";
import type { TarSource } from "./read_tar.ts";

/** struct archive of c/lib/archive.c. */
const STATE_BYTES = 40;
const PLAIN_AT = 4;
const OFFSET_AT = 8;

/** ID1 ID2 CM FLG=comment MTIME=0 XFL=0 OS=Unix (RFC 1952, 2.3). */
const GZIP_HEAD = [0x1f, 0x8b, 8, 0x10, 0, 0, 0, 0, 0, 3];
const OURS = Uint8Array.of(
  ...GZIP_HEAD,
  ...terminated("ckpt: stored, not compressed"),
);

/** A fault of an archive's bytes, or of moving them. */
export class ArchiveError extends Error {
  override readonly name = "ArchiveError";
  constructor(readonly errno: number, why = describeErrno(errno)) {
    super(why);
  }
}

function check(result: bigint): void {
  if (result >= 0n) return;
  const errno = Number(-result);
  throw new ArchiveError(
    errno,
    errno === ENODATA
      ? "it ends too early"
      : errno === EBADMSG
      ? "it is damaged: a block or the checksum of gzip is wrong"
      : undefined,
  );
}

function newState(fd: number, offset: number, isPlain: boolean) {
  const state = new Uint8Array(STATE_BYTES);
  const view = new DataView(state.buffer);
  view.setInt32(0, fd, true);
  view.setUint32(PLAIN_AT, isPlain ? 1 : 0, true);
  view.setBigUint64(OFFSET_AT, BigInt(offset), true);
  return state;
}

export class ArchiveWriter {
  readonly #state: Uint8Array<ArrayBuffer>;

  /** @param fd an empty file, open for writing; stays the caller's */
  constructor(fd: number) {
    pwrite(fd, OURS, 0n);
    this.#state = newState(fd, OURS.length, false);
  }

  /** @throws ArchiveError */
  append(bytes: Uint8Array): void {
    check(
      library("archive").ckpt_archive_append(
        this.#state,
        bytes as Uint8Array<ArrayBuffer>,
        -1,
        0n,
        BigInt(bytes.length),
      ),
    );
  }

  /** Bytes of a file. @throws ArchiveError */
  appendFile(fd: number, offset: number, length: number): void {
    check(
      library("archive").ckpt_archive_append(
        this.#state,
        null,
        fd,
        BigInt(offset),
        BigInt(length),
      ),
    );
  }

  /** Completes the stream. @throws ArchiveError */
  end(): void {
    check(library("archive").ckpt_archive_end(this.#state));
  }
}

export class ArchiveReader implements TarSource, Disposable {
  readonly #state: Uint8Array<ArrayBuffer>;

  private constructor(
    fd: number,
    offset: number,
    isPlain: boolean,
    readonly left: () => number,
    readonly inflated?: number,
  ) {
    this.#state = newState(fd, offset, isPlain);
  }

  /**
   * @param fd of the image; stays the caller's
   * @param path of the same, to be read once more when it is compressed
   * @throws ArchiveError
   */
  static async open(fd: number, path: string): Promise<ArchiveReader> {
    const head = new Uint8Array(OURS.length);
    const length = pread(fd, head, 0n);
    if (length === OURS.length && head.every((byte, i) => byte === OURS[i])) {
      const { size } = stat(fd);
      return new ArchiveReader(fd, OURS.length, false, () => Number(size));
    }
    const { fd: inflated, size } = await inflate(path);
    return new ArchiveReader(inflated, 0, true, () => size, inflated);
  }

  take(length: number): Uint8Array {
    // No image can have that many: do not even allocate them.
    if (length > this.left()) {
      throw new ArchiveError(ENODATA, "it ends too early");
    }
    const bytes = new Uint8Array(length);
    check(
      library("archive").ckpt_archive_take(
        this.#state,
        bytes,
        -1,
        0n,
        BigInt(length),
      ),
    );
    return bytes;
  }

  /** The next bytes, to a file. @throws ArchiveError */
  takeToFile(fd: number, offset: number, length: number): void {
    check(
      library("archive").ckpt_archive_take(
        this.#state,
        null,
        fd,
        BigInt(offset),
        BigInt(length),
      ),
    );
  }

  /** Compares the checksum of the whole. @throws ArchiveError */
  finish(): void {
    check(library("archive").ckpt_archive_finish(this.#state));
  }

  [Symbol.dispose](): void {
    if (this.inflated !== undefined) close(this.inflated);
  }
}

const MFD_CLOEXEC = 1n;
/** What a compressed image may hold, for it all is in memory for a while. */
const LARGEST_INFLATED = 64 * 2 ** 30;

async function inflate(path: string): Promise<{ fd: number; size: number }> {
  const name = terminated("archive");
  const fd = Number(syscall("memfd_create", addressOf(name), MFD_CLOEXEC));
  let size = 0;
  try {
    const file = await Deno.open(path);
    const plain = file.readable.pipeThrough(new DecompressionStream("gzip"));
    for await (const chunk of plain) {
      if (size + chunk.length > LARGEST_INFLATED) {
        throw new ArchiveError(EBADMSG, "it holds more than 64 GiB");
      }
      pwrite(fd, chunk, BigInt(size));
      size += chunk.length;
    }
    return { fd, size };
  } catch (error) {
    close(fd);
    if (error instanceof TypeError) {
      throw new ArchiveError(EBADMSG, "it is no gzip stream, or a damaged one");
    }
    throw error;
  }
}
