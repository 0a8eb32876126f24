/** What a dump knows of a tree that stands still, and the copies of its processes. */
import type { SeenTable } from "../files/descriptors.ts";
import { Flight } from "../files/flight.ts";
import type { MappedFlocks } from "../files/mapped_flocks.ts";
import type { ReadConnections } from "../files/tcp_connection.ts";
import { SavedFiles } from "../ghost/save.ts";
import type {
  ckpt_cgroup_namespace_entry,
  ckpt_semaphore_undo_entry,
} from "../image/schema.gen.ts";
import { DUMPER_NAMESPACES, type NamespaceIds } from "../ns/kinds.ts";
import type { Report } from "../report.ts";
import type { FrozenTree } from "../task/frozen_tree.ts";
import type { Interview } from "./collect.ts";
import type { PipeContents } from "./describe_pipes.ts";
import type { MoreOfSockets } from "./describe_sockets.ts";
import { endCopies } from "./end_copy.ts";
import type { FileSystemGuards } from "./file_system_guards.ts";
import { NO_TIMES } from "./file_validation.ts";
import { NO_MEMFDS } from "./memfds.ts";
import type { EarlyPages } from "./memory.ts";
import type { WriteNamespaces } from "./namespaces.ts";
import type { ObjectContents } from "./object_contents.ts";
import type { SharedContent } from "./shared_memory.ts";
import type { Sighting } from "./survey.ts";
import type { TreeSighting } from "./survey_tree.ts";
import type { ReadTerminals } from "./terminals.ts";
import type { WaitingThreads } from "./vfork.ts";

/** What was learnt of one process while the tree stood still. */
export interface StillProcess {
  readonly seen: Sighting;
  /** Undefined: all of its threads wait in vfork(2). */
  readonly asked: Interview | undefined;
  /** What those hold that wait so. */
  readonly waiting: WaitingThreads | undefined;
  /** Pages that a snapshot does not have; undefined without a snapshot. */
  readonly early: EarlyPages | undefined;
}

/** What was learnt while the tree stood still, and its copies. */
export class Still implements AsyncDisposable {
  readonly processes: StillProcess[] = [];
  shared: SharedContent[] = [];
  memfds = NO_MEMFDS;
  pipes: PipeContents = new Map();
  contents: ObjectContents | undefined;
  connections: ReadConnections = new Map();
  moreOfSockets: MoreOfSockets = {};
  flocks: ReadonlyMap<number, MappedFlocks> = new Map();
  terminals: ReadTerminals | undefined;
  /** By pid, of those that have changed semaphores with SEM_UNDO. */
  semaphoreUndos: ReadonlyMap<number, ckpt_semaphore_undo_entry[]> = new Map();
  files = new SavedFiles();
  fileTimes = NO_TIMES;
  clocks = { monotonic: 0n, boottime: 0n };
  namespaces: NamespaceIds = DUMPER_NAMESPACES;
  cgroupNamespace: ckpt_cgroup_namespace_entry | undefined;
  writeNamespaces: WriteNamespaces | undefined;
  /** Children for which threads wait in vfork(2), with these. */
  awaited: ReadonlyMap<number, number> = new Map();
  #ended = false;

  constructor(
    readonly seen: TreeSighting,
    readonly frozen: FrozenTree,
    readonly report: Report,
    readonly guards: FileSystemGuards | undefined,
  ) {}

  get flight(): Flight {
    return this.seen.flight ?? Flight.none;
  }

  /** The descriptors of all processes, and those in flight. */
  get tables(): readonly SeenTable[] {
    return [...this.seen.processes, this.flight.table];
  }

  /** Whether every process has a copy from which its memory can be read. */
  get hasSnapshots(): boolean {
    return this.processes.every(({ asked }) => asked?.snapshot !== undefined);
  }

  /** The pids of the copies, by those of the processes. */
  get copies(): ReadonlyMap<number, number> {
    return new Map(
      this.processes.flatMap(({ seen, asked }) =>
        asked?.snapshot === undefined ? [] : [[seen.pid, asked.snapshot.pid]]
      ),
    );
  }

  /**
   * Ends the copies. Each process has to take the zombie of its own; if it
   * does not, nothing is lost.
   */
  endCopies(): void {
    if (this.#ended) return;
    this.#ended = true;
    endCopies(
      this.processes.flatMap(({ seen: { pid, stat }, asked }) => {
        const { snapshot } = asked ?? {};
        return snapshot === undefined
          ? []
          : [{ pid, snapshot, pages: stat.rss }];
      }),
      new Set(this.processes.map(({ seen }) => seen.pid)),
      (pid, error) =>
        this.report.log(
          2,
          `the copy of task ${pid} stays as a zombie: ${error.message}`,
        ),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // What is to go on shall not have to wait for a file system.
    this.guards?.[Symbol.dispose]();
    this.flight[Symbol.dispose]();
    for (const { early } of this.processes) early?.[Symbol.dispose]();
    // Of a dump that failed: who takes the zombie of its copy has to go on.
    if (this.copies.size > 0) this.frozen.thaw();
    this.endCopies();
    // Nobody may be at work in the directory when the images are removed.
    await this.files.settle();
  }
}

export function countOf({ processes }: Still): string {
  const [{ seen }] = processes;
  return processes.length === 1
    ? `task ${seen.pid}`
    : `${processes.length} processes`;
}
