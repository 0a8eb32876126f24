/** The file systems of this host, as far as finding files by handles goes. */
import { Calls } from "../ffi/calls.ts";
import {
  close,
  type FileStatus,
  readLink,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { readMountInfo } from "../proc/read.ts";
import {
  AskedFiles,
  type ExtendedStatus,
  inParts,
  statusAt,
  statx,
} from "./calls.ts";
import type { FilesInUse, UsedPath } from "./files_in_use.ts";
import {
  AskedHandles,
  type FileHandle,
  handleAt,
  isSameHandle,
  openByHandles,
} from "./handles.ts";
import type { Decoded, FileSystems, WatchedInode } from "./watch_targets.ts";

/** A device as the kernel numbers it: 20 bits for the minor number. */
function kernelDevice(major: number, minor: number): number {
  return (major << 20 | minor) >>> 0;
}

/** Few enough for any limit of descriptors. */
const OPEN_AT_ONCE = 256;

export class HostFileSystems implements FileSystems {
  readonly #devices: ReadonlyMap<number, number>;
  readonly #byDevice: ReadonlyMap<number, readonly MountInfo[]>;
  readonly #points: ReadonlySet<string>;
  readonly #reached = new Map<number, readonly string[]>();

  /** @param inUse files that a program uses, at a dump */
  constructor(
    readonly files?: Pick<FilesInUse, "namesOf" | "useOf">,
    readonly mounts: readonly MountInfo[] = readMountInfo(Deno.pid),
  ) {
    this.#devices = new Map(
      mounts.map(({ mountId, major, minor }) => [
        mountId,
        kernelDevice(major, minor),
      ]),
    );
    this.#byDevice = Map.groupBy(
      mounts,
      ({ major, minor }) => kernelDevice(major, minor),
    );
    this.#points = new Set(mounts.map(({ mountPoint }) => mountPoint));
  }

  /** Those that nothing else is mounted over. */
  mountsOf(device: number): readonly string[] {
    let reached = this.#reached.get(device);
    if (reached === undefined) {
      reached = (this.#byDevice.get(device) ?? []).filter((mount) =>
        statusOf(mount.mountPoint)?.mountId === BigInt(mount.mountId)
      ).map(({ mountPoint }) => mountPoint);
      this.#reached.set(device, reached);
    }
    return reached;
  }

  get anyMounts(): readonly string[] {
    return [...this.#byDevice.keys()].flatMap((device) =>
      this.mountsOf(device).slice(0, 1)
    );
  }

  isMountPoint(path: string): boolean {
    return this.#points.has(path);
  }

  /** The mount point of a mount that can be reached by it. */
  mountPointOf(mountId: number): string | undefined {
    const device = this.#devices.get(mountId);
    if (device === undefined) return undefined;
    const point =
      this.#byDevice.get(device)!.find((mount) => mount.mountId === mountId)!
        .mountPoint;
    return this.mountsOf(device).includes(point) ? point : undefined;
  }

  leadTo(
    paths: readonly string[],
    targets: readonly WatchedInode[],
  ): boolean[] {
    const pairs = paths.map((path, i) => ({ path, target: targets[i] }));
    return inParts(pairs, (pairs) => {
      const calls = new Calls();
      const asked = new AskedFiles(calls, pairs.map(({ path }) => path), false);
      const handles = new AskedHandles(calls, asked.path, pairs.length);
      calls.run(pairs.length);
      return pairs.map(({ path, target: { device, inode, handle } }, i) => {
        if (!path.startsWith("/") || !asked.isKnown(i)) return false;
        if (
          asked.inode(i) !== inode ||
          this.#devices.get(asked.mountId(i)) !== device
        ) return false;
        if (handle === undefined) return true;
        if (handles.isKnown(i)) return handles.is(i, handle);
        const other = handleAt(path);
        return other !== undefined && isSameHandle(other, handle);
      });
    });
  }

  decode(
    directory: string,
    handles: readonly FileHandle[],
  ): (Decoded | undefined)[] {
    return inParts(handles, (handles) => {
      const fds = openByHandles(directory, handles);
      const open = fds.filter((fd) => fd !== undefined);
      const paths = open.map((fd) => `/proc/self/fd/${fd}`);
      try {
        const known = new Map(
          open.map((fd, i) => [
            fd,
            { link: decodeText(readLink(paths[i])), status: stat(fd) },
          ]),
        );
        return fds.map((fd) => fd === undefined ? undefined : known.get(fd));
      } finally {
        for (const fd of open) close(fd);
      }
    }, OPEN_AT_ONCE);
  }

  namesInUse(inode: bigint): readonly string[] {
    return this.files?.namesOf(inode) ?? [];
  }

  inUse(status: FileStatus): UsedPath | undefined {
    return this.files?.useOf(status);
  }

  *list(directory: string): Iterable<{ name: string; isDirectory: boolean }> {
    try {
      yield* Deno.readDirSync(directory);
    } catch (error) {
      // It went away, or cannot be read: then nothing is found in it.
      if (!(error instanceof Error)) throw error;
    }
  }

  inodeAt(path: string): bigint | undefined {
    return statusAt(path)?.ino;
  }
}

/** Of a path itself, links not followed; undefined when it is not there. */
function statusOf(path: string): ExtendedStatus | undefined {
  try {
    return statx(path, false);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}
