/** Renders the figures as plain text: a block per program, a line per figure, a column per tool. */

import type { Sample } from "./measure.ts";
import type { Summary } from "./statistics.ts";

export interface Line {
  figure: string;
  unit: "ms" | "MiB" | "KiB";
  /** Per tool; undefined where it failed. */
  values: (Summary | undefined)[];
}

export interface Block {
  title: string;
  tools: string[];
  lines: Line[];
  /** What failed, in full. */
  failures: string[];
}

/** The figures of a sample in the order of the table. */
export const FIGURES: {
  key: keyof Sample;
  figure: string;
  unit: Line["unit"];
}[] = [
  { key: "quiet", figure: "largest gap, quiet", unit: "ms" },
  { key: "stop", figure: "stop time (dump -R)", unit: "ms" },
  { key: "dumpRunningWall", figure: "dump -R, wall", unit: "ms" },
  { key: "dumpWall", figure: "dump, wall", unit: "ms" },
  { key: "dumpProcessor", figure: "dump, processor", unit: "ms" },
  { key: "restoreWall", figure: "restore -d, wall", unit: "ms" },
  { key: "dumpPeak", figure: "dump, peak memory", unit: "MiB" },
  { key: "dumpRunningPeak", figure: "dump -R, peak memory", unit: "MiB" },
  { key: "restorePeak", figure: "restore -d, peak memory", unit: "MiB" },
  { key: "imageBytes", figure: "images", unit: "MiB" },
  { key: "spaceBytes", figure: "images, space they take", unit: "MiB" },
  { key: "memoryBefore", figure: "program's memory before", unit: "MiB" },
  { key: "memoryAfter", figure: "program's memory after", unit: "MiB" },
];

const DIVISOR = { ms: 1, MiB: 2 ** 20, KiB: 2 ** 10 };

function number(value: number): string {
  return value.toFixed(
    Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0,
  );
}

function cell(value: Summary | undefined, unit: Line["unit"]): string {
  if (value === undefined) return "failed";
  const [median, least, most] = [value.median, value.least, value.most]
    .map((bytes) => number(bytes / DIVISOR[unit]));
  return least === most ? median : `${median} (${least}-${most})`;
}

/** The first tool's median by this one's: below 1 the first needs less. */
function ratio(
  first: Summary | undefined,
  other: Summary | undefined,
): string {
  return first && other && other.median > 0
    ? (first.median / other.median).toFixed(2)
    : "-";
}

/** Medians with (least-most), and after each further tool the ratio of the first tool to it. */
export function render({ title, tools, lines, failures }: Block): string {
  const head = [title, "", tools[0]]
    .concat(tools.slice(1).flatMap((tool) => [tool, "ratio"]));
  const rows = lines.map(({ figure, unit, values }) =>
    [`  ${figure}`, unit, cell(values[0], unit)].concat(
      values.slice(1).flatMap((value) => [
        cell(value, unit),
        ratio(values[0], value),
      ]),
    )
  );
  const widths = head.map((_, column) =>
    Math.max(...[head, ...rows].map((row) => row[column].length))
  );
  const text = [head, ...rows].map((row) =>
    row.map((cell, column) =>
      column < 2 ? cell.padEnd(widths[column]) : cell.padStart(widths[column])
    ).join("  ").trimEnd()
  );
  return text.concat(failures.map((failure) => `  failed: ${failure}`))
    .join("\n");
}
