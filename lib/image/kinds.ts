/**
 * The kinds of image files: how each is named, which message it holds, how
 * many of them, and what follows an entry.
 */

import type { MessageName } from "./message.ts";
import type { Messages, pagemap_entry } from "./schema.gen.ts";

/** The first word of every image of today but the inventory. */
export const IMG_COMMON_MAGIC = 0x54564319;
/** The first word of files that a restore does not need. */
export const IMG_SERVICE_MAGIC = 0x55105940;

/** One entry, any number, or a pagemap: a head and then any number. */
export type Count = "one" | "many" | "pagemap";
/** How the number in the name is written; "optional" may be left out. */
export type Index = "none" | "decimal" | "hexadecimal" | "optional";
/** What follows an entry in the file. */
export type ExtraKind =
  | "none"
  /** As many bytes as fields of the entry say. */
  | "bytes"
  /** The two queues of a TCP connection. */
  | "queues"
  /** A segment of shared memory, unless its pages are stored elsewhere. */
  | "segment"
  /** Queued System V messages. */
  | "messages"
  /** Values of 16 bits. */
  | "semaphores"
  /** The content of a ghost file, which is never held in memory. */
  | "content";
/**
 * What it means when there is no such file: an error where one is needed, or
 * the same as one that holds nothing.
 */
export type Absent = "fatal" | "empty";

export interface ImageFile<
  M extends MessageName = MessageName,
  C extends Count = Count,
  I extends Index = Index,
  E extends ExtraKind = ExtraKind,
> {
  readonly magic: number;
  readonly message: M;
  readonly count: C;
  readonly index: I;
  readonly extra: E;
  readonly absent: Absent;
}

function file<
  M extends MessageName,
  C extends Count,
  I extends Index,
  E extends ExtraKind,
>(
  magic: number,
  message: M,
  count: C,
  index: I,
  extra: E,
  absent: Absent,
): ImageFile<M, C, I, E> {
  return { magic, message, count, index, extra, absent };
}

/** Every image that has a magic, by its name without number and ".img". */
// deno-fmt-ignore
export const IMAGE_FILES = {
  inventory: file(0x58313116, "inventory_entry", "one", "none", "none", "fatal"),
  pstree: file(0x50273030, "pstree_entry", "many", "none", "none", "fatal"),
  core: file(0x55053847, "core_entry", "one", "decimal", "none", "fatal"),
  ids: file(0x54432030, "task_kobj_ids_entry", "one", "decimal", "none", "fatal"),
  mm: file(0x57492820, "mm_entry", "one", "decimal", "none", "fatal"),
  fs: file(0x51403912, "fs_entry", "one", "decimal", "none", "fatal"),
  pagemap: file(0x56084025, "pagemap_entry", "pagemap", "decimal", "none", "fatal"),
  "pagemap-shmem": file(0x56084025, "pagemap_entry", "pagemap", "decimal", "none", "fatal"),
  fdinfo: file(0x56213732, "fdinfo_entry", "many", "decimal", "none", "empty"),
  files: file(0x56303138, "file_entry", "many", "none", "none", "fatal"),
  "remap-fpath": file(0x59133954, "remap_file_path_entry", "many", "none", "none", "empty"),
  "ghost-file": file(0x52583605, "ghost_file_entry", "one", "hexadecimal", "content", "fatal"),
  "pipes-data": file(0x56453709, "pipe_data_entry", "many", "none", "bytes", "empty"),
  "fifo-data": file(0x59333054, "pipe_data_entry", "many", "none", "bytes", "empty"),
  "sk-queues": file(0x56264026, "sk_packet_entry", "many", "none", "bytes", "empty"),
  "tcp-stream": file(0x51465506, "tcp_stream_entry", "one", "hexadecimal", "queues", "fatal"),
  memfd: file(0x48453499, "memfd_inode_entry", "many", "none", "none", "empty"),
  "tty-info": file(0x59453036, "tty_info_entry", "many", "none", "none", "empty"),
  "tty-data": file(0x59413026, "tty_data_entry", "many", "none", "none", "empty"),
  filelocks: file(0x54323616, "file_lock_entry", "many", "none", "none", "empty"),
  seccomp: file(0x64413049, "seccomp_entry", "one", "none", "none", "empty"),
  cgroup: file(0x59383330, "cgroup_entry", "one", "none", "none", "empty"),
  apparmor: file(0x59423047, "apparmor_entry", "one", "none", "none", "empty"),
  timens: file(0x43114433, "timens_entry", "one", "decimal", "none", "empty"),
  pidns: file(0x61157326, "pidns_entry", "one", "decimal", "none", "empty"),
  utsns: file(0x54473203, "utsns_entry", "one", "decimal", "none", "fatal"),
  userns: file(0x55474906, "userns_entry", "one", "decimal", "none", "fatal"),
  "ipcns-var": file(0x53115007, "ipc_var_entry", "one", "decimal", "none", "fatal"),
  "ipcns-shm": file(0x46283044, "ipc_shm_entry", "many", "decimal", "segment", "empty"),
  "ipcns-msg": file(0x55453737, "ipc_msg_entry", "many", "decimal", "messages", "empty"),
  "ipcns-sem": file(0x59573019, "ipc_sem_entry", "many", "decimal", "semaphores", "empty"),
  mountpoints: file(0x55563928, "mnt_entry", "many", "decimal", "none", "fatal"),
  autofs: file(0x49353943, "autofs_entry", "one", "decimal", "none", "fatal"),
  "binfmt-misc": file(0x67343323, "binfmt_misc_entry", "many", "optional", "none", "empty"),
  netns: file(0x55933752, "netns_entry", "one", "decimal", "none", "empty"),
  netdev: file(0x57373951, "net_device_entry", "many", "decimal", "none", "empty"),
  "bpfmap-file": file(0x57506142, "bpfmap_file_entry", "many", "none", "none", "empty"),
  "bpfmap-data": file(0x64324033, "bpfmap_data_entry", "many", "none", "bytes", "empty"),
  cpuinfo: file(0x61404013, "cpuinfo_entry", "one", "none", "none", "empty"),
  "stats-dump": file(0x57093306, "stats_entry", "one", "none", "none", "empty"),
  "stats-restore": file(0x57093306, "stats_entry", "one", "none", "none", "empty"),
  "irmap-cache": file(0x57004059, "irmap_cache_entry", "many", "none", "none", "empty"),
  "ckpt-task": file(0x434b5054, "ckpt_task_entry", "one", "decimal", "none", "empty"),
  "ckpt-ghosts": file(0x434b5047, "ckpt_ghost_entry", "many", "none", "none", "empty"),
  "ckpt-pipes": file(0x434b5050, "ckpt_pipe_entry", "many", "none", "none", "empty"),
  "ckpt-sockets": file(0x434b504b, "ckpt_socket_entry", "many", "none", "none", "empty"),
  "ckpt-files": file(0x434b5046, "ckpt_file_entry", "many", "none", "none", "empty"),
  "ckpt-watches": file(0x434b5057, "ckpt_watches_entry", "many", "none", "none", "empty"),
  "ckpt-queues": file(0x434b5051, "ckpt_queue_entry", "many", "none", "none", "empty"),
  "ckpt-tuns": file(0x434b5055, "ckpt_tun_entry", "many", "none", "none", "empty"),
  "ckpt-rings": file(0x434b5052, "ckpt_ring_entry", "many", "none", "none", "empty"),
  "ckpt-snapshots": file(0x434b504e, "ckpt_snapshot_entry", "many", "none", "none", "empty"),
  "ckpt-mounts": file(0x434b504d, "ckpt_mount_entry", "many", "decimal", "none", "empty"),
  "ckpt-terminals": file(0x434b5059, "ckpt_terminal_entry", "many", "none", "none", "empty"),
  "ckpt-sysctls": file(0x434b5056, "ckpt_sysctl_entry", "many", "none", "none", "empty"),
  "ckpt-segments": file(0x434b5053, "ckpt_segment_entry", "many", "none", "none", "empty"),
} as const;

export type ImageKind = keyof typeof IMAGE_FILES;

/** Files that are not images, though they lie among them: no ".img". */
const SERVICE: ReadonlySet<ImageKind> = new Set<ImageKind>([
  "stats-dump",
  "stats-restore",
  "irmap-cache",
]);

export function isService(kind: ImageKind): boolean {
  return SERVICE.has(kind);
}

/** The bytes of a TCP connection that were not yet read, and not yet acked. */
export interface TcpQueues {
  inq: Uint8Array;
  outq: Uint8Array;
}

export interface SysvMessage {
  mtype: bigint;
  data: Uint8Array;
}

interface Extras {
  none: unknown;
  content: unknown;
  bytes: { extra: Uint8Array };
  queues: { extra: TcpQueues };
  segment: { extra?: Uint8Array | undefined };
  messages: { extra: SysvMessage[] };
  semaphores: { extra: Uint16Array };
}

/** One entry with what follows it. */
export type Entry<K extends ImageKind> =
  & Messages[(typeof IMAGE_FILES)[K]["message"]]
  & Extras[(typeof IMAGE_FILES)[K]["extra"]];

/** A pagemap: the number of its page file, and the runs of pages. */
export interface Pagemap {
  pages_id: number;
  entries: pagemap_entry[];
}

/** What an image holds: an entry, a list of entries, or a pagemap. */
export type Content<K extends ImageKind> = {
  one: Entry<K>;
  many: Entry<K>[];
  pagemap: Pagemap;
}[(typeof IMAGE_FILES)[K]["count"]];

/** The number in a file's name; undefined for kinds that have none. */
export type ImageIndex = number | bigint | undefined;

/** The name of a file: "core-12.img", "ghost-file-1f.img", "stats-dump". */
export function imageName(kind: ImageKind, index?: ImageIndex): string {
  const { index: style } = IMAGE_FILES[kind];
  if (style === "none" || (style === "optional" && index === undefined)) {
    if (index !== undefined) {
      throw new TypeError(`${kind} images have no number, not ${index}`);
    }
    return isService(kind) ? kind : `${kind}.img`;
  }
  if (index === undefined || index < 0) {
    throw new TypeError(`${kind} images need a number, not ${index}`);
  }
  return `${kind}-${index.toString(style === "hexadecimal" ? 16 : 10)}.img`;
}

/** The kind and number of a file's name; undefined for any other name. */
export function parseImageName(
  name: string,
): { kind: ImageKind; index: bigint | undefined } | undefined {
  const plain = name.endsWith(".img") ? name.slice(0, -4) : name;
  if (Object.hasOwn(IMAGE_FILES, plain)) {
    const kind = plain as ImageKind;
    const { index } = IMAGE_FILES[kind];
    return imageHasNoNumber(index) && isService(kind) === (plain === name)
      ? { kind, index: undefined }
      : undefined;
  }
  const match = /^(.+)-([0-9a-f]+)$/.exec(plain);
  if (!match || plain === name || !Object.hasOwn(IMAGE_FILES, match[1])) {
    return undefined;
  }
  const kind = match[1] as ImageKind;
  const style = IMAGE_FILES[kind].index;
  if (style === "none") return undefined;
  if (style !== "hexadecimal" && !/^[0-9]+$/.test(match[2])) return undefined;
  const index = BigInt(style === "hexadecimal" ? "0x" + match[2] : match[2]);
  return imageName(kind, index) === name ? { kind, index } : undefined;
}

function imageHasNoNumber(index: Index): boolean {
  return index === "none" || index === "optional";
}

/** The file that holds the pages of a pagemap. */
export function pagesName(pagesId: number): string {
  return `pages-${pagesId}.img`;
}

/** The subdirectory where files lie until the image is complete. */
export const PARTIAL_NAME = ".ckpt-partial";

const RAW_NAMES = [
  /^pages-\d+\.img$/,
  /^tmpfs(-dev)?-\d+\.tar\.gz\.img$/,
  /^(ifaddr|route|route6|rule|iptables|ip6tables|nftables)-\d+\.img$/,
  /^netns-(ct|exp)-\d+\.img$/,
];

/** Whether a name is that of a file without framing: pages, archives, dumps. */
export function isRawName(name: string): boolean {
  return RAW_NAMES.some((pattern) => pattern.test(name));
}

const LEGACY_NAMES: ReadonlySet<string> = new Set(
  (
    "reg-files inetsk ns-files packetsk netlinksk eventfd eventpoll " +
    "eventpoll-tfd signalfd tunfile timerfd inotify inotify-wd fanotify " +
    "fanotify-mark ext-files unixsk fifo pipes tty pidfd"
  ).split(" ").map((name) => `${name}.img`),
);

const LEGACY_PATTERN =
  /^(vmas|sigacts|signal-s|signal-p|creds|rlimit|itimers|posix-timers|pages-shmem)-\d+\.img$/;

/** Whether only versions of CRIU from before 2.0 or so write such a file. */
export function isLegacyName(name: string): boolean {
  return LEGACY_NAMES.has(name) || LEGACY_PATTERN.test(name);
}
