/**
 * Mounts that were unmounted while processes had files of them (MNT_DETACH):
 * file systems in memory that nothing else shows. What can still be reached of
 * one is all of it where somebody has a directory, and these files otherwise.
 */
import { close, deviceNumbers, O, open, S_IF, stat } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { fileSystemType } from "../ghost/calls.ts";
import { withoutMark } from "../ghost/fate.ts";
import type { WayIn } from "../ghost/files_in_use.ts";
import { openAt, statisticsOf } from "./calls.ts";
import { freshType } from "./file_system_types.ts";
import { describeMount, deviceNumber, type Mount, MS } from "./mount.ts";
import type { MountsPlan, PlannedMount } from "./plan_dump.ts";

/** statfs.f_type of those that hold what processes put into them. */
const TYPES: ReadonlyMap<bigint, string> = new Map([
  [0x01021994n, "tmpfs"],
  [0x858458f6n, "ramfs"],
]);

/** ST_* of statfs.f_flags, which tells both of the mount and its superblock. */
const FLAGS = [
  [0x1, MS.RDONLY],
  [0x2, MS.NOSUID],
  [0x4, MS.NODEV],
  [0x8, MS.NOEXEC],
  [0x400, MS.NOATIME],
  [0x800, MS.NODIRATIME],
  [0x1000, MS.RELATIME],
  [0x2000, MS.NOSYMFOLLOW],
] as const;

interface Detached {
  readonly mount: Mount;
  /** A link of /proc that leads to a directory of it. */
  directory: string | undefined;
  /** Links of /proc to its files, by their paths. */
  readonly files: Map<string, string>;
}

export class DetachedMounts {
  readonly #mounts = new Map<number, Detached>();

  /** @param namespace the number of one of the tree's: that of the images */
  constructor(readonly namespace: number) {}

  has(mountId: number): boolean {
    return this.#mounts.has(mountId);
  }

  /**
   * How ckpt gets at a file; undefined: it is on no such mount.
   *
   * @param host devices of file systems that the outside has, too
   */
  wayIn(
    mountId: number,
    link: string,
    at: string,
    host: ReadonlySet<number>,
  ): WayIn | undefined {
    const { dev, mode } = stat(at);
    const { major, minor } = deviceNumbers(dev);
    const device = deviceNumber(major, minor);
    const type = TYPES.get(fileSystemType(at));
    if (type === undefined || host.has(device)) return undefined;
    let detached = this.#mounts.get(mountId);
    if (detached === undefined) {
      const mount = this.#mountOf(mountId, device, type, at);
      detached = { mount, directory: undefined, files: new Map() };
      this.#mounts.set(mountId, detached);
    }
    if ((mode & S_IF.MT) === S_IF.DIR) detached.directory ??= at;
    else if (link === withoutMark(link)) detached.files.set(link, at);
    return { prefix: at, start: withoutMark(link), isBare: true };
  }

  #mountOf(id: number, device: number, type: string, at: string): Mount {
    const { blocks, blockSize, files, flags } = statisticsOf(at);
    const mountFlags = FLAGS.reduce(
      (all, [bit, flag]) => (flags & bit) === 0 ? all : all | flag,
      0,
    );
    return {
      id,
      namespace: this.namespace,
      parent: 0,
      device,
      root: "/",
      deleted: false,
      point: "/",
      flags: (mountFlags & (MS.NOATIME | MS.RELATIME)) === 0
        ? mountFlags | MS.STRICTATIME
        : mountFlags,
      superFlags: 0,
      type,
      source: "none",
      options: type === "tmpfs"
        ? [`size=${blocks * blockSize / 1024n}k`, `nr_inodes=${files}`]
        : [],
      shared: 0,
      master: 0,
      detached: true,
    };
  }

  /** ... to what is planned for those that are mounted. */
  addTo(plan: MountsPlan): MountsPlan {
    const all = [...this.#mounts.values()];
    if (all.length === 0) return plan;
    const others = new Set(plan.mounts.map(({ mount }) => mount.device));
    const mounts = all.map(({ mount }): PlannedMount => ({
      mount,
      origin: { kind: "fresh", type: freshType(mount.type)! },
    }));
    const seen = new Set<number>();
    const reasons = all.flatMap(({ mount }) => {
      const isAlone = !others.has(mount.device) && !seen.has(mount.device);
      seen.add(mount.device);
      return isAlone ? [] : [{
        object: describeMount(mount),
        why:
          "it was unmounted, but files of it are open, and its file system " +
          "is mounted elsewhere, too, which is not supported",
        remedy: "open these files by the other mount",
      }];
    });
    return {
      ...plan,
      mounts: [...plan.mounts, ...mounts],
      superblocks: [
        ...plan.superblocks,
        ...all.map(({ mount }) => ({
          device: mount.device,
          type: mount.type,
          mounts: [mount],
        })),
      ],
      reasons: [...plan.reasons, ...reasons],
    };
  }

  /** A descriptor of the root, for the caller; undefined: nothing leads there. */
  rootOf(mountId: number): number | undefined {
    const directory = this.#mounts.get(mountId)?.directory;
    if (directory === undefined) return undefined;
    let fd = open(encodeText(directory), O.PATH | O.DIRECTORY);
    for (;;) {
      const above = openAt(fd, "..", O.PATH | O.DIRECTORY);
      const isRoot = stat(above).ino === stat(fd).ino;
      close(fd);
      fd = above;
      if (isRoot) return fd;
    }
  }

  /** Links of /proc by paths; undefined where there is a root. */
  filesOf(mountId: number): ReadonlyMap<string, string> | undefined {
    const detached = this.#mounts.get(mountId);
    return detached?.directory === undefined ? detached?.files : undefined;
  }
}
