import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { parseSmaps } from "../proc/smaps.ts";
import { SHM_MODE, type SysvSegment } from "../proc/sysvipc.ts";
import {
  planSegments,
  type SavedSegment,
  segmentsOfTree,
} from "./sysv_segments.ts";
import { planVmas } from "./vma.ts";

function present(id: number, rest: Partial<SysvSegment> = {}): SysvSegment {
  return {
    key: 0,
    id,
    mode: 0o600,
    size: 5000n,
    creatorPid: 40,
    attached: 0,
    uid: 1,
    gid: 2,
    cuid: 3,
    cgid: 4,
    changed: 100n,
    ...rest,
  };
}

function saved(id: number, rest: Partial<SavedSegment> = {}): SavedSegment {
  const { creatorPid: _, attached: __, ...segment } = present(id);
  return {
    ...segment,
    madeWithKey: rest.key ?? 0,
    attachedOutside: false,
    ...rest,
  };
}

const DOOMED = SHM_MODE.dest | 0o600;
const NOBODY = () => false;

function vmas(pid: number, ...segments: [id: number, key: string][]) {
  const text = segments.map(([id, key], i) =>
    `${i + 1}000-${i + 2}000 rw-s 00000000 00:01 ${id} /SYSV${key} (deleted)
KernelPageSize:        4 kB
Rss:                   4 kB
VmFlags: rd wr sh mr mw me ms
`
  ).join("");
  return { pid, vmas: planVmas(pid, parseSmaps(text)).vmas };
}

Deno.test("each segment of a tree is found once, and whether others are attached", () => {
  const { segments, reasons } = segmentsOfTree(
    [
      vmas(10, [5, "00000007"], [5, "00000007"], [6, "00000000"]),
      vmas(11, [5, "00000007"], [8, "00000009"]),
    ],
    [
      present(5, { key: 7, attached: 3 }),
      present(6, { attached: 2 }),
      present(7),
      // It has lost its key.
      present(8, { mode: DOOMED, attached: 1 }),
    ],
    false,
  );
  assertEquals(reasons, []);
  assertEquals(segments, [
    { ...saved(5, { key: 7 }), changed: 100n, detached: false },
    { ...saved(6, { attachedOutside: true }), changed: 100n, detached: false },
    {
      ...saved(8, { mode: DOOMED, madeWithKey: 9 }),
      changed: 100n,
      detached: false,
    },
  ]);
});

Deno.test("of an ipc namespace that goes with the tree all segments are its own", () => {
  const { segments, reasons } = segmentsOfTree(
    [vmas(10, [5, "00000007"])],
    [
      present(5, { key: 7, attached: 1 }),
      present(6, { key: 8 }),
      present(7, { attached: 2 }),
    ],
    true,
  );
  assertEquals(reasons, []);
  assertEquals(
    segments.map((
      { id, madeWithKey, detached, attachedOutside },
    ) => [id, madeWithKey, detached, attachedOutside]),
    [[5, 7, false, false], [6, 8, true, false], [7, 0, true, true]],
  );
});

Deno.test("a segment of another ipc namespace is refused by its area and task", () => {
  const { segments, reasons } = segmentsOfTree(
    [vmas(10, [5, "00000007"]), vmas(11, [6, "00000007"])],
    [present(5, { attached: 1 })],
    false,
  );
  assertEquals(segments.map(({ id }) => id), [5]);
  assertEquals(reasons.map(({ object, why }) => `${object}: ${why}`), [
    "System V shared memory at 1000 of task 11: its segment 6 is none of the " +
    "ipc namespace of ckpt",
  ]);
});

Deno.test("a segment that is there is attached to as it is, whoever is attached and whatever became of its key", () => {
  const wanted = saved(5, { key: 7 });
  for (
    const found of [
      present(5, { key: 7 }),
      present(5, { key: 7, attached: 3 }),
      present(5, { mode: DOOMED, attached: 1 }),
    ]
  ) {
    assertEquals(planSegments([wanted], [found], NOBODY), {
      make: [],
      leftovers: [],
      reasons: [],
    });
  }
});

for (
  const [what, rest] of [
    ["another key", { key: 8 }],
    ["another size", { size: 5001n }],
    ["another creator", { cuid: 9 }],
    ["another owner", { uid: 9 }],
    ["other permissions", { mode: 0o640 }],
    ["a later time", { changed: 101n }],
  ] as const
) {
  Deno.test(`a segment with the id but ${what} is refused`, () => {
    const { make, leftovers, reasons } = planSegments(
      [saved(5, { key: 7 })],
      [present(5, { key: 7, ...rest })],
      NOBODY,
    );
    assertEquals([make, leftovers], [[], []]);
    assertEquals(reasons.map(({ object }) => object), ["System V segment 5"]);
    assertEquals(
      reasons[0].remedy,
      "if nothing needs it, remove it: ipcrm -m 5",
    );
  });
}

Deno.test("a segment that is gone is made again, with its key", () => {
  const wanted = saved(5, { key: 7 });
  assertEquals(planSegments([wanted], [present(6)], NOBODY), {
    make: [{ segment: wanted, key: 7 }],
    leftovers: [],
    reasons: [],
  });
});

Deno.test("a key that another segment has is refused by name", () => {
  const wanted = saved(5, { key: 0xdeadbeef });
  const plan = planSegments(
    [wanted],
    [present(6, { key: 0xdeadbeef })],
    NOBODY,
  );
  assertEquals(plan.make, []);
  assertEquals(plan.reasons, [{
    object: "System V segment 5",
    why: "its key 0xdeadbeef is taken by segment 6",
    remedy: "if nothing needs that one, remove it: ipcrm -m 6",
  }]);
});

Deno.test("one that is to go has the name of its key where that is free, and is made first", () => {
  const live = saved(5, { key: 7 });
  const doomed = saved(6, { mode: DOOMED, madeWithKey: 7 });
  assertEquals(planSegments([live, doomed], [], NOBODY).make, [
    { segment: doomed, key: 7 },
    { segment: live, key: 7 },
  ]);
  assertEquals(
    planSegments([doomed], [present(9, { key: 7 })], NOBODY).make,
    [{ segment: doomed, key: 0 }],
  );
});

Deno.test("what a killed restore has left is known in the same second, too", () => {
  const wanted = saved(5, { key: 7 });
  const left = present(5, { key: 7, mode: 0 });
  assertEquals(planSegments([wanted], [left], NOBODY).leftovers, [5]);
});

Deno.test("what a killed restore has left is removed, nothing else", () => {
  const wanted = saved(5, { key: 7 });
  const left = present(5, { key: 7, mode: 0, cuid: 0, changed: 200n });
  assertEquals(planSegments([wanted], [left], NOBODY), {
    make: [{ segment: wanted, key: 7 }],
    leftovers: [5],
    reasons: [],
  });
  for (
    const [other, isAlive] of [
      [left, (pid: number) => pid === 40],
      [{ ...left, attached: 1 }, NOBODY],
      [{ ...left, mode: 0o400 }, NOBODY],
      [{ ...left, key: 8 }, NOBODY],
      [{ ...left, size: 4999n }, NOBODY],
    ] as const
  ) {
    const { leftovers, reasons } = planSegments([wanted], [other], isAlive);
    assertEquals([leftovers, reasons.length], [[], 1]);
  }
});

Deno.test("of random segments each is there, made or refused, and no key is given twice", () => {
  const random = seededRandom(23);
  const below = (n: number) => Math.floor(random() * n);
  let [made, refused, removed] = [0, 0, 0];
  for (let round = 0; round < 3000; round++) {
    const segmentOf = (id: number) => {
      const doomed = random() < 0.3;
      return saved(id, {
        key: doomed ? 0 : id % 2 === 0 ? 0 : 100 + id,
        madeWithKey: id % 2 === 0 ? 0 : 100 + id,
        mode: doomed ? DOOMED : 0o600,
      });
    };
    const wanted = [1, 2, 3, 4, 5].filter(() => random() < 0.6).map(segmentOf);
    const keys = new Set<number>();
    const there = [1, 2, 3, 4, 5, 6].filter(() => random() < 0.4).map((id) => {
      const key = random() < 0.5 ? 0 : 100 + below(7);
      const free = keys.has(key) ? 0 : key;
      keys.add(free);
      return present(id, {
        key: free,
        mode: random() < 0.3 ? 0 : 0o600,
        attached: below(2),
        changed: BigInt(99 + below(3)),
      });
    });
    const plan = planSegments(wanted, there, NOBODY);
    for (const segment of wanted) {
      const found = there.find(({ id }) => id === segment.id);
      const isMade = plan.make.some((one) => one.segment === segment);
      const isRefused = plan.reasons.some(({ object }) =>
        object === `System V segment ${segment.id}`
      );
      const isRemoved = plan.leftovers.includes(segment.id);
      assert(!(isMade && isRefused));
      assert(!isMade || found === undefined || isRemoved);
      assert(isMade || isRefused || found?.changed === segment.changed);
      made += Number(isMade);
      refused += Number(isRefused);
    }
    for (const id of plan.leftovers) {
      const found = there.find((one) => one.id === id)!;
      assertEquals([found.mode, found.attached], [0, 0]);
      removed++;
    }
    const stays = there.filter(({ id }) => !plan.leftovers.includes(id));
    const given = plan.make.filter(({ key }) => key !== 0);
    for (const { key } of given) {
      assert(!stays.some((one) => one.key === key), `${key} is given twice`);
    }
  }
  assert(made > 1000 && refused > 1000 && removed > 100);
});
