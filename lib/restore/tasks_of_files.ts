/**
 * Processes and threads that have to be there when descriptors are opened,
 * because these stand for them.
 */
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import { forkHelper } from "./deliver.ts";
import { cloneThreads } from "./thread_programs.ts";
import type { TreeAgents } from "./tree_agents.ts";

/** @returns what ends those that are there for the moment only */
export function makeTasksOfFiles(agents: TreeAgents): () => void {
  makeThreadsOfFiles(agents);
  const ended = standInForEnded(agents);
  const endThreads = standInForEndedThreads(agents);
  return () => {
    agents.end(ended);
    endThreads();
  };
}

/**
 * Threads that a pidfd (PIDFD_THREAD, kept as O_EXCL) or a file below /proc
 * stands for have to be there.
 */
function makeThreadsOfFiles(agents: TreeAgents): void {
  // Leaders are there.
  const owners = new Map(
    agents.images.processes.flatMap(({ pid, threads }) =>
      threads.flatMap(({ tid }) => tid === pid ? [] : [[tid, pid] as const])
    ),
  );
  if (owners.size === 0) return;
  for (const { pidfd, reg } of agents.images.files.values()) {
    const tid = pidfd !== undefined && (pidfd.flags & O.EXCL) !== 0
      ? pidfd.nspid
      : Number(/^\/proc\/\d+\/task\/(\d+)/.exec(reg?.name ?? "")?.[1]);
    const pid = owners.get(tid);
    if (pid === undefined) continue;
    agents.earlyThread(agents.get(pid), tid);
  }
}

/** Processes with the pids of those that had ended, for a moment. */
function standInForEnded(agents: TreeAgents): AgentProcess[] {
  const ended = [...agents.images.endedTasks].flatMap(([tid, pid]) =>
    tid === pid ? [pid] : []
  );
  if (ended.length === 0) return [];
  const program = new Program();
  for (const pid of ended) forkHelper(program, pid);
  const root = agents.root;
  return [...agents.run(root, program, ended.length)]
    .map((pid) => agents.adopt(root, pid));
}

/**
 * Threads with the ids of those that had ended, for a moment. They do nothing
 * but end, when their leader does nothing: they can do that on its stack.
 *
 * @returns what ends them
 */
function standInForEndedThreads(agents: TreeAgents): () => void {
  const threads = [...agents.images.endedTasks].flatMap(([tid, pid]) => {
    const agent = agents.all.get(pid);
    return agent === undefined || tid === pid ? [] : [{ tid, agent }];
  });
  const standing = threads.map(({ tid, agent }) => {
    const thread = { tid, stack: agents.leader(agent.pid).stack };
    const program = new Program();
    cloneThreads(program, [{ ...thread, program: 0n }]);
    agents.run(agent, program, 1);
    return { agent, thread };
  });
  return () => {
    for (const { agent, thread } of standing) agents.endThread(agent, thread);
  };
}
