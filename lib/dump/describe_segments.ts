/** System V segments as the images have them. */
import type { Entry } from "../image/kinds.ts";
import type { ckpt_segment_entry } from "../image/schema.gen.ts";
import type { TreeSegment } from "../mm/sysv_segments.ts";

export interface DescribedSegments {
  readonly shm: Entry<"ipcns-shm">[];
  readonly extensions: ckpt_segment_entry[];
}

/** What they hold is written as that of other shared memory, by their ids. */
export function describeSegments(
  segments: readonly TreeSegment[],
): DescribedSegments {
  return {
    shm: segments.map(({ id, key, uid, gid, cuid, cgid, mode, size }) => ({
      desc: { key, uid, gid, cuid, cgid, mode, id },
      size,
      in_pagemaps: true,
    })),
    extensions: segments.map((segment) => ({
      id: segment.id,
      changed: segment.changed,
      made_with_key: segment.madeWithKey === segment.key
        ? undefined
        : segment.madeWithKey,
      attached_outside: segment.attachedOutside || undefined,
    })),
  };
}
