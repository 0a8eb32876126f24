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
import { type CallArgument, Calls, Slots } from "../ffi/calls.ts";
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
 * Opens files by their handles, as O_PATH.
 *
 * @param directory any on the file system. It becomes the working directory for
 * the moment: opening it could be seen by those who watch it.
 * @returns undefined for what is not there, or cannot be found so
 */
export function openByHandles(
  directory: string,
  handles: readonly FileHandle[],
): (number | undefined)[] {
  const slots = new Slots(HEAD + LONGEST_HANDLE, handles.length);
  for (const [i, { type, bytes }] of handles.entries()) {
    const at = i * slots.size;
    slots.view.setUint32(at, bytes.length, true);
    slots.view.setInt32(at + 4, type, true);
    slots.bytes.set(bytes, at + HEAD);
  }
  const calls = new Calls();
  const opened = calls.add("open_by_handle_at", [
    AT_FDCWD,
    { slots },
    O.PATH | O.CLOEXEC,
  ]);
  const before = open(".", O.PATH | O.DIRECTORY);
  try {
    syscallBuffer0("chdir", terminated(encodeText(directory)));
    calls.run(handles.length);
    return handles.map((_, i) => {
      const fd = calls.result(i, opened);
      return fd < 0 ? undefined : fd;
    });
  } catch (error) {
    if (error instanceof SyscallError) return handles.map(() => undefined);
    throw error;
  } finally {
    syscall("fchdir", BigInt(before));
    close(before);
  }
}

export function openByHandle(
  directory: string,
  handle: FileHandle,
): number | undefined {
  return openByHandles(directory, [handle])[0];
}

/** Calls that ask for the handles of many files, links not followed. */
export class AskedHandles {
  readonly #slots: Slots;
  readonly #call: number;

  /**
   * @param calls which get one more: to be run for that many paths
   * @param at the first two arguments of calls ending in at
   */
  constructor(
    readonly calls: Calls,
    at: readonly [CallArgument, CallArgument],
    count: number,
  ) {
    this.#slots = new Slots(HEAD + LONGEST_HANDLE, count);
    for (let i = 0; i < count; i++) {
      this.#slots.view.setUint32(i * this.#slots.size, LONGEST_HANDLE, true);
    }
    this.#call = calls.add("name_to_handle_at", [
      ...at,
      { slots: this.#slots },
      { slots: new Slots(8, count) },
      Number(AT_HANDLE_FID),
    ]);
  }

  /** False when the file is not there, or the kernel knows no such call. */
  isKnown(i: number): boolean {
    return this.calls.result(i, this.#call) >= 0;
  }

  is(i: number, { type, bytes }: FileHandle): boolean {
    const { view, bytes: all, size } = this.#slots;
    const at = i * size;
    return view.getInt32(at + 4, true) === type &&
      view.getUint32(at, true) === bytes.length &&
      bytes.every((byte, n) => byte === all[at + HEAD + n]);
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
