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
  /** Whether each path leads to the target at its place. */
  leadTo(
    paths: readonly string[],
    targets: readonly WatchedInode[],
  ): readonly boolean[];
  /** What handles lead to, by a directory on their file system. */
  decode(
    directory: string,
    handles: readonly FileHandle[],
  ): readonly (Decoded | undefined)[];
  /** Names of files in use with that inode number. */
  namesInUse(inode: bigint): readonly string[];
  /** A file in use. */
  inUse(status: FileStatus): UsedPath | undefined;
  /** What is in a directory; nothing where it cannot be read. */
  list(directory: string): Iterable<{ name: string; isDirectory: boolean }>;
  inodeAt(path: string): bigint | undefined;
}

export interface Decoded {
  /** The one that the kernel has for it. */
  readonly link: string;
  readonly status: FileStatus;
}

export interface SearchOptions {
  /** Directories to search through for files that are not found otherwise. */
  readonly irmapScanPaths?: readonly string[];
  /** Search through the file systems of such files. */
  readonly forceIrmap?: boolean;
}

/** Names that a search looks at before it gives up: some seconds. */
const MOST_NAMES = 1_000_000;

const keys = new WeakMap<WatchedInode, string>();

/** The same for watches on the same file. */
export function targetKey(target: WatchedInode): string {
  let key = keys.get(target);
  if (key === undefined) {
    const { device, inode, handle } = target;
    key = `${device} ${inode} ${handle?.type} ${handle?.bytes.toHex()}`;
    keys.set(target, key);
  }
  return key;
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
  const left = new Map(targets.map((target) => [targetKey(target), target]));
  const found = new Map<string, FoundTarget>();
  const decoded = new Map<string, Decoded>();
  const tryPaths = (candidates: readonly Candidate[]) => {
    const leading = files.leadTo(
      candidates.map(({ path }) => path),
      candidates.map(({ key }) => left.get(key)!),
    );
    for (const [i, { key, path }] of candidates.entries()) {
      if (!leading[i] || found.has(key)) continue;
      found.set(key, { kind: "path", path });
    }
    for (const key of found.keys()) left.delete(key);
  };
  tryPaths([...left.keys()].flatMap((key) => {
    const known = before.get(key);
    return known?.kind === "path" ? [{ key, path: known.path }] : [];
  }));
  for (const device of new Set([...left.values()].map((one) => one.device))) {
    for (const mount of files.mountsOf(device)) {
      const here = [...left].filter(([, one]) => one.device === device);
      tryPaths(decodeAll(mount, here, (handle) => handle, decoded, files));
    }
  }
  for (const [key, target] of [...left]) {
    tryPaths(otherNames(key, target, decoded.get(key), files));
  }
  for (const mount of left.size > 0 ? files.anyMounts : []) {
    const layers = new Map<string, Decoded>();
    decodeAll(mount, [...left], layerHandle, layers, files);
    for (const [key, { link }] of layers) {
      const mounts = files.mountsOf(left.get(key)!.device);
      tryPaths([...below(mounts, link)].map((path) => ({ key, path })));
    }
  }
  const missing = new Map<string, WatchedInode>();
  for (const [key, target] of left) {
    const known = decoded.get(key);
    const used = known && files.inUse(known.status);
    const deleted = known !== undefined && isDeleted(known);
    found.set(
      key,
      used === undefined
        ? { kind: "unknown", deleted }
        : { kind: "lost", used },
    );
    if (used === undefined && !deleted) missing.set(key, target);
  }
  for (const [key, path] of searchFor(missing, files, search)) {
    found.set(key, { kind: "path", path });
  }
  return found;
}

/** A path that may lead to the target with that key. */
interface Candidate {
  readonly key: string;
  readonly path: string;
}

/**
 * @param handleOf which handle of each to try
 * @param decoded gets what they lead to
 */
function decodeAll(
  mount: string,
  targets: readonly (readonly [key: string, target: WatchedInode])[],
  handleOf: (handle: FileHandle) => FileHandle | undefined,
  decoded: Map<string, Decoded>,
  files: FileSystems,
): Candidate[] {
  const asked = targets.flatMap(([key, { handle: whole }]) => {
    const handle = whole && handleOf(whole);
    return handle === undefined ? [] : [{ key, handle }];
  });
  if (asked.length === 0) return [];
  const answers = files.decode(mount, asked.map(({ handle }) => handle));
  return answers.flatMap((answer, i) => {
    if (answer === undefined) return [];
    decoded.set(asked[i].key, answer);
    return [{ key: asked[i].key, path: answer.link }];
  });
}

/** Further paths that may lead to a file. */
function otherNames(
  key: string,
  { device, inode }: WatchedInode,
  decoded: Decoded | undefined,
  files: FileSystems,
): Candidate[] {
  return [
    ...(decoded === undefined
      ? []
      : below(files.mountsOf(device), decoded.link)),
    ...files.namesInUse(inode),
  ].map((path) => ({ key, path }));
}

function isDeleted({ link, status }: Decoded): boolean {
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
      if (found.has(key)) continue;
      if (files.leadTo([path], [target])[0]) found.set(key, path);
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
