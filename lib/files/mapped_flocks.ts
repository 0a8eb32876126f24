/**
 * Flocks whose descriptors are closed, and that mappings of their files keep:
 * an open file lasts as long as it is mapped. No fdinfo tells of them, but
 * /proc/locks does.
 */
import { type FileLock, parseLocks } from "../proc/locks.ts";
import { locksOf } from "./file_locks.ts";
import { identify, identityOf, mountDevices } from "./taken_locks.ts";

/** How the first area of a file that keeps one has it: LOCK_SH or LOCK_EX. */
export type Flock = 1 | 2;

/** By the beginnings of areas. */
export type MappedFlocks = ReadonlyMap<bigint, Flock>;

/** A process, as far as it matters here. */
export interface MappingProcess {
  readonly pid: number;
  /** A thread of it that lives. */
  readonly tid: number;
  readonly descriptors: readonly {
    readonly info: { readonly locks: readonly string[] };
    readonly sameAs: unknown;
  }[];
  readonly vmas: {
    readonly vmas: readonly {
      readonly entry: { readonly start: bigint };
      readonly inode: bigint;
      /** Name of its link in /proc/PID/map_files. */
      readonly link?: string;
    }[];
  };
}

/**
 * Looks at a tree that stands still.
 *
 * @param text of /proc/locks
 * @returns by the pids of processes
 */
export function readMappedFlocks(
  text: string,
  processes: readonly MappingProcess[],
): ReadonlyMap<number, MappedFlocks> {
  const mounts = mountDevices();
  return findMappedFlocks(
    parseLocks(text, "/proc/locks"),
    processes,
    (tid, link) => identify(`/proc/${tid}/map_files/${link}`, mounts),
  );
}

/**
 * @param host all locks
 * @param identityOfLink the file that an area of a task maps, in the words of
 * taken_locks.ts; undefined: it is not there
 */
export function findMappedFlocks(
  host: readonly FileLock[],
  processes: readonly MappingProcess[],
  identityOfLink: (tid: number, link: string) => string | undefined,
): ReadonlyMap<number, MappedFlocks> {
  const pids = new Set(processes.map(({ pid }) => pid));
  const isOwn = (lock: FileLock | undefined): lock is FileLock =>
    lock?.kind === "flock" && !lock.blocked;
  const left = host.filter((lock) => isOwn(lock) && pids.has(lock.pid));
  for (const { descriptors } of processes) {
    for (const { info, sameAs } of descriptors) {
      if (sameAs !== undefined) continue;
      for (const lock of locksOf(info).filter(isOwn)) {
        const at = left.findIndex((other) => isSame(other, lock));
        if (at !== -1) left.splice(at, 1);
      }
    }
  }
  const found = new Map<number, Map<bigint, Flock>>();
  for (const lock of left) {
    const place = placeOf(lock, processes, identityOfLink);
    if (place === undefined) continue;
    const { pid, start } = place;
    const areas = found.get(pid) ?? new Map<bigint, Flock>();
    areas.set(start, lock.access === "write" ? 2 : 1);
    found.set(pid, areas);
  }
  return found;
}

function isSame(a: FileLock, b: FileLock): boolean {
  return a.pid === b.pid && a.access === b.access &&
    identityOf(a) === identityOf(b);
}

/** The first area of the file, in the order in which processes are born. */
function placeOf(
  lock: FileLock,
  processes: readonly MappingProcess[],
  identityOfLink: (tid: number, link: string) => string | undefined,
): { pid: number; start: bigint } | undefined {
  for (const { pid, tid, vmas } of processes) {
    for (const { entry: { start }, inode, link } of vmas.vmas) {
      if (inode !== lock.inode || link === undefined) continue;
      if (identityOfLink(tid, link) === identityOf(lock)) return { pid, start };
    }
  }
  return undefined;
}
