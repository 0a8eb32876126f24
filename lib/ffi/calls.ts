/**
 * Many system calls at once: the same few for each of thousands of objects
 * (rounds), made in C. A round's arguments differ only by where they lie.
 */
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { addressOf, NR } from "./syscall.ts";
import { encodeTextInto } from "./text.ts";

/** struct round_call of c/lib/calls.c. */
const CALL_BYTES = 112;
const AFTER = 8;
const BASES = 16;
const STEPS = 64;
const KIND = { steps: 0, loaded: 1, result: 2 } as const;

/** By how much the upper half of a word counts more than the lower one. */
const WORD = 2 ** 32;

/** An argument: the same number for all rounds, or one of these. */
export type CallArgument =
  | number
  /** This much more in each round. */
  | { readonly base: number; readonly step: number }
  /** Where the round's slot is. */
  | { readonly slots: Slots; readonly offset?: number }
  /** What the word there says. */
  | { readonly loaded: Slots; readonly offset?: number }
  /** What an earlier call of the same round returned. */
  | { readonly result: number };

/** Memory with the same room for each round. */
export class Slots {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  /** Valid while this object lives. */
  readonly address: number;

  /** @param size bytes of each, a multiple of 8 */
  constructor(readonly size: number, readonly count: number) {
    this.bytes = new Uint8Array(size * count);
    this.view = new DataView(this.bytes.buffer);
    this.address = Number(addressOf(this.bytes));
  }

  /** Numbers that are not negative, one for each round: what `loaded` leads to. */
  static of(numbers: readonly number[]): Slots {
    const slots = new Slots(8, numbers.length);
    numbers.forEach((number, i) => slots.setNumber(i, number));
    return slots;
  }

  /** Writes a word: a number that is not negative. */
  setNumber(round: number, number: number, offset = 0): void {
    const at = round * this.size + offset;
    this.view.setUint32(at, number, true);
    this.view.setUint32(at + 4, number / WORD, true);
  }

  /** The word there, as a number. */
  number(round: number, offset = 0): number {
    const at = round * this.size + offset;
    return this.view.getUint32(at, true) +
      this.view.getUint32(at + 4, true) * WORD;
  }

  /** The first `length` bytes of a slot. */
  slot(round: number, length = this.size): Uint8Array<ArrayBuffer> {
    const at = round * this.size;
    return this.bytes.subarray(at, at + length);
  }

  /** Writes text of ASCII characters, with a zero after it. */
  setText(round: number, text: string): void {
    const at = round * this.size;
    for (let i = 0; i < text.length; i++) {
      this.bytes[at + i] = text.charCodeAt(i);
    }
    this.bytes[at + text.length] = 0;
  }
}

/** Texts of any length, one for each round: what `loaded` leads to. */
export class Texts {
  readonly pointers: Slots;
  /** Kept alive for the kernel. */
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(texts: readonly string[]) {
    const longest = texts.reduce((sum, { length }) => sum + 3 * length + 1, 0);
    this.#bytes = new Uint8Array(longest);
    this.pointers = new Slots(8, texts.length);
    const address = Number(addressOf(this.#bytes));
    let at = 0;
    for (const [i, text] of texts.entries()) {
      this.pointers.view.setBigUint64(8 * i, BigInt(address + at), true);
      at += encodeTextInto(text, this.#bytes.subarray(at)) + 1;
    }
  }
}

export class Calls {
  readonly #calls: {
    nr: number;
    args: readonly CallArgument[];
    after: number;
  }[] = [];
  /** As the native code has them; undefined: not yet. */
  #prepared: Uint8Array<ArrayBuffer> | undefined;
  /** The halves of what the kernel returned; kept alive for it. */
  #results = new Int32Array(0);

  /**
   * Adds a call. It fails with ECANCELED, without being made, when a call
   * failed whose result it uses, or that it comes after.
   *
   * @returns its index, for arguments of later calls and for `result`
   */
  add(
    call: keyof typeof NR,
    args: readonly CallArgument[],
    after = -1,
  ): number {
    this.#prepared = undefined;
    return this.#calls.push({ nr: NR[call], args, after }) - 1;
  }

  /**
   * Makes all calls of every round; their order among rounds is open. May be
   * done again and again.
   */
  run(rounds: number): void {
    const calls = this.#prepare(rounds);
    const count = BigInt(this.#calls.length);
    library("base").ckpt_calls(calls, count, BigInt(rounds), this.#answers);
  }

  /** The same beside JavaScript, which must leave the slots alone meanwhile. */
  async runBeside(rounds: number): Promise<void> {
    await this.#beside("calls_beside", rounds);
  }

  /**
   * The same, one round after the other: for calls that wait for each other in
   * the kernel anyway.
   */
  async runInTurnBeside(rounds: number): Promise<void> {
    await this.#beside("ckpt_calls_in_turn", rounds);
  }

  async #beside(
    how: "calls_beside" | "ckpt_calls_in_turn",
    rounds: number,
  ): Promise<void> {
    const calls = this.#prepare(rounds);
    const count = BigInt(this.#calls.length);
    await library("calls")[how](calls, count, BigInt(rounds), this.#answers);
  }

  /**
   * The same, one round after the other, and to the end even when ckpt is
   * killed meanwhile.
   *
   * @throws CkptError when none could be made
   */
  runToTheEnd(rounds: number): void {
    const calls = this.#prepare(rounds);
    const count = BigInt(this.#calls.length);
    checked(
      library("outliving").ckpt_outliving_calls(
        calls,
        count,
        BigInt(rounds),
        this.#answers,
      ),
      "making system calls",
    );
  }

  #prepare(rounds: number): Uint8Array<ArrayBuffer> {
    const halves = 2 * this.#calls.length * rounds;
    if (this.#results.length !== halves) {
      this.#results = new Int32Array(halves);
    }
    return this.#prepared ??= this.#encode();
  }

  get #answers(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#results.buffer);
  }

  #encode(): Uint8Array<ArrayBuffer> {
    const calls = new Uint8Array(this.#calls.length * CALL_BYTES);
    const view = new DataView(calls.buffer);
    for (const [i, { nr, args, after }] of this.#calls.entries()) {
      const at = i * CALL_BYTES;
      view.setUint16(at, nr, true);
      view.setBigInt64(at + AFTER, BigInt(after), true);
      for (const [n, argument] of args.entries()) {
        const { kind, base, step } = encode(argument);
        view.setUint8(at + 2 + n, kind);
        view.setBigInt64(at + BASES + 8 * n, BigInt(base), true);
        view.setBigInt64(at + STEPS + 8 * n, BigInt(step), true);
      }
    }
    return calls;
  }

  /**
   * Gives numbers to the answers of the last run, which are what the kernel has
   * returned and what it has left in the slots: the same number for the same
   * answers, whenever and to whom they were given.
   *
   * @param question tells answers apart that come from other calls
   * @param fds the descriptor that each round is about
   * @param answered by descriptors, the numbers of what each has answered
   * before, which counts, too (0: nothing); gets the new ones
   * @returns the new ones by rounds
   */
  numbers(
    question: number,
    slots: Slots,
    fds: Slots,
    answered: Uint32Array<ArrayBuffer>,
  ): Uint32Array<ArrayBuffer> {
    const rounds = this.#results.length / (2 * this.#calls.length);
    const numbers = new Uint32Array(rounds);
    const result = library("answers").ckpt_number_answers(
      question,
      slots.bytes,
      BigInt(slots.size),
      this.#answers,
      BigInt(8 * this.#calls.length),
      fds.bytes,
      BigInt(rounds),
      new Uint8Array(answered.buffer),
      new Uint8Array(numbers.buffer),
    );
    if (result < 0n) throw new Error("there is no memory left");
    return numbers;
  }

  /** What the kernel returned; negative: -errno. */
  result(round: number, call: number): number {
    const at = 2 * (round * this.#calls.length + call);
    return (this.#results[at] >>> 0) + this.#results[at + 1] * WORD;
  }
}

function encode(
  argument: CallArgument,
): { kind: number; base: number; step: number } {
  if (typeof argument === "number") {
    return { kind: KIND.steps, base: argument, step: 0 };
  }
  if ("base" in argument) return { kind: KIND.steps, ...argument };
  if ("result" in argument) {
    return { kind: KIND.result, base: argument.result, step: 0 };
  }
  const { offset = 0 } = argument;
  const [kind, { address, size }] = "slots" in argument
    ? [KIND.steps, argument.slots]
    : [KIND.loaded, argument.loaded];
  return { kind, base: address + offset, step: size };
}
