/**
 * The frame around the messages of a file: magic numbers, then for each entry
 * its size in four bytes, the message, and what follows it. Little-endian.
 */

import { decodeExtra, encodeExtra } from "./extra.ts";
import { entryError, imageError } from "./image_error.ts";
import {
  type Content,
  IMAGE_FILES,
  type ImageKind,
  IMG_COMMON_MAGIC,
  IMG_SERVICE_MAGIC,
  isService,
  type Pagemap,
} from "./kinds.ts";
import { LIMITS } from "./limits.ts";
import {
  decodeMessage,
  encodeMessage,
  FieldError,
  type MessageType,
  messageType,
} from "./message.ts";
import { Reader, Writer } from "./protobuf.ts";
import type { pagemap_entry, pagemap_head } from "./schema.gen.ts";

/** Where bytes come from, for errors. */
export interface Source {
  directory: string;
  /** The file's name within it. */
  name: string;
}

// ---------------------------------------------------------------- writing

/**
 * The bytes of a whole file.
 * @throws FieldError when a value does not fit its field
 */
export function encodeImage<K extends ImageKind>(
  kind: K,
  content: Content<K>,
): Uint8Array {
  const file = IMAGE_FILES[kind];
  const writer = startImage(kind);
  if (file.count === "pagemap") {
    const { pages_id, entries } = content as Pagemap;
    appendEntry(writer, messageType("pagemap_head"), { pages_id });
    const type = messageType("pagemap_entry");
    for (const entry of entries) appendEntry(writer, type, entry);
  } else {
    const type = messageType(file.message);
    const entries = file.count === "many" ? content as unknown[] : [content];
    for (const entry of entries) {
      appendEntry(writer, type, entry);
      encodeExtra(writer, file.extra, file.message, entry);
    }
  }
  return writer.finish(true);
}

function startImage(kind: ImageKind): Writer {
  const writer = new Writer();
  if (kind !== "inventory") {
    writer.fixed32(isService(kind) ? IMG_SERVICE_MAGIC : IMG_COMMON_MAGIC);
  }
  return writer.fixed32(IMAGE_FILES[kind].magic);
}

/** Appends size and message. */
function appendEntry(
  writer: Writer,
  type: MessageType,
  entry: unknown,
): void {
  const start = writer.pos;
  writer.fixed32(0);
  encodeMessage(writer, type, entry);
  const size = writer.pos - start - 4;
  if (size > LIMITS.entry_bytes) {
    throw new FieldError(
      "",
      `${type.name} is ${size} bytes long, more than ${LIMITS.entry_bytes}`,
    );
  }
  const { buf } = writer;
  for (let i = 0; i < 4; i++) buf[start + i] = size >>> 8 * i;
}

/**
 * The bytes of one entry without magic, for those who write a file piece by
 * piece.
 */
export function encodeEntry(type: MessageType, entry: unknown): Uint8Array {
  const writer = new Writer();
  appendEntry(writer, type, entry);
  return writer.finish();
}

// ---------------------------------------------------------------- reading

/**
 * Decodes a whole file; of a ghost file the beginning is enough.
 * @throws CkptError naming file, entry and field
 */
export function decodeImage<K extends ImageKind>(
  kind: K,
  bytes: Uint8Array,
  source: Source,
): Content<K> {
  const file = IMAGE_FILES[kind];
  const reader = new Reader(bytes);
  readMagic(reader, kind, source);
  if (file.count === "pagemap") {
    return decodePagemap(reader, source) as Content<K>;
  }
  const type = messageType(file.message);
  const entries: unknown[] = [];
  while (reader.pos < bytes.length) {
    const number = entries.length;
    if (number >= LIMITS.entries) {
      throw imageError(source.directory, [{
        file: source.name,
        why: `has more than ${LIMITS.entries} entries`,
      }]);
    }
    try {
      const entry = decodeEntry(reader, type);
      entries.push(entry);
      decodeExtra(reader, file.extra, file.message, entry);
    } catch (error) {
      throw entryError(source.directory, source.name, number, error);
    }
    if (file.count === "one") break;
  }
  if (file.count === "many") return entries as unknown as Content<K>;
  if (entries.length === 0) throw noEntry(source);
  if (reader.pos < bytes.length && file.extra !== "content") {
    throw imageError(source.directory, [{
      file: source.name,
      why: `has ${bytes.length - reader.pos} bytes behind its only entry`,
    }]);
  }
  return entries[0] as Content<K>;
}

function decodePagemap(reader: Reader, source: Source): Pagemap {
  const { length } = reader.buf;
  if (reader.pos === length) throw noEntry(source);
  const type = messageType("pagemap_entry");
  const entries: pagemap_entry[] = [];
  let number = 0;
  try {
    const head = decodeEntry(reader, messageType("pagemap_head"));
    for (number = 1; reader.pos < length; number++) {
      if (number > LIMITS.entries) {
        throw new FieldError("", `is beyond the limit of ${LIMITS.entries}`);
      }
      entries.push(decodeEntry(reader, type) as pagemap_entry);
    }
    return { pages_id: (head as pagemap_head).pages_id, entries };
  } catch (error) {
    throw entryError(source.directory, source.name, number, error);
  }
}

function noEntry(source: Source) {
  return imageError(source.directory, [{
    file: source.name,
    why: "holds no entry",
  }]);
}

/**
 * Reads size and message, and stands behind them.
 * @throws FieldError
 */
export function decodeEntry(reader: Reader, type: MessageType): unknown {
  const size = readSize(reader);
  return decodeMessage(reader, reader.pos + size, type);
}

/** The size in front of a message, checked against the limit and the file. */
function readSize(reader: Reader): number {
  const left = reader.len - reader.pos;
  if (left < 4) {
    throw new FieldError("", `only ${left} bytes are left, not even a size`);
  }
  const size = reader.fixed32();
  if (size > LIMITS.entry_bytes) {
    throw new FieldError(
      "",
      `says it is ${size} bytes long, more than ${LIMITS.entry_bytes}`,
    );
  }
  if (size > left - 4) {
    throw new FieldError(
      "",
      `says it is ${size} bytes long, but only ${left - 4} are left`,
    );
  }
  return size;
}

/**
 * Reads the magic numbers.
 * @throws CkptError when they are not those of this kind
 */
export function readMagic(
  reader: Reader,
  kind: ImageKind,
  source: Source,
): void {
  const wrong = (why: string, remedy?: string) =>
    imageError(source.directory, [{ file: source.name, why, remedy }]);
  const { magic } = IMAGE_FILES[kind];
  const words = kind === "inventory" ? 1 : 2;
  if (reader.len === 0) throw wrong("is empty");
  if (reader.len < 4 * words) {
    throw wrong(`is ${reader.len} bytes long, too short for an image`);
  }
  const first = reader.fixed32();
  if (words === 2 && first === magic) {
    throw wrong(
      "has the framing of version 1.0, which ckpt does not read",
      "restore it with a CRIU of that time, and dump again",
    );
  }
  const head = isService(kind) ? IMG_SERVICE_MAGIC : IMG_COMMON_MAGIC;
  if (words === 2 && first !== head) {
    throw wrong(`begins with ${hex(first)}, not with ${hex(head)}`);
  }
  const own = words === 2 ? reader.fixed32() : first;
  if (own !== magic) {
    throw wrong(
      `has the magic ${hex(own)}${owner(own)}, not ${hex(magic)}`,
    );
  }
}

function owner(magic: number): string {
  const kind = Object.entries(IMAGE_FILES)
    .find(([_, file]) => file.magic === magic);
  return kind === undefined ? "" : ` of a ${kind[0]} image`;
}

function hex(word: number): string {
  return `0x${word.toString(16).padStart(8, "0")}`;
}
