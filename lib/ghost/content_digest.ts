/** A checksum of what a file holds, or of its beginning. */
import { pread } from "../ffi/syscall.ts";

/** What is held in memory at a time. */
const BLOCK = 16 << 20;

export interface ContentDigest {
  /**
   * SHA-256; of files of more than one block of 16 MiB, that of the checksums
   * of their blocks one after another.
   */
  readonly digest: Uint8Array;
  /** How many bytes from the beginning it is of. */
  readonly bytes: number;
}

/** @param atMost bytes */
export async function digestContent(
  fd: number,
  atMost: number,
): Promise<ContentDigest> {
  const digests: Uint8Array[] = [];
  let bytes = 0;
  for (;;) {
    const block = new Uint8Array(Math.min(BLOCK, atMost - bytes));
    const length = pread(fd, block, BigInt(bytes));
    if (length === 0 && digests.length > 0) break;
    digests.push(await sha256(block.subarray(0, length)));
    bytes += length;
    if (length < BLOCK || bytes === atMost) break;
  }
  if (digests.length === 1) return { digest: digests[0], bytes };
  const all = new Uint8Array(digests.length * digests[0].length);
  digests.forEach((one, i) => all.set(one, i * one.length));
  return { digest: await sha256(all), bytes };
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
