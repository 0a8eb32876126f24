/**
 * A mount as /proc/PID/mountinfo and mountpoints-N.img tell of it: the one form
 * that all of lib/mnt works with.
 */
import type { MountInfo } from "../proc/mountinfo.ts";

export interface Mount {
  /** Unique over all namespaces. */
  readonly id: number;
  /** The number of its mount namespace in the images. */
  readonly namespace: number;
  /** Of the root of a namespace: an id that no mount of it has, or its own. */
  readonly parent: number;
  /** Of its superblock: {@link deviceNumber}. */
  readonly device: number;
  /** The directory or file of its superblock that is mounted. */
  readonly root: string;
  /** Whether that was removed since; `root` is where it was. */
  readonly deleted: boolean;
  /** Where it is mounted, from the root of its namespace. */
  readonly point: string;
  /** {@link MS}: those of the mount itself, and how it is propagated. */
  readonly flags: number;
  /** {@link MS}: those of its superblock. */
  readonly superFlags: number;
  readonly type: string;
  readonly source: string;
  /** Of its superblock, but for those that are flags. */
  readonly options: readonly string[];
  /** The peer group it is in; 0: none. */
  readonly shared: number;
  /** The peer group it is a slave of; 0: none. */
  readonly master: number;
  /** It was unmounted, and is there for those that have files of it. */
  readonly detached?: boolean;
}

/** Flags of mount(2), which the images use. */
export const MS = {
  RDONLY: 0x1,
  NOSUID: 0x2,
  NODEV: 0x4,
  NOEXEC: 0x8,
  SYNCHRONOUS: 0x10,
  MANDLOCK: 0x40,
  DIRSYNC: 0x80,
  NOSYMFOLLOW: 0x100,
  NOATIME: 0x400,
  NODIRATIME: 0x800,
  UNBINDABLE: 0x20000,
  SLAVE: 0x80000,
  SHARED: 0x100000,
  RELATIME: 0x200000,
  STRICTATIME: 0x1000000,
  LAZYTIME: 0x2000000,
} as const;

/** Flags of MountInfo.mountOptions (show_mnt_opts in fs/proc_namespace.c). */
const MOUNT_OPTIONS: ReadonlyMap<string, number> = new Map([
  ["ro", MS.RDONLY],
  ["nosuid", MS.NOSUID],
  ["nodev", MS.NODEV],
  ["noexec", MS.NOEXEC],
  ["noatime", MS.NOATIME],
  ["nodiratime", MS.NODIRATIME],
  ["relatime", MS.RELATIME],
  ["nosymfollow", MS.NOSYMFOLLOW],
]);

/** Flags of MountInfo.superOptions (show_sb_opts, ibid.). */
const SUPER_OPTIONS: ReadonlyMap<string, number> = new Map([
  ["rw", 0],
  ["ro", MS.RDONLY],
  ["sync", MS.SYNCHRONOUS],
  ["dirsync", MS.DIRSYNC],
  ["mand", MS.MANDLOCK],
  ["lazytime", MS.LAZYTIME],
]);

const MINOR_BITS = 20;
const MINOR_MASK = (1 << MINOR_BITS) - 1;

/** A device number as the kernel keeps it, and mnt_entry.root_dev. */
export function deviceNumber(major: number, minor: number): number {
  return (major << MINOR_BITS | minor) >>> 0;
}

/** "8:1" */
export function deviceText(device: number): string {
  return `${device >>> MINOR_BITS}:${device & MINOR_MASK}`;
}

/** @param namespace number of the namespace it is in */
export function mountOf(info: MountInfo, namespace: number): Mount {
  const { mountId, parentId, major, minor, mountOptions, superOptions } = info;
  const deleted = info.root.endsWith(GONE);
  return {
    id: mountId,
    namespace,
    parent: parentId,
    device: deviceNumber(major, minor),
    root: deleted ? info.root.slice(0, -GONE.length) : info.root,
    deleted,
    point: info.mountPoint,
    flags: mountFlags(info, mountOptions),
    superFlags: superOptions.reduce(
      (flags, option) => flags | (SUPER_OPTIONS.get(option) ?? 0),
      0,
    ),
    type: info.type,
    source: info.source,
    options: superOptions.filter((option) => !SUPER_OPTIONS.has(option)),
    shared: info.shared ?? 0,
    master: info.master ?? 0,
  };
}

/** What the kernel puts behind the root of a mount that was removed. */
const GONE = "//deleted";

function mountFlags(
  { shared, master, unbindable }: MountInfo,
  options: readonly string[],
): number {
  const flags = options.reduce(
    (flags, option) => flags | (MOUNT_OPTIONS.get(option) ?? 0),
    0,
  );
  return flags |
    ((flags & (MS.NOATIME | MS.RELATIME)) === 0 ? MS.STRICTATIME : 0) |
    (shared === undefined ? 0 : MS.SHARED) |
    (master === undefined ? 0 : MS.SLAVE) |
    (unbindable ? MS.UNBINDABLE : 0);
}

/** Options of a mount that ckpt knows no flag for: "idmapped". */
export function unknownMountOptions(info: MountInfo): string[] {
  return info.mountOptions.filter((option) =>
    option !== "rw" && !MOUNT_OPTIONS.has(option)
  );
}

/** Whether `path` is `directory`, or below it. */
export function isWithin(path: string, directory: string): boolean {
  return directory === "/" ? path.startsWith("/") : path === directory ||
    path.startsWith(`${directory}/`);
}

/** The way from a directory to what is in it: "", "a/b". */
export function relativePath(path: string, directory: string): string {
  return path.slice(directory === "/" ? 1 : directory.length + 1);
}

/** A path inside a directory, from the way to it. */
export function joinPath(directory: string, relative: string): string {
  if (relative === "") return directory;
  return directory === "/" ? `/${relative}` : `${directory}/${relative}`;
}

/** The directory that all of the paths are in. */
export function commonDirectory(paths: readonly string[]): string {
  return paths.reduce((common, path) => {
    while (!isWithin(path, common)) {
      common = common.slice(0, common.lastIndexOf("/")) || "/";
    }
    return common;
  });
}

/** For messages: "mount 57 at /data (ext4, /dev/sda1)". */
export function describeMount(
  { id, point, type, source }: Mount,
): string {
  return `mount ${id} at ${point} (${type}, ${source || "no source"})`;
}
