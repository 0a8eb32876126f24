/** Agents that tests start and let run programs. */
import { readMaps } from "../../proc/read.ts";
import { AgentProcess, type AgentThread } from "../agent_process.ts";
import { type Argument, type Outcome, Program } from "../program.ts";
import { syscall } from "../syscall.ts";

/** @param pid one that is free */
export function startAgent(pid: number, keep: number[] = []): AgentProcess {
  return AgentProcess.start({
    pid,
    parent: "ckpt",
    keep,
    openFiles: [77n, 99n],
  });
}

/** The main thread, and where its programs can be. */
export function mainThread(
  agent: AgentProcess,
): AgentThread & { room: bigint } {
  const stack = readMaps(agent.pid).find(({ path }) => path === "[stack]")!;
  return {
    tid: agent.pid,
    stack: BigInt(stack.start + 90112),
    room: BigInt(stack.start),
  };
}

/** @param room how many tasks it may clone at most */
export function runProgram(
  agent: AgentProcess,
  program: Program,
  room = 0,
): { born: Int32Array; outcome: Outcome } {
  const thread = mainThread(agent);
  agent.load(thread, program, thread.room);
  agent.resume(thread);
  const born = agent.wait(thread, program, thread.room, room);
  return { born, outcome: agent.outcome(program, thread.room) };
}

/** Lets it run a program in which it ends. @returns its wait status */
export function runToEnd(agent: AgentProcess, program: Program): number {
  const thread = mainThread(agent);
  agent.load(thread, program, thread.room);
  return agent.runToEnd();
}

/** Runs one call in an agent. @returns its result */
export function runCall(
  agent: AgentProcess,
  name: Parameters<Program["call"]>[0],
  args: (program: Program) => readonly Argument[] = () => [],
): bigint {
  const program = new Program();
  const result = program.call(name, args(program), `calling ${name}`);
  return runProgram(agent, program).outcome.result(result);
}

/** Also while it is a zombie. */
export function exists(pid: number): boolean {
  try {
    syscall("kill", BigInt(pid), 0n);
    return true;
  } catch {
    return false;
  }
}
