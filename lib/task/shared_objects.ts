/**
 * Which processes share a kernel object (memory, descriptors, directories,
 * signal actions), as small numbers: equal numbers mean the same object.
 */
import { checked } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { syscall } from "../ffi/syscall.ts";

/** kcmp(2) types. */
export const KCMP = { vm: 1n, files: 2n, fs: 3n, sighand: 4n } as const;

/** Objects that a process may do without. */
const KCMP_OPTIONAL = { io: 5n, sysvsem: 6n } as const;

/**
 * Whether two processes share an I/O context or a list of semaphore undos
 * (CLONE_IO, CLONE_SYSVSEM of clone(2)). Those that have none are alike for
 * kcmp(2), and like a thread that has none either.
 */
export function sharesOptional(
  kind: keyof typeof KCMP_OPTIONAL,
  pid: number,
  other: number,
): boolean {
  return isSame(kind, pid, other) && !isSame(kind, pid, threadWithout());
}

/** Whether a thread has a list of semaphore undos, which may be empty. */
export function hasSemaphoreUndo(tid: number): boolean {
  return !isSame("sysvsem", tid, threadWithout());
}

function isSame(
  kind: keyof typeof KCMP_OPTIONAL,
  a: number,
  b: number,
): boolean {
  return syscall("kcmp", BigInt(a), BigInt(b), KCMP_OPTIONAL[kind]) === SAME;
}

let bareThread: number | undefined;

/** None of Deno's: ionice(1) and I/O give it a context, pthread_create(3) undos. */
function threadWithout(): number {
  return bareThread ??= Number(checked(
    library("bareThread").ckpt_start_bare_thread(),
    "comparing what processes share",
  ));
}

/** Answers of kcmp(2): a total order over the objects of one kind. */
const SAME = 0n;
const BELOW = 1n;

/** Numbers the objects of one kind in the order they are asked for. */
export class ObjectNumbers {
  /** A process for each known object, in the kernel's order of them. */
  readonly #sorted: { pid: number; number: number }[] = [];
  #next: number;

  /** @param first the first number to give */
  constructor(readonly type: bigint, first: number) {
    this.#next = first;
  }

  /** The number of an object that no other process can have. */
  another(): number {
    return this.#next++;
  }

  /**
   * The number of a process's object.
   *
   * @throws SyscallError when the process is gone or may not be inspected
   */
  of(pid: number): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const known = this.#sorted[middle];
      const order = syscall("kcmp", BigInt(pid), BigInt(known.pid), this.type);
      if (order === SAME) return known.number;
      if (order === BELOW) high = middle;
      else low = middle + 1;
    }
    const number = this.#next++;
    this.#sorted.splice(low, 0, { pid, number });
    return number;
  }
}
