/**
 * Small files, of /proc and of images, each by one native call: there are
 * dozens of them for every process, and Deno's own functions take several
 * system calls for each.
 */
import { ENOBUFS } from "./errno.ts";
import { library } from "./library.ts";
import { passing, SyscallError } from "./syscall.ts";
import { encodeText } from "./text.ts";

/** All but the maps of large programs; grows when that is not enough. */
let bytes = new Uint8Array(64 * 1024);
/** As many descriptors as most processes have: a second try costs as much again. */
let numbers = new Int32Array(16384);

/**
 * The whole of a file.
 *
 * @returns bytes that are good until the next call
 * @throws SyscallError
 */
export function readSmallFile(path: string): Uint8Array<ArrayBuffer> {
  return readInto(path, "ckpt_read_file");
}

/**
 * The lines of smaps that have no counters: a tenth of all.
 *
 * @returns bytes that are good until the next call
 * @throws SyscallError
 */
export function readSmapsFile(path: string): Uint8Array<ArrayBuffer> {
  return readInto(path, "ckpt_read_smaps");
}

function readInto(
  path: string,
  call: "ckpt_read_file" | "ckpt_read_smaps",
): Uint8Array<ArrayBuffer> {
  const name = passing(path);
  for (;;) {
    const length = Number(
      library("files")[call](name, bytes, BigInt(bytes.length)),
    );
    if (length >= 0) return bytes.subarray(0, length);
    if (length !== -ENOBUFS) throw new SyscallError("open", -length);
    bytes = new Uint8Array(bytes.length * 4);
  }
}

/** A file that is to be looked at, and how it was when it was written. */
export interface WrittenFile {
  readonly name: string;
  readonly size: number;
  /** SHA-256 in hexadecimal; undefined: it is not read. */
  readonly sha256?: string | undefined;
}

const DIGEST_BYTES = 32;

/**
 * Compares the files of a directory with what was written, all by one call. The
 * content of those with a checksum has to fit into memory.
 *
 * @returns for each whether it is as it was; and what those with a checksum
 * hold, where they are
 * @throws SyscallError when there is no such directory
 */
export function readWrittenFiles(
  directory: string,
  files: readonly WrittenFile[],
): { isUnchanged: boolean; content?: Uint8Array }[] {
  const read = files.filter(({ sha256 }) => sha256 !== undefined);
  const sizes = BigInt64Array.from(
    files,
    ({ size, sha256 }) => BigInt(sha256 === undefined ? -1 : size),
  );
  const contents = new Uint8Array(
    read.reduce((sum, { size }) => sum + size, 0),
  );
  const digests = new Uint8Array(read.length * DIGEST_BYTES);
  const result = library("images").ckpt_read_files(
    passing(directory),
    encodeText(files.map(({ name }) => `${name}\0`).join("")),
    BigInt(files.length),
    new Uint8Array(sizes.buffer),
    contents,
    digests,
  );
  if (result < 0n) throw new SyscallError("open", Number(-result));
  const found = digests.toHex();
  const HEX = 2 * DIGEST_BYTES;
  let [at, number] = [0, 0];
  return files.map(({ size, sha256 }, i) => {
    const isAsLong = Number(sizes[i]) === size;
    if (sha256 === undefined) return { isUnchanged: isAsLong };
    const content = contents.subarray(at, at += size);
    const digest = found.slice(number, number += HEX);
    return { isUnchanged: isAsLong && digest === sha256, content };
  });
}

/**
 * What links in a directory lead to, each with a newline.
 *
 * @param names each terminated, and an empty one behind them
 * @returns bytes that are good until the next call
 * @throws SyscallError
 */
export function readLinks(
  directory: string,
  names: Uint8Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  const length = Number(
    library("files").ckpt_read_links(
      passing(directory),
      names,
      bytes,
      BigInt(bytes.length),
    ),
  );
  if (length < 0) throw new SyscallError("readlinkat", -length);
  return bytes.subarray(0, length);
}

/**
 * The names in a directory that are numbers, ascending: pids in /proc, threads
 * in /proc/PID/task, descriptors in /proc/PID/fd.
 *
 * @throws SyscallError
 */
export function listNumbers(path: string): number[] {
  const name = passing(path);
  for (;;) {
    const count = Number(
      library("files").ckpt_list_numbers(
        name,
        new Uint8Array(numbers.buffer),
        BigInt(numbers.length),
      ),
    );
    if (count >= 0) return [...numbers.subarray(0, count).sort()];
    if (count !== -ENOBUFS) throw new SyscallError("open", -count);
    numbers = new Int32Array(numbers.length * 4);
  }
}

/**
 * Makes a file that only its owner may read.
 *
 * @throws SyscallError, EEXIST when there is one of that name
 */
export function writeNewFile(path: string, bytes: Uint8Array): void {
  const result = library("images").ckpt_write_file(
    passing(path),
    bytes as Uint8Array<ArrayBuffer>,
    BigInt(bytes.length),
  );
  if (result < 0n) throw new SyscallError("write", Number(-result));
}
