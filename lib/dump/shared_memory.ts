/** The content of shared anonymous memory, each object once. */
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
  /** Inode number of the object, which the areas name. */
  id: bigint;
  pagesId: number;
  pages: StoredPages;
}

/**
 * Saves every object that an area of the processes shows, once. All of them lie
 * in one file system of the kernel's (shm_mnt in mm/shmem.c), so that the inode
 * alone tells them apart.
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
  for (const { pid, vmas } of processes) {
    for (const { content, inode, link } of vmas) {
      if (content !== "object" || seen.has(inode)) continue;
      seen.add(inode);
      const path = `/proc/${pid}/map_files/${link}`;
      const pagesId = firstPagesId + saved.length;
      const pages = await saveObject(
        path,
        writer.createRaw(pagesName(pagesId)),
        counters,
      );
      saved.push({ id: inode, pagesId, pages });
    }
  }
  return saved;
}

async function saveObject(
  path: string,
  image: string,
  counters: PageCounters,
): Promise<StoredPages> {
  const object = open(path, O.RDONLY);
  const out = open(image, O.WRONLY);
  try {
    return await copyObjectPages(object, stat(object).size, out, counters);
  } finally {
    close(object);
    close(out);
  }
}

export function sharedMemoryImage({ pagesId, pages }: SharedContent): Pagemap {
  return { pages_id: pagesId, entries: pages.entries };
}
