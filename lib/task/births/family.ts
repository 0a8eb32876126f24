/** The processes of an image by pid, and who descends from whom. Pure. */

export interface TreeProcess {
  readonly pid: number;
  /** 0 for the root. */
  readonly ppid: number;
  /** 0: the session of the outside, which the root is born into. */
  readonly sid: number;
  /** 0: the group of the outside, which the root is born into. */
  readonly pgid: number;
  /** Dead: a zombie, not taken by its parent yet. */
  readonly state: "alive" | "stopped" | "dead";
  /**
   * Wishes to be forked when its parent's memory is rebuilt, to share its pages
   * copy-on-write.
   */
  readonly inheritsMemory: boolean;
  /** Wishes to be born from this child of its parent, for what they share. */
  readonly sibling?: number;
}

/** Session or group of the outside. */
export const OUTSIDE = 0;

export function leadsSession(process: TreeProcess): boolean {
  return process.sid === process.pid;
}

export class Family {
  readonly #byPid: ReadonlyMap<number, TreeProcess>;
  /**
   * Places in an order in which every process is followed by its descendants:
   * its own, and that of the last descendant.
   */
  readonly #place = new Map<number, number>();
  readonly #last = new Map<number, number>();

  /** @param processes the root first, parents before their children */
  constructor(readonly processes: readonly TreeProcess[]) {
    this.#byPid = new Map(processes.map((process) => [process.pid, process]));
    const sizes = new Map<number, number>();
    for (const { pid, ppid } of processes.toReversed()) {
      const size = (sizes.get(pid) ?? 0) + 1;
      sizes.set(pid, size);
      sizes.set(ppid, (sizes.get(ppid) ?? 0) + size);
    }
    const next = new Map<number, number>();
    for (const { pid, ppid } of processes) {
      const place = next.get(ppid) ?? 0;
      const size = sizes.get(pid)!;
      this.#place.set(pid, place);
      this.#last.set(pid, place + size - 1);
      next.set(pid, place + 1);
      next.set(ppid, place + size);
    }
  }

  get root(): TreeProcess {
    return this.processes[0];
  }

  /** Undefined when the image has no such process. */
  find(pid: number): TreeProcess | undefined {
    return this.#byPid.get(pid);
  }

  /** Not for the root. */
  parent(process: TreeProcess): TreeProcess {
    return this.#byPid.get(process.ppid)!;
  }

  /** A process comes before its descendants. */
  place(process: TreeProcess): number {
    return this.#place.get(process.pid)!;
  }

  /** Whether the process or a descendant of it has the place. */
  covers(process: TreeProcess, place: number): boolean {
    return this.place(process) <= place &&
      place <= this.#last.get(process.pid)!;
  }

  isAncestor(ancestor: TreeProcess, process: TreeProcess): boolean {
    return ancestor !== process && this.covers(ancestor, this.place(process));
  }
}
