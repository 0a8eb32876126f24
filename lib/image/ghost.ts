/**
 * The image of a file that has no name any more: a header, then its content,
 * whole or in chunks between holes. Contents can be large and are copied by
 * native code; here is only found where they lie.
 */

import { decodeEntry, encodeEntry, readMagic } from "./framing.ts";
import { entryError, imageError } from "./image_error.ts";
import type { ImageSet } from "./image_set.ts";
import { imageName } from "./kinds.ts";
import { LIMITS } from "./limits.ts";
import { messageType } from "./message.ts";
import { Reader } from "./protobuf.ts";
import { readAt } from "./read_at.ts";
import type { ghost_chunk_entry, ghost_file_entry } from "./schema.gen.ts";

export interface GhostChunk {
  /** Where the bytes belong in the file. */
  offset: number;
  length: number;
  /** Where they lie in the image. */
  position: number;
}

export interface GhostImage {
  entry: ghost_file_entry;
  /** Ascending, without overlap; between them are holes. */
  chunks: GhostChunk[];
}

/** More than a chunk's size and message can take. */
const CHUNK_HEAD_BYTES = 64;

/** What goes before `length` bytes that belong at `offset`. */
export function encodeGhostChunk(offset: number, length: number): Uint8Array {
  return encodeEntry(messageType("ghost_chunk_entry"), {
    len: BigInt(length),
    off: BigInt(offset),
  });
}

/**
 * Reads the header of a ghost file and finds its content.
 * @throws CkptError when it is missing or damaged
 */
export function readGhost(set: ImageSet, id: number): GhostImage {
  const entry = set.require("ghost-file", id);
  const name = imageName("ghost-file", id);
  const source = { directory: set.directory, name };
  using file = Deno.openSync(set.path(name));
  const { size } = file.statSync();
  const head = new Reader(readAt(file, 0, LIMITS.ghost_head_bytes));
  readMagic(head, "ghost-file", source);
  decodeEntry(head, messageType("ghost_file_entry"));
  let position = head.pos;
  if (!entry.chunks) {
    const length = size - position;
    return {
      entry,
      chunks: length > 0 ? [{ offset: 0, length, position }] : [],
    };
  }
  const chunks: GhostChunk[] = [];
  let end = 0;
  while (position < size) {
    const number = chunks.length + 1;
    const wrong = (field: string, why: string) =>
      imageError(set.directory, [{ file: name, entry: number, field, why }]);
    const reader = new Reader(readAt(file, position, CHUNK_HEAD_BYTES));
    let chunk: ghost_chunk_entry;
    try {
      chunk = decodeEntry(
        reader,
        messageType("ghost_chunk_entry"),
      ) as ghost_chunk_entry;
    } catch (error) {
      throw entryError(set.directory, name, number, error);
    }
    position += reader.pos;
    const offset = Number(chunk.off);
    const length = Number(chunk.len);
    if (length > size - position) {
      throw wrong("len", `${length} bytes, but ${size - position} are left`);
    }
    if (offset < end) throw wrong("off", `${offset} is before ${end}`);
    end = offset + length;
    if (end > Number(entry.size ?? 0)) {
      throw wrong("off", `${end} is beyond the file's ${entry.size} bytes`);
    }
    if (number > LIMITS.entries) {
      throw wrong("", `is beyond the limit of ${LIMITS.entries}`);
    }
    chunks.push({ offset, length, position });
    position += length;
  }
  return { entry, chunks };
}
