/** `ckpt show`: an image as text for people, or all of it as JSON. */
import { readImageSet } from "../image/image_set.ts";
import {
  type ImageSummary,
  showAll,
  summarize,
  type TaskSummary,
} from "../image/show.ts";
import type { ShowOptions } from "./options.ts";
import { printable, toJson } from "./render_error.ts";

/**
 * @returns what to print
 * @throws CkptError when an image is missing or damaged
 */
export async function show(options: ShowOptions): Promise<string> {
  const set = await readImageSet(options.imagesDirectory);
  const summary = summarize(set);
  if (!options.json) return renderSummary(summary);
  // Printed when all of it is known: a damaged file must not leave half of a
  // document behind. A file at a time, to hold no second copy as objects.
  const files: string[] = [];
  for (const file of showAll(set)) files.push(toJson(file));
  const head = toJson({ result: summary }).slice(0, -"}}".length);
  return `${head},"files":[${files.join(",")}]}}\n`;
}

const COLUMNS: readonly {
  title: string;
  of: (task: TaskSummary) => string;
  left?: boolean;
}[] = [
  { title: "PID", of: (task) => `${task.pid}` },
  { title: "PPID", of: (task) => `${task.ppid}` },
  { title: "PGID", of: (task) => `${task.pgid}` },
  { title: "SID", of: (task) => `${task.sid}` },
  { title: "STATE", of: (task) => task.state, left: true },
  { title: "THREADS", of: (task) => `${task.threads}` },
  { title: "FDS", of: (task) => `${task.descriptors}` },
  { title: "AREAS", of: (task) => `${task.areas}` },
  { title: "MAPPED", of: (task) => formatBytes(task.mapped_bytes) },
  { title: "STORED", of: (task) => formatBytes(task.stored_bytes) },
  { title: "NAME", of: (task) => task.name, left: true },
  { title: "PROGRAM", of: (task) => task.program ?? "-", left: true },
];

/** What the image is, then a table with a line for every task. */
export function renderSummary(summary: ImageSummary): string {
  const maker = summary.ckpt_version === undefined
    ? "CRIU"
    : `ckpt ${summary.ckpt_version}`;
  const pages = formatBytes(summary.page_bytes);
  const lines = [
    `${summary.directory}: an image made by ${maker}, ${summary.created}`,
    `${formatBytes(summary.image_bytes)}, ${pages} of it pages; ` +
    `${summary.open_files} open files`,
  ];
  if (summary.needs.length > 0) {
    lines.push(`needs ${summary.needs.join(", ")}`);
  }
  const rows = [
    COLUMNS.map(({ title }) => title),
    ...summary.tasks.map((task) =>
      COLUMNS.map(({ of }) => printable(of(task)))
    ),
  ];
  const widths = COLUMNS.map((_, i) =>
    rows.reduce((width, row) => Math.max(width, row[i].length), 0)
  );
  const table = rows.map((row) =>
    row.map((cell, i) =>
      COLUMNS[i].left ? cell.padEnd(widths[i]) : cell.padStart(widths[i])
    ).join("  ").trimEnd()
  );
  return [...lines.map(printable), "", ...table, ""].join("\n");
}

/** "0 B", "4.0 KiB", "1.5 GiB". */
export function formatBytes(bytes: number): string {
  const units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
  if (bytes < 1024) return `${bytes} B`;
  let value = bytes / 1024;
  let unit = 0;
  // Not 1024: what rounds to 1024.0 belongs to the next unit.
  while (value >= 1023.95 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${value.toFixed(1)} ${units[unit]}`;
}
