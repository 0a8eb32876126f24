/**
 * Makes the System V segments that this host does not have any more, before the
 * first process exists: with the same id and key, and what they held.
 *
 * Until all processes are attached and about to run, a segment has no
 * permissions: nobody else attaches to it, and one that a killed ckpt leaves
 * behind is known by that. One that was to go with its last user is marked so
 * at once, as ckpt itself is attached to it: it goes with ckpt.
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
import { taskExists } from "../ffi/task_exists.ts";
import { attachedLength } from "../mm/attach_segments.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import {
  planSegments,
  type SegmentsPlan,
  type SegmentToMake,
} from "../mm/sysv_segments.ts";
import { hasCapability, readStatus, readSysvSegments } from "../proc/read.ts";
import { SHM_MODE } from "../proc/sysvipc.ts";
import type { SegmentImage } from "./segment_images.ts";
import { fill, placedPages } from "./shared_memory.ts";
import { pagesPath, type TreeImages } from "./task_images.ts";

const IPC_CREAT = 0o1000;
const IPC_EXCL = 0o2000;
const IPC_PRIVATE = 0;
const IPC_RMID = 0n;
const IPC_SET = 1n;
const SHM_LOCK = 11n;
const LOCK_EX = 2n;
const PERMISSIONS = 0o777;

/** Which segments have to be made; none is, while there is a reason. */
export function planSegmentsOf(
  { segments }: Pick<TreeImages, "segments">,
): SegmentsPlan {
  const wanted = [...segments.values()];
  const plan = planSegments(
    wanted,
    wanted.length === 0 ? [] : readSysvSegments(),
    taskExists,
  );
  return wanted.length === 0 || hasCapability("CAP_IPC_OWNER") ? plan : {
    ...plan,
    reasons: [...plan.reasons, {
      object: "CAP_IPC_OWNER",
      why: "ckpt does not have this capability, which it needs to attach to " +
        "System V segments",
      remedy: "run ckpt as root",
    }],
  };
}

interface MadeSegment {
  readonly segment: SegmentImage;
  /** Where ckpt itself has it. */
  readonly memory: bigint;
}

export class SysvSegments implements Disposable {
  readonly #made: MadeSegment[] = [];
  #settled = false;
  #kept = false;

  private constructor() {}

  /**
   * @param counters `written` counts the pages that are in place
   * @param signal ends it early; its reason is thrown then
   * @throws CkptError naming the segment; none is left then
   */
  static async make(
    { set, segments }: Pick<TreeImages, "set" | "segments">,
    plan: SegmentsPlan,
    counters: PageCounters,
    signal: AbortSignal,
  ): Promise<SysvSegments> {
    const made = new SysvSegments();
    try {
      for (const id of plan.leftovers) {
        attempt(`removing System V segment ${id}`, () => remove(id));
      }
      for (const wanted of plan.make) {
        signal.throwIfAborted();
        const segment = segments.get(BigInt(wanted.segment.id))!;
        const memory = made.#add(wanted, segment);
        const path = pagesPath(set, segment.pagemap);
        const action = `making System V segment ${segment.id}`;
        const image = attempt(action, () => open(path, O.RDONLY));
        try {
          const length = attachedLength(segment);
          const parts = placedPages(segment.pagemap.entries, length);
          await fill(memory, parts, image, counters, signal, action);
        } finally {
          close(image);
        }
      }
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
    return made;
  }

  /** @returns where it is in ckpt's memory */
  #add({ key }: SegmentToMake, segment: SegmentImage): bigint {
    const { id, size, cuid, cgid, mode } = segment;
    return attempt(`making System V segment ${id}`, () => {
      makeWithId(id, () => asCreator(cuid, cgid, () => shmget(key, size)));
      try {
        const memory = syscall("shmat", BigInt(id), 0n, 0n);
        this.#made.push({ segment, memory });
        if ((mode & SHM_MODE.dest) !== 0) remove(id);
        return memory;
      } catch (error) {
        removeIfThere(id);
        throw error;
      }
    });
  }

  /**
   * Gives all their owners and permissions, and lets go of them; to be called
   * when all processes are attached, and just before they run.
   */
  settle(): void {
    for (const { segment } of this.#made) {
      const { id, uid, gid, mode } = segment;
      attempt(`setting the owner of System V segment ${id}`, () => {
        setOwner(id, uid, gid, mode & PERMISSIONS);
        if ((mode & SHM_MODE.locked) !== 0) {
          syscall("shmctl", BigInt(id), SHM_LOCK, 0n);
        }
      });
    }
    this.#letGo();
  }

  /** They stay: the processes run. */
  keep(): void {
    this.#kept = true;
  }

  #letGo(): void {
    if (this.#settled) return;
    this.#settled = true;
    for (const { memory } of this.#made) syscall("shmdt", memory);
  }

  [Symbol.dispose](): void {
    if (!this.#kept) {
      for (const { segment: { id, mode } } of this.#made) {
        if ((mode & SHM_MODE.dest) === 0) removeIfThere(id);
      }
    }
    this.#letGo();
  }
}

function attempt<T>(action: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, action, [{
      object: error.call,
      why: describeErrno(error.errno),
    }], { cause: error });
  }
}

function remove(id: number): void {
  syscall("shmctl", BigInt(id), IPC_RMID, 0n);
}

function removeIfThere(id: number): void {
  try {
    remove(id);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
}

/** The id that the next segment gets, of whoever makes it (proc_sys_kernel(5)). */
const NEXT_ID = "/proc/sys/kernel/shm_next_id";

/**
 * A segment that nobody may attach to, with the wanted id. The wish is for the
 * next one of the whole namespace; another ckpt waits meanwhile.
 *
 * @param make returns the id of what it made
 * @throws CkptError when somebody else's segment got the id
 */
function makeWithId(id: number, make: () => number): void {
  const wish = open(NEXT_ID, O.RDWR);
  try {
    syscall("flock", BigInt(wish), LOCK_EX);
    pwrite(wish, new TextEncoder().encode(`${id}`), 0n);
    let got: number;
    try {
      got = make();
    } catch (error) {
      takeWishBack();
      throw error instanceof SyscallError && error.errno === EEXIST
        ? taken(id, "somebody else made one with its key just now")
        : error;
    }
    if (got === id) return;
    remove(got);
    const holder = readSysvSegments().find((one) => one.id === id);
    throw taken(
      id,
      holder === undefined
        ? `the kernel gave another id (${got}): its place in the table of ` +
          "segments is taken, or somebody else made one at the same moment"
        : "somebody else made one with this id just now",
    );
  } finally {
    close(wish);
  }
}

/** Makes a segment without permissions. */
function shmget(key: number, size: bigint): number {
  const flags = BigInt(IPC_CREAT | IPC_EXCL);
  return Number(syscall("shmget", BigInt(key), size, flags));
}

/**
 * Where no segment was made, the wish still waits, and no other value than an
 * id can be written there (ipc/ipc_sysctl.c). So one is made, and removed.
 */
function takeWishBack(): void {
  if (Number(Deno.readTextFileSync(NEXT_ID)) < 0) return;
  try {
    remove(shmget(IPC_PRIVATE, 1n));
  } catch (error) {
    // It is what was in the way before, such as a full table.
    if (!(error instanceof SyscallError)) throw error;
  }
}

function taken(id: number, why: string): CkptError {
  return new CkptError(EXIT.failed, `making System V segment ${id}`, [{
    object: `System V segment ${id}`,
    why,
    remedy: "ipcs -m lists the segments; remove one that nothing needs " +
      "(ipcrm -m ID), or restore again",
  }]);
}

const UNCHANGED = 0xffff_ffffn;
const PR_GET_DUMPABLE = 3n;
const PR_SET_DUMPABLE = 4n;

/** The creator of a segment is who makes it, by effective ids, for ever. */
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

/** IPC_SET with struct shmid64_ds (asm-generic/shmbuf.h, ipcbuf.h). */
function setOwner(id: number, uid: number, gid: number, mode: number): void {
  const SHMID64_DS = 112;
  const words = new Uint32Array(SHMID64_DS / 4);
  words[1] = uid;
  words[2] = gid;
  words[5] = mode;
  const bytes = new Uint8Array(words.buffer);
  syscall("shmctl", BigInt(id), IPC_SET, addressOf(bytes));
}
