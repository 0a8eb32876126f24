/**
 * Threads that wait in vfork(2): nobody can stop or ask them, but they stand as
 * long as their children do. What they hold is looked up in the kernel's
 * memory; what belongs to the memory of their process is that of the child.
 * Loaded when the first is met.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import {
  hostXsaveLayout,
  readThreads,
  ThreadState,
} from "../ffi/thread_state.ts";
import type {
  itimer_entry,
  sa_entry,
  siginfo_entry,
} from "../image/schema.gen.ts";
import type { SeenDescriptor } from "../files/descriptors.ts";
import { KINDS } from "../files/kinds.ts";
import { isEntered } from "../ns/inside.ts";
import { readCgroup, readStat, readStatus } from "../proc/read.ts";
import type { CgroupMembership } from "../proc/cgroup.ts";
import type { Stat } from "../proc/stat.ts";
import type { Status } from "../proc/status.ts";
import type { PosixTimer } from "../proc/timers.ts";
import { dumpCgroups } from "../task/cgroups.ts";
import { fpuEntry } from "../task/fpu.ts";
import {
  type KernelProcess,
  KernelTasks,
  type KernelThread,
  type KernelTimer,
  type PendingQueue,
} from "../task/kernel_task.ts";
import { pendingSignal, withUnqueued } from "../task/pending_signals.ts";
import { clockNow, entryOfTimes } from "../task/posix_timers.ts";
import { REGISTER } from "../task/registers.ts";
import { SIGNALS_WITH_ACTION } from "../task/signal_actions.ts";
import { threadAnswerProblems } from "../task/thread_attributes.ts";
import { waitersInVfork } from "../task/vfork.ts";
import {
  type Collected,
  type CollectedThread,
  readOfProcess,
  readThread,
} from "./collect.ts";
import { ChangedMeanwhile, type Sighting } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";

/** A process that stands, and its threads that wait. */
export interface Standing {
  readonly pid: number;
  readonly waiting: readonly number[];
  /** Its other threads, which are stopped. */
  readonly tids: ArrayLike<number>;
  readonly stopSignal: number;
}

/** What nobody can be asked for in a process all of whose threads wait. */
interface WaitingProcess {
  readonly kernel: KernelProcess;
  /** Times of the clocks of its timers when these were read. */
  readonly clocks: Readonly<Record<"real" | "boot" | "prof" | "virt", bigint>>;
  readonly timers: readonly PosixTimer[];
  readonly continuedChildren: readonly number[];
}

interface WaitingThread {
  readonly tid: number;
  readonly child: number;
  readonly kernel: KernelThread;
  readonly state: ThreadState;
  readonly status: Status;
  readonly stat: Stat;
}

const SIGCONT = 18;
const SIGSTOP = 19;
const SI_TIMER = -2;
const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;
/** A relative timer of another one is one of CLOCK_MONOTONIC in the kernel. */
const READABLE_CLOCKS: readonly number[] = [CLOCK_MONOTONIC, CLOCK_BOOTTIME];
const CLOCK_THREAD_CPUTIME_ID = 3;
/** Kinds of a process's CPU clock (include/linux/posix-timers.h). */
const CPU_CLOCK = { prof: 0, virt: 1 } as const;

/** PF_MCE_PROCESS and PF_MCE_EARLY (include/linux/sched.h). */
const MACHINE_CHECK = { own: 0x80, early: 0x0800_0000 } as const;
const MCE_KILL = { late: 0, early: 1, byDefault: 2 } as const;

/** SS_AUTODISARM, the flag that is kept. */
const AUTODISARM = 0x8000_0000;
const SS_ONSTACK = 1;
const SS_DISABLE = 2;

/**
 * Flags of thread_info below are those of the moment; of the others, which are
 * inherited, TIF_NEED_FPU_LOAD alone is: bit 19 since Linux 6.18.
 */
const FIRST_LASTING_FLAG = 15n;
const NEED_FPU_LOAD = 1n << 19n;

export class VforkWaiters implements Disposable {
  readonly #tasks: KernelTasks;

  private constructor(tasks: KernelTasks) {
    this.#tasks = tasks;
  }

  /** @returns why it cannot be done here, where that is so */
  static open(): VforkWaiters | string {
    const tasks = KernelTasks.open();
    return typeof tasks === "string" ? tasks : new VforkWaiters(tasks);
  }

  /**
   * Why those of a tree that runs cannot be saved; what is gone is left out.
   *
   * @param ends whether the tree is to end with the dump
   */
  problems(seen: TreeSighting, ends: boolean): Reason[] {
    const parents = new Set(seen.vforks.values());
    const [root] = seen.processes;
    const waitsAsInit = ends && isEntered("pid") && parents.has(root.pid) &&
      waitersInVfork(root.pid).length === root.threads.length;
    const reasons: Reason[] = waitsAsInit
      ? [{
        object: `task ${root.pid}`,
        why: "it waits in vfork(2), and as the first process of its pid " +
          "namespace only its tracer could end it, which it cannot have",
        remedy: "dump it with --leave-running, or when it does not wait",
      }]
      : [];
    return reasons.concat(this.#problemsAmong(seen, parents));
  }

  #problemsAmong(
    seen: TreeSighting,
    parents: ReadonlySet<number>,
  ): Reason[] {
    return seen.processes.filter(({ pid }) => parents.has(pid))
      .flatMap((process) => {
        try {
          const { pid } = process;
          const waiting = waitersInVfork(pid);
          const tids = process.threads.filter((tid) => !waiting.includes(tid));
          return this.#problemsOf(
            process,
            { pid, waiting, tids, stopSignal: 0 },
            seen.processes,
          );
        } catch (error) {
          const gone = error instanceof NoSuchMemory ||
            error instanceof CkptError && error.exit === EXIT.gone;
          if (!gone) throw error;
          return [];
        }
      });
  }

  #problemsOf(
    process: Sighting,
    standing: Standing,
    processes: readonly Sighting[],
  ): Reason[] {
    const { pid } = process;
    const reasons: Reason[] = [];
    const { waiting, tids, stopSignal } = standing;
    for (const tid of waiting) {
      const status = readStatus(tid);
      const kernel = this.#tasks.thread(tid);
      const queues = tid === pid
        ? [kernel.pending, this.#tasks.process(pid).pending]
        : [kernel.pending];
      const child = hasAllRights(status, kernel)
        ? undefined
        : processes.find((other) =>
          other.stat.ppid === pid && this.#tasks.waitsFor(tid, other.pid)
        );
      const lacks = child && withoutRightsProblem(status, process, child);
      reasons.push(
        ...lacks === undefined ? [] : [{
          object: `thread ${tid}`,
          why: "it waits in vfork(2) without the rights of root, and its " +
            `child ${child!.pid} ${lacks}`,
          remedy: AGAIN,
        }],
        ...threadProblems(status, kernel, queues).map((why) => ({
          object: `thread ${tid}`,
          why: `it waits in vfork(2), and ${why}`,
          remedy: AGAIN,
        })),
      );
    }
    const add = (why: string) =>
      reasons.push({
        object: `task ${pid}`,
        why: `it waits in vfork(2), and ${why}`,
        remedy: AGAIN,
      });
    if (stopSignal !== 0) add("is stopped by job control");
    if (tids.length === 0 && process.endedLeader !== undefined) {
      add("its first thread has ended, and no other one can be asked");
    }
    if (waiting.length > 0 && process.descriptors.some(isRing)) {
      add("has an io_uring, which one that waits may have to make again");
    }
    if (!waiting.includes(pid)) return reasons;
    const isAlone = tids.length === 0;
    if (isAlone) {
      for (const { id, clockId, notify } of process.timers) {
        if (READABLE_CLOCKS.includes(clockId) && notify !== "none") continue;
        add(`nobody can be asked about its timer ${id} (timer_create)`);
      }
    } else if (
      process.timers.some(({ clockId }) => clockId === CLOCK_THREAD_CPUTIME_ID)
    ) {
      add("has a timer for the time that one of its threads uses");
    }
    if (
      isAlone && isEntered("time") &&
      (process.timers.length > 0 ||
        this.#tasks.process(pid).real.expires !== 0n)
    ) add("its timers run by the clock of a time namespace");
    return reasons;
  }

  /**
   * For whom each waits, and whether all do; that what the kernel's memory says
   * can be believed is tried with a child.
   *
   * @returns the threads that wait, by the children
   * @throws CkptError
   */
  awaited(
    seen: TreeSighting,
    standing: readonly Standing[],
  ): ReadonlyMap<number, number> {
    return whileThere(() => this.#awaited(seen, standing));
  }

  #awaited(
    seen: TreeSighting,
    standing: readonly Standing[],
  ): ReadonlyMap<number, number> {
    const awaited = new Map<number, number>();
    const waiters = new Set(standing.flatMap(({ waiting }) => waiting));
    for (const { pid, waiting } of standing) {
      for (const tid of waiting) {
        const child = seen.processes.find((other) =>
          other.stat.ppid === pid && !awaited.has(other.pid) &&
          this.#tasks.waitsFor(tid, other.pid)
        );
        if (child === undefined) {
          throw new ChangedMeanwhile(EXIT.failed, `dumping task ${pid}`, [{
            object: `thread ${tid}`,
            why: "it waits in vfork(2) for a process that is no child of it",
            remedy: AGAIN,
          }]);
        }
        awaited.set(child.pid, tid);
        if (!waiters.has(child.tid)) this.#compare(child.tid);
      }
    }
    return awaited;
  }

  /** What the kernel's memory says of a stopped thread is what ptrace says. */
  #compare(tid: number): void {
    const [state] = readThreads(Int32Array.of(tid));
    const { registers, xsave, signalMask, rseq } = this.#tasks.thread(tid);
    const shown = (of: Pick<ThreadState, "xsave">) =>
      JSON.stringify(
        { ...fpuEntry(of.xsave, hostXsaveLayout()), mxcsr_mask: 0 },
        (name, value) =>
          name === "xstate_bv"
            ? 0
            : typeof value === "bigint"
            ? `${value}`
            : value,
      );
    const same = registers.join() === state.registers.join() &&
      signalMask === state.signalMask &&
      rseq.pointer === state.rseq.pointer && shown({ xsave }) === shown(state);
    if (same) return;
    throw new CkptError(EXIT.failed, `dumping task ${tid}`, [{
      object: `thread ${tid}`,
      why: "its registers are not where the kernel's types say they are, so " +
        "that its parent, which waits in vfork(2), cannot be saved",
      remedy: AGAIN,
    }]);
  }

  /**
   * Reads all that nobody can be asked for; nothing is interpreted yet.
   *
   * @param awaited as of {@link awaited}
   * @param processes all of the tree
   * @throws CkptError refused
   */
  read(
    process: Sighting,
    standing: Standing,
    awaited: ReadonlyMap<number, number>,
    processes: readonly Sighting[],
  ): WaitingThreads {
    return whileThere(() => this.#read(process, standing, awaited, processes));
  }

  #read(
    process: Sighting,
    standing: Standing,
    awaited: ReadonlyMap<number, number>,
    processes: readonly Sighting[],
  ): WaitingThreads {
    const { pid } = process;
    const { waiting } = standing;
    const reasons = this.#problemsOf(process, standing, processes);
    const childOf = new Map([...awaited].map(([child, tid]) => [tid, child]));
    const threads = waiting.map((tid): WaitingThread => {
      const kernel = this.#tasks.thread(tid);
      const child = childOf.get(tid)!;
      const differing = (kernel.flags ^ this.#tasks.thread(child).flags) &
        ~NEED_FPU_LOAD;
      if (differing >> FIRST_LASTING_FLAG !== 0n) {
        reasons.push({
          object: `thread ${tid}`,
          why: "it waits in vfork(2), and has other modes than its child " +
            `${child} (the CPUID instruction, the time stamp counter, ` +
            "speculation)",
          remedy: AGAIN,
        });
      }
      return {
        tid,
        child,
        kernel,
        state: ThreadState.of({ tid, ...kernel }),
        status: readStatus(tid),
        stat: readStat(tid),
      };
    });
    if (reasons.length > 0) {
      throw new CkptError(EXIT.refused, `dumping task ${pid}`, reasons);
    }
    return new WaitingThreads(
      pid,
      threads,
      standing.tids.length === 0 ? this.#processOf(process) : undefined,
    );
  }

  #processOf({ pid, children, timers }: Sighting): WaitingProcess {
    return {
      kernel: this.#tasks.process(pid),
      timers,
      clocks: {
        real: clockNow(CLOCK_MONOTONIC),
        boot: clockNow(CLOCK_BOOTTIME),
        prof: clockNow(~pid << 3 | CPU_CLOCK.prof),
        virt: clockNow(~pid << 3 | CPU_CLOCK.virt),
      },
      continuedChildren: children.filter((child) =>
        this.#tasks.process(child).wasContinued
      ),
    };
  }

  [Symbol.dispose](): void {
    this.#tasks[Symbol.dispose]();
  }
}

/** @throws CkptError where somebody ended one that waits */
function whileThere<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof NoSuchMemory)) throw error;
    throw new ChangedMeanwhile(EXIT.failed, "reading what waits in vfork(2)", [{
      object: "a thread that waits in vfork(2)",
      why: `it has just been ended, or cannot be read: ${error.message}`,
      remedy: AGAIN,
    }]);
  }
}

const AGAIN = "dump again when it does not wait any more";

function isRing({ link }: SeenDescriptor): boolean {
  return KINDS.io_uring.link.test(link);
}

/** Whether it may do all that ckpt may. */
function hasAllRights(
  { uid, gid, capEff, capBnd }: Status,
  { securebits }: KernelThread,
): boolean {
  const own = readStatus(Deno.pid);
  return [...uid, ...gid].every((id) => id === 0) && securebits === 0 &&
    capEff === own.capEff && capBnd === own.capBnd;
}

/** What a child has to have in common with who waits for it without rights. */
function rightsOf(status: Status): string {
  const { uid, gid, groups, noNewPrivs } = status;
  const { capInh, capPrm, capEff, capBnd, capAmb } = status;
  return [
    ...[uid, gid, groups, noNewPrivs],
    ...[capInh, capPrm, capEff, capBnd, capAmb],
  ].join(" ");
}

/**
 * Why a child could not become what it was that is born with the credentials of
 * who waits for it, which are not those of root.
 */
function withoutRightsProblem(
  status: Status,
  parent: Sighting,
  { status: own, threads, children, root, descriptors }: Sighting,
): string | undefined {
  return rightsOf(status) !== rightsOf(own)
    ? "has other credentials"
    : (own.seccomp ?? 0) !== 0
    ? "has seccomp filters"
    : threads.length > 1 || children.length > 0
    ? "has threads or children"
    : [root, parent.root].some(({ path }) => path !== "/")
    ? "or it has another root directory"
    : descriptors.some(({ info }) => info.locks.length > 0)
    ? "has files with locks"
    : descriptors.some(isRing)
    ? "has an io_uring"
    : undefined;
}

function threadProblems(
  { seccomp = 0 }: Status,
  { dispatchesCalls, hasPorts, hasMemoryPolicy }: KernelThread,
  queues: readonly PendingQueue[],
): string[] {
  const problems: string[] = [];
  if (seccomp !== 0) problems.push("has seccomp filters");
  if (dispatchesCalls) {
    problems.push("dispatches system calls (PR_SET_SYSCALL_USER_DISPATCH)");
  }
  if (hasPorts) problems.push("has I/O ports (ioperm, iopl)");
  if (hasMemoryPolicy) problems.push("has a memory policy (set_mempolicy)");
  for (const { mask, queued } of queues) {
    for (const signal of [SIGCONT, SIGSTOP]) {
      if ((mask >> BigInt(signal - 1) & 1n) === 0n) continue;
      problems.push(`signal ${signal} waits to be delivered`);
    }
    if (queued.some((info) => pendingSignal(info).code === SI_TIMER)) {
      problems.push("the expiry of a timer waits to be delivered");
    }
  }
  return problems;
}

/** What the threads of one process hold that wait. */
export class WaitingThreads {
  constructor(
    readonly pid: number,
    readonly threads: readonly WaitingThread[],
    readonly process: WaitingProcess | undefined,
  ) {}

  /**
   * Their process, as it goes into the image.
   *
   * @param others what its other threads told, where it has any
   * @param told what each child told for which one of them waits
   * @param ownCgroups those of ckpt
   */
  conclude(
    others: Collected | undefined,
    told: (child: number) => Collected,
    ownCgroups: readonly CgroupMembership[],
  ): Collected {
    const { pid } = this;
    const waiting = this.threads.map((thread) =>
      collectedThread(thread, told(thread.child))
    );
    if (others !== undefined) {
      const all = [...waiting, ...others.threads];
      return {
        ...others,
        threads: [
          ...all.filter(({ tid }) => tid === pid),
          ...all.filter(({ tid }) => tid !== pid),
        ],
      };
    }
    const child = told(this.threads[0].child);
    const { kernel, clocks, timers, continuedChildren } = this.process!;
    return {
      ...readOfProcess(pid),
      threads: waiting,
      process: {
        ...child.process,
        childSubreaper: kernel.childSubreaper,
        xcompPermissions: kernel.xcompPermissions,
      },
      heapEnd: child.heapEnd,
      lockFuture: child.lockFuture,
      actions: actionsOf(kernel),
      timers: {
        real: timerEntry(kernel.real, clocks.real),
        virt: timerEntry(kernel.virt, clocks.virt),
        prof: timerEntry(kernel.prof, clocks.prof),
        posix: timers.toSorted((a, b) => a.id - b.id).map((timer) => {
          const { interval, expires, overrun } = kernel.timers.get(timer.id)!;
          const now = timer.clockId === CLOCK_BOOTTIME
            ? clocks.boot
            : clocks.real;
          return entryOfTimes(timer, interval, left(expires, now), overrun);
        }),
      },
      pending: entriesOf(kernel.pending),
      cgroups: dumpCgroups(readCgroup(pid), ownCgroups),
      continuedChildren,
    };
  }
}

/** struct sigaction in the kernel has four words. */
function actionsOf({ actions }: KernelProcess): sa_entry[] {
  return SIGNALS_WITH_ACTION.map((signal) => {
    const words = new BigUint64Array(actions.buffer, (signal - 1) * 32, 4);
    const [sigaction, flags, restorer, mask] = words;
    return { sigaction, flags, restorer, mask };
  });
}

function collectedThread(
  { tid, kernel, state, status, stat }: WaitingThread,
  child: Collected,
): CollectedThread {
  const [first] = child.threads;
  const { flags } = stat;
  const answers = {
    // What it has in common with the child, by its flags.
    tscMode: first.answers.tscMode,
    cpuidForbidden: first.answers.cpuidForbidden,
    speculation: first.answers.speculation,
    alternateStack: alternateStack(kernel),
    tidAddress: kernel.tidAddress,
    parentDeathSignal: kernel.parentDeathSignal,
    securebits: kernel.securebits,
    machineCheckKill: (flags & MACHINE_CHECK.own) === 0
      ? MCE_KILL.byDefault
      : (flags & MACHINE_CHECK.early) === 0
      ? MCE_KILL.late
      : MCE_KILL.early,
    memoryPolicy: 0,
  };
  const reasons = threadAnswerProblems(answers, tid);
  if (reasons.length > 0) {
    throw new CkptError(EXIT.refused, `dumping thread ${tid}`, reasons);
  }
  return {
    ...readThread({ tid, status }, stat),
    tid,
    state,
    status,
    registers: kernel.registers,
    imageRegisters: kernel.registers,
    unknownCall: false,
    pending: entriesOf(kernel.pending),
    answers,
  };
}

/** As sigaltstack(2) tells it (sas_ss_flags in include/linux/sched/signal.h). */
function alternateStack(
  { alternateStack: { sp, size, flags }, registers }: KernelThread,
) {
  const offset = registers[REGISTER.rsp] - sp;
  const isOn = (flags & AUTODISARM) === 0 && offset > 0n && offset <= size;
  const state = size === 0n ? SS_DISABLE : isOn ? SS_ONSTACK : 0;
  return {
    ss_sp: sp,
    ss_size: size,
    ss_flags: (state | flags & AUTODISARM) >>> 0,
  };
}

function entriesOf({ queued, mask }: PendingQueue): siginfo_entry[] {
  return withUnqueued(queued, mask);
}

const SECOND = 1_000_000_000n;
const MICROSECOND = 1000n;

/** What is left of a timer; one that is due is told as due in a microsecond. */
function left(expires: bigint, now: bigint): bigint {
  return expires === 0n
    ? 0n
    : expires > now + MICROSECOND
    ? expires - now
    : MICROSECOND;
}

/** As getitimer(2) tells it. */
function timerEntry(
  { interval, expires }: KernelTimer,
  now: bigint,
): itimer_entry {
  const rest = left(expires, now);
  return {
    isec: interval / SECOND,
    iusec: interval % SECOND / MICROSECOND,
    vsec: rest / SECOND,
    vusec: rest % SECOND / MICROSECOND,
  };
}
