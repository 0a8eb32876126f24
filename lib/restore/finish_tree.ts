/**
 * The end of a restore: timers and signals, registers, the end of the agents,
 * and the moment in which all go on.
 */
import { CkptError, EXIT } from "../error.ts";
import { AgentProcess } from "../ffi/agent_process.ts";
import { syscall } from "../ffi/syscall.ts";
import { awaitGroupStops } from "../task/group_stop.ts";
import { SIGNALS_WITH_ACTION } from "../task/signal_actions.ts";
import { ProgramRoom, stackOf } from "./agent_layout.ts";
import {
  type Finishing,
  finishThreads,
  stopAndContinue,
} from "./finish_threads.ts";
import type { Host } from "./plan.ts";
import { eventProgram } from "./event_programs.ts";
import { endLeaderProgram } from "./thread_programs.ts";
import { livingThreads, type TaskImages } from "./task_images.ts";
import type { Member, TreeAgents } from "./tree_agents.ts";

const SIGSTOP = 19;

/**
 * Children come
 * before their parents: what a parent is told of their stops is not to be
 * found in its queue.
 */
export function finishTree(
  agents: TreeAgents,
  host: Host,
  vfork: typeof import("./vfork.ts") | undefined,
): void {
  const children = Map.groupBy(agents.images.tree, ({ ppid }) => ppid);
  const running: Finishing[] = [];
  for (const member of agents.members.toReversed()) {
    const { agent, images } = member;
    startEvents(agents, member, children.get(images.pid) ?? [], host, vfork);
    const finishing = {
      agent,
      images,
      // Those that share the memory come later: the first of them is the last.
      isLast: agents.isFirstInMemory(images.pid),
      stopSignal: stopSignalFor(agents.living, images),
      standIn: agents.standIns.get(images.pid)?.tid,
    };
    if (finishing.stopSignal === 0) running.push(finishing);
    else finishThreads([finishing], agents.layout, agents.waiters);
  }
  finishThreads(running, agents.layout, agents.waiters);
}

function startEvents(
  agents: TreeAgents,
  { images, agent, leader }: Member,
  children: readonly { pid: number }[],
  host: Host,
  vfork: typeof import("./vfork.ts") | undefined,
): void {
  const changed = children.filter(({ pid }) => {
    const child = agents.living.get(pid);
    return child?.stopSignal !== 0 || child.extension.continue_unreported;
  });
  const events = eventProgram(
    vfork?.withoutQueued(images, agents.waiters) ?? images,
    host,
    changed.flatMap(({ pid }) => {
      const child = agents.living.get(pid);
      return child === undefined || child.stopSignal === 0 ||
          child.extension.stop_unreported
        ? []
        : [pid];
    }),
    changed.length > 0 &&
      !vfork?.hasQueuedChildSignal(images, agents.waiters),
    images.extension.continue_unreported ?? false,
  );
  if (images.extension.continue_unreported) stopAndContinue(images);
  const slot = agents.slot(images.pid);
  const room = new ProgramRoom(slot);
  images.threads.forEach(({ tid }, i) => {
    const program = events.programs[i];
    if (program.operationCount === 0) return;
    const thread = i === 0 ? leader : { tid, stack: stackOf(slot, i) };
    const outcome = agent.step(thread, program, room.place(program));
    const reasons = i === 0 ? events.wrongTimers(outcome) : [];
    if (reasons.length > 0) {
      throw new CkptError(
        EXIT.failed,
        `restoring task ${agent.pid}`,
        reasons,
      );
    }
  });
  const { ended_leader } = images.extension;
  if (ended_leader !== undefined) {
    const program = endLeaderProgram(ended_leader);
    agent.endLeader(leader, program, room.place(program));
  }
}

/**
 * The signal to stop a process with: the one it was stopped with, where
 * nothing can keep that from stopping it again, else SIGSTOP; 0: it runs.
 */
function stopSignalFor(
  living: TreeAgents["living"],
  { stopSignal, tree, threads }: TaskImages,
): number {
  if (stopSignal === 0 || stopSignal === SIGSTOP) return stopSignal;
  const parent = living.get(tree.ppid)?.tree;
  // An orphaned group does not stop (is_current_pgrp_orphaned in
  // kernel/exit.c); a handler would run.
  const orphaned = parent === undefined || parent.sid !== tree.sid ||
    parent.pgid === tree.pgid;
  const actions = threads[0].core.tc!.sigactions;
  const action = actions[SIGNALS_WITH_ACTION.indexOf(stopSignal)];
  return orphaned || action?.sigaction !== 0n ? SIGSTOP : stopSignal;
}

/** The moment of all or none. */
export function release(agents: TreeAgents, leaveStopped: boolean): void {
  if (leaveStopped) {
    for (const { images: { pid } } of agents.members) {
      syscall("kill", BigInt(pid), BigInt(SIGSTOP));
    }
  }
  AgentProcess.release(
    agents.members.map(({ agent }) => agent),
    Int32Array.from(
      agents.members.flatMap(({ images }) =>
        livingThreads(images).map(({ tid }) => tid)
      ),
    ),
  );
  awaitGroupStops(
    agents.members.flatMap(({ images }) =>
      images.stopSignal === 0 && !leaveStopped
        ? []
        : livingThreads(images).map(({ tid }) => tid)
    ),
  );
}
