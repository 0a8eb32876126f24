/**
 * Who has taken locks of an image on this host meanwhile; looked at before
 * anything is restored.
 */
import { CkptError, type Reason } from "../error.ts";
import { EAGAIN } from "../ffi/errno.ts";
import {
  close,
  O,
  open,
  S_IF,
  stat,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { file_lock_entry } from "../image/schema.gen.ts";
import { type FileLock, parseLocks } from "../proc/locks.ts";
import {
  readComm,
  readFdInfo,
  readMountInfo,
  readNamespace,
} from "../proc/read.ts";
import { describeLock, LOCK_FLAG, LOCK_TYPE } from "./file_locks.ts";

/** A lock of an image, and the path of its file. */
export interface LockOfPath {
  readonly lock: file_lock_entry;
  readonly path: string;
}

/** Locks that others have on the same files and that exclude them. */
export function takenLocks(locks: readonly LockOfPath[]): Reason[] {
  if (locks.length === 0) return [];
  const path = "/proc/locks";
  const host = parseLocks(Deno.readTextFileSync(path), path);
  const showsAll = readNamespace(Deno.pid, "pid") === INITIAL_PID_NAMESPACE;
  if (host.length === 0 && showsAll) return [];
  const mounts = mountDevices();
  return locks.flatMap(({ lock, path }) => {
    const file = identify(path, mounts);
    const other = host.find((other) =>
      file === identityOf(other) && excludes(other, lock)
    );
    const taken = other !== undefined
      ? holder(other)
      : !showsAll && isTakenUnseen(path, lock)
      ? "a program outside"
      : undefined;
    return taken === undefined ? [] : [{
      object: path,
      why: `${taken} has locked it, and task ${lock.pid} of the ` +
        `program held ${describeLock(lock)}`,
      remedy: "restore when that lock is given up",
    }];
  });
}

/** The first one (linux/proc_ns.h, PROC_PID_INIT_INO); in others /proc/locks leaves out whose pid they do not know. */
const INITIAL_PID_NAMESPACE = "pid:[4026531836]";

const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** Tries to take a flock, which the program is to have in a moment anyway. */
function isTakenUnseen(path: string, { flag, type }: file_lock_entry): boolean {
  if (flag !== LOCK_FLAG.flock) return false;
  let fd: number;
  try {
    if ((stat(encodeText(path)).mode & S_IF.MT) !== S_IF.REG) return false;
    fd = open(encodeText(path), O.RDONLY | O.NONBLOCK | O.CLOEXEC);
  } catch (error) {
    // Whatever hinders it is told by others.
    if (error instanceof SyscallError) return false;
    throw error;
  }
  try {
    const how = type === LOCK_TYPE.write ? LOCK_EX : LOCK_SH;
    syscall("flock", BigInt(fd), BigInt(how | LOCK_NB));
    return false;
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return error.errno === EAGAIN;
  } finally {
    close(fd);
  }
}

/** The devices of ckpt's mounts, by their ids. */
export function mountDevices(): ReadonlyMap<number, string> {
  return new Map(
    readMountInfo(Deno.pid).map(({ mountId, major, minor }) => [
      mountId,
      `${major}:${minor}`,
    ]),
  );
}

export function identityOf(
  { device: { major, minor }, inode }: FileLock,
): string {
  return `${major}:${minor} ${inode}`;
}

/** As the kernel names it in /proc/locks; stat(2) tells other devices of btrfs. */
export function identify(
  path: string,
  mounts: ReadonlyMap<number, string>,
): string | undefined {
  try {
    const fd = open(encodeText(path), O.PATH | O.CLOEXEC);
    try {
      const { mntId, ino } = readFdInfo(Deno.pid, fd);
      return `${mounts.get(mntId)} ${ino}`;
    } finally {
      close(fd);
    }
  } catch (error) {
    // That it is missing is told by others.
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** Whether a lock of the host and one of an image cannot be both. */
export function excludes(
  { kind, access, blocked, start, end }: FileLock,
  lock: file_lock_entry,
): boolean {
  if (blocked) return false;
  if (access !== "write" && lock.type !== LOCK_TYPE.write) return false;
  const isRange = kind === "posix" || kind === "ofd";
  switch (lock.flag) {
    case LOCK_FLAG.flock:
      return kind === "flock";
    case LOCK_FLAG.lease:
      return kind === "lease";
  }
  return isRange && (end === undefined || lock.start <= end) &&
    (lock.len === 0n || start < lock.start + lock.len);
}

function holder({ pid }: FileLock): string {
  if (pid <= 0) return "a program outside";
  try {
    return `task ${pid} (${readComm(pid)})`;
  } catch (error) {
    // The lock of a flock(1) that has ended belongs to those who have its file.
    if (error instanceof CkptError) return "a program outside";
    throw error;
  }
}
