/**
 * The last steps for the threads of a process: what the program itself sees of
 * its registers. Then nothing of the agent is left.
 */
import { CkptError, EXIT } from "../error.ts";
import { AgentProcess } from "../ffi/agent_process.ts";
import { checked } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { addressOf, syscall } from "../ffi/syscall.ts";
import { hostXsaveLayout } from "../ffi/thread_state.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import { rawFpu } from "../task/fpu.ts";
import { rawRegisters } from "../task/registers.ts";
import { syscallUserDispatch } from "../task/thread_attributes.ts";
import type { AgentLayout } from "./agent_layout.ts";
import { livingThreads, type TaskImages } from "./task_images.ts";

const PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210n;

const SIGSTOP = 19;

/**
 * Stops a process as job control does; its threads stay traced and stopped.
 *
 * @param signal what its parent is told
 */
function stopGroup(
  pid: number,
  threads: readonly { tid: number }[],
  signal: number,
): void {
  checked(
    library("restore").ckpt_stop_group(
      bytesOf(threads),
      BigInt(threads.length),
      signal,
    ),
    `stopping task ${pid}`,
  );
}

/**
 * Stops a process, all of whose signals are blocked, and lets it go on: its
 * parent is told of both, and SIGCONT waits to be taken.
 */
export function stopAndContinue({ pid, threads }: TaskImages): void {
  stopGroup(pid, threads, SIGSTOP);
  checked(
    library("restore").ckpt_continue_group(
      pid,
      bytesOf(threads),
      BigInt(threads.length),
    ),
    `letting task ${pid} go on`,
  );
}

function bytesOf(threads: readonly { tid: number }[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Int32Array.from(threads, ({ tid }) => tid).buffer);
}

/** A process whose threads are stopped, but for a leader that has ended. */
export interface Finishing {
  readonly agent: AgentProcess;
  readonly images: TaskImages;
  /** No other process still needs the agent in its memory. */
  readonly isLast: boolean;
  /** What job control stops it with; 0: it is to run. */
  readonly stopSignal: number;
  /** A thread that did the leader's work, which waits in vfork(2). */
  readonly standIn: number | undefined;
}

/**
 * @param layout memory of the agents, which is removed
 * @param waiters threads that stand in vfork(2)
 */
export function finishThreads(
  processes: readonly Finishing[],
  layout: AgentLayout,
  waiters: ReadonlySet<number>,
): void {
  for (const { images } of processes) {
    livingThreads(images).forEach(({ tid, core }) => setFpu(images, tid, core));
  }
  AgentProcess.unmapAgents(
    processes.filter(({ isLast }) => isLast).map((
      { agent, images, standIn },
    ) => ({
      tid: standIn ??
        livingThreads(images).find(({ tid }) => !waiters.has(tid))!.tid,
      at: syscallInstruction(agent, images),
    })),
    layout.start,
    BigInt(layout.length),
  );
  for (const { agent, images, standIn } of processes) {
    if (standIn === undefined) continue;
    AgentProcess.exitAt(standIn, syscallInstruction(agent, images));
  }
  for (const { agent, images, stopSignal } of processes) {
    const threads = livingThreads(images);
    if (stopSignal !== 0) stopGroup(agent.pid, threads, stopSignal);
    for (const { tid, core } of threads) {
      setRegisters(images, tid, core, waiters.has(tid));
    }
  }
}

type Core = TaskImages["threads"][number]["core"];

function extensionOf(images: TaskImages, tid: number) {
  return images.extension.threads.find((entry) => entry.tid === tid);
}

function setFpu(images: TaskImages, tid: number, core: Core): void {
  const raw = rawFpu(
    core.thread_info!.fpregs,
    hostXsaveLayout(),
    tid,
    extensionOf(images, tid)?.xsave,
  );
  checked(
    library("restore").ckpt_set_fpu(tid, raw, BigInt(raw.length)),
    `restoring the FPU registers of thread ${tid}`,
  );
}

/** The last step for a thread: what the program itself sees. */
function setRegisters(
  images: TaskImages,
  tid: number,
  core: Core,
  inCall: boolean,
): void {
  const dispatch = syscallUserDispatch(
    extensionOf(images, tid) ?? { tid },
  );
  if (dispatch !== undefined) {
    syscall(
      "ptrace",
      PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG,
      BigInt(tid),
      BigInt(dispatch.length),
      addressOf(dispatch),
    );
  }
  const mask = core.tc?.blk_sigset ?? core.thread_core?.blk_sigset ?? 0n;
  checked(
    library("restore").ckpt_set_signal_mask(tid, mask),
    `restoring the signal mask of thread ${tid}`,
  );
  const raw = rawRegisters(core.thread_info!.gpregs, tid, inCall);
  checked(
    library("restore").ckpt_set_registers(tid, new Uint8Array(raw.buffer)),
    `restoring the registers of thread ${tid}`,
  );
}

/** The bytes of a system call instruction. */
const SYSCALL = [0x0f, 0x05] as const;
const SEARCH_STEP = 1024 * 1024;
/** Where the last one was found, from the beginning of the vdso, which all have. */
let inVdso = 0n;

function isSyscall(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === SYSCALL[0] && bytes[at + 1] === SYSCALL[1];
}

/**
 * Finds a system call instruction in the task's own code, with which the
 * agent's memory can be unmapped: the vdso has some.
 */
function syscallInstruction(
  agent: AgentProcess,
  images: TaskImages,
): bigint {
  const executable = images.mm.vmas.filter(({ prot, status }) =>
    (prot & PROT.exec) !== 0 && (status & VMA_STATUS.REGULAR) !== 0
  );
  const vdso = executable.filter(({ status }) =>
    (status & VMA_STATUS.VDSO) !== 0
  );
  for (const { start } of vdso) {
    if (isSyscall(agent.memory.read(start + inVdso, 2), 0)) {
      return start + inVdso;
    }
  }
  for (const { start, end, status } of [...vdso, ...executable]) {
    for (let at = start; at < end; at += BigInt(SEARCH_STEP)) {
      const length = Math.min(Number(end - at), SEARCH_STEP);
      let bytes: Uint8Array;
      try {
        bytes = agent.memory.read(at, length);
      } catch {
        break; // beyond the end of a mapped file
      }
      for (let i = 0; i + 1 < bytes.length; i++) {
        if (!isSyscall(bytes, i)) continue;
        const found = at + BigInt(i);
        if ((status & VMA_STATUS.VDSO) !== 0) inVdso = found - start;
        return found;
      }
    }
  }
  throw new CkptError(EXIT.refused, `restoring task ${images.pid}`, [{
    object: `task ${images.pid}`,
    why: "its code holds no system call instruction with which the agent " +
      "could be removed",
  }]);
}
