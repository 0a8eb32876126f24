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

/** pipe2(2) makes two descriptors. */
const KERNEL_GIVES_AT_ONCE = 2;
const SCRATCH = 2;

const F_SETFD = 2;

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
    const got = this.take();
    this.#program.call(
      "openat",
      [AT_FDCWD, this.#pathOf(path), flags | O.NOCTTY | cloexec, 0],
      purpose,
    );
    this.#settle(got, to, cloexec, cloexec);
  }

  #pathOf(path: string): Data {
    let place = this.#paths.get(path);
    if (place === undefined) {
      place = this.#program.text(encodeText(path));
      this.#paths.set(path, place);
    }
    return place;
  }

  /** Gives a descriptor that was made with close-on-exec its number. */
  move(from: number, to: number, cloexec: number): void {
    this.#settle(from, to, O.CLOEXEC, cloexec);
  }

  #settle(from: number, to: number, has: number, cloexec: number): void {
    if (from !== to) {
      this.duplicate(from, to, cloexec);
      this.close(from);
    } else if (has !== cloexec) {
      this.#program.call(
        "fcntl",
        [to, F_SETFD, 0],
        () => `keeping descriptor ${to} over execve`,
      );
    }
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
