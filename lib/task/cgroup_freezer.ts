/**
 * Freezing a cgroup with all that is below it, and putting it back as it was
 * found, whatever happens to ckpt (cgroups(7); in the kernel's documentation
 * admin-guide/cgroup-v1/freezer-subsystem.rst and admin-guide/cgroup-v2.rst).
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { Guard, type GuardText } from "../ffi/guard.ts";
import { pathExists } from "../ffi/path_exists.ts";
import { sleep } from "../ffi/pause.ts";
import { SyscallError } from "../ffi/syscall.ts";
import { listThreads, readStat, readWchan } from "../proc/read.ts";
import { listTree } from "./process_tree.ts";

export type CgroupVersion = 1 | 2;

/** The file that freezes, and what it takes. */
const SWITCHES = {
  1: { file: "freezer.state", frozen: "FROZEN", thawed: "THAWED" },
  2: { file: "cgroup.freeze", frozen: "1", thawed: "0" },
} as const;

/** A cgroup is usually frozen within 1 ms; a look takes 0.02 ms. */
const LOOKS_WITHOUT_PAUSE = 100;
const PAUSE_MS = 1;
/** How often a cgroup that does not freeze is looked at for what blocks it. */
const LOOKS_FOR_BLOCKED = 20;

const EACCES = 13;

/** How many processes an error names. */
const MOST_NAMED = 10;

export class CgroupFreezer implements Disposable {
  #guard: Guard | undefined;
  /** Whether release() is still to be done. */
  #held = false;
  /** Whether restore() is still to be done. */
  #changed = false;

  private constructor(
    readonly directory: string,
    readonly version: CgroupVersion,
    /** What was frozen by itself when it was found, the directory first. */
    readonly foundFrozen: readonly string[],
  ) {}

  /**
   * @param directory of a cgroup, version 1 (freezer) or 2
   * @throws CkptError when it is none, or one that cannot be frozen
   */
  static open(directory: string): CgroupFreezer {
    const version = versionOf(directory);
    return new CgroupFreezer(
      directory,
      version,
      withDescendants(directory).filter((one) =>
        isFrozenByItself(one, version)
      ),
    );
  }

  /** Whether it was frozen already; then that is what it is put back to. */
  get wasFrozen(): boolean {
    return this.foundFrozen[0] === this.directory;
  }

  get #switch() {
    return SWITCHES[this.version];
  }

  /**
   * Freezes it, and waits until nothing in it runs.
   *
   * @param timeoutMs how long that may take
   * @throws CkptError naming what does not freeze; to be followed by
   * {@link release} and {@link restore}
   */
  async freeze(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const orders: GuardText[] = [
      ...this.wasFrozen ? [] : [this.#order(this.directory, false)],
      ...this.foundFrozen.map((one) => this.#order(one, true)),
    ];
    this.#guard = wording(this.directory, () => Guard.start(orders));
    this.#held = true;
    this.#changed = true;
    if (!this.wasFrozen) this.#write(this.directory, true);
    const end = performance.now() + timeoutMs;
    for (let look = 0; !isFrozen(this.directory, this.version); look++) {
      if (performance.now() > end) throw await this.#notFrozen();
      if (look < LOOKS_WITHOUT_PAUSE) continue;
      await sleep(PAUSE_MS);
      signal?.throwIfAborted();
      // Version 1 overlooks a task that job control stops at that moment: it is
      // FREEZING for ever, unless told again.
      if (this.version === 1) this.#write(this.directory, true);
    }
  }

  /** Pids of all processes in it and in what is below. */
  members(): Set<number> {
    return new Set(
      withDescendants(this.directory).flatMap((one) =>
        listProcs(one, this.version)
      ),
    );
  }

  /** Lets what is in it run, as far as nothing else holds it. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    const frozen = this.wasFrozen
      ? this.foundFrozen
      : [this.directory, ...this.foundFrozen];
    for (const one of frozen) this.#write(one, false);
    // Thawed, it is as it was found, unless something was frozen before.
    if (this.foundFrozen.length === 0) this.restore();
  }

  /** Puts it back to what it was; after {@link release}. */
  restore(): void {
    if (!this.#changed) return;
    this.#changed = false;
    for (const one of this.foundFrozen) this.#write(one, true);
    this.#guard?.end();
  }

  /**
   * Why it cannot be frozen for a tree, as far as that can be told while both
   * run: what is the same in two looks.
   */
  reasonsAgainst(root: number): Reason[] {
    const looks = [1, 2].map(() => {
      const members = this.members();
      const tree = new Set(
        listTree(root).members.flatMap(({ pid, zombie }) =>
          zombie ? [] : [pid]
        ),
      );
      return {
        strangers: members.difference(tree),
        missing: tree.difference(members),
      };
    });
    const both = (side: "strangers" | "missing") =>
      looks[0][side].intersection(looks[1][side]);
    return differences(this.directory, both("strangers"), both("missing"));
  }

  /**
   * @param members of the cgroup, and
   * @param tree the processes of the tree, at one moment
   * @throws CkptError (refused) naming those that are only in one of them
   */
  refuseOthers(
    members: ReadonlySet<number>,
    tree: ReadonlySet<number>,
  ): void {
    const reasons = differences(this.directory, members, tree);
    if (reasons.length > 0) {
      throw new CkptError(
        EXIT.refused,
        `freezing cgroup ${this.directory}`,
        reasons,
      );
    }
  }

  [Symbol.dispose](): void {
    this.release();
    this.restore();
  }

  #order(directory: string, frozen: boolean): GuardText {
    const { file } = this.#switch;
    return {
      path: `${directory}/${file}`,
      text: this.#switch[frozen ? "frozen" : "thawed"],
    };
  }

  #write(directory: string, frozen: boolean): void {
    const { path, text } = this.#order(directory, frozen);
    wording(
      directory,
      () => Deno.writeTextFileSync(path, text, { create: false }),
    );
  }

  async #notFrozen(): Promise<CkptError> {
    // A task that a cgroup of version 1 has frozen looks like a blocked one.
    if (!this.wasFrozen) this.release();
    const { directory } = this;
    const look = () => [...this.members()].flatMap(blockedThreads);
    let blocked = look();
    // One that waits for a lock spins while the holder runs (rwsem.c).
    for (let i = 0; i < LOOKS_FOR_BLOCKED && blocked.length === 0; i++) {
      await sleep(PAUSE_MS);
      blocked = look();
    }
    return new CkptError(EXIT.interrupted, `freezing cgroup ${directory}`, [
      {
        object: directory,
        why: "it was not frozen in time",
        remedy: "--timeout gives it more time",
      },
      ...blocked.slice(0, MOST_NAMED),
    ]);
  }
}

/**
 * What keeps a cgroup from being frozen for a tree.
 *
 * @param members of the cgroup, and
 * @param tree the processes of the tree, at one moment
 */
export function differences(
  directory: string,
  members: ReadonlySet<number>,
  tree: ReadonlySet<number>,
): Reason[] {
  const reasons: Reason[] = [];
  const strangers = [...members].filter((pid) => !tree.has(pid));
  const missing = [...tree].filter((pid) => !members.has(pid));
  const ckpt = strangers.indexOf(Deno.pid);
  if (ckpt >= 0) {
    strangers.splice(ckpt, 1);
    reasons.push({
      object: `task ${Deno.pid}`,
      why:
        `this is ckpt itself, in cgroup ${directory}: it would freeze itself`,
      remedy: "start ckpt in another cgroup",
    });
  }
  if (strangers.length > 0) {
    reasons.push({
      object: nameTasks(strangers),
      why:
        `in cgroup ${directory}, but not in the tree: it would be frozen, too`,
      remedy: "move it to another cgroup, or name one that holds only the tree",
    });
  }
  if (missing.length > 0) {
    reasons.push({
      object: nameTasks(missing),
      why: `in the tree, but not in cgroup ${directory}`,
      remedy: "name a cgroup that holds the whole tree, or leave " +
        "--freeze-cgroup out",
    });
  }
  return reasons;
}

function nameTasks(pids: readonly number[]): string {
  const named = pids.slice(0, MOST_NAMED).join(", ");
  const more = pids.length - MOST_NAMED;
  return `task${pids.length === 1 ? "" : "s"} ${named}` +
    (more > 0 ? ` and ${more} more` : "");
}

function versionOf(directory: string): CgroupVersion {
  for (const version of [1, 2] as const) {
    if (pathExists(`${directory}/${SWITCHES[version].file}`)) return version;
  }
  const why = !pathExists(directory)
    ? "there is no such directory"
    : pathExists(`${directory}/cgroup.procs`)
    ? "it cannot be frozen: it is the root of its hierarchy, or has no freezer"
    : "it is not the directory of a cgroup";
  throw new CkptError(EXIT.failed, "looking at the cgroup to freeze", [{
    object: `--freeze-cgroup ${directory}`,
    why,
    remedy: "name a directory below the mount of the freezer controller " +
      "(version 1) or of cgroup2",
  }]);
}

/** The directory and all below it. */
function withDescendants(directory: string): string[] {
  return [
    directory,
    ...[...Deno.readDirSync(directory)].flatMap((entry) =>
      entry.isDirectory ? withDescendants(`${directory}/${entry.name}`) : []
    ),
  ];
}

/** Whether the cgroup was told to be frozen, whatever those above it are. */
export function isFrozenByItself(
  directory: string,
  version: CgroupVersion,
): boolean {
  const file = version === 1 ? "freezer.self_freezing" : "cgroup.freeze";
  return Deno.readTextFileSync(`${directory}/${file}`).trim() === "1";
}

/** Whether nothing in it runs. */
function isFrozen(directory: string, version: CgroupVersion): boolean {
  return version === 1
    ? Deno.readTextFileSync(`${directory}/freezer.state`).trim() === "FROZEN"
    : /^frozen 1$/m.test(
      Deno.readTextFileSync(`${directory}/cgroup.events`),
    );
}

const EOPNOTSUPP = "(os error 95)";

function listProcs(directory: string, version: CgroupVersion): number[] {
  try {
    return Deno.readTextFileSync(`${directory}/cgroup.procs`).split("\n")
      .filter((line) => line !== "").map(Number);
  } catch (error) {
    // A threaded cgroup; its processes are in that of its domain.
    const threaded = version === 2 && error instanceof Error &&
      error.message.includes(EOPNOTSUPP);
    if (threaded) return [];
    throw error;
  }
}

/** Threads of a process that cannot be frozen where they are. */
function blockedThreads(pid: number): Reason[] {
  const reasons: Reason[] = [];
  try {
    for (const tid of listThreads(pid)) {
      if (readStat(tid).state !== "D") continue;
      const where = readWchan(tid);
      if (where === "__refrigerator") continue;
      reasons.push({
        object: tid === pid ? `task ${pid}` : `thread ${tid} of task ${pid}`,
        why: "it is blocked in the kernel (state D" +
          (where === undefined ? ")" : `, in ${where})`),
      });
    }
  } catch (error) {
    // It ended meanwhile.
    if (!(error instanceof CkptError && error.exit === EXIT.gone)) throw error;
  }
  return reasons;
}

/** Runs what fails with errors of Deno or the kernel. */
function wording<T>(directory: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (error instanceof CkptError || !(error instanceof Error)) throw error;
    const denied = error instanceof Deno.errors.PermissionDenied ||
      error instanceof SyscallError && error.errno === EACCES;
    throw new CkptError(
      denied ? EXIT.permission : EXIT.failed,
      `freezing cgroup ${directory}`,
      [{
        object: directory,
        why: error.message,
        remedy: denied
          ? "the file that freezes it has to be writable for ckpt"
          : undefined,
      }],
      { cause: error },
    );
  }
}
