/** Medians and extremes. */

export interface Summary {
  median: number;
  least: number;
  most: number;
  count: number;
}

/** @throws RangeError for an empty list */
export function summarize(values: number[]): Summary {
  if (values.length === 0) throw new RangeError("no values to summarize");
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return {
    median: sorted.length % 2
      ? sorted[middle]
      : (sorted[middle - 1] + sorted[middle]) / 2,
    least: sorted[0],
    most: sorted[sorted.length - 1],
    count: sorted.length,
  };
}
