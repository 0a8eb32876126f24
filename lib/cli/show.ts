/** `ckpt show`: an image as text for people, or all of it as JSON. */
import { readImageSet } from "../image/image_set.ts";
import {
  type ImageSummary,
  showAll,
  summarize,
  type TaskSummary,
} from "../image/show.ts";
import { formatBytes } from "./format_bytes.ts";
import type { ShowOptions } from "./options.ts";
import { printable, toJson } from "./render_error.ts";
import { signalName } from "./signal_name.ts";

/**
 * @returns what to print
 * @throws CkptError when an image is missing or damaged
 */
export async function show(options: ShowOptions): Promise<string> {
  const set = readImageSet(options.imagesDirectory);
  if (options.mounts) {
    const { showMounts } = await import("./show_mounts.ts");
    return showMounts(set);
  }
  const summary = {
    ...summarize(set),
    ...await madeElsewhere(set.directory),
  };
  if (!options.json) return renderSummary(summary);
  // Printed when all of it is known: a damaged file must not leave half of a
  // document behind. A file at a time, to hold no second copy as objects.
  const files: string[] = [];
  for (const file of showAll(set)) files.push(toJson(file));
  const head = toJson({ result: summary }).slice(0, -"}}".length);
  return `${head},"files":[${files.join(",")}]}}\n`;
}

/** What a dump has made outside of its images; `ckpt clean` removes it. */
export interface MadeElsewhere {
  links: string[];
  snapshots: { subvolume: string; snapshot: string }[];
}

async function madeElsewhere(directory: string): Promise<MadeElsewhere> {
  const { linksMade } = await import("../ghost/links.ts");
  const { readSnapshots } = await import("../ghost/snapshots.ts");
  return {
    links: linksMade(directory),
    snapshots: readSnapshots(directory)
      .map(({ subvolume, snapshot }) => ({ subvolume, snapshot })),
  };
}

/** A process, and how many ancestors it has in the tree. */
interface Row {
  task: TaskSummary;
  depth: number;
}

const COLUMNS: readonly {
  title: string;
  of: (task: TaskSummary, depth: number) => string;
  left?: boolean;
}[] = [
  { title: "PID", of: (task) => `${task.pid}` },
  { title: "PPID", of: (task) => `${task.ppid}` },
  { title: "PGID", of: (task) => `${task.pgid}` },
  { title: "SID", of: (task) => `${task.sid}` },
  { title: "STATE", of: stateOf, left: true },
  { title: "THREADS", of: (task) => `${task.threads}` },
  { title: "FDS", of: (task) => `${task.descriptors}` },
  { title: "AREAS", of: (task) => `${task.areas}` },
  { title: "MAPPED", of: (task) => formatBytes(task.mapped_bytes) },
  { title: "STORED", of: (task) => formatBytes(task.stored_bytes) },
  {
    title: "NAME",
    of: (task, depth) => `${indentation(depth)}${task.name}`,
    left: true,
  },
  { title: "PROGRAM", of: (task) => task.program ?? "-", left: true },
];

function stateOf({ state, ended, stopped_by }: TaskSummary): string {
  if (stopped_by !== undefined) return `stopped by ${signalName(stopped_by)}`;
  if (ended === undefined) return state;
  return "exit" in ended
    ? `exited with ${ended.exit}`
    : `killed by ${signalName(ended.signal)}`;
}

/** Deeper ones stand where these do: lines stay short enough to be read. */
const DEEPEST = 20;

function indentation(depth: number): string {
  return "  ".repeat(Math.min(depth, DEEPEST));
}

/**
 * Every process followed by its descendants. Those of whom an image that was
 * not checked does not tell whose children they are come last.
 */
function inFamilies(tasks: readonly TaskSummary[]): Row[] {
  const children = Map.groupBy(tasks, ({ ppid }) => ppid);
  const pids = new Set(tasks.map(({ pid }) => pid));
  const rows = new Map<TaskSummary, Row>();
  const waiting: Row[] = tasks.filter(({ ppid }) => !pids.has(ppid))
    .map((task) => ({ task, depth: 0 })).reverse();
  for (let row = waiting.pop(); row !== undefined; row = waiting.pop()) {
    const { task, depth } = row;
    if (rows.has(task)) continue;
    rows.set(task, row);
    for (const child of (children.get(task.pid) ?? []).toReversed()) {
      waiting.push({ task: child, depth: depth + 1 });
    }
  }
  const lost = tasks.filter((task) => !rows.has(task));
  return [...rows.values(), ...lost.map((task) => ({ task, depth: 0 }))];
}

/** What the image is, then a table with a line for every process. */
export function renderSummary(
  summary: ImageSummary & Partial<MadeElsewhere>,
): string {
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
  const own = Object.entries(summary.namespaces)
    .map(([kind, count]) => count === 1 ? kind : `${kind} (${count})`);
  if (own.length > 0) lines.push(`namespaces of its own: ${own.join(", ")}`);
  for (const link of summary.links ?? []) {
    lines.push(`link until ckpt clean: ${link}`);
  }
  for (const { subvolume, snapshot } of summary.snapshots ?? []) {
    lines.push(`snapshot of ${subvolume} until ckpt clean: ${snapshot}`);
  }
  const rows = [
    COLUMNS.map(({ title }) => title),
    ...inFamilies(summary.tasks).map(({ task, depth }) =>
      COLUMNS.map(({ of }) => printable(of(task, depth)))
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
