/**
 * `/proc/sysvipc/{shm,msg,sem}`: the System V objects of the reader's ipc
 * namespace (proc_sysvipc(5); sysvipc_shm_proc_show in ipc/shm.c, and its like
 * in msg.c and sem.c). They tell of all of them, whoever may use them.
 */
import { lines } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimal, decimalBigint, octal, signedDecimal } from "./numbers.ts";

/** What objects of all three kinds have. */
export interface SysvObject {
  /** 0: none (IPC_PRIVATE), or it has lost it (IPC_RMID). */
  readonly key: number;
  readonly id: number;
  /** Permissions; of a segment also the bits of {@linkcode SHM_MODE}. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of the one that made it. */
  readonly cuid: number;
  readonly cgid: number;
}

export interface SysvSegment extends SysvObject {
  /** Bytes, not rounded to pages. */
  readonly size: bigint;
  /** Pid of the process that made it; it may be gone. */
  readonly creatorPid: number;
  /** How many areas of all processes are attached to it (shm_nattch). */
  readonly attached: number;
  /**
   * shm_ctime: when it was made, or its owner or permissions were last set;
   * seconds since 1970.
   */
  readonly changed: bigint;
}

export interface SysvQueue extends SysvObject {
  /** Messages in it. */
  readonly messages: number;
}

export interface SysvSemaphores extends SysvObject {
  /** Semaphores in the set. */
  readonly count: number;
}

/** Bits of the mode beyond permissions (linux/shm.h). */
export const SHM_MODE = {
  /** It goes with the last that is attached. */
  dest: 0o1000,
  /** SHM_LOCK: it is never swapped out. */
  locked: 0o2000,
} as const;

const COLUMNS = {
  shm: "key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime " +
    "ctime",
  msg: "key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid",
  sem: "key semid perms nsems uid gid cuid cgid",
} as const;

interface Row {
  readonly place: Place;
  /** By the names of the columns. */
  readonly fields: Readonly<Record<string, string>>;
}

/** A newer kernel may have further columns. */
function rows(text: string, source: keyof typeof COLUMNS, path: string): Row[] {
  const [head, ...rest] = [...lines(text, path)];
  if (head === undefined) {
    throw malformed(
      { source: path, line: 1, text: "" },
      "expected a head line",
    );
  }
  const names = head.text.trim().split(/ +/);
  if (COLUMNS[source].split(" ").some((name, i) => names[i] !== name)) {
    throw malformed(head, `expected the columns ${COLUMNS[source]}`);
  }
  return rest.map((place) => {
    const fields = place.text.trim().split(/ +/);
    if (fields.length !== names.length) {
      throw malformed(place, `expected ${names.length} fields`);
    }
    return {
      place,
      fields: Object.fromEntries(names.map((name, i) => [name, fields[i]])),
    };
  });
}

/** @param id the name of the column that has it */
function parseObject({ place, fields }: Row, id: string): SysvObject {
  return {
    // Printed as a signed number.
    key: signedDecimal(fields.key, place) >>> 0,
    id: decimal(fields[id], place),
    mode: octal(fields.perms, place),
    uid: decimal(fields.uid, place),
    gid: decimal(fields.gid, place),
    cuid: decimal(fields.cuid, place),
    cgid: decimal(fields.cgid, place),
  };
}

/** Parses the whole of shm. */
export function parseSysvSegments(text: string, path = "shm"): SysvSegment[] {
  return rows(text, "shm", path).map((row) => ({
    ...parseObject(row, "shmid"),
    size: decimalBigint(row.fields.size, row.place),
    creatorPid: decimal(row.fields.cpid, row.place),
    attached: decimal(row.fields.nattch, row.place),
    changed: decimalBigint(row.fields.ctime, row.place),
  }));
}

/** Parses the whole of msg. */
export function parseSysvQueues(text: string, path = "msg"): SysvQueue[] {
  return rows(text, "msg", path).map((row) => ({
    ...parseObject(row, "msqid"),
    messages: decimal(row.fields.qnum, row.place),
  }));
}

/** Parses the whole of sem. */
export function parseSysvSemaphores(
  text: string,
  path = "sem",
): SysvSemaphores[] {
  return rows(text, "sem", path).map((row) => ({
    ...parseObject(row, "semid"),
    count: decimal(row.fields.nsems, row.place),
  }));
}
