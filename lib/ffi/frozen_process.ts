/** A process all of whose threads are stopped by ptrace, as a scope. */
import { CkptError, EXIT } from "../error.ts";
import { checked } from "./cause.ts";
import { EPERM } from "./errno.ts";
import { library } from "./library.ts";
import {
  A_DAY_MS,
  type SeizedProcess,
  SeizedTasks,
  TRACING,
} from "./seized_tasks.ts";
import { syscall, SyscallError } from "./syscall.ts";

const SIGKILL = 9n;

export class FrozenProcess implements Disposable {
  #over = false;

  private constructor(
    readonly pid: number,
    /**
     * All threads that are stopped: the leader first, or, where that has ended, the one with
     * the lowest id.
     */
    readonly tids: Int32Array<ArrayBuffer>,
    /** Whether seccomp does not apply to calls made in them meanwhile. */
    readonly suspendsSeccomp: boolean,
    /** The signal by which job control had stopped it; 0: it ran. */
    readonly stopSignal: number,
    /** Threads that wait in vfork(2) and are not stopped, but stand as well. */
    readonly waiting: readonly number[] = [],
  ) {}

  /**
   * Stops every thread. On failure none stays stopped.
   *
   * @param timeoutMs how long it may take; 0: a day
   */
  static freeze(pid: number, timeoutMs: number): FrozenProcess {
    const tasks = new SeizedTasks(`stopping task ${pid}`);
    const options = { children: false, refrigerated: false };
    try {
      while (tasks.seize(pid, options) > 0) {
        tasks.awaitStops(timeoutMs === 0 ? A_DAY_MS : timeoutMs);
      }
      return FrozenProcess.ofStopped(pid, tasks.processes()[0], tasks);
    } catch (error) {
      tasks.letGo();
      throw error;
    }
  }

  /**
   * A process all of whose threads have stopped, as a scope.
   *
   * @param seized undefined: none of its threads were there to be stopped
   * @throws CkptError when it has ended
   */
  static ofStopped(
    pid: number,
    seized: SeizedProcess | undefined,
    { action, suspendsSeccomp }: SeizedTasks,
  ): FrozenProcess {
    if (seized === undefined) {
      throw new CkptError(EXIT.gone, action, [{
        object: `task ${pid}`,
        why: "it has ended",
      }]);
    }
    return new FrozenProcess(
      pid,
      seized.tids,
      suspendsSeccomp,
      seized.stopSignal,
      seized.waiting,
    );
  }

  /**
   * Asks one thread of a process to stop; the others run on.
   *
   * @returns what waits for the stop, and throws CkptError when it does not
   * come in time or the thread is gone; it has to be called
   * @throws CkptError when it is gone
   */
  static askThread(tid: number): (timeoutMs: number) => FrozenProcess {
    const ask = (options: bigint) =>
      library("dump").ckpt_ask_thread(tid, options);
    let result = ask(TRACING.suspendingSeccomp);
    const suspends = result !== BigInt(-EPERM);
    if (!suspends) result = ask(TRACING.plain);
    checked(result, `stopping thread ${tid}`);
    return (timeoutMs) => {
      checked(
        library("dump").ckpt_await_thread(tid, timeoutMs),
        `stopping thread ${tid}`,
      );
      return new FrozenProcess(tid, Int32Array.of(tid), suspends, 0);
    };
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

  /** Ends the process without letting it run; {@link kill} waits for the end. */
  sendKill(): void {
    this.#over = true;
    try {
      syscall("kill", BigInt(this.pid), SIGKILL);
    } catch (error) {
      // It is gone already.
      if (!(error instanceof SyscallError)) throw error;
    }
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

  /** From now on the process ends when its tracer does. */
  endWithTracer(): void {
    this.#over = true;
    checked(
      library("dump").ckpt_end_with_tracer(
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
