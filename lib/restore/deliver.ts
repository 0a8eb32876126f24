/** Carries out a plan of births, step by step, in the agents. */
import { CkptError, EXIT } from "../error.ts";
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { readChildren } from "../proc/read.ts";
import { takeControl } from "../files/terminal_control.ts";
import type { Step } from "../task/births.ts";
import { restoreThreadName } from "../task/thread_attributes.ts";
import type { MemoryPrograms } from "./memory_program.ts";
import type { TaskImages, ZombieImage } from "./task_images.ts";

/** What the steps need of the one who builds the tree. */
export interface Delivery {
  /** Those that live; changed by this. */
  readonly agents: Map<number, AgentProcess>;
  readonly living: ReadonlyMap<number, TaskImages>;
  readonly zombies: ReadonlyMap<number, ZombieImage>;
  /** Paths of the terminals that control sessions, by these. */
  readonly terminals: ReadonlyMap<number, string>;
  /**
   * The programs that rebuild the memory of a process; undefined for one that
   * uses its parent's.
   */
  memory(pid: number): MemoryPrograms | undefined;
  /** Lets an agent begin with them. @returns what waits for their end */
  rebuild(agent: AgentProcess, programs: MemoryPrograms): () => Promise<void>;
  /** Lets an agent run a program in which it ends. @returns its status */
  runToEnd(agent: AgentProcess, program: Program): number;
  /**
   * @param tid the thread that runs the program; it is started when it is not
   * there yet
   * @returns the ids of those that were born
   */
  run(
    agent: AgentProcess,
    program: Program,
    room: number,
    tid?: number,
  ): Int32Array;
  /**
   * Writes what lets a process that was just forked enter the mount namespace
   * it was in, where there are several.
   */
  enter?(program: Program, pid: number, forkedBy: number): void;
  /**
   * Lets a thread do all that it has to before it makes a child for which it
   * then waits in vfork(2).
   */
  beforeVfork?(agent: AgentProcess, tid: number, child: number): Vfork;
  letSignalsIn(): Promise<void>;
}

/** How a child is made for which a thread waits in vfork(2). */
export interface Vfork {
  /** Whether it may say which pid the child gets. */
  readonly choosesPid: boolean;
  /** Lets it run the program that does. @returns the id of the child */
  bear(program: Program): Int32Array;
}

/**
 * @throws CkptError naming the step that failed; what was born by then is in
 * `agents`
 */
export async function deliver(
  steps: readonly Step[],
  delivery: Delivery,
): Promise<void> {
  const { agents, zombies } = delivery;
  for (let i = 0; i < steps.length;) {
    const step = steps[i];
    const agent = agents.get(step.by)!;
    switch (step.kind) {
      case "memory":
        i = await deliverMemories(steps, i, delivery);
        break;
      case "end":
        end(delivery, agent, exitProgram(0));
        i++;
        break;
      case "die": {
        const zombie = zombies.get(step.by)!;
        const status = end(delivery, agent, deathProgram(zombie));
        refuseOtherDeath(zombie, status);
        i++;
        break;
      }
      default:
        i = deliverRun(steps, i, agent, delivery);
    }
  }
}

/** Processes that rebuild their memory at the same time. */
const FILLED_AT_ONCE = 8;

/**
 * Memories that follow each other need nothing of each other, but a descriptor
 * table must not be used by two programs at once.
 */
async function deliverMemories(
  steps: readonly Step[],
  first: number,
  delivery: Delivery,
): Promise<number> {
  const running: { table: number; finish: () => Promise<void> }[] = [];
  const finishOldest = async () => {
    await running.shift()!.finish();
    // Filling memory may have taken long, and nothing was heard meanwhile.
    await delivery.letSignalsIn();
  };
  let i = first;
  for (; i < steps.length && steps[i].kind === "memory"; i++) {
    const { by } = steps[i];
    const programs = delivery.memory(by);
    if (programs === undefined) continue;
    const table = delivery.living.get(by)!.ids.files_id;
    while (
      running.length === FILLED_AT_ONCE ||
      running.some((other) => other.table === table)
    ) await finishOldest();
    const finish = delivery.rebuild(delivery.agents.get(by)!, programs);
    running.push({ table, finish });
  }
  while (running.length > 0) await finishOldest();
  return i;
}

/** Steps of one thread that follow each other are one program. */
function deliverRun(
  steps: readonly Step[],
  first: number,
  agent: AgentProcess,
  delivery: Delivery,
): number {
  const program = new Program();
  const tid = threadOf(steps[first], delivery);
  // One that waits for its child does nothing after it.
  const isVfork = (step: Step) =>
    step.kind === "fork" && delivery.living.get(step.child)?.extension.awaited;
  const step = steps[first];
  const vfork = step.kind === "fork" && isVfork(step)
    ? delivery.beforeVfork?.(agent, tid, step.child)
    : undefined;
  let born = 0;
  let i = first;
  for (; i < steps.length && steps[i].by === steps[first].by; i++) {
    const step = steps[i];
    if (threadOf(step, delivery) !== tid) break;
    if (i > first && (vfork !== undefined || isVfork(step))) break;
    if (!writeStep(program, step, delivery, vfork?.choosesPid)) break;
    if (step.kind === "fork") born++;
  }
  try {
    const children = vfork?.bear(program) ??
      delivery.run(agent, program, born, tid);
    for (const pid of children) {
      const child = agent.adopt(pid);
      delivery.agents.set(pid, child);
      const entering = new Program();
      delivery.enter?.(entering, pid, agent.pid);
      if (entering.operationCount > 0) delivery.run(child, entering, 0);
    }
  } catch (error) {
    adoptLeftBehind(agent, delivery.agents);
    throw error;
  }
  return i;
}

/**
 * The thread that carries out a step: a child belongs to the one that forks it.
 * All else the leader does.
 */
function threadOf(step: Step, { living, zombies }: Delivery): number {
  if (step.kind !== "fork") return step.by;
  const { extension } = living.get(step.child) ?? zombies.get(step.child) ?? {};
  const thread = extension?.parent_thread;
  if (thread === undefined) return step.by;
  // Another one may fork it, for its session: then it becomes the leader's.
  const isOwn = living.get(step.by)?.threads.some(({ tid }) => tid === thread);
  return isOwn ? thread : step.by;
}

/** Those that a program forked before it failed: they end with the others. */
function adoptLeftBehind(
  agent: AgentProcess,
  agents: Map<number, AgentProcess>,
): void {
  try {
    for (const pid of readChildren(agent.pid)) {
      if (!agents.has(pid)) agents.set(pid, agent.adopt(pid));
    }
  } catch (error) {
    // What has ended already needs nobody to end it.
    if (!(error instanceof CkptError)) throw error;
  }
}

const PR_SET_CHILD_SUBREAPER = 36;
const WALL = 0x40000000;

/**
 * @param choosesPid whether a child gets its pid by clone3(2)
 * @returns false for a step that is not part of such a program
 */
function writeStep(
  program: Program,
  step: Step,
  delivery: Delivery,
  choosesPid = true,
): boolean {
  switch (step.kind) {
    case "fork":
      writeFork(program, step, delivery, choosesPid);
      return true;
    case "setsid":
      program.call("setsid", [], `making session ${step.by}`);
      controlSession(program, step.by, delivery);
      return true;
    case "setpgid":
      program.call(
        "setpgid",
        [0, step.group],
        `joining process group ${step.group || step.by}`,
      );
      return true;
    case "subreaper":
      program.call(
        "prctl",
        [PR_SET_CHILD_SUBREAPER, step.on ? 1 : 0],
        "becoming the parent of orphans",
      );
      return true;
    case "reap":
      reapHelper(program, step.child);
      return true;
    default:
      return false;
  }
}

function controlSession(
  program: Program,
  session: number,
  { terminals, living }: Delivery,
): void {
  const path = terminals.get(session);
  if (path !== undefined && living.has(session)) takeControl(program, path);
}

/** Flags of clone(2). */
const CLONE_VM = 0x100;
const CLONE_VFORK = 0x4000;
const CLONE_SIGHAND = 0x800;
const CLONE_SYSVSEM = 0x40000;
const CLONE_PARENT = 0x8000;
const CLONE_IO = 0x8000_0000;
const CLONE_FS = 0x200;
const CLONE_FILES = 0x400;
const CLONE_ARGS_BYTES = 88;
const IOPRIO_WHO_PROCESS = 1;
const SIGCHLD = 17;

function writeFork(
  program: Program,
  step: Extract<Step, { kind: "fork" }>,
  { living, zombies }: Delivery,
  choosesPid: boolean,
): void {
  const { by, child, asSibling = false } = step;
  const bearer = living.get(by);
  const process = living.get(child);
  const extension = process?.extension ?? zombies.get(child)?.extension;
  const helper = step.role === "helper";
  let flags = asSibling ? CLONE_PARENT : 0;
  if (process !== undefined && bearer !== undefined) {
    if (process.ids.files_id === bearer.ids.files_id) flags |= CLONE_FILES;
    if (process.ids.fs_id === bearer.ids.fs_id) flags |= CLONE_FS;
    if (process.ids.vm_id === bearer.ids.vm_id) {
      flags |= CLONE_VM;
      if (process.ids.sighand_id === bearer.ids.sighand_id) {
        flags |= CLONE_SIGHAND;
      }
    }
  }
  if (process?.extension.awaited) flags |= CLONE_VFORK;
  // These are shared with the parent, or not at all.
  if (process !== undefined && bearer !== undefined && !asSibling) {
    if (process.extension.shares_semaphore_undo) flags |= CLONE_SYSVSEM;
    if (process.extension.shares_io_context) {
      // Only what is there can be shared.
      program.call(
        "ioprio_set",
        [IOPRIO_WHO_PROCESS, 0, 0],
        "making an I/O context",
      );
      flags += CLONE_IO;
    }
  }
  if (helper) forkHelper(program, child, flags);
  else {
    forkAs(
      program,
      child,
      flags,
      // A sibling has that of who forks it (clone3(2)).
      asSibling ? 0 : extension?.exit_signal ?? SIGCHLD,
      `starting task ${child}`,
      choosesPid,
    );
  }
}

/** A process that nobody hears of when it ends; {@link reapHelper}. */
export function forkHelper(program: Program, pid: number, flags = 0): void {
  forkAs(program, pid, flags, 0, `starting helper ${pid}`);
}

export function reapHelper(program: Program, pid: number): void {
  program.call("wait4", [pid, 0, WALL, 0], `taking the end of helper ${pid}`);
}

function forkAs(
  program: Program,
  pid: number,
  flags: number,
  exitSignal: number,
  purpose: string,
  choosesPid = true,
): void {
  const wanted = program.reserve(4);
  program.setInt32(wanted, 0, pid);
  const args = program.words([
    flags,
    0,
    0,
    0,
    exitSignal,
    0,
    0,
    0,
    choosesPid ? wanted : 0,
    choosesPid ? 1 : 0,
    0,
  ]);
  program.call("clone", [args, CLONE_ARGS_BYTES, 0], purpose);
}

function end(
  delivery: Delivery,
  agent: AgentProcess,
  program: Program,
): number {
  delivery.agents.delete(agent.pid);
  return delivery.runToEnd(agent, program);
}

function exitProgram(code: number): Program {
  const program = new Program();
  program.call("exit_group", [code], "ending");
  return program;
}

const PR_SET_DUMPABLE = 4;
const SIG_SETMASK = 2;
const SIGNAL_SET_BYTES = 8;
/** Bits of a wait status (wait(2)). */
const SIGNAL_BITS = 0x7f;
const CORE_DUMPED = 0x80;

/** Ends a process in the way that it had ended. */
function deathProgram(
  { pid, comm, status, extension }: ZombieImage,
): Program {
  const program = new Program();
  restoreThreadName(program, comm);
  const { ended } = extension;
  if (ended !== undefined) {
    const { uid, euid, suid, gid, egid, sgid } = ended;
    program.call("setresgid", [gid, egid, sgid], "changing its group ids");
    program.call("setresuid", [uid, euid, suid], "changing its user ids");
  }
  const signal = status & SIGNAL_BITS;
  if (signal === 0) {
    program.call("exit_group", [status >> 8 & 0xff], "ending");
    return program;
  }
  // RLIMIT_CORE does not count for a program that takes core files (core(5)).
  program.call("prctl", [PR_SET_DUMPABLE, 0], "forbidding core files");
  program.call(
    "rt_sigprocmask",
    [SIG_SETMASK, program.words([0]), 0, SIGNAL_SET_BYTES],
    "letting signals in",
  );
  program.call("tgkill", [pid, pid, signal], `ending by signal ${signal}`);
  return program;
}

function refuseOtherDeath({ pid, status }: ZombieImage, got: number): void {
  if ((status & ~CORE_DUMPED) === got) return;
  throw new CkptError(EXIT.failed, `restoring task ${pid}`, [{
    object: `task ${pid}`,
    why: `it ended with status 0x${got.toString(16)}, not 0x${
      status.toString(16)
    }`,
  }]);
}
