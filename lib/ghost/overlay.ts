/**
 * What is peculiar about files of overlayfs: one that was in a lower layer when
 * it was deleted keeps the link count it has there.
 */
import {
  addressOf,
  AT_FDCWD,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";

export const OVERLAY = 0x794c7630n;

const AT_SYMLINK_FOLLOW = 0x400n;
const AT_HANDLE_FID = 0x200n;
const HANDLE_HEAD = 8;
const HANDLE_BYTES = 128;
/** struct ovl_fb of fs/overlayfs/overlayfs.h, after three bytes of padding. */
const MAGIC_AT = HANDLE_HEAD + 4;
const FLAGS_AT = HANDLE_HEAD + 6;
const OVL_FH_MAGIC = 0xfb;
const OVL_FH_FLAG_PATH_UPPER = 0x04;

/**
 * Whether a file was made in the upper layer, so that its link count is true.
 * The kernel tells by the handle; Linux before 6.6 tells nothing.
 *
 * @param at a magic link that leads to it
 */
export function isOfUpperLayer(at: string): boolean {
  const handle = new Uint8Array(HANDLE_HEAD + HANDLE_BYTES);
  new DataView(handle.buffer).setUint32(0, HANDLE_BYTES, true);
  try {
    syscallBuffer1(
      "name_to_handle_at",
      BigInt(AT_FDCWD),
      terminated(encodeText(at)),
      addressOf(handle),
      addressOf(new Uint8Array(8)),
      AT_SYMLINK_FOLLOW | AT_HANDLE_FID,
    );
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
  return handle[MAGIC_AT] === OVL_FH_MAGIC &&
    (handle[FLAGS_AT] & OVL_FH_FLAG_PATH_UPPER) !== 0;
}
