import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { VMA_STATUS } from "../image/vma_status.ts";
import { parseSmaps, type SmapsMapping } from "../proc/smaps.ts";
import { MAP, planVmas, type Vma } from "./vma.ts";

/** A record of smaps, as Linux 6.18 writes it. */
function record(header: string, vmFlags: string): string {
  const pageSize = vmFlags.split(" ").includes("ht") ? 2048 : 4;
  return `${header}
Size:                  8 kB
KernelPageSize:     ${pageSize} kB
MMUPageSize:           4 kB
Rss:                   4 kB
Pss:                   4 kB
Pss_Dirty:             4 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         4 kB
Referenced:            4 kB
Anonymous:             4 kB
KSM:                   0 kB
LazyFree:              0 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:           0
VmFlags: ${vmFlags} \n`;
}

function plan(...records: [header: string, vmFlags: string][]) {
  return planVmas(
    7,
    parseSmaps(records.map((entry) => record(...entry)).join("")),
  );
}

/** What a test says of an area; what it does not name is as usual. */
interface Expected {
  prot: number;
  flags: number;
  status: number;
  content: Vma["content"];
  pgoff?: bigint;
  fdflags?: number;
  madv?: bigint;
  link?: string;
  path?: string;
  inode?: bigint;
  segmentKey?: number;
  memfd?: boolean;
  lockOnFault?: boolean;
  sealed?: boolean;
  name?: string;
}

const R = VMA_STATUS.REGULAR;
const ANON = R | VMA_STATUS.ANON_PRIVATE;

const SAVED: readonly [what: string, string, string, Expected][] = [
  [
    "code of a program",
    "560b54ef9000-560b54efb000 r-xp 00002000 fe:00 260386                     /srv/a b",
    "rd ex mr mw me",
    {
      prot: 5,
      flags: MAP.private,
      status: R | VMA_STATUS.FILE_PRIVATE,
      content: "privateFile",
      pgoff: 0x2000n,
      fdflags: 0,
      link: "560b54ef9000-560b54efb000",
      path: "/srv/a b",
      inode: 260386n,
    },
  ],
  [
    "a shared file that may be written",
    "7f5da0a00000-7f5da0a02000 rw-s 00001000 fe:00 12                         /srv/data",
    "rd wr sh mr mw me ms",
    {
      prot: 3,
      flags: MAP.shared,
      status: R | VMA_STATUS.FILE_SHARED,
      content: "none",
      pgoff: 0x1000n,
      fdflags: 2,
      link: "7f5da0a00000-7f5da0a02000",
      path: "/srv/data",
      inode: 12n,
    },
  ],
  [
    "a shared memfd that may be written",
    "7f5da0a00000-7f5da0a02000 r--s 00001000 00:01 12                         /memfd:a b (deleted)",
    "rd sh mr mw me ms",
    {
      prot: 1,
      flags: MAP.shared,
      status: R | VMA_STATUS.FILE_SHARED | VMA_STATUS.MEMFD,
      content: "none",
      pgoff: 0x1000n,
      fdflags: 2,
      link: "7f5da0a00000-7f5da0a02000",
      inode: 12n,
      memfd: true,
    },
  ],
  [
    "a private memfd",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:01 12                         /memfd: (deleted)",
    "rd wr mr mw me ac",
    {
      prot: 3,
      flags: MAP.private,
      status: R | VMA_STATUS.FILE_PRIVATE | VMA_STATUS.MEMFD,
      content: "privateFile",
      pgoff: 0n,
      fdflags: 0,
      link: "7f5da0a00000-7f5da0a02000",
      inode: 12n,
      memfd: true,
    },
  ],
  [
    "a shared file that is open for reading",
    "7f5da0a00000-7f5da0a02000 r--s 00000000 fe:00 12                         /srv/data",
    "rd sh mr me",
    {
      prot: 1,
      flags: MAP.shared,
      status: R | VMA_STATUS.FILE_SHARED,
      content: "none",
      fdflags: 0,
      link: "7f5da0a00000-7f5da0a02000",
      path: "/srv/data",
      inode: 12n,
    },
  ],
  [
    "a shared file that is only read now, but may be written",
    "7f5da0a00000-7f5da0a02000 r--s 00000000 fe:00 12                         /srv/data",
    "rd sh mr mw me ms",
    {
      prot: 1,
      flags: MAP.shared,
      status: R | VMA_STATUS.FILE_SHARED,
      content: "none",
      fdflags: 2,
      link: "7f5da0a00000-7f5da0a02000",
      path: "/srv/data",
      inode: 12n,
    },
  ],
  [
    "anonymous memory",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me ac sd",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON,
      content: "anonymous",
    },
  ],
  [
    "anonymous memory without access",
    "7f5da0a00000-7f5da0a02000 ---p 00000000 00:00 0 ",
    "mr mw me nr",
    {
      prot: 0,
      flags: MAP.private | MAP.anonymous | MAP.noreserve,
      status: ANON,
      content: "anonymous",
    },
  ],
  [
    "the heap",
    "11890000-118b1000 rw-p 00000000 00:00 0                                  [heap]",
    "rd wr mr mw me ac sd",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON | VMA_STATUS.HEAP,
      content: "anonymous",
    },
  ],
  [
    "the stack, which grows down",
    "7ffd063a0000-7ffd063c1000 rw-p 00000000 00:00 0                          [stack]",
    "rd wr mr mw me gd ac",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous | MAP.growsdown,
      status: ANON,
      content: "anonymous",
    },
  ],
  [
    "named anonymous memory",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0                          [anon:glibc: a:b c]",
    "rd wr mr mw me ac",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON,
      content: "anonymous",
      name: "glibc: a:b c",
    },
  ],
  [
    "anonymous memory with an empty name",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0                          [anon:]",
    "rd wr mr mw me ac",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON,
      content: "anonymous",
      name: "",
    },
  ],
  [
    "shared anonymous memory",
    "7f5da0a00000-7f5da0a02000 rw-s 00003000 00:01 1059                       /dev/zero (deleted)",
    "rd wr sh mr mw me ms sd",
    {
      prot: 3,
      flags: MAP.shared | MAP.anonymous,
      status: R | VMA_STATUS.ANON_SHARED,
      content: "object",
      pgoff: 0x3000n,
      link: "7f5da0a00000-7f5da0a02000",
      inode: 1059n,
    },
  ],
  [
    "named shared anonymous memory",
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:01 1059                       [anon_shmem:queue]",
    "rd wr sh mr mw me ms sd",
    {
      prot: 3,
      flags: MAP.shared | MAP.anonymous,
      status: R | VMA_STATUS.ANON_SHARED,
      content: "object",
      link: "7f5da0a00000-7f5da0a02000",
      inode: 1059n,
      name: "queue",
    },
  ],
  [
    "a part of a System V segment, whose inode is its id",
    "7f5da0a00000-7f5da0a02000 r--s 00003000 00:01 0                          /SYSV00000000 (deleted)",
    "rd wr sh mr mw me ms",
    {
      prot: 1,
      flags: MAP.shared | MAP.anonymous,
      status: R | VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC,
      content: "object",
      pgoff: 0x3000n,
      fdflags: 2,
      link: "7f5da0a00000-7f5da0a02000",
      inode: 0n,
      segmentKey: 0,
    },
  ],
  [
    "a System V segment that is attached with SHM_RDONLY",
    "7f5da0a00000-7f5da0a02000 r--s 00000000 00:01 32775                      /SYSVfc0ffee0 (deleted)",
    "rd mr me ms",
    {
      prot: 1,
      flags: MAP.shared | MAP.anonymous,
      status: R | VMA_STATUS.ANON_SHARED | VMA_STATUS.SYSVIPC,
      content: "object",
      fdflags: 0,
      link: "7f5da0a00000-7f5da0a02000",
      inode: 32775n,
      segmentKey: 0xfc0ffee0,
    },
  ],
  [
    "a deleted file that is called as if it were a System V segment",
    "7f5da0a00000-7f5da0a02000 r--s 00000000 fe:00 32775                      /SYSVfc0ffee0 (deleted)",
    "rd mr me ms",
    {
      prot: 1,
      flags: MAP.shared,
      status: R | VMA_STATUS.FILE_SHARED,
      content: "none",
      fdflags: 0,
      link: "7f5da0a00000-7f5da0a02000",
      path: "/SYSVfc0ffee0 (deleted)",
      inode: 32775n,
    },
  ],
  [
    "a private mapping of /dev/zero",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:06 5                          /dev/zero",
    "rd wr mr mw me ac",
    {
      prot: 3,
      flags: MAP.private,
      status: R | VMA_STATUS.FILE_PRIVATE,
      content: "privateFile",
      fdflags: 0,
      link: "7f5da0a00000-7f5da0a02000",
      path: "/dev/zero",
      inode: 5n,
    },
  ],
  [
    "droppable memory, whose content may be lost",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me nr wf dd dp",
    {
      prot: 3,
      flags: MAP.droppable | MAP.anonymous | MAP.noreserve,
      status: ANON,
      content: "none",
      madv: 1n << 18n | 1n << 16n,
    },
  ],
  [
    "memory with every advice",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me rr dc mg hg dd wf",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON,
      content: "anonymous",
      madv: 1n << 1n | 1n << 10n | 1n << 12n | 1n << 14n | 1n << 16n |
        1n << 18n,
    },
  ],
  [
    "memory read in order, without huge pages",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me sr nh",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous,
      status: ANON,
      content: "anonymous",
      madv: 1n << 2n | 1n << 15n,
    },
  ],
  [
    "locked and sealed memory",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me lo sl",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous | MAP.locked,
      status: ANON,
      content: "anonymous",
      sealed: true,
    },
  ],
  [
    "memory that is locked as it is touched",
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me lo lf",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous | MAP.locked,
      status: ANON,
      content: "anonymous",
      lockOnFault: true,
    },
  ],
  [
    "the rings of a packet socket",
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:09 91                         socket:[91]",
    "rd wr sh mr mw ms mm",
    {
      prot: 3,
      flags: MAP.shared,
      status: VMA_STATUS.SOCKET,
      content: "none",
      inode: 91n,
    },
  ],
  [
    "huge pages of its own",
    "7f5da0a00000-7f5da0c00000 rw-p 00000000 00:10 31                         /anon_hugepage (deleted)",
    "rd wr mr mw me de ht",
    {
      prot: 3,
      flags: MAP.private | MAP.anonymous | MAP.hugetlb | 21 << 26,
      status: ANON,
      content: "anonymous",
      inode: 31n,
    },
  ],
  [
    "huge pages of a file, private",
    "7f5da0a00000-7f5da0c00000 rw-p 00200000 00:10 33                         /dev/hugepages/a",
    "rd wr mr mw me de ht",
    {
      prot: 3,
      flags: MAP.private | MAP.hugetlb | 21 << 26,
      status: R | VMA_STATUS.FILE_PRIVATE,
      content: "privateFile",
      pgoff: 0x200000n,
      link: "7f5da0a00000-7f5da0c00000",
      path: "/dev/hugepages/a",
      inode: 33n,
      fdflags: 0,
    },
  ],
  [
    "a part of huge pages that are shared",
    "7f5da0a00000-7f5da0c00000 rw-s 00200000 00:10 32                         /anon_hugepage (deleted)",
    "rd wr sh mr mw me ms nr de ht",
    {
      prot: 3,
      flags: MAP.shared | MAP.anonymous | MAP.noreserve | MAP.hugetlb |
        21 << 26,
      status: R | VMA_STATUS.ANON_SHARED,
      content: "object",
      pgoff: 0x200000n,
      link: "7f5da0a00000-7f5da0c00000",
      inode: 32n,
    },
  ],
  [
    "the vdso, all of whose pages are saved",
    "7ffd063cc000-7ffd063ce000 r-xp 00000000 00:00 0                          [vdso]",
    "rd ex mr mw me de sl",
    {
      prot: 5,
      flags: MAP.private | MAP.anonymous,
      status: ANON | VMA_STATUS.VDSO,
      content: "all",
      sealed: true,
    },
  ],
  [
    "the data of the vdso, although it is memory of a device",
    "7ffd063c8000-7ffd063cc000 r--p 00000000 00:00 0                          [vvar]",
    "rd mr pf io de dd sl",
    {
      prot: 1,
      flags: MAP.private | MAP.anonymous,
      status: ANON | VMA_STATUS.VVAR,
      content: "none",
      madv: 1n << 16n,
      sealed: true,
    },
  ],
  [
    "the vsyscall page, which is no area of the task",
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]",
    "ex",
    {
      prot: 4,
      flags: MAP.private | MAP.anonymous,
      status: VMA_STATUS.VSYSCALL | VMA_STATUS.ANON_PRIVATE,
      content: "none",
    },
  ],
];

for (const [what, header, flags, expected] of SAVED) {
  Deno.test(`saved: ${what}`, () => {
    const { vmas, reasons } = plan([header, flags]);
    assertEquals(reasons, []);
    const [{ entry, ...rest }] = vmas;
    const [start, end] = header.split(" ")[0].split("-");
    const { madv, fdflags, ...entryRest } = entry;
    assertEquals(entryRest, {
      start: BigInt(`0x${start}`),
      end: BigInt(`0x${end}`),
      pgoff: expected.pgoff ?? 0n,
      shmid: 0n,
      prot: expected.prot,
      flags: expected.flags,
      status: expected.status,
      fd: -1n,
    });
    assertEquals({ madv, fdflags }, {
      madv: expected.madv,
      fdflags: expected.fdflags,
    });
    assertEquals({
      content: rest.content,
      link: rest.link,
      path: rest.path,
      inode: rest.inode,
      lockOnFault: rest.lockOnFault,
      sealed: rest.sealed,
      name: rest.name,
      segmentKey: rest.segmentKey,
      memfd: rest.memfd,
    }, {
      content: expected.content,
      link: expected.link,
      path: expected.path,
      inode: expected.inode ?? 0n,
      lockOnFault: expected.lockOnFault ?? false,
      sealed: expected.sealed ?? false,
      name: expected.name,
      segmentKey: expected.segmentKey,
      memfd: expected.memfd,
    });
  });
}

const REFUSED: readonly [header: string, flags: string, why: string][] = [
  [
    "7f5da0a00000-7f5da0c00000 rw-s 00000000 00:01 31                         /SYSV00000000 (deleted)",
    "rd wr sh mr mw me ms de ht",
    "huge pages of a System V segment (SHM_HUGETLB) are not supported",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:06 310                        /dev/dri/card0",
    "rd wr sh mr mw me ms io dd",
    "memory of a device cannot be saved",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:06 310                        /dev/mem",
    "rd wr sh mr mw me ms pf dd",
    "memory of a device cannot be saved",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    "rd wr mr mw me ss",
    "a shadow stack is not supported yet",
  ],
  ...["um", "uw", "ui"].map((flag): [string, string, string] => [
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:00 0 ",
    `rd wr mr mw me ${flag}`,
    "it is registered with userfaultfd, which cannot be saved",
  ]),
  [
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:0f 9                          anon_inode:[perf_event]",
    "rd wr sh mr mw me ms",
    "memory of a kernel object is not supported yet",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-s 00001000 00:08 9                          socket:[91]",
    "rd wr sh mr mw me ms",
    "memory of a kernel object is not supported yet",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-p 00000000 00:08 9                          socket:[91]",
    "rd wr mr mw me",
    "memory of a kernel object is not supported yet",
  ],
  [
    "7f5da0a00000-7f5da0a02000 rw-s 00000000 00:0e 9                          /secretmem (deleted)",
    "rd wr sh mr mw me ms lo de dd",
    "secret memory (memfd_secret) cannot be saved",
  ],
  [
    "7fffffffe000-7ffffffff000 --xp 00000000 00:00 0                          [uprobes]",
    "ex mr mw me dc",
    "the program is being traced with uprobes",
  ],
];

for (const [header, flags, why] of REFUSED) {
  const path = header.replace(/^(\S+ ){5} */, "");
  Deno.test(`refused: ${path} with the flags ${flags}`, () => {
    const { vmas, reasons } = plan([header, flags]);
    assertEquals(vmas, []);
    const range = header.split(" ")[0];
    const name = path === "" ? "" : ` (${path})`;
    assertEquals(reasons, [{
      object: `mapping ${range}${name} of task 7`,
      why,
    }]);
  });
}

Deno.test("all reasons are told at once, and what can be saved is planned", () => {
  const { vmas, reasons } = plan(
    REFUSED[0].slice(0, 2) as [string, string],
    SAVED[4].slice(1, 3) as [string, string],
    REFUSED[1].slice(0, 2) as [string, string],
  );
  assertEquals(vmas.length, 1);
  assertEquals(reasons.map(({ why }) => why), [REFUSED[0][2], REFUSED[1][2]]);
});

Deno.test("the parts of vvar become one entry, when they touch", () => {
  const flags = "rd mr pf io de dd";
  const parts = (middle: string) =>
    plan(
      [`7ffd063c8000-${middle} r--p 00000000 00:00 0   [vvar]`, flags],
      [
        "7ffd063ca000-7ffd063cc000 r--p 00000000 00:00 0   [vvar_vclock]",
        flags,
      ],
      ["7ffd063cc000-7ffd063ce000 r-xp 00000000 00:00 0   [vdso]", "rd ex"],
    ).vmas.map(({ entry }) => [entry.start, entry.end]);
  assertEquals(parts("7ffd063ca000"), [
    [0x7ffd063c8000n, 0x7ffd063cc000n],
    [0x7ffd063cc000n, 0x7ffd063ce000n],
  ]);
  assertEquals(parts("7ffd063c9000"), [
    [0x7ffd063c8000n, 0x7ffd063c9000n],
    [0x7ffd063ca000n, 0x7ffd063cc000n],
    [0x7ffd063cc000n, 0x7ffd063ce000n],
  ]);
});

Deno.test("of random mappings, each is planned with its range and protection or refused", () => {
  const random = seededRandom(17);
  const below = (n: number) => Math.floor(random() * n);
  const codes = "sh mr mw me ms gd pf lo io sr rr dc dd nr ht um uw ui ss sd " +
    "mg hg nh wf dp lf sl ac de";
  const paths = [
    ...["", "", "", "[heap]", "[stack]", "[vdso]", "[vvar]", "[vvar_vclock]"],
    ...["/a", "/dev/zero", "/dev/zero (deleted)", "[anon:x]", "[uprobes]"],
    ...["[anon_shmem:y]", "/memfd:z", "/SYSV00001234 (deleted)"],
    "socket:[1]",
  ];
  for (let round = 0; round < 3000; round++) {
    let at = 0x10000;
    const mappings = Array.from({ length: below(12) }, (): SmapsMapping => {
      const start = at + (random() < 0.5 ? 0 : below(9) * 4096);
      const shared = random() < 0.3;
      const end = at = start + (1 + below(9)) * 4096;
      return {
        start,
        end,
        prot: below(8),
        shared,
        offset: below(9) * 4096,
        major: 0,
        minor: 0,
        inode: BigInt(below(3)),
        path: paths[below(paths.length)],
        deletedMark: false,
        vmFlags: new Set(
          codes.split(" ").filter((code) =>
            random() < 0.05 && !(shared && code === "dp")
          ),
        ),
      };
    });
    const { vmas, reasons } = planVmas(1, mappings);
    const objects = new Set(reasons.map(({ object }) => object));
    assertEquals(objects.size, reasons.length, "a reason is told twice");
    for (const mapping of mappings) {
      const range = `${mapping.start.toString(16)}-${mapping.end.toString(16)}`;
      const refused = [...objects].some((object) => object.includes(range));
      const found = vmas.filter(({ entry }) =>
        entry.start <= mapping.start && mapping.end <= entry.end
      );
      assertEquals(found.length, refused ? 0 : 1, range);
      if (refused) continue;
      const [{ entry, content, path }] = found;
      if ((entry.status & VMA_STATUS.VVAR) === 0) {
        assertEquals(entry.start, BigInt(mapping.start));
        assertEquals(entry.end, BigInt(mapping.end));
        assertEquals(entry.prot, mapping.prot);
      }
      const kinds = [
        VMA_STATUS.ANON_PRIVATE,
        VMA_STATUS.ANON_SHARED,
        VMA_STATUS.FILE_PRIVATE,
        VMA_STATUS.FILE_SHARED,
        VMA_STATUS.SOCKET,
      ].filter((kind) => (entry.status & kind) !== 0);
      assertEquals(kinds.length, 1);
      const isFile = (kinds[0] &
        (VMA_STATUS.FILE_PRIVATE | VMA_STATUS.FILE_SHARED)) !== 0;
      assertEquals(path !== undefined, isFile);
      const isSocket = kinds[0] === VMA_STATUS.SOCKET;
      assertEquals((entry.flags & MAP.anonymous) === 0, isFile || isSocket);
      assertEquals(content === "object", kinds[0] === VMA_STATUS.ANON_SHARED);
      const types = [MAP.shared, MAP.private, MAP.droppable].filter((type) =>
        (entry.flags & 0xf) === type
      );
      assertEquals(types.length, 1);
    }
    for (let i = 1; i < vmas.length; i++) {
      assert(vmas[i - 1].entry.end <= vmas[i].entry.start);
    }
  }
});
