/**
 * The images of a tree, read and brought into one form: what CRIU writes in
 * several ways is one thing here. Refuses what cannot be restored, all of it
 * at once, before anything exists.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import type { ImageSet } from "../image/image_set.ts";
import type { Pagemap } from "../image/kinds.ts";
import {
  type ckpt_task_entry,
  type core_entry,
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type file_lock_entry,
  type fs_entry,
  type memfd_inode_entry,
  type mm_entry,
  type pstree_entry,
  type reg_file_entry,
  type seccomp_entry,
  type task_kobj_ids_entry,
  type vma_entry,
} from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { ENTERED_KINDS } from "../ns/kinds.ts";
import { TASK_STATE } from "../image/validate/tree.ts";
import { pagesName } from "../image/kinds.ts";
import { HUGE_PAGES, isSegment, MAP } from "../mm/vma.ts";
import {
  filesInFlight,
  readSocketImages,
  type SocketImages,
  unsupportedSockets,
} from "../files/socket_images.ts";
import { RESTORED_TYPES } from "../files/kinds.ts";
import { type TerminalImages, terminalsOf } from "../files/terminal_images.ts";
import { unsupportedLocks } from "../files/file_locks.ts";
import { readEndedTasks, readRemaps, type Remap } from "../ghost/remaps.ts";
import { readSegments, type SegmentImage } from "./segment_images.ts";

export interface ThreadImage {
  readonly tid: number;
  readonly core: core_entry;
}

/** All threads but a leader that has ended: at least one. */
export function livingThreads(
  { threads, extension }: Pick<TaskImages, "threads" | "extension">,
): readonly ThreadImage[] {
  return extension.ended_leader === undefined ? threads : threads.slice(1);
}

export interface SharedObject {
  readonly id: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** What mmap(2) is told of huge pages; 0: it has none. */
  readonly huge: number;
  readonly pagemap: Pagemap;
}

/** A process that had ended; its parent had not taken notice yet. */
export interface ZombieImage {
  readonly pid: number;
  readonly comm: string;
  /** As wait(2) gives it. */
  readonly status: number;
  readonly extension: ckpt_task_entry;
}

/** An object of memory that files of the image are opened of. */
export interface MemfdImage {
  readonly entry: memfd_inode_entry;
  /** Ids of these files. */
  readonly files: readonly number[];
  /** Undefined: it is empty. */
  readonly pagemap: Pagemap | undefined;
}

export interface TreeImages {
  readonly set: ImageSet;
  /** The root first, parents before children; with those that have ended. */
  readonly tree: readonly pstree_entry[];
  /** Those that live, in the same order. */
  readonly processes: readonly TaskImages[];
  readonly zombies: readonly ZombieImage[];
  /** Ids of the files that processes have open, or that are in flight. */
  readonly open: ReadonlySet<number>;
  readonly files: ReadonlyMap<number, file_entry>;
  readonly shared: readonly SharedObject[];
  readonly memfds: readonly MemfdImage[];
  readonly sockets: SocketImages;
  readonly locks: readonly file_lock_entry[];
  /** Those whose master is open. */
  readonly terminals: TerminalImages;
  /** System V segments by their ids. */
  readonly segments: ReadonlyMap<bigint, SegmentImage>;
  /** Files whose path does not lead to them, by their ids. */
  readonly remaps: ReadonlyMap<number, Remap>;
  /** Tasks that had ended and that files below /proc tell of; see there. */
  readonly endedTasks: ReturnType<typeof readEndedTasks>;
}

/** The images of one process that lives. */
export interface TaskImages {
  readonly set: ImageSet;
  readonly tree: pstree_entry;
  readonly pid: number;
  readonly ids: task_kobj_ids_entry;
  /** The signal that job control has stopped it with; 0: it ran. */
  readonly stopSignal: number;
  /** The leader comes first. */
  readonly threads: readonly ThreadImage[];
  readonly mm: mm_entry;
  readonly fs: fs_entry;
  readonly descriptors: readonly fdinfo_entry[];
  readonly files: ReadonlyMap<number, file_entry>;
  readonly pagemap: Pagemap;
  readonly shared: readonly SharedObject[];
  /** Those of all processes. */
  readonly segments: ReadonlyMap<bigint, SegmentImage>;
  readonly seccomp: seccomp_entry;
  /** What CRIU has no field for. */
  readonly extension: ckpt_task_entry;
}

/** What stopped a process whose image does not say (criu's default). */
const SIGSTOP = 19;

/** Images whose presence means state that is not restored yet. */
const UNSUPPORTED_IMAGES = [
  ["cgroup", "cgroups of the program's own"],
  ["apparmor", "AppArmor profiles"],
] as const;

const RESTORED_KINDS: ReadonlySet<number> = new Set([
  ...RESTORED_TYPES,
  fd_types.UNIXSK,
  fd_types.INETSK,
  fd_types.NETLINKSK,
  fd_types.PACKETSK,
]);

/** Kinds of areas that are not restored yet. */
const UNSUPPORTED_AREAS: readonly (readonly [bit: number, what: string])[] = [
  [VMA_STATUS.SOCKET, "memory of a packet socket"],
  [VMA_STATUS.SHSTK, "a shadow stack"],
  [VMA_STATUS.UPROBES, "uprobes"],
  [VMA_STATUS.EXT_PLUGIN, "memory of a device"],
];

const NAMESPACES = [
  "pid_ns_id",
  "net_ns_id",
  "ipc_ns_id",
  "uts_ns_id",
  "user_ns_id",
  "cgroup_ns_id",
  "time_ns_id",
] as const satisfies readonly (keyof task_kobj_ids_entry)[];

type Refuse = (object: string, why: string) => void;

/**
 * @param set validated
 * @throws CkptError refused, with all that cannot be restored
 */
export function readTreeImages(set: ImageSet): TreeImages {
  const reasons: Reason[] = [];
  const refuse: Refuse = (object, why) => reasons.push({ object, why });
  const tree = set.require("pstree", undefined);
  for (const [kind, what] of UNSUPPORTED_IMAGES) {
    const content = set.read(kind, undefined);
    const empty = content === undefined ||
      Array.isArray(content) && content.length === 0;
    if (!empty) refuse(`${kind}.img`, `${what} are not supported yet`);
  }
  const files = new Map(
    set.require("files", undefined).map((entry) => [entry.id, entry]),
  );
  const sockets = readSocketImages(set, files);
  reasons.push(...unsupportedSockets(sockets));
  const locks = set.read("filelocks", undefined) ?? [];
  reasons.push(...unsupportedLocks(locks));
  const remaps = readRemaps(set, files);
  const common = {
    set,
    files,
    segments: readSegments(set),
    seccomp: set.read("seccomp", undefined) ?? { seccomp_filters: [] },
  };
  const { processes, zombies, shared } = readProcesses(tree, common, refuse);
  const held = processes.flatMap(({ descriptors }) =>
    descriptors.map(({ id }) => id)
  );
  const flight = filesInFlight(sockets, held);
  for (const id of flight) {
    const { type } = files.get(id)!;
    if (RESTORED_KINDS.has(type)) continue;
    refuse(
      `files.img, id ${id}, in flight (SCM_RIGHTS)`,
      `its kind ${nameOfKind(type)} is not supported yet`,
    );
  }
  const open = new Set([...held, ...flight]);
  if (reasons.length > 0) {
    throw new CkptError(EXIT.refused, action(set), reasons);
  }
  return {
    ...common,
    sockets,
    locks,
    terminals: terminalsOf(files, {
      infos: set.read("tty-info", undefined) ?? [],
      data: set.read("tty-data", undefined) ?? [],
      extensions: set.read("ckpt-terminals", undefined) ?? [],
    }),
    remaps,
    endedTasks: readEndedTasks(set, files),
    tree,
    processes,
    zombies,
    open,
    shared,
    memfds: readMemfds(set, files, open, processes),
  };
}

/** What all processes of a tree have in common. */
type Common = Pick<TaskImages, "set" | "files" | "segments" | "seccomp">;

function readProcesses(
  tree: readonly pstree_entry[],
  common: Common,
  refuse: Refuse,
): Pick<TreeImages, "processes" | "zombies" | "shared"> {
  const { set } = common;
  const shared = new Map<bigint, SharedObject>();
  const spaces = new Map<mm_entry, Space>();
  const processes: TaskImages[] = [];
  const zombies: ZombieImage[] = [];
  for (const entry of tree) {
    const { pid } = entry;
    const task = set.require("core", pid).tc;
    if (task?.task_state === TASK_STATE.dead) {
      zombies.push({
        pid,
        comm: task.comm,
        status: task.exit_code,
        extension: readExtension(set, pid),
      });
      continue;
    }
    processes.push({
      ...readProcess(entry, common, shared, spaces, refuse),
      stopSignal: task?.task_state === TASK_STATE.stopped
        ? task.stop_signo ?? SIGSTOP
        : 0,
    });
  }
  if (processes[0]?.pid !== tree[0].pid) {
    refuse("pstree.img", `its root, process ${tree[0].pid}, has ended`);
  }
  return { processes, zombies, shared: [...shared.values()] };
}

/** Whether ckpt has to open or make something by own_objects.ts. */
export function hasOwnObjects({ set, files, sockets }: TreeImages): boolean {
  return set.read("ckpt-queues", undefined) !== undefined ||
    set.read("ckpt-tuns", undefined) !== undefined ||
    set.read("ckpt-rings", undefined) !== undefined ||
    sockets.packet.values().some(({ extension }) =>
      extension.packet_rings !== undefined
    ) ||
    files.values().some(({ nsf, bpf }) => (nsf ?? bpf) !== undefined);
}

/** Those that are open or mapped as such. */
function readMemfds(
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
  open: ReadonlySet<number>,
  processes: readonly Pick<TaskImages, "mm">[],
): MemfdImage[] {
  const used = new Set([
    ...open,
    ...[...new Set(processes.map(({ mm }) => mm))].flatMap((mm) =>
      mm.vmas.filter(({ status }) => (status & VMA_STATUS.MEMFD) !== 0)
        .map(({ shmid }) => Number(shmid))
    ),
  ]);
  const byInode = new Map<bigint, number[]>();
  for (const { id, memfd } of files.values()) {
    if (memfd === undefined || !used.has(id)) continue;
    const inode = BigInt(memfd.inode_id);
    const known = byInode.get(inode);
    if (known === undefined) byInode.set(inode, [id]);
    else known.push(id);
  }
  return (set.read("memfd", undefined) ?? []).flatMap((entry) => {
    const ids = byInode.get(entry.inode_id);
    return ids === undefined ? [] : [{
      entry,
      files: ids,
      pagemap: entry.size === 0n
        ? undefined
        : set.require("pagemap-shmem", BigInt(entry.shmid)),
    }];
  });
}

function readExtension(set: ImageSet, pid: number): ckpt_task_entry {
  return set.read("ckpt-task", pid) ?? { threads: [], areas: [], cgroups: [] };
}

function readProcess(
  tree: pstree_entry,
  { set, files, segments, seccomp }: Common,
  sharedInTree: Map<bigint, SharedObject>,
  spaces: Map<mm_entry, Space>,
  refuse: Refuse,
): Omit<TaskImages, "stopSignal"> {
  const { pid } = tree;
  const threads = tree.threads.map((tid) => ({
    tid,
    core: set.require("core", tid),
  }));
  const ids = set.require("ids", pid);
  refuseNamespaces(ids, set, refuse);
  for (const { tid, core } of threads) {
    const { lsm_profile } = core.thread_core?.creds ?? {};
    if (lsm_profile !== undefined && lsm_profile !== "unconfined") {
      refuse(`core-${tid}.img`, `the label ${lsm_profile} is not supported`);
    }
  }
  const descriptors = set.read("fdinfo", ids.files_id) ?? [];
  for (const { fd, type } of descriptors) {
    if (!RESTORED_KINDS.has(type)) {
      refuse(
        `descriptor ${fd} of process ${pid}`,
        `its kind ${nameOfKind(type)} is not supported yet`,
      );
    }
  }
  const original = set.require("mm", pid);
  const { mm, shared } = spaces.get(original) ??
    normalSpace(original, set, files, refuse);
  spaces.set(original, { mm, shared });
  for (const object of shared) {
    const known = sharedInTree.get(object.id);
    if (known === undefined || known.size < object.size) {
      sharedInTree.set(object.id, object);
    }
  }
  return {
    set,
    tree,
    pid,
    ids,
    threads,
    mm,
    fs: set.require("fs", pid),
    descriptors,
    files,
    pagemap: set.require("pagemap", pid),
    shared,
    segments,
    seccomp,
    extension: readExtension(set, pid),
  };
}

function action(set: ImageSet): string {
  return `restoring from ${set.directory}`;
}

function nameOfKind(type: number): string {
  return Object.entries(fd_types).find(([, value]) => value === type)?.[0] ??
    String(type);
}

function refuseNamespaces(
  ids: task_kobj_ids_entry,
  set: ImageSet,
  refuse: (object: string, why: string) => void,
): void {
  const own = set.inventory.root_ids;
  const needs = set.inventory.plugins_entry?.plugins ?? [];
  for (const name of NAMESPACES) {
    if (ENTERED_KINDS.some((kind) => name === `${kind}_ns_id`)) continue;
    // Without it nobody knows where the namespace begins.
    if (name === "cgroup_ns_id" && needs.includes("ckpt:cgroup-namespace")) {
      continue;
    }
    if ((ids[name] ?? 0) !== (own?.[name] ?? 0)) {
      refuse(
        "the program",
        `its own ${name.slice(0, name.indexOf("_"))} namespace is not ` +
          "supported yet",
      );
    }
  }
}

/** An address space, and the objects of shared memory in it. */
type Space = Pick<TaskImages, "mm" | "shared">;

function normalSpace(
  original: mm_entry,
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
  refuse: Refuse,
): Space {
  const shared = new Map<bigint, SharedObject>();
  const vmas = original.vmas.map((vma) =>
    normalArea(vma, set, files, shared, refuse)
  );
  return { mm: { ...original, vmas }, shared: [...shared.values()] };
}

/**
 * Brings shared anonymous memory, which CRIU writes as a memfd called
 * "/dev/zero", into the older form with the id of the object; notes the object.
 */
function normalArea(
  vma: vma_entry,
  set: ImageSet,
  files: ReadonlyMap<number, file_entry>,
  shared: Map<bigint, SharedObject>,
  refuse: (object: string, why: string) => void,
): vma_entry {
  const object = `mm image, area ${vma.start.toString(16)}`;
  for (const [bit, what] of UNSUPPORTED_AREAS) {
    if ((vma.status & bit) !== 0 && vma.status !== VMA_STATUS.SOCKET) {
      refuse(object, `${what} is not supported yet`);
    }
  }
  if ((vma.status & VMA_STATUS.MEMFD) !== 0) {
    const inodeId = files.get(Number(vma.shmid))?.memfd?.inode_id;
    const inode = set.read("memfd", undefined)?.find((entry) =>
      entry.inode_id === BigInt(inodeId ?? -1)
    );
    if (inode?.name !== "/dev/zero") return vma;
    const id = BigInt(inode.shmid);
    noteShared(shared, set, id, inode.size, 0);
    return {
      ...vma,
      shmid: id,
      flags: vma.flags | MAP.anonymous,
      status: VMA_STATUS.REGULAR | VMA_STATUS.ANON_SHARED,
    };
  }
  if ((vma.status & VMA_STATUS.ANON_SHARED) !== 0 && !isSegment(vma)) {
    const size = vma.pgoff + vma.end - vma.start;
    const huge = (vma.flags & HUGE_PAGES) >>> 0;
    noteShared(shared, set, vma.shmid, size, huge);
  }
  return vma;
}

function noteShared(
  shared: Map<bigint, SharedObject>,
  set: ImageSet,
  id: bigint,
  size: bigint,
  huge: number,
): void {
  const known = shared.get(id);
  if (known !== undefined && known.size >= size) return;
  shared.set(id, {
    id,
    size,
    huge,
    pagemap: known?.pagemap ?? set.require("pagemap-shmem", id),
  });
}

/** The path of the page image that belongs to a pagemap. */
export function pagesPath(set: ImageSet, pagemap: Pagemap): string {
  return set.path(pagesName(pagemap.pages_id));
}

/** A file of the image that is reached by its path. */
export function regularFile(
  images: TaskImages,
  id: number,
): reg_file_entry {
  const file = images.files.get(id)?.reg;
  if (file === undefined) {
    throw new CkptError(EXIT.image, action(images.set), [{
      object: `files.img, id ${id}`,
      why: "it is no regular file",
    }]);
  }
  return file;
}
