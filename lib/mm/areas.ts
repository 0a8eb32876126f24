/**
 * Operations that make single areas of an address space: mapping each kind,
 * advice, names, locks. `rebuild.ts` and `inherit.ts` say which and when.
 */
import { CkptError, EXIT } from "../error.ts";
import type { Argument, Program, Result } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type {
  ckpt_area_entry,
  mm_entry,
  pagemap_entry,
  reg_file_entry,
  vma_entry,
} from "../image/schema.gen.ts";
import { isPrivate, VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import { type AttachInput, attachSegments } from "./attach_segments.ts";
import { isSegment, MAP } from "./vma.ts";

const ARCH_MAP_VDSO_64 = 0x2003;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MLOCK_ONFAULT = 1;
const LOCK_NB = 4;
const PR_SET_VMA = 0x53564d41;
const PR_SET_VMA_ANON_NAME = 0;

/** madvise(2), asm-generic/mman-common.h. */
export const MADV = {
  normal: 0,
  random: 1,
  sequential: 2,
  dontneed: 4,
  dontfork: 10,
  mergeable: 12,
  unmergeable: 13,
  hugepage: 14,
  nohugepage: 15,
  dontdump: 16,
  dodump: 17,
  wipeonfork: 18,
  keeponfork: 19,
  guardInstall: 102,
  guardRemove: 103,
} as const;

export interface RebuildInput extends AttachInput {
  mm: mm_entry;
  /** Regular files by id. */
  files: Pick<ReadonlyMap<number, reg_file_entry>, "get">;
  /** What to open in the stead of paths that do not lead to their files. */
  sources?: ReadonlyMap<number, string>;
  pages: readonly pagemap_entry[];
  /** Descriptor of the page image, in the agent. */
  pagesFd: Argument;
  /** Descriptors of the objects of shared anonymous memory, in the agent. */
  shared: ReadonlyMap<bigint, Argument>;
  /** What CRIU has no field for, by the start of the area. */
  extensions: ReadonlyMap<bigint, ckpt_area_entry>;
}

/** Which advice an area was given. */
export function hasAdvice({ madv }: vma_entry, advice: number): boolean {
  return ((madv ?? 0n) >> BigInt(advice) & 1n) !== 0n;
}

export function isVdso(vma: vma_entry): boolean {
  return (vma.status & VMA_STATUS.VDSO) !== 0;
}

export function isVvar(vma: vma_entry): boolean {
  return (vma.status & VMA_STATUS.VVAR) !== 0;
}

/** The areas that a restore makes. */
export function realAreas({ vmas }: mm_entry): vma_entry[] {
  return vmas.filter(({ status }) => (status & VMA_STATUS.REGULAR) !== 0);
}

/** Ranges with guard pages, MADV_GUARD_INSTALL. */
export function guardRanges({ vmas }: mm_entry): vma_entry[] {
  return vmas.filter(({ status }) => (status & VMA_STATUS.GUARD) !== 0);
}

/** "area 7f00-7f10 of /lib/x.so" */
export function nameOf(
  vma: vma_entry,
  { files }: Pick<RebuildInput, "files">,
): string {
  const range = `${vma.start.toString(16)}-${vma.end.toString(16)}`;
  const file =
    (vma.status & (VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED)) !== 0
      ? files.get(Number(vma.shmid))
      : undefined;
  return file === undefined ? `area ${range}` : `area ${range} of ${file.name}`;
}

/** Areas into which pages are written; they must be writable meanwhile. */
export function areasWithPages(
  vmas: readonly vma_entry[],
  pages: readonly { start: bigint; end: bigint }[],
): ReadonlySet<vma_entry> {
  const found = new Set<vma_entry>();
  let at = 0;
  for (const { start, end } of pages) {
    while (at < vmas.length && vmas[at].end <= start) at++;
    for (let i = at; i < vmas.length && vmas[i].start < end; i++) {
      if (isPrivate(vmas[i])) found.add(vmas[i]);
    }
  }
  return found;
}

/** Maps areas that are not there yet, writable where pages are to come. */
export function mapAreas(
  program: Program,
  all: readonly vma_entry[],
  wanted: ReadonlySet<vma_entry>,
  written: ReadonlySet<vma_entry>,
  input: RebuildInput,
): void {
  const vmas = all.filter((vma) => wanted.has(vma));
  mapVdso(program, vmas);
  mapAnonymous(program, all, wanted, written, input);
  mapSharedMemory(program, vmas, input);
  attachSegments(program, vmas, input);
  mapFiles(program, vmas, written, input);
}

/**
 * The kernel maps [vvar] and [vdso] where asked (arch_prctl, map_vdso_once in
 * arch/x86/entry/vdso/vma.c); they stand one after the other.
 */
function mapVdso(program: Program, vmas: readonly vma_entry[]): void {
  const vdso = vmas.find(isVdso);
  const vvar = vmas.find(isVvar);
  if (vdso === undefined && vvar === undefined) return;
  if (vdso === undefined || vvar === undefined || vvar.end !== vdso.start) {
    throw new CkptError(EXIT.refused, "planning the address space", [{
      object: "vdso",
      why: "the program moved its vdso away from its data (vvar), which is " +
        "not supported yet",
    }]);
  }
  program.call(
    "arch_prctl",
    [ARCH_MAP_VDSO_64, vvar.start],
    "mapping the vdso",
  );
}

function mmap(
  program: Program,
  vma: { start: bigint; end: bigint },
  prot: number,
  flags: number,
  fd: Argument,
  offset: bigint,
  purpose: string,
): void {
  program.call(
    "mmap",
    [vma.start, vma.end - vma.start, prot, flags | MAP.fixed, fd, offset],
    purpose,
  );
}

function mapAnonymous(
  program: Program,
  all: readonly vma_entry[],
  wanted: ReadonlySet<vma_entry>,
  written: ReadonlySet<vma_entry>,
  input: RebuildInput,
): void {
  const vmas = all.filter((vma) =>
    (vma.status & VMA_STATUS.ANON_PRIVATE) !== 0 && !isVdso(vma) && !isVvar(vma)
  );
  vmas.forEach((vma, i) => {
    if (!wanted.has(vma)) return;
    const prot = written.has(vma)
      ? vma.prot | PROT.read | PROT.write
      : vma.prot;
    const [before, after] = [vmas[i - 1], vmas[i + 1]];
    if (
      before !== undefined && wouldMerge(before, vma) ||
      after !== undefined && !wanted.has(after) && wouldMerge(vma, after)
    ) {
      mapApart(program, vma, prot, input);
    } else {
      mmap(
        program,
        vma,
        prot,
        vma.flags & ~MAP.locked,
        -1,
        0n,
        `mapping ${nameOf(vma, input)}`,
      );
    }
    adviseHugePages(program, vma);
  });
}

/** Neighbours that are alike: the kernel would make one area of them. */
export function wouldMerge(a: vma_entry, b: vma_entry): boolean {
  // Each area of huge pages has a file of its own.
  if ((a.flags & MAP.hugetlb) !== 0) return false;
  // A grow-down area cannot be moved; it keeps its guard gap anyway.
  return a.end === b.start && a.prot === b.prot && a.flags === b.flags &&
    (a.madv ?? 0n) === (b.madv ?? 0n) && (b.flags & MAP.growsdown) === 0;
}

/**
 * Maps an area that was apart from its neighbour although they are alike,
 * because it had been moved there: the kernel keeps the page offset of memory
 * that is in use when it moves it (copy_vma in mm/vma.c), and merges only what
 * follows on. So it is mapped elsewhere, used, and moved.
 */
function mapApart(
  program: Program,
  vma: vma_entry,
  prot: number,
  input: RebuildInput,
): void {
  const start = BigInt(input.agent.end);
  const length = vma.end - vma.start;
  const purpose = `mapping ${nameOf(vma, input)}`;
  const writable = prot | PROT.read | PROT.write;
  mmap(
    program,
    { start, end: start + length },
    writable,
    vma.flags & ~MAP.locked,
    -1,
    0n,
    purpose,
  );
  program.call("store", [start, 0, 8], purpose);
  program.call(
    "mremap",
    [start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, vma.start],
    purpose,
  );
  program.call("madvise", [vma.start, PAGE_SIZE, MADV.dontneed], purpose);
  if (prot !== writable) {
    program.call("mprotect", [vma.start, length, prot], purpose);
  }
}

/**
 * A file is open while its areas are mapped, then closed: a program may map
 * more files than it may have open.
 */
function mapFiles(
  program: Program,
  vmas: readonly vma_entry[],
  written: ReadonlySet<vma_entry>,
  input: RebuildInput,
): void {
  const byFile = new Map<string, vma_entry[]>();
  for (const vma of vmas) {
    if (
      (vma.status & (VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED)) === 0
    ) continue;
    const key = `${vma.shmid} ${openMode(vma)}`;
    const group = byFile.get(key);
    if (group === undefined) byFile.set(key, [vma]);
    else group.push(vma);
  }
  for (const group of byFile.values()) {
    const file = input.files.get(Number(group[0].shmid))!;
    const source = input.sources?.get(file.id) ?? file.name;
    const fd = openPath(program, source, openMode(group[0]), file.name);
    lockMapped(program, fd, group, input, file.name);
    for (const vma of group) {
      mmap(
        program,
        vma,
        written.has(vma) ? vma.prot | PROT.read | PROT.write : vma.prot,
        vma.flags & ~MAP.locked,
        fd,
        vma.pgoff,
        `mapping ${nameOf(vma, input)}`,
      );
    }
    program.call("close", [fd], `closing ${file.name}`);
  }
}

/** A lock that lasts as long as the file is mapped. */
function lockMapped(
  program: Program,
  fd: Result,
  vmas: readonly vma_entry[],
  { extensions }: RebuildInput,
  name: string,
): void {
  const flocks = vmas.map(({ start }) => extensions.get(start)?.flock ?? 0);
  const flock = Math.max(...flocks);
  if (flock === 0) return;
  program.call("flock", [fd, flock | LOCK_NB], `locking ${name}`);
}

/** How a mapped file is opened: as recorded, else as the mapping needs. */
export function openMode(vma: vma_entry): number {
  if (vma.fdflags !== undefined) return vma.fdflags & O.ACCMODE;
  const writes = (vma.status & VMA_STATUS.FILE_SHARED) !== 0 &&
    (vma.prot & PROT.write) !== 0;
  return writes ? O.RDWR : O.RDONLY;
}

function openPath(
  program: Program,
  path: string,
  flags: number,
  name: string,
): Result {
  return program.call(
    "openat",
    [AT_FDCWD, program.text(encodeText(path)), flags | O.CLOEXEC, 0],
    `opening ${name}`,
  );
}

/**
 * Shared anonymous memory, of objects that ckpt made and filled: a mapping of
 * its descriptor is known as /dev/zero, as before.
 */
function mapSharedMemory(
  program: Program,
  vmas: readonly vma_entry[],
  input: RebuildInput,
): void {
  for (const vma of vmas) {
    if ((vma.status & VMA_STATUS.ANON_SHARED) === 0 || isSegment(vma)) continue;
    mmap(
      program,
      vma,
      vma.prot,
      MAP.shared | (vma.flags & MAP.noreserve),
      input.shared.get(vma.shmid)!,
      vma.pgoff,
      `mapping shared memory ${vma.shmid}`,
    );
  }
}

/** Before the area is filled, so that huge pages are used from the start. */
function adviseHugePages(program: Program, vma: vma_entry): void {
  for (const advice of [MADV.hugepage, MADV.nohugepage]) {
    if (hasAdvice(vma, advice)) {
      program.call(
        "madvise",
        [vma.start, vma.end - vma.start, advice],
        `advising on huge pages at ${vma.start.toString(16)}`,
      );
    }
  }
}

/** All advice to an area that was just mapped, and its name. */
export function advise(
  program: Program,
  vma: vma_entry,
  input: RebuildInput,
): void {
  for (let advice = 0; advice < 64; advice++) {
    if (!hasAdvice(vma, advice)) continue;
    if (
      (advice === MADV.hugepage || advice === MADV.nohugepage) &&
      (vma.status & VMA_STATUS.ANON_PRIVATE) !== 0
    ) continue;
    adviseOne(program, vma, advice, input);
  }
  const name = input.extensions.get(vma.start)?.name;
  if (name !== undefined) nameArea(program, vma, name, input);
}

export function adviseOne(
  program: Program,
  vma: vma_entry,
  advice: number,
  input: RebuildInput,
): void {
  program.call(
    "madvise",
    [vma.start, vma.end - vma.start, advice],
    `advising (madvise ${advice}) on ${nameOf(vma, input)}`,
  );
}

/** @param name undefined: takes the name away */
export function nameArea(
  program: Program,
  vma: vma_entry,
  name: string | undefined,
  input: RebuildInput,
): void {
  program.call(
    "prctl",
    [
      PR_SET_VMA,
      PR_SET_VMA_ANON_NAME,
      vma.start,
      vma.end - vma.start,
      name === undefined ? 0 : program.text(encodeText(name)),
    ],
    `naming ${nameOf(vma, input)}`,
  );
}

export function protect(
  program: Program,
  vma: vma_entry,
  prot: number,
  input: RebuildInput,
): void {
  program.call(
    "mprotect",
    [vma.start, vma.end - vma.start, prot],
    `protecting ${nameOf(vma, input)}`,
  );
}

/** Before areas are locked: the kernel refuses it in a locked one. */
export function installGuards(
  program: Program,
  guards: readonly { start: bigint; end: bigint }[],
): void {
  for (const { start, end } of guards) {
    program.call(
      "madvise",
      [start, end - start, MADV.guardInstall],
      `installing the guard pages ${start.toString(16)}`,
    );
  }
}

/**
 * Locks areas in memory; fork(2) does not inherit it. Locking reads all pages,
 * and fails (ENOMEM) when it cannot: at guard pages, without permission, behind
 * the end of a file. The area is locked all the same, so only the first call,
 * which reads nothing, has to succeed.
 */
export function lockAreas(
  program: Program,
  vmas: readonly vma_entry[],
  input: RebuildInput,
): void {
  for (const vma of vmas) {
    if ((vma.flags & MAP.locked) === 0) continue;
    const range = [vma.start, vma.end - vma.start] as const;
    const purpose = `locking ${nameOf(vma, input)} in memory`;
    program.call("mlock2", [...range, MLOCK_ONFAULT], purpose);
    if (input.extensions.get(vma.start)?.lock_on_fault) continue;
    program.call("mlock2", [...range, 0], purpose, { mayFail: true });
  }
}
