/**
 * Instances of io_uring that ckpt cannot make alone: those that one thread may
 * use (IORING_SETUP_SINGLE_ISSUER), that a thread of the kernel in the process
 * works for (IORING_SETUP_SQPOLL), and that are in memory of the program
 * (IORING_SETUP_NO_MMAP).
 */
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program, type Result } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import {
  isBound,
  isMadeByProcess,
  registerAll,
  SETUP,
} from "../files/register_with_ring.ts";
import type { ckpt_ring_entry } from "../image/schema.gen.ts";
import {
  restoreCredentials,
  type StartingCredentials,
} from "../task/credentials.ts";
import type { ServiceNumbers } from "./services.ts";
import type { TaskImages } from "./task_images.ts";

/** struct io_uring_params: its bytes, and where fields are. */
const PARAMS = { bytes: 120, flags: 8, cpu: 12, idle: 16, otherRing: 24 };
const SQ_MEMORY = 72;
const CQ_MEMORY = 112;
const RESULTS = 4;

/** struct ring_count of c/agent/count_ring.h. */
const COUNT_BYTES = 40 + PARAMS.bytes;

/** io_uring_register(2) */
const ENABLE_RINGS = 12;
const REGISTER_RING_FDS = 20;

/** What the kernel counts, at the beginning of the memory (struct io_rings). */
const COUNTED_BYTES = 128;

/** How programs are run in the tree. */
export interface RingMakers {
  agent(pid: number): AgentProcess;
  images(pid: number): TaskImages;
  run(agent: AgentProcess, program: Program, tid?: number): void;
  /** In a thread that is there for nothing else. */
  runAside(agent: AgentProcess, program: Program): void;
}

/** What is in the memory of a ring, while that is made. */
interface Saved {
  readonly pid: number;
  readonly counters: bigint;
  readonly entries: bigint;
  readonly inCounters: Uint8Array<ArrayBuffer>;
  readonly inEntries: Uint8Array<ArrayBuffer>;
}

export class BoundRings {
  readonly #saved: Saved[] = [];

  constructor(
    readonly rings: readonly ckpt_ring_entry[],
    readonly numbers: ServiceNumbers,
    readonly credentials: StartingCredentials,
  ) {}

  /** The threads of the kernel take ids: those of others have to be taken. */
  get needsAllThreads(): boolean {
    return this.rings.some(({ poller }) => poller !== undefined);
  }

  /**
   * Makes those that a process has to make, when its memory is complete.
   */
  make(makers: RingMakers): void {
    const made = this.rings.filter(isMadeByProcess);
    for (const { pid, memory } of made) {
      if (memory !== undefined) this.#saveMemory(makers.agent(pid), memory);
    }
    const alone = made.filter(({ poller }) => poller === undefined);
    for (const ring of alone) {
      const program = new Program();
      const other = isAttached(ring) ? [anyRing(program)] : [];
      const fd = this.#setUp(program, ring, other[0]);
      closeAll(program, [...other, fd]);
      makers.run(makers.agent(ring.pid), program);
    }
    const pollers = Map.groupBy(made, ({ poller }) => poller?.number);
    for (const [number, rings] of pollers) {
      if (number !== undefined) this.#makePolled(rings, makers);
    }
  }

  /** Those that have one thread of the kernel in common. */
  #makePolled(rings: readonly ckpt_ring_entry[], makers: RingMakers): void {
    const program = new Program();
    const [{ pid, poller }] = rings;
    const { threads } = makers.images(pid);
    // It does the requests with the credentials of who makes the ring.
    const like = threads.find(({ tid }) => tid === poller!.credentials)!;
    restoreCredentials(
      program,
      like.core.thread_core!.creds!,
      this.credentials,
    );
    const founders = rings.filter((ring) => !isAttached(ring));
    // Who made the thread may have closed its ring.
    const first = founders.length === 0
      ? setUp(
        program,
        { ...rings[0], requests: 1, results: 2 },
        rings[0].flags & (SETUP.SQPOLL | SETUP.SQ_AFF),
      )
      : this.#setUp(program, founders[0]);
    const others = rings.filter((ring) => ring !== founders[0]);
    const fds = others.map((ring) => this.#setUp(program, ring, first));
    closeAll(program, [first, ...fds]);
    makers.runAside(makers.agent(pid), program);
  }

  /** @returns the number that it has for the moment */
  #setUp(
    program: Program,
    ring: ckpt_ring_entry,
    other?: Result,
  ): Result {
    const disabled = isBound(ring) ? SETUP.R_DISABLED : 0;
    const fd = setUp(program, ring, ring.flags | disabled, other);
    program.call(
      "dup3",
      [fd, this.numbers.ring(ring.id), O.CLOEXEC],
      "placing an io_uring",
    );
    return fd;
  }

  #saveMemory(
    agent: AgentProcess,
    memory: NonNullable<ckpt_ring_entry["memory"]>,
  ): void {
    const { counters, counters_length, entries, entries_length } = memory;
    this.#saved.push({
      pid: agent.pid,
      counters,
      entries,
      inCounters: agent.memory.read(counters, counters_length),
      inEntries: agent.memory.read(entries, entries_length),
    });
    agent.memory.write(counters, new Uint8Array(counters_length));
    agent.memory.write(entries, new Uint8Array(entries_length));
  }

  /**
   * Enables them, has them count to where they were, and registers what was:
   * by the thread that may, when all descriptors are in their places.
   */
  finish(makers: RingMakers): void {
    for (const ring of this.rings) {
      const { pid, thread = pid } = ring;
      const { descriptors } = makers.images(pid);
      const { fd } = descriptors.find(({ id }) => id === ring.id)!;
      const agent = makers.agent(pid);
      if (isBound(ring) || isMadeByProcess(ring)) {
        const program = new Program();
        countUp(program, fd, ring);
        registerAll(program, fd, ring);
        makers.run(agent, program, thread);
      }
      for (const { thread, index } of ring.registered_by) {
        const program = new Program();
        // struct io_uring_rsrc_update: offset, reserved, data.
        const update = program.words([index, fd]);
        program.call(
          "io_uring_register",
          [fd, REGISTER_RING_FDS, update, 1],
          `registering the io_uring with thread ${thread}`,
        );
        makers.run(agent, program, thread);
      }
    }
    for (
      const { pid, counters, entries, inCounters, inEntries } of this.#saved
    ) {
      const { memory } = makers.agent(pid);
      memory.write(entries, inEntries);
      // A thread of the kernel may take requests as soon as it sees them.
      memory.write(
        counters + BigInt(COUNTED_BYTES),
        inCounters.subarray(COUNTED_BYTES),
      );
      memory.write(counters, inCounters.subarray(0, COUNTED_BYTES));
    }
  }
}

function isAttached({ flags }: ckpt_ring_entry): boolean {
  return (flags & SETUP.ATTACH_WQ) !== 0;
}

/** The kernel wants to see another ring, and does nothing with it. */
function anyRing(program: Program): Result {
  return program.call(
    "io_uring_setup",
    [1, program.reserve(PARAMS.bytes)],
    "making an io_uring to refer to",
  );
}

function closeAll(program: Program, fds: readonly Result[]): void {
  for (const fd of fds) program.call("close", [fd], "closing an io_uring");
}

/** @param other the ring that it is to be attached to */
function setUp(
  program: Program,
  { requests, results, memory, poller }: ckpt_ring_entry,
  flags: number,
  other?: Result,
): Result {
  const params = new Uint8Array(PARAMS.bytes);
  const view = new DataView(params.buffer);
  view.setUint32(RESULTS, results, true);
  view.setUint32(PARAMS.flags, flags | SETUP.CQSIZE, true);
  view.setUint32(PARAMS.cpu, poller?.cpu ?? 0, true);
  view.setUint32(PARAMS.idle, poller?.idle ?? 0, true);
  if ((flags & SETUP.NO_MMAP) !== 0) {
    view.setBigUint64(SQ_MEMORY, memory!.entries, true);
    view.setBigUint64(CQ_MEMORY, memory!.counters, true);
  }
  const place = program.bytes(params);
  if (other !== undefined) {
    program.call(
      "store",
      [program.at(place, PARAMS.otherRing), other, 4],
      "naming another io_uring",
    );
  }
  return program.call(
    "io_uring_setup",
    [requests, place],
    "making an io_uring",
  );
}

function countUp(program: Program, fd: number, ring: ckpt_ring_entry): void {
  const { flags, requests, results, taken, given, memory } = ring;
  if (isBound(ring)) {
    program.call(
      "io_uring_register",
      [fd, ENABLE_RINGS, 0, 0],
      "enabling an io_uring",
    );
  }
  const wanted = new Uint8Array(COUNT_BYTES);
  const view = new DataView(wanted.buffer);
  view.setBigUint64(0, memory?.counters ?? 0n, true);
  view.setBigUint64(8, memory?.entries ?? 0n, true);
  [flags, requests, results, taken, given].forEach((value, i) =>
    view.setUint32(16 + i * 4, value, true)
  );
  program.call(
    "count",
    [fd, program.bytes(wanted)],
    "bringing an io_uring to where it was",
  );
}
