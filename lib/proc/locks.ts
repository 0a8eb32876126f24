/**
 * File locks as /proc/locks and the lines "lock:" of /proc/PID/fdinfo/N write
 * them (proc_locks(5); lock_get_status in fs/locks.c):
 *
 *     1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 0 9
 *     2: LEASE  BREAKING  READ 1234 fd:01:5679 0 EOF
 *     2:  -> FLOCK  ADVISORY  WRITE 1240 fd:01:5680 0 EOF
 */
import { lines } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimalBigint, hexBigint, signedDecimal } from "./numbers.ts";

export type LockKind = "posix" | "ofd" | "flock" | "lease" | "delegation";

export interface FileLock {
  readonly kind: LockKind;
  /** Of a lease that is being broken: what it is to become. */
  readonly access: "none" | "read" | "write";
  /** A lease whose end somebody waits for. */
  readonly breaking: boolean;
  /** It is waited for, and held by nobody yet. */
  readonly blocked: boolean;
  /** The process that took it; -1: of an open file description lock. */
  readonly pid: number;
  /** Device of the file system, as in mountinfo. */
  readonly device: { readonly major: number; readonly minor: number };
  readonly inode: bigint;
  readonly start: bigint;
  /** The last byte; undefined: all to come, too. */
  readonly end: bigint | undefined;
}

const KINDS: Readonly<Record<string, LockKind>> = {
  POSIX: "posix",
  OFDLCK: "ofd",
  FLOCK: "flock",
  LEASE: "lease",
  DELEG: "delegation",
};

const ACCESS = { READ: "read", WRITE: "write", UNLCK: "none" } as const;

const LINE =
  /^\d+: +(-> )?([A-Z]+) +([A-Z*]+) +(READ|WRITE|UNLCK) (-?\d+) ([0-9a-f]+):([0-9a-f]+):(\d+) (\d+) (\d+|EOF)$/;

/** The text of one line; undefined for a kind that is not known. */
export function parseLock(place: Place): FileLock | undefined {
  const found = LINE.exec(place.text);
  if (found === null) throw malformed(place, "expected a file lock");
  const [, arrow, kind, state, access, pid, major, minor, inode, start, end] =
    found;
  if (!Object.hasOwn(KINDS, kind)) return undefined;
  return {
    kind: KINDS[kind],
    access: ACCESS[access as keyof typeof ACCESS],
    breaking: state === "BREAKING",
    blocked: arrow !== undefined,
    pid: signedDecimal(pid, place),
    device: {
      major: Number(hexBigint(major, place)),
      minor: Number(hexBigint(minor, place)),
    },
    inode: decimalBigint(inode, place),
    start: decimalBigint(start, place),
    end: end === "EOF" ? undefined : decimalBigint(end, place),
  };
}

/** Parses the whole of /proc/locks, but for kinds that are not known. */
export function parseLocks(text: string, source = "locks"): FileLock[] {
  const found: FileLock[] = [];
  for (const place of lines(text, source)) {
    // Locks of the kernel itself may have no file.
    if (/ (\*NOINODE\*|<none>:0) /.test(place.text)) continue;
    const lock = parseLock(place);
    if (lock !== undefined) found.push(lock);
  }
  return found;
}
