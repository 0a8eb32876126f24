/** A process all of whose threads are stopped by ptrace, as a scope. */
import { CkptError, EXIT } from "../error.ts";
import { checked } from "./cause.ts";
import { ENOBUFS, EPERM, ETIMEDOUT } from "./errno.ts";
import { library } from "./library.ts";

const PTRACE_O_TRACESYSGOOD = 1n;
export const PTRACE_O_EXITKILL = 1n << 20n;
export const PTRACE_O_SUSPEND_SECCOMP = 1n << 21n;

const FIRST_ROOM = 256;
/** Linux allows no more pids than this (PID_MAX_LIMIT). */
const MOST_THREADS = 4 * 1024 * 1024;

function remedyFor(result: bigint): string | undefined {
  switch (result) {
    case BigInt(-EPERM):
      return "a task can be traced by one program at a time, and only with " +
        "the capability CAP_SYS_PTRACE";
    case BigInt(-ETIMEDOUT):
      return "it is blocked in the kernel; --timeout gives it more time";
    default:
      return undefined;
  }
}

export class FrozenProcess implements Disposable {
  #over = false;

  private constructor(
    readonly pid: number,
    /** All threads, the leader first. */
    readonly tids: Int32Array<ArrayBuffer>,
    /** Whether seccomp does not apply to calls made in them meanwhile. */
    readonly suspendsSeccomp: boolean,
  ) {}

  /**
   * Stops every thread. On failure none stays stopped.
   *
   * @param timeoutMs how long one thread may take; 0: a day
   */
  static freeze(pid: number, timeoutMs: number): FrozenProcess {
    const action = `stopping task ${pid}`;
    let options = PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;
    for (let room = FIRST_ROOM; room <= MOST_THREADS; room *= 4) {
      const tids = new Int32Array(room);
      const freeze = () =>
        library("dump").ckpt_freeze(
          pid,
          new Uint8Array(tids.buffer),
          BigInt(room),
          options,
          timeoutMs === 0 ? 86_400_000 : timeoutMs,
        );
      let count = freeze();
      if (count === BigInt(-EPERM) && options !== PTRACE_O_TRACESYSGOOD) {
        // Suspending seccomp needs CAP_SYS_ADMIN in the first user namespace,
        // and a tracer without filters of its own. The caller has to see to it
        // that the task has none.
        options = PTRACE_O_TRACESYSGOOD;
        count = freeze();
      }
      if (count === BigInt(-ENOBUFS)) continue;
      checked(count, action, remedyFor(count));
      return new FrozenProcess(
        pid,
        tids.slice(0, Number(count)),
        options !== PTRACE_O_TRACESYSGOOD,
      );
    }
    throw new CkptError(EXIT.failed, action, [{
      object: `task ${pid}`,
      why: `it has more than ${MOST_THREADS} threads`,
    }]);
  }

  /**
   * Stops one thread of a process; the others run on.
   *
   * @throws CkptError when it does not stop in time, or is gone
   */
  static freezeThread(tid: number, timeoutMs: number): FrozenProcess {
    const stop = (options: bigint) =>
      library("dump").ckpt_stop_thread(tid, options, timeoutMs);
    const suspending = PTRACE_O_TRACESYSGOOD | PTRACE_O_SUSPEND_SECCOMP;
    let result = stop(suspending);
    const suspends = result !== BigInt(-EPERM);
    if (!suspends) result = stop(PTRACE_O_TRACESYSGOOD);
    checked(result, `stopping thread ${tid}`);
    return new FrozenProcess(tid, Int32Array.of(tid), suspends);
  }

  get #bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.tids.buffer);
  }

  /** Lets all threads go on. */
  thaw(): void {
    if (this.#over) return;
    this.#over = true;
    library("dump").ckpt_detach(this.#bytes, BigInt(this.tids.length));
  }

  /** Ends the process without letting it run, and waits for its end. */
  kill(): void {
    this.#over = true;
    checked(
      library("dump").ckpt_kill(
        this.pid,
        this.#bytes,
        BigInt(this.tids.length),
      ),
      `ending task ${this.pid}`,
    );
  }

  [Symbol.dispose](): void {
    this.thaw();
  }
}
