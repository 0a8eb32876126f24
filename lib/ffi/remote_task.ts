/**
 * Doing things in a stopped task that only the task itself can do. A scope:
 * whatever happens, the task is put back as it was; if ckpt dies, the task
 * puts itself back (c/lib/remote.c, c/lib/cure.S).
 */
import { CkptError, EXIT } from "../error.ts";
import {
  callResults,
  encodeCalls,
  type OwnCall,
  RESULT_REGISTERS,
} from "./call_code.ts";
import { checked } from "./cause.ts";
import { describeErrno } from "./errno.ts";
import { library } from "./library.ts";
import { NR } from "./syscall.ts";
import { type Outcome, type Program, YIELD } from "./program.ts";
import type { TaskMemory } from "./task_memory.ts";
import type { SyscallUserDispatch } from "./thread_state.ts";

/** How a thread is to be put back. */
export interface Host {
  tid: number;
  /** user_regs_struct with which it goes on. */
  registers: BigUint64Array<ArrayBuffer>;
  signalMask: bigint;
  /** Where and with what in rax it goes on if ckpt dies. */
  cureRip: bigint;
  cureRax: bigint;
  /** System call user dispatch, which is off while the thread is ours. */
  dispatch: SyscallUserDispatch;
  /**
   * A signal that the task ignores and does not block, with which the agent can
   * tell that a program is done; 0: there is none, and programs are slow.
   */
  quietSignal: number;
}

/**
 * Unused bytes of an executable page of the task, where the cures go, and in
 * front of them what other threads are asked.
 */
export interface Cave {
  /** See {@link threadCode}. */
  code: bigint;
  /** For the thread that runs the agent. */
  leader: bigint;
  /** For another thread, while the leader is inside the agent. */
  thread: bigint;
  length: number;
}

const ZERO = 0;

/** Size of one cure, rounded up. */
export function cureSize(): number {
  return (Number(library("dump").ckpt_cure_size()) + 15) & ~15;
}

/** An executable area in which a cave may be, as [start, end). */
export interface CaveCandidate {
  start: number;
  end: number;
}

/** The code by which threads make calls, in the place that it has in a cave. */
export function threadCode(
  calls: readonly OwnCall[],
): Uint8Array<ArrayBuffer> {
  return encodeCalls(calls, cureSize());
}

/**
 * Finds unused bytes at the end of an executable area: zeros that no code can
 * reach. The vdso's tail has room on every kernel seen so far.
 *
 * @param code that is to go there
 * @throws CkptError refused, when no area has room
 */
export function findCave(
  memory: TaskMemory,
  candidates: readonly CaveCandidate[],
  code: Uint8Array,
): Cave {
  const size = cureSize();
  const length = code.length + 2 * size;
  for (const { end } of candidates) {
    const start = BigInt(end - length);
    const bytes = memory.read(start - GAP, length + Number(GAP));
    if (isFree(bytes, size, code)) {
      const leader = start + BigInt(code.length);
      return { code: start, leader, thread: leader + BigInt(size), length };
    }
  }
  throw new CkptError(EXIT.refused, `entering task ${memory.pid}`, [{
    object: `task ${memory.pid}`,
    why: "no executable page of it has unused bytes for ckpt's agent " +
      "(a program with a vdso always has)",
  }]);
}

/** Zeros in front: the last instruction may end in some. */
const GAP = 16n;

/** Whether nothing is there, or what a ckpt left that was killed: never run again. */
function isFree(bytes: Uint8Array, size: number, code: Uint8Array): boolean {
  const [inFront, ...parts] = [Number(GAP), code.length, size, size].map(
    (length, i, lengths) => {
      const start = lengths.slice(0, i).reduce((sum, n) => sum + n, 0);
      return bytes.subarray(start, start + length);
    },
  );
  return isUnused(inFront) &&
    [code, CURE_BEGIN, CURE_BEGIN].every((left, i) =>
      isUnused(parts[i]) || begins(parts[i], left)
    );
}

function isUnused(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === ZERO);
}

function begins(bytes: Uint8Array, start: ArrayLike<number>): boolean {
  return Array.prototype.every.call(start, (byte, i) => bytes[i] === byte);
}

/** How a cure begins: syscall; mov %rax, %rdi (c/lib/cure.S). */
const CURE_BEGIN = [0x0f, 0x05, 0x48, 0x89, 0xc7];

/** How agent.bin begins, and where the cure does (c/agent/start.S). */
const AGENT_BEGIN = [0x31, 0xed, 0xe8];
/** Where c/agent/agent.ld links it as a program of its own. */
export const AGENT_START = 0x10000n;
const PAGE_MASK = ~4095n;

/**
 * Whether an address is in the code of an agent, in a cure, or in the code in
 * front: then a ckpt that was killed left the thread there.
 */
export function isInsideAgent(
  memory: TaskMemory,
  address: bigint,
  code: Uint8Array,
): boolean {
  const holds = (at: bigint, bytes: ArrayLike<number>) =>
    begins(memory.read(at, bytes.length), bytes);
  try {
    const page = address & PAGE_MASK;
    if (page !== AGENT_START && holds(page, AGENT_BEGIN)) return true;
    const size = cureSize();
    let start = page + 4096n;
    return [
      { length: size, left: CURE_BEGIN },
      { length: size, left: CURE_BEGIN },
      { length: code.length, left: code },
    ].some(({ length, left }) => {
      start -= BigInt(length);
      return address >= start && address < start + BigInt(length) &&
        holds(start, left);
    });
  } catch (error) {
    // An address that cannot be read is in no code at all.
    if (error instanceof CkptError && error.exit !== EXIT.gone) return false;
    throw error;
  }
}

const HOST_BYTES = 40 + 216 + 32 + 8 + 8;

/** struct host of c/lib/remote.c. */
function encodeHost(
  host: Host,
  memory: TaskMemory,
  cave: bigint,
): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(HOST_BYTES);
  const view = new DataView(out.buffer);
  view.setInt32(0, host.tid, true);
  view.setInt32(4, memory.fd, true);
  view.setBigUint64(8, cave, true);
  view.setBigUint64(16, host.signalMask, true);
  view.setBigUint64(24, host.cureRip, true);
  view.setBigUint64(32, host.cureRax, true);
  out.set(new Uint8Array(host.registers.buffer), 40);
  const { mode, selector, offset, length } = host.dispatch;
  [mode, selector, offset, length].forEach((word, i) =>
    view.setBigUint64(256 + i * 8, word, true)
  );
  view.setBigUint64(288, BigInt(host.quietSignal), true);
  view.setBigUint64(296, BigInt(memory.pid), true);
  return out;
}

/** A system call for a thread to make. */
export interface InjectedCall {
  name: keyof typeof NR;
  args: readonly bigint[];
}

/**
 * Makes system calls in one stopped thread, without an agent, and wipes the
 * cave.
 *
 * @returns what each call returned, negative: -errno
 */
export function injectAlone(
  host: Host,
  memory: TaskMemory,
  cave: Cave,
  calls: readonly InjectedCall[],
): bigint[] {
  const words = new BigUint64Array(calls.length * 8);
  calls.forEach(({ name, args }, i) => {
    words[i * 8] = BigInt(NR[name]);
    args.forEach((argument, k) => words[i * 8 + 1 + k] = argument);
  });
  checked(
    library("dump").ckpt_inject(
      encodeHost(host, memory, cave.thread),
      new Uint8Array(words.buffer),
      BigInt(calls.length),
    ),
    `asking thread ${host.tid}`,
  );
  wipe(memory, cave);
  return calls.map((_, i) => BigInt.asIntN(64, words[i * 8 + 7]));
}

/** No thread can be in it any more. */
function wipe(memory: TaskMemory, { code, length }: Cave): void {
  memory.write(code, new Uint8Array(length));
}

const AGENT_ROOM = 4096;
const STACK_ROOM = 4096;

export class RemoteTask implements Disposable {
  readonly #encoded: Uint8Array<ArrayBuffer>;
  #inside = true;

  private constructor(
    readonly host: Host,
    readonly memory: TaskMemory,
    readonly cave: Cave,
    encoded: Uint8Array<ArrayBuffer>,
    /** Memory of the agent in the task: code, stack, then free for use. */
    readonly area: bigint,
    readonly areaLength: number,
  ) {
    this.#encoded = encoded;
  }

  /**
   * Enters a stopped thread.
   *
   * @param room bytes for programs and scratch space
   */
  static enter(
    host: Host,
    memory: TaskMemory,
    cave: Cave,
    room: number,
  ): RemoteTask {
    const length = (AGENT_ROOM + STACK_ROOM + room + 4095) & ~4095;
    const encoded = encodeHost(host, memory, cave.leader);
    const area = checked(
      library("dump").ckpt_agent_enter(encoded, BigInt(length)),
      `entering task ${memory.pid}`,
    );
    return new RemoteTask(host, memory, cave, encoded, area, length);
  }

  get #ending(): bigint {
    const { quietSignal } = this.host;
    return quietSignal === 0
      ? YIELD.noSuchCall
      : YIELD.signal + BigInt(quietSignal);
  }

  /** Where programs and scratch space go. */
  get room(): bigint {
    return this.area + BigInt(AGENT_ROOM + STACK_ROOM);
  }

  /**
   * Runs a program in the task.
   *
   * @throws CkptError naming the operation that failed
   */
  run(program: Program): Outcome {
    const address = this.room;
    const cure = this.cave.leader + 2n;
    if (program.size > this.areaLength - AGENT_ROOM - STACK_ROOM) {
      throw new Error(`a program of ${program.size} bytes is too large`);
    }
    this.memory.write(
      address,
      program.encode(address, this.#ending, cure),
    );
    const action = `asking task ${this.memory.pid}`;
    checked(
      library("dump").ckpt_agent_run(
        this.#encoded,
        this.area,
        address,
        this.room - 64n,
      ),
      action,
    );
    const outcome = program.outcome(this.memory.read(address, program.size));
    if (outcome.failure !== undefined) {
      throw new CkptError(EXIT.failed, action, [{
        object: outcome.failure.purpose,
        why: describeErrno(outcome.failure.errno),
      }]);
    }
    return outcome;
  }

  /**
   * Lets other stopped threads of the same process make calls, each all of
   * them, and puts each back.
   *
   * @param calls how many the code makes
   * @param scratch address of `stride` bytes for each, for what calls write
   * @returns for each thread what each call returned, negative: -errno
   */
  askThreads(
    hosts: readonly Host[],
    code: Uint8Array<ArrayBuffer>,
    calls: number,
    scratch: bigint,
    stride: number,
  ): bigint[][] {
    if (hosts.length === 0) return [];
    this.memory.write(this.cave.code, code);
    const encoded = new Uint8Array(hosts.length * HOST_BYTES);
    hosts.forEach((host, i) =>
      encoded.set(
        encodeHost(host, this.memory, this.cave.thread),
        i * HOST_BYTES,
      )
    );
    const results = new BigUint64Array(hosts.length * RESULT_REGISTERS);
    checked(
      library("dump").ckpt_ask_threads(
        encoded,
        BigInt(hosts.length),
        this.cave.code,
        scratch,
        BigInt(stride),
        new Uint8Array(results.buffer),
      ),
      `asking the threads of task ${this.memory.pid}`,
    );
    return hosts.map((_, i) =>
      callResults(results.subarray(i * RESULT_REGISTERS), calls)
    );
  }

  /** Takes the agent out of the task and wipes the cave. */
  leave(): void {
    if (!this.#inside) return;
    this.#inside = false;
    checked(
      library("dump").ckpt_agent_leave(this.#encoded, this.area),
      `leaving task ${this.memory.pid}`,
    );
    wipe(this.memory, this.cave);
  }

  [Symbol.dispose](): void {
    try {
      this.leave();
    } catch (error) {
      // Somebody killed the task meanwhile: there is nothing to put back.
      if (!(error instanceof CkptError && error.exit === EXIT.gone)) {
        throw error;
      }
    }
  }
}
