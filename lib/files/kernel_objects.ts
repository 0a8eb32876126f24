/** The kinds of kernel objects without a name that descriptors stand for. */
import { type FileStatus, O } from "../ffi/syscall.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { type DescriptorPlace, nameOf } from "./description_index.ts";
import {
  type AreWatched,
  Candidates,
  type Epoll,
  parseEpoll,
  type Watched,
} from "./epoll.ts";
import { type Eventfd, parseEventfd } from "./eventfd.ts";
import { type Fanotify, parseFanotify } from "./fanotify.ts";
import { type Inotify, parseInotify } from "./inotify.ts";
import { parseSignalfd, type Signalfd } from "./signalfd.ts";
import { parseTimerfd, type Timerfd } from "./timerfd.ts";
import { sorted } from "./sorted_descriptors.ts";
import { FANOTIFY_LINK, INOTIFY_LINK } from "./watched_files.ts";

export type KernelObject =
  | Eventfd
  | Timerfd
  | Signalfd
  | Epoll
  | Inotify
  | Fanotify;

/** A descriptor, as far as it matters here. */
interface Seen {
  readonly fd: number;
  readonly link: string;
  readonly info: FdInfo;
  readonly status: FileStatus;
  /** One that was seen before and has the same open file description. */
  readonly sameAs: DescriptorPlace | undefined;
}

export const TIMERFD_LINK = "anon_inode:[timerfd]";
export const EPOLL_LINK = "anon_inode:[eventpoll]";

const PARSERS: Readonly<
  Record<string, (details: readonly string[]) => KernelObject>
> = {
  "anon_inode:[eventfd]": parseEventfd,
  [TIMERFD_LINK]: parseTimerfd,
  "anon_inode:[signalfd]": parseSignalfd,
  [EPOLL_LINK]: parseEpoll,
  [INOTIFY_LINK]: parseInotify,
  [FANOTIFY_LINK]: parseFanotify,
};

/** Whether such a link leads to one of them. */
export function isKernelObject(link: string): boolean {
  return Object.hasOwn(PARSERS, link);
}

/**
 * What fdinfo tells of it; undefined: it is none of them.
 *
 * @throws CkptError when it tells something unknown
 */
export function parseKernelObject(
  { link, info }: Pick<Seen, "link" | "info">,
): KernelObject | undefined {
  if (!isKernelObject(link)) return undefined;
  let object = parsed.get(info);
  if (object === undefined) {
    object = PARSERS[link](info.extra);
    parsed.set(info, object);
  }
  return object;
}

/** What was parsed already: several looks have most of it in common. */
const parsed = new WeakMap<FdInfo, KernelObject>();

/**
 * What every epoll of a tree watches, by the name of the place where it was
 * first seen; undefined for a file that nobody in the tree has open.
 */
export type WatchedFiles = ReadonlyMap<
  string,
  readonly (Watched | undefined)[]
>;

/**
 * The epolls that seem to watch a file which nobody has open, as a text that is
 * the same when nothing has changed; "": there is none.
 */
export function unclearEpolls(watched: WatchedFiles): string {
  return [...watched].filter(([, entries]) => entries.includes(undefined))
    .map(([place, entries]) =>
      [
        place,
        ...entries.map((entry) =>
          entry && `${entry.number} ${entry.data} ${nameOf(entry.target)}`
        ),
      ].join("; ")
    ).join("\n");
}

/**
 * Finds out what is watched.
 *
 * @param processes in the order of the tree
 * @throws SyscallError when something of it was closed meanwhile
 */
export function watchedAmong(
  processes: readonly {
    /** By which its descriptors were looked at. */
    readonly tid: number;
    readonly descriptors: readonly Seen[];
  }[],
  ask?: AreWatched,
): WatchedFiles {
  const epolls = processes.flatMap(({ tid: pid, descriptors }) =>
    sorted(descriptors).unnamed.flatMap(({ fd, link, info }) => {
      if (link !== EPOLL_LINK || (info.flags & O.PATH) !== 0) return [];
      const object = parseKernelObject({ link, info });
      if (object?.kind !== "epoll") return [];
      return [{ place: { pid, fd }, watched: object.watched }];
    })
  );
  if (epolls.length === 0) return new Map();
  const found = new Candidates(processes).resolve(epolls, ask);
  return new Map(epolls.map(({ place }, i) => [nameOf(place), found[i]]));
}
