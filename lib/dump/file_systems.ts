/**
 * The file systems that a tree has files open on for writing: those of which
 * image and content are to be of one moment.
 */
import type { Reason } from "../error.ts";
import { S_IF, SyscallError } from "../ffi/syscall.ts";
import { statx } from "../ghost/calls.ts";
import { relativePath } from "../mnt/mount.ts";
import type { SeenNamespaces } from "../mnt/tree_namespaces.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { readMountInfo } from "../proc/read.ts";
import { type DependedFile, isKept } from "./depended_files.ts";

export interface FileSystem {
  /** "8:1", of its superblock: the same for all its mounts and subvolumes. */
  readonly device: string;
  /** "ext4" */
  readonly type: string;
  /** A mount of it, as the tree sees that ... */
  readonly mountPoint: string;
  /** ... and where ckpt, and others beside it, find it. */
  readonly at: string;
  /** Those of the tree that are on it. */
  readonly files: readonly DependedFile[];
}

/** Where paths are, by the mounts of this moment. */
export class Mounts {
  readonly #byId: ReadonlyMap<number, MountInfo>;

  /** @param namespaces of the tree's own */
  constructor(readonly namespaces: SeenNamespaces | undefined) {
    const own = namespaces?.all.flatMap(({ mounts }) => mounts) ?? [];
    this.#byId = new Map(
      [...own, ...readMountInfo(Deno.pid)].map((mount) => [
        mount.mountId,
        mount,
      ]),
    );
  }

  /** The mount of a file, if it is one of a file system. */
  of({ at, mountId }: Pick<DependedFile, "at" | "mountId">) {
    return mountId === undefined ? this.at(at) : this.#byId.get(mountId);
  }

  /** ... of what a path of ckpt's leads to. */
  at(path: string): MountInfo | undefined {
    try {
      return this.#byId.get(Number(statx(path).mountId));
    } catch (error) {
      if (error instanceof SyscallError) return undefined;
      throw error;
    }
  }
}

export function deviceOf({ major, minor }: MountInfo): string {
  return `${major}:${minor}`;
}

/** Regular files that the tree has open, or maps, for writing. */
export function writtenFiles(
  files: readonly DependedFile[],
): readonly DependedFile[] {
  return files.filter(({ written, at, status }) =>
    written && (status.mode & S_IF.MT) === S_IF.REG && isKept(at)
  );
}

export function fileSystemsOf(
  files: readonly DependedFile[],
  mounts: Mounts,
): FileSystem[] {
  const found = new Map<string, FileSystem & { files: DependedFile[] }>();
  for (const file of writtenFiles(files)) {
    const mount = mounts.of(file);
    if (mount === undefined) continue;
    const device = deviceOf(mount);
    const known = found.get(device);
    if (known !== undefined) known.files.push(file);
    else {
      const { type, mountPoint } = mount;
      const way = relativePath(file.path, mountPoint);
      const above = way === "" ? file.at : file.at.slice(0, -`/${way}`.length);
      const at = placeFor(
        { ...file, path: mountPoint, at: above },
        mounts.namespaces,
      );
      found.set(device, { device, type, mountPoint, at, files: [file] });
    }
  }
  return [...found.values()];
}

/**
 * A path that leads to a file for others than the tree, and for as long as ckpt
 * is there.
 */
export function placeFor(
  { path, at, mountId }: Pick<DependedFile, "path" | "at" | "mountId">,
  namespaces: SeenNamespaces | undefined,
): string {
  if (mountId === undefined) return path;
  return namespaces?.outsidePath(mountId, path) ??
    at.replace(/^\/proc\/self\//, `/proc/${Deno.pid}/`);
}

/** File systems that the kernel can freeze (super_operations.freeze_fs). */
const FREEZABLE: ReadonlySet<string> = new Set([
  "bcachefs",
  "btrfs",
  "ext2",
  "ext3",
  "ext4",
  "f2fs",
  "gfs2",
  "jfs",
  "nilfs2",
  "reiserfs",
  "xfs",
]);

/** What ckpt itself writes to while file systems are frozen. */
export interface OwnPlace {
  /** "the images directory" */
  readonly what: string;
  readonly path: string;
  readonly device: string | undefined;
}

/**
 * Why file systems cannot be frozen. Pure.
 *
 * @param root the device of the root directory
 */
export function freezeReasons(
  fileSystems: readonly FileSystem[],
  root: string | undefined,
  own: readonly OwnPlace[],
): Reason[] {
  const reasons: Reason[] = [];
  if (fileSystems.length === 0) {
    reasons.push({
      object: "--freeze-fs",
      why: "the program has no file open for writing",
      remedy: "leave it out",
    });
  }
  for (const { device, type, mountPoint, files: [{ path }] } of fileSystems) {
    const object = `the file system of ${path} (${type} on ${mountPoint})`;
    const add = (why: string, remedy: string) =>
      reasons.push({ object, why, remedy });
    if (device === root) {
      add(
        "it is the root file system, which ckpt and all others need",
        "leave --freeze-fs out; --watch-fs tells of changes",
      );
      continue;
    }
    if (!FREEZABLE.has(type)) {
      add(
        `${type} cannot be frozen`,
        "leave --freeze-fs out; --watch-fs tells of changes",
      );
      continue;
    }
    for (const { what, path: place, device: its } of own) {
      if (its !== device) continue;
      add(
        `${what} (${place}) is on it, and ckpt would wait for itself`,
        `let ckpt write to another file system`,
      );
    }
  }
  return reasons;
}
