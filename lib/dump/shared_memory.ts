/**
 * The content of shared anonymous memory and System V segments, each object
 * once.
 */
import { close, O, open, stat } from "../ffi/syscall.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { type Pagemap, pagesName } from "../image/kinds.ts";
import {
  copyObjectPages,
  type PageCounters,
  type StoredPages,
} from "../mm/page_copy.ts";
import type { Vma } from "../mm/vma.ts";

export interface SharedContent {
  /** Number of the object in the images, which its areas have as `shmid`. */
  id: bigint;
  pagesId: number;
  pages: StoredPages;
}

/**
 * Saves every object that an area of the processes shows, once, and gives the
 * areas its number. All of a kind lie in one file system of the kernel's
 * (shm_mnt in mm/shmem.c), so that the inode alone tells them apart.
 *
 * @param processes of one tree, all stopped
 * @param firstPagesId number of the first page image that is free
 */
export async function saveSharedMemory(
  processes: readonly { pid: number; vmas: readonly Vma[] }[],
  firstPagesId: number,
  writer: ImageWriter,
  counters: PageCounters,
): Promise<SharedContent[]> {
  const saved: SharedContent[] = [];
  const seen = new Set<bigint>();
  const segments = new Set(
    processes.flatMap(({ vmas }) => vmas)
      .filter(({ segmentKey }) => segmentKey !== undefined)
      .map(({ inode }) => inode),
  );
  for (const { pid, vmas } of processes) {
    for (const vma of vmas) {
      if (vma.content !== "object") continue;
      const id = vma.entry.shmid = objectNumber(vma, segments);
      if (seen.has(id)) continue;
      seen.add(id);
      const object = open(`/proc/${pid}/map_files/${vma.link}`, O.RDONLY);
      try {
        const pagesId = firstPagesId + saved.length;
        const { size } = stat(object);
        const image = writer.createRaw(pagesName(pagesId));
        const pages = await saveObject(object, size, image, counters);
        saved.push({ id, pagesId, pages });
      } finally {
        close(object);
      }
    }
  }
  return saved;
}

/** Ids of segments are smaller: they have 31 bits. */
const NO_SEGMENT = 1n << 32n;

/**
 * The id of a segment, the inode of anything else: but both name a
 * pagemap-shmem image, so that an inode gives way to an equal id.
 */
function objectNumber(
  { inode, segmentKey }: Vma,
  segments: ReadonlySet<bigint>,
): bigint {
  return segmentKey === undefined && segments.has(inode)
    ? inode + NO_SEGMENT
    : inode;
}

/**
 * Copies the content of an object into a page image that is empty yet.
 *
 * @param object descriptor of it
 */
export async function saveObject(
  object: number,
  size: bigint,
  image: string,
  counters: PageCounters,
): Promise<StoredPages> {
  const out = open(image, O.WRONLY);
  try {
    return await copyObjectPages(object, size, out, counters);
  } finally {
    close(out);
  }
}

export function sharedMemoryImage({ pagesId, pages }: SharedContent): Pagemap {
  return { pages_id: pagesId, entries: pages.entries };
}
