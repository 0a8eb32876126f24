/**
 * The record of pages that a child shared with its parent at the dump, in the
 * image: from what was seen there, and to what a restore may rely on. Pure.
 */
import { PAGE_SIZE } from "../image/pagemap.ts";
import type { ckpt_inherited_entry } from "../image/schema.gen.ts";
import type { StoredPages } from "./page_copy.ts";
import { joined, type Range } from "./ranges.ts";

/** @returns undefined when nothing was shared */
export function describeInherited(
  { inherited }: StoredPages,
): ckpt_inherited_entry | undefined {
  return inherited.length === 0 ? undefined : { ranges: joined(inherited) };
}

/** Whole pages in ascending order, whatever the image says. */
export function inheritedRanges(
  entry: ckpt_inherited_entry | undefined,
): Range[] {
  const page = BigInt(PAGE_SIZE);
  const ranges = (entry?.ranges ?? []).map(({ start, end }) => ({
    start: (start + page - 1n) / page * page,
    end: end / page * page,
  })).filter(({ start, end }) => start < end);
  return joined(ranges.sort((a, b) => a.start < b.start ? -1 : 1));
}
