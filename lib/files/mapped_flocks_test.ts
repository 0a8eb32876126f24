import { assertEquals } from "@std/assert";
import { parseLocks } from "../proc/locks.ts";
import { findMappedFlocks, type MappingProcess } from "./mapped_flocks.ts";

/** As the kernel tells them. */
const HOST = parseLocks(
  `1: FLOCK  ADVISORY  WRITE 10 fd:01:77 0 EOF
2: FLOCK  ADVISORY  READ 11 fd:01:78 0 EOF
3: FLOCK  ADVISORY  WRITE 99 fd:01:79 0 EOF
4: POSIX  ADVISORY  WRITE 10 fd:01:77 0 9
4: -> FLOCK  ADVISORY  WRITE 10 fd:01:78 0 EOF
5: FLOCK  ADVISORY  WRITE 10 fd:01:80 0 EOF
`,
  "locks",
);

function process(
  pid: number,
  locks: readonly string[],
  areas: readonly [start: bigint, inode: bigint][],
): MappingProcess {
  return {
    pid,
    tid: pid,
    descriptors: [{ info: { locks }, sameAs: undefined }],
    vmas: {
      vmas: areas.map(([start, inode]) => ({
        entry: { start },
        inode,
        link: `${start}`,
      })),
    },
  };
}

Deno.test("a flock that no descriptor tells of is that of the first area of its file", () => {
  const processes = [
    process(10, ["1: FLOCK  ADVISORY  WRITE 10 fd:01:80 0 EOF"], [
      [0x1000n, 70n],
      [0x2000n, 77n],
      [0x3000n, 77n],
      // Held by a descriptor, and by somebody else.
      [0x4000n, 80n],
      [0x5000n, 79n],
    ]),
    process(11, [], [[0x2000n, 77n], [0x6000n, 78n]]),
  ];
  const inodes = new Map(
    processes.flatMap(({ tid, vmas }) =>
      vmas.vmas.map(({ link, inode }) => [`${tid} ${link}`, inode] as const)
    ),
  );
  const found = findMappedFlocks(
    HOST,
    processes,
    (tid, link) => `253:1 ${inodes.get(`${tid} ${link}`)}`,
  );
  assertEquals(
    [...found].map(([pid, areas]) => [pid, ...areas]),
    [[10, [0x2000n, 2]], [11, [0x6000n, 1]]],
  );
  // A file of the same number on another device.
  assertEquals([...findMappedFlocks(HOST, processes, () => "0:5 77")], []);
});
