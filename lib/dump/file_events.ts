/** Events of fanotify(7) and inotify(7) about single files, as they are read. */
import {
  addressOf,
  AT_FDCWD,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";

/** linux/fanotify.h and linux/inotify.h: the same bits. */
export const FAN_EVENT = {
  modify: 0x2,
  attrib: 0x4,
  deleteSelf: 0x400,
  moveSelf: 0x800,
} as const;
export const IN_EVENT = FAN_EVENT;

export interface FileEvent {
  /** A handle (fanotify) or the number of a watch (inotify). */
  readonly key: string | number;
  /** Who did it, where that is told. */
  readonly pid: number | undefined;
  /** "it was modified" */
  readonly what: string;
}

const WORDS: readonly (readonly [bit: number, what: string])[] = [
  [FAN_EVENT.deleteSelf, "it was deleted"],
  [FAN_EVENT.moveSelf, "it was renamed"],
  [FAN_EVENT.modify, "it was modified"],
  [
    FAN_EVENT.attrib,
    "its permissions, times, attributes or names were changed",
  ],
];

function wordsFor(mask: number): string | undefined {
  return WORDS.find(([bit]) => (mask & bit) !== 0)?.[1];
}

const METADATA = 24;
const INFO_FID = 1;
/** Of struct fanotify_event_info_fid, before its handle. */
const INFO_HEAD = 12;
const HANDLE_HEAD = 8;

/** Events with FAN_REPORT_FID. */
export function parseFanotify(bytes: Uint8Array): FileEvent[] {
  const view = viewOf(bytes);
  const events: FileEvent[] = [];
  for (let at = 0; at + METADATA <= bytes.length;) {
    const length = view.getUint32(at, true);
    if (length < METADATA || at + length > bytes.length) break;
    const what = wordsFor(view.getUint32(at + 8, true));
    const pid = view.getInt32(at + 20, true);
    let info = at + view.getUint16(at + 6, true);
    while (
      what !== undefined && info + INFO_HEAD + HANDLE_HEAD <= at + length
    ) {
      const size = view.getUint16(info + 2, true);
      if (size < INFO_HEAD + HANDLE_HEAD) break;
      if (view.getUint8(info) === INFO_FID) {
        const start = info + INFO_HEAD;
        const handle = HANDLE_HEAD + view.getUint32(start, true);
        events.push({
          key: bytes.subarray(start, start + handle).toHex(),
          pid,
          what,
        });
      }
      info += size;
    }
    at += length;
  }
  return events;
}

const INOTIFY_HEAD = 16;

export function parseInotify(bytes: Uint8Array): FileEvent[] {
  const view = viewOf(bytes);
  const events: FileEvent[] = [];
  for (let at = 0; at + INOTIFY_HEAD <= bytes.length;) {
    const what = wordsFor(view.getUint32(at + 4, true));
    if (what !== undefined) {
      events.push({ key: view.getInt32(at, true), pid: undefined, what });
    }
    at += INOTIFY_HEAD + view.getUint32(at + 12, true);
  }
  return events;
}

function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}

const MAX_HANDLE = 128;
const AT_HANDLE_FID = 0x200n;

/**
 * The handle of a file as events name it (struct file_handle).
 *
 * @returns undefined where the kernel gives none
 */
export function handleKey(path: string): string | undefined {
  // Before Linux 6.5 that flag is not known; what has handles has them without.
  return handleOf(path, AT_HANDLE_FID) ?? handleOf(path, 0n);
}

function handleOf(path: string, flags: bigint): string | undefined {
  const handle = new Uint8Array(HANDLE_HEAD + MAX_HANDLE);
  const view = viewOf(handle);
  view.setUint32(0, MAX_HANDLE, true);
  const mountId = new Uint8Array(4);
  try {
    syscallBuffer1(
      "name_to_handle_at",
      BigInt(AT_FDCWD),
      terminated(encodeText(path)),
      addressOf(handle),
      addressOf(mountId),
      flags,
    );
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
  return handle.subarray(0, HANDLE_HEAD + view.getUint32(0, true)).toHex();
}
