/**
 * The image of a file that has no name any more: a header, then its content,
 * whole or in chunks between holes. Contents can be large and are copied by
 * native code; here is only found where they lie.
 */

import { library } from "../ffi/library.ts";
import { close, O, open } from "../ffi/syscall.ts";
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
  const accept = ({ offset, length, position: at }: GhostChunk) => {
    const number = chunks.length + 1;
    const wrong = (field: string, why: string) =>
      imageError(set.directory, [{ file: name, entry: number, field, why }]);
    if (length > size - at) {
      throw wrong("len", `${length} bytes, but ${size - at} are left`);
    }
    if (offset < end) throw wrong("off", `${offset} is before ${end}`);
    end = offset + length;
    if (end > Number(entry.size ?? 0)) {
      throw wrong("off", `${end} is beyond the file's ${entry.size} bytes`);
    }
    if (number > LIMITS.entries) {
      throw wrong("", `is beyond the limit of ${LIMITS.entries}`);
    }
    chunks.push({ offset, length, position: at });
    position = at + length;
  };
  for (const chunk of usualChunks(set.path(name), position, size)) {
    accept(chunk);
  }
  while (position < size) {
    const reader = new Reader(readChunkHead(file, position));
    let chunk: ghost_chunk_entry;
    try {
      chunk = decodeEntry(
        reader,
        messageType("ghost_chunk_entry"),
      ) as ghost_chunk_entry;
    } catch (error) {
      throw entryError(set.directory, name, chunks.length + 1, error);
    }
    accept({
      offset: Number(chunk.off),
      length: Number(chunk.len),
      position: position + reader.pos,
    });
  }
  return { entry, chunks };
}

/** Asked for at once. */
const CHUNKS = 4096;

/**
 * The chunks from `position` on, up to the first that is not as ckpt makes them:
 * found by native code, for there are thousands in a file with many holes.
 */
function* usualChunks(
  path: string,
  position: number,
  size: number,
): Generator<GhostChunk> {
  const fd = open(path, O.RDONLY);
  try {
    const found = new BigUint64Array(3 * CHUNKS);
    let count: number;
    do {
      count = Number(
        library("chunks").ckpt_list_chunks(
          fd,
          BigInt(position),
          BigInt(size),
          new Uint8Array(found.buffer),
          BigInt(CHUNKS),
        ),
      );
      for (let i = 0; i < 3 * count; i += 3) {
        const [offset, length, at] = [0, 1, 2].map((n) => Number(found[i + n]));
        position = at + length;
        yield { offset, length, position: at };
      }
    } while (count === CHUNKS);
  } finally {
    close(fd);
  }
}
