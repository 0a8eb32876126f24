/**
 * Lets the processes of a tree be born as the plan says, each with its memory
 * and in its mount namespace.
 */
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { pagesName } from "../image/kinds.ts";
import { inside } from "../ns/inside.ts";
import type { Report } from "../report.ts";
import { ProgramRoom, rangeOf } from "./agent_layout.ts";
import type { Births } from "./births.ts";
import { deliver } from "./deliver.ts";
import { fillTask } from "./fill_task.ts";
import { makeCgroupNamespace } from "./join_cgroups.ts";
import type { LaterPrograms } from "./later_programs.ts";
import { enterMounts } from "./mount_services.ts";
import {
  makeTheSame,
  memoryProgram,
  type MemoryPrograms,
  type OwnMemoryPrograms,
} from "./memory_program.ts";
import { moveServices, type ServiceNumbers } from "./services.ts";
import type { TreeAgents } from "./tree_agents.ts";
import type { VforkBirths } from "./vfork_births.ts";

/** How long signals wait while processes are born; to let them in takes 0.2 ms. */
const DEAF_MS = 20;

export class TreeBirths {
  /** The numbers of the mount namespaces that agents are in. */
  readonly #namespaces = new Map<number, number>();
  /** Siblings are likely to have the like. */
  #lastMemory: OwnMemoryPrograms | undefined;
  #heard = performance.now();

  constructor(
    readonly agents: TreeAgents,
    readonly births: Births,
    readonly numbers: ServiceNumbers,
    readonly programs: LaterPrograms,
    /** There where threads wait in vfork(2). */
    readonly vforks: VforkBirths | undefined,
    readonly report: Report,
  ) {}

  /**
   * Carries out the plan of births: every process exists, with its memory.
   *
   * @param terminals paths of those that control sessions
   */
  async beBorn(terminals: ReadonlyMap<number, string>): Promise<void> {
    const { steps } = this.births;
    const begin = new Program();
    moveServices(begin, this.numbers, inside()?.started && Deno.pid);
    makeCgroupNamespace(begin, this.agents.images, this.report);
    this.#enterMounts(begin, this.agents.images.tree[0].pid);
    this.agents.run(this.agents.root, begin);
    await deliver(steps, {
      agents: this.agents.all,
      living: this.agents.living,
      zombies: new Map(
        this.agents.images.zombies.map((zombie) => [zombie.pid, zombie]),
      ),
      terminals,
      memory: (pid) => this.#memoryOf(pid),
      run: (agent, program, room, tid) =>
        this.agents.run(agent, program, room, tid),
      rebuild: (agent, programs) => this.#rebuild(agent, programs),
      runToEnd: (agent, program) => {
        const leader = this.agents.leader(agent.pid);
        const address = new ProgramRoom(this.agents.slot(agent.pid)).place(
          program,
        );
        agent.load(leader, program, address);
        return agent.runToEnd();
      },
      enter: (program, pid, forkedBy) =>
        this.#enterMounts(program, pid, forkedBy),
      beforeVfork: (agent, tid, child) =>
        this.vforks!.before(agent, tid, child),
      letSignalsIn: () => this.#letWaitingSignalsIn(),
    });
    this.agents.allAreBorn();
  }

  /**
   * Lets an agent go where its process was. Those that share directories with
   * the one that forked them are there.
   */
  #enterMounts(program: Program, pid: number, forkedBy?: number): void {
    const { mounts } = this.numbers.services;
    if (mounts === undefined) return;
    const outside = this.agents.images.set.inventory.root_ids?.mnt_ns_id ?? 0;
    const has = this.#namespaces.get(forkedBy ?? 0) ?? outside;
    const wanted = this.agents.living.get(pid)?.ids.mnt_ns_id ?? has;
    this.#namespaces.set(pid, wanted);
    if (wanted === has) return;
    const made = mounts.namespaces.get(wanted);
    enterMounts(
      program,
      this.numbers.of(made?.namespace ?? mounts.own),
      this.numbers.of(made?.root ?? mounts.outside),
    );
  }

  #rebuild(
    agent: AgentProcess,
    { first, halves }: MemoryPrograms,
  ): () => Promise<void> {
    const images = this.agents.living.get(agent.pid)!;
    const leader = this.agents.leader(agent.pid);
    const { signal } = this.report;
    if (halves !== undefined) this.agents.run(agent, first);
    const finish = this.agents.start(agent, halves?.own ?? first, leader);
    const filled = halves && fillTask(images, halves.beside, signal);
    // It is awaited below, if nothing fails before.
    filled?.catch(() => {});
    return async () => {
      this.programs.of(images);
      await filled;
      finish(0, images.threads.length === 1);
      if (halves !== undefined) this.agents.run(agent, halves.last);
    };
  }

  #memoryOf(pid: number): MemoryPrograms | undefined {
    if (!this.agents.isFirstInMemory(pid)) return undefined;
    const images = this.agents.living.get(pid)!;
    const parent = this.births.inheriting.has(pid)
      ? this.agents.living.get(images.tree.ppid)
      : undefined;
    const last = this.#lastMemory;
    const memory = last !== undefined && makeTheSame(last, images, parent)
      ? last
      : memoryProgram(
        images,
        this.numbers,
        rangeOf(this.agents.layout),
        parent,
      );
    this.#lastMemory = memory;
    memory.first.setText(
      memory.pagesName,
      pagesName(images.pagemap.pages_id),
    );
    return memory;
  }

  async #letSignalsIn(): Promise<void> {
    await this.report.letSignalsIn();
    this.report.signal.throwIfAborted();
    this.#heard = performance.now();
  }

  /** The same, when they have waited for long. */
  async #letWaitingSignalsIn(): Promise<void> {
    if (performance.now() - this.#heard > DEAF_MS) await this.#letSignalsIn();
  }
}
