/**
 * File handles (name_to_handle_at(2)): how the kernel tells which file a watch
 * is on. Asking causes no event that the program could see.
 */
import {
  addressOf,
  AT_FDCWD,
  close,
  O,
  open,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { EINVAL } from "../ffi/errno.ts";
import { encodeText } from "../ffi/text.ts";

export interface FileHandle {
  readonly type: number;
  readonly bytes: Uint8Array;
}

/** MAX_HANDLE_SZ of linux/exportfs.h. */
export const LONGEST_HANDLE = 128;
const HEAD = 8;

/** Linux 6.5: a handle that only tells files apart, of every file system. */
const AT_HANDLE_FID = 0x200n;

/**
 * The handle of the file at a path, links not followed; undefined when it is
 * not there, or its file system has none.
 */
export function handleAt(path: string): FileHandle | undefined {
  return askHandle(path, AT_HANDLE_FID);
}

/** An answer that nobody looks at. */
const mountId = new Uint8Array(8);

function askHandle(path: string, flags: bigint): FileHandle | undefined {
  const buffer = new Uint8Array(HEAD + LONGEST_HANDLE);
  const view = new DataView(buffer.buffer);
  view.setUint32(0, LONGEST_HANDLE, true);
  try {
    syscallBuffer1(
      "name_to_handle_at",
      BigInt(AT_FDCWD),
      terminated(encodeText(path)),
      addressOf(buffer),
      addressOf(mountId),
      flags,
    );
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.errno === EINVAL && flags !== 0n
      ? askHandle(path, 0n)
      : undefined;
  }
  const length = view.getUint32(0, true);
  return {
    type: view.getInt32(4, true),
    bytes: buffer.slice(HEAD, HEAD + length),
  };
}

export function isSameHandle(a: FileHandle, b: FileHandle): boolean {
  return a.type === b.type && a.bytes.length === b.bytes.length &&
    a.bytes.every((byte, i) => byte === b.bytes[i]);
}

/**
 * Opens a file by its handle, as O_PATH.
 *
 * @param directory any on the file system. It becomes the working directory for
 * the moment: opening it could be seen by those who watch it.
 * @returns undefined when the file is not there, or cannot be found so
 */
export function openByHandle(
  directory: string,
  { type, bytes }: FileHandle,
): number | undefined {
  const buffer = new Uint8Array(HEAD + bytes.length);
  const view = new DataView(buffer.buffer);
  view.setUint32(0, bytes.length, true);
  view.setInt32(4, type, true);
  buffer.set(bytes, HEAD);
  const before = open(".", O.PATH | O.DIRECTORY);
  try {
    syscallBuffer0("chdir", terminated(encodeText(directory)));
    return Number(
      syscall(
        "open_by_handle_at",
        BigInt(AT_FDCWD),
        addressOf(buffer),
        BigInt(O.PATH | O.CLOEXEC),
      ),
    );
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  } finally {
    syscall("fchdir", BigInt(before));
    close(before);
  }
}

const OVERLAY_TYPE = 0xf8;
const OVERLAY_MAGIC = 0xfb;
/** struct ovl_fb of fs/overlayfs/overlayfs.h begins here. */
const PADDING = 3;
const [MAGIC_AT, LENGTH_AT, TYPE_AT, HANDLE_AT] = [4, 5, 7, 24];

/** The handle, on its own file system, of a file that overlayfs shows. */
export function layerHandle(
  { type, bytes }: FileHandle,
): FileHandle | undefined {
  if (
    type !== OVERLAY_TYPE || bytes.length <= HANDLE_AT ||
    bytes[MAGIC_AT] !== OVERLAY_MAGIC
  ) return undefined;
  const end = PADDING + bytes[LENGTH_AT];
  return { type: bytes[TYPE_AT], bytes: bytes.slice(HANDLE_AT, end) };
}
