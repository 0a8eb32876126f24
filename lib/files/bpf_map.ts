/**
 * Maps of eBPF (bpf(2)): `bpfmap_file_entry`, and keys and values in
 * bpfmap-data.img. Arrays and hash tables without types (BTF) come back with
 * their content. One that others have, too (a program of eBPF, a name in a bpf
 * file system) goes on without the tree, which gets one of its own.
 */
import { ENOENT } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  syscallBuffer1,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import type { Entry } from "../image/kinds.ts";
import type { bpfmap_file_entry, fown_entry } from "../image/schema.gen.ts";
import { detail } from "./details.ts";

/** What fdinfo tells. */
export interface BpfMap {
  readonly type: number;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly mapFlags: number;
  readonly mapExtra: bigint;
  readonly memlock: bigint;
  readonly id: number;
  readonly frozen: boolean;
}

/** Its keys, and its values in the same order. */
export interface BpfMapContent {
  readonly name: string;
  readonly keys: Uint8Array<ArrayBuffer>;
  readonly values: Uint8Array<ArrayBuffer>;
  readonly count: number;
}

/** Commands of bpf(2), linux/bpf.h. */
const COMMAND = {
  create: 0,
  getById: 14,
  info: 15,
  freeze: 22,
  lookupBatch: 24,
  updateBatch: 26,
} as const;
const ATTRIBUTE_BYTES = 128;
/** struct bpf_map_info: its name, and the ids of its types. */
const INFO_BYTES = 128;
const NAME_AT = 24;
const NAME_BYTES = 16;
const BTF_AT = 64;
/** BPF_F_RDONLY, BPF_F_WRONLY */
const ACCESS: Readonly<Record<number, number>> = {
  [O.RDONLY]: 0x8,
  [O.WRONLY]: 0x10,
  [O.RDWR]: 0,
};

/** enum bpf_map_type; those that are saved come first. */
const HASH = 1;
const ARRAY = 2;
/** BPF_F_NO_PREALLOC, NUMA_NODE, STACK_BUILD_ID, RDONLY_PROG, ... */
const NUMA_NODE = 0x4;
/** Bytes of keys and values that are held in memory at once. */
const LARGEST = 256 * 2 ** 20;

export function parseBpfMap(lines: readonly string[]): BpfMap {
  const number = (key: string) => {
    const [text] = detail(lines, `${key}:\t`, /^((?:0x)?[0-9a-f]+)$/);
    return Number(text);
  };
  return {
    type: number("map_type"),
    keySize: number("key_size"),
    valueSize: number("value_size"),
    maxEntries: number("max_entries"),
    mapFlags: number("map_flags"),
    mapExtra: lines.some((line) => line.startsWith("map_extra:"))
      ? BigInt(number("map_extra"))
      : 0n,
    memlock: BigInt(number("memlock")),
    id: number("map_id"),
    frozen: number("frozen") !== 0,
  };
}

/** Why it cannot be saved; undefined: it can. */
export function bpfMapProblem(map: BpfMap): string | undefined {
  const { type, mapFlags } = map;
  if (type !== HASH && type !== ARRAY) {
    return `a map of eBPF of type ${type} is not supported: only arrays and ` +
      "hash tables are";
  }
  if (mapFlags & NUMA_NODE) {
    return "a map of eBPF on a chosen NUMA node is not supported";
  }
  if (bytesOf(map) > LARGEST) {
    return `a map of eBPF of ${bytesOf(map)} bytes is too large`;
  }
  return undefined;
}

function bytesOf({ keySize, valueSize, maxEntries }: BpfMap): number {
  return (keySize + valueSize) * maxEntries;
}

/** The other fields are 0. */
type Field = readonly [at: number, value: number | bigint];

/** @returns what the kernel returns, and the attributes as it left them */
function bpf(
  command: number,
  fields: readonly Field[],
  name?: string,
): { result: number; attributes: DataView } {
  const bytes = new Uint8Array(ATTRIBUTE_BYTES);
  const attributes = new DataView(bytes.buffer);
  for (const [at, value] of fields) {
    if (typeof value === "bigint") attributes.setBigUint64(at, value, true);
    else attributes.setUint32(at, value, true);
  }
  if (name !== undefined) bytes.set(encodeText(name), CREATE_NAME_AT);
  const result = Number(
    syscallBuffer1("bpf", BigInt(command), bytes, BigInt(bytes.length)),
  );
  return { result, attributes };
}

/** Of the attributes of BPF_MAP_CREATE: map_name. */
const CREATE_NAME_AT = 28;

/** Why a map with such an id has types; undefined: it has none. */
export class TypedMap extends Error {}

/**
 * What is in a map. Others, such as programs of eBPF, may change it meanwhile.
 *
 * @throws SyscallError, or {@link TypedMap} when types belong to it
 */
export function readBpfMap(map: BpfMap): BpfMapContent {
  const fd = openById(map.id, O.RDWR);
  try {
    const name = readName(fd);
    const keys = new Uint8Array(map.keySize * map.maxEntries);
    const values = new Uint8Array(map.valueSize * map.maxEntries);
    const position = new Uint8Array(Math.max(map.keySize, 8));
    const count = lookUp(fd, map.maxEntries, position, keys, values);
    return {
      name,
      keys: keys.subarray(0, count * map.keySize),
      values: values.subarray(0, count * map.valueSize),
      count,
    };
  } finally {
    close(fd);
  }
}

function readName(fd: number): string {
  const info = new Uint8Array(INFO_BYTES);
  bpf(COMMAND.info, [[0, fd], [4, info.length], [8, addressOf(info)]]);
  if (new DataView(info.buffer).getUint32(BTF_AT, true) !== 0) {
    throw new TypedMap();
  }
  const name = info.subarray(NAME_AT, NAME_AT + NAME_BYTES);
  const end = name.indexOf(0);
  return decodeText(end < 0 ? name : name.subarray(0, end));
}

/** @returns how many there are */
function lookUp(
  fd: number,
  most: number,
  position: Uint8Array<ArrayBuffer>,
  keys: Uint8Array<ArrayBuffer>,
  values: Uint8Array<ArrayBuffer>,
): number {
  const bytes = new Uint8Array(ATTRIBUTE_BYTES);
  const attributes = new DataView(bytes.buffer);
  attributes.setBigUint64(8, addressOf(position), true);
  attributes.setBigUint64(16, addressOf(keys), true);
  attributes.setBigUint64(24, addressOf(values), true);
  attributes.setUint32(32, most, true);
  attributes.setUint32(36, fd, true);
  try {
    syscallBuffer1(
      "bpf",
      BigInt(COMMAND.lookupBatch),
      bytes,
      BigInt(bytes.length),
    );
  } catch (error) {
    // That is how it tells that there are no more.
    if (!(error instanceof SyscallError) || error.errno !== ENOENT) throw error;
  }
  return attributes.getUint32(32, true);
}

function openById(id: number, access: number): number {
  return bpf(COMMAND.getById, [[0, id], [8, ACCESS[access]]]).result;
}

/** Its name comes with its content. */
export function dumpBpfMap(
  id: number,
  map: BpfMap,
  flags: number,
  pos: bigint,
  fown: fown_entry,
): bpfmap_file_entry {
  return {
    id,
    flags,
    pos,
    fown,
    map_type: map.type,
    key_size: map.keySize,
    value_size: map.valueSize,
    map_id: map.id,
    max_entries: map.maxEntries,
    map_flags: map.mapFlags,
    memlock: map.memlock,
    frozen: map.frozen,
    map_name: "",
    ifindex: 0,
    map_extra: map.mapExtra,
  };
}

export function dumpBpfMapContent(
  { id }: BpfMap,
  { keys, values, count }: BpfMapContent,
): Entry<"bpfmap-data"> {
  const extra = new Uint8Array(keys.length + values.length);
  extra.set(keys);
  extra.set(values, keys.length);
  return {
    map_id: id,
    keys_bytes: keys.length,
    values_bytes: values.length,
    count,
    extra,
  };
}

/** What the kernel would not take of an entry; undefined: it takes it. */
export function bpfMapImageProblem(
  entry: bpfmap_file_entry,
): string | undefined {
  if (entry.ifindex !== 0) return "a map of a network card is not supported";
  if (encodeText(entry.map_name).length >= NAME_BYTES) {
    return "its name is longer than that of a map can be";
  }
  if (!Object.hasOwn(ACCESS, entry.flags & O.ACCMODE)) {
    return `0${entry.flags.toString(8)} are no flags of a map`;
  }
  return bpfMapProblem({
    type: entry.map_type,
    keySize: entry.key_size,
    valueSize: entry.value_size,
    maxEntries: entry.max_entries,
    mapFlags: entry.map_flags,
    mapExtra: entry.map_extra ?? 0n,
    memlock: entry.memlock,
    id: entry.map_id,
    frozen: entry.frozen,
  });
}

/**
 * Makes a map with its content.
 *
 * @returns a descriptor of ckpt's, by which more are opened
 * @throws SyscallError
 */
export function makeBpfMap(
  entry: bpfmap_file_entry,
  content: Entry<"bpfmap-data"> | undefined,
): number {
  const { result: fd } = bpf(COMMAND.create, [
    [0, entry.map_type],
    [4, entry.key_size],
    [8, entry.value_size],
    [12, entry.max_entries],
    [16, entry.map_flags],
    [64, entry.map_extra ?? 0n],
  ], entry.map_name);
  try {
    if (content !== undefined && content.count > 0) {
      const bytes = Uint8Array.from(content.extra);
      const keys = addressOf(bytes);
      bpf(COMMAND.updateBatch, [
        [16, keys],
        [24, keys + BigInt(content.keys_bytes)],
        [32, content.count],
        [36, fd],
      ]);
    }
    if (entry.frozen) bpf(COMMAND.freeze, [[0, fd]]);
    return fd;
  } catch (error) {
    close(fd);
    throw error;
  }
}

/** One more open file of a map that was made. */
export function openBpfMap(made: number, flags: number): number {
  const info = new Uint8Array(INFO_BYTES);
  bpf(COMMAND.info, [[0, made], [4, info.length], [8, addressOf(info)]]);
  const id = new DataView(info.buffer).getUint32(4, true);
  return openById(id, flags & O.ACCMODE);
}
