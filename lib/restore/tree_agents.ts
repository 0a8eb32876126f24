/**
 * The agents that become the processes of a tree: which there are, where each
 * has its stacks and programs, and how they are given programs to run.
 */
import type { AgentProcess, AgentThread } from "../ffi/agent_process.ts";
import { type Outcome, Program } from "../ffi/program.ts";
import {
  type AgentLayout,
  type AgentSlot,
  enterHole,
  ProgramRoom,
  slotNumbers,
  stackOf,
} from "./agent_layout.ts";
import { waiterFor } from "./births.ts";
import { reapHelper } from "./deliver.ts";
import { cloneThreads } from "./thread_programs.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";

/** A process on its way from an agent to what it was. */
export interface Member {
  readonly images: TaskImages;
  readonly agent: AgentProcess;
  readonly leader: AgentThread;
}

export class TreeAgents implements Disposable {
  /** By pid; helpers, too. */
  readonly all = new Map<number, AgentProcess>();
  readonly layout: AgentLayout;
  readonly #slots: Map<number, number>;
  /** Images of those that live, by pid. */
  readonly living: ReadonlyMap<number, TaskImages>;
  /** Those that live, parents before children; set once all are born. */
  members: readonly Member[] = [];
  /** The same, but those that hold descriptors in the stead of others. */
  tables: readonly Member[] = [];
  /** Threads that are there before the others, to fork their children. */
  readonly early = new Map<number, AgentThread>();
  /** Threads that wait in vfork(2), or will. */
  readonly waiters: ReadonlySet<number>;
  /** Threads that do the work of leaders which wait so, by their pids. */
  readonly standIns = new Map<number, AgentThread>();

  /**
   * @param holders who holds descriptors for those that cannot, by the pids of
   * these
   * @param root the first agent; ended if this fails
   * @param largest bytes of the largest program that opens descriptors
   */
  constructor(
    readonly images: TreeImages,
    readonly holders: ReadonlyMap<number, number>,
    root: AgentProcess,
    largest: number,
  ) {
    this.all.set(root.pid, root);
    this.#slots = new Map(slotNumbers(images));
    // Those that they do it for stand meanwhile.
    for (const [pid, holder] of holders) {
      this.#slots.set(holder, this.#slots.get(pid)!);
    }
    this.living = new Map(
      images.processes.map((process) => [process.pid, process]),
    );
    this.waiters = new Set(
      images.processes.flatMap((process) => waiterFor(process) ?? []),
    );
    try {
      this.layout = enterHole(root, images, largest);
    } catch (error) {
      root[Symbol.dispose]();
      throw error;
    }
  }

  get(pid: number): AgentProcess {
    return this.all.get(pid)!;
  }

  /** Takes one that an agent has forked among the others. */
  adopt(parent: AgentProcess, pid: number): AgentProcess {
    const child = parent.adopt(pid);
    this.all.set(pid, child);
    return child;
  }

  /** All are there: who is to be what, and who has whose descriptors. */
  allAreBorn(): void {
    this.members = this.images.processes.map((images) => ({
      images,
      agent: this.get(images.pid),
      leader: this.leader(images.pid),
    }));
    this.tables = this.members.map((member) => {
      const holder = this.holders.get(member.images.pid);
      return holder === undefined ? member : {
        images: member.images,
        agent: this.get(holder),
        leader: this.leader(holder),
      };
    });
  }

  /** Whether it is the first of those that share its memory. */
  isFirstInMemory(pid: number): boolean {
    return this.#slots.get(pid) === 0;
  }

  /** Where an agent has its stacks and programs; helpers have the first. */
  slot(pid: number): AgentSlot {
    return this.layout.slots[this.#slots.get(pid) ?? 0];
  }

  /** The leader, or who does its work. */
  leader(pid: number): AgentThread {
    return this.standIns.get(pid) ??
      { tid: pid, stack: this.slot(pid).leaderStack };
  }

  /** Runs one program in one thread of one agent, from start to end. */
  run(
    agent: AgentProcess,
    program: Program,
    room = 0,
    tid = agent.pid,
  ): Int32Array {
    const thread = tid === agent.pid
      ? this.leader(tid)
      : this.earlyThread(agent, tid);
    return this.start(agent, program, thread)(room);
  }

  /** Lets one thread begin a program. @returns what waits for its end */
  start(
    agent: AgentProcess,
    program: Program,
    thread: AgentThread,
  ): (room?: number, single?: boolean) => Int32Array {
    const address = new ProgramRoom(this.slot(agent.pid)).place(program);
    agent.load(thread, program, address);
    agent.resume(thread);
    return (room, single) => agent.wait(thread, program, address, room, single);
  }

  earlyThread(agent: AgentProcess, tid: number): AgentThread {
    const known = this.early.get(tid);
    if (known !== undefined) return known;
    const { threads } = this.living.get(agent.pid)!;
    const i = threads.findIndex((thread) => thread.tid === tid);
    const thread = { tid, stack: stackOf(this.slot(agent.pid), i) };
    const program = new Program();
    cloneThreads(program, [{ ...thread, program: 0n }]);
    this.run(agent, program, 1);
    this.early.set(tid, thread);
    return thread;
  }

  /**
   * Runs a program in every process, all at the same time: each is resumed
   * before any is waited for.
   */
  runAll(
    programOf: (member: Member) => Program,
    look?: (member: Member, outcome: Outcome) => void,
    members: readonly Member[] = this.members,
  ): void {
    const running = members.flatMap((member) => {
      const program = programOf(member);
      if (program.operationCount === 0) return [];
      const room = new ProgramRoom(this.slot(member.agent.pid));
      const address = room.place(program);
      member.agent.load(member.leader, program, address);
      member.agent.resume(member.leader);
      return [{ member, program, address }];
    });
    for (const { member, program, address } of running) {
      const { agent, leader } = member;
      agent.wait(leader, program, address);
      look?.(member, agent.outcome(program, address));
    }
  }

  runInTables(
    programOf: (member: Member) => Program,
    look?: (member: Member, outcome: Outcome) => void,
  ): void {
    this.runAll(programOf, look, this.tables);
  }

  endThread(agent: AgentProcess, thread: AgentThread): void {
    const program = new Program();
    program.call("exit", [0], `ending thread ${thread.tid}`);
    const room = new ProgramRoom(this.slot(agent.pid));
    agent.endThread(thread, program, room.place(program));
  }

  end(helpers: readonly AgentProcess[], parent = this.root): void {
    if (helpers.length === 0) return;
    const program = new Program();
    for (const helper of helpers) {
      helper[Symbol.dispose]();
      this.all.delete(helper.pid);
      reapHelper(program, helper.pid);
    }
    this.run(parent, program);
  }

  get root(): AgentProcess {
    return this.get(this.images.tree[0].pid);
  }

  [Symbol.dispose](): void {
    for (const agent of [...this.all.values()].reverse()) {
      agent[Symbol.dispose]();
    }
  }
}
