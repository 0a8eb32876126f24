/**
 * Writes the program that rebuilds an address space from inside: everything
 * but the agent is unmapped, then each area is mapped at its place, filled,
 * and given its final protection.
 */
import { CkptError, EXIT } from "../error.ts";
import type { Argument, Program, Result } from "../ffi/program.ts";
import { O } from "../ffi/syscall.ts";
import type {
  ckpt_area_entry,
  mm_entry,
  pagemap_entry,
  reg_file_entry,
  vma_entry,
} from "../image/schema.gen.ts";
import { PROT } from "../proc/maps.ts";
import { encodeText } from "../ffi/text.ts";
import type { AddressRange } from "./hole.ts";
import { isPrivate, PAGE_FLAGS, VMA_STATUS } from "../image/vma_status.ts";
import { PAGE_SIZE, pageCount, pageFlags } from "../image/pagemap.ts";
import { MAP } from "./vma.ts";

const AT_FDCWD = -100;
const ARCH_MAP_VDSO_64 = 0x2003;
const MADV_DONTNEED = 4;
const MADV_GUARD_INSTALL = 102;
const MREMAP_MAYMOVE = 1;
const MREMAP_FIXED = 2;
const MLOCK_ONFAULT = 1;
const PR_SET_VMA = 0x53564d41;
const PR_SET_VMA_ANON_NAME = 0;
/** End of what munmap(2) accepts: TASK_SIZE with four-level page tables. */
const TASK_END = 0x7fff_ffff_f000;

/** The content of a shared memory object that several areas may show. */
export interface SharedMemory {
  /** Its size in bytes: the furthest page any area shows. */
  size: bigint;
  pages: readonly pagemap_entry[];
  /** Descriptor of its page image, in the agent. */
  pagesFd: number;
}

export interface RebuildInput {
  mm: mm_entry;
  /** Regular files by id. */
  files: ReadonlyMap<number, reg_file_entry>;
  pages: readonly pagemap_entry[];
  /** Descriptor of the page image, in the agent. */
  pagesFd: number;
  shared: ReadonlyMap<bigint, SharedMemory>;
  /** What CRIU has no field for, by the start of the area. */
  extensions: ReadonlyMap<bigint, ckpt_area_entry>;
  /** The agent's own memory. */
  agent: AddressRange;
}

/** Unmaps all that the agent was started with. */
export function unmapAllBut(program: Program, agent: AddressRange): void {
  program.call("munmap", [0, agent.start], "unmapping the agent's start");
  program.call(
    "munmap",
    [agent.end, TASK_END - agent.end],
    "unmapping the agent's start",
  );
}

/** "area 7f00-7f10 of /lib/x.so" */
function nameOf(vma: vma_entry, input: RebuildInput): string {
  const range = `${vma.start.toString(16)}-${vma.end.toString(16)}`;
  const file =
    (vma.status & (VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED)) !== 0
      ? input.files.get(Number(vma.shmid))
      : undefined;
  return file === undefined ? `area ${range}` : `area ${range} of ${file.name}`;
}

/** Maps, fills and protects everything in `input.mm`. */
export function rebuildMemory(program: Program, input: RebuildInput): void {
  const real = input.mm.vmas.filter(({ status }) =>
    (status & VMA_STATUS.REGULAR) !== 0
  );
  const written = areasWithPages(real, input.pages);
  mapVdso(program, real);
  mapAnonymous(program, real, written, input);
  mapSharedMemory(program, real, input);
  mapFiles(program, real, written, input);
  const vdso = real.find(isVdso);
  fill(program, input.pages, input.pagesFd, 0n, "memory", vdso);
  for (const vma of real) {
    if (
      written.has(vma) && vma !== vdso &&
      vma.prot !== (vma.prot | PROT.read | PROT.write)
    ) {
      program.call(
        "mprotect",
        [vma.start, vma.end - vma.start, vma.prot],
        `protecting ${nameOf(vma, input)}`,
      );
    }
  }
  for (const vma of real) advise(program, vma, input);
  for (const vma of input.mm.vmas) {
    if ((vma.status & VMA_STATUS.GUARD) !== 0) {
      program.call(
        "madvise",
        [vma.start, vma.end - vma.start, MADV_GUARD_INSTALL],
        `installing the guard pages ${vma.start.toString(16)}`,
      );
    }
  }
  for (const vma of real) {
    if (input.extensions.get(vma.start)?.sealed) {
      program.call(
        "mseal",
        [vma.start, vma.end - vma.start, 0],
        `sealing ${nameOf(vma, input)}`,
      );
    }
  }
}

/** Areas into which pages are written; they must be writable meanwhile. */
function areasWithPages(
  vmas: readonly vma_entry[],
  pages: readonly pagemap_entry[],
): ReadonlySet<vma_entry> {
  const found = new Set<vma_entry>();
  let at = 0;
  for (const entry of pages) {
    const { vaddr } = entry;
    const end = vaddr + BigInt(pageCount(entry) * PAGE_SIZE);
    while (at < vmas.length && vmas[at].end <= vaddr) at++;
    for (let i = at; i < vmas.length && vmas[i].start < end; i++) {
      if (isPrivate(vmas[i])) found.add(vmas[i]);
    }
  }
  return found;
}

function isVdso(vma: vma_entry): boolean {
  return (vma.status & VMA_STATUS.VDSO) !== 0;
}

function isVvar(vma: vma_entry): boolean {
  return (vma.status & VMA_STATUS.VVAR) !== 0;
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
  vmas: readonly vma_entry[],
  written: ReadonlySet<vma_entry>,
  input: RebuildInput,
): void {
  let previous: vma_entry | undefined;
  for (const vma of vmas) {
    if (
      (vma.status & VMA_STATUS.ANON_PRIVATE) === 0 || isVdso(vma) || isVvar(vma)
    ) continue;
    const prot = written.has(vma)
      ? vma.prot | PROT.read | PROT.write
      : vma.prot;
    if (previous !== undefined && wouldMerge(previous, vma)) {
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
    previous = vma;
    adviseHugePages(program, vma);
  }
}

/** Neighbours that are alike: the kernel would make one area of them. */
function wouldMerge(a: vma_entry, b: vma_entry): boolean {
  // A grow-down area cannot be moved; it keeps its guard gap anyway.
  return a.end === b.start && a.prot === b.prot && a.flags === b.flags &&
    a.madv === b.madv && (b.flags & MAP.growsdown) === 0;
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
  program.call("madvise", [vma.start, PAGE_SIZE, MADV_DONTNEED], purpose);
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
    const fd = openPath(program, file.name, openMode(group[0]));
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

/** How a mapped file is opened: as recorded, else as the mapping needs. */
function openMode(vma: vma_entry): number {
  if (vma.fdflags !== undefined) return vma.fdflags & O.ACCMODE;
  const writes = (vma.status & VMA_STATUS.FILE_SHARED) !== 0 &&
    (vma.prot & PROT.write) !== 0;
  return writes ? O.RDWR : O.RDONLY;
}

function openPath(program: Program, path: string, flags: number): Result {
  return program.call(
    "openat",
    [AT_FDCWD, program.text(encodeText(path)), flags | O.CLOEXEC, 0],
    `opening ${path}`,
  );
}

/**
 * Shared anonymous memory. The first area that shows an object makes it, as
 * large as the whole object, in a place of its own; all areas then map it
 * through /proc/self/map_files, so that it is known as /dev/zero as before.
 */
function mapSharedMemory(
  program: Program,
  vmas: readonly vma_entry[],
  input: RebuildInput,
): void {
  const areas = new Map<bigint, vma_entry[]>();
  for (const vma of vmas) {
    if ((vma.status & VMA_STATUS.ANON_SHARED) === 0) continue;
    const group = areas.get(vma.shmid);
    if (group === undefined) areas.set(vma.shmid, [vma]);
    else group.push(vma);
  }
  for (const [id, group] of areas) {
    const object = input.shared.get(id)!;
    const [first] = group;
    const purpose = `mapping shared memory ${id}`;
    if (
      group.length === 1 && first.pgoff === 0n &&
      first.end - first.start === object.size
    ) {
      mmap(
        program,
        first,
        PROT.read | PROT.write,
        MAP.shared | MAP.anonymous | (first.flags & MAP.noreserve),
        -1,
        0n,
        purpose,
      );
      fillObject(program, object, first.start);
      if (first.prot !== (PROT.read | PROT.write)) {
        program.call(
          "mprotect",
          [first.start, first.end - first.start, first.prot],
          `protecting shared memory ${id}`,
        );
      }
      continue;
    }
    const start = BigInt(input.agent.end);
    const whole = { start, end: start + object.size };
    mmap(
      program,
      whole,
      PROT.read | PROT.write,
      MAP.shared | MAP.anonymous | MAP.noreserve,
      -1,
      0n,
      purpose,
    );
    fillObject(program, object, start);
    const fd = openPath(
      program,
      `/proc/self/map_files/${start.toString(16)}-${whole.end.toString(16)}`,
      O.RDWR,
    );
    for (const vma of group) {
      mmap(
        program,
        vma,
        vma.prot,
        MAP.shared | (vma.flags & MAP.noreserve),
        fd,
        vma.pgoff,
        purpose,
      );
    }
    program.call("close", [fd], purpose);
    program.call("munmap", [start, object.size], purpose);
  }
}

/** Of an object only what an area shows is mapped; the rest has no place. */
function fillObject(
  program: Program,
  { pages, pagesFd, size }: SharedMemory,
  base: bigint,
): void {
  const behind = { start: size, end: 1n << 63n };
  fill(program, pages, pagesFd, base, "shared memory", behind);
}

/**
 * Reads stored pages to their places; `base` is added to their addresses.
 *
 * @param except a range that is not to be filled, such as that of the vdso
 */
function fill(
  program: Program,
  pages: readonly pagemap_entry[],
  fd: number,
  base: bigint,
  what: string,
  except?: { start: bigint; end: bigint },
): void {
  let offset = 0n;
  for (const entry of pages) {
    if ((pageFlags(entry) & PAGE_FLAGS.PRESENT) === 0) continue;
    const start = entry.vaddr;
    const end = start + BigInt(pageCount(entry) * PAGE_SIZE);
    for (const part of without(start, end, except)) {
      const address = base + part.start;
      program.call(
        "pread64",
        [fd, address, part.end - part.start, offset + part.start - start],
        `filling ${what} at ${address.toString(16)}`,
        { whole: true },
      );
    }
    offset += end - start;
  }
}

/** What is left of a range when an area is taken out. */
function without(
  start: bigint,
  end: bigint,
  area: { start: bigint; end: bigint } | undefined,
): { start: bigint; end: bigint }[] {
  if (area === undefined || area.end <= start || end <= area.start) {
    return [{ start, end }];
  }
  return [{ start, end: area.start }, { start: area.end, end }]
    .filter((part) => part.start < part.end);
}

const MADV_HUGEPAGE = 14n;
const MADV_NOHUGEPAGE = 15n;

/** Before the area is filled, so that huge pages are used from the start. */
function adviseHugePages(program: Program, vma: vma_entry): void {
  for (const advice of [MADV_HUGEPAGE, MADV_NOHUGEPAGE]) {
    if (((vma.madv ?? 0n) >> advice & 1n) !== 0n) {
      program.call(
        "madvise",
        [vma.start, vma.end - vma.start, advice],
        `advising on huge pages at ${vma.start.toString(16)}`,
      );
    }
  }
}

function advise(
  program: Program,
  vma: vma_entry,
  input: RebuildInput,
): void {
  // The kernel sets up vvar and vdso as they must be.
  if (isVvar(vma) || isVdso(vma)) return;
  const length = vma.end - vma.start;
  for (let advice = 0n; advice < 64n; advice++) {
    if (((vma.madv ?? 0n) >> advice & 1n) === 0n) continue;
    if (
      (advice === MADV_HUGEPAGE || advice === MADV_NOHUGEPAGE) &&
      (vma.status & VMA_STATUS.ANON_PRIVATE) !== 0
    ) continue;
    program.call(
      "madvise",
      [vma.start, length, advice],
      `advising (madvise ${advice}) on ${nameOf(vma, input)}`,
    );
  }
  const name = input.extensions.get(vma.start)?.name;
  if (name !== undefined) {
    program.call(
      "prctl",
      [
        PR_SET_VMA,
        PR_SET_VMA_ANON_NAME,
        vma.start,
        length,
        program.text(encodeText(name)),
      ],
      `naming ${nameOf(vma, input)}`,
    );
  }
  if ((vma.flags & MAP.locked) !== 0) {
    const onFault = input.extensions.get(vma.start)?.lock_on_fault
      ? MLOCK_ONFAULT
      : 0;
    program.call(
      "mlock2",
      [vma.start, length, onFault],
      `locking ${nameOf(vma, input)} in memory`,
    );
  }
}
