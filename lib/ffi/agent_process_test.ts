import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { freePid } from "../task/testing/agent_task.ts";
import { listThreads, readStat, readStatus } from "../proc/read.ts";
import { hasEnded } from "../proc/testing/has_ended.ts";
import { AgentProcess } from "./agent_process.ts";
import { checked } from "./cause.ts";
import { library } from "./library.ts";
import { Program } from "./program.ts";
import { askContinuedChildren } from "../task/continued_children.ts";
import { addressOf, close, O, open, syscall } from "./syscall.ts";
import {
  exists,
  mainThread,
  runCall,
  runProgram,
  runToEnd,
  startAgent,
} from "./testing/agents.ts";
import { ChildProgram } from "./testing/child_program.ts";

function start(keep: number[] = []): AgentProcess {
  return startAgent(freePid(), keep);
}

Deno.test("the agent starts with the wanted pid, and nothing of ckpt", () => {
  const pid = freePid();
  const kept = open("/dev/null", O.RDONLY);
  try {
    using agent = startAgent(pid, [kept]);
    assertEquals(agent.pid, pid);
    const fds = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) =>
      Number(name)
    );
    assertEquals(fds.sort((a, b) => a - b), [0, kept]);
    const { sigIgn, sigCgt } = readStatus(pid);
    assertEquals([sigIgn, sigCgt, readStat(pid).ppid], [0n, 0n, Deno.pid]);
    const limits = Deno.readTextFileSync(`/proc/${pid}/limits`);
    assert(/^Max open files +77 +99 /m.test(limits), limits);
    assertEquals(Deno.readFileSync(`/proc/${pid}/environ`).length, 0);
  } finally {
    close(kept);
  }
});

Deno.test("a pid that is taken is told with who has it", async () => {
  await using child = await ChildProgram.start("ready()");
  const error = assertThrows(() => startAgent(child.pid), CkptError);
  assertEquals(error.exit, EXIT.failed);
  const [{ object, why, remedy }] = error.reasons;
  assertEquals(object, `pid ${child.pid}`);
  assertEquals(why, 'it is taken by "python3"');
  assert(remedy?.includes("new pid namespace"));
  assert(exists(child.pid));
});

Deno.test("nothing is left of an agent that is disposed of", () => {
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  const agent = start();
  assert(exists(agent.pid));
  agent[Symbol.dispose]();
  assert(!exists(agent.pid), "the process is still there");
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});

Deno.test("nothing is left of an agent with threads, either", () => {
  const agent = start();
  const { pid } = agent;
  const program = cloning(pid, 3);
  const { born } = runProgram(agent, program, 3);
  assertEquals(born.length, 3);
  assertEquals(
    [...listThreads(pid)].sort((a, b) => a - b),
    [pid, ...born].sort((a, b) => a - b),
  );
  agent[Symbol.dispose]();
  assert(!exists(pid), "the process is still there");
});

/** CLONE_VM, FS, FILES, SIGHAND, THREAD (clone(2)). */
const THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000;

/** Clones threads that never run. */
function cloning(pid: number, count: number): Program {
  const program = new Program();
  for (let i = 0; i < count; i++) {
    const stack = program.reserve(4096);
    const args = program.words([THREAD, 0, 0, 0, 0, stack, 4096, 0, 0, 0, 0]);
    program.call("clone", [args, 88, 0], `cloning a thread of ${pid}`);
  }
  return program;
}

Deno.test("more threads than were expected are told, and nothing is left", () => {
  const agent = start();
  const error = assertThrows(
    () => runProgram(agent, cloning(agent.pid, 2), 1),
    CkptError,
  );
  assertEquals(error.exit, EXIT.failed);
  agent[Symbol.dispose]();
  assert(!exists(agent.pid), "the process is still there");
});

Deno.test("the leader of an agent ends alone, and nothing is left of it when the agent is disposed of", async () => {
  for (const released of [false, true]) {
    const agent = start();
    const { pid } = agent;
    const { born } = runProgram(agent, cloning(pid, 2), 2);
    const thread = mainThread(agent);
    const program = new Program();
    program.call("exit", [7], "ending");
    agent.endLeader(thread, program, thread.room);
    assertEquals(readStat(pid).state, "Z");
    assertEquals(readStatus(pid).tracerPid, 0);
    assertEquals([...born].map((tid) => readStat(tid).state), ["t", "t"]);
    if (released) {
      // ckpt, as the parent, is not told before all have ended.
      assertEquals(takeChange(pid, WNOHANG), 0);
      const address = thread.room;
      agent.memory.write(address, program.encode(address, 1n));
      born.forEach((tid, i) =>
        agent.point({ tid, stack: thread.stack - BigInt(4096 * i) }, address)
      );
      AgentProcess.release([agent], Int32Array.from(born));
      await settles(pid, "Z");
      assertEquals(takeChange(pid, 0), 7 << 8);
    } else agent[Symbol.dispose]();
    assert(!exists(pid), "the process is still there");
  }
});

Deno.test("an agent whose program fails names the operation", () => {
  using agent = start();
  const program = new Program();
  program.call("getpid", [], "asking");
  program.call("setuid", [-1], "becoming nobody");
  const error = assertThrows(() => runProgram(agent, program), CkptError);
  assertEquals(error.exit, EXIT.failed);
  assertEquals(error.action, `restoring task ${agent.pid}`);
  assertEquals(error.reasons, [{
    object: "becoming nobody",
    why: "EINVAL (invalid argument)",
  }]);
});

Deno.test("an agent that dies is told as gone", () => {
  using agent = start();
  const program = new Program();
  program.call("exit", [3], "ending");
  const error = assertThrows(() => runProgram(agent, program), CkptError);
  assertEquals(error.exit, EXIT.gone);
});

Deno.test("a program that is stepped has the same outcome as one that runs", () => {
  using agent = start();
  const program = new Program();
  const pid = program.call("getpid", [], "asking");
  const failing = program.call("close", [99], "closing", { mayFail: true });
  const thread = mainThread(agent);
  const stepped = agent.step(thread, program, thread.room);
  const { outcome } = runProgram(agent, program);
  for (const result of [pid, failing]) {
    assertEquals(stepped.result(result), outcome.result(result));
  }
  assertEquals(stepped.result(pid), BigInt(agent.pid));
  assertEquals(stepped.result(failing), -9n);
});

const SIGCHLD = 17;
const SIGCONT = 18;
const SIGSTOP = 19;
const SIGTSTP = 20;
const SIGKILL = 9;
const CLONE_ARGS = 88;

/** Forks processes with the wanted pids. */
function forking(pids: readonly number[]): Program {
  const program = new Program();
  for (const pid of pids) {
    const wanted = program.reserve(4);
    program.setInt32(wanted, 0, pid);
    const args = program.words([0, 0, 0, 0, SIGCHLD, 0, 0, 0, wanted, 1, 0]);
    program.call("clone", [args, CLONE_ARGS, 0], `starting task ${pid}`);
  }
  return program;
}

/** Agents that a first one forks; all end with the scope. */
class Family implements Disposable {
  readonly parent = start();
  readonly children: readonly AgentProcess[];

  constructor(count: number) {
    const pids = Array.from({ length: count }, freePid);
    const { born } = runProgram(this.parent, forking(pids), count);
    this.children = [...born].map((pid) => this.parent.adopt(pid));
    assertEquals(this.children.map(({ pid }) => pid), pids);
  }

  [Symbol.dispose](): void {
    for (const child of this.children) child[Symbol.dispose]();
    this.parent[Symbol.dispose]();
  }
}

Deno.test("agents that an agent forks are its children, with memory of their own", () => {
  using family = new Family(2);
  const { parent, children } = family;
  for (const child of children) {
    assertEquals(readStat(child.pid).ppid, parent.pid);
    assertEquals(runCall(child, "getpid"), BigInt(child.pid));
  }
  const [first, second] = children;
  const { room } = mainThread(parent);
  const at = room + 98304n;
  for (const agent of [parent, first, second]) {
    agent.memory.write(at, Uint8Array.of(agent.pid % 251));
  }
  for (const agent of [parent, first, second]) {
    assertEquals(agent.memory.read(at, 1)[0], agent.pid % 251);
  }
  // A child can have children itself.
  const pid = freePid();
  const { born } = runProgram(first, forking([pid]), 1);
  using grandson = first.adopt(born[0]);
  assertEquals([...born], [pid]);
  assertEquals(readStat(pid).ppid, first.pid);
  assertEquals(runCall(grandson, "getpid"), BigInt(pid));
});

Deno.test("nothing is left of a family that is disposed of, whoever goes first", () => {
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  for (const parentFirst of [false, true]) {
    const { parent, children } = new Family(2);
    const all = parentFirst ? [parent, ...children] : [...children, parent];
    for (const agent of all) agent[Symbol.dispose]();
    for (const { pid } of all) assert(hasEnded(pid), `${pid} is there`);
    assert(!exists(parent.pid));
  }
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});

Deno.test("a pid that is taken fails a fork, and names the task", () => {
  using agent = start();
  const [first, taken] = [freePid(), Deno.pid];
  const error = assertThrows(
    () => runProgram(agent, forking([first, taken]), 2),
    CkptError,
  );
  assertEquals(error.reasons, [{
    object: `starting task ${taken}`,
    why: "EEXIST (exists already)",
  }]);
  agent.adopt(first)[Symbol.dispose]();
});

/** How a child ended, as its parent is told. */
function statusOf(parent: AgentProcess, pid: number): number {
  const WALL = 0x40000000;
  const program = new Program();
  const status = program.reserve(4);
  program.call("wait4", [pid, status, WALL, 0], "waiting");
  return runProgram(parent, program).outcome.data(status).getInt32(0, true);
}

function exiting(code: number): Program {
  const program = new Program();
  program.call("exit_group", [code], "ending");
  return program;
}

function dyingOf(pid: number, signal: number): Program {
  const program = new Program();
  const SIG_SETMASK = 2;
  program.call(
    "rt_sigprocmask",
    [SIG_SETMASK, program.words([0]), 0, 8],
    "letting signals in",
  );
  program.call("tgkill", [pid, pid, signal], "ending");
  return program;
}

Deno.test("an agent runs to its end, of which its parent is told", () => {
  const before = [...Deno.readDirSync("/proc/self/fd")].length;
  {
    using family = new Family(4);
    const { parent, children } = family;
    const SIGTERM = 15;
    const deaths: [AgentProcess, Program, number][] = [
      [children[0], exiting(0), 0],
      [children[1], exiting(42), 42 << 8],
      [children[2], dyingOf(children[2].pid, SIGTERM), SIGTERM],
      [children[3], dyingOf(children[3].pid, SIGKILL), SIGKILL],
    ];
    for (const [child, program, status] of deaths) {
      assertEquals(runToEnd(child, program), status);
      assertEquals(readStat(child.pid).state, "Z");
      assertEquals(readStat(child.pid).exitCode, status);
    }
    for (const [{ pid }, , status] of deaths) {
      assertEquals(statusOf(parent, pid), status);
      assert(!exists(pid));
    }
  }
  assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before);
});

function stopGroup(tids: readonly number[], signal: number): void {
  const raw = Int32Array.from(tids);
  checked(
    library("restore").ckpt_stop_group(
      new Uint8Array(raw.buffer),
      BigInt(raw.length),
      signal,
    ),
    "stopping",
  );
}

/** Takes a change of a child of ckpt's own. @returns its wait status, or 0 */
function takeChange(pid: number, options: number): number {
  const status = new Int32Array(2);
  const found = syscall(
    "wait4",
    BigInt(pid),
    addressOf(new Uint8Array(status.buffer)),
    BigInt(options),
  );
  return found === 0n ? 0 : status[0];
}

const WNOHANG = 1;
const WUNTRACED = 2;

async function settles(pid: number, state: string): Promise<void> {
  while (readStat(pid).state !== state) {
    await new Promise((done) => setTimeout(done, 1));
  }
}

Deno.test("a process is stopped with all its threads, runs nothing meanwhile, and stays so when it is let go", async () => {
  const agent = start();
  const { pid } = agent;
  try {
    const { born } = runProgram(agent, cloning(pid, 3), 3);
    const tids = [pid, ...born];
    const before = tids.map((tid) => readStat(tid).kstkeip);
    stopGroup(tids, SIGSTOP);
    assertEquals(tids.map((tid) => readStat(tid).kstkeip), before);
    AgentProcess.release([agent], Int32Array.from(tids));
    for (const tid of tids) await settles(tid, "T");
    assertEquals(readStatus(pid).tracerPid, 0);
    // ckpt, as the parent, is told once.
    const STOPPED = 0x7f;
    assertEquals(takeChange(pid, WNOHANG | WUNTRACED), SIGSTOP << 8 | STOPPED);
    assertEquals(takeChange(pid, WNOHANG | WUNTRACED), 0);
  } finally {
    Deno.kill(pid, "SIGKILL");
    takeChange(pid, 0);
  }
  assert(!exists(pid));
});

Deno.test("a process of a group that is not orphaned is stopped with the signal it was stopped with", async () => {
  using family = new Family(1);
  const { parent, children: [child] } = family;
  runCall(child, "setpgid", () => [0, 0]);
  stopGroup([child.pid], SIGTSTP);
  AgentProcess.release([child], Int32Array.of(child.pid));
  await settles(child.pid, "T");
  const program = new Program();
  const status = program.reserve(4);
  program.call("wait4", [child.pid, status, WUNTRACED, 0], "waiting");
  const { outcome } = runProgram(parent, program);
  const STOPPED = 0x7f;
  assertEquals(
    outcome.data(status).getInt32(0, true),
    SIGTSTP << 8 | STOPPED,
  );
  syscall("kill", BigInt(child.pid), BigInt(SIGKILL));
  await settles(child.pid, "Z");
});

Deno.test("a process that was stopped goes on, and its parent is told once", () => {
  using family = new Family(2);
  const { parent, children: [child, other] } = family;
  const pids = [child.pid, other.pid];
  const ask = () => {
    const program = new Program();
    const read = askContinuedChildren(program, pids);
    return read(runProgram(parent, program).outcome);
  };
  assertEquals(ask(), []);
  const before = readStat(child.pid).kstkeip;
  stopGroup([child.pid], SIGSTOP);
  assertEquals(ask(), []);
  checked(
    library("restore").ckpt_continue_group(
      child.pid,
      new Uint8Array(Int32Array.of(child.pid).buffer),
      1n,
    ),
    "letting it go on",
  );
  assertEquals(readStat(child.pid).kstkeip, before);
  assertEquals(readStatus(child.pid).shdPnd, 1n << BigInt(SIGCONT - 1));
  // Asking takes nothing away.
  assertEquals(ask(), [child.pid]);
  assertEquals(ask(), [child.pid]);
  const WCONTINUED = 8;
  runCall(parent, "wait4", () => [child.pid, 0, WCONTINUED, 0]);
  assertEquals(ask(), []);
});

Deno.test("a stop that cannot be is told, and does not hang", () => {
  using family = new Family(1);
  const { children: [child] } = family;
  // SIGCONT stops nothing: it is ignored, and the agent runs into nowhere.
  assertThrows(() => stopGroup([child.pid], SIGCONT), CkptError);
});
