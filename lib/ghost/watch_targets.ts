/**
 * Finds the files that watches are on (inotify(7), fanotify(7)). The kernel
 * tells them by handles; a restore needs paths. For each, in this order:
 *
 *   the path that was found before, if it still leads there
 *   the one the kernel knows for the handle, through any mount of the device
 *   for overlayfs: that of the file in its layer, as far as it is the same
 *   names and uses of files that the tree has open, maps, or is in
 *   a search through directories, where that was asked for
 *
 * What is found is proved: the path leads to a file with the same handle, on a
 * mount of the same device.
 */
import { DELETED_MARK } from "../proc/maps.ts";
import { type FileStatus, S_IF } from "../ffi/syscall.ts";
import type { UsedPath } from "./files_in_use.ts";
import { type FileHandle, layerHandle } from "./handles.ts";

/** The file of a watch as the kernel tells it. */
export interface WatchedInode {
  /** As the kernel numbers it: 20 bits for the minor number. */
  readonly device: number;
  readonly inode: bigint;
  /** Undefined where the file system has none. */
  readonly handle: FileHandle | undefined;
}

export type FoundTarget =
  | { readonly kind: "path"; readonly path: string }
  /** A file in use whose path does not lead to it: saved as such. */
  | { readonly kind: "lost"; readonly used: UsedPath }
  | { readonly kind: "unknown"; readonly deleted: boolean };

/** What has to be known of file systems. */
export interface FileSystems {
  /** Mount points of a device. */
  mountsOf(device: number): readonly string[];
  /** One mount point of every device. */
  readonly anyMounts: readonly string[];
  isMountPoint(path: string): boolean;
  leadsTo(path: string, target: WatchedInode): boolean;
  /** What a handle leads to: the link the kernel has for it, and its status. */
  decode(
    directory: string,
    handle: FileHandle,
  ): { link: string; status: FileStatus } | undefined;
  /** Names of files in use with that inode number. */
  namesInUse(inode: bigint): readonly string[];
  /** A file in use. */
  inUse(status: FileStatus): UsedPath | undefined;
  /** What is in a directory; nothing where it cannot be read. */
  list(directory: string): Iterable<{ name: string; isDirectory: boolean }>;
  inodeAt(path: string): bigint | undefined;
}

export interface SearchOptions {
  /** Directories to search through for files that are not found otherwise. */
  readonly irmapScanPaths?: readonly string[];
  /** Search through the file systems of such files. */
  readonly forceIrmap?: boolean;
}

/** Names that a search looks at before it gives up: some seconds. */
const MOST_NAMES = 1_000_000;

/** The same for watches on the same file. */
export function targetKey({ device, inode, handle }: WatchedInode): string {
  return `${device} ${inode} ${handle?.type} ${handle?.bytes}`;
}

/** What was found, by {@link targetKey}. */
export type FoundTargets = ReadonlyMap<string, FoundTarget>;

/** @param before what an earlier look has found */
export function findTargets(
  targets: readonly WatchedInode[],
  files: FileSystems,
  search: SearchOptions = {},
  before: FoundTargets = new Map(),
): FoundTargets {
  const found = new Map<string, FoundTarget>();
  const missing = new Map<string, WatchedInode>();
  for (const target of targets) {
    const key = targetKey(target);
    if (found.has(key)) continue;
    const known = before.get(key);
    const one = known?.kind === "path" && files.leadsTo(known.path, target)
      ? known
      : findOne(target, files);
    found.set(key, one);
    if (one.kind === "unknown" && !one.deleted) missing.set(key, target);
  }
  for (const [key, path] of searchFor(missing, files, search)) {
    found.set(key, { kind: "path", path });
  }
  return found;
}

function findOne(target: WatchedInode, files: FileSystems): FoundTarget {
  const { device, inode, handle } = target;
  const at = (paths: Iterable<string>): FoundTarget | undefined => {
    for (const path of paths) {
      if (files.leadsTo(path, target)) return { kind: "path", path };
    }
  };
  const mounts = files.mountsOf(device);
  let status: FileStatus | undefined;
  let deleted = false;
  if (handle !== undefined) {
    for (const mount of mounts) {
      const decoded = files.decode(mount, handle);
      if (decoded === undefined) continue;
      const { link } = decoded;
      const path = at([link]) ?? at(below(mounts, link));
      if (path !== undefined) return path;
      status = decoded.status;
      deleted = isDeleted(decoded);
    }
    const layer = status === undefined ? layerHandle(handle) : undefined;
    for (const mount of layer === undefined ? [] : files.anyMounts) {
      const decoded = files.decode(mount, layer!);
      const path = decoded && at(below(mounts, decoded.link));
      if (path !== undefined) return path;
    }
  }
  const used = status && files.inUse(status);
  return at(files.namesInUse(inode)) ??
    (used === undefined
      ? { kind: "unknown", deleted }
      : { kind: "lost", used });
}

function isDeleted(
  { link, status }: { link: string; status: FileStatus },
): boolean {
  return link.endsWith(DELETED_MARK) &&
    (status.nlink === 0n || (status.mode & S_IF.MT) === S_IF.DIR);
}

/**
 * Where a file may be that is at `path` on the same file system, or a layer of
 * it, but seen through another mount: /a/b/c is /a/b/c, /b/c or /c below each.
 */
function* below(mounts: readonly string[], path: string): Iterable<string> {
  const names = path.split("/").slice(1);
  for (const mount of mounts) {
    const prefix = mount === "/" ? "" : mount;
    for (let first = 0; first < names.length; first++) {
      yield `${prefix}/${names.slice(first).join("/")}`;
    }
    yield mount;
  }
}

/** @returns paths by the keys of what was missing */
function searchFor(
  missing: ReadonlyMap<string, WatchedInode>,
  files: FileSystems,
  { irmapScanPaths = [], forceIrmap = false }: SearchOptions,
): ReadonlyMap<string, string> {
  const found = new Map<string, string>();
  const byInode = Map.groupBy(missing, ([, { inode }]) => inode);
  const look = (path: string) => {
    const candidates = byInode.get(files.inodeAt(path) ?? 0n) ?? [];
    for (const [key, target] of candidates) {
      if (!found.has(key) && files.leadsTo(path, target)) found.set(key, path);
    }
  };
  const open = new Set([
    ...irmapScanPaths,
    ...(forceIrmap
      ? [...missing.values()].flatMap(({ device }) => files.mountsOf(device))
      : []),
  ]);
  for (const root of missing.size > 0 ? open : []) look(root);
  let names = 0;
  // Grows while it is walked through: what is near is looked at first.
  for (const directory of open) {
    if (found.size === missing.size || names > MOST_NAMES) break;
    const prefix = directory === "/" ? "" : directory;
    for (const { name, isDirectory } of files.list(directory)) {
      names++;
      const path = `${prefix}/${name}`;
      look(path);
      if (isDirectory && !files.isMountPoint(path)) open.add(path);
    }
  }
  return found;
}
