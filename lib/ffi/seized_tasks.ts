/**
 * Threads that are being stopped by ptrace: first all are asked to stop, then
 * all are waited for, so that they stop side by side (c/lib/freeze.c).
 */
import { CkptError } from "../error.ts";
import { checked } from "./cause.ts";
import { ENOBUFS, EPERM, ETIMEDOUT } from "./errno.ts";
import { library } from "./library.ts";

const PTRACE_O_TRACESYSGOOD = 1n;
export const PTRACE_O_EXITKILL = 1n << 20n;
export const PTRACE_O_SUSPEND_SECCOMP = 1n << 21n;

/** Options for threads that are stopped in order to be looked at. */
export const TRACING = {
  plain: PTRACE_O_TRACESYSGOOD,
  suspendingSeccomp: PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP,
} as const;

export interface SeizeOptions {
  /** All processes below it, too. */
  readonly children: boolean;
  /** It is frozen by a cgroup of version 1 meanwhile. */
  readonly refrigerated: boolean;
  /** But those that wait in vfork(2): they are left alone. */
  readonly noWaiters?: boolean;
}

const SEIZE_CHILDREN = 1;
const SEIZE_REFRIGERATED = 2;
const SEIZE_NO_WAITERS = 4;

/** enum stopping: it waits in vfork(2). */
const WAITING = 4;

/** struct stopping_task of c/lib/freeze.c, in words. */
const WORDS = 4;
/** struct kinship: a process, its parent, and the thread that is. */
const KINSHIP_WORDS = 3;
const FIRST_ROOM = 256;

/** How long undoing waits for threads that do not stop. */
const UNDO_TIMEOUT_MS = 100;
export const A_DAY_MS = 86_400_000;

/** The threads of one process. */
export interface SeizedProcess {
  readonly pid: number;
  /**
   * All threads that have not ended: the leader first, or, where that has
   * ended, the one with the lowest id.
   */
  readonly tids: Int32Array<ArrayBuffer>;
  /** The signal by which job control had stopped it; 0: it ran. */
  readonly stopSignal: number;
  /** Threads that wait in vfork(2), and were left alone. */
  readonly waiting: readonly number[];
}

export class SeizedTasks {
  #tasks = new Int32Array(FIRST_ROOM * WORDS);
  readonly #count = new BigUint64Array(1);
  /** As of the last seize. */
  #kinships = new Int32Array(FIRST_ROOM * KINSHIP_WORDS);
  readonly #found = new BigUint64Array(1);
  #options: bigint = TRACING.suspendingSeccomp;

  /** @param action what errors say was being done */
  constructor(readonly action: string) {}

  /** Whether seccomp does not apply to calls made in them meanwhile. */
  get suspendsSeccomp(): boolean {
    return this.#options !== TRACING.plain;
  }

  /**
   * Asks every thread to stop that is not asked yet, and waits for none.
   *
   * @returns how many are new
   * @throws CkptError; what was seized stays so until {@link letGo}
   */
  seize(
    root: number,
    { children, refrigerated, noWaiters }: SeizeOptions,
  ): number {
    const before = this.#count[0];
    const flags = (children ? SEIZE_CHILDREN : 0) |
      (refrigerated ? SEIZE_REFRIGERATED : 0) |
      (noWaiters ? SEIZE_NO_WAITERS : 0);
    for (;;) {
      const result = library("dump").ckpt_seize(
        root,
        flags,
        bytesOf(this.#tasks),
        bytesOf(this.#count),
        BigInt(this.#tasks.length / WORDS),
        this.#options,
        bytesOf(this.#kinships),
        bytesOf(this.#found),
      );
      if (result === BigInt(-ENOBUFS)) {
        const larger = new Int32Array(this.#tasks.length * 4);
        larger.set(this.#tasks);
        this.#tasks = larger;
        this.#kinships = new Int32Array(this.#kinships.length * 4);
      } else if (
        result === BigInt(-EPERM) && this.suspendsSeccomp &&
        this.#count[0] === 0n
      ) {
        // Suspending seccomp needs CAP_SYS_ADMIN in the first user namespace,
        // and a tracer without filters of its own. The caller has to see to it
        // that the tasks have none.
        this.#options = TRACING.plain;
      } else {
        checked(
          result,
          this.action,
          result === BigInt(-EPERM)
            ? "a task can be traced by one program at a time, and only with " +
              "the capability CAP_SYS_PTRACE"
            : undefined,
        );
        return Number(this.#count[0] - before);
      }
    }
  }

  /**
   * Waits until all that were asked have stopped; those that have ended are
   * forgotten.
   *
   * @param timeoutMs for all of them together
   */
  awaitStops(timeoutMs: number): void {
    const result = library("dump").ckpt_await_stops(
      bytesOf(this.#tasks),
      bytesOf(this.#count),
      this.#options,
      Math.ceil(timeoutMs),
    );
    checked(
      result,
      this.action,
      result === BigInt(-ETIMEDOUT)
        ? "it is blocked in the kernel; --timeout gives it more time"
        : undefined,
    );
  }

  /** The children of each process that has any, as of the last {@link seize}. */
  children(): Map<number, number[]> {
    const children = new Map<number, number[]>();
    for (let i = 0; i < Number(this.#found[0]); i++) {
      const [pid, parent] = this.#kinships.subarray(i * KINSHIP_WORDS);
      const siblings = children.get(parent);
      if (siblings === undefined) children.set(parent, [pid]);
      else siblings.push(pid);
    }
    return children;
  }

  /**
   * The threads that are parents, by their children; only those that are no
   * leaders. As of the last {@link seize}.
   */
  parentThreads(): Map<number, number> {
    const threads = new Map<number, number>();
    for (let i = 0; i < Number(this.#found[0]); i++) {
      const [pid, parent, thread] = this.#kinships.subarray(i * KINSHIP_WORDS);
      if (thread !== parent) threads.set(pid, thread);
    }
    return threads;
  }

  /** Pids of all processes that have a thread among them. */
  pids(): Set<number> {
    const pids = new Set<number>();
    for (let i = 0; i < Number(this.#count[0]); i++) {
      pids.add(this.#tasks[i * WORDS]);
    }
    return pids;
  }

  /** By process, in the order in which they were found. */
  processes(): SeizedProcess[] {
    const threads = new Map<number, number[]>();
    const signals = new Map<number, number>();
    const waiting = new Map<number, number[]>();
    for (let i = 0; i < Number(this.#count[0]); i++) {
      const [pid, tid, stopping, stopSignal] = this.#tasks.subarray(i * WORDS);
      if (stopping === WAITING) {
        waiting.set(pid, [...waiting.get(pid) ?? [], tid]);
        if (!threads.has(pid)) threads.set(pid, []);
        continue;
      }
      const known = threads.get(pid);
      if (known === undefined || known.length === 0) {
        threads.set(pid, [tid]);
        signals.set(pid, stopSignal);
      } else if (tid === pid || known[0] !== pid && tid < known[0]) {
        known.unshift(tid);
      } else known.push(tid);
    }
    return [...threads].map(([pid, tids]) => ({
      pid,
      tids: Int32Array.from(tids),
      stopSignal: signals.get(pid) ?? 0,
      waiting: waiting.get(pid) ?? [],
    }));
  }

  /**
   * Lets all go on: those that have not stopped yet cannot be let go, and are
   * waited for, but not for long.
   *
   * @param between what to do when they have stopped, before they go on
   */
  letGo(between: () => void = () => {}): void {
    try {
      this.awaitStops(UNDO_TIMEOUT_MS);
    } catch (error) {
      if (!(error instanceof CkptError)) throw error;
    }
    try {
      between();
    } finally {
      this.letGoOthers([]);
      this.#count[0] = 0n;
    }
  }

  /** Lets all go on but the threads of these processes; all have stopped. */
  letGoOthers(pids: readonly number[]): void {
    const staying = new Set(pids);
    for (const { pid, tids } of this.processes()) {
      if (staying.has(pid)) continue;
      library("dump").ckpt_detach(bytesOf(tids), BigInt(tids.length));
    }
  }
}

function bytesOf(
  { buffer }: Int32Array<ArrayBuffer> | BigUint64Array<ArrayBuffer>,
): Uint8Array<ArrayBuffer> {
  return new Uint8Array(buffer);
}
