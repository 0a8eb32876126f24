/**
 * What libckpt.so reads of a stopped thread in one go, without running
 * anything in it: struct thread_state of c/lib/threads.c.
 */
import { CkptError, EXIT } from "../error.ts";
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { addressOf, syscall } from "./syscall.ts";

/** Offsets in struct thread_state. */
const AT = {
  registers: 0,
  signalMask: 216,
  robustList: 224,
  robustLength: 232,
  rseq: 240,
  dispatch: 264,
  scheduling: 296,
  affinity: 352,
  tid: 480,
  affinityLength: 484,
  xsaveLength: 488,
  xsave: 496,
} as const;

const REGISTERS_LENGTH = 216;

/** Room for the XSAVE area of a thread when the CPU's own size is smaller. */
const LEAST_XSAVE_ROOM = 4096;

/** struct ptrace_rseq_configuration (ptrace(2)). */
export interface RseqRegistration {
  /** Address of struct rseq; 0n: not registered. */
  readonly pointer: bigint;
  /** Bytes, as registered: 32 or more. */
  readonly size: number;
  readonly signature: number;
  readonly flags: number;
}

/** struct ptrace_sud_config: syscall user dispatch. */
export interface SyscallUserDispatch {
  /** PR_SYS_DISPATCH_*: 0n off, 1n on. */
  readonly mode: bigint;
  readonly selector: bigint;
  readonly offset: bigint;
  readonly length: bigint;
}

/** struct sched_attr (sched_getattr(2)). */
export interface Scheduling {
  /** SCHED_*, without flags. */
  readonly policy: number;
  /** SCHED_FLAG_*. */
  readonly flags: bigint;
  readonly nice: number;
  /** 1 to 99 for SCHED_FIFO and SCHED_RR, else 0. */
  readonly priority: number;
  /** Nanoseconds; SCHED_DEADLINE. A slice for other policies since 6.12. */
  readonly runtime: bigint;
  readonly deadline: bigint;
  readonly period: bigint;
  /** 0 to 1024; all ones in no kernel's answer. */
  readonly utilMin: number;
  readonly utilMax: number;
}

/** One struct thread_state. Views of it share its memory unless said else. */
export class ThreadState {
  readonly #view: DataView<ArrayBuffer>;

  /** @param at where the struct begins; a multiple of 8 */
  constructor(buffer: ArrayBuffer, at: number, length: number) {
    this.#view = new DataView(buffer, at, length);
  }

  /**
   * Of a thread that is not stopped, but stands in the kernel: what others have
   * found out about it, and what anybody may ask.
   *
   * @throws SyscallError when it is gone
   */
  static of(
    { tid, registers, signalMask, rseq, xsave }: {
      readonly tid: number;
      readonly registers: BigUint64Array;
      readonly signalMask: bigint;
      readonly rseq: Omit<RseqRegistration, "flags">;
      readonly xsave: Uint8Array;
    },
  ): ThreadState {
    const bytes = new Uint8Array((AT.xsave + xsave.length + 15) & ~15);
    const view = new DataView(bytes.buffer);
    new BigUint64Array(bytes.buffer).set(registers);
    view.setBigUint64(AT.signalMask, signalMask, true);
    const place = (at: number) => addressOf(bytes) + BigInt(at);
    syscall(
      "get_robust_list",
      BigInt(tid),
      place(AT.robustList),
      place(AT.robustLength),
    );
    if (rseq.pointer !== 0n) {
      view.setBigUint64(AT.rseq, rseq.pointer, true);
      view.setUint32(AT.rseq + 8, rseq.size, true);
      view.setUint32(AT.rseq + 12, rseq.signature, true);
    }
    syscall(
      "sched_getattr",
      BigInt(tid),
      place(AT.scheduling),
      BigInt(AT.affinity - AT.scheduling),
      0n,
    );
    const affinity = syscall(
      "sched_getaffinity",
      BigInt(tid),
      BigInt(AT.tid - AT.affinity),
      place(AT.affinity),
    );
    view.setUint32(AT.affinityLength, Number(affinity), true);
    view.setInt32(AT.tid, tid, true);
    view.setBigUint64(AT.xsaveLength, BigInt(xsave.length), true);
    bytes.set(xsave, AT.xsave);
    return new ThreadState(bytes.buffer, 0, bytes.length);
  }

  #word(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  /** A copy of some of it. */
  #copy(at: number, length: number): ArrayBuffer {
    const start = this.#view.byteOffset + at;
    return this.#view.buffer.slice(start, start + length);
  }

  get tid(): number {
    return this.#view.getInt32(AT.tid, true);
  }

  /** struct user_regs_struct, 27 words, a copy with a buffer of its own. */
  get registers(): BigUint64Array<ArrayBuffer> {
    return new BigUint64Array(this.#copy(AT.registers, REGISTERS_LENGTH));
  }

  /** Blocked signals: bit n is signal n + 1. */
  get signalMask(): bigint {
    return this.#word(AT.signalMask);
  }

  /** Head of the robust futex list (get_robust_list(2)); 0n: none. */
  get robustList(): bigint {
    return this.#word(AT.robustList);
  }

  get robustLength(): number {
    return Number(this.#word(AT.robustLength));
  }

  get rseq(): RseqRegistration {
    return {
      pointer: this.#word(AT.rseq),
      size: this.#view.getUint32(AT.rseq + 8, true),
      signature: this.#view.getUint32(AT.rseq + 12, true),
      flags: this.#view.getUint32(AT.rseq + 16, true),
    };
  }

  get dispatch(): SyscallUserDispatch {
    return {
      mode: this.#word(AT.dispatch),
      selector: this.#word(AT.dispatch + 8),
      offset: this.#word(AT.dispatch + 16),
      length: this.#word(AT.dispatch + 24),
    };
  }

  get scheduling(): Scheduling {
    const at = AT.scheduling;
    return {
      policy: this.#view.getUint32(at + 4, true),
      flags: this.#word(at + 8),
      nice: this.#view.getInt32(at + 16, true),
      priority: this.#view.getUint32(at + 20, true),
      runtime: this.#word(at + 24),
      deadline: this.#word(at + 32),
      period: this.#word(at + 40),
      utilMin: this.#view.getUint32(at + 48, true),
      utilMax: this.#view.getUint32(at + 52, true),
    };
  }

  /** CPU mask as sched_getaffinity(2) wrote it: bit n % 8 of byte n / 8. */
  get affinity(): Uint8Array<ArrayBuffer> {
    const length = this.#view.getUint32(AT.affinityLength, true);
    return new Uint8Array(this.#copy(AT.affinity, length));
  }

  /** The regset NT_X86_XSTATE; a view that starts at a multiple of 8. */
  get xsave(): Uint8Array<ArrayBuffer> {
    const length = Number(this.#word(AT.xsaveLength));
    return new Uint8Array(
      this.#view.buffer,
      this.#view.byteOffset + AT.xsave,
      length,
    );
  }
}

/** Where this CPU puts the components of the XSAVE area. */
export interface XsaveLayout {
  /** Bytes of the whole area. */
  readonly size: number;
  /**
   * [2 * i] is the offset, [2 * i + 1] the size of component i; both 0 for 0
   * and 1, which are in the legacy area, and for those the CPU lacks.
   */
  readonly components: Uint32Array<ArrayBuffer>;
}

let hostLayout: XsaveLayout | undefined;

/**
 * The layout of the CPU that ckpt runs on.
 *
 * @throws CkptError refused, when the CPU has no XSAVE
 */
export function hostXsaveLayout(): XsaveLayout {
  if (hostLayout === undefined) {
    const components = new Uint32Array(128);
    const size = Number(
      library("cpu").ckpt_xsave_layout(new Uint8Array(components.buffer)),
    );
    if (size === 0) {
      throw new CkptError(EXIT.refused, "examining the CPU", [{
        object: "the CPU",
        why: "it has no XSAVE, with which the registers of threads are saved",
        remedy: "use a host whose CPU and kernel have it",
      }]);
    }
    hostLayout = { size, components };
  }
  return hostLayout;
}

/**
 * Reads the state of stopped threads of this process's tracees.
 *
 * @returns one for each of `tids`, in that order
 * @throws CkptError naming the thread and what could not be read
 */
export function readThreads(tids: Int32Array<ArrayBuffer>): ThreadState[] {
  const room = Math.max(LEAST_XSAVE_ROOM, hostXsaveLayout().size);
  const stride = (AT.xsave + room + 15) & ~15;
  const bytes = new Uint8Array(stride * tids.length);
  checked(
    library("dump").ckpt_read_threads(
      new Uint8Array(tids.buffer, tids.byteOffset, tids.byteLength),
      BigInt(tids.length),
      bytes,
      BigInt(stride),
    ),
    "reading the state of threads",
  );
  return Array.from(
    tids,
    (_, i) => new ThreadState(bytes.buffer, i * stride, stride),
  );
}
