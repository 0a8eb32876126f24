import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { type Limit, RLIM_INFINITY } from "../proc/limits.ts";
import { readLimits } from "../proc/read.ts";
import {
  dumpResourceLimits,
  limitsThatCannotBeRaised,
  resourceLimitProblems,
  restoreResourceLimits,
} from "./resource_limits.ts";
import { AgentTask } from "./testing/agent_task.ts";

function limit(resource: number, soft: bigint, hard: bigint): Limit {
  return { resource, name: `Max ${resource}`, soft, hard, units: "" };
}

Deno.test("a task gets the limits it had, and only those that differ are set", () => {
  using task = new AgentTask();
  const current = readLimits(task.pid);
  const { rlimits } = dumpResourceLimits(current);
  assertEquals(rlimits.length, 16);
  const wanted = rlimits
    .with(4, { cur: 0n, max: rlimits[4].max })
    .with(7, { cur: 77n, max: 1000n })
    .with(15, { cur: 1n, max: 2n });

  const program = new Program();
  restoreResourceLimits(program, wanted, current);
  assertEquals(
    program.operationCount,
    wanted.filter(({ cur, max }, i) =>
      cur !== rlimits[i].cur || max !== rlimits[i].max
    ).length,
  );
  task.run(program);
  assertEquals(dumpResourceLimits(readLimits(task.pid)).rlimits, wanted);
});

Deno.test("a soft limit above the hard one is the hard one", () => {
  using task = new AgentTask();
  const current = readLimits(task.pid);
  const wanted = dumpResourceLimits(current).rlimits
    .with(7, { cur: 900n, max: 500n });
  const program = new Program();
  restoreResourceLimits(program, wanted, current);
  task.run(program);
  assertEquals(dumpResourceLimits(readLimits(task.pid)).rlimits[7], {
    cur: 500n,
    max: 500n,
  });
});

Deno.test("raising a hard limit needs CAP_SYS_RESOURCE, nothing else does", () => {
  const current = [
    limit(0, 10n, 20n),
    limit(1, 10n, 20n),
    limit(2, 10n, 20n),
    limit(3, 10n, RLIM_INFINITY),
    limit(4, 10n, 20n),
  ];
  const wanted = [
    { cur: 20n, max: 20n },
    { cur: 1n, max: 5n },
    { cur: 10n, max: 21n },
    { cur: RLIM_INFINITY, max: RLIM_INFINITY },
    { cur: 10n, max: RLIM_INFINITY },
  ];
  assertEquals(limitsThatCannotBeRaised(wanted, current, true), []);
  assertEquals(
    limitsThatCannotBeRaised(wanted, current, false)
      .map(({ object, why }) => [object, why]),
    [
      [
        'the limit "Max 2"',
        "the program has 21, here at most 20 are allowed",
      ],
      [
        'the limit "Max 4"',
        "the program has unlimited, here at most 20 are allowed",
      ],
    ],
  );
});

Deno.test("fewer limits leave the rest alone, more are refused", () => {
  const current = [limit(0, 1n, 2n), limit(1, 1n, 2n)];
  const program = new Program();
  restoreResourceLimits(program, [], current);
  assertEquals(program.operationCount, 0);
  const three = [0, 1, 2].map(() => ({ cur: 1n, max: 2n }));
  assertEquals(resourceLimitProblems(three.slice(1), current, "tc"), []);
  assertEquals(resourceLimitProblems(three, current, "tc").length, 1);
});
