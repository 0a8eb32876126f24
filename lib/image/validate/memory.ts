/** Checks address spaces: areas, the pages in them, and where pages lie. */

import { imageName, type Pagemap, pagesName } from "../kinds.ts";
import { PAGE_SIZE, pageCount, pageFlags } from "../pagemap.ts";
import { fd_types, type mm_entry, type vma_entry } from "../schema.gen.ts";
import { isArea, isPrivate, PAGE_FLAGS, VMA_STATUS } from "../vma_status.ts";
import type { FileTable } from "./file_table.ts";
import type { Findings } from "./findings.ts";
import { SegmentsCheck } from "./segments.ts";
import type { TreeTask } from "./tree.ts";

/** TASK_SIZE_MAX of x86_64 with four levels of page tables. */
export const TASK_SIZE = 0x7ffffffff000n;

const PAGE = BigInt(PAGE_SIZE);
const MOST_AUXV_WORDS = 44;
const MAP_ANONYMOUS = 0x20;
const MAP_SHARED = 0x1;
const MAP_PRIVATE = 0x2;
const MAP_DROPPABLE = 0x8;
const PROT_READ_EXEC = 0x5;

const KNOWN_STATUS = Object.values(VMA_STATUS)
  .reduce((all, bit) => all | bit, 0);

/** Advice of madvise(2) that CRIU applies again. */
const KNOWN_ADVICE = [1, 2, 10, 12, 14, 15, 16, 18]
  .reduce((all, advice) => all | 1n << BigInt(advice), 0n);

/** @param taskSize the end of user space on this machine */
export function checkMemory(
  findings: Findings,
  tasks: TreeTask[],
  files: FileTable,
  taskSize: bigint,
): void {
  const pageFiles = new Map<number, string>();
  const shared = new Set<bigint>();
  const segments = new SegmentsCheck(findings, tasks[0]?.ids);
  const memories = new Set<number>();
  const checked = new Set<mm_entry>();
  for (const { entry: { pid }, dead, ids } of tasks) {
    if (dead) continue;
    // Memory that several processes use is stored with the first of them.
    const usesOthers = ids !== undefined && memories.has(ids.vm_id);
    if (ids !== undefined) memories.add(ids.vm_id);
    const mm = findings.require("mm", pid);
    if (mm !== undefined && !checked.has(mm)) {
      checked.add(mm);
      const check = new AddressSpaceCheck(findings, pid, mm, files, taskSize);
      check.all();
      check.sharedMemory.forEach((shmid) => shared.add(shmid));
      segments.checkAreas(imageName("mm", pid), mm.vmas);
    }
    const pagemap = findings.require("pagemap", pid);
    if (pagemap === undefined) continue;
    const file = imageName("pagemap", pid);
    if (pagemap.entries.length === 0 && !usesOthers) {
      findings.add(file, undefined, "", "has no page, which no process can be");
    }
    checkPagemap(findings, file, pagemap, pageFiles);
    if (mm !== undefined) checkPagesInAreas(findings, file, pagemap, mm.vmas);
  }
  segments.stored.forEach((id) => shared.add(id));
  for (const shmid of new Set([...shared, ...files.sharedMemory])) {
    const pagemap = findings.require("pagemap-shmem", shmid);
    if (pagemap === undefined) continue;
    const file = imageName("pagemap-shmem", shmid);
    checkPagemap(findings, file, pagemap, pageFiles);
  }
}

class AddressSpaceCheck {
  /** Numbers of the shared memory that areas name. */
  readonly sharedMemory = new Set<bigint>();
  readonly #file: string;

  constructor(
    readonly findings: Findings,
    pid: number,
    readonly mm: mm_entry,
    readonly files: FileTable,
    readonly taskSize: bigint,
  ) {
    this.#file = imageName("mm", pid);
  }

  #wrong(field: string, why: string): void {
    this.findings.add(this.#file, 0, field, why);
  }

  all(): void {
    const { mm } = this;
    this.#checkFields();
    if (this.files.known && this.files.type(mm.exe_file_id) !== fd_types.REG) {
      this.#wrong("exe_file_id", `${mm.exe_file_id} is no regular file`);
    }
    const words = mm.mm_saved_auxv.length;
    if (words > MOST_AUXV_WORDS || words % 2 !== 0) {
      this.#wrong("mm_saved_auxv", `has ${words} words, not pairs up to 44`);
    }
    if (mm.vmas.length === 0) this.#wrong("vmas", "is empty");
    this.#checkOrder();
    mm.vmas.forEach((vma, i) => this.#checkArea(vma, `vmas[${i}]`));
    this.#checkVdso();
    mm.aios.forEach(({ id }, i) => {
      const ring = mm.vmas.some((vma) =>
        vma.start === id && (vma.status & VMA_STATUS.AIORING) !== 0
      );
      if (!ring) this.#wrong(`aios[${i}].id`, `0x${hex(id)} is no ring`);
    });
    const rings = new Map(mm.aios.map((ring) => [ring.id, ring.ring_len]));
    mm.vmas.forEach(({ status, start, end }, i) => {
      if ((status & VMA_STATUS.AIORING) === 0) return;
      if (rings.get(start) === Number(end - start)) return;
      this.#wrong(`vmas[${i}]`, "its ring is not as long in aios");
    });
  }

  /** What PR_SET_MM_MAP demands, prctl_set_mm in kernel/sys.c. */
  #checkFields(): void {
    const { mm } = this;
    const pairs = [
      ["mm_start_code", "mm_end_code"],
      ["mm_start_data", "mm_end_data"],
      ["mm_start_brk", "mm_brk"],
      ["mm_arg_start", "mm_arg_end"],
      ["mm_env_start", "mm_env_end"],
    ] as const;
    for (const [start, end] of pairs) {
      if (mm[end] < mm[start]) this.#wrong(end, `is before ${start}`);
      if (mm[end] > this.taskSize) this.#wrong(end, "is beyond user space");
    }
    if (mm.mm_start_stack > this.taskSize) {
      this.#wrong("mm_start_stack", "is beyond user space");
    }
  }

  /** Ascending, without overlap; guard ranges in a second row behind them. */
  #checkOrder(): void {
    let end = 0n;
    let guards = false;
    this.mm.vmas.forEach((vma, i) => {
      const guard = (vma.status & VMA_STATUS.GUARD) !== 0;
      if (guard && !guards) end = 0n;
      else if (!guard && guards) this.#wrong(`vmas[${i}]`, "is behind guards");
      guards ||= guard;
      if (vma.start < end) {
        const why = `0x${hex(vma.start)} is before the end of the area before`;
        this.#wrong(`vmas[${i}].start`, why);
      }
      end = vma.end;
    });
  }

  #checkArea(vma: vma_entry, field: string): void {
    const { start, end, status, flags, shmid } = vma;
    if (start >= end || (start | end | vma.pgoff) % PAGE !== 0n) {
      this.#wrong(field, `0x${hex(start)}-0x${hex(end)} is no row of pages`);
    }
    if ((status & VMA_STATUS.VSYSCALL) === 0 && end > this.taskSize) {
      this.#wrong(`${field}.end`, `0x${hex(end)} is beyond user space`);
    }
    if ((status & ~KNOWN_STATUS) !== 0) {
      this.#wrong(`${field}.status`, `0x${hex(status)} has unknown bits`);
    }
    if (!isArea(vma) || (status & VMA_STATUS.EXT_PLUGIN) !== 0) return;
    const sharing = flags & (MAP_SHARED | MAP_PRIVATE);
    const droppable = (flags & MAP_DROPPABLE) !== 0;
    if (sharing !== MAP_SHARED && sharing !== MAP_PRIVATE && !droppable) {
      this.#wrong(`${field}.flags`, "is neither shared nor private");
    }
    if ((status & VMA_STATUS.ANON_PRIVATE) && !(flags & MAP_ANONYMOUS)) {
      this.#wrong(`${field}.flags`, "lacks MAP_ANONYMOUS");
    }
    if (((vma.madv ?? 0n) & ~KNOWN_ADVICE) !== 0n) {
      this.#wrong(`${field}.madv`, `0x${hex(vma.madv!)} has unknown bits`);
    }
    this.#checkBacking(shmid, status, field);
  }

  #checkBacking(shmid: bigint, status: number, field: string): void {
    const backed = VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED;
    if (status & backed) {
      const memfd = (status & VMA_STATUS.MEMFD) !== 0;
      const wanted = memfd ? fd_types.MEMFD : fd_types.REG;
      if (this.files.known && this.files.type(Number(shmid)) !== wanted) {
        const kind = memfd ? "memfd" : "regular file";
        this.#wrong(`${field}.shmid`, `${shmid} is no ${kind} of files.img`);
      }
    } else if (status & VMA_STATUS.IO_URING) {
      if (!this.#isRing(shmid)) {
        this.#wrong(`${field}.shmid`, `${shmid} is no io_uring`);
      }
    } else if (status & VMA_STATUS.SOCKET) {
      const isPacket = this.files.type(Number(shmid)) === fd_types.PACKETSK;
      if (this.files.known && !isPacket) {
        const why = `${shmid} is no packet socket of files.img`;
        this.#wrong(`${field}.shmid`, why);
      }
    } else if (
      (status & (VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC)) ===
        VMA_STATUS.ANON_SHARED
    ) {
      // The pages of a System V segment may lie in ipcns-shm images instead.
      this.sharedMemory.add(shmid);
    }
  }

  #isRing(id: bigint): boolean {
    const rings = this.findings.read("ckpt-rings", undefined) ?? [];
    return rings.some((ring) => ring.id === Number(id));
  }

  /** The two are made by the kernel together, and moved together. */
  #checkVdso(): void {
    const vdso = this.mm.vmas.findIndex((vma) => vma.status & VMA_STATUS.VDSO);
    const vvar = this.mm.vmas.findIndex((vma) => vma.status & VMA_STATUS.VVAR);
    if (vdso < 0 !== vvar < 0) {
      this.#wrong(
        "vmas",
        `has ${vdso < 0 ? "vvar, no vdso" : "vdso, no vvar"}`,
      );
    }
    if (vdso < 0) return;
    const { prot } = this.mm.vmas[vdso];
    if ((prot & PROT_READ_EXEC) !== PROT_READ_EXEC) {
      this.#wrong(`vmas[${vdso}].prot`, "of the vdso cannot be executed");
    }
  }
}

const KNOWN_PAGE_FLAGS = Object.values(PAGE_FLAGS)
  .reduce((all, bit) => all | bit, 0);

/** @param pageFiles which pagemap has each page file, as far as is known */
function checkPagemap(
  findings: Findings,
  file: string,
  { pages_id, entries }: Pagemap,
  pageFiles: Map<number, string>,
): void {
  const owner = pageFiles.get(pages_id);
  if (owner !== undefined) {
    findings.add(file, 0, "pages_id", `${pages_id} is that of ${owner} too`);
  }
  pageFiles.set(pages_id, file);
  const hasParent = findings.set.names.has("parent");
  let next = 0n;
  let present = 0;
  entries.forEach((entry, i) => {
    const wrong = (field: string, why: string) =>
      findings.add(file, i + 1, field, why);
    const count = pageCount(entry);
    const flags = pageFlags(entry);
    if (entry.vaddr % PAGE !== 0n) wrong("vaddr", "is not page aligned");
    if (count === 0) wrong("nr_pages", "is 0");
    if (entry.vaddr < next) {
      wrong(
        "vaddr",
        `0x${hex(entry.vaddr)} is within or before the run before`,
      );
    }
    next = entry.vaddr + BigInt(count) * PAGE;
    if ((flags & ~KNOWN_PAGE_FLAGS) !== 0) {
      wrong("flags", `0x${hex(flags)} has unknown bits`);
    }
    if (flags & PAGE_FLAGS.PRESENT) present += count;
    else if (!(flags & PAGE_FLAGS.PARENT)) {
      wrong("flags", "says that the pages are nowhere");
    } else if (!hasParent) {
      wrong("flags", "says the parent has the pages, but there is no parent");
    }
  });
  checkPageFile(findings, file, pages_id, present);
}

function checkPageFile(
  findings: Findings,
  file: string,
  pagesId: number,
  present: number,
): void {
  if (present === 0) return;
  const name = pagesName(pagesId);
  const size = findings.set.size(name);
  if (size === undefined) {
    findings.add(name, undefined, "", `is missing; ${file} needs it`);
  } else if (size < present * PAGE_SIZE) {
    findings.add(
      name,
      undefined,
      "",
      `is ${size} bytes long; ${file} needs ${present * PAGE_SIZE}`,
    );
  }
}

/** Every page has to lie in areas that have pages of their own. */
function checkPagesInAreas(
  findings: Findings,
  file: string,
  { entries }: Pagemap,
  vmas: vma_entry[],
): void {
  const areas = vmas.filter((vma) =>
    isPrivate(vma) && !(vma.status & (VMA_STATUS.VVAR | VMA_STATUS.GUARD))
  );
  let area = 0;
  entries.forEach((entry, i) => {
    let position = entry.vaddr;
    const end = position + BigInt(pageCount(entry)) * PAGE;
    while (position < end) {
      while (area < areas.length && areas[area].end <= position) area++;
      if (area === areas.length || areas[area].start > position) {
        findings.add(
          file,
          i + 1,
          "vaddr",
          `0x${hex(position)} is in no private area`,
        );
        return;
      }
      position = areas[area].end;
    }
  });
}

function hex(value: number | bigint): string {
  return value.toString(16);
}
