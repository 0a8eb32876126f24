/** Where the pages that a pagemap lists are in its page image. Pure. */
import { PAGE_SIZE, pageCount, pageFlags } from "../image/pagemap.ts";
import type { pagemap_entry } from "../image/schema.gen.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import type { Range } from "./ranges.ts";

/** The addresses that an entry covers. */
export function rangeOf(entry: pagemap_entry): Range {
  const start = entry.vaddr;
  return { start, end: start + BigInt(pageCount(entry) * PAGE_SIZE) };
}

/** Pages in the page image. */
export interface StoredRange extends Range {
  /** Where they are in the image, in bytes. */
  readonly offset: bigint;
}

/** Where the pages of a pagemap are stored. */
export function storedPages(pages: readonly pagemap_entry[]): StoredRange[] {
  const found: StoredRange[] = [];
  let offset = 0n;
  for (const entry of pages) {
    if ((pageFlags(entry) & PAGE_FLAGS.PRESENT) === 0) continue;
    const range = rangeOf(entry);
    found.push({ ...range, offset });
    offset += range.end - range.start;
  }
  return found;
}

export function bytesIn(stored: readonly StoredRange[]): bigint {
  return stored.reduce((sum, { start, end }) => sum + end - start, 0n);
}

/** Two parts with the same number of bytes, if need be of one range. */
export function halve(
  stored: readonly StoredRange[],
): [StoredRange[], StoredRange[]] {
  const pages = bytesIn(stored) / BigInt(PAGE_SIZE);
  let left = pages / 2n * BigInt(PAGE_SIZE);
  const first: StoredRange[] = [];
  const second: StoredRange[] = [];
  for (const range of stored) {
    const size = range.end - range.start;
    const taken = size < left ? size : left;
    left -= taken;
    const middle = range.start + taken;
    if (taken > 0n) first.push({ ...range, end: middle });
    if (taken < size) {
      second.push({ ...range, start: middle, offset: range.offset + taken });
    }
  }
  return [first, second];
}
