/** Starts the threads of all processes, and gives leaders what comes last. */
import { ProgramRoom, stackOf } from "./agent_layout.ts";
import type { LaterPrograms } from "./later_programs.ts";
import { cloneThreads, earlyThreadProgram } from "./thread_programs.ts";
import type { TreeImages } from "./task_images.ts";
import type { TreeAgents } from "./tree_agents.ts";

/** What a process has as a whole; then its threads are born. */
export function startThreads(
  agents: TreeAgents,
  programs: LaterPrograms,
): void {
  const { host, numbers } = programs;
  for (const { images, agent } of agents.members) {
    for (const { tid } of images.threads) {
      if (!agents.early.has(tid) || agents.waiters.has(tid)) continue;
      agents.run(
        agent,
        earlyThreadProgram(images, host, numbers),
        0,
        tid,
      );
    }
  }
  const running = agents.members.map((member) => {
    const { images, agent, leader } = member;
    const later = programs.of(images);
    const program = later.process;
    const slot = agents.slot(images.pid);
    const room = new ProgramRoom(slot);
    const threads = images.threads.slice(1).flatMap((image, i) => {
      if (agents.waiters.has(image.tid)) return [];
      const program = later.threads[i];
      const address = room.place(program);
      agent.memory.write(address, program.encode(address, 1n));
      const thread = { tid: image.tid, stack: stackOf(slot, i + 1) };
      return [{ thread, program, address }];
    });
    const unborn = threads.filter(({ thread }) =>
      !agents.early.has(thread.tid)
    );
    cloneThreads(
      program,
      unborn.map(({ thread, address }) => ({ ...thread, program: address })),
    );
    const address = room.place(program);
    agent.load(leader, program, address);
    agent.resume(leader);
    return { member, program, address, threads, births: unborn.length };
  });
  for (const { member, program, address, threads, births } of running) {
    const { agent, leader } = member;
    agent.wait(leader, program, address, births);
    for (const { thread, address } of threads) {
      if (agents.early.has(thread.tid)) agent.point(thread, address);
      agent.resume(thread);
    }
    for (const { thread, program, address } of threads) {
      agent.wait(thread, program, address);
    }
  }
  tellApart(agents.images);
}

/**
 * What is set for one process counts for all in its memory, but for those for
 * which others wait in vfork(2): these have their own (__set_oom_adj in
 * fs/proc/base.c).
 */
function tellApart({ processes }: TreeImages): void {
  for (const { pid, extension, threads } of processes) {
    if (!extension.awaited) continue;
    const score = threads[0].core.tc!.oom_score_adj ?? 0;
    Deno.writeTextFileSync(`/proc/${pid}/oom_score_adj`, `${score}`);
  }
}

/** The rest of each leader: limits, credentials, filters. */
export function restoreLeaders(
  agents: TreeAgents,
  programs: LaterPrograms,
): void {
  agents.runAll(({ images }) => programs.of(images).leader);
}
