/** SHA-256, at once: a promise for each small file costs more than the sum. */
import { library } from "./library.ts";

const DIGEST_BYTES = 32;

/**
 * @param portable without the instructions that the processor may have for it
 * @returns hexadecimal
 */
export function sha256(bytes: Uint8Array, portable = false): string {
  const digest = new Uint8Array(DIGEST_BYTES);
  library("images").ckpt_sha256(
    bytes as Uint8Array<ArrayBuffer>,
    BigInt(bytes.length),
    digest,
    portable ? 1 : 0,
  );
  return digest.toHex();
}
