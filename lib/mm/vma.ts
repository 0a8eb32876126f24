/**
 * Virtual memory areas (VMAs): what /proc/PID/smaps tells, as the image has
 * it. Pure; every kind of area that cannot be saved becomes a reason.
 */
import type { Reason } from "../error.ts";
import type { vma_entry } from "../image/schema.gen.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import type { SmapsMapping } from "../proc/smaps.ts";

/** mmap(2) flags (asm-generic/mman*.h). */
export const MAP = {
  shared: 0x1,
  private: 0x2,
  droppable: 0x8,
  fixed: 0x10,
  anonymous: 0x20,
  growsdown: 0x100,
  locked: 0x2000,
  noreserve: 0x4000,
  hugetlb: 0x40000,
  fixedNoreplace: 0x100000,
} as const;

/** Where the flags of mmap(2) tell the size of huge pages, as a power of two. */
const HUGE_SHIFT = 26;
/** Of vma_entry.flags: that pages are huge, and how large. */
export const HUGE_PAGES = (MAP.hugetlb | 0x3f << HUGE_SHIFT) >>> 0;

/** VmFlags that are set again by madvise(2): code -> advice number. */
const ADVICE: Readonly<Record<string, number>> = {
  rr: 1, // MADV_RANDOM
  sr: 2, // MADV_SEQUENTIAL
  dc: 10, // MADV_DONTFORK
  mg: 12, // MADV_MERGEABLE
  hg: 14, // MADV_HUGEPAGE
  nh: 15, // MADV_NOHUGEPAGE
  dd: 16, // MADV_DONTDUMP
  wf: 18, // MADV_WIPEONFORK
};

/** VmFlags of areas that cannot be saved. */
const UNSUPPORTED: Readonly<Record<string, string>> = {
  io: "memory of a device cannot be saved",
  pf: "memory of a device cannot be saved",
  ss: "a shadow stack is not supported yet",
  um: "it is registered with userfaultfd, which cannot be saved",
  uw: "it is registered with userfaultfd, which cannot be saved",
  ui: "it is registered with userfaultfd, which cannot be saved",
};

/** How the content of an area gets into the image. */
export type Content =
  /** Not at all: the kernel or the file provides it. */
  | "none"
  /** The pages that differ from zeros. */
  | "anonymous"
  /** The pages that were written since the file was mapped. */
  | "privateFile"
  /** All pages. */
  | "all"
  /** Through the shared memory object, once for all its areas. */
  | "object";

export interface Vma {
  /** As the image has it; `shmid` is filled in when files get their ids. */
  readonly entry: vma_entry;
  readonly content: Content;
  /** Name of its link in /proc/PID/map_files, when a file is mapped. */
  readonly link?: string;
  /** Path of the mapped file. */
  readonly path?: string;
  /** Inode of the mapped file or shared memory object; id of a segment. */
  readonly inode: bigint;
  /** Of a System V segment: the key it was made with; 0: IPC_PRIVATE. */
  readonly segmentKey?: number;
  /** A memfd is mapped, which has no path. */
  readonly memfd?: boolean;
  /** MLOCK_ONFAULT: locked as pages are touched. */
  readonly lockOnFault: boolean;
  /** mseal(2): may not be changed any more. */
  readonly sealed: boolean;
  /** Name given with PR_SET_VMA_ANON_NAME. */
  readonly name?: string;
}

export interface VmaPlan {
  readonly vmas: readonly Vma[];
  readonly reasons: readonly Reason[];
}

const VSYSCALL_START = 0xffffffffff600000;

/**
 * Decides for every mapping how it is saved.
 *
 * @param pid for the words of the reasons
 */
export function planVmas(
  pid: number,
  mappings: readonly SmapsMapping[],
): VmaPlan {
  const vmas: Vma[] = [];
  const reasons: Reason[] = [];
  for (const mapping of mappings) {
    const refusal = refuse(mapping);
    if (refusal !== undefined) {
      reasons.push({ object: describeMapping(pid, mapping), ...refusal });
      continue;
    }
    const vma = planVma(mapping);
    const last = vmas.at(-1);
    if (last !== undefined && mergesVvar(last, vma)) {
      // [vvar] and [vvar_vclock] are one entry in the image.
      last.entry.end = vma.entry.end;
      continue;
    }
    vmas.push(vma);
  }
  return { vmas, reasons };
}

function mergesVvar(last: Vma, vma: Vma): boolean {
  return (last.entry.status & VMA_STATUS.VVAR) !== 0 &&
    (vma.entry.status & VMA_STATUS.VVAR) !== 0 &&
    last.entry.end === vma.entry.start;
}

/** "mapping 7f00-7f10 (/lib/x.so) of task 12" */
export function describeMapping(pid: number, mapping: SmapsMapping): string {
  const name = mapping.path === "" ? "" : ` (${mapping.path})`;
  return `mapping ${mapping.start.toString(16)}-${
    mapping.end.toString(16)
  }${name} of task ${pid}`;
}

function isVvar(mapping: SmapsMapping): boolean {
  return mapping.path.startsWith("[vvar");
}

function isAnonymousShared(mapping: SmapsMapping): boolean {
  return mapping.shared &&
    (mapping.path === "/dev/zero (deleted)" ||
      mapping.path.startsWith("[anon_shmem:"));
}

/**
 * The key in the name of a System V segment, "/SYSV0c0ffee0 (deleted)"; its
 * inode is its id (newseg in ipc/shm.c). It has no device behind it, as a file
 * of the same name would.
 */
function segmentKeyOf(
  { shared, major, path }: SmapsMapping,
): number | undefined {
  const key = /^\/SYSV([0-9a-f]{8}) \(deleted\)$/.exec(path)?.[1];
  return key === undefined || !shared || major !== 0
    ? undefined
    : parseInt(key, 16);
}

function isMemfd({ path, major }: SmapsMapping): boolean {
  return major === 0 && path.startsWith("/memfd:") &&
    path.endsWith(" (deleted)");
}

/** mmap(2) with MAP_ANONYMOUS and MAP_HUGETLB. */
function isAnonymousHuge(
  { path, major, hugePageSize }: SmapsMapping,
): boolean {
  return hugePageSize !== undefined && major === 0 &&
    path === "/anon_hugepage (deleted)";
}

function refuse(
  mapping: SmapsMapping,
): Omit<Reason, "object"> | undefined {
  if (isVvar(mapping)) return undefined;
  for (const flag of mapping.vmFlags) {
    const why = UNSUPPORTED[flag];
    if (why !== undefined) return { why };
  }
  if (mapping.vmFlags.has("ht") && segmentKeyOf(mapping) !== undefined) {
    return {
      why: "huge pages of a System V segment (SHM_HUGETLB) are not supported",
    };
  }
  const { path } = mapping;
  if (isRing(path)) return undefined;
  if (isPacketRing(mapping)) return undefined;
  if (path.startsWith("anon_inode:") || path.startsWith("socket:")) {
    return { why: "memory of a kernel object is not supported yet" };
  }
  if (path === "/secretmem (deleted)" && mapping.major === 0) {
    return { why: "secret memory (memfd_secret) cannot be saved" };
  }
  if (path === "[uprobes]") {
    return { why: "the program is being traced with uprobes" };
  }
  return undefined;
}

function isRing(path: string): boolean {
  return path === "anon_inode:[io_uring]";
}

/** The rings of a packet socket, all of them. */
function isPacketRing({ path, shared, offset }: SmapsMapping): boolean {
  return shared && offset === 0 && path.startsWith("socket:[");
}

/** What holds for areas of every kind: protection, flags, advice. */
function plainEntry(mapping: SmapsMapping): vma_entry {
  const { vmFlags } = mapping;
  const entry: vma_entry = {
    start: BigInt(mapping.start),
    end: BigInt(mapping.end),
    pgoff: 0n,
    shmid: 0n,
    prot: mapping.prot,
    flags: mapping.shared ? MAP.shared : MAP.private,
    status: VMA_STATUS.REGULAR,
    fd: -1n,
  };
  if (vmFlags.has("gd")) entry.flags |= MAP.growsdown;
  if (vmFlags.has("lo")) entry.flags |= MAP.locked;
  if (vmFlags.has("nr")) entry.flags |= MAP.noreserve;
  if (vmFlags.has("dp")) {
    entry.flags = (entry.flags & ~MAP.private) | MAP.droppable;
  }
  let advice = 0n;
  for (const flag of vmFlags) {
    const number = ADVICE[flag];
    if (number !== undefined) advice |= 1n << BigInt(number);
  }
  if (advice !== 0n) entry.madv = advice;
  return entry;
}

function planVma(mapping: SmapsMapping): Vma {
  const { path, vmFlags } = mapping;
  const entry = plainEntry(mapping);
  const base = {
    entry,
    inode: mapping.inode,
    lockOnFault: vmFlags.has("lf"),
    sealed: vmFlags.has("sl"),
    name: /^\[anon(?:_shmem)?:(.*)\]$/.exec(path)?.[1],
  };

  if (mapping.start >= VSYSCALL_START) {
    entry.status = VMA_STATUS.VSYSCALL | VMA_STATUS.ANON_PRIVATE;
    entry.flags |= MAP.anonymous;
    return { ...base, content: "none" };
  }
  if (isVvar(mapping)) {
    entry.status |= VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE;
    entry.flags |= MAP.anonymous;
    return { ...base, content: "none" };
  }
  if (path === "[vdso]") {
    entry.status |= VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE;
    entry.flags |= MAP.anonymous;
    return { ...base, content: "all" };
  }
  const isHuge = isAnonymousHuge(mapping);
  // Of a file, it is the file that tells; but see isPrivateHuge.
  if (isHuge || vmFlags.has("ht") && !mapping.shared) {
    const power = Math.log2(mapping.hugePageSize!);
    entry.flags |= MAP.hugetlb | power << HUGE_SHIFT;
  }
  if (isAnonymousShared(mapping) || isHuge && mapping.shared) {
    entry.status |= VMA_STATUS.ANON_SHARED;
    entry.flags |= MAP.anonymous;
    entry.pgoff = BigInt(mapping.offset);
    return { ...base, content: "object", link: linkName(mapping) };
  }
  const segmentKey = segmentKeyOf(mapping);
  if (segmentKey !== undefined) {
    entry.status |= VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC;
    entry.flags |= MAP.anonymous;
    entry.pgoff = BigInt(mapping.offset);
    // mw: it is not attached with SHM_RDONLY.
    entry.fdflags = vmFlags.has("mw") ? 2 : 0;
    return { ...base, content: "object", link: linkName(mapping), segmentKey };
  }
  if (path === "/[aio] (deleted)" && mapping.major === 0) {
    entry.status = VMA_STATUS.AIORING;
    return { ...base, content: "all" };
  }
  if (isRing(path)) {
    entry.pgoff = BigInt(mapping.offset);
    entry.status = VMA_STATUS.IO_URING;
    return { ...base, content: "all" };
  }
  if (isPacketRing(mapping)) {
    entry.status = VMA_STATUS.SOCKET;
    return { ...base, content: "none" };
  }
  if (isMemfd(mapping)) {
    entry.pgoff = BigInt(mapping.offset);
    entry.status |= VMA_STATUS.MEMFD |
      (mapping.shared ? VMA_STATUS.FILE_SHARED : VMA_STATUS.FILE_PRIVATE);
    entry.fdflags = mapping.shared && vmFlags.has("mw") ? 2 : 0;
    return {
      ...base,
      content: mapping.shared ? "none" : "privateFile",
      link: linkName(mapping),
      memfd: true,
    };
  }
  if (path.startsWith("/") && !isHuge) {
    entry.pgoff = BigInt(mapping.offset);
    entry.status |= mapping.shared
      ? VMA_STATUS.FILE_SHARED
      : VMA_STATUS.FILE_PRIVATE;
    // mw: the file was opened for writing, or the mapping is private.
    entry.fdflags = mapping.shared && vmFlags.has("mw") ? 2 : 0;
    return {
      ...base,
      content: mapping.shared ? "none" : "privateFile",
      link: linkName(mapping),
      path,
    };
  }
  entry.status |= VMA_STATUS.ANON_PRIVATE;
  entry.flags |= MAP.anonymous;
  if (path === "[heap]") entry.status |= VMA_STATUS.HEAP;
  return {
    ...base,
    content: vmFlags.has("dp") ? "none" : "anonymous",
  };
}

function linkName(mapping: SmapsMapping): string {
  return `${mapping.start.toString(16)}-${mapping.end.toString(16)}`;
}

/** Part of a System V segment; `shmid` is its id. */
export function isSegment({ status }: vma_entry): boolean {
  return (status & VMA_STATUS.SYSVIPC) !== 0;
}

/** Private memory of huge pages, of which there may be no more to be had. */
export function isPrivateHuge({ flags }: vma_entry): boolean {
  return (flags & MAP.hugetlb) !== 0 && (flags & MAP.private) !== 0;
}
