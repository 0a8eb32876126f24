/**
 * A process that starts as the agent, or is forked by one, and becomes a
 * restored one. A scope: until it is released it ends with this object, and
 * with ckpt.
 */
import { CkptError, EXIT } from "../error.ts";
import { checked, nativeError } from "./cause.ts";
import { describeErrno, EEXIST, EPERM } from "./errno.ts";
import { PTRACE_O_EXITKILL, PTRACE_O_SUSPEND_SECCOMP } from "./seized_tasks.ts";
import { library } from "./library.ts";
import { pause } from "./pause.ts";
import { type Outcome, type Program, YIELD } from "./program.ts";
import { AGENT_START } from "./remote_task.ts";
import {
  addressOf,
  close,
  O,
  syscall,
  syscallBuffer0,
  SyscallError,
} from "./syscall.ts";
import { TaskMemory } from "./task_memory.ts";

const PTRACE_O_TRACESYSGOOD = 1n;
const PTRACE_O_TRACEFORK = 1n << 1n;
const PTRACE_O_TRACEVFORK = 1n << 2n;
const PTRACE_O_TRACECLONE = 1n << 3n;

/**
 * A program that was just dumped keeps its pid until its parent takes its exit
 * status, which is a matter of milliseconds.
 */
const ZOMBIE_PATIENCE_MS = 2000;
const ZOMBIE_POLL_MS = 5;

const SIGKILL = 9n;

/** A stopped thread of the process, in the agent. */
export interface AgentThread {
  readonly tid: number;
  readonly stack: bigint;
}

/** enum parent of c/lib/spawn.c. */
const PARENTS = { ckpt: 0, parentOfCkpt: 1, nobody: 2 } as const;

export interface StartOptions {
  /** The pid it gets; 0: any. */
  pid: number;
  /** Whose child it is: ckpt's, ckpt's parent's, or that of nobody. */
  parent: keyof typeof PARENTS;
  /** Descriptors of ckpt that it keeps, under the same numbers. */
  keep: readonly number[];
  /** RLIMIT_NOFILE to start with: soft, hard. */
  openFiles: readonly [bigint, bigint];
}

/** What an agent is traced with; it ends with ckpt. */
const TRACING = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK |
  PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL |
  PTRACE_O_SUSPEND_SECCOMP;

export class AgentProcess implements Disposable {
  /** Where the agent's code is; moves once. */
  #agent: bigint;
  #over = false;
  readonly #lifeline: number | undefined;
  /** It cannot be ended by itself. */
  #endsWithCkpt = false;

  private constructor(
    readonly pid: number,
    readonly memory: TaskMemory,
    agent: bigint,
    lifeline?: number,
  ) {
    this.#agent = agent;
    this.#lifeline = lifeline;
  }

  /** A process that this one has just forked; it stands before its first step. */
  adopt(pid: number): AgentProcess {
    return new AgentProcess(pid, TaskMemory.open(pid), this.#agent);
  }

  /**
   * Starts the agent with the pid that is asked for, stopped.
   *
   * @throws CkptError naming the pid when it is taken
   */
  static start(options: StartOptions): AgentProcess {
    const ends = new Int32Array(2);
    syscallBuffer0("pipe2", new Uint8Array(ends.buffer), BigInt(O.CLOEXEC));
    const [reading, lifeline] = ends;
    const keep = Int32Array.from(options.keep);
    const start = () =>
      library("agent").ckpt_start_agent(
        options.pid,
        PARENTS[options.parent],
        reading,
        new Uint8Array(keep.buffer),
        BigInt(keep.length),
        options.openFiles[0],
        options.openFiles[1],
        TRACING,
      );
    let pid = start();
    const deadline = performance.now() + ZOMBIE_PATIENCE_MS;
    while (
      pid === BigInt(-EEXIST) && isZombie(options.pid) &&
      performance.now() < deadline
    ) {
      pause(ZOMBIE_POLL_MS);
      pid = start();
    }
    close(reading);
    if (pid < 0n) {
      close(lifeline);
      throw startError(options.pid, pid);
    }
    const memory = TaskMemory.open(Number(pid));
    return new AgentProcess(Number(pid), memory, AGENT_START, lifeline);
  }

  /**
   * Takes an agent that was started for ckpt by another, and waits for its
   * tracer. It may be the init of ckpt's pid namespace, which no signal from
   * within ends: it ends with ckpt.
   *
   * @param lifeline descriptor whose end it waits for, too
   */
  static take(pid: number, lifeline: number): AgentProcess {
    checked(
      library("agent").ckpt_trace_agent(pid, TRACING),
      `starting task ${pid}`,
    );
    const memory = TaskMemory.open(pid);
    const agent = new AgentProcess(pid, memory, AGENT_START, lifeline);
    agent.#endsWithCkpt = true;
    return agent;
  }

  /** From now on the agent runs at `address`, where it is copied to. */
  moveTo(address: bigint): void {
    checked(
      library("restore").ckpt_write_agent(this.memory.fd, address),
      "moving the agent",
    );
    this.#agent = address;
  }

  /** Writes a program and lets a thread begin it when it is resumed. */
  load(thread: AgentThread, program: Program, address: bigint): void {
    this.memory.write(address, program.encode(address, YIELD.stop));
    this.point(thread, address);
  }

  point(thread: AgentThread, address: bigint): void {
    checked(
      library("agent").ckpt_agent_point(
        thread.tid,
        this.#agent,
        address,
        thread.stack,
      ),
      `preparing thread ${thread.tid}`,
    );
  }

  resume(thread: AgentThread): void {
    checked(
      library("agent").ckpt_resume(thread.tid),
      `resuming thread ${thread.tid}`,
    );
  }

  /**
   * Waits for the end of a program; a child made with CLONE_VFORK is the end of
   * it, too.
   *
   * @param room how many threads it may clone at most
   * @param single whether it is the only thread of its process
   * @returns the ids of the threads it cloned; they stay stopped
   * @throws CkptError naming the operation that failed
   */
  wait(
    thread: AgentThread,
    program: Program,
    address: bigint,
    room = 0,
    single = false,
  ): Int32Array {
    const born = new Int32Array(Math.max(room, 1));
    const count = checked(
      library("agent").ckpt_agent_wait(
        thread.tid,
        new Uint8Array(born.buffer),
        BigInt(room),
        single ? 1 : 0,
      ),
      `restoring task ${this.pid}`,
    );
    this.outcome(program, address);
    return born.subarray(0, Number(count));
  }

  /** Runs a program whose calls queue signals or arm timers; see libckpt. */
  step(thread: AgentThread, program: Program, address: bigint): Outcome {
    this.memory.write(address, program.encode(address, YIELD.noSuchCall));
    this.point(thread, address);
    checked(
      library("restore").ckpt_agent_step(thread.tid),
      `restoring task ${this.pid}`,
    );
    return this.outcome(program, address);
  }

  /** @throws CkptError when an operation of the program failed */
  outcome(program: Program, address: bigint): Outcome {
    const outcome = program.outcome(this.memory.read(address, program.size));
    if (outcome.failure !== undefined) {
      const { purpose, errno } = outcome.failure;
      throw new CkptError(
        errno === EPERM ? EXIT.permission : EXIT.failed,
        `restoring task ${this.pid}`,
        [{ object: purpose, why: describeErrno(errno) }],
      );
    }
    return outcome;
  }

  /**
   * Lets the leader run a program that ends it, and it alone; the other threads
   * stay stopped.
   */
  endLeader(leader: AgentThread, program: Program, address: bigint): void {
    this.load(leader, program, address);
    checked(
      library("restore").ckpt_end_leader(leader.tid),
      `ending thread ${leader.tid}`,
    );
  }

  /** Lets a thread that is no leader run a program that ends it. */
  endThread(thread: AgentThread, program: Program, address: bigint): void {
    this.load(thread, program, address);
    checked(
      library("restore").ckpt_agent_end(thread.tid),
      `ending thread ${thread.tid}`,
    );
  }

  /**
   * Ends a thread that is no leader, and has left the agent.
   *
   * @param at of a system call instruction in its memory
   */
  static exitAt(tid: number, at: bigint): void {
    checked(
      library("restore").ckpt_exit_at(tid, at),
      `ending thread ${tid}`,
    );
  }

  /**
   * Unmaps the agents' memory in several processes, side by side.
   *
   * @param places a thread of each, and the address of a system call
   * instruction in its memory
   */
  static unmapAgents(
    places: readonly { readonly tid: number; readonly at: bigint }[],
    start: bigint,
    length: bigint,
  ): void {
    const MUNMAP = 11n;
    const words = new BigUint64Array(
      places.flatMap(({ tid, at }) => [at, BigInt(tid)]),
    );
    checked(
      library("restore").ckpt_call_at(
        new Uint8Array(words.buffer),
        BigInt(places.length),
        MUNMAP,
        start,
        length,
      ),
      "removing the agents",
    );
  }

  /**
   * Lets a process that has a program loaded run to its end.
   *
   * @returns its status, as wait(2) gives it
   */
  runToEnd(): number {
    const status = checked(
      library("restore").ckpt_agent_end(this.pid),
      `ending task ${this.pid}`,
    );
    this.#close();
    return Number(status);
  }

  /** From here on it lives, or is gone, without this object. */
  #close(): void {
    if (this.#over) return;
    this.#over = true;
    if (this.#lifeline !== undefined) close(this.#lifeline);
    this.memory[Symbol.dispose]();
  }

  /**
   * All threads of all processes go on as what they are now; from here they
   * live.
   */
  static release(
    processes: readonly AgentProcess[],
    tids: Int32Array<ArrayBuffer>,
  ): void {
    checked(
      library("restore").ckpt_release(
        new Uint8Array(tids.buffer),
        BigInt(tids.length),
      ),
      "letting all tasks go on",
    );
    for (const process of processes) process.#close();
  }

  [Symbol.dispose](): void {
    if (this.#over) return;
    this.#close();
    if (this.#endsWithCkpt) return;
    try {
      syscall("kill", BigInt(this.pid), SIGKILL);
    } catch {
      return; // it is gone already
    }
    // The leader's end is told last, when those of all threads are taken.
    for (const tid of threadsOf(this.pid)) takeEnd(tid);
    takeEnd(this.pid);
  }
}

/** All threads but the leader, also those that have ended. */
function threadsOf(pid: number): number[] {
  try {
    return [...Deno.readDirSync(`/proc/${pid}/task`)]
      .map(({ name }) => Number(name)).filter((tid) => tid !== pid);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Waits until a killed task is gone. */
function takeEnd(tid: number): void {
  const WALL = 0x40000000n;
  const STOPPED = 0x7f;
  const status = new Int32Array(2);
  try {
    do {
      syscall(
        "wait4",
        BigInt(tid),
        addressOf(new Uint8Array(status.buffer)),
        WALL,
      );
    } while ((status[0] & STOPPED) === STOPPED);
  } catch (error) {
    // ECHILD: it is gone already.
    if (!(error instanceof SyscallError)) throw error;
  }
}

function isZombie(pid: number): boolean {
  try {
    return /^State:\s+Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    // Gone by now: the pid is free.
    return true;
  }
}

function startError(wanted: number, result: bigint): CkptError {
  if (result !== BigInt(-EEXIST)) {
    return nativeError(
      result,
      `starting task ${wanted}`,
      Number(-result) === EPERM
        ? "choosing a pid needs CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
        : undefined,
    );
  }
  let holder = "";
  try {
    const name = Deno.readTextFileSync(`/proc/${wanted}/comm`).trimEnd();
    holder = isZombie(wanted)
      ? ` by "${name}", which has ended but whose parent did not take notice`
      : ` by "${name}"`;
  } catch {
    // A pid may also be taken as the id of a group or session.
  }
  return new CkptError(EXIT.failed, `starting task ${wanted}`, [{
    object: `pid ${wanted}`,
    why: `it is taken${holder}`,
    remedy: "end that process, or restore in a new pid namespace: " +
      "unshare --pid --fork --mount-proc ckpt restore ...",
  }]);
}
