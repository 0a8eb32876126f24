/**
 * Lets threads make children for which they wait in vfork(2): they do nothing
 * else after that, so that others have to do the rest of their work.
 */
import { CkptError, EXIT } from "../error.ts";
import type { AgentProcess, AgentThread } from "../ffi/agent_process.ts";
import { pause } from "../ffi/pause.ts";
import { Program } from "../ffi/program.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { ProgramRoom } from "./agent_layout.ts";
import { forkHelper, type Vfork } from "./deliver.ts";
import type { Host } from "./plan.ts";
import type { ServiceNumbers } from "./services.ts";
import { cloneThreads } from "./thread_programs.ts";
import type { TreeAgents } from "./tree_agents.ts";
import {
  choosePid,
  forgetChild,
  hasQueuedChildSignal,
  programForBirth,
  programsBeforeVfork,
  signalsBeforeVfork,
  sparesFor,
} from "./vfork.ts";

/** How often a pid is tried to be had that nobody may ask for. */
const TRIES_FOR_PID = 1000;

export class VforkBirths {
  /** Processes that know already what to do with signals. */
  readonly #acting = new Set<number>();

  /** @param channel where two ends of it are, to those that hold descriptors */
  constructor(
    readonly agents: TreeAgents,
    readonly host: Host,
    readonly numbers: ServiceNumbers,
    readonly channel: number,
  ) {}

  /** All that a thread does for itself before it waits in vfork(2). */
  before(
    agent: AgentProcess,
    tid: number,
    child: number,
  ): Vfork {
    const { pid } = agent;
    const images = this.agents.living.get(pid)!;
    const image = images.threads.find((thread) => thread.tid === tid)!;
    const thread = tid === pid
      ? this.agents.leader(pid)
      : this.agents.earlyThread(agent, tid);
    // Who does the rest of what has to be done in this process.
    const worker = tid === pid
      ? this.#makeStandIn(agent)
      : this.agents.leader(pid);
    const hasRights = !this.agents.holders.has(child);
    if (!hasRights) this.#makeHolder(agent, worker, child);
    for (
      const program of programsBeforeVfork(
        images,
        this.host,
        this.numbers,
        image,
      )
    ) this.agents.run(agent, program, 0, tid);
    const signals = signalsBeforeVfork(images, image, !this.#acting.has(pid));
    this.#acting.add(pid);
    const room = new ProgramRoom(this.agents.slot(pid));
    if (signals.operationCount > 0) {
      agent.step(thread, signals, room.place(signals));
    }
    return {
      choosesPid: hasRights,
      bear: (program) => {
        const born = hasRights
          ? this.agents.run(agent, program, 1, tid)
          : this.#bearByLuck(agent, thread, worker, child, program);
        if (tid === pid) this.agents.standIns.set(pid, worker);
        return born;
      },
    };
  }

  /** A process that gets the descriptors of one that has no rights to. */
  #makeHolder(
    agent: AgentProcess,
    worker: AgentThread,
    child: number,
  ): void {
    const images = this.agents.living.get(child)!;
    const program = programForBirth(
      images,
      this.numbers.madePaths,
      this.channel,
    );
    const CLONE_VM = 0x100;
    forkHelper(program, this.agents.holders.get(child)!, CLONE_VM);
    const [pid] = this.agents.start(agent, program, worker)(1);
    this.agents.adopt(agent, pid);
  }

  /**
   * Makes a child by a thread that may not say which pid it gets: the kernel is
   * told which one it gave last, until nobody comes in between.
   */
  #bearByLuck(
    agent: AgentProcess,
    thread: AgentThread,
    worker: AgentThread,
    child: number,
    program: Program,
  ): Int32Array {
    const images = this.agents.living.get(agent.pid)!;
    const takesSignal = !hasQueuedChildSignal(images, this.agents.waiters);
    const address = new ProgramRoom(this.agents.slot(agent.pid)).place(program);
    const bear = () => {
      agent.load(thread, program, address);
      using _chosen = choosePid(child);
      agent.resume(thread);
      return agent.wait(thread, program, address, 1);
    };
    for (let i = 0; i < TRIES_FOR_PID; i++) {
      if (taskExists(child)) {
        pause(1);
        continue;
      }
      const born = bear();
      if (born[0] === child) return born;
      agent.adopt(born[0])[Symbol.dispose]();
      agent.resume(thread);
      agent.wait(thread, program, address);
      this.agents.start(agent, forgetChild(born[0], takesSignal), worker)();
    }
    throw new CkptError(EXIT.failed, `restoring task ${child}`, [{
      object: `pid ${child}`,
      why: "it is taken, or others start processes so fast that it cannot be " +
        "had by one that may not say which pid it wants",
      remedy: "restore again, or in a new pid namespace: " +
        "unshare --pid --fork --mount-proc ckpt restore ...",
    }]);
  }

  /** A thread that is there until its process is complete. */
  #makeStandIn(agent: AgentProcess): AgentThread {
    const holders = [...this.agents.holders.values()];
    const tid = sparesFor(this.agents.images.tree, holders)();
    const thread = { tid, stack: this.agents.slot(agent.pid).leaderStack };
    const program = new Program();
    cloneThreads(program, [{ ...thread, program: 0n }]);
    this.agents.run(agent, program, 1);
    return thread;
  }
}
