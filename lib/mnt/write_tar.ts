/** Writes the entries of a tar. */
import { encodeText } from "../ffi/text.ts";
import type { Time } from "../ghost/calls.ts";
import {
  BLOCK,
  FIELD,
  type Field,
  type FileType,
  FLAGS_KEY,
  paddingAfter,
  type PlacedSocket,
  SOCKETS_KEY,
  type TreeEntry,
  TYPES,
  XATTR_KEY,
} from "./tar.ts";

const PLAIN_MAGIC = "ustar\x0000";

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

export function extended(records: Uint8Array): Uint8Array[] {
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

export function header(
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
