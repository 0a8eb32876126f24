/**
 * What the kernel holds of a thread that nobody can stop, and of its process,
 * looked up in its memory: as ptrace(2) and the thread itself would tell it. The
 * thread has to stand in a system call and off any processor, as one that waits
 * in vfork(2) does.
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";
import { END } from "../ffi/btf.ts";
import { hostXsaveLayout } from "../ffi/thread_state.ts";
import { readSyscall } from "../proc/read.ts";
import type { CurrentSyscall } from "../proc/syscall.ts";
import { REGISTER, REGISTER_COUNT } from "./registers.ts";
import { compactionOf, standardXsave } from "./compacted_xsave.ts";
import { findTask, WAY_TO_TASK } from "./find_task.ts";
import { SIGINFO_BYTES } from "./pending_signals.ts";

const TASK = [
  ...WAY_TO_TASK.task_struct,
  ...["stack", "vfork_done", "signal", "sighand", "cred"],
  ...["blocked", "pending.list", "pending.signal"],
  ...["sas_ss_sp", "sas_ss_size", "sas_ss_flags"],
  ...["clear_child_tid", "pdeath_signal", "mempolicy"],
  ...["rseq", "rseq_len", "rseq_sig"],
  ...["thread_info.flags", "syscall_dispatch.selector"],
  ...["syscall_dispatch.offset", "syscall_dispatch.len"],
  ...["thread.fsbase", "thread.gsbase", "thread.ds", "thread.es"],
  ...["thread.fsindex", "thread.gsindex", "thread.pkru"],
  ...["thread.io_bitmap", "thread.iopl_emul"],
] as const;

const WANTED = {
  ...WAY_TO_TASK,
  fpu: ["fpstate", "perm.__state_perm"],
  fpstate: ["size", "user_xfeatures", "regs"],
  cred: ["securebits"],
  sigqueue: ["list", "info"],
  sighand_struct: ["action"],
  signal_struct: [
    ...["shared_pending.list", "shared_pending.signal", "flags"],
    ...["real_timer", "it_real_incr", "it", "is_child_subreaper"],
    "posix_timers",
  ],
  k_itimer: [
    "list",
    "it_id",
    "it_interval",
    "it_overrun_last",
    "it.real.timer",
  ],
  hrtimer: ["node.expires", "state"],
  cpu_itimer: ["expires", "incr"],
} as const;

/** Before Linux 6.16 the FPU state was in here; since then it is behind. */
const FPU_INSIDE = "thread.fpu";

/** THREAD_SIZE, also with KASAN. */
const STACK_SIZES = [16384, 32768];
/** TOP_OF_KERNEL_STACK_PADDING, without and with FRED. */
const STACK_PADDINGS = [0, 16];
/** struct pt_regs: like struct user_regs_struct, up to ss. */
const FRAME_WORDS = REGISTER.ss + 1;
const SELECTOR = 0xffffn;

/** What kernel_siginfo_t has of a siginfo_t. */
const KERNEL_SIGINFO = 48;
const MOST_SIGNALS = 1 << 20;
const SIGNALS = 64;
const ACTION_BYTES = 32;
const ENQUEUED = 1;
/** SIGNAL_STOP_CONTINUED (include/linux/sched/signal.h). */
const STOP_CONTINUED = 2;
/** Far more than any CPU has. */
const LARGEST_XSAVE = 65536;

const MOST_TIMERS = 1 << 20;

/** A timer, in nanoseconds; 0n: not armed. */
export interface KernelTimer {
  readonly interval: bigint;
  /** By its clock. */
  readonly expires: bigint;
}

export interface KernelProcess {
  /** struct sigaction of all signals, 32 bytes each. */
  readonly actions: Uint8Array<ArrayBuffer>;
  readonly childSubreaper: boolean;
  /** By CLOCK_MONOTONIC. */
  readonly real: KernelTimer;
  /** By the time that its threads have used: in all, and in user mode. */
  readonly prof: KernelTimer;
  readonly virt: KernelTimer;
  /** Of timer_create(2), by their ids; those of its wall clocks can be read. */
  readonly timers: ReadonlyMap<number, KernelTimer & { overrun: bigint }>;
  readonly pending: PendingQueue;
  /** What XGETBV would allow it, ARCH_GET_XCOMP_PERM. */
  readonly xcompPermissions: bigint;
  /** It went on after a stop, of which nobody was told yet. */
  readonly wasContinued: boolean;
}

export interface PendingQueue {
  readonly mask: bigint;
  /** siginfo_t's in the order of the queue. */
  readonly queued: readonly Uint8Array<ArrayBuffer>[];
}

export interface KernelThread {
  /** struct user_regs_struct */
  readonly registers: BigUint64Array<ArrayBuffer>;
  /** As the regset NT_X86_XSTATE has it. */
  readonly xsave: Uint8Array<ArrayBuffer>;
  readonly signalMask: bigint;
  readonly pending: PendingQueue;
  /** stack_t as sigaltstack(2) knows it, but for SS_DISABLE and SS_ONSTACK. */
  readonly alternateStack: { sp: bigint; size: bigint; flags: number };
  readonly tidAddress: bigint;
  readonly parentDeathSignal: number;
  readonly securebits: number;
  readonly hasMemoryPolicy: boolean;
  readonly rseq: { pointer: bigint; size: number; signature: number };
  /** TIF_*: whose numbers differ from kernel to kernel. */
  readonly flags: bigint;
  readonly dispatchesCalls: boolean;
  readonly hasPorts: boolean;
}

export class KernelTasks implements Disposable {
  readonly #kernel: KernelStructures;
  readonly #fpuAt: number;

  private constructor(kernel: KernelStructures, fpuAt: number) {
    this.#kernel = kernel;
    this.#fpuAt = fpuAt;
  }

  /** @returns why it cannot be done here, where that is so */
  static open(): KernelTasks | string {
    const open = (more: string) =>
      KernelStructures.open({ ...WANTED, task_struct: [...TASK, more] });
    const behind = open(FPU_INSIDE);
    const kernel = typeof behind === "string" ? open(END) : behind;
    if (typeof kernel === "string") return kernel;
    const fpu = typeof behind === "string" ? END : FPU_INSIDE;
    return new KernelTasks(kernel, kernel.offset("task_struct", fpu));
  }

  /** @throws NoSuchMemory when it is gone */
  thread(tid: number): KernelThread {
    const task = findTask(this.#kernel, tid);
    const field = (name: typeof TASK[number], length: number) =>
      Number(this.#word(task, "task_struct", name, length));
    const word = (name: typeof TASK[number]) =>
      this.#word(task, "task_struct", name);
    return {
      registers: this.#registers(tid, task),
      xsave: this.#xsave(task),
      signalMask: word("blocked"),
      pending: this.#queue(task, "task_struct", "pending"),
      alternateStack: {
        sp: word("sas_ss_sp"),
        size: word("sas_ss_size"),
        flags: field("sas_ss_flags", 4),
      },
      tidAddress: word("clear_child_tid"),
      parentDeathSignal: field("pdeath_signal", 4),
      securebits: Number(
        this.#word(word("cred"), "cred", "securebits", 4),
      ),
      hasMemoryPolicy: word("mempolicy") !== 0n,
      rseq: {
        pointer: word("rseq"),
        size: field("rseq_len", 4),
        signature: field("rseq_sig", 4),
      },
      flags: word("thread_info.flags"),
      dispatchesCalls: word("syscall_dispatch.selector") !== 0n ||
        word("syscall_dispatch.offset") !== 0n ||
        word("syscall_dispatch.len") !== 0n,
      hasPorts: word("thread.io_bitmap") !== 0n ||
        word("thread.iopl_emul") !== 0n,
    };
  }

  /**
   * Whether a thread waits in vfork(2) for a process.
   *
   * @throws NoSuchMemory when one is gone
   */
  waitsFor(tid: number, child: number): boolean {
    const task = findTask(this.#kernel, tid);
    const { size } = this.#frame(tid, task);
    const stack = this.#word(task, "task_struct", "stack");
    const done = this.#word(
      findTask(this.#kernel, child),
      "task_struct",
      "vfork_done",
    );
    return done >= stack && done < stack + BigInt(size);
  }

  /** @throws NoSuchMemory when it is gone */
  process(pid: number): KernelProcess {
    const task = findTask(this.#kernel, pid);
    const signal = this.#word(task, "task_struct", "signal");
    const sighand = this.#word(task, "task_struct", "sighand");
    const kernel = this.#kernel;
    const timer = kernel.at(signal, "signal_struct", "real_timer");
    const bit = kernel.fieldsOf("signal_struct").get("is_child_subreaper")!;
    const bits = kernel.memory.read(signal + BigInt(bit >> 3), 1)[0];
    return {
      actions: kernel.memory.read(
        kernel.at(sighand, "sighand_struct", "action"),
        SIGNALS * ACTION_BYTES,
      ),
      childSubreaper: (bits >> (bit & 7) & 1) !== 0,
      real: {
        interval: this.#word(signal, "signal_struct", "it_real_incr"),
        expires: this.#expiry(timer),
      },
      prof: this.#cpuTimer(signal, 0),
      virt: this.#cpuTimer(signal, 1),
      timers: this.#timers(kernel.at(signal, "signal_struct", "posix_timers")),
      pending: this.#queue(signal, "signal_struct", "shared_pending"),
      xcompPermissions: this.#word(
        task + BigInt(this.#fpuAt),
        "fpu",
        "perm.__state_perm",
      ),
      wasContinued: (this.#word(signal, "signal_struct", "flags", 4) &
        BigInt(STOP_CONTINUED)) !== 0n,
    };
  }

  /** @param timer struct hrtimer @returns 0n: it is not armed */
  #expiry(timer: bigint): bigint {
    const state = this.#word(timer, "hrtimer", "state", 1);
    return (state & BigInt(ENQUEUED)) === 0n
      ? 0n
      : this.#word(timer, "hrtimer", "node.expires");
  }

  /** @param head struct hlist_head */
  #timers(head: bigint): KernelProcess["timers"] {
    const kernel = this.#kernel;
    const { memory } = kernel;
    const found = new Map<number, KernelTimer & { overrun: bigint }>();
    for (let at = memory.pointer(head); at !== 0n; at = memory.pointer(at)) {
      if (found.size > MOST_TIMERS) throw new NoSuchMemory(head);
      const timer = at - BigInt(kernel.offset("k_itimer", "list"));
      const word = (field: string) => this.#word(timer, "k_itimer", field);
      found.set(kernel.number(timer, "k_itimer", "it_id", 4), {
        interval: word("it_interval"),
        expires: this.#expiry(kernel.at(timer, "k_itimer", "it.real.timer")),
        overrun: word("it_overrun_last"),
      });
    }
    return found;
  }

  /** @param index in signal_struct.it: CPUCLOCK_PROF, CPUCLOCK_VIRT */
  #cpuTimer(signal: bigint, index: number): KernelTimer {
    const BYTES = 16n;
    const at = this.#kernel.at(signal, "signal_struct", "it") +
      BYTES * BigInt(index);
    return {
      interval: this.#word(at, "cpu_itimer", "incr"),
      expires: this.#word(at, "cpu_itimer", "expires"),
    };
  }

  #word(
    address: bigint,
    structure: string,
    field: string,
    length = 8,
  ): bigint {
    if (address === 0n) throw new NoSuchMemory(address);
    const bytes = new Uint8Array(8);
    const at = this.#kernel.at(address, structure, field);
    bytes.set(this.#kernel.memory.read(at, length));
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  /** The address of struct task_struct. */
  /** Where the registers are that it had when it entered the kernel. */
  #frame(
    tid: number,
    task: bigint,
  ): { frame: BigUint64Array<ArrayBuffer>; size: number } {
    const call = readSyscall(tid);
    const stack = this.#word(task, "task_struct", "stack");
    for (const size of STACK_SIZES) {
      for (const padding of STACK_PADDINGS) {
        const at = stack + BigInt(size - padding - FRAME_WORDS * 8);
        let frame: BigUint64Array<ArrayBuffer>;
        try {
          const bytes = this.#kernel.memory.read(at, FRAME_WORDS * 8);
          frame = new BigUint64Array(bytes.buffer);
        } catch (error) {
          if (error instanceof NoSuchMemory) continue;
          throw error;
        }
        if (isFrameOf(frame, call)) return { frame, size };
      }
    }
    throw new NoSuchMemory(stack);
  }

  #registers(tid: number, task: bigint): BigUint64Array<ArrayBuffer> {
    const registers = new BigUint64Array(REGISTER_COUNT);
    registers.set(this.#frame(tid, task).frame);
    registers[REGISTER.cs] &= SELECTOR;
    registers[REGISTER.ss] &= SELECTOR;
    const word = (name: string, length?: number) =>
      this.#word(task, "task_struct", `thread.${name}`, length);
    registers[REGISTER.fsBase] = word("fsbase");
    registers[REGISTER.gsBase] = word("gsbase");
    registers[REGISTER.ds] = word("ds", 2);
    registers[REGISTER.es] = word("es", 2);
    registers[REGISTER.fs] = word("fsindex", 2);
    registers[REGISTER.gs] = word("gsindex", 2);
    return registers;
  }

  #xsave(task: bigint): Uint8Array<ArrayBuffer> {
    const kernel = this.#kernel;
    const fpu = task + BigInt(this.#fpuAt);
    const state = kernel.pointer(fpu, "fpu", "fpstate");
    const length = kernel.number(state, "fpstate", "size", 4);
    if (length > LARGEST_XSAVE) throw new NoSuchMemory(state);
    return standardXsave(
      kernel.memory.read(kernel.at(state, "fpstate", "regs"), length),
      this.#word(state, "fpstate", "user_xfeatures"),
      Number(this.#word(task, "task_struct", "thread.pkru", 4)),
      hostXsaveLayout(),
      compactionOf(),
    );
  }

  /** struct sigpending */
  #queue(address: bigint, structure: string, field: string): PendingQueue {
    const kernel = this.#kernel;
    const head = kernel.at(address, structure, `${field}.list`);
    const listAt = BigInt(kernel.offset("sigqueue", "list"));
    const queued: Uint8Array<ArrayBuffer>[] = [];
    const { memory } = kernel;
    for (let at = memory.pointer(head); at !== head; at = memory.pointer(at)) {
      if (queued.length > MOST_SIGNALS) throw new NoSuchMemory(head);
      const info = new Uint8Array(SIGINFO_BYTES);
      const from = kernel.at(at - listAt, "sigqueue", "info");
      info.set(memory.read(from, KERNEL_SIGINFO));
      queued.push(info);
    }
    return { mask: this.#word(address, structure, `${field}.signal`), queued };
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}

/** In the order of their arguments. */
const ARGUMENTS = [
  REGISTER.rdi,
  REGISTER.rsi,
  REGISTER.rdx,
  REGISTER.r10,
  REGISTER.r8,
  REGISTER.r9,
] as const;

/** Whether these are the registers that /proc tells a part of. */
function isFrameOf(frame: BigUint64Array, call: CurrentSyscall): boolean {
  if (call.kind === "running") return false;
  if (frame[REGISTER.rip] !== call.pc || frame[REGISTER.rsp] !== call.sp) {
    return false;
  }
  return call.kind === "outside" ||
    BigInt.asIntN(32, frame[REGISTER.origRax]) === BigInt(call.nr) &&
      call.args.every((value, i) => frame[ARGUMENTS[i]] === value);
}
