/**
 * Makes the tree: starts the first agent, lets agents be born as the plan says,
 * gives each the programs by which it becomes its process, sets the registers
 * of all threads, and lets all go on at one moment.
 */
import { CkptError, EXIT } from "../error.ts";
import { AgentProcess, type AgentThread } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { close, O, open, syscall } from "../ffi/syscall.ts";
import { readMountInfo } from "../proc/read.ts";
import { PageCounters } from "../mm/page_copy.ts";
import type { Report } from "../report.ts";
import { restoreCgroups } from "../task/cgroups.ts";
import { SIGNALS_WITH_ACTION } from "../task/signal_actions.ts";
import {
  type AgentLayout,
  type AgentSlot,
  enterHole,
  ProgramRoom,
  rangeOf,
  slotNumbers,
  stackOf,
} from "./agent_layout.ts";
import { readPipeImages } from "../files/pipe_images.ts";
import {
  type DescriptorPrograms,
  restoreDescriptors,
} from "../files/restore_descriptors.ts";
import { deliver } from "./deliver.ts";
import { finishThreads } from "./finish_threads.ts";
import type { Given } from "./given_descriptors.ts";
import type { RestoreOptions } from "./options.ts";
import { writePidfile } from "./pidfile.ts";
import type { TreePlan } from "./plan.ts";
import {
  cloneThreads,
  eventProgram,
  leaderProgram,
  memoryProgram,
  moveServices,
  processProgram,
  ServiceNumbers,
  type Services,
  threadProgram,
} from "./programs.ts";
import { SharedMemoryObjects } from "./shared_memory.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";

const SIGSTOP = 19;
const RLIMIT_NOFILE = 7;

/** @returns the pid of the root, which runs with all its descendants */
export async function buildTree(
  images: TreeImages,
  plan: TreePlan,
  given: Given,
  options: RestoreOptions,
  report: Report,
): Promise<number> {
  const [rootImages] = images.processes;
  const imagesFd = open(images.set.directory, O.PATH | O.DIRECTORY);
  try {
    using shared = await SharedMemoryObjects.make(
      images,
      new PageCounters(),
      report.signal,
    );
    const services: Services = {
      images: imagesFd,
      shared: shared.fds,
      given: [...new Set([...given.byFile.values()].map(({ fd }) => fd))],
    };
    const numbers = new ServiceNumbers(images, services);
    const nofile = plan.host.limits[RLIMIT_NOFILE].hard;
    using builder = new TreeBuilder(
      images,
      plan,
      numbers,
      report,
      descriptorPrograms(images, given, numbers),
      AgentProcess.start({
        pid: rootImages.pid,
        parent: options.sibling
          ? "parentOfCkpt"
          : options.detached
          ? "nobody"
          : "ckpt",
        keep: numbers.sources,
        openFiles: [nofile, nofile],
      }),
    );
    report.log(3, `started the agent as task ${rootImages.pid}`);
    await builder.beBorn();
    builder.openDescriptors();
    await builder.letSignalsIn();
    builder.startThreads();
    builder.setFileOwners();
    builder.restoreThreads();
    await builder.letSignalsIn();
    builder.joinCgroups();
    using pidfile = writePidfile(options.pidfile, rootImages.pid);
    builder.finish();
    await builder.letSignalsIn();
    builder.release(options.leaveStopped);
    pidfile.keep();
    return rootImages.pid;
  } finally {
    close(imagesFd);
  }
}

/** How every process gets its descriptors, by its pid. */
function descriptorPrograms(
  images: TreeImages,
  given: Given,
  numbers: ServiceNumbers,
): ReadonlyMap<number, DescriptorPrograms> {
  const tables = images.processes.map(({ pid, ids, descriptors }) => ({
    pid,
    filesId: ids.files_id,
    entries: descriptors,
    programs: {
      open: new Program(),
      fetch: new Program(),
      finish: new Program(),
    },
  }));
  restoreDescriptors(
    tables,
    { files: images.files, ...readPipeImages(images.set) },
    new Map(
      [...given.byFile].map(([id, { fd, reopen }]) => [
        id,
        { fd: numbers.of(fd), reopen },
      ]),
    ),
    numbers,
  );
  return new Map(tables.map(({ pid, programs }) => [pid, programs]));
}

/** Bytes of the largest program: it holds what was in pipes. */
function largestOf(all: ReadonlyMap<number, DescriptorPrograms>): number {
  return [...all.values()].reduce(
    (most, { open, fetch, finish }) =>
      Math.max(most, open.size, fetch.size, finish.size),
    0,
  );
}

/** A process on its way from an agent to what it was. */
interface Member {
  readonly images: TaskImages;
  readonly agent: AgentProcess;
  readonly leader: AgentThread;
}

class TreeBuilder implements Disposable {
  readonly #agents = new Map<number, AgentProcess>();
  readonly #layout: AgentLayout;
  readonly #slots: ReadonlyMap<number, number>;
  readonly #byPid: ReadonlyMap<number, TaskImages>;
  readonly #descriptors: ReadonlyMap<number, DescriptorPrograms>;
  /** Those that live, parents before children; complete once all are born. */
  #members: Member[] = [];

  constructor(
    readonly images: TreeImages,
    readonly plan: TreePlan,
    readonly numbers: ServiceNumbers,
    readonly report: Report,
    descriptors: ReadonlyMap<number, DescriptorPrograms>,
    root: AgentProcess,
  ) {
    this.#descriptors = descriptors;
    this.#agents.set(root.pid, root);
    this.#slots = slotNumbers(images);
    this.#byPid = new Map(
      images.processes.map((process) => [process.pid, process]),
    );
    try {
      this.#layout = enterHole(root, images, largestOf(descriptors));
    } catch (error) {
      root[Symbol.dispose]();
      throw error;
    }
  }

  async letSignalsIn(): Promise<void> {
    await this.report.letSignalsIn();
    this.report.signal.throwIfAborted();
  }

  /** Where an agent has its stacks and programs; helpers have the first. */
  #slot(pid: number): AgentSlot {
    return this.#layout.slots[this.#slots.get(pid) ?? 0];
  }

  #leader(pid: number): AgentThread {
    return { tid: pid, stack: this.#slot(pid).leaderStack };
  }

  /** Runs one program in the leader of one agent, from start to end. */
  #run(agent: AgentProcess, program: Program, room = 0): Int32Array {
    const leader = this.#leader(agent.pid);
    const address = new ProgramRoom(this.#slot(agent.pid)).place(program);
    agent.load(leader, program, address);
    agent.resume(leader);
    return agent.wait(leader, program, address, room);
  }

  /**
   * Runs a program in every process, all at the same time: each is resumed
   * before any is waited for.
   */
  #runAll(programOf: (member: Member) => Program): void {
    const running = this.#members.flatMap((member) => {
      const program = programOf(member);
      if (program.operationCount === 0) return [];
      const room = new ProgramRoom(this.#slot(member.agent.pid));
      const address = room.place(program);
      member.agent.load(member.leader, program, address);
      member.agent.resume(member.leader);
      return [{ member, program, address }];
    });
    for (const { member: { agent, leader }, program, address } of running) {
      agent.wait(leader, program, address);
    }
  }

  /** Carries out the plan of births: every process exists, with its memory. */
  async beBorn(): Promise<void> {
    const { steps } = this.plan.births;
    const [root] = this.images.processes;
    const begin = new Program();
    moveServices(begin, this.numbers);
    this.#run(this.#agents.get(root.pid)!, begin);
    await deliver(steps, {
      agents: this.#agents,
      living: this.#byPid,
      zombies: new Map(
        this.images.zombies.map((zombie) => [zombie.pid, zombie]),
      ),
      memory: (pid) => this.#memoryOf(pid),
      run: (agent, program, room) => this.#run(agent, program, room),
      runToEnd: (agent, program) => {
        const leader = this.#leader(agent.pid);
        const address = new ProgramRoom(this.#slot(agent.pid)).place(program);
        agent.load(leader, program, address);
        return agent.runToEnd();
      },
      letSignalsIn: () => this.letSignalsIn(),
    });
    this.#members = this.images.processes.map((images) => ({
      images,
      agent: this.#agents.get(images.pid)!,
      leader: this.#leader(images.pid),
    }));
  }

  #memoryOf(pid: number): Program | undefined {
    if (this.#slots.get(pid) !== 0) return undefined;
    const images = this.#byPid.get(pid)!;
    return memoryProgram(
      images,
      this.numbers,
      rangeOf(this.#layout),
      this.plan.births.inheriting.has(pid)
        ? this.#byPid.get(images.tree.ppid)
        : undefined,
    );
  }

  /** Every open file once, then all that share it take it from there. */
  openDescriptors(): void {
    this.#runAll(({ images }) => this.#descriptors.get(images.pid)!.open);
    this.#runAll(({ images }) => this.#descriptors.get(images.pid)!.fetch);
  }

  /** Who gets signals about files: threads that have to exist. */
  setFileOwners(): void {
    this.#runAll(({ images }) => this.#descriptors.get(images.pid)!.finish);
  }

  /** What a process has as a whole; then its threads are born. */
  startThreads(): void {
    const { host } = this.plan;
    const directories = new Set<number>();
    const running = this.#members.map((member) => {
      const { images, agent, leader } = member;
      const program = processProgram(
        images,
        host,
        this.numbers,
        !directories.has(images.ids.fs_id),
      );
      directories.add(images.ids.fs_id);
      const slot = this.#slot(images.pid);
      const room = new ProgramRoom(slot);
      const threads = images.threads.slice(1).map((thread) => {
        const program = threadProgram(images, host, thread);
        const address = room.place(program);
        agent.memory.write(address, program.encode(address, 1n));
        return { tid: thread.tid, program, address };
      });
      cloneThreads(
        program,
        threads.map(({ tid, address }, i) => ({
          tid,
          stack: stackOf(slot, i + 1),
          program: address,
        })),
      );
      const address = room.place(program);
      agent.load(leader, program, address);
      agent.resume(leader);
      return { member, program, address, threads };
    });
    for (const { member, program, address, threads } of running) {
      const { agent, leader } = member;
      agent.wait(leader, program, address, threads.length);
      const born = threads.map(({ tid, ...rest }, i) => ({
        thread: { tid, stack: stackOf(this.#slot(agent.pid), i + 1) },
        ...rest,
      }));
      for (const { thread } of born) agent.resume(thread);
      for (const { thread, program, address } of born) {
        agent.wait(thread, program, address);
      }
    }
  }

  /** The rest of each leader: limits, credentials, filters. */
  restoreThreads(): void {
    this.#runAll(({ images }) => leaderProgram(images, this.plan.host));
  }

  joinCgroups(): void {
    if (this.#members.every(({ images }) => !images.extension.cgroups.length)) {
      return;
    }
    const mounts = readMountInfo(Deno.pid);
    for (const { images: { pid, extension } } of this.#members) {
      for (const problem of restoreCgroups(pid, extension.cgroups, mounts)) {
        this.report.log(2, problem);
      }
    }
  }

  /**
   * Timers and signals, registers, and the end of the agents. Children come
   * before their parents: what a parent is told of their stops is not to be
   * found in its queue.
   */
  finish(): void {
    const children = Map.groupBy(this.images.tree, ({ ppid }) => ppid);
    for (const member of this.#members.toReversed()) {
      this.#finishOne(member, children.get(member.images.pid) ?? []);
    }
  }

  #finishOne(
    { images, agent, leader }: Member,
    children: readonly { pid: number }[],
  ): void {
    const changed = children.filter(({ pid }) =>
      this.#byPid.get(pid)?.stopSignal !== 0
    );
    const events = eventProgram(
      images,
      this.plan.host,
      changed.flatMap(({ pid }) => {
        const child = this.#byPid.get(pid);
        return child === undefined || child.extension.stop_unreported
          ? []
          : [pid];
      }),
      changed.length > 0,
    );
    const slot = this.#slot(images.pid);
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
    // Those that share the memory come later: the first of them is the last.
    const last = this.#slots.get(images.pid) === 0;
    finishThreads(
      agent,
      images,
      last ? this.#layout : undefined,
      this.#stopSignalFor(images),
    );
  }

  /**
   * The signal to stop a process with: the one it was stopped with, where
   * nothing can keep that from stopping it again, else SIGSTOP; 0: it runs.
   */
  #stopSignalFor({ stopSignal, tree, threads }: TaskImages): number {
    if (stopSignal === 0 || stopSignal === SIGSTOP) return stopSignal;
    const parent = this.#byPid.get(tree.ppid)?.tree;
    // An orphaned group does not stop (is_current_pgrp_orphaned in
    // kernel/exit.c); a handler would run.
    const orphaned = parent === undefined || parent.sid !== tree.sid ||
      parent.pgid === tree.pgid;
    const actions = threads[0].core.tc!.sigactions;
    const action = actions[SIGNALS_WITH_ACTION.indexOf(stopSignal)];
    return orphaned || action?.sigaction !== 0n ? SIGSTOP : stopSignal;
  }

  /** The moment of all or none. */
  release(leaveStopped: boolean): void {
    if (leaveStopped) {
      for (const { images: { pid } } of this.#members) {
        syscall("kill", BigInt(pid), BigInt(SIGSTOP));
      }
    }
    AgentProcess.release(
      this.#members.map(({ agent }) => agent),
      Int32Array.from(
        this.#members.flatMap(({ images }) =>
          images.threads.map(({ tid }) => tid)
        ),
      ),
    );
  }

  [Symbol.dispose](): void {
    for (const agent of [...this.#agents.values()].reverse()) {
      agent[Symbol.dispose]();
    }
  }
}
