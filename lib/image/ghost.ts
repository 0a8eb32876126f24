/**
 * The image of a file that has no name any more: a header, then its content,
 * whole or in chunks between holes. Contents can be large and are copied by
 * native code; here is only found where they lie.
 */

import { decodeEntry, decodeImage, readMagic } from "./framing.ts";
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

/** What a chunk's size and message take at most when nothing fills them up. */
const CHUNK_HEAD_BYTES = 64;
/** Blocks that file systems share between files have this size, or are parts. */
const BLOCK = 4096;
const SIZE_BYTES = 4;

/**
 * What goes before `length` bytes that belong at `offset`: a ghost_chunk_entry
 * with its size. By hand, for there are thousands in a file with many holes.
 */
export function encodeGhostChunk(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(CHUNK_HEAD_BYTES);
  let at = SIZE_BYTES;
  for (const [tag, value] of [[1 << 3, length], [2 << 3, offset]]) {
    bytes[at++] = tag;
    let rest = value;
    for (; rest >= 0x80; rest = Math.floor(rest / 0x80)) {
      bytes[at++] = rest % 0x80 | 0x80;
    }
    bytes[at++] = rest;
  }
  bytes[0] = at - SIZE_BYTES;
  return bytes.subarray(0, at);
}

/**
 * The same, filled up so that the content lies in the image as it lies in the
 * blocks of the file: a file system that can share blocks need not copy them.
 * The filling is a field that nobody knows.
 *
 * @param position where in the image it will be
 */
export function encodeAlignedGhostChunk(
  offset: number,
  length: number,
  position: number,
): Uint8Array {
  const head = encodeGhostChunk(offset, length);
  let missing = (offset - position - head.length) % BLOCK;
  if (missing < 0) missing += BLOCK;
  if (missing === 0) return head;
  if (missing < FILLING_HEAD_BYTES) missing += BLOCK;
  const filled = new Uint8Array(head.length + missing);
  filled.set(head);
  const bytes = missing - FILLING_HEAD_BYTES;
  // Field 15, a length of two bytes, and that many zeros.
  filled.set([15 << 3 | 2, bytes & 0x7f | 0x80, bytes >> 7], head.length);
  new DataView(filled.buffer).setUint32(0, filled.length - SIZE_BYTES, true);
  return filled;
}

const FILLING_HEAD_BYTES = 3;

/** The bytes of an image at `position` that hold the head of a chunk. */
function readChunkHead(file: Deno.FsFile, position: number): Uint8Array {
  const bytes = readAt(file, position, CHUNK_HEAD_BYTES);
  if (bytes.length < SIZE_BYTES) return bytes;
  const size = SIZE_BYTES +
    new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  return size <= bytes.length || size > CHUNK_HEAD_BYTES + 2 * BLOCK
    ? bytes
    : readAt(file, position, size);
}

/**
 * The same of a file that is in memory, when its content is in one piece.
 *
 * @param bytes all of it
 * @returns undefined when it is in chunks
 * @throws CkptError when it is damaged
 */
export function decodeWholeGhost(
  { directory }: ImageSet,
  id: number,
  bytes: Uint8Array,
): GhostImage | undefined {
  const source = { directory, name: imageName("ghost-file", id) };
  const entry = decodeImage("ghost-file", bytes, source);
  if (entry.chunks) return undefined;
  const head = new Reader(bytes);
  readMagic(head, "ghost-file", source);
  const length = head.fixed32();
  const position = head.pos + length;
  return { entry, chunks: wholeContent(bytes.length, position) };
}

function wholeContent(size: number, position: number): GhostChunk[] {
  const length = size - position;
  return length > 0 ? [{ offset: 0, length, position }] : [];
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
    return { entry, chunks: wholeContent(size, position) };
  }
  const chunks: GhostChunk[] = [];
  let end = 0;
  while (position < size) {
    const number = chunks.length + 1;
    const wrong = (field: string, why: string) =>
      imageError(set.directory, [{ file: name, entry: number, field, why }]);
    const reader = new Reader(readChunkHead(file, position));
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
