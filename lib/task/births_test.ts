import { assert, assertEquals } from "@std/assert";
import { seededRandom } from "../image/testing/random.ts";
import { type Births, planBirths, type TreeProcess } from "./births.ts";
import { perform } from "./births/testing/perform.ts";
import { randomTree } from "./births/testing/random_tree.ts";
import { readTree, showSteps } from "./births/testing/text.ts";

function plan(tree: readonly TreeProcess[], taken: number[] = []) {
  let spare = 500;
  return planBirths(tree, {
    takenIds: new Set(taken),
    sparePid: () => spare++,
  });
}

/** The births, after the model of the kernel made the same tree by them. */
function proven(tree: readonly TreeProcess[], taken?: number[]): Births {
  const planned = plan(tree, taken);
  if ("reasons" in planned) {
    throw new Error(planned.reasons.map((r) => `${r.object} ${r.why}`).join());
  }
  const expected = tree.map(({ pid, ppid, sid, pgid, state }) =>
    [pid, [ppid, sid, pgid, state === "dead"]] as const
  );
  assertEquals(perform(planned.births, tree), new Map(expected));
  return planned.births;
}

/** Steps other than the memory at the end and the groups. */
function births(...tree: string[]): string[] {
  return showSteps(proven(readTree(...tree)).steps)
    .filter((step) => !/memory|setpgid/.test(step));
}

Deno.test("an ordinary tree is forked by its parents, memory last", () => {
  const tree = readTree(
    "10 0 10 10",
    "11 10 10 10",
    "12 11 10 10",
    "13 10 10 10 stopped",
    "14 13 14 14",
  );
  assertEquals(showSteps(proven(tree).steps), [
    "10: setsid",
    "10: fork 11",
    "10: fork 13",
    "11: fork 12",
    "13: fork 14",
    "14: setsid",
    "10: memory",
    "11: memory",
    "12: memory",
    "13: memory",
    "14: memory",
  ]);
});

Deno.test("a root without a session of its own stays in that of the outside", () => {
  assertEquals(
    showSteps(proven(readTree("10 0 0 0", "11 10 0 11", "12 11 0 11")).steps),
    [
      "10: fork 11",
      "11: fork 12",
      "11: setpgid 11",
      "12: setpgid 11",
      "10: memory",
      "11: memory",
      "12: memory",
    ],
  );
});

Deno.test("a child in its parent's former session is forked before setsid", () => {
  assertEquals(
    births("10 0 10 10", "11 10 11 11", "12 11 10 10", "13 11 11 11"),
    [
      "10: setsid",
      "10: fork 11",
      "11: fork 12",
      "11: setsid",
      "11: fork 13",
    ],
  );
});

Deno.test("also when the session is that of the outside, or far above", () => {
  assertEquals(
    births("10 0 10 10", "11 10 11 11", "12 11 12 12", "13 12 0 0"),
    [
      "10: fork 11",
      "10: setsid",
      "11: fork 12",
      "11: setsid",
      "12: fork 13",
      "12: setsid",
    ],
  );
});

Deno.test("a leader that does not mind where it is born comes before setsid", () => {
  assertEquals(births("10 0 10 10", "11 10 11 11"), [
    "10: fork 11",
    "10: setsid",
    "11: setsid",
  ]);
});

Deno.test("a child is born from a sibling that it shares with, where that is in its session", () => {
  assertEquals(
    births(
      "10 0 10 10",
      "11 10 10 10",
      "12 10 10 10 of 11",
      "13 10 13 13",
      "15 10 10 10 of 13",
      "16 10 16 16 of 12",
    ),
    [
      "10: fork 13",
      "10: setsid",
      "10: fork 11",
      "10: fork 15",
      "13: setsid",
      "11: fork sibling 12",
      "12: fork sibling 16",
      "16: setsid",
    ],
  );
});

Deno.test("a sibling that uses its memory is born when that is there", () => {
  assertEquals(
    showSteps(
      proven(readTree("10 0 10 10", "11 10 10 10", "12 10 10 10 heir of 11"))
        .steps,
    ),
    [
      "10: setsid",
      "10: fork 11",
      "11: memory",
      "11: fork sibling 12",
      "10: memory",
      "12: memory",
    ],
  );
});

Deno.test("a helper takes the place of a session leader that is gone", () => {
  assertEquals(births("10 0 10 10", "11 10 40 40", "12 10 40 40"), [
    "10: fork helper 40",
    "10: setsid",
    "40: setsid",
    "40: fork 11",
    "40: fork 12",
    "10: subreaper on",
    "40: end",
    "10: reap 40",
    "10: subreaper off",
  ]);
});

Deno.test("members under parents in one line come from a helper below all", () => {
  assertEquals(
    births("10 0 10 10", "11 10 10 10", "12 11 40 40", "13 10 40 40"),
    [
      "10: setsid",
      "10: fork 11",
      "11: fork helper 40",
      "40: setsid",
      "40: fork helper 500",
      "500: fork 13",
      "10: subreaper on",
      "500: end",
      "40: reap 500",
      "10: subreaper off",
      "40: fork 12",
      "11: subreaper on",
      "40: end",
      "11: reap 40",
      "11: subreaper off",
    ],
  );
});

Deno.test("members under parents side by side: those were born in the session", () => {
  assertEquals(
    births(
      "10 0 10 10",
      "11 10 11 11",
      "12 11 40 40",
      "13 10 13 13",
      "14 13 40 40",
    ),
    [
      "10: fork helper 40",
      "10: setsid",
      "40: setsid",
      "40: fork 11",
      "40: fork 13",
      "10: subreaper on",
      "40: end",
      "10: reap 40",
      "10: subreaper off",
      "11: fork 12",
      "11: setsid",
      "13: fork 14",
      "13: setsid",
    ],
  );
});

Deno.test("a member below a member is born below it, also past a leader", () => {
  assertEquals(
    births("10 0 10 10", "11 10 40 40", "12 11 12 12", "13 12 40 40"),
    [
      "10: fork helper 40",
      "10: setsid",
      "40: setsid",
      "40: fork 11",
      "10: subreaper on",
      "40: end",
      "10: reap 40",
      "10: subreaper off",
      "11: fork 12",
      "12: fork 13",
      "12: setsid",
    ],
  );
});

Deno.test("an adopted process is born from the living leader of its session", () => {
  assertEquals(
    births("10 0 10 10", "11 10 10 10", "12 11 12 12", "13 10 12 12"),
    [
      "10: setsid",
      "10: fork 11",
      "11: fork 12",
      "12: setsid",
      "12: fork helper 500",
      "500: fork 13",
      "10: subreaper on",
      "500: end",
      "12: reap 500",
      "10: subreaper off",
    ],
  );
});

Deno.test("a spare pid is used again when its helper is reaped", () => {
  const steps = births(
    "10 0 10 10",
    "11 10 11 11",
    "12 11 12 12",
    "13 10 12 12",
    "14 11 12 12",
  );
  assertEquals(steps.filter((step) => step.includes("helper")), [
    "12: fork helper 500",
    "12: fork helper 500",
  ]);
});

Deno.test("spare pids are neither ids of the image nor of threads", () => {
  const tree = readTree(
    "10 0 10 10",
    "11 10 11 11",
    "500 10 11 11",
    "13 10 501 502",
  );
  const helpers = proven(tree, [503]).steps
    .flatMap((step) =>
      step.kind === "fork" && step.role === "helper" ? [step.child] : []
    );
  assertEquals(helpers.toSorted(), [501, 502, 504]);
});

Deno.test("a zombie leads its session until all are born", () => {
  const tree = readTree("10 0 10 10", "11 10 11 11 dead", "12 10 11 11");
  assertEquals(showSteps(proven(tree).steps), [
    "10: fork 11",
    "10: setsid",
    "11: setsid",
    "11: fork helper 500",
    "500: fork 12",
    "10: subreaper on",
    "500: end",
    "11: reap 500",
    "10: subreaper off",
    "10: memory",
    "12: memory",
    "11: die",
  ]);
});

Deno.test("zombies are members of sessions and groups, and lead groups", () => {
  for (
    const tree of [
      ["10 0 10 10", "11 10 40 40 dead"],
      ["10 0 10 10", "11 10 10 11 dead", "12 10 10 11"],
      ["10 0 10 10", "11 10 10 40 dead"],
      ["10 0 10 10", "11 10 10 11", "12 11 10 11 dead"],
      ["10 0 10 10", "11 10 10 12", "12 10 10 11 dead"],
      ["10 0 0 0", "11 10 11 11 dead", "12 10 11 12 dead", "13 10 11 12"],
      ["10 0 0 0 dead"],
    ]
  ) proven(readTree(...tree));
});

Deno.test("an heir is forked when its parent's memory is rebuilt, others before", () => {
  const tree = readTree(
    "10 0 10 10",
    "11 10 10 10 heir",
    "12 10 10 10",
    "13 11 10 10 heir",
  );
  const { steps, inheriting } = proven(tree);
  assertEquals(showSteps(steps), [
    "10: setsid",
    "10: fork 12",
    "10: memory",
    "10: fork 11",
    "11: memory",
    "11: fork 13",
    "12: memory",
    "13: memory",
  ]);
  assertEquals([...inheriting], [11, 13]);
});

Deno.test("an heir in the former session of its parent needs the memory before setsid", () => {
  const tree = readTree(
    "10 0 10 10",
    "11 10 0 0 heir",
    "12 10 10 10",
    "13 10 10 10 heir",
    "14 10 14 14 heir",
  );
  assertEquals(
    showSteps(proven(tree).steps).filter((step) => step.startsWith("10:")),
    [
      "10: memory",
      "10: fork 11",
      "10: setsid",
      "10: fork 12",
      "10: fork 13",
      "10: fork 14",
    ],
  );
});

Deno.test("the adopted and the dead do not inherit, the children of heirs may", () => {
  const tree = readTree(
    "10 0 10 10",
    "11 10 40 40 heir",
    "12 11 40 40 heir",
    "13 10 10 10 dead heir",
  );
  assertEquals([...proven(tree).inheriting], [12]);
});

Deno.test("what cannot be born is told with process, session and leader", () => {
  for (
    const [problem, ...tree] of [
      [
        "process 13: it is in session 11, whose leader 11 is no descendant of " +
        "12, and its ancestor 12 never was in that session, but in 10",
        "10 0 10 10",
        "11 10 11 11",
        "12 10 10 10",
        "13 12 11 11",
      ],
      [
        "process 14: it is in session 40, whose leader 40 is gone, and its " +
        "ancestor 13 never was in that session, but in 10",
        "10 0 10 10",
        "11 10 10 10",
        "12 10 40 40",
        "13 10 10 10",
        "14 13 40 40",
        "15 11 40 40",
      ],
      [
        "process 12: it is in the session of the outside, and its ancestor 11 " +
        "never was in that session, but in 10",
        "10 0 10 10",
        "11 10 10 10",
        "12 11 0 0",
      ],
      [
        "process 14: it is in session 13, whose leader 13 is no descendant of " +
        "11, and its ancestor 11 never was in that session, but in 10",
        "10 0 10 10",
        "11 10 11 11",
        "12 11 10 10",
        "13 10 13 13",
        "14 11 13 13",
      ],
      [
        "process 11: it is a child of 10, but has to be born from 12, for " +
        "session 12; and that, or its parent, has to be born from it",
        "10 0 10 10",
        "11 10 12 12",
        "12 11 12 12",
      ],
    ]
  ) {
    const planned = plan(readTree(...tree));
    assert("reasons" in planned);
    const told = planned.reasons.map(({ object, why }) => `${object}: ${why}`);
    assert(told.some((reason) => reason.startsWith(problem)), told.join("\n"));
  }
});

Deno.test("ten thousand processes are planned at once, in any shape", () => {
  const count = 10_000;
  const shapes: Record<string, (pid: number) => string> = {
    wide: (pid) => `${pid} 10 10 ${pid}`,
    deep: (pid) => `${pid} ${pid - 1} 10 10 heir`,
    "deep, each a session": (pid) => `${pid} ${pid - 1} ${pid} ${pid}`,
    "deep, each in a session that is gone": (pid) =>
      `${pid} ${pid - 1} ${pid + count} ${pid + count}`,
    "deep, below members of one that is gone": (pid) =>
      pid % 2 === 0
        ? `${pid} ${pid - 1} ${pid} ${pid}`
        : `${pid} ${pid - 1} 5 5`,
    "wide, each in a session that is gone": (pid) =>
      `${pid} 10 ${pid + count} ${pid + count}`,
    "wide, in groups that are gone": (pid) =>
      `${pid} 10 10 ${(pid >> 2) + 2 * count}`,
    "groups in a circle": (pid) =>
      `${pid} 10 10 ${pid === 10 + count ? 11 : pid + 1}`,
  };
  for (const [name, shape] of Object.entries(shapes)) {
    const pids = Array.from({ length: count }, (_, i) => 11 + i);
    const tree = readTree("10 0 10 10", ...pids.map(shape));
    const start = performance.now();
    let spare = 100_000;
    const planned = planBirths(tree, {
      takenIds: new Set(),
      sparePid: () => spare++,
    });
    const took = performance.now() - start;
    assert("births" in planned, name);
    // Some 50 ms; what grows with the square takes many seconds.
    assert(took < 2000, `${name}: ${took} ms`);
  }
});

Deno.test("a chain of ten thousand is made by its steps", () => {
  const pids = Array.from({ length: 10_000 }, (_, i) => 1000 + i);
  proven(readTree(
    "999 0 999 999",
    ...pids.map((pid) => `${pid} ${pid - 1} ${pid} ${pid} heir`),
  ));
});

/** What a random program leaves behind; the same for the same seed. */
function leftBehind(seed: number, fickle: boolean): TreeProcess[] {
  const random = seededRandom(seed);
  return randomTree(random, {
    events: 1 + Math.floor(random() * 120),
    fickle,
    deaths: 0.05 + random() * 0.25,
  }).tree;
}

Deno.test("whatever programs leave behind is made again, process by process", () => {
  for (let seed = 1; seed <= 4000; seed++) {
    const tree = leftBehind(seed, false);
    try {
      proven(tree);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
  }
});

Deno.test("subreapers that cease to be ones make trees that are rarely refused", () => {
  let refused = 0;
  const count = 4000;
  for (let seed = 1; seed <= count; seed++) {
    const tree = leftBehind(seed, true);
    const planned = plan(tree);
    if ("births" in planned) proven(tree);
    else {
      assert(planned.reasons.length > 0, `seed ${seed}`);
      refused++;
    }
  }
  // A parent that was no subreaper any more when the leader of an adopted
  // child's session lost its own parent: the leader went past it.
  assertEquals(refused, 1);
});

Deno.test("any tree at all is made exactly, or refused with a reason", () => {
  const random = seededRandom(17);
  let made = 0;
  for (let round = 0; round < 20_000; round++) {
    const below = (n: number) => Math.floor(random() * n);
    const ids = [0, 10, 11, 12, 13, 14, 15, 40, 41];
    const any = () => ids[below(ids.length)];
    const tree = readTree(
      random() < 0.5 ? "10 0 10 10" : "10 0 0 0",
      ...Array.from({ length: 1 + below(5) }, (_, i) => {
        const pid = 11 + i;
        const sid = random() < 0.3 ? pid : any();
        const pgid = sid === pid || random() < 0.3 ? sid : any();
        const words = ["", " heir", " dead", " stopped"];
        return `${pid} ${10 + below(i + 1)} ${sid} ${pgid}${words[below(4)]}`;
      }),
    );
    const planned = plan(tree);
    if ("reasons" in planned) assert(planned.reasons.length > 0);
    else {
      proven(tree);
      made++;
    }
  }
  assert(made > 1000, `${made} made`);
});
