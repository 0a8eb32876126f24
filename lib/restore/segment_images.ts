/** System V segments as the images have them. */
import { CkptError, EXIT } from "../error.ts";
import type { ImageSet } from "../image/image_set.ts";
import { imageName, type Pagemap } from "../image/kinds.ts";
import type { SavedSegment } from "../mm/sysv_segments.ts";

export interface SegmentImage extends SavedSegment {
  /** What it held. */
  readonly pagemap: Pagemap;
}

/**
 * Those of the ipc namespace that the tree was in, by their ids.
 *
 * @throws CkptError refused, for what only images of CRIU have
 */
export function readSegments(set: ImageSet): Map<bigint, SegmentImage> {
  const [root] = set.require("pstree", undefined);
  const namespace = set.read("ids", root.pid)?.ipc_ns_id;
  if (namespace === undefined) return new Map();
  const extensions = new Map(
    (set.read("ckpt-segments", undefined) ?? []).map((one) => [one.id, one]),
  );
  const segments = set.read("ipcns-shm", namespace) ?? [];
  return new Map(segments.map(({ desc, size, in_pagemaps }, i) => {
    const { id, key } = desc;
    if (!in_pagemaps) {
      throw new CkptError(EXIT.refused, `restoring from ${set.directory}`, [{
        object: `${imageName("ipcns-shm", namespace)}, entry ${i}`,
        why: "content of a System V segment that is not stored as pages is " +
          "not supported",
      }]);
    }
    const extension = extensions.get(id);
    return [BigInt(id), {
      ...desc,
      size,
      changed: extension?.changed,
      madeWithKey: extension?.made_with_key ?? key,
      attachedOutside: extension?.attached_outside ?? false,
      pagemap: set.require("pagemap-shmem", BigInt(id)),
    }];
  }));
}
