/**
 * The mount namespaces that the processes of a tree have and ckpt has not: what
 * is mounted in them, and how ckpt gets at their files.
 */
import type { Reason } from "../error.ts";
import {
  AT_FDCWD,
  close,
  type FileStatus,
  O,
  open,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { withoutMark } from "../ghost/fate.ts";
import { inodeKey, type WayIn } from "../ghost/files_in_use.ts";
import type { MountInfo } from "../proc/mountinfo.ts";
import { readMountInfo, readNamespace as nameOf } from "../proc/read.ts";
import {
  cloneBare,
  type NumberedMount,
  numberedMount,
} from "./bare_superblock.ts";
import { openAt } from "./calls.ts";
import { DetachedMounts } from "./detached.ts";
import { parseExternalMounts } from "./external.ts";
import {
  describeMount,
  deviceNumber,
  joinPath,
  type Mount,
  mountOf,
  relativePath,
} from "./mount.ts";
import { MountTree } from "./mount_tree.ts";
import {
  type MountsPlan,
  type NamespaceMounts,
  planMounts,
  type PlannedMount,
} from "./plan_dump.ts";
import { type FoundLayers, readLayers } from "./overlay_layers.ts";
import { trustLayers } from "./overlay_options.ts";
import { expectedNamespace } from "../ns/inside.ts";
import { OwnNamespace } from "./own_namespace.ts";
import { readNamespace } from "./read_namespace.ts";
import { hasOtherName, otherNameBelow } from "./renamed_sources.ts";
import { mountsShowing, nearestPath } from "./shown_elsewhere.ts";

/** One of them, as it was seen. */
export interface TreeNamespace {
  /** In the images. */
  readonly number: number;
  /** "mnt:[4026531840]" */
  readonly link: string;
  readonly mounts: readonly MountInfo[];
  readonly tree: MountTree<NumberedMount>;
  /** What ckpt puts before a path of it to get there. */
  readonly prefix: string;
}

/** The namespaces of one look at a tree. */
export interface SeenNamespaces {
  /** That of the first process first. */
  readonly all: readonly TreeNamespace[];
  /** Undefined for ckpt's own. */
  of(pid: number): TreeNamespace | undefined;
  /** The one that has a mount; undefined: ckpt's own, or nobody's. */
  withMount(mountId: number): TreeNamespace | undefined;
  /**
   * How ckpt gets at a file on a mount; undefined: as ever.
   *
   * @param link what the kernel tells as its path
   * @param at a link of /proc that leads to it
   */
  wayIn(mountId: number, link: string, at: string): WayIn | undefined;
  /** A path of ckpt's own namespace to what a path on a mount leads to. */
  outsidePath(mountId: number, path: string): string | undefined;
  /** Whether the image holds all that is in the file system of a mount. */
  isSaved(mountId: number, external: readonly string[]): boolean;
  /** What becomes of all mounts; `external` is the same at every call. */
  plan(external: readonly string[]): MountsPlan;
  /** The files that are all that is known of a mount that was unmounted. */
  filesOf(mount: Mount): ReadonlyMap<string, string> | undefined;
  /** Whether a mount shows a file or directory, though that was removed. */
  isRemovedSource(status: FileStatus): boolean;
  /** A clone of a mount, bare: see {@link cloneBare}. */
  cloneBare(mount: Mount): number;
}

/** CRIU has numbers up to 8 for the dumper's own. */
const FIRST_NUMBER = 20;

interface Known {
  readonly number: number;
  /** nsfs */
  readonly namespace: number;
  /** O_PATH */
  readonly root: number;
}

export class TreeNamespaces implements Disposable {
  readonly #own = new OwnNamespace();
  /** Or that of which ckpt has a copy (lib/ns/enter.ts). */
  readonly #ownLink = expectedNamespace("mnt");
  readonly #known = new Map<string, Known>();

  /** @param trusts whether the options of overlays are, see overlay_options.ts */
  constructor(readonly trusts = false) {}

  /** @param processes of the tree, its root first */
  look(processes: readonly { pid: number; tid: number }[]): SeenNamespaces {
    const links = new Map(
      processes.map(({ pid, tid }) => [pid, { tid, link: nameOf(tid, "mnt") }]),
    );
    const seen = new Map<string, TreeNamespace>();
    for (const { tid, link } of links.values()) {
      if (link === this.#ownLink || seen.has(link)) continue;
      seen.set(link, this.#see(link, tid));
    }
    const detached = new DetachedMounts(FIRST_NUMBER);
    const byMount = new Map<number, TreeNamespace>();
    for (const namespace of seen.values()) {
      for (const { mountId } of namespace.mounts) {
        byMount.set(mountId, namespace);
      }
    }
    const all = [...seen.values()];
    const host = readMountInfo(Deno.pid);
    const hostDevices = new Set(
      host.map(({ major, minor }) => deviceNumber(major, minor)),
    );
    const hostIds = new Set(host.map(({ mountId }) => mountId));
    let plan: MountsPlan | undefined;
    const planOnce = (external: readonly string[]) =>
      plan ??= detached.addTo(this.#plan(all, host, external));
    let outside: MountTree | undefined;
    const outsidePath = (mountId: number, path: string) => {
      const info = byMount.get(mountId)?.mounts.find((mount) =>
        mount.mountId === mountId
      );
      if (info === undefined) return undefined;
      const mount = mountOf(info, 0);
      const shown = {
        device: mount.device,
        root: joinPath(mount.root, relativePath(path, mount.point)),
      };
      outside ??= new MountTree(host.map((info) => mountOf(info, 0)));
      const mounts = mountsShowing(shown, outside.mounts, outside);
      return nearestPath(shown, mounts, outside);
    };
    return {
      all,
      of: (pid) => seen.get(links.get(pid)?.link ?? ""),
      withMount: (mountId) =>
        byMount.get(mountId) ?? (detached.has(mountId) ? all[0] : undefined),
      wayIn: (mountId, link, at) => {
        if (hostIds.has(mountId)) return undefined;
        const namespace = byMount.get(mountId);
        return namespace === undefined
          ? detached.wayIn(mountId, link, at, hostDevices)
          : {
            ...this.#wayIn(namespace, mountId, withoutMark(link)),
            outside: (path) => outsidePath(mountId, path),
          };
      },
      outsidePath,
      isSaved: (mountId, external) =>
        planOnce(external).superblocks.some(({ device, mounts }) =>
          mounts.some(({ id }) => id === mountId) ||
          device === deviceOfMount(byMount.get(mountId), mountId)
        ),
      filesOf: ({ id }) => detached.filesOf(id),
      plan: planOnce,
      isRemovedSource: (status) => this.#removedInodes.has(inodeKey(status)),
      cloneBare: ({ id, namespace }) =>
        detached.rootOf(id) ?? this.#cloneBare(
          all.find(({ number }) => number === namespace)!,
          id,
        ),
    };
  }

  #plan(
    all: readonly TreeNamespace[],
    host: readonly MountInfo[],
    external: readonly string[],
  ): MountsPlan {
    const plan = planMounts(
      all.map((namespace) => this.#byLivingNames(namespace)),
      host,
      parseExternalMounts(external),
      this.#overlaysOf(all, host),
    );
    const reasons = [...plan.reasons];
    const removed = this.#removedAmong(plan.mounts, all, reasons);
    return {
      ...plan,
      reasons,
      mounts: plan.mounts.map((planned) => ({
        ...planned,
        removed: removed.get(planned.mount),
        // What is mounted over a directory is told by nothing else.
        hostPath: planned.hostPath !== undefined &&
            isSamePlace(planned.hostPath, `${all[0].prefix}/.`)
          ? planned.hostPath
          : undefined,
      })),
    };
  }

  /** With the other names of files that lost those they were mounted by. */
  #byLivingNames(namespace: TreeNamespace): NamespaceMounts {
    const { number, mounts } = namespace;
    return {
      number,
      mounts: mounts.map((info) => {
        const { id, deleted, root, device } = mountOf(info, number);
        if (!deleted) return info;
        const file = this.#bareOf(namespace, id);
        if (!hasOtherName(stat(file))) return info;
        const seen = new Set<string>();
        for (const other of mounts.map((info) => mountOf(info, number))) {
          if (other.device !== device || other.deleted) continue;
          if (seen.has(other.root)) continue;
          seen.add(other.root);
          const fd = this.#bareOf(namespace, other.id);
          if ((stat(fd).mode & S_IF.MT) !== S_IF.DIR) continue;
          const name = otherNameBelow(file, root, { fd, root: other.root });
          if (name !== undefined) return { ...info, root: name };
        }
        return info;
      }),
    };
  }

  /** Of all looks: an inode in use is not used again. */
  readonly #removedInodes = new Set<string>();

  /** Mounts of what was removed, each with the first one of the same. */
  #removedAmong(
    mounts: readonly PlannedMount[],
    all: readonly TreeNamespace[],
    reasons: Reason[],
  ): ReadonlyMap<Mount, number> {
    const removed = new Map<Mount, number>();
    const first = new Map<string, number>();
    for (const { mount, origin } of mounts) {
      if (!mount.deleted) continue;
      if (origin.kind !== "fresh" && origin.kind !== "part") continue;
      const namespace = all.find(({ number }) => number === mount.namespace)!;
      const status = stat(this.#bareOf(namespace, mount.id));
      if (hasOtherName(status)) {
        reasons.push({
          object: describeMount(mount),
          why: "what it shows lost the name by which it was mounted, but has " +
            "another one, which ckpt could not find",
          remedy: `give it a name in the directory of ${mount.root}, where ` +
            "ckpt looks for one, or unmount it",
        });
      }
      const key = inodeKey(status);
      this.#removedInodes.add(key);
      if (!first.has(key)) first.set(key, mount.id);
      removed.set(mount, first.get(key)!);
    }
    return removed;
  }

  /** By device; they do not change while they are mounted. */
  readonly #overlays = new Map<number, FoundLayers>();

  #overlaysOf(
    all: readonly TreeNamespace[],
    host: readonly MountInfo[],
  ): ReadonlyMap<number, FoundLayers> {
    const known = new Set(
      host.map(({ major, minor }) => deviceNumber(major, minor)),
    );
    for (const namespace of all) {
      for (const mount of namespace.mounts) {
        const device = deviceNumber(mount.major, mount.minor);
        if (
          mount.type !== "overlay" || known.has(device) ||
          this.#overlays.has(device)
        ) continue;
        this.#overlays.set(
          device,
          this.#layersOf(mount, namespace, all, host),
        );
      }
    }
    return this.#overlays;
  }

  #layersOf(
    { mountId, superOptions }: MountInfo,
    namespace: TreeNamespace,
    all: readonly TreeNamespace[],
    host: readonly MountInfo[],
  ): FoundLayers {
    const fd = this.#cloneBare(namespace, mountId);
    try {
      const found = readLayers(fd, all, host);
      if ("layers" in found) return found;
      return this.trusts
        ? trustLayers(fd, superOptions, namespace, host)
        : { ...found, remedy: "--overlay-trust-options" };
    } finally {
      close(fd);
    }
  }

  /** Copies of mounts that paths do not lead to, as descriptors. */
  readonly #bare = new Map<number, number>();

  /** What is over a mount or a part of it is in nobody's way in a copy. */
  #wayIn(namespace: TreeNamespace, mountId: number, path: string): WayIn {
    const { tree, prefix } = namespace;
    if (tree.lookup(path)?.id === mountId) {
      return { prefix, start: "", isBare: false };
    }
    const bare = this.#bareOf(namespace, mountId);
    const { point } = tree.byId.get(mountId)!;
    return {
      // A file that is mounted is the link itself.
      prefix: (stat(bare).mode & S_IF.MT) === S_IF.DIR
        ? `/proc/self/fd/${bare}/.`
        : `/proc/self/fd/${bare}`,
      start: point === "/" ? "" : point,
      isBare: true,
    };
  }

  #bareOf(namespace: TreeNamespace, mountId: number): number {
    let bare = this.#bare.get(mountId);
    if (bare === undefined) {
      bare = this.#cloneBare(namespace, mountId);
      this.#bare.set(mountId, bare);
    }
    return bare;
  }

  #cloneBare({ link, tree }: TreeNamespace, id: number): number {
    const { namespace, root } = this.#known.get(link)!;
    return this.#own.within(
      namespace,
      () => cloneBare(this.#own, tree, root, id),
    );
  }

  #see(link: string, tid: number): TreeNamespace {
    const { number, namespace, root } = this.#open(link, tid);
    const mounts = readNamespace(this.#own, { namespace, root });
    const tree = new MountTree(mounts.map(numberedMount));
    return {
      number,
      link,
      mounts,
      tree,
      prefix: `/proc/self/fd/${root}/.`,
    };
  }

  #open(link: string, tid: number): Known {
    const known = this.#known.get(link);
    if (known !== undefined) return known;
    const namespace = open(`/proc/${tid}/ns/mnt`, O.RDONLY);
    const root = this.#rootOf(tid, namespace);
    const opened = {
      number: FIRST_NUMBER + this.#known.size,
      namespace,
      root,
    };
    this.#known.set(link, opened);
    return opened;
  }

  /**
   * A task whose root is a mount at / sees all of it, also where something is
   * mounted over that.
   */
  #rootOf(tid: number, namespace: number): number {
    const link = `/proc/${tid}/root`;
    const top = this.#own.within(
      namespace,
      () => openAt(AT_FDCWD, "/", O.PATH | O.DIRECTORY),
    );
    if (Deno.readLinkSync(link) !== "/") return top;
    close(top);
    return open(link, O.PATH | O.DIRECTORY);
  }

  [Symbol.dispose](): void {
    for (const { namespace, root } of this.#known.values()) {
      close(namespace);
      close(root);
    }
    for (const fd of this.#bare.values()) close(fd);
    this.#own[Symbol.dispose]();
  }
}

function deviceOfMount(
  namespace: TreeNamespace | undefined,
  mountId: number,
): number | undefined {
  const mount = namespace?.mounts.find((mount) => mount.mountId === mountId);
  return mount && deviceNumber(mount.major, mount.minor);
}

/** Whether two paths lead to the same directory. */
function isSamePlace(path: string, other: string): boolean {
  try {
    const [a, b] = [stat(path), stat(other)];
    return a.dev === b.dev && a.ino === b.ino;
  } catch (error) {
    if (error instanceof SyscallError) return false;
    throw error;
  }
}
