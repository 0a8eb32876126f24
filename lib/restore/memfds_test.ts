import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { pread, stat, syscall } from "../ffi/syscall.ts";
import { F_SEAL } from "../files/memfd.ts";
import type { memfd_inode_entry } from "../image/schema.gen.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import { PageCounters } from "../mm/page_copy.ts";
import { memfdProblems, Memfds } from "./memfds.ts";
import type { MemfdImage, TreeImages } from "./task_images.ts";

const PAGE = 4096;
const F_GET_SEALS = 1034n;

function entry(rest: Partial<memfd_inode_entry> = {}): memfd_inode_entry {
  return {
    name: "x",
    uid: 0,
    gid: 0,
    size: 0n,
    shmid: 1,
    seals: 0,
    inode_id: 1n,
    mode: 0o100777,
    ...rest,
  };
}

async function withMemfd<T>(
  rest: Partial<memfd_inode_entry>,
  use: (fd: number, made: Memfds) => T,
  pages: readonly { at: number; byte: number }[] = [],
): Promise<T> {
  const directory = await Deno.makeTempDir();
  try {
    const content = new Uint8Array(pages.length * PAGE);
    pages.forEach(({ byte }, i) =>
      content.fill(byte, i * PAGE, (i + 1) * PAGE)
    );
    Deno.writeFileSync(`${directory}/pages-1.img`, content);
    const image: MemfdImage = {
      entry: entry(rest),
      files: [7, 8],
      pagemap: {
        pages_id: 1,
        entries: pages.map(({ at }) => ({
          vaddr: BigInt(at * PAGE),
          compat_nr_pages: 0,
          nr_pages: 1n,
          flags: PAGE_FLAGS.PRESENT,
        })),
      },
    };
    const set = { path: (name: string) => `${directory}/${name}` };
    using made = await Memfds.make(
      { set, memfds: [image] } as unknown as TreeImages,
      new PageCounters(),
    );
    const files = [7, 8].map((id) => made.byFile.get(id)!);
    assertEquals(files[0], files[1]);
    assertEquals(files[0].reopen, true);
    return use(files[0].fd, made);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function sealsOf(fd: number): number {
  return Number(syscall("fcntl", BigInt(fd), F_GET_SEALS));
}

Deno.test("a memfd has its name, size, owner, mode, and content with holes", async () => {
  const size = BigInt(1000 * PAGE + 10);
  await withMemfd(
    { name: "é x", size, uid: 5, gid: 6, mode: 0o100640 },
    (fd) => {
      assertEquals(
        Deno.readLinkSync(`/proc/self/fd/${fd}`),
        "/memfd:é x (deleted)",
      );
      const { uid, gid, mode, size: found } = stat(fd);
      assertEquals([uid, gid, mode, found], [5, 6, 0o100640, size]);
      const bytes = new Uint8Array(3 * PAGE);
      pread(fd, bytes, BigInt(499 * PAGE));
      assertEquals(bytes[PAGE - 1], 0);
      assertEquals(bytes[PAGE], 1);
      assertEquals(bytes[2 * PAGE], 0);
      const end = new Uint8Array(20);
      assertEquals(pread(fd, end, BigInt(1000 * PAGE)), 10);
      assertEquals(end[9], 2);
      const { blocks } = Deno.statSync(`/proc/self/fd/${fd}`);
      assert(blocks! <= 16, `${blocks} blocks are in use`);
    },
    [{ at: 500, byte: 1 }, { at: 1000, byte: 2 }],
  );
});

Deno.test("seals are those of the image, the later ones when all have mapped it", async () => {
  const { seal, shrink, grow, write, futureWrite, exec } = F_SEAL;
  const cases: [seals: number, mode: number, early: number][] = [
    [seal, 0o777, seal],
    [0, 0o777, 0],
    [shrink | grow, 0o777, shrink | grow],
    [shrink | seal, 0o777, shrink],
    [write | seal, 0o777, write],
    [futureWrite | shrink, 0o777, shrink],
    [write | futureWrite, 0o777, write | futureWrite],
    [exec, 0o666, exec],
    [exec | seal, 0o666, exec],
    [
      exec | write | shrink | grow | futureWrite,
      0o777,
      exec | write | shrink | grow | futureWrite,
    ],
  ];
  for (const [seals, mode, early] of cases) {
    await withMemfd(
      { seals, mode: mode | 0o100000, size: BigInt(PAGE) },
      (fd, made) => {
        assertEquals(sealsOf(fd), early);
        made.seal();
        assertEquals(sealsOf(fd), seals);
        assertEquals(stat(fd).mode & 0o777, mode);
      },
      [{ at: 0, byte: 1 }],
    );
  }
});

Deno.test("one that forbids later writers can be mapped for writing before", async () => {
  await withMemfd(
    { seals: F_SEAL.futureWrite, size: BigInt(PAGE) },
    (fd, made) => {
      const map = () => syscall("mmap", 0n, BigInt(PAGE), 3n, 1n, BigInt(fd));
      const mapped = map();
      made.seal();
      assertThrows(map);
      syscall("munmap", mapped, BigInt(PAGE));
    },
  );
});

Deno.test("a memfd that the kernel cannot give is a named problem", () => {
  const image = { files: [], pagemap: undefined };
  assertEquals(memfdProblems([{ ...image, entry: entry() }]), []);
  const [{ object }] = memfdProblems([
    { ...image, entry: entry({ hugetlb_flag: 0, name: "big" }) },
  ]);
  assertEquals(object, 'memfd "big"');
});

Deno.test("when one cannot be made, none is left open", async () => {
  const fds = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const before = fds();
  const made = { set: {}, memfds: [entry(), entry({ size: 2n ** 64n - 1n })] };
  const images = made.memfds.map((entry) => ({
    entry,
    files: [],
    pagemap: undefined,
  }));
  let thrown: unknown;
  try {
    await Memfds.make(
      { ...made, memfds: images } as unknown as TreeImages,
      new PageCounters(),
    );
  } catch (error) {
    thrown = error;
  }
  assert(thrown instanceof CkptError);
  assertEquals(fds(), before);
});
