import { assert, assertEquals } from "@std/assert";
import { close, O, open } from "../ffi/syscall.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import { readSmaps } from "../proc/read.ts";
import {
  copyTaskPages,
  PageCounters,
  type StoredPages,
  type StoredParent,
} from "./page_copy.ts";
import { storedPages } from "./stored_pages.ts";
import { planVmas, type Vma } from "./vma.ts";

const PAGES = 256;

/**
 * A parent with pages 0..255 of which those divisible by 10 are never written,
 * and a child that writes 100..109, zeroes 120, drops 130..139 and writes 200.
 */
const FAMILY = `
import time
SIZE = ${PAGES * PAGE_SIZE}
m = mmap.mmap(-1, SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(${PAGES}):
    if i % 10:
        m[i * 4096] = i % 250 + 1
start = ctypes.addressof(ctypes.c_char.from_buffer(m))
pid = os.fork()
if pid == 0:
    libc.prctl(1, 9)
    os.close(report)
    for i in range(100, 110):
        m[i * 4096 + 8] = 7
    m[121 * 4096] = 0
    libc.madvise(ctypes.c_void_p(start + 131 * 4096), 9 * 4096, 4)
    m[200 * 4096] = 9
    os.kill(os.getpid(), signal.SIGSTOP)
while open("/proc/%d/stat" % pid).read().split()[2] != "T":
    time.sleep(0.001)
ready([start, pid])
`;

interface Family {
  start: bigint;
  parent: number;
  child: number;
}

function areaAt(pid: number, start: bigint): Vma {
  const { vmas } = planVmas(pid, readSmaps(pid));
  return vmas.find(({ entry }) => entry.start <= start && start < entry.end)!;
}

async function copy(
  pid: number,
  start: bigint,
  path: string,
  parent?: StoredParent,
): Promise<StoredPages> {
  const fd = open(path, O.WRONLY | O.CREAT | O.TRUNC, 0o600);
  try {
    return await copyTaskPages(
      pid,
      [areaAt(pid, start)],
      fd,
      0n,
      new PageCounters(),
      parent,
    );
  } finally {
    close(fd);
  }
}

/** The first byte of each stored page of the family's memory, by number. */
function contentOf(
  pages: StoredPages,
  path: string,
  start: bigint,
): Map<number, number> {
  const bytes = Deno.readFileSync(path);
  const found = new Map<number, number>();
  let length = 0;
  for (const range of storedPages(pages.entries)) {
    for (let at = range.start; at < range.end; at += BigInt(PAGE_SIZE)) {
      const offset = Number(range.offset + at - range.start);
      found.set(Number(at - start) / PAGE_SIZE, bytes[offset]);
      length = offset + PAGE_SIZE;
    }
  }
  assertEquals(bytes.length, length);
  return found;
}

function numbersOf(ranges: StoredPages["inherited"], start: bigint): number[] {
  return ranges.flatMap((range) =>
    Array.from(
      { length: Number(range.end - range.start) / PAGE_SIZE },
      (_, i) => Number(range.start - start) / PAGE_SIZE + i,
    )
  ).filter((page) => page >= 0 && page < PAGES);
}

async function withFamily(
  work: (family: Family, directory: string) => Promise<void>,
): Promise<void> {
  await using program = await ChildProgram.start(FAMILY);
  const [start, child] = program.answer as [number, number];
  const directory = Deno.makeTempDirSync();
  try {
    await work(
      { start: BigInt(start), parent: program.pid, child },
      directory,
    );
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("the pages that a child shares with its parent are told, and its image has all of its own", () =>
  withFamily(async ({ start, parent, child }, directory) => {
    const [theirs, ours, alone] = ["parent", "child", "alone"].map((name) =>
      `${directory}/${name}`
    );
    const pages = await copy(parent, start, theirs);
    assertEquals(pages.inherited, []);
    const image = open(theirs, O.RDONLY);
    const stored = await copy(child, start, ours, {
      source: parent,
      pages,
      image,
    });
    close(image);
    const plain = await copy(child, start, alone);
    assertEquals(stored.entries, plain.entries);
    assertEquals(Deno.readFileSync(ours), Deno.readFileSync(alone));
    const content = contentOf(stored, ours, start);
    const inherited = numbersOf(stored.inherited, start);
    const expected: number[] = [];
    for (let i = 0; i < PAGES; i++) {
      const written = i >= 100 && i < 110 || i === 121 || i === 200;
      const dropped = i > 130 && i < 140;
      if (i % 10 !== 0 && !written && !dropped) expected.push(i);
      if (i === 200) assertEquals(content.get(i), 9);
      else if (i % 10 === 0) assertEquals(content.get(i) ?? 0, 0);
      else if (i === 121 || dropped) assertEquals(content.get(i), undefined);
      else assertEquals(content.get(i), i % 250 + 1);
    }
    assertEquals(inherited, expected);
  }));

Deno.test("only pages that the parent has stored are told", () =>
  withFamily(async ({ start, parent, child }, directory) => {
    const theirs = `${directory}/parent`;
    const pages = await copy(parent, start, theirs);
    const image = open(theirs, O.RDONLY);
    const one = start + 15n * BigInt(PAGE_SIZE);
    const stored = await copy(child, start, `${directory}/child`, {
      source: parent,
      pages: {
        ...pages,
        entries: [{ vaddr: one, compat_nr_pages: 0, flags: 4, nr_pages: 2n }],
      },
      image,
    });
    close(image);
    assertEquals(numbersOf(stored.inherited, start), [15, 16]);
  }));

Deno.test("a parent that is gone ends the copy, and its reason is told", () =>
  withFamily(async ({ start, parent, child }, directory) => {
    const theirs = `${directory}/parent`;
    const pages = await copy(parent, start, theirs);
    const image = open(theirs, O.RDONLY);
    try {
      await copy(child, start, `${directory}/child`, {
        source: 2 ** 22 + 1,
        pages,
        image,
      });
      assert(false, "it was copied");
    } catch (error) {
      assert(String(error).includes("reading the page map"), String(error));
    } finally {
      close(image);
    }
  }));
