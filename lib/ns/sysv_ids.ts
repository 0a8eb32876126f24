/**
 * Makes System V objects (segments, message queues, sets of semaphores) that
 * have the id and the creator they had.
 */
import { CkptError, EXIT } from "../error.ts";
import { describeErrno, EEXIST } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  open,
  pwrite,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  readStatus,
  readSysvQueues,
  readSysvSegments,
  readSysvSemaphores,
} from "../proc/read.ts";

export const IPC = {
  private: 0n,
  rmid: 0n,
  set: 1n,
  stat: 2n,
  create: 0o1000n,
  exclusive: 0o2000n,
  noWait: 0o4000n,
} as const;

/** Made by nobody else, and without permissions. */
const NEW = IPC.create | IPC.exclusive;

interface Kind {
  /** As errors call it. */
  readonly what: string;
  /** The id that the next one gets, of whoever makes it (proc_sys_kernel(5)). */
  readonly nextId: string;
  /** The option by which ipcs(1) lists them, and ipcrm(1) removes one. */
  readonly option: string;
  readonly list: () => readonly { readonly id: number }[];
  readonly control: (id: number, command: bigint, argument: bigint) => void;
  /** Makes the least there is, to be removed again. */
  readonly makeLeast: () => bigint;
}

const KINDS = {
  segment: {
    what: "System V segment",
    nextId: "/proc/sys/kernel/shm_next_id",
    option: "-m",
    list: readSysvSegments,
    control: (id, command, argument) =>
      void syscall("shmctl", BigInt(id), command, argument),
    makeLeast: () => syscall("shmget", IPC.private, 1n, NEW),
  },
  queue: {
    what: "System V message queue",
    nextId: "/proc/sys/kernel/msg_next_id",
    option: "-q",
    list: readSysvQueues,
    control: (id, command, argument) =>
      void syscall("msgctl", BigInt(id), command, argument),
    makeLeast: () => syscall("msgget", IPC.private, NEW),
  },
  semaphores: {
    what: "System V semaphore set",
    nextId: "/proc/sys/kernel/sem_next_id",
    option: "-s",
    list: readSysvSemaphores,
    control: (id, command, argument) =>
      void syscall("semctl", BigInt(id), 0n, command, argument),
    makeLeast: () => syscall("semget", IPC.private, 1n, NEW),
  },
} as const satisfies Record<string, Kind>;

export type SysvKind = keyof typeof KINDS;

/** What an object of any kind is made with. */
export interface WantedObject {
  /** 0: none. */
  readonly key: number;
  readonly id: number;
  readonly cuid: number;
  readonly cgid: number;
}

/**
 * Makes an object without permissions. The wish for an id is for the next one
 * of the whole namespace; another ckpt waits meanwhile.
 *
 * @param get the call that makes it, of a key and flags; returns the id it got
 * @throws CkptError when somebody else's object got the id or the key
 * @throws SyscallError when the kernel does not make it
 */
export function makeSysvObject(
  kind: SysvKind,
  { key, id, cuid, cgid }: WantedObject,
  get: (key: bigint, flags: bigint) => bigint,
): void {
  const { nextId, list } = KINDS[kind];
  const wish = open(nextId, O.RDWR);
  try {
    syscall("flock", BigInt(wish), LOCK_EX);
    pwrite(wish, new TextEncoder().encode(`${id}`), 0n);
    let got: number;
    try {
      got = Number(asCreator(cuid, cgid, () => get(BigInt(key), NEW)));
    } catch (error) {
      takeWishBack(KINDS[kind]);
      throw error instanceof SyscallError && error.errno === EEXIST
        ? taken(kind, id, "somebody else made one with its key just now")
        : error;
    }
    if (got === id) return;
    removeSysvObject(kind, got);
    throw taken(
      kind,
      id,
      list().some((one) => one.id === id)
        ? "somebody else made one with this id just now"
        : `the kernel gave another id (${got}): its place in the table of ` +
          "such objects is taken, or somebody else made one at the same moment",
    );
  } finally {
    close(wish);
  }
}

/** @throws SyscallError */
export function removeSysvObject(kind: SysvKind, id: number): void {
  KINDS[kind].control(id, IPC.rmid, 0n);
}

/**
 * Gives an object its owner and permissions (IPC_SET).
 *
 * @param status struct shmid64_ds, msqid64_ds or semid64_ds, of which what else
 * can be set is filled in
 * @throws SyscallError
 */
export function setSysvOwner(
  kind: SysvKind,
  { id, uid, gid, mode }: {
    readonly id: number;
    readonly uid: number;
    readonly gid: number;
    readonly mode: number;
  },
  status = new Uint8Array(STATUS_BYTES),
): void {
  // struct ipc64_perm (asm-generic/ipcbuf.h)
  const view = new DataView(status.buffer);
  view.setUint32(4, uid, true);
  view.setUint32(8, gid, true);
  view.setUint32(20, mode & PERMISSIONS, true);
  KINDS[kind].control(id, IPC.set, addressOf(status));
}

/** Room for any of the three. */
export const STATUS_BYTES = 128;
const PERMISSIONS = 0o777;

/** @returns what `work` does; @throws CkptError instead of a SyscallError */
export function attemptSysv<T>(
  action: string,
  work: () => T,
  remedy?: string,
): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, action, [{
      object: error.call,
      why: describeErrno(error.errno),
      remedy,
    }], { cause: error });
  }
}

/** How errors call one. */
export function nameOf(kind: SysvKind, id: number): string {
  return `${KINDS[kind].what} ${id}`;
}

const LOCK_EX = 2n;

/**
 * Where no object was made, the wish still waits, and no other value than an
 * id can be written there (ipc/ipc_sysctl.c). So one is made, and removed.
 */
function takeWishBack({ nextId, makeLeast, control }: Kind): void {
  if (Number(Deno.readTextFileSync(nextId)) < 0) return;
  try {
    control(Number(makeLeast()), IPC.rmid, 0n);
  } catch (error) {
    // It is what was in the way before, such as a full table.
    if (!(error instanceof SyscallError)) throw error;
  }
}

function taken(kind: SysvKind, id: number, why: string): CkptError {
  const { option } = KINDS[kind];
  return new CkptError(EXIT.failed, `making ${nameOf(kind, id)}`, [{
    object: nameOf(kind, id),
    why,
    remedy: `ipcs ${option} lists those there are; remove one that nothing ` +
      `needs (ipcrm ${option} ID), or restore again`,
  }]);
}

const UNCHANGED = 0xffff_ffffn;
const PR_GET_DUMPABLE = 3n;
const PR_SET_DUMPABLE = 4n;

/** The creator of an object is who makes it, by effective ids, for ever. */
function asCreator<T>(uid: number, gid: number, make: () => T): T {
  const { uid: [, euid], gid: [, egid] } = readStatus(Deno.pid);
  if (uid === euid && gid === egid) return make();
  // Other ids make what /proc tells of ckpt unreadable for it.
  const dumpable = syscall("prctl", PR_GET_DUMPABLE);
  syscall("setresgid", UNCHANGED, BigInt(gid), UNCHANGED);
  try {
    syscall("setresuid", UNCHANGED, BigInt(uid), UNCHANGED);
    try {
      return make();
    } finally {
      syscall("setresuid", UNCHANGED, BigInt(euid), UNCHANGED);
    }
  } finally {
    syscall("setresgid", UNCHANGED, BigInt(egid), UNCHANGED);
    if (dumpable === 1n) syscall("prctl", PR_SET_DUMPABLE, dumpable);
  }
}
