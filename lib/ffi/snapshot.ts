/**
 * A copy of a process at one moment, made by fork(2) in the process itself: it
 * never runs, and its pages are copied on write. So the process can go on at
 * once while its memory is read from the copy.
 *
 * The copy shares the descriptor table: what the process closes is closed. It
 * has no exit signal, so that the process is not told of its end; only its
 * zombie stays, which the process has to take (wait4(2), __WALL).
 */
import { CkptError, EXIT } from "../error.ts";
import { checked } from "./cause.ts";
import { describeErrno, ECHILD, EINTR } from "./errno.ts";
import { PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP } from "./seized_tasks.ts";
import { library } from "./library.ts";
import { type Outcome, Program, YIELD } from "./program.ts";
import type { RemoteTask } from "./remote_task.ts";
import {
  addressOf,
  syscall,
  syscallByTracer,
  SyscallError,
} from "./syscall.ts";
import { TaskMemory } from "./task_memory.ts";

const CLONE_FS = 0x200;
const CLONE_FILES = 0x400;
const CLONE_PTRACE = 0x2000;
const MADV_DONTNEED = 4;
/** End of user space with four-level page tables. */
const TASK_END = 0x7fff_ffff_f000n;
const SIGKILL = 9n;
const WALL = 0x40000000n;

export class Snapshot implements Disposable {
  #killed = false;
  #ended = false;

  private constructor(
    readonly pid: number,
    readonly memory: TaskMemory,
    /** The agent's code and room in the copy: where they were when it was made. */
    readonly agent: bigint,
    readonly room: bigint,
    /** Bytes of the agent's memory. */
    readonly length: number,
  ) {}

  /**
   * Lets the process that `remote` is in copy itself.
   *
   * @param suspendsSeccomp whether the process's filters let our calls pass
   * @returns undefined when the kernel does not allow another process or so
   * much memory: the process is as before
   */
  static take(
    remote: RemoteTask,
    suspendsSeccomp: boolean,
  ): Snapshot | undefined {
    const program = new Program();
    const made = program.call(
      "snapshot",
      [CLONE_FS | CLONE_FILES | CLONE_PTRACE],
      "copying the process",
      { mayFail: true },
    );
    const pid = Number(remote.run(program).result(made));
    if (pid <= 0) return undefined;
    const options = PTRACE_O_EXITKILL |
      (suspendsSeccomp ? PTRACE_O_SUSPEND_SECCOMP : 0n);
    checked(
      library("dump").ckpt_adopt_snapshot(pid, options),
      `copying task ${remote.memory.pid}`,
    );
    const memory = TaskMemory.open(pid);
    // The cure is in the copy, too.
    memory.write(remote.cave.code, new Uint8Array(remote.cave.length));
    return new Snapshot(
      pid,
      memory,
      remote.area,
      remote.room,
      remote.areaLength,
    );
  }

  /**
   * Runs a program in the copy, at full speed: what the process would answer,
   * but without stopping it.
   *
   * @throws CkptError naming the operation that failed
   */
  run(program: Program): Outcome {
    this.begin(program);
    return this.finish(program);
  }

  /** Lets the copy begin a program, for {@link finish}. @throws CkptError */
  begin(program: Program): void {
    const action = `asking the copy of a task, ${this.pid}`;
    this.memory.write(this.room, program.encode(this.room, YIELD.stop));
    const agent = library("agent");
    checked(
      agent.ckpt_agent_point(this.pid, this.agent, this.room, this.room - 64n),
      action,
    );
    checked(agent.ckpt_resume(this.pid), action);
  }

  /**
   * What became of a program that was begun.
   *
   * @throws CkptError naming the operation that failed
   */
  finish(program: Program): Outcome {
    const action = `asking the copy of a task, ${this.pid}`;
    checked(
      library("agent").ckpt_agent_wait(this.pid, new Uint8Array(4), 0n, 1),
      action,
    );
    const outcome = program.outcome(
      this.memory.read(this.room, program.size),
    );
    if (outcome.failure !== undefined) {
      throw new CkptError(EXIT.failed, action, [{
        object: outcome.failure.purpose,
        why: describeErrno(outcome.failure.errno),
      }]);
    }
    return outcome;
  }

  /**
   * Gives back its memory, as far as that is simple. Nothing can be read any
   * more. The areas stay: the kernel writes into that of rseq(2) when it likes.
   */
  empty(): void {
    const end = this.agent + BigInt(this.length);
    const program = new Program();
    for (const [from, to] of [[0n, this.agent], [end, TASK_END]]) {
      // Ends at the first area that cannot be emptied, such as the vdso's data.
      program.call(
        "madvise",
        [from, to - from, MADV_DONTNEED],
        "giving memory back",
        { mayFail: true },
      );
    }
    this.run(program);
  }

  /** Begins to {@link end} it. */
  kill(): void {
    if (this.#killed) return;
    this.#killed = true;
    syscall("kill", BigInt(this.pid), SIGKILL);
  }

  /** Ends the copy. Its zombie is left to the process. */
  end(): void {
    if (this.#ended) return;
    this.kill();
    this.#ended = true;
    this.memory[Symbol.dispose]();
    const status = new Int32Array(2);
    const bytes = new Uint8Array(status.buffer);
    for (;;) {
      try {
        syscallByTracer("wait4", BigInt(this.pid), addressOf(bytes), WALL);
        const STOPPED = 0x7f;
        if ((status[0] & 0xff) !== STOPPED) return;
      } catch (error) {
        if (!(error instanceof SyscallError)) throw error;
        if (error.errno === ECHILD) return;
        if (error.errno !== EINTR) throw error;
      }
    }
  }

  [Symbol.dispose](): void {
    this.end();
  }
}
