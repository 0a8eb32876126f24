/** What ckpt-files.img tells of kernel objects beyond their entries. */
import type { Reason } from "../error.ts";
import type { ImageSet } from "../image/image_set.ts";
import {
  type ckpt_watched_entry,
  fd_types,
  type fdinfo_entry,
  type file_entry,
} from "../image/schema.gen.ts";
import { eventfdProblem } from "./eventfd.ts";
import { timerfdProblem } from "./timerfd.ts";

export interface ObjectImages {
  /** Ids of eventfds that are semaphores. */
  readonly semaphores: ReadonlySet<number>;
  /** How epolls poll busily, by their ids. */
  readonly busyPolling: ReadonlyMap<number, Uint8Array>;
  /** By the ids of epolls and the places in their lists. */
  readonly watched: ReadonlyMap<
    number,
    ReadonlyMap<number, Pick<ckpt_watched_entry, "number" | "file">>
  >;
}

export const NO_OBJECTS: ObjectImages = {
  semaphores: new Set(),
  busyPolling: new Map(),
  watched: new Map(),
};

/** @param set validated */
export function readObjectImages(set: ImageSet): ObjectImages {
  const all = set.read("ckpt-files", undefined) ?? [];
  return {
    semaphores: new Set(
      all.filter(({ semaphore }) => semaphore).map(({ id }) => id),
    ),
    busyPolling: new Map(
      all.flatMap(({ id, busy_polling }) =>
        busy_polling === undefined ? [] : [[id, busy_polling] as const]
      ),
    ),
    watched: new Map(
      all.map(({ id, watched }) => [
        id,
        new Map(watched.map((entry) => [entry.index, entry])),
      ]),
    ),
  };
}

/** A file that an epoll watches. */
export interface WatchedFile {
  /** The number it is added by. */
  readonly number: number;
  readonly events: number;
  readonly data: bigint;
  /** The id of its entry. */
  readonly file: number;
}

/** What an epoll watches, and the process that adds it. */
export interface EpollPlan {
  readonly pid: number;
  readonly watched: readonly WatchedFile[];
}

/**
 * Decides for every epoll which process adds what it watches: the first that
 * has it, and has all the numbers that its entries name.
 *
 * @param tables of all processes in the order of the tree, each ascending
 * @returns by the ids of the epolls
 */
export function planEpolls(
  tables: readonly {
    readonly pid: number;
    readonly entries: readonly fdinfo_entry[];
  }[],
  files: ReadonlyMap<number, file_entry>,
  { watched }: ObjectImages,
): ReadonlyMap<number, EpollPlan> {
  const plans = new Map<number, EpollPlan>();
  for (const { pid, entries } of tables) {
    for (const { id, type } of entries) {
      if (type !== fd_types.EVENTPOLL || plans.has(id)) continue;
      const known = watched.get(id);
      const all = files.get(id)!.epfd!.tfd.map(
        ({ tfd, events, data }, index) => {
          const { number = tfd, file = entryAt(entries, tfd)?.id } =
            known?.get(index) ?? {};
          return { number, events, data, file };
        },
      );
      if (all.every(isFound)) plans.set(id, { pid, watched: all });
    }
  }
  return plans;
}

/** The entry of a number in a table, which is ascending. */
export function entryAt(
  entries: readonly fdinfo_entry[],
  fd: number,
): fdinfo_entry | undefined {
  let [from, to] = [0, entries.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (entries[middle].fd < fd) from = middle + 1;
    else to = middle;
  }
  return entries[from]?.fd === fd ? entries[from] : undefined;
}

function isFound<T extends { file: number | undefined }>(
  watched: T,
): watched is T & { file: number } {
  return watched.file !== undefined;
}

/** What the kernel would not take of eventfds and timerfds. */
export function objectProblems(
  files: ReadonlyMap<number, file_entry>,
): Reason[] {
  return [...files.values()].flatMap(({ id, efd, tfd }) => {
    const why = efd !== undefined
      ? eventfdProblem(efd)
      : tfd !== undefined
      ? timerfdProblem(tfd)
      : undefined;
    return why === undefined ? [] : [{ object: `files.img, id ${id}`, why }];
  });
}

/** The highest number by which an epoll watches a file, but at least `least`. */
export function highestWatched(
  files: ReadonlyMap<number, file_entry>,
  { watched }: ObjectImages,
  least: number,
): number {
  let highest = least;
  for (const { epfd } of files.values()) {
    for (const { tfd } of epfd?.tfd ?? []) highest = Math.max(highest, tfd);
  }
  for (const entries of watched.values()) {
    for (const { number } of entries.values()) {
      highest = Math.max(highest, number);
    }
  }
  return highest;
}
