/**
 * The archive format of file trees: tar, as tar(1) reads and writes it.
 *
 *     [extended header, its records][header 512 bytes][data, padded to 512] ... [1,024 zeros]
 *
 * Written is the format of POSIX (pax): what the header has no room for, or
 * tells in full seconds only, goes into records "LENGTH KEY=VALUE\n" before it.
 * Files with holes are written as "GNU sparse format 1.0": their data begin with
 * a map of where the rest belongs. Read is also what GNU tar writes of itself
 * (long names, numbers of base 256, the old sparse format).
 *
 * Sockets have no place in a tar: the entry before the first of them is not
 * theirs, so all are told in one record of the first entry (`CKPT.sockets`),
 * each with the number of entries it comes after. Flags of inodes are in a
 * record of ours, too (`CKPT.flags`). GNU tar passes over both with a warning.
 */
import { decodeText, encodeText } from "../ffi/text.ts";
import type { Segment } from "../ghost/content.ts";
import type { Time } from "../ghost/calls.ts";

export const BLOCK = 512;

export type FileType =
  | "file"
  | "hard link"
  | "symbolic link"
  | "character device"
  | "block device"
  | "directory"
  | "fifo"
  | "socket";

/** One name in a tree of files. */
export interface TreeEntry {
  /** From the root of the tree: "." for itself, else "./a/b". */
  readonly path: string;
  readonly type: FileType;
  /** Permissions and the three bits above them. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly modified: Time;
  readonly accessed: Time | undefined;
  /** Of a link: what a symbolic one says; the path of another entry. */
  readonly target: string;
  /** Of a device. */
  readonly major: number;
  readonly minor: number;
  /** Bytes of a file, holes included. */
  readonly size: number;
  /** Where a file has data; holes lie between. Ascending. */
  readonly segments: readonly Segment[];
  readonly xattrs: readonly Xattr[];
  /** Flags of the inode (ioctl_iflags(2)). */
  readonly flags: number;
}

export interface Xattr {
  readonly name: string;
  readonly value: Uint8Array;
}

/** A socket, and how many entries of the archive come before it. */
export interface PlacedSocket {
  readonly after: number;
  readonly entry: TreeEntry;
}

const TYPES: readonly (readonly [flag: string, type: FileType])[] = [
  ["0", "file"],
  ["1", "hard link"],
  ["2", "symbolic link"],
  ["3", "character device"],
  ["4", "block device"],
  ["5", "directory"],
  ["6", "fifo"],
];

/** Where the fields of a header are, and their lengths. */
const FIELD = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  modified: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  link: [157, 100],
  magic: [257, 8],
  major: [329, 8],
  minor: [337, 8],
  prefix: [345, 155],
} as const;
type Field = readonly [at: number, length: number];

const PLAIN_MAGIC = "ustar\x0000";
const GNU_MAGIC = "ustar  \0";
const XATTR_KEY = "SCHILY.xattr.";
const SOCKETS_KEY = "CKPT.sockets";
const FLAGS_KEY = "CKPT.flags";

/** What an archive ends with. */
export const TAR_END = new Uint8Array(2 * BLOCK);

/** How many zeros follow data of this length. */
export function paddingAfter(length: number): number {
  return (BLOCK - length % BLOCK) % BLOCK;
}

/** Whether a file has holes. */
function isSparse({ type, size, segments }: TreeEntry): boolean {
  return type === "file" &&
    segments.reduce((sum, { length }) => sum + length, 0) !== size;
}

/**
 * All that comes before the data of an entry, the map of a sparse file
 * included; its segments follow, then `paddingAfter` them.
 *
 * @param sockets of the whole tree, with its first entry
 */
export function encodeEntry(
  entry: TreeEntry,
  sockets: readonly PlacedSocket[] = [],
): Uint8Array {
  const records = new Records();
  const name = encodeText(entry.path);
  const target = encodeText(entry.target);
  const sparse = isSparse(entry);
  const map = sparse ? encodeMap(entry) : new Uint8Array(0);
  if (sparse) {
    records.add("GNU.sparse.major", "1");
    records.add("GNU.sparse.minor", "0");
    records.add("GNU.sparse.name", name);
    records.add("GNU.sparse.realsize", `${entry.size}`);
  } else if (name.length > FIELD.name[1]) {
    records.add("path", name);
  }
  if (target.length > FIELD.link[1]) records.add("linkpath", target);
  const size = entry.type !== "file" ? 0 : map.length +
    entry.segments.reduce((sum, { length }) => sum + length, 0);
  for (
    const [key, value, field] of [
      ["uid", entry.uid, FIELD.uid],
      ["gid", entry.gid, FIELD.gid],
      ["size", size, FIELD.size],
    ] as const
  ) {
    if (!fits(value, field)) records.add(key, `${value}`);
  }
  addTime(records, "mtime", entry.modified);
  if (entry.accessed !== undefined) {
    addTime(records, "atime", entry.accessed);
  }
  for (const { name, value } of entry.xattrs) {
    records.add(XATTR_KEY + name, value);
  }
  if (entry.flags !== 0) records.add(FLAGS_KEY, `${entry.flags}`);
  if (sockets.length > 0) {
    records.add(SOCKETS_KEY, encodeText(encodeSockets(sockets)));
  }
  return concat([
    ...records.isEmpty ? [] : extended(records.bytes()),
    header({
      name: name.subarray(0, FIELD.name[1]),
      type: flagOf(entry.type),
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      size,
      seconds: entry.modified.seconds,
      target: target.subarray(0, FIELD.link[1]),
      major: entry.major,
      minor: entry.minor,
    }),
    map,
  ]);
}

function flagOf(type: FileType): string {
  const found = TYPES.find(([, name]) => name === type);
  if (found === undefined) throw new Error(`a ${type} is no entry of a tar`);
  return found[0];
}

function fits(value: number, [, length]: Field): boolean {
  return value >= 0 && value < 8 ** (length - 1);
}

function addTime(records: Records, key: string, time: Time): void {
  const { seconds, nanoseconds } = time;
  // A time before 1970 counts down, its fraction as well (pax of POSIX).
  const [sign, whole, rest] = seconds >= 0n || nanoseconds === 0
    ? ["", seconds, nanoseconds]
    : [
      seconds === -1n ? "-" : "",
      seconds + 1n,
      1_000_000_000 - nanoseconds,
    ];
  const fraction = `${rest}`.padStart(9, "0");
  records.add(key, `${sign}${whole}.${fraction}`);
}

/** "count\n" and "offset\nlength\n" for each segment, padded. */
function encodeMap({ size, segments }: TreeEntry): Uint8Array {
  const last = segments.at(-1);
  const all = last === undefined || last.offset + last.length < size
    // It tells where the file ends.
    ? [...segments, { offset: size, length: 0 }]
    : segments;
  const text = [
    `${all.length}\n`,
    ...all.map(({ offset, length }) => `${offset}\n${length}\n`),
  ].join("");
  const bytes = new Uint8Array(text.length + paddingAfter(text.length));
  bytes.set(encodeText(text));
  return bytes;
}

function encodeSockets(sockets: readonly PlacedSocket[]): string {
  return JSON.stringify(sockets.map(({ after, entry }) => ({
    after,
    path: entry.path,
    target: entry.target,
    mode: entry.mode,
    uid: entry.uid,
    gid: entry.gid,
    modified: timeText(entry.modified),
    accessed: entry.accessed && timeText(entry.accessed),
    xattrs: entry.xattrs.map(({ name, value }) => [name, value.toBase64()]),
  })));
}

function timeText({ seconds, nanoseconds }: Time): string {
  return `${seconds} ${nanoseconds}`;
}

/** The records of an extended header. */
class Records {
  readonly #parts: Uint8Array[] = [];

  get isEmpty(): boolean {
    return this.#parts.length === 0;
  }

  add(key: string, value: string | Uint8Array): void {
    const bytes = typeof value === "string" ? encodeText(value) : value;
    const rest = concat([encodeText(` ${key}=`), bytes, encodeText("\n")]);
    // The length counts its own digits.
    let length = rest.length + 1;
    while (length !== rest.length + `${length}`.length) {
      length = rest.length + `${length}`.length;
    }
    this.#parts.push(encodeText(`${length}`), rest);
  }

  bytes(): Uint8Array {
    return concat(this.#parts);
  }
}

function extended(records: Uint8Array): Uint8Array[] {
  return [
    header({
      name: encodeText("./PaxHeaders/entry"),
      type: "x",
      mode: 0o644,
      uid: 0,
      gid: 0,
      size: records.length,
      seconds: 0n,
      target: new Uint8Array(0),
      major: 0,
      minor: 0,
    }),
    records,
    new Uint8Array(paddingAfter(records.length)),
  ];
}

function header(
  { name, type, mode, uid, gid, size, seconds, target, major, minor }: {
    name: Uint8Array;
    type: string;
    mode: number;
    uid: number;
    gid: number;
    size: number;
    seconds: bigint;
    target: Uint8Array;
    major: number;
    minor: number;
  },
): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const [, sumLength] = FIELD.checksum;
  // Of all bytes, those of the sum itself taken for spaces.
  let sum = sumLength * 0x20;
  const put = ([at]: Field, bytes: Uint8Array) => {
    block.set(bytes, at);
    for (const byte of bytes) sum += byte;
  };
  const number = (field: Field, value: number) => {
    // What does not fit is in a record.
    const octal = (fits(value, field) ? value : 0).toString(8);
    put(field, encodeText(octal.padStart(field[1] - 1, "0")));
  };
  put(FIELD.name, name);
  number(FIELD.mode, mode);
  number(FIELD.uid, uid);
  number(FIELD.gid, gid);
  number(FIELD.size, size);
  number(FIELD.modified, Number(seconds));
  put(FIELD.type, encodeText(type));
  put(FIELD.link, target);
  put(FIELD.magic, encodeText(PLAIN_MAGIC));
  number(FIELD.major, major);
  number(FIELD.minor, minor);
  put(FIELD.checksum, encodeText(`${sum.toString(8).padStart(6, "0")}\0 `));
  return block;
}

/** The sum of all bytes, those of the sum itself taken for spaces. */
function checksum(block: Uint8Array): number {
  const [at, length] = FIELD.checksum;
  let sum = length * 0x20;
  for (let i = 0; i < BLOCK; i++) {
    if (i < at || i >= at + length) sum += block[i];
  }
  return sum;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(
    parts.reduce((sum, { length }) => sum + length, 0),
  );
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
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
