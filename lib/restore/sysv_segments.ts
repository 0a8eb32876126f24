/**
 * Makes the System V segments that this host does not have any more, before the
 * first process exists: with the same id and key, and what they held.
 *
 * Until all processes are attached and about to run, a segment has no
 * permissions: nobody else attaches to it, and one that a killed ckpt leaves
 * behind is known by that. One that was to go with its last user is marked so
 * at once, as ckpt itself is attached to it: it goes with ckpt.
 */
import { close, O, open, syscall, SyscallError } from "../ffi/syscall.ts";
import { taskExists } from "../ffi/task_exists.ts";
import { attachedLength } from "../mm/attach_segments.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import {
  planSegments,
  type SegmentsPlan,
  type SegmentToMake,
} from "../mm/sysv_segments.ts";
import {
  attemptSysv,
  makeSysvObject,
  nameOf,
  removeSysvObject,
  setSysvOwner,
} from "../ns/sysv_ids.ts";
import { hasCapability, readSysvSegments } from "../proc/read.ts";
import { SHM_MODE } from "../proc/sysvipc.ts";
import type { SegmentImage } from "./segment_images.ts";
import { fill, placedPages } from "./shared_memory.ts";
import { pagesPath, type TreeImages } from "./task_images.ts";

const SHM_LOCK = 11n;

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
        attemptSysv(
          `removing ${nameOf("segment", id)}`,
          () => remove(id),
        );
      }
      for (const wanted of plan.make) {
        signal.throwIfAborted();
        const segment = segments.get(BigInt(wanted.segment.id))!;
        const memory = made.#add(wanted, segment);
        const path = pagesPath(set, segment.pagemap);
        const action = `making ${nameOf("segment", segment.id)}`;
        const image = attemptSysv(action, () => open(path, O.RDONLY));
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
    const { id, size, mode } = segment;
    return attemptSysv(`making ${nameOf("segment", id)}`, () => {
      makeSysvObject(
        "segment",
        { ...segment, key },
        (key, flags) => syscall("shmget", key, size, flags),
      );
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
      const { id, mode } = segment;
      attemptSysv(`setting the owner of ${nameOf("segment", id)}`, () => {
        setSysvOwner("segment", segment);
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

function remove(id: number): void {
  removeSysvObject("segment", id);
}

function removeIfThere(id: number): void {
  try {
    remove(id);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
  }
}
