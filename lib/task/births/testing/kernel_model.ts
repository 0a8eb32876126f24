/**
 * What a kernel does with processes, sessions and groups: kernel/fork.c,
 * kernel/exit.c, kernel/sys.c. Throws where it would refuse.
 */

/** The parent of those whose ancestors are gone. In session and group 0. */
export const OUTSIDE = 0;

export interface ModelProcess {
  readonly pid: number;
  parent: number;
  sid: number;
  pgid: number;
  subreaper: boolean;
  dead: boolean;
}

export class KernelModel {
  readonly processes = new Map<number, ModelProcess>();
  readonly #children = new Map<number, Set<number>>();
  readonly #sessions = new Counts();
  readonly #groups = new Counts();
  /** All members of a group are in one session. */
  readonly #sessionOfGroup = new Map<number, number>();

  /** @param root its pid; in session and group 0 */
  constructor(readonly root: number) {
    this.#add(root, OUTSIDE, 0, 0);
  }

  #add(pid: number, parent: number, sid: number, pgid: number): void {
    this.processes.set(pid, {
      pid,
      parent,
      sid,
      pgid,
      subreaper: false,
      dead: false,
    });
    this.#sessions.add(sid);
    this.#groups.add(pgid);
    this.#childrenOf(parent).add(pid);
  }

  #childrenOf(pid: number): Set<number> {
    const children = this.#children.get(pid) ?? new Set();
    this.#children.set(pid, children);
    return children;
  }

  children(pid: number): ModelProcess[] {
    return [...this.#childrenOf(pid)].map((child) => this.get(child));
  }

  get(pid: number): ModelProcess {
    const process = this.processes.get(pid);
    if (process === undefined) throw new Error(`ESRCH: ${pid} does not exist`);
    return process;
  }

  #running(pid: number): ModelProcess {
    const process = this.get(pid);
    if (process.dead) throw new Error(`ESRCH: ${pid} is dead`);
    return process;
  }

  isInUse(pid: number): boolean {
    return this.processes.has(pid) || this.#sessions.has(pid) ||
      this.#groups.has(pid);
  }

  hasGroup(group: number): boolean {
    return group === 0 || this.#groups.has(group);
  }

  /** clone3(2) with set_tid; `asSibling`: with CLONE_PARENT. */
  fork(by: number, child: number, asSibling = false): void {
    const { parent, sid, pgid } = this.#running(by);
    if (this.isInUse(child)) throw new Error(`EEXIST: ${child} is in use`);
    this.#add(child, asSibling ? parent : by, sid, pgid);
  }

  setsid(by: number): void {
    const process = this.#running(by);
    if (this.#groups.has(by)) throw new Error(`EPERM: there is a group ${by}`);
    this.#move(process, by, by);
    this.#sessions.remove(process.sid);
    process.sid = by;
    this.#sessions.add(by);
  }

  setpgid(by: number, group: number): void {
    const process = this.#running(by);
    if (process.sid === by) throw new Error(`EPERM: ${by} leads a session`);
    if (group !== by && !this.#isGroupOf(group, process.sid)) {
      throw new Error(`EPERM: no group ${group} in the session of ${by}`);
    }
    this.#move(process, group, process.sid);
  }

  #isGroupOf(group: number, session: number): boolean {
    return group === 0
      ? session === 0
      : this.#groups.has(group) && this.#sessionOfGroup.get(group) === session;
  }

  #move(process: ModelProcess, group: number, session: number): void {
    this.#groups.remove(process.pgid);
    process.pgid = group;
    this.#groups.add(group);
    this.#sessionOfGroup.set(group, session);
  }

  setSubreaper(by: number, on: boolean): void {
    this.#running(by).subreaper = on;
  }

  /** Becomes a zombie; its children, zombies too, get another parent. */
  exit(by: number): void {
    const process = this.#running(by);
    process.dead = true;
    let parent = process.parent;
    while (parent !== OUTSIDE && !this.get(parent).subreaper) {
      parent = this.get(parent).parent;
    }
    for (const child of this.#childrenOf(by)) {
      this.get(child).parent = parent;
      this.#childrenOf(parent).add(child);
    }
    this.#children.delete(by);
  }

  /** wait4(2) of a parent. */
  reap(by: number, child: number): void {
    const process = this.get(child);
    if (process.parent !== by) throw new Error(`ECHILD: ${child} of ${by}`);
    if (!process.dead) throw new Error(`${child} has not ended: ${by} waits`);
    if (by !== OUTSIDE) this.#running(by);
    this.processes.delete(child);
    this.#childrenOf(by).delete(child);
    this.#sessions.remove(process.sid);
    this.#groups.remove(process.pgid);
  }
}

/** How many processes have an id. */
class Counts {
  readonly #counts = new Map<number, number>();

  has(id: number): boolean {
    return id !== 0 && this.#counts.has(id);
  }

  add(id: number): void {
    this.#counts.set(id, (this.#counts.get(id) ?? 0) + 1);
  }

  remove(id: number): void {
    const count = this.#counts.get(id)! - 1;
    if (count === 0) this.#counts.delete(id);
    else this.#counts.set(id, count);
  }
}
