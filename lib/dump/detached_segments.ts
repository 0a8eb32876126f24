/**
 * System V segments that go with the tree, of its own ipc namespace, and that
 * none of its processes is attached to: ckpt attaches to each for a moment.
 */
import type { Reason } from "../error.ts";
import { close, O, open, stat, syscall } from "../ffi/syscall.ts";
import { fileSystemType } from "../ghost/calls.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { pagesName } from "../image/kinds.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import type { TreeSegment } from "../mm/sysv_segments.ts";
import { attemptSysv, nameOf } from "../ns/sysv_ids.ts";
import { readMaps } from "../proc/read.ts";
import { saveObject, type SharedContent } from "./shared_memory.ts";

/** Where it is 1, a segment goes as soon as nobody is attached any more. */
const RMID_FORCED = "/proc/sys/kernel/shm_rmid_forced";
const SHM_RDONLY = 0o10000n;
/** statfs.f_type of segments of huge pages (linux/magic.h). */
const HUGETLBFS = 0x958458f6n;

/** Why they cannot be saved. */
export function detachedProblems(segments: readonly TreeSegment[]): Reason[] {
  const detached = segments.filter((segment) => segment.detached);
  if (detached.length === 0) return [];
  const forced = Deno.readTextFileSync(RMID_FORCED).trim() !== "0";
  return detached.flatMap(({ id }): Reason[] => {
    const object = `${nameOf("segment", id)}, to which no process is attached`;
    const remedy = `if nothing needs it: ipcrm --shmem-id ${id}`;
    if (forced) {
      const why = "to look at it would be its end (shm_rmid_forced)";
      return [{ object, why, remedy }];
    }
    const file = openSegment(id);
    try {
      const why = "huge pages (SHM_HUGETLB) are not supported";
      const type = fileSystemType(`/proc/self/fd/${file}`);
      return type === HUGETLBFS ? [{ object, why, remedy }] : [];
    } finally {
      close(file);
    }
  });
}

/**
 * Saves what they hold.
 *
 * @param firstPagesId number of the first page image that is free
 * @throws CkptError naming the segment
 */
export async function saveDetachedSegments(
  segments: readonly TreeSegment[],
  firstPagesId: number,
  writer: ImageWriter,
  counters: PageCounters,
): Promise<SharedContent[]> {
  const saved: SharedContent[] = [];
  for (const { id, detached } of segments) {
    if (!detached) continue;
    const file = openSegment(id);
    try {
      const pagesId = firstPagesId + saved.length;
      const image = writer.createRaw(pagesName(pagesId));
      const pages = await saveObject(file, stat(file).size, image, counters);
      saved.push({ id: BigInt(id), pagesId, pages });
    } finally {
      close(file);
    }
  }
  return saved;
}

/** @returns a descriptor of what a segment holds; ckpt is not attached any more */
function openSegment(id: number): number {
  return attemptSysv(`reading ${nameOf("segment", id)}`, () => {
    const memory = syscall("shmat", BigInt(id), 0n, SHM_RDONLY);
    try {
      const { start, end } = readMaps(Deno.pid).find(({ start }) =>
        start === Number(memory)
      )!;
      const range = `${start.toString(16)}-${end.toString(16)}`;
      return open(`/proc/self/map_files/${range}`, O.RDONLY);
    } finally {
      syscall("shmdt", memory);
    }
  });
}
