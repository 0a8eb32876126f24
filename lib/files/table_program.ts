/**
 * Writes the calls by which a process fills its descriptor table. It knows
 * beforehand which number the kernel gives, and moves what got another than
 * the wanted one.
 */
import type { Data, Program, Purpose } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { DescriptorNumbers } from "./descriptor_numbers.ts";

/** Numbers that are above those of every process. */
export interface NumbersAbove {
  /** The first one; from here to `free` are descriptors for the work. */
  readonly base: number;
  /** From here on all are free. */
  readonly free: number;
}

/** Where a descriptor is to be. */
export interface NumberWanted {
  readonly fd: number;
  /** O_CLOEXEC or 0. */
  readonly cloexec: number;
}

/** What to make two with, so that little has to be done to them. */
export function cloexecOfPair(
  first: NumberWanted,
  second: NumberWanted,
): number {
  return first.cloexec === second.cloexec ? first.cloexec : O.CLOEXEC;
}

/** pipe2(2) makes two descriptors. */
const KERNEL_GIVES_AT_ONCE = 2;
const SCRATCH = 2;

export class TableProgram {
  readonly #numbers = new DescriptorNumbers();
  readonly #free: number;
  #temporaries = 0;
  #program: Program;
  /** Where paths are in its data. */
  readonly #paths = new Map<string, Data>();

  /**
   * @param program where the calls go; may change from phase to phase
   * @param absent descriptors for the work that this process does not have
   */
  constructor(
    program: Program,
    above: NumbersAbove,
    absent: readonly number[] = [],
  ) {
    this.#program = program;
    for (let fd = above.base; fd < above.free; fd++) {
      if (!absent.includes(fd)) this.#numbers.takeAt(fd);
    }
    this.#free = above.free;
  }

  get program(): Program {
    return this.#program;
  }

  set program(program: Program) {
    if (program !== this.#program) this.#paths.clear();
    this.#program = program;
  }

  /** Two numbers for use within one step. */
  get scratch(): readonly [number, number] {
    // When a process has all numbers below in use, the kernel gives the first
    // of these: leave them to it.
    const first = this.#free + KERNEL_GIVES_AT_ONCE;
    return [first, first + 1];
  }

  /** A number that nothing else gets. */
  temporary(): number {
    const fd = this.end;
    this.#temporaries++;
    return fd;
  }

  /** Above all numbers that are in use at any time. */
  get end(): number {
    return this.#free + KERNEL_GIVES_AT_ONCE + SCRATCH + this.#temporaries;
  }

  /** Takes the number of a descriptor that the kernel makes. */
  take(): number {
    return this.#numbers.take();
  }

  open(
    path: string,
    flags: number,
    to: number,
    cloexec: number,
    purpose: Purpose,
  ): void {
    this.#program.call(
      "openat",
      [AT_FDCWD, this.#pathOf(path), flags | O.NOCTTY | cloexec, 0],
      purpose,
    );
    this.settle(to, cloexec, cloexec);
  }

  #pathOf(path: string): Data {
    let place = this.#paths.get(path);
    if (place === undefined) {
      place = this.#program.text(encodeText(path));
      this.#paths.set(path, place);
    }
    return place;
  }

  /**
   * Gives what the last call has made its number.
   *
   * @param has O_CLOEXEC where it was made with that
   */
  settle(to: number, cloexec: number, has: number = O.CLOEXEC): void {
    const from = this.take();
    if (from === to && has === cloexec) return;
    this.#program.settle(to, cloexec !== 0);
    this.#numbers.free(from);
    this.#numbers.takeAt(to);
  }

  /** The same for the two that it has made. */
  settlePair(first: NumberWanted, second: NumberWanted, has: number): void {
    const [one, other] = [this.take(), this.take()];
    const isInTheWay = first.fd === other;
    const [aside] = this.scratch;
    if (isInTheWay) this.#move(other, { fd: aside, cloexec: has }, has);
    this.#move(one, first, has);
    this.#move(isInTheWay ? aside : other, second, has);
  }

  #move(from: number, { fd, cloexec }: NumberWanted, has: number): void {
    if (from === fd && has === cloexec) return;
    this.#program.call(
      "move",
      [from, fd, cloexec],
      () => `making descriptor ${fd}`,
    );
    this.#numbers.free(from);
    this.#numbers.takeAt(fd);
  }

  duplicate(from: number, to: number, cloexec: number): void {
    this.#program.call(
      "dup3",
      [from, to, cloexec],
      () => `making descriptor ${to}`,
    );
    this.#numbers.takeAt(to);
  }

  close(fd: number): void {
    this.#program.call("close", [fd], () => `closing descriptor ${fd}`);
    this.#numbers.free(fd);
  }
}
