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

/** @param firstPagesId number of the first page image that is free */
export async function saveSharedMemory(
  pid: number,
  vmas: readonly Vma[],
  firstPagesId: number,
  writer: ImageWriter,
  counters: PageCounters,
): Promise<SharedContent[]> {
  const saved: SharedContent[] = [];
  const seen = new Set<bigint>();
  for (const { content, inode, link } of vmas) {
    if (content !== "object" || seen.has(inode)) continue;
    seen.add(inode);
    const pagesId = firstPagesId + saved.length;
    const object = open(`/proc/${pid}/map_files/${link}`, O.RDONLY);
    const out = open(writer.createRaw(pagesName(pagesId)), O.WRONLY);
    try {
      const { size } = stat(object);
      saved.push({
        id: inode,
        pagesId,
        pages: await copyObjectPages(object, size, out, counters),
      });
    } finally {
      close(object);
      close(out);
    }
  }
  return saved;
}

export function sharedMemoryImage({ pagesId, pages }: SharedContent): Pagemap {
  return { pages_id: pagesId, entries: pages.entries };
}
