/** Reads tars: those of ckpt, and those of GNU tar. */
import { decodeText } from "../ffi/text.ts";
import type { Time } from "../ghost/calls.ts";
import type { Segment } from "../ghost/content.ts";
import {
  BLOCK,
  FIELD,
  type Field,
  FLAGS_KEY,
  paddingAfter,
  type PlacedSocket,
  SOCKETS_KEY,
  type TreeEntry,
  TYPES,
  type Xattr,
  XATTR_KEY,
} from "./tar.ts";

const GNU_MAGIC = "ustar  \0";

/** The sum of all bytes, those of the sum itself taken for spaces. */
function checksum(block: Uint8Array): number {
  const [at, length] = FIELD.checksum;
  let sum = length * 0x20;
  for (let i = 0; i < BLOCK; i++) {
    if (i < at || i >= at + length) sum += block[i];
  }
  return sum;
}

/** A fault of an archive, in words; the reader of the image says which. */
export class TarError extends Error {
  override readonly name = "TarError";
}

/** Where the bytes of an archive come from, in order. */
export interface TarSource {
  /** The next bytes, exactly as many. Throws when there are less. */
  take(length: number): Uint8Array;
}

/** Bytes of the records of one entry: the attributes of a file fit into it. */
const MOST_RECORDS = 16 << 20;
const MOST_SEGMENTS = 4 << 20;
/** Of ext4 and xfs; tmpfs has the same. */
const LARGEST_FILE = 2 ** 53 - 1;
const LONGEST_PATH = 65536;

/**
 * Reads an archive, entry by entry. The caller takes the data of each from the
 * same source before it asks for the next: `segments`, in order, and
 * `paddingAfter` them.
 *
 * @throws TarError
 */
export class TarReader {
  #global: ReadonlyMap<string, Uint8Array> = new Map();
  /** Of the whole tree; complete once the first entry was read. */
  sockets: readonly PlacedSocket[] = [];

  constructor(readonly source: TarSource) {}

  /** The next entry; undefined at the end of the archive. */
  next(): TreeEntry | undefined {
    let records: ReadonlyMap<string, Uint8Array> = new Map();
    let longName: string | undefined;
    let longTarget: string | undefined;
    for (;;) {
      const block = this.source.take(BLOCK);
      if (block.every((byte) => byte === 0)) return undefined;
      const head = new Header(block);
      switch (head.type) {
        case "x":
          records = this.#records(head);
          continue;
        case "g":
          this.#global = this.#records(head);
          continue;
        case "L":
          longName = this.#longText(head);
          continue;
        case "K":
          longTarget = this.#longText(head);
          continue;
      }
      const all = new Map([...this.#global, ...records]);
      const entry = this.#entry(head, new Values(all), longName, longTarget);
      const sockets = all.get(SOCKETS_KEY);
      if (sockets !== undefined) this.sockets = decodeSockets(sockets);
      return entry;
    }
  }

  #records({ size }: Header): ReadonlyMap<string, Uint8Array> {
    return decodeRecords(this.#small(size, MOST_RECORDS));
  }

  #longText({ size }: Header): string {
    const bytes = this.#small(size, LONGEST_PATH);
    const end = bytes.indexOf(0);
    return decodeText(end < 0 ? bytes : bytes.subarray(0, end));
  }

  #small(size: number, most: number): Uint8Array {
    if (size > most) {
      throw new TarError(`${size} bytes about one entry, ${most} at most`);
    }
    const bytes = this.source.take(size).slice();
    this.source.take(paddingAfter(size));
    return bytes;
  }

  #entry(
    head: Header,
    records: Values,
    longName = records.text("path") ?? head.name,
    longTarget = records.text("linkpath") ?? head.target,
  ): TreeEntry {
    const stored = records.size("size") ?? head.size;
    const type = head.type === "S" || head.type === "\0" || head.type === "7"
      ? "file"
      : TYPES.find(([flag]) => flag === head.type)?.[1];
    if (type === undefined) {
      throw new TarError(
        `entry ${longName} is of the unknown type ${JSON.stringify(head.type)}`,
      );
    }
    const isNew = records.text("GNU.sparse.major") === "1";
    const path = normalized(
      isNew ? records.text("GNU.sparse.name") ?? longName : longName,
    );
    const { size, segments } = type !== "file"
      ? { size: 0, segments: [] }
      : head.type === "S"
      ? this.#oldMap(head, stored)
      : isNew
      ? this.#newMap(records, stored)
      : {
        size: stored,
        segments: stored === 0 ? [] : [{ offset: 0, length: stored }],
      };
    return {
      path,
      type,
      mode: head.mode & 0o7777,
      uid: records.size("uid") ?? head.uid,
      gid: records.size("gid") ?? head.gid,
      modified: records.time("mtime") ??
        { seconds: BigInt(head.modified), nanoseconds: 0 },
      accessed: records.time("atime"),
      target: type === "hard link" ? normalized(longTarget) : longTarget,
      major: head.major,
      minor: head.minor,
      size,
      segments,
      xattrs: records.xattrs(),
      flags: records.size(FLAGS_KEY) ?? 0,
    };
  }

  /** GNU's own: four segments in the header, 21 in each block that follows. */
  #oldMap(head: Header, stored: number) {
    const segments: Segment[] = [];
    let { block } = head;
    let at = 386;
    let count = 4;
    let isExtended = block[482] !== 0;
    const size = numberAt(block, [483, 12]);
    for (;;) {
      for (let i = 0; i < count; i++) {
        if (block[at + 24 * i] === 0) break;
        segments.push({
          offset: numberAt(block, [at + 24 * i, 12]),
          length: numberAt(block, [at + 24 * i + 12, 12]),
        });
      }
      if (!isExtended) break;
      block = this.source.take(BLOCK).slice();
      at = 0;
      count = 21;
      isExtended = block[504] !== 0;
      limitSegments(segments.length);
    }
    return checked(size, segments, stored);
  }

  /** Format 1.0: the map is the beginning of the data. */
  #newMap(records: Values, stored: number) {
    const size = records.size("GNU.sparse.realsize") ?? 0;
    let text = "";
    let taken = 0;
    const number = () => {
      for (;;) {
        const end = text.indexOf("\n");
        if (end >= 0) {
          const value = decimal(text.slice(0, end), "a sparse map");
          text = text.slice(end + 1);
          return value;
        }
        if (taken + BLOCK > stored) throw new TarError("a sparse map is cut");
        text += decodeText(this.source.take(BLOCK));
        taken += BLOCK;
      }
    };
    const count = number();
    limitSegments(count);
    const segments: Segment[] = [];
    for (let i = 0; i < count; i++) {
      segments.push({ offset: number(), length: number() });
    }
    return checked(size, segments, stored - taken);
  }
}

function limitSegments(count: number): void {
  if (count > MOST_SEGMENTS) {
    throw new TarError(`a sparse file of ${count} segments`);
  }
}

/** Segments that are data, in order, within the file, and all of it stored. */
function checked(size: number, all: readonly Segment[], stored: number) {
  const segments = all.filter(({ length }) => length > 0);
  let end = 0;
  let sum = 0;
  for (const { offset, length } of segments) {
    if (offset < end || offset + length > size) {
      throw new TarError("a sparse file has its segments in no order");
    }
    end = offset + length;
    sum += length;
  }
  if (size > LARGEST_FILE || sum !== stored) {
    throw new TarError(
      `a sparse file has ${stored} bytes of data, and ${sum} by its map`,
    );
  }
  return { size, segments };
}

/**
 * "./a/b" of "a/b/", "./a//b" and the like.
 *
 * @throws TarError for a path that leads out of the tree
 */
function normalized(path: string): string {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (path.startsWith("/") || parts.includes("..") || path.includes("\0")) {
    throw new TarError(`entry ${path} leads out of the tree`);
  }
  return [".", ...parts].join("/");
}

/** A header block, its checksum compared. */
class Header {
  readonly block: Uint8Array;

  constructor(block: Uint8Array) {
    this.block = block.slice();
    if (numberAt(this.block, FIELD.checksum) !== checksum(this.block)) {
      throw new TarError("the checksum of a header is wrong");
    }
  }

  get type(): string {
    return String.fromCharCode(this.block[FIELD.type[0]]);
  }

  get name(): string {
    const name = textAt(this.block, FIELD.name);
    const prefix = textAt(this.block, FIELD.prefix);
    const isGnu = textAt(this.block, FIELD.magic) === GNU_MAGIC.slice(0, -1);
    return isGnu || prefix === "" ? name : `${prefix}/${name}`;
  }

  get target(): string {
    return textAt(this.block, FIELD.link);
  }

  get mode(): number {
    return numberAt(this.block, FIELD.mode);
  }

  get uid(): number {
    return numberAt(this.block, FIELD.uid);
  }

  get gid(): number {
    return numberAt(this.block, FIELD.gid);
  }

  get size(): number {
    return numberAt(this.block, FIELD.size);
  }

  get modified(): number {
    return numberAt(this.block, FIELD.modified);
  }

  get major(): number {
    return numberAt(this.block, FIELD.major);
  }

  get minor(): number {
    return numberAt(this.block, FIELD.minor);
  }
}

function textAt(block: Uint8Array, [at, length]: Field): string {
  const bytes = block.subarray(at, at + length);
  const end = bytes.indexOf(0);
  return decodeText(end < 0 ? bytes : bytes.subarray(0, end));
}

/** Octal digits, or the first bit set and a number of base 256. */
function numberAt(block: Uint8Array, [at, length]: Field): number {
  if ((block[at] & 0x80) === 0) {
    const digits = textAt(block, [at, length]).trim();
    if (!/^[0-7]*$/.test(digits)) {
      throw new TarError(`${JSON.stringify(digits)} is no octal number`);
    }
    return Number.parseInt(digits || "0", 8);
  }
  const negative = (block[at] & 0x40) !== 0;
  let value = BigInt(block[at] & 0x3f);
  for (let i = 1; i < length; i++) value = value << 8n | BigInt(block[at + i]);
  if (negative) value -= 1n << BigInt(8 * length - 2);
  if (value > BigInt(LARGEST_FILE) || value < -BigInt(LARGEST_FILE)) {
    throw new TarError(`${value} is too large a number`);
  }
  return Number(value);
}

function decimal(text: string, what: string): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (!Number.isSafeInteger(value)) {
    throw new TarError(`${what} has ${JSON.stringify(text)} for a number`);
  }
  return value;
}

/** The records of an extended header, by their keys. */
class Values {
  constructor(readonly records: ReadonlyMap<string, Uint8Array>) {}

  text(key: string): string | undefined {
    const value = this.records.get(key);
    return value === undefined ? undefined : decodeText(value);
  }

  /** A number that is not negative. */
  size(key: string): number | undefined {
    const value = this.text(key);
    return value === undefined ? undefined : decimal(value, key);
  }

  time(key: string): Time | undefined {
    const value = this.text(key);
    if (value === undefined) return undefined;
    const match = /^(-?)(\d{1,18})(?:\.(\d{0,20}))?$/.exec(value);
    if (match === null) {
      throw new TarError(`${key} has ${JSON.stringify(value)} for a time`);
    }
    const [, sign, whole, fraction = ""] = match;
    const nanoseconds = Number(fraction.padEnd(9, "0").slice(0, 9));
    const seconds = BigInt(whole);
    if (sign === "") return { seconds, nanoseconds };
    return nanoseconds === 0
      ? { seconds: -seconds, nanoseconds }
      : { seconds: -seconds - 1n, nanoseconds: 1_000_000_000 - nanoseconds };
  }

  xattrs(): Xattr[] {
    return [...this.records].flatMap(([key, value]) =>
      key.startsWith(XATTR_KEY)
        ? [{ name: key.slice(XATTR_KEY.length), value }]
        : []
    );
  }
}

function decodeRecords(bytes: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const records = new Map<string, Uint8Array>();
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at);
    const digits = decodeText(bytes.subarray(at, space < 0 ? at : space));
    const end = at + decimal(digits, "an extended header");
    const equals = bytes.indexOf(0x3d, space);
    if (
      equals < 0 || equals >= end || end > bytes.length ||
      bytes[end - 1] !== 0x0a
    ) throw new TarError("a record of an extended header is damaged");
    records.set(
      decodeText(bytes.subarray(space + 1, equals)),
      bytes.slice(equals + 1, end - 1),
    );
    at = end;
  }
  return records;
}

function decodeSockets(bytes: Uint8Array): PlacedSocket[] {
  const damaged = () => new TarError(`${SOCKETS_KEY} is damaged`);
  const number = (value: unknown) => {
    if (!Number.isSafeInteger(value) || (value as number) < 0) throw damaged();
    return value as number;
  };
  const text = (value: unknown) => {
    if (typeof value !== "string") throw damaged();
    return value;
  };
  const time = (value: unknown): Time => {
    const match = /^(-?\d{1,18}) (\d{1,9})$/.exec(text(value));
    if (match === null) throw damaged();
    return { seconds: BigInt(match[1]), nanoseconds: Number(match[2]) };
  };
  const list = (value: unknown): unknown[] => {
    if (!Array.isArray(value)) throw damaged();
    return value;
  };
  let parsed: unknown;
  try {
    parsed = JSON.parse(decodeText(bytes));
  } catch {
    throw damaged();
  }
  return list(parsed).map((one) => {
    if (typeof one !== "object" || one === null) throw damaged();
    const socket = one as Record<string, unknown>;
    const target = text(socket.target);
    return {
      after: number(socket.after),
      entry: {
        path: normalized(text(socket.path)),
        type: target === "" ? "socket" : "hard link",
        mode: number(socket.mode) & 0o7777,
        uid: number(socket.uid),
        gid: number(socket.gid),
        modified: time(socket.modified),
        accessed: socket.accessed === undefined
          ? undefined
          : time(socket.accessed),
        target: target === "" ? "" : normalized(target),
        major: 0,
        minor: 0,
        size: 0,
        segments: [],
        xattrs: list(socket.xattrs).map((pair) => {
          const [name, value] = list(pair);
          try {
            return {
              name: text(name),
              value: Uint8Array.fromBase64(text(value)),
            };
          } catch {
            throw damaged();
          }
        }),
        flags: 0,
      },
    };
  });
}
