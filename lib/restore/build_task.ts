/**
 * Makes the task: starts the agent, gives it the programs by which it becomes
 * the task, sets the registers of its threads, and lets them go.
 */
import { AgentProcess, type AgentThread } from "../ffi/agent_process.ts";
import { CkptError, EXIT } from "../error.ts";
import { checked } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { Program } from "../ffi/program.ts";
import { addressOf, close, O, open, syscall } from "../ffi/syscall.ts";
import { hostXsaveLayout } from "../ffi/thread_state.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import { findHole } from "../mm/hole.ts";
import { MAP } from "../mm/vma.ts";
import { PROT } from "../proc/maps.ts";
import { readMaps, readMountInfo } from "../proc/read.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import type { Report } from "../report.ts";
import { restoreCgroups } from "../task/cgroups.ts";
import { rawFpu } from "../task/fpu.ts";
import { rawRegisters } from "../task/registers.ts";
import { syscallUserDispatch } from "../task/thread_attributes.ts";
import type { Given } from "./given_descriptors.ts";
import type { RestoreOptions } from "./options.ts";
import type { TaskPlan } from "./plan.ts";
import {
  cloneThreads,
  eventProgram,
  type EventPrograms,
  leaderProgram,
  mainProgram,
  threadProgram,
} from "./programs.ts";
import { pagesPath, type TaskImages } from "./task_images.ts";

const SIGSTOP = 19n;
const PTRACE_SET_SYSCALL_USER_DISPATCH_CONFIG = 0x4210n;

/** Where things are in the memory of the agent. */
interface AgentLayout {
  start: bigint;
  length: number;
  leaderStack: bigint;
  threadStacks: bigint;
  /** Where programs begin. */
  programs: bigint;
}

const CODE_ROOM = 4096;
const LEADER_STACK = 8192;
export const THREAD_STACK = 1024;

/** @returns the pid of the task, which runs */
export async function buildTask(
  images: TaskImages,
  plan: TaskPlan,
  given: Given,
  options: RestoreOptions,
  report: Report,
): Promise<number> {
  const pagesFd = open(pagesPath(images.set, images.pagemap), O.RDONLY);
  const sharedFds = images.shared.map(({ pagemap }) =>
    open(pagesPath(images.set, pagemap), O.RDONLY)
  );
  try {
    const givenFds = [
      ...new Set([...given.byFile.values()].map(({ fd }) => fd)),
    ];
    const nofile = plan.limits[RLIMIT_NOFILE].hard;
    using process = AgentProcess.start({
      pid: images.pid,
      parent: options.sibling
        ? "parentOfCkpt"
        : options.detached
        ? "nobody"
        : "ckpt",
      keep: [pagesFd, ...sharedFds, ...givenFds],
      openFiles: [nofile, nofile],
    });
    report.log(3, `started the agent as task ${process.pid}`);
    const layout = enterHole(process, images);
    const services = { pagesFd, sharedFds, givenFds };
    const tids = await become(
      process,
      layout,
      images,
      plan,
      given,
      services,
      report,
    );
    const { cgroups } = images.extension;
    if (cgroups.length > 0) {
      const mounts = readMountInfo(Deno.pid);
      for (const problem of restoreCgroups(process.pid, cgroups, mounts)) {
        report.log(2, problem);
      }
    }
    using pidfile = writePidfile(options.pidfile, process.pid);
    await report.letSignalsIn();
    report.signal.throwIfAborted();
    if (options.leaveStopped) syscall("kill", BigInt(process.pid), SIGSTOP);
    process.release(tids);
    pidfile.keep();
    return process.pid;
  } finally {
    close(pagesFd);
    sharedFds.forEach(close);
  }
}

const RLIMIT_NOFILE = 7;

/**
 * Gives the agent memory of its own at a place that the task does not use, and
 * moves it there.
 */
function enterHole(process: AgentProcess, images: TaskImages): AgentLayout {
  const own = readMaps(process.pid);
  const stack = own.find(({ path }) => path === "[stack]")!;
  const length = roomForAgent(images);
  // Behind the agent, shared memory and areas that move are put together.
  const largest = [
    ...images.shared.map(({ size }) => Number(size)),
    ...images.mm.vmas.filter(({ status }) =>
      (status & VMA_STATUS.ANON_PRIVATE) !== 0
    ).map(({ start, end }) => Number(end - start)),
  ].reduce((most, size) => Math.max(most, size), 0);
  const start = findHole(
    [
      ...own,
      ...images.mm.vmas.map((vma) => ({
        start: Number(vma.start),
        end: Number(vma.end),
      })),
    ],
    length + largest,
  );
  if (start === undefined) {
    throw new CkptError(EXIT.failed, `restoring task ${images.pid}`, [{
      object: `task ${images.pid}`,
      why: `its address space has no room for the agent (${length} bytes)`,
    }]);
  }
  const program = new Program();
  program.call(
    "mmap",
    [
      start,
      length,
      PROT.read | PROT.write | PROT.exec,
      MAP.private | MAP.anonymous | MAP.noreserve | MAP.fixedNoreplace,
      -1,
      0,
    ],
    "mapping memory for the agent",
  );
  const leader = { tid: process.pid, stack: BigInt(stack.end - 4096) };
  const address = BigInt(stack.start);
  process.load(leader, program, address);
  process.resume(leader);
  process.wait(leader, program, address);
  process.moveTo(BigInt(start));
  const base = BigInt(start);
  const threadStacks = base + BigInt(CODE_ROOM + LEADER_STACK);
  return {
    start: base,
    length,
    leaderStack: threadStacks - 64n,
    threadStacks,
    programs: threadStacks +
        BigInt(THREAD_STACK * images.threads.length + PAGE_SIZE) &
      ~BigInt(PAGE_SIZE - 1),
  };
}

/** An upper bound; memory that is not touched costs nothing. */
function roomForAgent(images: TaskImages): number {
  const { mm, pagemap, shared, descriptors, threads, seccomp } = images;
  const OPERATION = 72;
  const NAME = 4112;
  const areas = mm.vmas.length * (8 * OPERATION + 64);
  const pages = (pagemap.entries.length +
    shared.reduce((sum, { pagemap }) => sum + pagemap.entries.length, 0)) *
    OPERATION;
  const files = (images.files.size + descriptors.length) *
    (16 * OPERATION + NAME);
  const filters = seccomp.seccomp_filters.reduce(
    (sum, { filter }) => sum + filter.length + 4 * OPERATION,
    0,
  );
  const signals = threads.reduce(
    (sum, { core }) => sum + (core.thread_core?.signals_p?.signals.length ?? 0),
    threads[0].core.tc?.signals_s?.signals.length ?? 0,
  ) * 512;
  const timers = (threads[0].core.tc?.timers?.posix.length ?? 0) * 4096;
  const perThread = THREAD_STACK + 256 * 1024 + filters;
  const total = CODE_ROOM + LEADER_STACK + areas + pages + files + signals +
    timers + perThread * threads.length + 4 * 1024 * 1024;
  return (total + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
}

/** Hands out addresses for programs, one after the other. */
class ProgramRoom {
  #next: bigint;
  constructor(start: bigint, readonly end: bigint) {
    this.#next = start;
  }
  place(program: Program): bigint {
    const address = this.#next;
    this.#next += BigInt((program.size + 127) & ~63);
    if (this.#next > this.end) {
      throw new Error("the programs of the agent do not fit its memory");
    }
    return address;
  }
}

/**
 * Runs the programs: memory and descriptors in the leader, then all threads,
 * then signals and timers; at last everything of the agent is gone.
 *
 * @returns all threads, stopped, ready to go on
 */
async function become(
  process: AgentProcess,
  layout: AgentLayout,
  images: TaskImages,
  plan: TaskPlan,
  given: Given,
  services: { pagesFd: number; sharedFds: number[]; givenFds: number[] },
  report: Report,
): Promise<Int32Array<ArrayBuffer>> {
  const { threads } = images;
  const room = new ProgramRoom(
    layout.programs,
    layout.start + BigInt(layout.length),
  );
  const leader: AgentThread = { tid: process.pid, stack: layout.leaderStack };
  const others = threads.slice(1).map(({ tid }, i): AgentThread => ({
    tid,
    stack: layout.threadStacks + BigInt((i + 1) * THREAD_STACK - 64),
  }));

  const threadPrograms = threads.slice(1).map((thread) => {
    const program = threadProgram(images, plan, thread);
    const address = room.place(program);
    process.memory.write(address, program.encode(address, 1n));
    return { program, address };
  });

  const agent = {
    start: Number(layout.start),
    end: Number(layout.start) + layout.length,
  };
  const main = mainProgram(images, plan, given, services, agent);
  cloneThreads(
    main,
    others.map(({ tid, stack }, i) => ({
      tid,
      stack,
      program: threadPrograms[i].address,
    })),
  );
  const mainAddress = room.place(main);
  process.load(leader, main, mainAddress);
  await report.letSignalsIn();
  report.signal.throwIfAborted();
  process.resume(leader);
  process.wait(leader, main, mainAddress, others.length);
  // Filling memory may have taken long, and nothing was heard meanwhile.
  await report.letSignalsIn();
  report.signal.throwIfAborted();

  for (const thread of others) process.resume(thread);
  others.forEach((thread, i) => {
    const { program, address } = threadPrograms[i];
    process.wait(thread, program, address);
  });
  const last = leaderProgram(images, plan);
  const lastAddress = room.place(last);
  process.load(leader, last, lastAddress);
  process.resume(leader);
  process.wait(leader, last, lastAddress);
  report.signal.throwIfAborted();

  const events = eventProgram(images, plan);
  runEvents(process, [leader, ...others], events, room);

  const tids = Int32Array.from(threads, ({ tid }) => tid);
  threads.forEach(({ tid, core }) => setFpu(images, tid, core));
  process.unmapAgent(
    syscallInstruction(process, images),
    layout.start,
    BigInt(layout.length),
  );
  for (const { tid, core } of threads) setRegisters(images, tid, core);
  return tids;
}

function runEvents(
  process: AgentProcess,
  threads: readonly AgentThread[],
  events: EventPrograms,
  room: ProgramRoom,
): void {
  threads.forEach((thread, i) => {
    const program = events.programs[i];
    if (program.operationCount === 0) return;
    const address = room.place(program);
    const outcome = process.step(thread, program, address);
    const reasons = i === 0 ? events.wrongTimers(outcome) : [];
    if (reasons.length > 0) {
      throw new CkptError(
        EXIT.failed,
        `restoring task ${process.pid}`,
        reasons,
      );
    }
  });
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
function setRegisters(images: TaskImages, tid: number, core: Core): void {
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
  const raw = rawRegisters(core.thread_info!.gpregs, tid);
  checked(
    library("restore").ckpt_set_registers(tid, new Uint8Array(raw.buffer)),
    `restoring the registers of thread ${tid}`,
  );
}

/** The bytes of a system call instruction. */
const SYSCALL = [0x0f, 0x05] as const;
const SEARCH_STEP = 1024 * 1024;

/**
 * Finds a system call instruction in the task's own code, with which the
 * agent's memory can be unmapped: the vdso has some.
 */
function syscallInstruction(
  process: AgentProcess,
  images: TaskImages,
): bigint {
  const executable = images.mm.vmas.filter(({ prot, status }) =>
    (prot & PROT.exec) !== 0 && (status & VMA_STATUS.REGULAR) !== 0
  );
  const vdso = executable.filter(({ status }) =>
    (status & VMA_STATUS.VDSO) !== 0
  );
  for (const { start, end } of [...vdso, ...executable]) {
    for (let at = start; at < end; at += BigInt(SEARCH_STEP)) {
      const length = Math.min(Number(end - at), SEARCH_STEP);
      let bytes: Uint8Array;
      try {
        bytes = process.memory.read(at, length);
      } catch {
        break; // beyond the end of a mapped file
      }
      for (let i = 0; i + 1 < bytes.length; i++) {
        if (bytes[i] === SYSCALL[0] && bytes[i + 1] === SYSCALL[1]) {
          return at + BigInt(i);
        }
      }
    }
  }
  throw new CkptError(EXIT.refused, `restoring task ${images.pid}`, [{
    object: `task ${images.pid}`,
    why: "its code holds no system call instruction with which the agent " +
      "could be removed",
  }]);
}

interface Pidfile extends Disposable {
  keep(): void;
}

/** The file is there before the task runs, and gone if it does not come. */
function writePidfile(path: string | undefined, pid: number): Pidfile {
  let keep = path === undefined;
  if (path !== undefined) {
    try {
      Deno.writeTextFileSync(path, `${pid}`, { createNew: true });
    } catch (error) {
      throw new CkptError(EXIT.failed, `restoring task ${pid}`, [{
        object: `--pidfile ${path}`,
        why: error instanceof Error ? error.message : String(error),
        remedy: "remove the file of an earlier run, or name another",
      }], { cause: error });
    }
  }
  return {
    keep: () => {
      keep = true;
    },
    [Symbol.dispose]: () => {
      if (!keep) Deno.removeSync(path!);
    },
  };
}
