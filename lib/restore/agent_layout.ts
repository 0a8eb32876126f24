/**
 * Where the agents of a tree live: one range of addresses that no process of
 * the tree uses, the same in all of them, so that an agent that is forked finds
 * itself where its parent was.
 */
import { CkptError, EXIT } from "../error.ts";
import type { AgentProcess, AgentThread } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { attachedLength } from "../mm/attach_segments.ts";
import { type AddressRange, findHole } from "../mm/hole.ts";
import { MAP } from "../mm/vma.ts";
import { PROT } from "../proc/maps.ts";
import { readMaps } from "../proc/read.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";

/** Addresses are those of memory; lengths are bytes. */
export interface AgentLayout {
  readonly start: bigint;
  readonly length: number;
  /** Processes that share their memory have one each. */
  readonly slots: readonly AgentSlot[];
}

/** The place for the stacks and programs of one process. */
export interface AgentSlot {
  readonly leaderStack: bigint;
  readonly threadStacks: bigint;
  /** Where programs begin. */
  readonly programs: bigint;
  readonly end: bigint;
}

const CODE_ROOM = 4096;
const LEADER_STACK = 8192;
const THREAD_STACK = 1024;

/** Where the stack of the i-th thread begins; the leader is the 0th. */
export function stackOf(slot: AgentSlot, i: number): bigint {
  return i === 0
    ? slot.leaderStack
    : slot.threadStacks + BigInt(i * THREAD_STACK - 64);
}

/** Which slot each process has: the first, unless it shares its memory. */
export function slotNumbers(
  { processes }: Pick<TreeImages, "processes">,
): ReadonlyMap<number, number> {
  const users = new Map<number, number>();
  return new Map(processes.map(({ pid, ids: { vm_id } }) => {
    const slot = users.get(vm_id) ?? 0;
    users.set(vm_id, slot + 1);
    return [pid, slot];
  }));
}

export function rangeOf({ start, length }: AgentLayout): AddressRange {
  return { start: Number(start), end: Number(start) + length };
}

/**
 * Gives the first agent memory of its own in a hole of the whole tree's
 * layouts, and moves it there.
 *
 * @param descriptors bytes of the largest program that opens descriptors
 */
export function enterHole(
  root: AgentProcess,
  images: TreeImages,
  descriptors: number,
): AgentLayout {
  const { processes } = images;
  const own = readMaps(root.pid);
  const stack = own.find(({ path }) => path === "[stack]")!;
  const threads = Math.max(...processes.map(({ threads }) => threads.length));
  const slotLength = pageAlign(
    Math.max(...processes.map(roomForAgent)) +
      images.tree.length * ROOM_PER_BIRTH + descriptors,
  );
  const slotCount = 1 + Math.max(...slotNumbers(images).values());
  const length = slotLength * slotCount;
  const start = findHole(
    [
      ...own,
      ...processes.flatMap(({ mm }) =>
        mm.vmas.map((vma) => ({
          start: Number(vma.start),
          end: Number(vma.end),
        }))
      ),
    ],
    // Behind the agent, areas that move are put together.
    length + largestThatMoves(images),
  );
  if (start === undefined) {
    throw new CkptError(EXIT.failed, `restoring task ${root.pid}`, [{
      object: `task ${root.pid}`,
      why: `the address spaces of its tree have no room for the agent in ` +
        `common (${length} bytes)`,
    }]);
  }
  mapRoom(root, stack, start, length);
  root.moveTo(BigInt(start));
  const stacks = CODE_ROOM + LEADER_STACK;
  const programs = pageAlign(stacks + THREAD_STACK * threads);
  return {
    start: BigInt(start),
    length,
    slots: Array.from({ length: slotCount }, (_, i) => {
      const base = start + i * slotLength;
      return {
        leaderStack: BigInt(base + stacks - 64),
        threadStacks: BigInt(base + stacks),
        programs: BigInt(base + programs),
        end: BigInt(base + slotLength),
      };
    }),
  };
}

/** Bytes of the largest area that may be put elsewhere first. */
function largestThatMoves({ processes, segments }: TreeImages): number {
  const attached = [...segments.values()].map(attachedLength);
  return processes.reduce(
    (most, { mm }) =>
      mm.vmas.reduce(
        (most, { status, start, end }) =>
          (status & VMA_STATUS.ANON_PRIVATE) === 0
            ? most
            : Math.max(most, Number(end - start)),
        most,
      ),
    Math.max(0, ...attached.map(Number)),
  );
}

/** Lets the agent map memory, by a program in the stack it was started with. */
function mapRoom(
  root: AgentProcess,
  stack: AddressRange,
  start: number,
  length: number,
): void {
  const program = new Program();
  program.call(
    "mmap",
    [
      start,
      length,
      PROT.read | PROT.write | PROT.exec,
      MAP.private | MAP.anonymous | MAP.noreserve | MAP.fixedNoreplace,
      -1,
      0,
    ],
    "mapping memory for the agent",
  );
  const leader: AgentThread = {
    tid: root.pid,
    stack: BigInt(stack.end - PAGE_SIZE),
  };
  const address = BigInt(stack.start);
  root.load(leader, program, address);
  root.resume(leader);
  root.wait(leader, program, address);
}

/** A clone with its arguments, and what goes before and after it. */
const ROOM_PER_BIRTH = 1024;

/** An upper bound; memory that is not touched costs nothing. */
function roomForAgent(images: TaskImages): number {
  const { mm, pagemap, descriptors, files, threads, seccomp, extension } =
    images;
  const OPERATION = 72;
  const NAME = 4112;
  const areas = mm.vmas.length * (8 * OPERATION + 64);
  // A child compares its pages with those of a parent, which has as many.
  const shared = extension.inherited?.ranges.length ?? 0;
  const pages = 4 * (pagemap.entries.length + shared) * OPERATION + 65536;
  const opened = (Math.min(files.size, mm.vmas.length + descriptors.length) +
    descriptors.length) * (16 * OPERATION + NAME);
  const filters = seccomp.seccomp_filters.reduce(
    (sum, { filter }) => sum + filter.length + 4 * OPERATION,
    0,
  );
  const signals = threads.reduce(
    (sum, { core }) => sum + (core.thread_core?.signals_p?.signals.length ?? 0),
    threads[0].core.tc?.signals_s?.signals.length ?? 0,
  ) * 512;
  const timers = (threads[0].core.tc?.timers?.posix.length ?? 0) * 4096;
  const perThread = THREAD_STACK + 256 * 1024 + filters;
  const rings = mm.aios.reduce((sum, { ring_len }) => sum + ring_len, 0);
  return CODE_ROOM + LEADER_STACK + rings + areas + pages + opened + signals +
    timers + perThread * threads.length + 4 * 1024 * 1024;
}

function pageAlign(length: number): number {
  return Math.ceil(length / PAGE_SIZE) * PAGE_SIZE;
}

/** Hands out addresses for programs, one after the other. */
export class ProgramRoom {
  #next: bigint;
  readonly #end: bigint;

  constructor(slot: AgentSlot) {
    this.#next = slot.programs;
    this.#end = slot.end;
  }

  place(program: Program): bigint {
    const address = this.#next;
    this.#next += BigInt((program.size + 127) & ~63);
    if (this.#next > this.#end) {
      throw new Error("the programs of the agent do not fit its memory");
    }
    return address;
  }
}
