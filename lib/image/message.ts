/**
 * Encodes and decodes one message, driven by the table in `schema.gen.ts`.
 *
 * Values: 32-bit numbers and enumerations are `number`, 64-bit ones `bigint`,
 * bytes `Uint8Array`, text `string` (see `text.ts`). A repeated field is always
 * an array; an optional field that is absent is no property at all.
 */

import { LIMITS } from "./limits.ts";
import { Halves, type Reader, type Writer } from "./protobuf.ts";
import { type Messages, SCHEMA } from "./schema.gen.ts";
import { decodeText, encodeText } from "../ffi/text.ts";

export type MessageName = keyof Messages;

type ScalarName =
  | "bool"
  | "bytes"
  | "enum"
  | "fixed64"
  | "int32"
  | "int64"
  | "message"
  | "sint32"
  | "sint64"
  | "string"
  | "uint32"
  | "uint64";

export interface Field {
  readonly number: number;
  readonly label: "required" | "optional" | "repeated";
  readonly type: ScalarName;
  readonly name: string;
  /** The message or enumeration, for those types. */
  readonly refersTo: string;
  /** The wire type of one value: 0 varint, 1 eight bytes, 2 a length first. */
  readonly wire: 0 | 1 | 2;
  /** Of a message, the one that was encoded last, and its bytes with their length. */
  readonly encoded: {
    writer?: Writer;
    value?: unknown;
    bytes?: Uint8Array | undefined;
  };
  /** The one that was decoded last, and its bytes. */
  readonly decoded: { value?: unknown; bytes?: Uint8Array };
}

export interface MessageType {
  readonly name: MessageName;
  readonly fields: readonly Field[];
  readonly byNumber: readonly (Field | undefined)[];
  readonly required: readonly Field[];
  readonly repeated: readonly Field[];
}

/** A field is missing, damaged, or does not fit. `path` may be empty. */
export class FieldError extends Error {
  constructor(readonly path: string, readonly why: string) {
    super(path === "" ? why : `field ${path}: ${why}`);
  }
}

const types = new Map<string, MessageType>();

/** The fields of a message, read from the table on first use. */
export function messageType(name: string): MessageType {
  const known = types.get(name);
  if (known) return known;
  const fields = SCHEMA[name as MessageName].split(",").filter(Boolean)
    .map(parseField);
  const byNumber: Field[] = [];
  for (const field of fields) byNumber[field.number] = field;
  const type: MessageType = {
    name: name as MessageName,
    fields,
    byNumber,
    required: fields.filter((field) => field.label === "required"),
    repeated: fields.filter((field) => field.label === "repeated"),
  };
  types.set(name, type);
  return type;
}

const LABELS = { "!": "required", "?": "optional", "*": "repeated" } as const;

function parseField(text: string): Field {
  const [, number, label, kind, type, name] = text.match(
    /^(\d+)([!?*])([@#]?)(\w+) (\w+)$/,
  )!;
  const scalar = kind === "@" ? "message" : kind === "#" ? "enum" : type;
  return {
    number: Number(number),
    label: LABELS[label as keyof typeof LABELS],
    type: scalar as ScalarName,
    name,
    refersTo: kind === "" ? "" : type,
    encoded: {},
    decoded: {},
    wire: scalar === "fixed64"
      ? 1
      : scalar === "bytes" || scalar === "string" || scalar === "message"
      ? 2
      : 0,
  };
}

type Value = Record<string, unknown>;

// One view of eight bytes as two halves and as a whole: the fastest way between
// bigint and what protobufjs takes. Images are only read and written on
// little-endian machines.
const halves = new Uint32Array(2);
const unsigned = new BigUint64Array(halves.buffer);
const signed = new BigInt64Array(halves.buffer);
const scratch = new Halves(0, 0, true);
/** Most 64-bit numbers are small. */
const FEW = Array.from({ length: 0x80 }, (_, i) => BigInt(i));

// ---------------------------------------------------------------- decoding

/**
 * Reads one message that ends at `end`. Small equal messages in a field, be it
 * of one message or of several, that follow each other are one object.
 * @param reader stands at the first byte; its `len` is moved for a while
 * @throws FieldError
 */
export function decodeMessage(
  reader: Reader,
  end: number,
  type: MessageType,
  depth = 0,
): unknown {
  if (depth > LIMITS.depth) {
    throw new FieldError("", `more than ${LIMITS.depth} messages deep`);
  }
  const outerEnd = reader.len;
  reader.len = end;
  const value: Value = {};
  for (const field of type.repeated) value[field.name] = [];
  let field: Field | undefined;
  try {
    while (reader.pos < end) {
      field = undefined;
      const byte = reader.buf[reader.pos];
      const tag = byte < 0x80 ? byte : reader.tag();
      if (byte < 0x80) reader.pos++;
      const wire = tag & 7;
      field = type.byNumber[tag >>> 3];
      if (field === undefined) skip(reader, wire);
      else if (field.label === "repeated") {
        const list = value[field.name] as unknown[];
        decodeRepeated(reader, field, wire, list, depth);
      } else {
        if (wire !== field.wire) throw wrongWireType(wire, field);
        if (value[field.name] !== undefined) {
          throw new FieldError("", "is there twice");
        }
        value[field.name] = decodeValue(reader, field, depth);
      }
    }
  } catch (error) {
    throw inField(error, field === undefined ? "" : place(field, value));
  }
  reader.len = outerEnd;
  for (const field of type.required) {
    if (value[field.name] === undefined) {
      throw new FieldError(field.name, "is missing");
    }
  }
  return value;
}

/** Of more bytes the comparison would be dear where nothing is the same. */
const SMALL_MESSAGE = 128;

/** A message in a field; what it is in most files it was in the one before. */
function decodeInner(reader: Reader, field: Field, depth: number): unknown {
  const end = lengthEnd(reader);
  const { buf, pos } = reader;
  const { decoded } = field;
  const { bytes } = decoded;
  const length = end - pos;
  if (length === bytes?.length) {
    let same = 0;
    while (same < length && buf[pos + same] === bytes[same]) same++;
    if (same === length && depth < LIMITS.depth) {
      reader.pos = end;
      return decoded.value;
    }
  }
  const type = messageType(field.refersTo);
  const value = decodeMessage(reader, end, type, depth + 1);
  if (length <= SMALL_MESSAGE) {
    // A copy: the buffer may be used for something else.
    decoded.bytes = buf.slice(pos, end);
    decoded.value = value;
  }
  return value;
}

/** One element, or, where the writer packed them, all of a field at once. */
function decodeRepeated(
  reader: Reader,
  field: Field,
  wire: number,
  list: unknown[],
  depth: number,
): void {
  const outerEnd = reader.len;
  const packed = wire === 2 && field.wire !== 2;
  if (packed) reader.len = lengthEnd(reader);
  else if (wire !== field.wire) throw wrongWireType(wire, field);
  do {
    if (packed && reader.pos === reader.len) break;
    if (list.length >= LIMITS.elements) {
      throw new FieldError("", `more than ${LIMITS.elements} elements`);
    }
    list.push(decodeValue(reader, field, depth));
  } while (packed);
  reader.len = outerEnd;
}

function decodeValue(reader: Reader, field: Field, depth: number): unknown {
  switch (field.type) {
    case "uint32":
      return reader.uint32();
    case "uint64": {
      const byte = reader.pos < reader.len ? reader.buf[reader.pos] : 0xff;
      if (byte >= 0x80) return whole(reader.uint64() as unknown as Halves);
      reader.pos++;
      return FEW[byte];
    }
    case "message":
      return decodeInner(reader, field, depth);
    case "enum":
    case "int32":
      return reader.int32();
    case "sint32":
      return reader.sint32();
    case "int64":
      return wholeSigned(reader.int64() as unknown as Halves);
    case "sint64":
      return wholeSigned(reader.sint64() as unknown as Halves);
    case "fixed64":
      return whole(reader.fixed64() as unknown as Halves);
    case "bool":
      return reader.bool();
    case "bytes": {
      const end = lengthEnd(reader);
      const bytes = reader.buf.slice(reader.pos, end);
      reader.pos = end;
      return bytes;
    }
    case "string":
      return decodeString(reader);
  }
}

function decodeString(reader: Reader): string {
  const end = lengthEnd(reader);
  const bytes = reader.buf.subarray(reader.pos, end);
  if (bytes.length > LIMITS.string_bytes) {
    throw new FieldError(
      "",
      `is ${bytes.length} bytes long, more than ${LIMITS.string_bytes}`,
    );
  }
  if (bytes.includes(0)) throw new FieldError("", "holds a zero byte");
  reader.pos = end;
  return decodeText(bytes);
}

/** Reads a length and returns where what it counts ends. */
function lengthEnd(reader: Reader): number {
  const length = reader.uint32();
  const end = reader.pos + length;
  if (end > reader.len) {
    throw new FieldError(
      "",
      `says it is ${length} bytes long, but only ${
        reader.len - reader.pos
      } are left`,
    );
  }
  return end;
}

/** Passes over a field that this version does not know. */
function skip(reader: Reader, wire: number): void {
  switch (wire) {
    case 0:
      reader.uint64();
      return;
    case 1:
      reader.fixed64();
      return;
    case 2:
      reader.pos = lengthEnd(reader);
      return;
    case 5:
      reader.fixed32();
      return;
    default:
      throw new FieldError("", `an unknown field has wire type ${wire}`);
  }
}

function wrongWireType(wire: number, field: Field): FieldError {
  return new FieldError(
    "",
    `has wire type ${wire}, not ${field.wire} as ${field.type} has`,
  );
}

function whole(value: Halves): bigint {
  halves[0] = value.low;
  halves[1] = value.high;
  return unsigned[0];
}

function wholeSigned(value: Halves): bigint {
  halves[0] = value.low;
  halves[1] = value.high;
  return signed[0];
}

/** A field's name, for a repeated one with the number of the element. */
function place(field: Field, value: Value): string {
  if (field.label !== "repeated") return field.name;
  return `${field.name}[${(value[field.name] as unknown[]).length}]`;
}

/** Adds a name in front of the path of an error from further in. */
function inField(error: unknown, name: string): FieldError {
  const inner = error instanceof FieldError
    ? error
    : new FieldError("", readerProblem(error));
  const path = [name, inner.path].filter(Boolean).join(".");
  return new FieldError(path, inner.why);
}

/** What the errors of protobufjs mean for its user. */
function readerProblem(error: unknown): string {
  if (error instanceof RangeError) return "ends too early";
  return error instanceof Error ? error.message : String(error);
}

// ---------------------------------------------------------------- encoding

/**
 * Appends a message. Required fields are always written, repeated ones
 * unpacked, as CRIU does.
 * @throws FieldError when a value is missing, of the wrong type or too large
 */
export function encodeMessage(
  writer: Writer,
  type: MessageType,
  value: unknown,
): void {
  if (typeof value !== "object" || value === null) {
    throw new FieldError("", `is ${shown(value)}, not a ${type.name}`);
  }
  const { fields } = type;
  let i = 0;
  let element = -1;
  try {
    for (; i < fields.length; i++) {
      const field = fields[i];
      const content = (value as Value)[field.name];
      if (content === undefined) {
        if (field.label === "optional") continue;
        throw new FieldError("", "is missing");
      }
      if (field.label !== "repeated") {
        encodeValue(writer, field, content);
        continue;
      }
      if (!Array.isArray(content)) throw wrongType(content, "an array");
      for (element = 0; element < content.length; element++) {
        encodeValue(writer, field, content[element]);
      }
      element = -1;
    }
  } catch (error) {
    const { name } = fields[i];
    throw inField(error, element < 0 ? name : `${name}[${element}]`);
  }
}

/** A message in a field; the same object as before has the same bytes. */
function encodeInner(writer: Writer, field: Field, value: unknown): void {
  const { encoded } = field;
  const again = encoded.writer === writer && encoded.value === value;
  if (again && encoded.bytes !== undefined) {
    writer.raw(encoded.bytes);
    return;
  }
  const start = writer.pos;
  writer.fork();
  encodeMessage(writer, messageType(field.refersTo), value);
  writer.ldelim();
  encoded.writer = writer;
  encoded.value = value;
  encoded.bytes = again && writer.pos - start <= SMALL_MESSAGE
    ? writer.buf.slice(start, writer.pos)
    : undefined;
}

function encodeValue(writer: Writer, field: Field, value: unknown): void {
  writer.uint32(field.number << 3 | field.wire);
  switch (field.type) {
    case "uint32":
      writer.uint32(integer(value, 0, 0xffffffff));
      return;
    case "uint64":
      split(value, 0n, 0xffffffffffffffffn);
      if (scratch.high === 0) writer.uint32(scratch.low);
      else writer.uint64(scratch as unknown as number);
      return;
    case "message":
      encodeInner(writer, field, value);
      return;
    case "enum":
    case "int32":
      writer.int32(integer(value, -0x80000000, 0x7fffffff));
      return;
    case "sint32":
      writer.sint32(integer(value, -0x80000000, 0x7fffffff));
      return;
    case "int64":
      split(value, -0x8000000000000000n, 0x7fffffffffffffffn);
      writer.int64(scratch as unknown as number);
      return;
    case "sint64":
      split(value, -0x8000000000000000n, 0x7fffffffffffffffn);
      writer.sint64(scratch as unknown as number);
      return;
    case "fixed64":
      split(value, 0n, 0xffffffffffffffffn);
      writer.fixed64(scratch as unknown as number);
      return;
    case "bool":
      if (typeof value !== "boolean") throw wrongType(value, "a boolean");
      writer.bool(value);
      return;
    case "bytes":
      if (!(value instanceof Uint8Array)) {
        throw wrongType(value, "a Uint8Array");
      }
      writer.bytes(value);
      return;
    case "string":
      if (typeof value !== "string") throw wrongType(value, "a string");
      if (value.includes("\0")) throw new FieldError("", "holds a zero byte");
      // protobufjs would write a lone surrogate as three bytes.
      if (value.isWellFormed()) writer.string(value);
      else writer.bytes(encodeText(value));
      return;
  }
}

function integer(value: unknown, least: number, most: number): number {
  if (typeof value !== "number" || !Number.isInteger(value)) {
    throw wrongType(value, "a whole number");
  }
  if (value < least || value > most) {
    throw new FieldError("", `${value} is not within ${least} to ${most}`);
  }
  return value;
}

/** Leaves the halves of a checked value in `scratch`. */
function split(value: unknown, least: bigint, most: bigint): void {
  if (typeof value !== "bigint") throw wrongType(value, "a bigint");
  if (value < least || value > most) {
    throw new FieldError("", `${value} is not within ${least} to ${most}`);
  }
  unsigned[0] = value;
  scratch.low = halves[0];
  scratch.high = halves[1];
}

function wrongType(value: unknown, wanted: string): FieldError {
  return new FieldError("", `is ${shown(value)}, not ${wanted}`);
}

function shown(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  return typeof value === "number" ? String(value) : `a ${typeof value}`;
}
