import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { freePid } from "../task/testing/agent_task.ts";
import { listThreads, readMaps, readStatus } from "../proc/read.ts";
import { AgentProcess, type AgentThread } from "./agent_process.ts";
import { Program } from "./program.ts";
import { close, O, open, syscall } from "./syscall.ts";
import { ChildProgram } from "./testing/child_program.ts";

function start(pid = freePid(), keep: number[] = []): AgentProcess {
  return AgentProcess.start({
    pid,
    parent: "ckpt",
    keep,
    openFiles: [77n, 99n],
  });
}

function exists(pid: number): boolean {
  try {
    syscall("kill", BigInt(pid), 0n);
    return true;
  } catch {
    return false;
  }
}

/** The main thread, and where its programs can be. */
function mainThread(agent: AgentProcess): AgentThread & { room: bigint } {
  const stack = readMaps(agent.pid).find(({ path }) => path === "[stack]")!;
  return {
    tid: agent.pid,
    stack: BigInt(stack.start + 90112),
    room: BigInt(stack.start),
  };
}

function run(agent: AgentProcess, program: Program, room = 0) {
  const thread = mainThread(agent);
  agent.load(thread, program, thread.room);
  agent.resume(thread);
  const born = agent.wait(thread, program, thread.room, room);
  return { born, outcome: agent.outcome(program, thread.room) };
}

Deno.test("the agent starts with the wanted pid, and nothing of ckpt", () => {
  const pid = freePid();
  const kept = open("/dev/null", O.RDONLY);
  try {
    using agent = start(pid, [kept]);
    assertEquals(agent.pid, pid);
    const fds = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) =>
      Number(name)
    );
    assertEquals(fds.sort((a, b) => a - b), [0, kept]);
    const { sigIgn, sigCgt, ppid } = readStatus(pid);
    assertEquals([sigIgn, sigCgt, ppid], [0n, 0n, Deno.pid]);
    const limits = Deno.readTextFileSync(`/proc/${pid}/limits`);
    assert(/^Max open files +77 +99 /m.test(limits), limits);
    assertEquals(Deno.readFileSync(`/proc/${pid}/environ`).length, 0);
  } finally {
    close(kept);
  }
});

Deno.test("a pid that is taken is told with who has it", async () => {
  await using child = await ChildProgram.start("ready()");
  const error = assertThrows(() => start(child.pid), CkptError);
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
  const { born } = run(agent, program, 3);
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
    () => run(agent, cloning(agent.pid, 2), 1),
    CkptError,
  );
  assertEquals(error.exit, EXIT.failed);
  agent[Symbol.dispose]();
  assert(!exists(agent.pid), "the process is still there");
});

Deno.test("an agent whose program fails names the operation", () => {
  using agent = start();
  const program = new Program();
  program.call("getpid", [], "asking");
  program.call("setuid", [-1], "becoming nobody");
  const error = assertThrows(() => run(agent, program), CkptError);
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
  const error = assertThrows(() => run(agent, program), CkptError);
  assertEquals(error.exit, EXIT.gone);
});

Deno.test("a program that is stepped has the same outcome as one that runs", () => {
  using agent = start();
  const program = new Program();
  const pid = program.call("getpid", [], "asking");
  const failing = program.call("close", [99], "closing", { mayFail: true });
  const thread = mainThread(agent);
  const stepped = agent.step(thread, program, thread.room);
  const { outcome } = run(agent, program);
  for (const result of [pid, failing]) {
    assertEquals(stepped.result(result), outcome.result(result));
  }
  assertEquals(stepped.result(pid), BigInt(agent.pid));
  assertEquals(stepped.result(failing), -9n);
});
