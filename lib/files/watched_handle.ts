/** The handle of a watched file, as fdinfo shows it and as `fh_entry`. */
import { type FileHandle, LONGEST_HANDLE } from "../ghost/handles.ts";
import type { fh_entry } from "../image/schema.gen.ts";

/** What fdinfo shows of it, with three groups (show_mark_fhandle). */
export const HANDLE_FORM =
  "(?:fhandle-bytes:([0-9a-f]+) fhandle-type:([0-9a-f]+) f_handle:([0-9a-f]*))?";

/** @param groups of {@link HANDLE_FORM} */
export function readHandle(
  [length, type, bytes]: readonly (string | undefined)[],
): FileHandle | undefined {
  if (length === undefined || type === undefined || bytes === undefined) {
    return undefined;
  }
  return {
    type: parseInt(type, 16),
    bytes: Uint8Array.fromHex(bytes).subarray(0, parseInt(length, 16)),
  };
}

/** Words that CRIU has in every handle. */
const WORDS = 16;

export function describeHandle(
  handle: FileHandle | undefined,
  path: string | undefined,
): fh_entry {
  const padded = new Uint8Array(LONGEST_HANDLE);
  if (handle !== undefined) padded.set(handle.bytes);
  return {
    bytes: handle?.bytes.length ?? 0,
    type: handle?.type ?? 0,
    handle: [...new BigUint64Array(padded.buffer, 0, WORDS)],
    path,
  };
}

/** @returns undefined when the image has none */
export function handleOf({ bytes, type, handle }: fh_entry):
  | FileHandle
  | undefined {
  if (bytes === 0) return undefined;
  const words = BigUint64Array.from(handle);
  return { type, bytes: new Uint8Array(words.buffer).slice(0, bytes) };
}
