/**
 * Random address spaces for tests of what rebuilds memory, and a comparison of
 * the model with what was wanted.
 */
import { assert, assertEquals } from "@std/assert";
import { minimalImage } from "../../image/testing/minimal_image.ts";
import type {
  mm_entry,
  pagemap_entry,
  reg_file_entry,
  vma_entry,
} from "../../image/schema.gen.ts";
import { PAGE_FLAGS, VMA_STATUS } from "../../image/vma_status.ts";
import { PROT } from "../../proc/maps.ts";
import type { RebuildInput } from "../areas.ts";
import { MAP } from "../vma.ts";
import { AddressSpace, type ModelPage } from "./address_space.ts";

export const PAGE = 4096n;
export const PAGES_FD = 90;
/** Descriptor of an object: this, and its id. */
const OBJECT_FD = 1000n;
export const AGENT = { start: 0x1000_0000, end: 0x1004_0000 };
export const SCRATCH = { start: AGENT.end, end: AGENT.end + 0x40000 };
export const R = VMA_STATUS.REGULAR;

export function area(
  start: bigint,
  end: bigint,
  rest: Partial<vma_entry>,
): vma_entry {
  return {
    start,
    end,
    pgoff: 0n,
    shmid: 0n,
    prot: PROT.read | PROT.write,
    flags: MAP.private | MAP.anonymous,
    status: R | VMA_STATUS.ANON_PRIVATE,
    fd: -1n,
    ...rest,
  };
}

export function input(vmas: vma_entry[], rest: Partial<RebuildInput> = {}) {
  const mm: mm_entry = { ...minimalImage().mm, vmas };
  return {
    mm,
    files: new Map<number, reg_file_entry>(),
    pages: [] as pagemap_entry[],
    pagesFd: PAGES_FD,
    shared: new Map<bigint, bigint>(),
    segments: new Map(),
    extensions: new Map(),
    agent: AGENT,
    ...rest,
  };
}

export function pages(vaddr: bigint, count: bigint): pagemap_entry {
  return {
    vaddr,
    compat_nr_pages: 0,
    flags: PAGE_FLAGS.PRESENT,
    nr_pages: count,
  };
}

/** A model of an agent in which areas of `inputs` may be mapped. */
export function modelFor(...inputs: RebuildInput[]): AddressSpace {
  const areas = inputs.flatMap(({ mm }) => mapped(mm.vmas));
  const special = inputs[0].mm.vmas.filter(isKernels);
  const objects = new Map(
    inputs.flatMap(({ shared }) => [...shared]).map(([id, fd]) => [
      BigInt(fd as bigint),
      { id },
    ]),
  );
  return new AddressSpace(
    AGENT,
    SCRATCH,
    areas,
    special.reduce((sum, { start, end }) => sum + end - start, 0n),
    objects,
  );
}

/** The ranges that areas take; vvar and vdso are one. */
export function mapped(vmas: readonly vma_entry[]) {
  const real = vmas.filter(({ status }) => (status & R) !== 0);
  const special = real.filter(isKernels);
  return special.length === 0 ? real : [
    ...real,
    { start: special[0].start, end: special[special.length - 1].end },
  ];
}

/** Where each stored page is in its image: address -> "descriptor offset". */
export function storedAt(entries: readonly pagemap_entry[], fd: number) {
  const found = new Map<bigint, string>();
  let offset = 0n;
  for (const { vaddr, nr_pages, flags } of entries) {
    if ((flags! & PAGE_FLAGS.PRESENT) === 0) continue;
    for (let i = 0n; i < nr_pages!; i++, offset += PAGE) {
      found.set(vaddr + i * PAGE, `${fd} ${offset}`);
    }
  }
  return found;
}

export const isKernels = ({ status }: vma_entry) =>
  (status & (VMA_STATUS.VVAR | VMA_STATUS.VDSO)) !== 0;

function advices(madv = 0n): bigint[] {
  return Array.from({ length: 64 }, (_, i) => BigInt(i))
    .filter((advice) => (madv >> advice & 1n) !== 0n);
}

/**
 * Compares the model with what was wanted, page by page.
 *
 * @param sealed whether what is to be sealed is so by now
 */
export function check(
  space: AddressSpace,
  wanted: RebuildInput,
  sealed = false,
): void {
  assertEquals([...space.open], [], "descriptors stay open");
  const stored = storedAt(wanted.pages, wanted.pagesFd as number);
  const guards = wanted.mm.vmas.filter(({ status }) =>
    (status & VMA_STATUS.GUARD) !== 0
  );
  let count = 0;
  for (const vma of wanted.mm.vmas) {
    if ((vma.status & R) === 0) continue;
    for (let at = vma.start; at < vma.end; at += PAGE) {
      count++;
      const page = space.pages.get(at);
      const where = at.toString(16);
      assert(page !== undefined, `${where} is missing`);
      same(page.vdso, isKernels(vma), where);
      if (page.vdso) continue;
      checkPage(
        page,
        vma,
        at - vma.start,
        wanted,
        stored.get(at),
        sealed,
        where,
        space.bytesFrom,
      );
      same(
        page.guard,
        guards.some(({ start, end }) => start <= at && at < end),
        where,
      );
      if (page.object !== undefined) {
        same(page.object.id, vma.shmid, where);
      }
    }
  }
  assertEquals(space.pages.size, count, "more is mapped than wanted");
}

/** assertEquals for hot loops: it is asked only when something differs. */
export function same(actual: unknown, expected: unknown, where: string): void {
  const text = (value: unknown) =>
    JSON.stringify(
      value,
      (_, item) => typeof item === "bigint" ? `${item}n` : item,
    );
  if (text(actual) !== text(expected)) assertEquals(actual, expected, where);
}

function checkPage(
  page: ModelPage,
  vma: vma_entry,
  offset: bigint,
  { files, extensions }: RebuildInput,
  stored: string | undefined,
  sealed: boolean,
  where: string,
  bytes: AddressSpace["bytesFrom"],
): void {
  const anonymousShared = (vma.status & VMA_STATUS.ANON_SHARED) !== 0;
  const extension = extensions.get(vma.start);
  const file = files.get(Number(vma.shmid));
  const isFile = (vma.flags & MAP.anonymous) === 0;
  same({
    prot: page.prot,
    // A mapping through map_files is of a file, for mmap.
    flags: anonymousShared ? page.flags & ~MAP.anonymous : page.flags,
    file: page.file,
    pgoff: isFile || anonymousShared ? page.pgoff : undefined,
    advice: [...page.advice].sort((a, b) => Number(a - b)),
    content: bytes(page.content),
    locked: page.locked,
    name: page.name,
    sealed: page.sealed,
    object: page.object !== undefined,
  }, {
    prot: vma.prot,
    flags: anonymousShared
      ? MAP.shared | (vma.flags & MAP.noreserve)
      : vma.flags & ~MAP.locked,
    file: isFile ? `${file!.name} ${vma.fdflags}` : undefined,
    pgoff: isFile || anonymousShared ? vma.pgoff + offset : undefined,
    advice: advices(vma.madv),
    content: bytes(stored),
    locked: (vma.flags & MAP.locked) === 0
      ? undefined
      : extension?.lock_on_fault
      ? 1n
      : 0n,
    name: extension?.name,
    sealed: sealed && (extension?.sealed ?? false),
    object: anonymousShared,
  }, where);
}

/** Everything random of an address space; all of it can be rebuilt. */
export function randomInput(random: () => number): RebuildInput {
  const below = (n: number) => Math.floor(random() * n);
  const chance = (p: number) => random() < p;
  const pick = <T>(...of: T[]) => of[below(of.length)];
  const vmas: vma_entry[] = [];
  const entries: pagemap_entry[] = [];
  const guards: vma_entry[] = [];
  const extensions: RebuildInput["extensions"] & Map<bigint, unknown> =
    new Map();
  const shared = new Map<bigint, bigint>();
  const files = new Map<number, reg_file_entry>();
  const [template] = minimalImage().files;
  for (let id = 1; id <= 4; id++) {
    files.set(id, { ...template.reg!, id, name: `/srv/file ${id}` });
  }
  const vdsoAt = chance(0.9) ? below(20) : -1;
  let at = BigInt(0x400000);
  /** A stored run of pages, unless the last one would touch it. */
  const store = (vma: vma_entry) => {
    for (let page = vma.start; page < vma.end;) {
      const count = 1n + BigInt(below(4));
      if (chance(0.4) && page + count * PAGE <= vma.end) {
        const last = entries.at(-1);
        const end = last === undefined ? 0n : last.vaddr +
          last.nr_pages! * PAGE;
        // Neighbours are one entry, across the borders of areas too.
        if (last !== undefined && end === page) last.nr_pages! += count;
        else entries.push(pages(page, count));
      }
      page += count * PAGE;
    }
  };
  for (let i = 0; i < 24; i++) {
    if (at >= 0x1000_0000n - 0x100000n && at < 0x1100_0000n) at = 0x1100_0000n;
    const apart = chance(0.5);
    if (apart) at += BigInt(1 + below(3)) * PAGE * (chance(0.1) ? 999n : 1n);
    const length = BigInt(1 + below(8)) * PAGE;
    if (i === vdsoAt) {
      const middle = at + 4n * PAGE;
      const end = middle + 2n * PAGE;
      vmas.push(
        area(at, middle, {
          prot: 1,
          status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
          madv: 1n << 16n,
        }),
        area(middle, end, {
          prot: 5,
          status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
        }),
      );
      const last = entries.at(-1);
      entries.push(pages(middle, 2n));
      assert(last === undefined || last.vaddr + last.nr_pages! * PAGE <= at);
      at = end;
      continue;
    }
    const vma = area(at, at + length, { prot: below(8) });
    at += length;
    if (chance(0.2)) vma.flags |= MAP.noreserve;
    if (chance(0.15)) vma.flags |= MAP.locked;
    for (const advice of [1n, 10n, 12n, 14n, 15n, 16n, 18n]) {
      if (chance(0.08)) vma.madv = (vma.madv ?? 0n) | 1n << advice;
    }
    // One replaces the other.
    if (hasBoth(vma.madv)) vma.madv! &= ~(1n << 15n);
    const kind = below(8);
    const previous = vmas.at(-1);
    if (kind < 3) {
      if (previous !== undefined && chance(0.4) && !isKernels(previous)) {
        // Alike, and often a neighbour that the kernel would merge with.
        vma.prot = previous.prot;
        if ((previous.status & VMA_STATUS.ANON_PRIVATE) !== 0) {
          vma.flags = previous.flags & ~MAP.growsdown;
          vma.madv = previous.madv;
        }
      }
      if (chance(0.1) && apart) vma.flags |= MAP.growsdown;
      store(vma);
    } else if (kind === 3) {
      vma.flags = MAP.droppable | MAP.anonymous | MAP.noreserve;
    } else if (kind < 6) {
      vma.flags &= ~MAP.anonymous;
      vma.status = R | VMA_STATUS.FILE_PRIVATE;
      vma.shmid = BigInt(pick(...files.keys()));
      vma.pgoff = BigInt(below(9)) * PAGE;
      vma.fdflags = 0;
      store(vma);
    } else if (kind === 6) {
      vma.flags = (vma.flags & ~(MAP.anonymous | MAP.private)) | MAP.shared;
      vma.status = R | VMA_STATUS.FILE_SHARED;
      vma.shmid = BigInt(pick(...files.keys()));
      vma.pgoff = BigInt(below(9)) * PAGE;
      vma.fdflags = pick(0, 2);
    } else {
      vma.flags = (vma.flags & ~MAP.private) | MAP.shared;
      vma.status = R | VMA_STATUS.ANON_SHARED;
      vma.shmid = BigInt(70 + below(3));
      vma.pgoff = chance(0.5) ? 0n : BigInt(below(5)) * PAGE;
      shared.set(vma.shmid, OBJECT_FD + vma.shmid);
    }
    if (chance(0.15)) {
      extensions.set(vma.start, {
        start: vma.start,
        ...(chance(0.4) && (vma.flags & MAP.anonymous) !== 0
          ? { name: `name ${i}` }
          : {}),
        ...(chance(0.4) ? { sealed: true } : {}),
        ...(chance(0.4) ? { lock_on_fault: true } : {}),
      });
    }
    const last = entries.at(-1);
    const end = last === undefined ? 0n : last.vaddr + last.nr_pages! * PAGE;
    if (kind < 3 && chance(0.2) && end < vma.end) {
      guards.push(area(vma.end - PAGE, vma.end, { status: VMA_STATUS.GUARD }));
    }
    vmas.push(vma);
  }
  const vsyscall = area(0xffffffffff600000n, 0xffffffffff601000n, {
    status: VMA_STATUS.VSYSCALL | VMA_STATUS.ANON_PRIVATE,
  });
  return input([...vmas, vsyscall, ...guards], {
    pages: entries,
    shared,
    files,
    extensions,
  });
}

function hasBoth(madv = 0n): boolean {
  return (madv >> 14n & madv >> 15n & 1n) !== 0n;
}
