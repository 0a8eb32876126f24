/** What a pagemap entry says, whichever version of the format wrote it. */

import type { pagemap_entry } from "./schema.gen.ts";
import { PAGE_FLAGS } from "./vma_status.ts";

export const PAGE_SIZE = 4096;

/** How many pages an entry covers; old images have another field for it. */
export function pageCount(entry: pagemap_entry): number {
  return entry.nr_pages === undefined
    ? entry.compat_nr_pages
    : Number(entry.nr_pages);
}

/** The flags of an entry; old images have `in_parent` instead. */
export function pageFlags(entry: pagemap_entry): number {
  if (entry.flags !== undefined) return entry.flags;
  return entry.in_parent ? PAGE_FLAGS.PARENT : PAGE_FLAGS.PRESENT;
}
