/**
 * Which System V semaphores a process holds with SEM_UNDO (semaphore_undo.ts).
 * No call tells of it: it is looked up in the kernel's memory.
 */
import { END } from "../ffi/btf.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { ESRCH } from "../ffi/errno.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";
import { SyscallError } from "../ffi/syscall.ts";
import type { ckpt_semaphore_undo_entry } from "../image/schema.gen.ts";
import { readSysvSemaphores } from "../proc/read.ts";
import { findTask, WAY_TO_TASK } from "./find_task.ts";
import { hasSemaphoreUndo } from "./shared_objects.ts";

const WANTED = {
  ...WAY_TO_TASK,
  task_struct: [...WAY_TO_TASK.task_struct, "sysvsem.undo_list"],
  sem_undo_list: ["list_proc"],
  sem_undo: ["list_proc", "semid", "semadj", END],
} as const;

/** Far more sets than any process uses. */
const MOST_SETS = 1 << 20;

/**
 * Whether a process may have some, where there are semaphores at all: every one
 * that has threads has a list for them.
 *
 * @param tids a living thread of each process
 */
export function mayHaveUndos(tids: readonly number[]): boolean {
  return tids.some((tid) => {
    try {
      return hasSemaphoreUndo(tid);
    } catch (error) {
      if (error instanceof SyscallError && error.errno === ESRCH) return false;
      throw error;
    }
  });
}

export class SemaphoreUndos implements Disposable {
  readonly #kernel: KernelStructures;

  private constructor(kernel: KernelStructures) {
    this.#kernel = kernel;
  }

  /** @returns why it cannot be done here, where that is so */
  static open(): SemaphoreUndos | string {
    const kernel = KernelStructures.open(WANTED);
    return typeof kernel === "string" ? kernel : new SemaphoreUndos(kernel);
  }

  /**
   * Of processes that stand still: a list that several have is told of the
   * first alone.
   *
   * @param tids a living thread of each
   * @throws NoSuchMemory when one is gone
   */
  read(tids: readonly number[]): ckpt_semaphore_undo_entry[][] {
    const counts = new Map(
      readSysvSemaphores().map(({ id, count }) => [id, count]),
    );
    const seen = new Set<bigint>([0n]);
    return tids.map((tid) => {
      const task = findTask(this.#kernel, tid);
      const list = this.#kernel
        .pointer(task, "task_struct", "sysvsem.undo_list");
      if (seen.has(list)) return [];
      seen.add(list);
      return this.#readList(list, counts);
    });
  }

  #readList(
    list: bigint,
    counts: ReadonlyMap<number, number>,
  ): ckpt_semaphore_undo_entry[] {
    const kernel = this.#kernel;
    const head = kernel.at(list, "sem_undo_list", "list_proc");
    const link = BigInt(kernel.offset("sem_undo", "list_proc"));
    const found: ckpt_semaphore_undo_entry[] = [];
    let at = kernel.memory.pointer(head);
    for (let i = 0; at !== head; at = kernel.memory.pointer(at), i++) {
      if (i > MOST_SETS) throw new NoSuchMemory(head);
      const undo = at - link;
      const set = kernel.number(undo, "sem_undo", "semid", 4);
      const count = counts.get(set);
      // -1 of a set that was removed.
      if (count === undefined) continue;
      const bytes = kernel.memory.read(this.#adjustmentsOf(undo), 2 * count);
      const adjustments = [...new Int16Array(bytes.buffer)];
      if (adjustments.some((one) => one !== 0)) {
        found.push({ set, adjustments });
      }
    }
    return found;
  }

  /** A pointer at the end of the structure, or an array that follows it. */
  #adjustmentsOf(undo: bigint): bigint {
    const kernel = this.#kernel;
    const isPointer = kernel.offset("sem_undo", "semadj") + 8 ===
      kernel.offset("sem_undo", END);
    return isPointer
      ? kernel.pointer(undo, "sem_undo", "semadj")
      : kernel.at(undo, "sem_undo", "semadj");
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}
