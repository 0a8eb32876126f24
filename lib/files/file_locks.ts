/**
 * File locks and leases (flock(2), fcntl(2)). Record locks belong to a
 * descriptor table, and are gone as soon as any descriptor of the file is
 * closed there; all others belong to the open file description. So a restore
 * gives them last, when no process closes anything any more.
 */
import type { Reason } from "../error.ts";
import type { Program } from "../ffi/program.ts";
import type { file_lock_entry } from "../image/schema.gen.ts";
import { type FileLock, parseLock } from "../proc/locks.ts";
import { type DescriptorPlace, nameOf } from "./description_index.ts";

/** The kinds of file_lock_entry.flag. */
export const LOCK_FLAG = { posix: 1, flock: 2, ofd: 4, lease: 8 } as const;
/** file_lock_entry.type, F_RDLCK and so on of fcntl(2). */
export const LOCK_TYPE = { read: 0, write: 1, none: 2 } as const;

/** A process, as far as its locks go. */
export interface LockingProcess {
  readonly pid: number;
  /** Processes with the same number share one descriptor table. */
  readonly filesId: number;
  readonly descriptors: readonly LockingDescriptor[];
}

interface LockingDescriptor {
  readonly fd: number;
  readonly info: { readonly locks: readonly string[] };
  /** The place of its description. */
  readonly place: DescriptorPlace;
}

/** The locks that a line of fdinfo each tells of; but for kinds not known. */
export function locksOf(
  { locks }: LockingDescriptor["info"],
): (FileLock | undefined)[] {
  return locks.map((text, i) =>
    parseLock({ source: "fdinfo", line: i + 1, text })
  );
}

/** Whether all who have the description have the lock. */
export function isOfDescription({ kind }: FileLock): boolean {
  return kind !== "posix";
}

/** Why a lock cannot be saved; undefined: it can. */
export function lockProblem(
  lock: FileLock | undefined,
  nlink: bigint,
): { why: string; remedy?: string } | undefined {
  if (lock === undefined || lock.kind === "delegation") {
    return { why: "it holds a lock of a kind that is not supported" };
  }
  if (lock.kind !== "lease") return undefined;
  if (lock.breaking) {
    return {
      why: "it holds a lease that somebody waits for",
      remedy: "dump again when the program has given it up",
    };
  }
  // Saving the content means to open the file, which would break the lease.
  return nlink === 0n
    ? { why: "it holds a lease of a deleted file, which is not supported" }
    : undefined;
}

/**
 * Every lock of a tree once, with the process that took it, where that still
 * has a descriptor for it.
 */
export function dumpLocks(
  processes: readonly LockingProcess[],
): file_lock_entry[] {
  /** Who has a description with locks, and by which number. */
  const holders = new Map<string, Map<number, number>>();
  for (const { pid, descriptors } of processes) {
    for (const { fd, info, place } of descriptors) {
      if (info.locks.length === 0) continue;
      const key = nameOf(place);
      const known = holders.get(key) ?? new Map();
      holders.set(key, known);
      if (!known.has(pid)) known.set(pid, fd);
    }
  }
  const tables = new Map(processes.map(({ pid, filesId }) => [pid, filesId]));
  const seen = new Set<string>();
  return processes.flatMap(({ pid, filesId, descriptors }) =>
    descriptors.flatMap(({ fd, info, place }) =>
      locksOf(info).flatMap((lock, i) => {
        const owner = isOfDescription(lock!) ? "" : filesId;
        // Without the number of the line.
        const text = info.locks[i].replace(/^\d+/, "");
        const key = `${owner} ${nameOf(place)} ${text}`;
        if (seen.has(key)) return [];
        seen.add(key);
        const taker = holders.get(nameOf(place))!.get(lock!.pid);
        const taken = taker !== undefined &&
          (isOfDescription(lock!) || tables.get(lock!.pid) === filesId);
        return [
          taken ? dumpLock(lock!, lock!.pid, taker) : dumpLock(lock!, pid, fd),
        ];
      })
    )
  );
}

function dumpLock(
  { kind, access, start, end }: FileLock,
  pid: number,
  fd: number,
): file_lock_entry {
  return {
    flag: LOCK_FLAG[kind as keyof typeof LOCK_FLAG],
    type: LOCK_TYPE[access],
    pid,
    fd,
    start,
    // 0: to the end of the file, however far that will be.
    len: end === undefined ? 0n : end - start + 1n,
  };
}

/** Locks of images by others that cannot be taken again. */
export function unsupportedLocks(locks: readonly file_lock_entry[]): Reason[] {
  return locks.filter(({ type }) =>
    type !== LOCK_TYPE.read && type !== LOCK_TYPE.write
  ).map(({ flag, pid, fd }) => ({
    object: `descriptor ${fd} of process ${pid}`,
    why: flag === LOCK_FLAG.lease
      ? "it has a lease that somebody waited for, which is not supported"
      : "it has a lock of a kind that is not supported",
  }));
}

const F_SETLK = 6;
const F_OFD_SETLK = 37;
const F_SETLEASE = 1024;
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** "a write lock of bytes 5 to 14" and the like. */
export function describeLock(
  { flag, type, start, len }: file_lock_entry,
): string {
  const access = type === LOCK_TYPE.write ? "write" : "read";
  switch (flag) {
    case LOCK_FLAG.lease:
      return `a ${access} lease`;
    case LOCK_FLAG.flock:
      return type === LOCK_TYPE.write ? "an exclusive flock" : "a shared flock";
  }
  const range = len === 0n
    ? `from byte ${start}`
    : `of bytes ${start} to ${start + len - 1n}`;
  return `a ${access} lock ${range}${
    flag === LOCK_FLAG.ofd ? " of the open file" : ""
  }`;
}

/**
 * Takes locks without waiting; one that somebody else has taken meanwhile makes
 * the program fail.
 *
 * @param program of the process that is to have them
 * @param nameOf what a descriptor leads to
 */
export function restoreLocks(
  program: Program,
  locks: readonly file_lock_entry[],
  nameOf: (fd: number) => string,
): void {
  for (const lock of locks) {
    const { flag, type, fd, start, len } = lock;
    const purpose = `taking ${describeLock(lock)} by descriptor ${fd} (${
      nameOf(fd)
    })`;
    switch (flag) {
      case LOCK_FLAG.flock: {
        const operation = type === LOCK_TYPE.write ? LOCK_EX : LOCK_SH;
        program.call("flock", [fd, operation | LOCK_NB], purpose);
        break;
      }
      case LOCK_FLAG.lease:
        program.call("fcntl", [fd, F_SETLEASE, type], purpose);
        break;
      default: {
        const SEEK_SET = 0;
        const argument = program.words([type | SEEK_SET << 16, start, len, 0]);
        const command = flag === LOCK_FLAG.ofd ? F_OFD_SETLK : F_SETLK;
        program.call("fcntl", [fd, command, argument], purpose);
      }
    }
  }
}
