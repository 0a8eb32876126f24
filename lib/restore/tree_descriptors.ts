/**
 * Gives the processes of a tree their descriptors, in the steps in which all of
 * them have to be done together.
 */
import { Program } from "../ffi/program.ts";
import type { DescriptorPrograms } from "../files/restore_descriptors.ts";
import { armTimerfds } from "../files/timerfd.ts";
import { clockNow } from "../task/posix_timers.ts";
import type { BoundRings, RingMakers } from "./bound_rings.ts";
import type { DescriptorPlan } from "./plan_descriptors.ts";
import type { ServiceNumbers } from "./services.ts";
import { cloneThreads } from "./thread_programs.ts";
import { makeTasksOfFiles } from "./tasks_of_files.ts";
import type { TreeAgents } from "./tree_agents.ts";

export class TreeDescriptors {
  readonly #programs: ReadonlyMap<number, DescriptorPrograms>;
  /** Where two ends of a channel are, to those that hold descriptors. */
  readonly #channel: number;

  constructor(
    readonly agents: TreeAgents,
    { programs, end }: DescriptorPlan,
    readonly numbers: ServiceNumbers,
    /** Loaded where threads wait in vfork(2). */
    readonly vfork: typeof import("./vfork.ts") | undefined,
  ) {
    this.#programs = programs;
    this.#channel = end;
  }

  /** Every open file once, then all that share it take it from there. */
  open(
    connect: (
      made: readonly {
        readonly pid: number;
        readonly sockets: DescriptorPrograms["connections"];
      }[],
    ) => void,
    rings: BoundRings | undefined,
  ): void {
    const endTasks = makeTasksOfFiles(this.agents);
    const ringMakers = this.#ringMakers();
    if (rings?.needsAllThreads) this.#makeAllThreads();
    rings?.make(ringMakers);
    this.agents.runInTables(({ images }) =>
      this.#programs.get(images.pid)!.open
    );
    connect(
      [...this.#programs].map(([pid, { connections }]) => ({
        pid: this.agents.holders.get(pid) ?? pid,
        sockets: connections,
      })),
    );
    this.agents.runInTables(({ images }) =>
      this.#programs.get(images.pid)!.fetch
    );
    endTasks();
    this.#fillEpolls();
    rings?.finish(ringMakers);
    this.#handOver();
  }

  #ringMakers(): RingMakers {
    return {
      agent: (pid) => this.agents.get(pid),
      images: (pid) => this.agents.living.get(pid)!,
      run: (agent, program, tid) => {
        this.agents.run(agent, program, 0, tid);
      },
      runAside: (agent, program) => {
        const { stack } = this.agents.leader(agent.pid);
        const birth = new Program();
        cloneThreads(birth, [{ tid: 0, stack, program: 0n }]);
        const [tid] = this.agents.run(agent, birth, 1);
        this.agents.start(agent, program, { tid, stack })();
        this.agents.endThread(agent, { tid, stack });
      },
    };
  }

  #makeAllThreads(): void {
    for (const { images: { threads, pid }, agent } of this.agents.members) {
      for (const { tid } of threads) {
        if (tid !== pid) this.agents.earlyThread(agent, tid);
      }
    }
  }

  /** Those that were born without rights take what others hold for them. */
  #handOver(): void {
    for (const [pid, holder] of this.agents.holders) {
      const parts = this.vfork!.handOver(
        this.agents.living.get(pid)!,
        this.numbers.base,
        this.#channel,
      );
      for (const { send, receive } of parts) {
        if (send.operationCount > 0) {
          this.agents.run(this.agents.get(holder), send);
        }
        this.agents.run(this.agents.get(pid), receive);
      }
    }
  }

  /** Nothing is left that has to be done with what they hold. */
  endHolders(): void {
    for (const [pid, holder] of this.agents.holders) {
      const { ppid } = this.agents.living.get(pid)!.tree;
      this.agents.end([this.agents.get(holder)], this.agents.get(ppid));
    }
  }

  /** What should have fired and could not waits for errors only. */
  #fillEpolls(): void {
    const quieten = new Map<number, Program>();
    this.agents.runInTables(
      ({ images }) => this.#programs.get(images.pid)!.watch,
      ({ images }, outcome) => {
        const program = new Program();
        const { disarmed } = this.#programs.get(images.pid)!;
        for (const { fired, quieten } of disarmed) {
          if (outcome.result(fired) === 0n) quieten(program);
        }
        quieten.set(images.pid, program);
      },
    );
    this.agents.runInTables(({ images }) =>
      quieten.get(images.pid) ?? new Program()
    );
  }

  /** Who gets signals about files: threads that have to exist. */
  setFileOwners(): void {
    this.agents.runInTables(({ images }) =>
      this.#programs.get(images.pid)!.finish
    );
  }

  /** Their time runs; some clocks need rights that go with the credentials. */
  armTimers(): void {
    const { processes, files } = this.agents.images;
    const programs = armTimerfds(processes, files, clockNow);
    this.agents.runInTables(({ images }) =>
      programs.get(images.pid) ?? new Program()
    );
  }
}
