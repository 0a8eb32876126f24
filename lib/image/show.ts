/** What `ckpt show` tells about an image: a summary, or all of it as JSON. */

import type { ImageSet } from "./image_set.ts";
import {
  IMAGE_FILES,
  type ImageKind,
  imageName,
  isRawName,
  type Pagemap,
  parseImageName,
} from "./kinds.ts";
import { type Field, messageType } from "./message.ts";
import { PAGE_SIZE, pageCount, pageFlags } from "./pagemap.ts";
import { ENUMS } from "./schema.gen.ts";
import { isArea, PAGE_FLAGS } from "./vma_status.ts";

export interface TaskSummary {
  pid: number;
  ppid: number;
  pgid: number;
  sid: number;
  /** The name that ps(1) shows. */
  name: string;
  state: "alive" | "dead" | "stopped" | "unknown";
  /** How a dead one ended: its exit status, or the signal that killed it. */
  ended?: { exit: number } | { signal: number } | undefined;
  /** The signal that stopped a stopped one. */
  stopped_by?: number | undefined;
  /** The path of its program; undefined for a dead one. */
  program: string | undefined;
  directory: string | undefined;
  threads: number;
  descriptors: number;
  areas: number;
  /** The size of all its areas. */
  mapped_bytes: number;
  /** The pages that are stored in this directory. */
  stored_bytes: number;
}

export interface ImageSummary {
  directory: string;
  /** Undefined for an image that CRIU made. */
  ckpt_version: string | undefined;
  /** ISO 8601; that of the inventory's file where there is no manifest. */
  created: string;
  run_id: string | undefined;
  /** What the image needs beyond CRIU's format, or CRIU's plugins. */
  needs: string[];
  /** How many namespaces of each kind the tree had that were not the dumper's. */
  namespaces: { [kind in NamespaceKind]?: number };
  tasks: TaskSummary[];
  open_files: number;
  /** All files of the image together. */
  image_bytes: number;
  page_bytes: number;
}

/** @throws CkptError when an image it needs is damaged */
export function summarize(set: ImageSet): ImageSummary {
  const { inventory, manifest } = set;
  let image_bytes = 0;
  let page_bytes = 0;
  for (const name of set.names) {
    const raw = isRawName(name);
    if (!raw && parseImageName(name) === undefined) continue;
    const size = set.size(name) ?? 0;
    image_bytes += size;
    if (name.startsWith("pages-")) page_bytes += size;
  }
  const { mtime } = Deno.statSync(set.path(imageName("inventory")));
  return {
    directory: set.directory,
    ckpt_version: manifest?.ckpt,
    created: manifest?.created ?? mtime?.toISOString() ?? "",
    run_id: inventory.dump_criu_run_id,
    needs: inventory.plugins_entry?.plugins ?? [],
    namespaces: namespacesOf(set),
    tasks: set.require("pstree", undefined).map((entry) => {
      const { pid, ppid, pgid, sid, threads } = entry;
      const state = taskState(set, pid);
      return {
        pid,
        ppid,
        pgid,
        sid,
        name: set.read("core", pid)?.tc?.comm ?? "",
        state,
        ...endOrStop(set, pid, state),
        threads: state === "dead" ? 0 : threads.length,
        ...pathsOf(set, pid),
        ...memoryOf(set, pid),
      };
    }),
    open_files: set.read("files", undefined)?.length ?? 0,
    image_bytes,
    page_bytes,
  };
}

/** By their names in /proc/PID/ns, as fields of the images begin. */
const NAMESPACE_KINDS = [
  "user",
  "mnt",
  "pid",
  "net",
  "ipc",
  "uts",
  "time",
  "cgroup",
] as const;

type NamespaceKind = typeof NAMESPACE_KINDS[number];

function namespacesOf(set: ImageSet): ImageSummary["namespaces"] {
  const { root_ids } = set.inventory;
  const ids = set.require("pstree", undefined)
    .flatMap(({ pid }) => set.read("ids", pid) ?? []);
  const counts: ImageSummary["namespaces"] = {};
  for (const kind of NAMESPACE_KINDS) {
    const field = `${kind}_ns_id` as const;
    const own = new Set(ids.map((one) => one[field] ?? 0));
    // 0: the one of the dumper, in older images.
    for (const id of [0, root_ids?.[field] ?? 0]) own.delete(id);
    if (own.size > 0) counts[kind] = own.size;
  }
  return counts;
}

function taskState(set: ImageSet, pid: number): TaskSummary["state"] {
  const state = set.read("core", pid)?.tc?.task_state ?? 0;
  return (["unknown", "alive", "dead", "stopped"] as const)[state] ?? "unknown";
}

const SIGSTOP = 19;

function endOrStop(
  set: ImageSet,
  pid: number,
  state: TaskSummary["state"],
): Pick<TaskSummary, "ended" | "stopped_by"> {
  const { exit_code = 0, stop_signo } = set.read("core", pid)?.tc ?? {};
  if (state === "stopped") return { stopped_by: stop_signo ?? SIGSTOP };
  if (state !== "dead") return {};
  // As wait(2) gives it.
  const signal = exit_code & 0x7f;
  return { ended: signal === 0 ? { exit: exit_code >> 8 } : { signal } };
}

function pathsOf(set: ImageSet, pid: number) {
  const files = set.read("files", undefined) ?? [];
  const path = (id: number | undefined) =>
    files.find((file) => file.id === id && file.reg)?.reg?.name;
  const filesId = set.read("ids", pid)?.files_id;
  return {
    program: path(set.read("mm", pid)?.exe_file_id),
    directory: path(set.read("fs", pid)?.cwd_id),
    descriptors: filesId === undefined
      ? 0
      : set.read("fdinfo", filesId)?.length ?? 0,
  };
}

function memoryOf(set: ImageSet, pid: number) {
  const areas = set.read("mm", pid)?.vmas.filter(isArea) ?? [];
  const runs = set.read("pagemap", pid)?.entries ?? [];
  return {
    areas: areas.length,
    mapped_bytes: areas.reduce(
      (sum, vma) => sum + Number(vma.end - vma.start),
      0,
    ),
    stored_bytes: runs.filter((run) => pageFlags(run) & PAGE_FLAGS.PRESENT)
      .reduce((sum, run) => sum + pageCount(run) * PAGE_SIZE, 0),
  };
}

/** One file of an image as JSON. */
export interface ShownFile {
  name: string;
  bytes: number;
  /** Undefined for files without framing, such as pages. */
  kind?: ImageKind;
  /** The messages; a pagemap's head is the first. */
  entries?: unknown[];
}

/**
 * All files of an image, by name, one after the other. In the messages 64-bit
 * numbers are decimal strings, because readers of JSON commonly keep only 53
 * bits, bytes are base64, and enumerations are names where they have one. What
 * follows an entry in the file is its `extra`.
 * @throws CkptError when a file is damaged
 */
export function* showAll(set: ImageSet): Generator<ShownFile> {
  for (const name of [...set.names].sort()) {
    const parsed = parseImageName(name);
    if (parsed === undefined && !isRawName(name)) continue;
    const file = { name, bytes: set.size(name) ?? 0 };
    if (parsed === undefined) yield file;
    else {
      const { kind, index } = parsed;
      yield { ...file, kind, entries: entriesOf(set, kind, index) };
    }
  }
}

function entriesOf(
  set: ImageSet,
  kind: ImageKind,
  index: bigint | undefined,
): unknown[] {
  const { count, message } = IMAGE_FILES[kind];
  const content = set.require(kind, index);
  if (count === "pagemap") {
    const { pages_id, entries } = content as Pagemap;
    return [
      { pages_id },
      ...entries.map((entry) => jsonMessage(message, entry)),
    ];
  }
  const entries = count === "many" ? content as unknown[] : [content];
  return entries.map((entry) => {
    const json = jsonMessage(message, entry);
    const { extra } = entry as { extra?: unknown };
    if (extra !== undefined) json.extra = jsonExtra(extra);
    return json;
  });
}

function jsonMessage(name: string, value: unknown): Record<string, unknown> {
  const json: Record<string, unknown> = {};
  for (const field of messageType(name).fields) {
    const content = (value as Record<string, unknown>)[field.name];
    if (content === undefined) continue;
    json[field.name] = Array.isArray(content)
      ? content.map((element) => jsonValue(field, element))
      : jsonValue(field, content);
  }
  return json;
}

function jsonValue(field: Field, value: unknown): unknown {
  if (field.type === "message") return jsonMessage(field.refersTo, value);
  if (field.type === "enum") {
    const names = Object.entries(ENUMS[field.refersTo]);
    return names.find(([_, number]) => number === value)?.[0] ?? value;
  }
  if (value instanceof Uint8Array) return value.toBase64();
  return typeof value === "bigint" ? value.toString() : value;
}

function jsonExtra(extra: unknown): unknown {
  if (extra instanceof Uint8Array) return extra.toBase64();
  if (extra instanceof Uint16Array) return [...extra];
  if (typeof extra === "bigint") return extra.toString();
  if (Array.isArray(extra)) return extra.map(jsonExtra);
  if (typeof extra !== "object" || extra === null) return extra;
  return Object.fromEntries(
    Object.entries(extra).map(([name, value]) => [name, jsonExtra(value)]),
  );
}
