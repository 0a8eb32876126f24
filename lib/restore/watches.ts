/**
 * What inotify and fanotify descriptors watch. Found before any process
 * exists, and added by ckpt itself as the last of all, so that nothing a
 * restore does to files is told to the program.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { close, O, open, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  addMark,
  confirmMarks,
  fanotifyProblem,
  type MarkToAdd,
} from "../files/fanotify.ts";
import { addWatch, inotifyProblem, setNextWatch } from "../files/inotify.ts";
import { tellOfLostEvents } from "../files/lost_events.ts";
import { handleOf } from "../files/watched_handle.ts";
import { statusAt } from "../ghost/calls.ts";
import { type FileHandle, openByHandle } from "../ghost/handles.ts";
import { HostFileSystems } from "../ghost/host_file_systems.ts";
import { readGhost } from "../image/ghost.ts";
import { imageName } from "../image/kinds.ts";
import type {
  ckpt_watches_entry,
  fh_entry,
  file_entry,
  inotify_wd_entry,
} from "../image/schema.gen.ts";
import { readFdInfo } from "../proc/read.ts";
import type { Report } from "../report.ts";
import type { TreeImages } from "./task_images.ts";

/** Where a watched file is. */
type Target =
  | { readonly path: string }
  | { readonly handle: FileHandle; readonly mount: string }
  /** The id of its entry in files.img. */
  | { readonly file: number };

interface WatchToAdd extends Pick<inotify_wd_entry, "wd" | "mask"> {
  readonly target: Target;
}

interface TargetedMark extends MarkToAdd {
  readonly target: Target;
}

/** One descriptor, and what it is to watch. */
interface Watcher {
  readonly id: number;
  readonly name: string;
  readonly watches: readonly WatchToAdd[];
  readonly marks: readonly TargetedMark[];
  /** Bytes of events that were not read. */
  readonly lostEvents: number;
  readonly isInotify: boolean;
}

export interface WatchPlan {
  readonly watchers: readonly Watcher[];
  readonly reasons: readonly Reason[];
  readonly warnings: readonly string[];
}

type Images = Pick<TreeImages, "set" | "files" | "remaps">;

/** Finds what is to be watched. */
export function planWatches(images: Images): WatchPlan {
  const entries = [...images.files.values()].filter(({ ify, ffy }) =>
    ify !== undefined || ffy !== undefined
  );
  if (entries.length === 0) return { watchers: [], reasons: [], warnings: [] };
  return new Finder(images).plan(entries);
}

class Finder {
  readonly #host = new HostFileSystems();
  readonly #extensions: ReadonlyMap<number, ckpt_watches_entry>;
  /** Handles whose path leads to the same file still. */
  readonly #leading = new Set<fh_entry>();
  readonly #reasons: Reason[] = [];
  readonly #warnings: string[] = [];
  #ghosts: ReadonlyMap<bigint, { file: number; device: number }> | undefined;

  constructor(readonly images: Images) {
    const all = images.set.read("ckpt-watches", undefined) ?? [];
    this.#extensions = new Map(all.map((entry) => [entry.id, entry]));
  }

  plan(entries: readonly file_entry[]): WatchPlan {
    this.#noteLeading(entries);
    const watchers = entries.map((entry) => this.#planOne(entry));
    return {
      watchers,
      reasons: this.#reasons,
      warnings: this.#warnings,
    };
  }

  /** All at once: there may be tens of thousands. */
  #noteLeading(entries: readonly file_entry[]): void {
    const inodes = entries.flatMap(({ ify, ffy }) => [
      ...(ify?.wd ?? []),
      ...(ffy?.mark ?? []).flatMap(({ ie, s_dev }) =>
        ie === undefined ? [] : [{ ...ie, s_dev }]
      ),
    ]).filter(({ f_handle }) => f_handle.path !== undefined);
    const leading = this.#host.leadTo(
      inodes.map(({ f_handle }) => f_handle.path!),
      inodes.map(({ i_ino, s_dev, f_handle }) => ({
        inode: i_ino,
        device: s_dev,
        handle: handleOf(f_handle),
      })),
    );
    for (const [i, { f_handle }] of inodes.entries()) {
      if (leading[i]) this.#leading.add(f_handle);
    }
  }

  #planOne({ id, ify, ffy }: file_entry): Watcher {
    const extension = this.#extensions.get(id);
    const object = `files.img, id ${id}`;
    const why = ify === undefined ? fanotifyProblem(ffy!) : inotifyProblem(ify);
    if (why !== undefined) this.#reasons.push({ object, why });
    const known = new Map(
      (extension?.targets ?? []).map(({ index, file }) => [index, file]),
    );
    const name = ify === undefined ? "a fanotify group" : "an inotify instance";
    const inode = (
      number: bigint,
      device: number,
      handle: fh_entry,
      index: number,
    ) => {
      const file = known.get(index) ?? this.#ghostOf(number, device);
      return file === undefined
        ? this.#find(number, device, handle, name)
        : { file };
    };
    const marks = (ffy?.mark ?? []).map((mark, i): TargetedMark => {
      const { ie, me, s_dev } = mark;
      return ie === undefined
        ? { ...mark, on: "mount", target: this.#mount(me?.path, me?.mnt_id) }
        : {
          ...mark,
          on: "inode",
          target: inode(ie.i_ino, s_dev, ie.f_handle, i),
        };
    });
    for (const mark of extension?.filesystems ?? []) {
      marks.splice(mark.index, 0, {
        ...mark,
        on: "filesystem",
        target: this.#mount(mark.path, undefined),
      });
    }
    return {
      id,
      name,
      isInotify: ify !== undefined,
      watches: (ify?.wd ?? []).map((
        { wd, mask, i_ino, s_dev, f_handle },
        i,
      ) => ({
        wd,
        mask,
        target: inode(i_ino, s_dev, f_handle, i),
      })),
      marks,
      lostEvents: extension?.lost_events ?? 0,
    };
  }

  /** CRIU tells by the inode that a watched file is one without a name. */
  #ghostOf(inode: bigint, device: number): number | undefined {
    this.#ghosts ??= new Map(
      [...this.images.remaps].flatMap(([file, remap]) => {
        if (remap.kind !== "ghost") return [];
        const { ino, dev } = readGhost(this.images.set, remap.id).entry;
        return ino === undefined || dev === undefined
          ? []
          : [[ino, { file, device: dev }]];
      }),
    );
    const ghost = this.#ghosts.get(inode);
    return ghost !== undefined && isSameDevice(ghost.device, device)
      ? ghost.file
      : undefined;
  }

  #find(
    inode: bigint,
    device: number,
    f_handle: fh_entry,
    name: string,
  ): Target {
    const { path } = f_handle;
    if (path !== undefined && this.#leading.has(f_handle)) return { path };
    const handle = handleOf(f_handle);
    for (
      const mount of handle === undefined ? [] : this.#host.mountsOf(device)
    ) {
      const status = this.#host.decode(mount, [handle!])[0]?.status;
      if (status?.ino === inode && status.nlink > 0n) {
        return { handle: handle!, mount };
      }
    }
    const what = path ??
      `inode ${inode} of device ${device >>> 20}:${device & 0xfffff}`;
    if (path !== undefined && statusAt(path) !== undefined) {
      this.#warnings.push(
        `${path}, which ${name} of the program watches, is another file now`,
      );
      return { path };
    }
    this.#reasons.push({
      object: `file ${what}`,
      why: `${name} of the program watches it, and it is not there`,
      remedy: path === undefined ? undefined : "put it back",
    });
    return { path: "" };
  }

  #mount(path: string | undefined, mountId: number | undefined): Target {
    const point = path ?? this.#host.mountPointOf(mountId ?? -1);
    if (point !== undefined && this.#host.isMountPoint(point)) {
      return { path: point };
    }
    this.#reasons.push({
      object: path === undefined ? `mount ${mountId}` : `mount ${path}`,
      why: "a fanotify group of the program watches it, and nothing is " +
        "mounted there",
      remedy: "mount its file system as it was",
    });
    return { path: "" };
  }
}

/** By the kernel's numbering, or by that of stat(2). */
function isSameDevice(ghost: number, device: number): boolean {
  const [major, minor] = [device >>> 20, device & 0xfffff];
  const asStat = (minor & 0xff | major << 8 | (minor & ~0xff) << 12) >>> 0;
  return ghost === device || ghost === asStat;
}

/** The descriptors of the processes, in the hands of ckpt. */
export class Watchers implements Disposable {
  readonly #own = new Map<number, number>();

  /** When all processes have their descriptors, and all leaders still live. */
  static take(
    { watchers }: WatchPlan,
    processes: TreeImages["processes"],
  ): Watchers {
    const taken = new Watchers();
    try {
      for (const { id } of watchers) taken.#take(id, processes);
      return taken;
    } catch (error) {
      taken[Symbol.dispose]();
      throw error;
    }
  }

  #take(id: number, processes: TreeImages["processes"]): void {
    for (const { pid, descriptors } of processes) {
      const entry = descriptors.find((entry) => entry.id === id);
      if (entry === undefined) continue;
      this.#own.set(id, getDescriptorOf(pid, entry.fd));
      return;
    }
  }

  /**
   * Adds all watches.
   *
   * @param plan the same as before
   * @param made descriptors of files that have no name, by their ids
   */
  fill(
    plan: WatchPlan,
    { set, files }: Images,
    made: ReadonlyMap<number, { fd: number }>,
    report: Report,
  ): void {
    for (const warning of plan.warnings) report.log(2, warning);
    for (const watcher of plan.watchers) {
      const fd = this.#own.get(watcher.id);
      if (fd === undefined) continue;
      const { name, lostEvents, isInotify, watches, marks } = watcher;
      if (lostEvents > 0) {
        report.log(2, `${name} had events that were not read: they are lost`);
        if (isInotify) {
          tellOfLostEvents(fd, [
            set.path(imageName("inventory")),
            set.path(imageName("pstree")),
          ]);
        }
      }
      using paths = new OpenTargets(files, made);
      try {
        for (const mark of marks) addMark(fd, mark, paths.open(mark.target));
        for (const watch of watches) {
          const { target } = watch;
          const isNamed = "path" in target;
          const path = isNamed ? paths.name(target.path) : paths.open(target);
          addWatch(fd, watch, path, !isNamed);
        }
        if (isInotify) {
          const highest = watches.reduce(
            (most, { wd }) => Math.max(most, wd),
            0,
          );
          setNextWatch(fd, highest + 1);
        } else confirmMarks(readFdInfo(Deno.pid, fd).extra, marks);
      } catch (error) {
        if (!(error instanceof SyscallError)) throw error;
        throw new CkptError(EXIT.failed, "adding watches", [{
          object: `${name}, ${paths.last}`,
          why: error.message,
        }], { cause: error });
      }
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#own.values()) close(fd);
    this.#own.clear();
  }
}

/** Opens files by name only, which nobody who watches them is told. */
class OpenTargets implements Disposable {
  #fd: number | undefined;
  last = "";

  constructor(
    readonly files: Images["files"],
    readonly made: ReadonlyMap<number, { fd: number }>,
  ) {}

  /** A path that is enough by itself. */
  name(path: string): string {
    this.last = path;
    return path;
  }

  /** A path that leads to the file until the next is opened. */
  open(target: Target): string {
    this[Symbol.dispose]();
    if ("file" in target) {
      const made = this.made.get(target.file);
      this.last = this.files.get(target.file)!.reg!.name;
      if (made !== undefined) return `/proc/self/fd/${made.fd}`;
      return this.#keep(open(encodeText(this.last), O.PATH | O.NOFOLLOW));
    }
    if ("path" in target) {
      this.last = target.path;
      return this.#keep(open(encodeText(target.path), O.PATH | O.NOFOLLOW));
    }
    const { handle, mount } = target;
    this.last = `a file on ${mount}`;
    return this.#keep(openByHandle(mount, handle) ?? -1);
  }

  #keep(fd: number): string {
    this.#fd = fd;
    return `/proc/self/fd/${fd}`;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined && this.#fd >= 0) close(this.#fd);
    this.#fd = undefined;
  }
}
