import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { Program } from "../ffi/program.ts";
import { decodeProgram } from "../ffi/testing/decoded_program.ts";
import { minimalImage } from "../image/testing/minimal_image.ts";
import { seededRandom } from "../image/testing/random.ts";
import {
  fd_types,
  type mm_entry,
  type pagemap_entry,
  type reg_file_entry,
  type vma_entry,
} from "../image/schema.gen.ts";
import { PAGE_FLAGS, VMA_STATUS } from "../image/vma_status.ts";
import { PROT } from "../proc/maps.ts";
import {
  type RebuildInput,
  rebuildMemory,
  type SharedMemory,
  unmapAllBut,
} from "./rebuild.ts";
import { AddressSpace, type ModelPage } from "./testing/address_space.ts";
import { MAP } from "./vma.ts";

const PAGE = 4096n;
const PAGES_FD = 90;
const SHARED_FD = 91;
const AGENT = { start: 0x1000_0000, end: 0x1004_0000 };
const SCRATCH = { start: AGENT.end, end: AGENT.end + 0x40000 };
const R = VMA_STATUS.REGULAR;

function area(start: bigint, end: bigint, rest: Partial<vma_entry>): vma_entry {
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

function input(vmas: vma_entry[], rest: Partial<RebuildInput> = {}) {
  const mm: mm_entry = { ...minimalImage().mm, vmas };
  return {
    mm,
    files: new Map<number, reg_file_entry>(),
    pages: [] as pagemap_entry[],
    pagesFd: PAGES_FD,
    shared: new Map<bigint, SharedMemory>(),
    extensions: new Map(),
    agent: AGENT,
    ...rest,
  };
}

function pages(vaddr: bigint, count: bigint): pagemap_entry {
  return {
    vaddr,
    compat_nr_pages: 0,
    flags: PAGE_FLAGS.PRESENT,
    nr_pages: count,
  };
}

/** Executes the program on the model. */
function rebuild(wanted: RebuildInput): AddressSpace {
  const program = new Program();
  rebuildMemory(program, wanted);
  const areas = wanted.mm.vmas.filter(({ status }) => (status & R) !== 0);
  const special = areas.filter(({ status }) =>
    (status & (VMA_STATUS.VVAR | VMA_STATUS.VDSO)) !== 0
  );
  const space = new AddressSpace(
    AGENT,
    SCRATCH,
    special.length === 0 ? areas : [
      ...areas,
      { start: special[0].start, end: special[special.length - 1].end },
    ],
    special.reduce((sum, { start, end }) => sum + end - start, 0n),
  );
  space.execute(decodeProgram(program));
  return space;
}

/** Where each stored page is in its image: address -> "descriptor offset". */
function storedAt(entries: readonly pagemap_entry[], fd: number) {
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

const isKernels = ({ status }: vma_entry) =>
  (status & (VMA_STATUS.VVAR | VMA_STATUS.VDSO)) !== 0;

function advices(madv = 0n): bigint[] {
  return Array.from({ length: 64 }, (_, i) => BigInt(i))
    .filter((advice) => (madv >> advice & 1n) !== 0n);
}

/** Compares the model with what was wanted, page by page. */
function check(space: AddressSpace, wanted: RebuildInput): void {
  assertEquals([...space.open], [], "descriptors stay open");
  const stored = storedAt(wanted.pages, PAGES_FD);
  const guards = wanted.mm.vmas.filter(({ status }) =>
    (status & VMA_STATUS.GUARD) !== 0
  );
  let count = 0;
  const objects = new Map<bigint, Set<unknown>>();
  for (const vma of wanted.mm.vmas) {
    if ((vma.status & R) === 0) continue;
    for (let at = vma.start; at < vma.end; at += PAGE) {
      count++;
      const page = space.pages.get(at);
      const where = at.toString(16);
      assert(page !== undefined, `${where} is missing`);
      same(page.vdso, isKernels(vma), where);
      if (page.vdso) continue;
      checkPage(page, vma, at - vma.start, wanted, stored.get(at), where);
      same(
        page.guard,
        guards.some(({ start, end }) => start <= at && at < end),
        where,
      );
      if (page.object !== undefined) {
        const known = objects.get(vma.shmid) ?? new Set();
        objects.set(vma.shmid, known.add(page.object));
        const { pages } = wanted.shared.get(vma.shmid)!;
        same(
          page.object.content.get(page.pgoff),
          storedAt(pages, SHARED_FD).get(page.pgoff),
          where,
        );
      }
    }
  }
  assertEquals(space.pages.size, count, "more is mapped than wanted");
  for (const [id, known] of objects) {
    assertEquals(known.size, 1, `object ${id} was made several times`);
  }
}

/** assertEquals for hot loops: it is asked only when something differs. */
function same(actual: unknown, expected: unknown, where: string): void {
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
  where: string,
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
    content: page.content,
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
    content: stored,
    locked: (vma.flags & MAP.locked) === 0
      ? undefined
      : extension?.lock_on_fault
      ? 1n
      : 0n,
    name: extension?.name,
    sealed: extension?.sealed ?? false,
    object: anonymousShared,
  }, where);
}

Deno.test("the smallest image is rebuilt, and its vdso is the kernel's", () => {
  const { mm, files, pagemap } = minimalImage();
  const wanted = input(mm.vmas, {
    files: new Map(
      files.filter(({ type }) => type === fd_types.REG)
        .map(({ id, reg }) => [id, reg!]),
    ),
    pages: pagemap.entries,
  });
  for (const vma of wanted.mm.vmas) {
    if (vma.shmid !== 0n) vma.fdflags = 0;
  }
  check(rebuild(wanted), wanted);
});

/** Everything random of an address space; all of it can be rebuilt. */
function randomInput(random: () => number): RebuildInput {
  const below = (n: number) => Math.floor(random() * n);
  const chance = (p: number) => random() < p;
  const pick = <T>(...of: T[]) => of[below(of.length)];
  const vmas: vma_entry[] = [];
  const entries: pagemap_entry[] = [];
  const guards: vma_entry[] = [];
  const extensions: RebuildInput["extensions"] & Map<bigint, unknown> =
    new Map();
  const shared = new Map<bigint, SharedMemory>();
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
      const object = shared.get(vma.shmid) ??
        { size: 0n, pages: [], pagesFd: SHARED_FD };
      const end = vma.pgoff + vma.end - vma.start;
      if (end > object.size) object.size = end;
      shared.set(vma.shmid, object);
    }
    if (chance(0.15)) {
      extensions.set(vma.start, {
        start: vma.start,
        ...(chance(0.4) ? { name: `name ${i}` } : {}),
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
  for (const object of shared.values()) {
    const first = BigInt(below(Number(object.size / PAGE)));
    object.pages = [pages(first * PAGE, object.size / PAGE - first)];
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

Deno.test("random address spaces are rebuilt exactly, and nothing else is touched", () => {
  const random = seededRandom(11);
  let filled = 0;
  let moved = 0;
  for (let round = 0; round < 150; round++) {
    const wanted = randomInput(random);
    const program = new Program();
    rebuildMemory(program, wanted);
    const names = decodeProgram(program).operations.map(({ name }) => name);
    filled += names.filter((name) => name === "pread64").length;
    moved += names.filter((name) => name === "mremap").length;
    check(rebuild(wanted), wanted);
  }
  assert(filled > 500, `${filled} reads`);
  assert(moved > 50, `${moved} moves`);
});

Deno.test("pages across the vdso are read around it, from the right offsets", () => {
  const vvar = area(0x500000n, 0x502000n, {
    prot: 1,
    status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
  });
  const vdso = area(0x502000n, 0x503000n, {
    prot: 5,
    status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
  });
  const behind = area(0x503000n, 0x505000n, { prot: 1 });
  const wanted = input([vvar, vdso, behind], { pages: [pages(0x502000n, 3n)] });
  check(rebuild(wanted), wanted);
});

Deno.test("a vdso apart from its data, or without it, is refused", () => {
  const vvar = (end: bigint) =>
    area(end - 0x4000n, end, {
      status: R | VMA_STATUS.VVAR | VMA_STATUS.ANON_PRIVATE,
    });
  const vdso = area(0x502000n, 0x504000n, {
    status: R | VMA_STATUS.VDSO | VMA_STATUS.ANON_PRIVATE,
  });
  for (
    const vmas of [[vdso], [vvar(0x502000n)], [vvar(0x501000n), vdso], [
      vdso,
      vvar(0x508000n),
    ]]
  ) {
    const error = assertThrows(
      () => rebuildMemory(new Program(), input(vmas)),
      CkptError,
    );
    assertEquals(error.exit, EXIT.refused);
    assertEquals(error.reasons[0].object, "vdso");
  }
});

Deno.test("a file is opened as its mapping needs where the image does not tell", () => {
  const files = new Map([[1, minimalImage().files[0].reg!]]);
  const modes = [
    [VMA_STATUS.FILE_PRIVATE, PROT.read | PROT.write, "0"],
    [VMA_STATUS.FILE_SHARED, PROT.read, "0"],
    [VMA_STATUS.FILE_SHARED, PROT.read | PROT.write, "2"],
  ] as const;
  for (const [status, prot, mode] of modes) {
    const vma = area(0x500000n, 0x501000n, {
      status: R | status,
      flags: status === VMA_STATUS.FILE_SHARED ? MAP.shared : MAP.private,
      prot,
      shmid: 1n,
    });
    const page = rebuild(input([vma], { files })).pages.get(0x500000n);
    assertEquals(page?.file, `/opt/demo/tiny ${mode}`);
  }
});

Deno.test("all below and above the agent is unmapped, and nothing of it", () => {
  const program = new Program();
  unmapAllBut(program, AGENT);
  const { operations } = decodeProgram(program);
  assertEquals(
    operations.map(({ name, args }) => [name, args[0].value, args[1].value]),
    [
      ["munmap", 0n, BigInt(AGENT.start)],
      ["munmap", BigInt(AGENT.end), 0x7fff_ffff_f000n - BigInt(AGENT.end)],
    ],
  );
});
