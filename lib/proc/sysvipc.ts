/**
 * `/proc/sysvipc/shm`: the System V shared memory segments of the reader's ipc
 * namespace (proc_sysvipc(5); sysvipc_shm_proc_show in ipc/shm.c). It tells of
 * all of them, whoever may attach to them.
 */
import { lines } from "./lines.ts";
import { malformed } from "./malformed.ts";
import { decimal, decimalBigint, octal, signedDecimal } from "./numbers.ts";

export interface SysvSegment {
  /** 0: none (IPC_PRIVATE), or it has lost it (IPC_RMID). */
  readonly key: number;
  readonly id: number;
  /** Permissions, and the bits of {@linkcode SHM_MODE}. */
  readonly mode: number;
  /** Bytes, not rounded to pages. */
  readonly size: bigint;
  /** Pid of the process that made it; it may be gone. */
  readonly creatorPid: number;
  /** How many areas of all processes are attached to it (shm_nattch). */
  readonly attached: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the one that made it. */
  readonly cuid: number;
  readonly cgid: number;
  /**
   * shm_ctime: when it was made, or its owner or permissions were last set;
   * seconds since 1970.
   */
  readonly changed: bigint;
}

/** Bits of the mode beyond permissions (linux/shm.h). */
export const SHM_MODE = {
  /** It goes with the last that is attached. */
  dest: 0o1000,
  /** SHM_LOCK: it is never swapped out. */
  locked: 0o2000,
} as const;

const COLUMNS =
  "key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime"
    .split(" ");

/** Parses the whole of shm. */
export function parseSysvSegments(
  text: string,
  source = "shm",
): SysvSegment[] {
  const [head, ...rows] = [...lines(text, source)];
  if (head === undefined) {
    throw malformed({ source, line: 1, text: "" }, "expected a head line");
  }
  const names = head.text.trim().split(/ +/);
  if (COLUMNS.some((name, i) => names[i] !== name)) {
    throw malformed(head, `expected the columns ${COLUMNS.join(" ")}`);
  }
  return rows.map((place) => {
    const fields = place.text.trim().split(/ +/);
    if (fields.length !== names.length) {
      throw malformed(place, `expected ${names.length} fields`);
    }
    return {
      // Printed as a signed number.
      key: signedDecimal(fields[0], place) >>> 0,
      id: decimal(fields[1], place),
      mode: octal(fields[2], place),
      size: decimalBigint(fields[3], place),
      creatorPid: decimal(fields[4], place),
      attached: decimal(fields[6], place),
      uid: decimal(fields[7], place),
      gid: decimal(fields[8], place),
      cuid: decimal(fields[9], place),
      cgid: decimal(fields[10], place),
      changed: decimalBigint(fields[13], place),
    };
  });
}
