/**
 * Options of sockets that are asked together, of many sockets at once, and what
 * was made of the answers.
 */
import { Calls, Slots } from "../ffi/calls.ts";
import { EINVAL } from "../ffi/errno.ts";
import { SyscallError } from "../ffi/syscall.ts";
import type { ckpt_socket_option } from "../image/schema.gen.ts";
import { LONGEST_OPTION, SO, SOL_SOCKET } from "./sockopt.ts";

/** Length and value of the answer to one question. */
const ANSWER = { length: 0, value: 8 } as const;
const ANSWER_BYTES = ANSWER.value + LONGEST_OPTION;

/** As much as the kernel gives of most options; the filter is only counted. */
function roomFor(level: number, name: number): number {
  return level === SOL_SOCKET && name === SO.ATTACH_FILTER ? 0 : LONGEST_OPTION;
}

/** Of all questions. */
let count = 0;

/**
 * Options that are asked together, of many sockets at once: one call of native
 * code instead of one for each of a hundred options of each.
 */
export class OptionQuestions {
  /** The descriptors of the sockets, and all answers of each. */
  #fds = new Slots(8, 0);
  #answers = new Slots(0, 0);
  #calls = new Calls();
  /** The sockets that were asked, each with its place among them. */
  #asked: ReadonlyMap<number, number> = new Map();
  /** By these places, the numbers of what each has answered. */
  #numbers: Uint32Array | undefined;
  /** What was made of answers, by these and by what it was made for. */
  readonly #made = new Map<number, Map<string, unknown>>();
  /** Tells its answers from those to other questions. */
  readonly #number = ++count;
  /** The place of the socket whose answers are looked at. */
  #place = 0;
  /** By level and name. */
  readonly #indices = new Map<number, number>();
  /** The answers of a socket before it is asked. */
  readonly #unanswered: Uint8Array;

  constructor(readonly options: readonly (readonly [number, number])[]) {
    this.#unanswered = new Uint8Array(options.length * ANSWER_BYTES);
    const view = new DataView(this.#unanswered.buffer);
    options.forEach(([level, name], i) => {
      this.#indices.set(level << 16 | name, i);
      view.setUint32(i * ANSWER_BYTES, roomFor(level, name), true);
    });
  }

  /**
   * Asks sockets, all at once; the answers are there until {@link forget}.
   *
   * @param answered numbers of what they have answered before, by descriptors;
   * undefined: they hardly ever answer the same
   */
  askAll(
    fds: readonly number[],
    answered: Uint32Array<ArrayBuffer> | undefined,
  ): void {
    this.forget();
    this.#askThem(fds);
    this.#asked = new Map(fds.map((fd, i) => [fd, i]));
    this.#numbers = answered &&
      this.#calls.numbers(this.#number, this.#answers, this.#fds, answered);
  }

  #askThem(fds: readonly number[]): void {
    if (this.#fds.count < fds.length) this.#makeRoom(fds.length);
    const { size, bytes } = this.#answers;
    fds.forEach((fd, i) => {
      this.#fds.view.setUint32(8 * i, fd, true);
      bytes.set(this.#unanswered, i * size);
    });
    this.#calls.run(fds.length);
  }

  #makeRoom(count: number): void {
    const fds = this.#fds = new Slots(8, count);
    const slots = this.#answers = new Slots(this.#unanswered.length, count);
    this.#calls = new Calls();
    this.options.forEach(([level, name], i) => {
      const at = i * ANSWER_BYTES;
      this.#calls.add("getsockopt", [
        { loaded: fds },
        level,
        name,
        { slots, offset: at + ANSWER.value },
        { slots, offset: at + ANSWER.length },
      ]);
    });
  }

  /** The answers of a socket, which is asked now unless it was before. */
  ask(fd: number): this {
    const place = this.#asked.get(fd);
    if (place === undefined) {
      this.forget();
      this.#askThem([fd]);
    }
    this.#place = place ?? 0;
    return this;
  }

  /**
   * What is made of the answers of a socket and of nothing else; the same for
   * all that have answered the same, whenever that was.
   *
   * @param purpose tells it from what else is made of the same answers
   */
  once<T>(fd: number, purpose: string, make: (asked: this) => T): T {
    const asked = this.ask(fd);
    const place = this.#asked.get(fd);
    const number = place === undefined ? undefined : this.#numbers?.[place];
    if (number === undefined) return make(asked);
    let made = this.#made.get(number);
    if (made === undefined) this.#made.set(number, made = new Map());
    if (!made.has(purpose)) made.set(purpose, make(asked));
    return made.get(purpose) as T;
  }

  /** The numbers may stand for other sockets from now on. */
  forget(): void {
    this.#asked = new Map();
  }

  /** All that the kernel has, in their order. */
  answers(): ckpt_socket_option[] {
    return this.options.flatMap(([level, name]) => {
      const value = this.bytes(level, name);
      return value === undefined ? [] : [{ level, name, value }];
    });
  }

  /** Those that are not as in `usual`, the answers of another socket. */
  changes(usual: readonly ckpt_socket_option[]): ckpt_socket_option[] {
    const { bytes } = this.#answers;
    return usual.flatMap(({ level, name, value }, i) => {
      if (this.#calls.result(this.#place, i) < 0) return [];
      const length = this.length(level, name);
      const at = this.#answerAt(i) + ANSWER.value;
      const same = length === value.length &&
        value.every((byte, n) => bytes[at + n] === byte);
      return same ? [] : [{ level, name, value: bytes.slice(at, at + length) }];
    });
  }

  #index(level: number, name: number): number {
    return this.#indices.get(level << 16 | name)!;
  }

  #answerAt(index: number): number {
    return this.#place * this.#answers.size + index * ANSWER_BYTES;
  }

  /** What getsockopt(2) returned: -errno when it has failed. */
  result(level: number, name: number): number {
    return this.#calls.result(this.#place, this.#index(level, name));
  }

  /** The length that the kernel gave. */
  length(level: number, name: number): number {
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.length;
    return this.#answers.view.getUint32(at, true);
  }

  /** As many bytes as the kernel gives; undefined: it does not have it. */
  bytes(level: number, name: number): Uint8Array<ArrayBuffer> | undefined {
    if (this.result(level, name) < 0) return undefined;
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return this.#answers.bytes.slice(at, at + this.length(level, name));
  }

  /** The same without a copy: good until others are asked. */
  view(level: number, name: number): DataView {
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return new DataView(this.#answers.bytes.buffer, at, LONGEST_OPTION);
  }

  tryInt(level: number, name: number): number | undefined {
    if (this.result(level, name) < 0) return undefined;
    const at = this.#answerAt(this.#index(level, name)) + ANSWER.value;
    return this.#answers.view.getInt32(at, true);
  }

  /** @throws SyscallError when the kernel does not have it */
  int(level: number, name: number): number {
    const value = this.tryInt(level, name);
    if (value === undefined) throw new SyscallError("getsockopt", EINVAL);
    return value;
  }

  /** `undefined` for false: as CRIU leaves out what is not set. */
  flag(level: number, name: number): true | undefined {
    return this.tryInt(level, name) ? true : undefined;
  }
}

const questions = new Map<string, OptionQuestions>();

/** The same questions for all sockets of a kind. */
export function questionsFor(
  key: string,
  options: () => (readonly [number, number])[],
): OptionQuestions {
  let known = questions.get(key);
  if (known === undefined) {
    known = new OptionQuestions(options());
    questions.set(key, known);
  }
  return known;
}
