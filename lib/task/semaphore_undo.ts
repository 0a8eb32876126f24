/**
 * What the kernel adds to System V semaphores when a process ends, because it
 * has changed them with SEM_UNDO (semop(2), ipc/sem.c): what it holds is given
 * back.
 */
import type { Reason } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import type { ckpt_semaphore_undo_entry } from "../image/schema.gen.ts";

/** The value of each semaphore of a set, by its id. */
export type SemaphoreValues = ReadonlyMap<number, ArrayLike<number>>;

/**
 * Why those of the host cannot be taken again: they were given back when the
 * program ended.
 *
 * @param undos of all processes
 * @param host what its sets are now
 */
export function semaphoreProblems(
  undos: readonly ckpt_semaphore_undo_entry[],
  host: SemaphoreValues,
): Reason[] {
  const sums = new Map<number, number[]>();
  for (const { set, adjustments } of undos) {
    const sum = sums.get(set) ?? [];
    adjustments.forEach((one, i) => sum[i] = (sum[i] ?? 0) + one);
    sums.set(set, sum);
  }
  return [...sums].flatMap(([set, sum]): Reason[] => {
    const values = host.get(set);
    if (values === undefined || values.length !== sum.length) {
      return [{
        object: `System V semaphore set ${set}`,
        why: "the program held semaphores of it (SEM_UNDO), and this host " +
          "has no such set",
        remedy: "restore where the program was dumped; a program in an ipc " +
          "namespace of its own takes its semaphores along",
      }];
    }
    return sum.flatMap((wanted, i): Reason[] =>
      wanted <= values[i] ? [] : [{
        object: `semaphore ${i} of System V set ${set}`,
        why: `the program held it (SEM_UNDO), and somebody else has it now: ` +
          `its value is ${values[i]}, and ${wanted} is to be taken`,
        remedy: "wait until it is free, or end who has it",
      }]
    );
  });
}

/** semop(2) */
const SEM_UNDO = 0o10000;
const IPC_NOWAIT = 0o4000;
/** SEMVMX of linux/sem.h. */
const LARGEST_VALUE = 32767;
/** A semaphore can always be changed by so much in one direction or the other. */
const MOST_AT_ONCE = LARGEST_VALUE >> 1;

/**
 * Operations by which a process gets them: what it held is taken again from the
 * host.
 *
 * @param own values that the sets of an ipc namespace of the tree's own have
 * got already, and keep
 */
export function restoreSemaphoreUndos(
  program: Program,
  undos: readonly ckpt_semaphore_undo_entry[],
  own: SemaphoreValues | undefined,
): void {
  for (const { set, adjustments } of undos) {
    adjustments.forEach((adjustment, i) => {
      const change = (by: number, flags: number) =>
        program.call(
          "semop",
          [set, program.bytes(semaphoreOperation(i, by, flags)), 1],
          `changing semaphore ${i} of System V set ${set}`,
        );
      const value = own?.get(set)?.[i];
      for (const part of parts(adjustment)) {
        if (value === undefined) change(-part, SEM_UNDO);
        else if (value - part < 0 || value - part > LARGEST_VALUE) {
          change(part, 0);
          change(-part, SEM_UNDO);
        } else {
          change(-part, SEM_UNDO);
          change(part, 0);
        }
      }
    });
  }
}

/** Numbers of one sign that are not too large, and add up to `whole`. */
function parts(whole: number): number[] {
  const found: number[] = [];
  for (let left = whole; left !== 0;) {
    const part = Math.sign(left) * Math.min(Math.abs(left), MOST_AT_ONCE);
    found.push(part);
    left -= part;
  }
  return found;
}

/** struct sembuf */
function semaphoreOperation(
  index: number,
  by: number,
  flags: number,
): Uint8Array<ArrayBuffer> {
  const words = Uint16Array.of(index, by, flags | IPC_NOWAIT);
  return new Uint8Array(words.buffer);
}
