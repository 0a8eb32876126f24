/**
 * Writes programs for the agent (c/agent/agent.h): a list of system calls that
 * a task makes itself. An argument is a number, the result of an earlier call,
 * or a place in the program's data.
 *
 *   +0     header       64 bytes
 *   +64    operations   64 bytes each: nr, 6 arguments, kinds, flags
 *   ...    results      8 bytes each
 *   ...    data
 */
import { NR } from "./syscall.ts";

const HEADER = 64;
const OPERATION = 64;

const KIND_RESULT = 1;
const KIND_DATA = 2;

const FLAG_MAY_FAIL = 1;
const FLAG_WHOLE = 2;
const FLAG_SETTLE = 4;
const FLAG_CLOEXEC = 8;

/** Calls of the agent's own; c/agent/agent.h says what they do. */
export const AGENT_CALLS = {
  store: 0x10000,
  clone: 0x10001,
  flags: 0x10002,
  snapshot: 0x10003,
  update: 0x10004,
  load: 0x10005,
  count: 0x10006,
  move: 0x10007,
} as const;

/** What an operation returned, once the program has run. */
export interface Result {
  readonly result: number;
}

/** A place in the program's data. */
export interface Data {
  readonly data: number;
  readonly length: number;
}

export type Argument = number | bigint | Result | Data;

/** What the agent does after the last operation (enum agent_yield). */
export const YIELD = { noSuchCall: 0n, stop: 1n, signal: 256n } as const;

export interface CallOptions {
  /** A failure is a result like any other. */
  mayFail?: boolean;
  /** Repeat a read or write until all bytes are moved. */
  whole?: boolean;
}

/**
 * What an operation is for, which is told when it fails. A function makes the
 * text only then: there may be thousands of operations.
 */
export type Purpose = string | (() => string);

export function textOf(purpose: Purpose): string {
  return typeof purpose === "string" ? purpose : purpose();
}

/** Of an operation, in 32-bit words: of each 64-bit word the lower half first. */
const WORDS = OPERATION / 4;
const ARGUMENTS = 2;
const KINDS = 14;
const FLAGS = 15;
/** The argument that OP_SETTLE uses, in 64-bit words. */
const SETTLED = 6;
/** How many operations the first piece holds; each further one has twice as many. */
const FIRST_PIECE = 8;
const FIRST_DATA = 256;

const encoder = new TextEncoder();

export class Program {
  /** The operations as the agent reads them, in pieces. */
  readonly #pieces = [new Int32Array(FIRST_PIECE * WORDS)];
  /** The last piece, the same in 64-bit words, and where it goes on. */
  #piece = this.#pieces[0];
  #longs = new BigInt64Array(this.#piece.buffer);
  #at = 0;
  readonly #purposes: Purpose[] = [];
  #data = new Uint8Array(FIRST_DATA);
  #view = new DataView(this.#data.buffer);
  #dataLength = 0;
  /** Places in the data that hold the address of another place. */
  readonly #pointers: { at: number; to: number }[] = [];

  /** Appends a system call. `purpose` names it when it fails. */
  call(
    name: keyof typeof NR | keyof typeof AGENT_CALLS,
    args: readonly Argument[],
    purpose: Purpose,
    options?: CallOptions,
  ): Result {
    if (this.#at === this.#piece.length) this.#addPiece();
    const at = this.#at;
    this.#at += WORDS;
    const words = this.#piece;
    words[at] = name in AGENT_CALLS
      ? AGENT_CALLS[name as keyof typeof AGENT_CALLS]
      : NR[name as keyof typeof NR];
    let kinds = 0;
    for (let i = 0; i < args.length; i++) {
      const argument = args[i];
      const to = at + ARGUMENTS + 2 * i;
      if (typeof argument === "number") {
        if (argument === (argument | 0)) {
          words[to] = argument;
          words[to + 1] = argument >> 31;
        } else this.#longs[to / 2] = BigInt(argument);
      } else if (typeof argument === "bigint") {
        this.#longs[to / 2] = argument; // wraps as two's complement
      } else if ("result" in argument) {
        kinds |= KIND_RESULT << (4 * i);
        words[to] = argument.result;
      } else {
        kinds |= KIND_DATA << (4 * i);
        words[to] = argument.data;
      }
    }
    words[at + KINDS] = kinds;
    if (options !== undefined) {
      words[at + FLAGS] = (options.mayFail ? FLAG_MAY_FAIL : 0) |
        (options.whole ? FLAG_WHOLE : 0);
    }
    return { result: this.#purposes.push(purpose) - 1 };
  }

  /** Gives the descriptor that the last call makes its number. */
  settle(fd: number, cloexec: boolean): void {
    const at = this.#at - WORDS;
    this.#longs[at / 2 + SETTLED] = BigInt(fd);
    this.#piece[at + FLAGS] |= FLAG_SETTLE | (cloexec ? FLAG_CLOEXEC : 0);
  }

  #addPiece(): void {
    this.#piece = new Int32Array(2 * this.#piece.length);
    this.#longs = new BigInt64Array(this.#piece.buffer);
    this.#at = 0;
    this.#pieces.push(this.#piece);
  }

  /** Reserves zeroed space in the data, aligned to 16 bytes. */
  reserve(length: number): Data {
    const at = (this.#dataLength + 15) & ~15;
    const end = at + length;
    if (end > this.#data.length) {
      const grown = new Uint8Array(Math.max(end, this.#data.length * 2));
      grown.set(this.#data.subarray(0, this.#dataLength));
      this.#data = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#dataLength = end;
    return { data: at, length };
  }

  /** Puts bytes into the data. */
  bytes(bytes: Uint8Array): Data {
    const place = this.reserve(bytes.length);
    this.#data.set(bytes, place.data);
    return place;
  }

  /** Puts a 32-bit number into the data. */
  int32(value: number): Data {
    const place = this.reserve(4);
    this.#view.setInt32(place.data, value, true);
    return place;
  }

  /** Puts a terminated string into the data. */
  text(text: string | Uint8Array): Data {
    const bytes = typeof text === "string" ? encoder.encode(text) : text;
    const place = this.reserve(bytes.length + 1);
    this.#data.set(bytes, place.data);
    return place;
  }

  /** Puts a structure of 64-bit words into the data; a place becomes its address. */
  words(words: readonly (bigint | number | Data)[]): Data {
    const place = this.reserve(words.length * 8);
    words.forEach((word, i) => {
      if (typeof word === "object") {
        this.#pointers.push({ at: place.data + i * 8, to: word.data });
      } else {
        this.#view.setBigInt64(place.data + i * 8, BigInt(word), true);
      }
    });
    return place;
  }

  /** A place inside another. */
  at(place: Data, offset: number): Data {
    return { data: place.data + offset, length: place.length - offset };
  }

  /** Puts a terminated string into reserved data. */
  setText(place: Data, text: string): void {
    const bytes = encoder.encode(text);
    this.#data.fill(0, place.data, place.data + place.length);
    this.#data.set(bytes, place.data);
  }

  /** Writes a 32-bit number into reserved data. */
  setInt32(place: Data, offset: number, value: number): void {
    this.#view.setInt32(place.data + offset, value, true);
  }

  get operationCount(): number {
    return this.#purposes.length;
  }

  /** What an operation was for. */
  purpose(index: number): string {
    return textOf(this.#purposes[index]);
  }

  /** An argument of an operation that is a plain number. */
  argument(operation: Result, index: number): number {
    const { result } = operation;
    const piece = 31 - Math.clz32(result / FIRST_PIECE + 1);
    const at = result - FIRST_PIECE * (2 ** piece - 1);
    const longs = new BigInt64Array(this.#pieces[piece].buffer);
    return Number(longs[at * WORDS / 2 + ARGUMENTS / 2 + index]);
  }

  /** Bytes of the whole program; more once operations or data are added. */
  get size(): number {
    return this.#dataStart() + ((this.#dataLength + 15) & ~15);
  }

  #dataStart(): number {
    const results = HEADER + this.operationCount * OPERATION;
    return (results + this.operationCount * 8 + 15) & ~15;
  }

  /**
   * The program as it is at `address`.
   *
   * @param cure where the agent goes when it is no longer traced; 0n: it dies
   */
  encode(
    address: bigint,
    ending: bigint,
    cure = 0n,
  ): Uint8Array<ArrayBuffer> {
    const out = new Uint8Array(this.size);
    this.encodeInto(out, address, ending, cure);
    return out;
  }

  /** The same, to where there is room for it. */
  encodeInto(
    out: Uint8Array<ArrayBuffer>,
    address: bigint,
    ending: bigint,
    cure = 0n,
  ): void {
    const view = new DataView(out.buffer, out.byteOffset);
    const end = HEADER + this.operationCount * OPERATION;
    const dataStart = this.#dataStart();
    const header = [
      BigInt(this.operationCount),
      address + BigInt(HEADER),
      address + BigInt(end),
      address + BigInt(dataStart),
      -1n, // nothing has failed
      0n,
      cure,
      ending,
    ];
    header.forEach((word, i) => view.setBigInt64(8 * i, word, true));
    let at = HEADER;
    for (const piece of this.#pieces) {
      const left = new Uint8Array(piece.buffer).subarray(0, end - at);
      out.set(left, at);
      at += left.length;
    }
    out.fill(0, end, dataStart);
    out.set(this.#data.subarray(0, this.#dataLength), dataStart);
    out.fill(0, dataStart + this.#dataLength, this.size);
    for (const { at, to } of this.#pointers) {
      view.setBigInt64(
        dataStart + at,
        address + BigInt(dataStart + to),
        true,
      );
    }
  }

  /** Reads back a program that has run; `bytes` is all of it. */
  outcome(bytes: Uint8Array<ArrayBuffer>): Outcome {
    return new Outcome(
      this,
      new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
      HEADER + this.operationCount * OPERATION,
      this.#dataStart(),
    );
  }
}

/** What a program left behind. */
export class Outcome {
  readonly #view: DataView;
  readonly #results: number;
  readonly #data: number;
  /** The operation that failed, and its positive errno. */
  readonly failure?: { purpose: string; index: number; errno: number };

  constructor(
    program: Program,
    view: DataView,
    results: number,
    data: number,
  ) {
    this.#view = view;
    this.#results = results;
    this.#data = data;
    const failed = view.getBigInt64(32, true);
    if (failed >= 0n) {
      const index = Number(failed);
      this.failure = {
        purpose: program.purpose(index),
        index,
        errno: Number(-view.getBigInt64(40, true)),
      };
    }
  }

  /** What the call returned; negative is a -errno. */
  result(of: Result): bigint {
    return this.#view.getBigInt64(this.#results + of.result * 8, true);
  }

  /** The bytes at a place in the data. */
  data(place: Data): DataView {
    return new DataView(
      this.#view.buffer,
      this.#view.byteOffset + this.#data + place.data,
      place.length,
    );
  }
}
