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

/** Calls of the agent's own; c/agent/agent.h says what they do. */
export const AGENT_CALLS = {
  store: 0x10000,
  clone: 0x10001,
  flags: 0x10002,
  snapshot: 0x10003,
  update: 0x10004,
  load: 0x10005,
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

interface Operation {
  nr: number;
  args: readonly Argument[];
  flags: number;
  /** For errors: what this operation is for. */
  purpose: string;
}

const encoder = new TextEncoder();

export class Program {
  readonly #operations: Operation[] = [];
  #data = new Uint8Array(1024);
  #dataLength = 0;
  /** Places in the data that hold the address of another place. */
  readonly #pointers: { at: number; to: number }[] = [];

  /** Appends a system call. `purpose` names it when it fails. */
  call(
    name: keyof typeof NR | keyof typeof AGENT_CALLS,
    args: readonly Argument[],
    purpose: string,
    options: CallOptions = {},
  ): Result {
    const nr = name in AGENT_CALLS
      ? AGENT_CALLS[name as keyof typeof AGENT_CALLS]
      : NR[name as keyof typeof NR];
    this.#operations.push({
      nr,
      args,
      flags: (options.mayFail ? FLAG_MAY_FAIL : 0) |
        (options.whole ? FLAG_WHOLE : 0),
      purpose,
    });
    return { result: this.#operations.length - 1 };
  }

  /** Reserves zeroed space in the data, aligned to 16 bytes. */
  reserve(length: number): Data {
    const at = (this.#dataLength + 15) & ~15;
    const end = at + length;
    if (end > this.#data.length) {
      const grown = new Uint8Array(Math.max(end, this.#data.length * 2));
      grown.set(this.#data.subarray(0, this.#dataLength));
      this.#data = grown;
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
        this.#view().setBigUint64(
          place.data + i * 8,
          BigInt.asUintN(64, BigInt(word)),
          true,
        );
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
    this.#view().setInt32(place.data + offset, value, true);
  }

  #view(): DataView {
    return new DataView(this.#data.buffer);
  }

  get operationCount(): number {
    return this.#operations.length;
  }

  /** What an operation was for. */
  purpose(index: number): string {
    return this.#operations[index].purpose;
  }

  /** An argument of an operation that is a plain number. */
  argument(operation: Result, index: number): number {
    return Number(this.#operations[operation.result].args[index]);
  }

  /** Bytes of the whole program; more once operations or data are added. */
  get size(): number {
    return this.#dataStart() + ((this.#dataLength + 15) & ~15);
  }

  #dataStart(): number {
    const results = HEADER + this.#operations.length * OPERATION;
    return (results + this.#operations.length * 8 + 15) & ~15;
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
    const view = new DataView(out.buffer);
    const words = new BigUint64Array(out.buffer, 0, out.length >> 3);
    const count = this.#operations.length;
    const dataStart = this.#dataStart();
    words[0] = BigInt(count);
    words[1] = address + BigInt(HEADER);
    words[2] = address + BigInt(HEADER + count * OPERATION);
    words[3] = address + BigInt(dataStart);
    words[4] = 0xffff_ffff_ffff_ffffn;
    words[6] = cure;
    words[7] = ending;
    let at = HEADER / 8;
    for (const operation of this.#operations) {
      words[at] = BigInt(operation.nr);
      let kinds = 0;
      for (let i = 0; i < operation.args.length; i++) {
        const argument = operation.args[i];
        if (typeof argument === "object") {
          if ("result" in argument) {
            kinds |= KIND_RESULT << (4 * i);
            words[at + 1 + i] = BigInt(argument.result);
          } else {
            kinds |= KIND_DATA << (4 * i);
            words[at + 1 + i] = BigInt(argument.data);
          }
        } else {
          words[at + 1 + i] = BigInt(argument); // wraps as two's complement
        }
      }
      view.setUint32(at * 8 + 56, kinds, true);
      view.setUint32(at * 8 + 60, operation.flags, true);
      at += OPERATION / 8;
    }
    out.set(this.#data.subarray(0, this.#dataLength), dataStart);
    for (const { at, to } of this.#pointers) {
      view.setBigUint64(
        dataStart + at,
        address + BigInt(dataStart + to),
        true,
      );
    }
    return out;
  }

  /** Reads back a program that has run; `bytes` is all of it. */
  outcome(bytes: Uint8Array<ArrayBuffer>): Outcome {
    return new Outcome(
      this,
      new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
      HEADER + this.#operations.length * OPERATION,
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
