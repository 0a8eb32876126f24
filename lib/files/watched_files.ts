/** The files that the inotify and fanotify descriptors of a tree watch. */
import { type FileStatus, O } from "../ffi/syscall.ts";
import type { FilesInUse } from "../ghost/files_in_use.ts";
import { HostFileSystems } from "../ghost/host_file_systems.ts";
import {
  findTargets,
  type FoundTarget,
  type FoundTargets,
  type SearchOptions,
  targetKey,
  type WatchedInode,
} from "../ghost/watch_targets.ts";
import type { FdInfo } from "../proc/fdinfo.ts";
import { type DescriptorPlace, nameOf } from "./description_index.ts";
import { type Fanotify, fanotifyRefusal, parseFanotify } from "./fanotify.ts";
import { type Inotify, parseInotify } from "./inotify.ts";
import { sorted } from "./sorted_descriptors.ts";

export const INOTIFY_LINK = "anon_inode:inotify";
export const FANOTIFY_LINK = "anon_inode:[fanotify]";

/** A descriptor, as far as it matters here. */
interface Seen {
  readonly fd: number;
  readonly link: string;
  readonly info: FdInfo;
  readonly status: Pick<FileStatus, "mode">;
  readonly sameAs: DescriptorPlace | undefined;
}

/** What a descriptor watches, and what that was found to be. */
export interface KnownWatcher {
  /** What fdinfo told. */
  readonly details: readonly string[];
  readonly object: Inotify | Fanotify;
  readonly targets: readonly FoundTarget[];
}

/** What watches are on, by the place where their descriptor was first seen. */
export class TreeTargets {
  constructor(
    readonly byPlace: ReadonlyMap<string, KnownWatcher> = new Map(),
    readonly found: FoundTargets = new Map(),
  ) {}
}

/** One that watches, and where. */
interface Watcher extends Pick<KnownWatcher, "object" | "details"> {
  readonly place: string;
}

/**
 * Finds paths for all that is watched.
 *
 * @param processes in the order of the tree
 * @param files of the tree, looked at
 * @param before what an earlier look has found
 */
export function targetsAmong(
  processes: readonly {
    /** By which its descriptors were looked at. */
    readonly tid: number;
    readonly descriptors: readonly Seen[];
  }[],
  files: FilesInUse,
  search: SearchOptions,
  before: TreeTargets = new TreeTargets(),
): TreeTargets {
  const watchers = processes.flatMap(({ tid: pid, descriptors }) =>
    sorted(descriptors).unnamed.flatMap(({ fd, link, info }): Watcher[] => {
      if ((info.flags & O.PATH) !== 0) return [];
      const parse = link === INOTIFY_LINK
        ? parseInotify
        : link === FANOTIFY_LINK
        ? parseFanotify
        : undefined;
      if (parse === undefined) return [];
      const place = nameOf({ pid, fd });
      const details = info.extra;
      // With tens of thousands of watches, even reading them takes long.
      const known = before.byPlace.get(place);
      const object = known !== undefined && isSame(known.details, details)
        ? known.object
        : parse(details);
      const isRefused = object.kind === "fanotify" &&
        fanotifyRefusal(object) !== undefined;
      return isRefused ? [] : [{ place, details, object }];
    })
  );
  if (watchers.length === 0) return new TreeTargets();
  const host = new HostFileSystems(files);
  const inodes = watchers.flatMap(({ object }): readonly WatchedInode[] =>
    object.kind === "inotify"
      ? object.watches
      : object.marks.flatMap(({ on }) => on.kind === "inode" ? [on.inode] : [])
  );
  const found = findTargets(inodes, host, search, before.found);
  const inode = (one: WatchedInode) => found.get(targetKey(one))!;
  return new TreeTargets(
    new Map(watchers.map(({ place, details, object }) => [
      place,
      {
        details,
        object,
        targets: object.kind === "inotify"
          ? object.watches.map(inode)
          : object.marks.map(({ on }) =>
            on.kind === "inode" ? inode(on.inode) : mountOf(host, on)
          ),
      },
    ])),
    found,
  );
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((line, i) => line === b[i]);
}

function mountOf(
  host: HostFileSystems,
  on: Exclude<Fanotify["marks"][number]["on"], { kind: "inode" }>,
): FoundTarget {
  const path = on.kind === "mount"
    ? host.mountPointOf(on.mountId)
    : on.kind === "filesystem"
    ? host.mountsOf(on.device)[0]
    : undefined;
  return path === undefined
    ? { kind: "unknown", deleted: false }
    : { kind: "path", path };
}

/** Why a descriptor cannot be saved; undefined: it can. */
export function watchProblem(
  object: Inotify | Fanotify,
  targets: readonly FoundTarget[],
): { why: string; remedy?: string; option?: string } | undefined {
  const why = object.kind === "fanotify" ? fanotifyRefusal(object) : undefined;
  if (why !== undefined) return { why };
  const lost = targets.flatMap((target, i) =>
    target.kind === "unknown" ? [{ i, deleted: target.deleted }] : []
  );
  if (lost.length === 0) return undefined;
  const [{ i, deleted }] = lost;
  const others = lost.length === 1 ? "" : ` (and ${lost.length - 1} more)`;
  const what = object.kind === "inotify"
    ? describeInode(object.watches[i])
    : describeMarked(object.marks[i].on);
  if (deleted) {
    return {
      why: `it watches ${what}${others}, a deleted file that only processes ` +
        "outside of the program have open",
      remedy: "dump again when they have closed it: the watch goes with it",
    };
  }
  const inode = object.kind === "inotify" ||
    object.marks[i].on.kind === "inode";
  return inode
    ? {
      why: `it watches ${what}${others}, to which ckpt knows no path`,
      remedy: "give --irmap-scan-path with a directory above it, or " +
        "--force-irmap to search through its whole file system",
      option: "--force-irmap",
    }
    : {
      why: `it watches ${what}${others}, which cannot be reached by a path: ` +
        "it was unmounted, or something else is mounted over it",
    };
}

function describeInode({ inode, device }: WatchedInode): string {
  return `inode ${inode} of device ${device >>> 20}:${device & 0xfffff}`;
}

function describeMarked(on: Fanotify["marks"][number]["on"]): string {
  switch (on.kind) {
    case "inode":
      return describeInode(on.inode);
    case "mount":
      return `mount ${on.mountId}`;
    case "filesystem":
      return `the file system of device ${on.device >>> 20}:${
        on.device & 0xfffff
      }`;
    case "namespace":
      return "a mount namespace";
  }
}
