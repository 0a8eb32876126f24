/** The programs that a process and its threads run when their memory is there. */
import type { Program } from "../ffi/program.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import { rangeOf } from "./agent_layout.ts";
import type { Host } from "./plan.ts";
import { processProgram } from "./process_program.ts";
import type { ServiceNumbers } from "./services.ts";
import { leaderProgram, threadProgram } from "./thread_programs.ts";
import type { TaskImages } from "./task_images.ts";
import type { TreeAgents } from "./tree_agents.ts";

interface ProgramsOfProcess {
  readonly process: Program;
  /** Of all threads but the leader. */
  readonly threads: readonly Program[];
  readonly leader: Program;
}

export class LaterPrograms {
  readonly #known = new Map<number, ProgramsOfProcess>();
  /** The first process of those that share directories, by their id. */
  readonly #firstWithDirectories: ReadonlyMap<number, number>;
  /** The first process that has an io_uring mapped, by the id of its file. */
  readonly #ringFillers: ReadonlyMap<number, number>;

  constructor(
    readonly agents: TreeAgents,
    readonly host: Host,
    readonly numbers: ServiceNumbers,
    /** Loaded where threads wait in vfork(2). */
    readonly vfork: typeof import("./vfork.ts") | undefined,
  ) {
    const { processes, set } = agents.images;
    this.#firstWithDirectories = new Map(
      processes.map(({ ids, pid }) => [ids.fs_id, pid] as const).reverse(),
    );
    this.#ringFillers = new Map(
      set.read("ckpt-rings", undefined) === undefined
        ? []
        : processes.toReversed().flatMap(({ pid, mm }) =>
          mm.vmas.filter(isRingArea).map(({ shmid }) =>
            [Number(shmid), pid] as const
          )
        ),
    );
  }

  /**
   * Made when they are first asked for: while the agent fills the memory, which
   * is nothing that needs ckpt.
   */
  of(images: TaskImages): ProgramsOfProcess {
    const known = this.#known.get(images.pid);
    if (known !== undefined) return known;
    const hasRights = !this.agents.holders.has(images.pid);
    const host = hasRights
      ? this.host
      : this.vfork!.withoutRights(this.host, images);
    const programs = {
      process: processProgram(
        images,
        host,
        this.numbers,
        rangeOf(this.agents.layout),
        {
          ownDirectories: hasRights &&
            this.#firstWithDirectories.get(images.ids.fs_id) === images.pid,
          hasActions: images.threads.some(({ tid }) =>
            this.agents.waiters.has(tid)
          ),
          ringFillers: this.#ringFillers,
        },
      ),
      threads: images.threads.slice(1)
        .map((thread) => threadProgram(images, host, thread)),
      leader: leaderProgram(images, host, this.agents.waiters.has(images.pid)),
    };
    this.#known.set(images.pid, programs);
    return programs;
  }
}
