/** Kernel objects without a name, as entries of files.img and ckpt-files.img. */
import { dumpEventfd, isBeyondEntry } from "../files/eventfd.ts";
import { dumpEpoll, dumpWatched, type Watched } from "../files/epoll.ts";
import { numberOf } from "../files/description_index.ts";
import type { Description } from "../files/descriptors.ts";
import type { FileTable } from "../files/file_table.ts";
import { dumpFanotify } from "../files/fanotify.ts";
import { dumpInotify } from "../files/inotify.ts";
import { KINDS } from "../files/kinds.ts";
import { dumpSignalfd } from "../files/signalfd.ts";
import { dumpTimerfd } from "../files/timerfd.ts";
import { O } from "../ffi/syscall.ts";
import type { FoundTarget } from "../ghost/watch_targets.ts";
import type { Feature } from "../image/features.ts";
import {
  type ckpt_file_entry,
  type ckpt_watches_entry,
  type fdinfo_entry,
  type file_entry,
} from "../image/schema.gen.ts";

/**
 * The entry of an object; what an epoll watches comes later, and the files of
 * watches that have no path.
 */
export function describeObject(
  id: number,
  { object, flags, owner, targets = [] }: Description,
): file_entry {
  const { type } = KINDS[object!.kind];
  switch (object!.kind) {
    case "eventfd":
      return { type, id, efd: dumpEventfd(id, object!, flags, owner) };
    case "timerfd":
      return { type, id, tfd: dumpTimerfd(id, object!, flags, owner) };
    case "signalfd":
      return { type, id, sgfd: dumpSignalfd(id, object!, flags, owner) };
    case "epoll":
      return { type, id, epfd: dumpEpoll(id, [], flags, owner) };
    case "inotify": {
      const paths = targets.map(pathOf);
      return { type, id, ify: dumpInotify(id, object!, paths, flags, owner) };
    }
    case "fanotify": {
      const paths = targets.map(pathOf);
      const { entry } = dumpFanotify(id, object!, paths, flags, owner);
      return { type, id, ffy: entry };
    }
  }
}

function pathOf(target: FoundTarget): string | undefined {
  return target.kind === "path" ? target.path : undefined;
}

/** A process with what it has open, as described. */
export interface DescribedTable {
  readonly descriptions: readonly Description[];
  readonly descriptors: readonly fdinfo_entry[];
}

export interface DescribedObjects {
  readonly extensions: ckpt_file_entry[];
  readonly watches: ckpt_watches_entry[];
  readonly features: ReadonlySet<Feature>;
}

/**
 * Fills in what every epoll watches, and tells what CRIU's entries do not.
 *
 * @param tables all processes in the order of the tree, when all files have
 * their entries
 */
export function describeObjects(
  tables: readonly DescribedTable[],
  files: FileTable,
): DescribedObjects {
  const extensions: ckpt_file_entry[] = [];
  const watches: ckpt_watches_entry[] = [];
  const features = new Set<Feature>();
  // Only for those that watch others.
  let idAt: ReadonlyMap<number, number> | undefined;
  const done = new Set<number>();
  for (const { descriptions, descriptors } of tables) {
    let numbers: TableNumbers | undefined;
    for (const description of descriptions) {
      const { object } = description;
      if (object === undefined) continue;
      const id = files.idOf(description);
      if (done.has(id)) continue;
      done.add(id);
      if (object.kind === "eventfd" && isBeyondEntry(object)) {
        features.add("ckpt:eventfd");
        if (object.semaphore) {
          extensions.push({ id, semaphore: true, watched: [] });
        }
      }
      if (object.kind === "inotify" || object.kind === "fanotify") {
        const entry = describeWatches(id, description, files);
        const { targets, filesystems, lost_events } = entry;
        const isBeyond = targets.length + filesystems.length > 0;
        if (isBeyond) features.add("ckpt:watches");
        if (lost_events) features.add("ckpt:lost-events");
        if (isBeyond || lost_events) watches.push(entry);
      }
      if (object.kind !== "epoll") continue;
      const ids = idAt ??= idsByPlace(tables, files);
      const { tfd, watched, isWhole } = describeWatched(
        description.watched!,
        ({ target }) => ids.get(numberOf(target))!,
        numbers ??= new TableNumbers(descriptors),
      );
      files.entry(id).epfd!.tfd = tfd;
      const { busyPolling: busy_polling } = description;
      if (watched.length > 0 || busy_polling !== undefined) {
        extensions.push({ id, watched, busy_polling });
      }
      if (!isWhole) features.add("ckpt:watched");
    }
  }
  return { extensions, watches, features };
}

/** What is watched that inotify_file_entry and fanotify_file_entry lack. */
function describeWatches(
  id: number,
  { object, flags, owner, targets = [], unread }: Description,
  files: FileTable,
): ckpt_watches_entry {
  const { filesystems, indices } = object?.kind === "fanotify"
    ? dumpFanotify(id, object, targets.map(pathOf), flags, owner)
    : { filesystems: [], indices: [...targets.keys()] };
  return {
    id,
    targets: indices.flatMap((i, index) => {
      const target = targets[i];
      if (target.kind !== "lost") return [];
      const { link, status } = target.used;
      return [{
        index,
        file: files.addReached(link, O.PATH | O.NOFOLLOW, status),
      }];
    }),
    filesystems,
    lost_events: unread || undefined,
  };
}

/** The files by the places where they were first seen. */
function idsByPlace(
  tables: readonly DescribedTable[],
  files: FileTable,
): ReadonlyMap<number, number> {
  const ids = new Map<number, number>();
  for (const { descriptions } of tables) {
    for (const description of descriptions) {
      const key = numberOf(description.place);
      if (!ids.has(key)) ids.set(key, files.idOf(description));
    }
  }
  return ids;
}

/** Which numbers a process has for files, and which files by numbers. */
class TableNumbers {
  readonly ids = new Map<number, number>();
  readonly firsts = new Map<number, number>();

  constructor(descriptors: readonly fdinfo_entry[]) {
    for (const { fd, id } of descriptors) {
      this.ids.set(fd, id);
      if (!this.firsts.has(id)) this.firsts.set(id, fd);
    }
  }
}

/**
 * @param table of the first process that has the epoll: by its numbers CRIU
 * finds what is watched
 */
function describeWatched(
  entries: readonly Watched[],
  idOf: (watched: Watched) => number,
  { ids, firsts }: TableNumbers,
) {
  const watched: ckpt_file_entry["watched"] = [];
  let isWhole = true;
  const tfd = entries.map((entry, index) => {
    const { number } = entry;
    const file = idOf(entry);
    if (ids.get(number) === file) return dumpWatched(entry, number);
    watched.push({ index, number, file });
    const other = firsts.get(file);
    // What CRIU makes of another number is as near as it comes.
    isWhole &&= other !== undefined;
    return dumpWatched(entry, other ?? number);
  });
  return { tfd, watched, isWhole };
}
