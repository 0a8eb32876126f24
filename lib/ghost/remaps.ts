/** What the images say about files whose path does not lead to them. */
import { CkptError, EXIT } from "../error.ts";
import { type GhostImage, readGhost } from "../image/ghost.ts";
import type { ImageSet } from "../image/image_set.ts";
import { imageName } from "../image/kinds.ts";
import {
  type ckpt_ghost_entry,
  type file_entry,
  type reg_file_entry,
  remap_type,
} from "../image/schema.gen.ts";
import type { Attributes } from "./attributes.ts";

/** What is opened in the stead of a file's path. */
export type Remap =
  | { readonly kind: "ghost"; readonly id: number }
  | { readonly kind: "link"; readonly link: reg_file_entry };

export interface Ghost {
  readonly image: GhostImage;
  readonly attributes: Attributes;
  readonly extension: ckpt_ghost_entry;
}

/** An old way to say that a number is that of a ghost. */
const GHOST_BIT = 0x80000000;

/**
 * Tasks that had ended and that files below /proc tell of, each with the
 * process that it was a thread of: itself, or one of the tree.
 *
 * @param set validated
 */
export function readEndedTasks(
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
): ReadonlyMap<number, number> {
  return new Map(
    (set.read("remap-fpath", undefined) ?? []).flatMap((entry) => {
      if (entry.remap_type !== remap_type.PROCFS) return [];
      const name = files.get(entry.orig_id)!.reg!.name;
      const found = /^\/proc\/(\d+)\/task\/(\d+)(\/|$)/.exec(name);
      const isThread = Number(found?.[2]) === entry.remap_id;
      return [[entry.remap_id, isThread ? Number(found![1]) : entry.remap_id]];
    }),
  );
}

/**
 * @param set validated
 * @returns by the ids of the files
 */
export function readRemaps(
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
): ReadonlyMap<number, Remap> {
  const remaps = new Map<number, Remap>();
  for (const entry of set.read("remap-fpath", undefined) ?? []) {
    const { orig_id, remap_id, remap_type: type } = entry;
    if (type === remap_type.PROCFS) continue; // see readEndedTasks
    if (
      type === remap_type.GHOST ||
      type === undefined && (remap_id & GHOST_BIT) !== 0
    ) {
      remaps.set(orig_id, { kind: "ghost", id: (remap_id & ~GHOST_BIT) >>> 0 });
    } else {
      remaps.set(orig_id, { kind: "link", link: files.get(remap_id)!.reg! });
    }
  }
  return remaps;
}

const NANOSECONDS = 1000;

export class Ghosts {
  readonly #extensions: ReadonlyMap<number, ckpt_ghost_entry>;

  /** @param set validated */
  constructor(readonly set: ImageSet) {
    this.#extensions = new Map(
      (set.read("ckpt-ghosts", undefined) ?? []).map((entry) =>
        [entry.ghost_id, entry] as const
      ),
    );
  }

  /** @throws CkptError when the image is missing or damaged */
  read(id: number): Ghost {
    return this.describe(id, readGhost(this.set, id));
  }

  /**
   * @param image of that number
   * @throws CkptError when it cannot be right
   */
  describe(id: number, image: GhostImage): Ghost {
    const { entry } = image;
    const extension = this.#extensions.get(id) ??
      { ghost_id: id, xattrs: [], allocated: [] };
    const time = (
      value: typeof entry.atim,
      rest: number | undefined,
      field: string,
    ) => {
      if (value === undefined) return undefined;
      const nanoseconds = Number(value.tv_usec) * NANOSECONDS + (rest ?? 0);
      if (nanoseconds >= 1e9 || (rest ?? 0) >= NANOSECONDS) {
        const { directory } = this.set;
        throw new CkptError(EXIT.image, `restoring from ${directory}`, [{
          object: `${imageName("ghost-file", id)}, entry 0, field ${field}`,
          why: "is no time",
        }]);
      }
      return { seconds: BigInt.asIntN(64, value.tv_sec), nanoseconds };
    };
    return {
      image,
      extension,
      attributes: {
        uid: entry.uid,
        gid: entry.gid,
        mode: entry.mode,
        accessed: time(entry.atim, extension.atime_ns, "atim"),
        modified: time(entry.mtim, extension.mtime_ns, "mtim"),
        xattrs: extension.xattrs,
        inodeFlags: extension.inode_flags ?? 0,
        project: extension.project ?? 0,
      },
    };
  }
}
