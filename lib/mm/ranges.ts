/** Sets of addresses as ascending ranges that do not touch each other. Pure. */

/** [start, end) */
export interface Range {
  readonly start: bigint;
  readonly end: bigint;
}

/** What is in both sets; a range is cut where either of the two ends. */
export function intersection(
  a: readonly Range[],
  b: readonly Range[],
): Range[] {
  const found: Range[] = [];
  for (let i = 0, k = 0; i < a.length && k < b.length;) {
    const start = a[i].start > b[k].start ? a[i].start : b[k].start;
    const end = a[i].end < b[k].end ? a[i].end : b[k].end;
    if (start < end) found.push({ start, end });
    if (a[i].end < b[k].end) i++;
    else k++;
  }
  return found;
}

/** What is in the first set, but not in the second. */
export function difference(a: readonly Range[], b: readonly Range[]): Range[] {
  const left: Range[] = [];
  let k = 0;
  for (const { start, end } of a) {
    while (k < b.length && b[k].end <= start) k++;
    let at = start;
    for (let i = k; i < b.length && b[i].start < end; i++) {
      if (b[i].start > at) left.push({ start: at, end: b[i].start });
      if (b[i].end > at) at = b[i].end;
    }
    if (at < end) left.push({ start: at, end });
  }
  return left;
}

/** Ascending ranges, those that touch made one. */
export function joined(ranges: readonly Range[]): Range[] {
  const found: { start: bigint; end: bigint }[] = [];
  for (const { start, end } of ranges) {
    const last = found.at(-1);
    if (last !== undefined && last.end >= start) {
      if (end > last.end) last.end = end;
    } else {
      found.push({ start, end });
    }
  }
  return found;
}
