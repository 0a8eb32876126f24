import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { readThreads, type Scheduling } from "../ffi/thread_state.ts";
import type { thread_core_entry } from "../image/schema.gen.ts";
import {
  dumpAffinity,
  dumpScheduling,
  dumpSchedulingExtension,
  restoreScheduling,
  schedulingImageProblems,
  schedulingProblems,
} from "./scheduling.ts";
import { AgentTask } from "./testing/agent_task.ts";

const CORE: thread_core_entry = { futex_rla: 0n, futex_rla_len: 0 };
const RESET_ON_FORK = 0x40000000;

const PLAIN: Scheduling = {
  policy: 0,
  flags: 0n,
  nice: 0,
  priority: 0,
  runtime: 3_000_000n,
  deadline: 0n,
  period: 0n,
  utilMin: 0,
  utilMax: 1024,
};

for (
  const [name, sched] of [
    ["SCHED_OTHER", { sched_policy: 0, sched_nice: -7, sched_prio: 0 }],
    ["SCHED_FIFO", { sched_policy: 1, sched_nice: 0, sched_prio: 99 }],
    ["SCHED_RR", { sched_policy: 2, sched_nice: 0, sched_prio: 1 }],
    ["SCHED_BATCH", { sched_policy: 3, sched_nice: 19, sched_prio: 0 }],
    ["SCHED_IDLE", { sched_policy: 5, sched_nice: 3, sched_prio: 0 }],
    ["SCHED_BATCH, reset on fork", {
      sched_policy: 3 | RESET_ON_FORK,
      sched_nice: 5,
      sched_prio: 0,
    }],
  ] as const
) {
  Deno.test(`a thread gets its scheduling: ${name}`, () => {
    using task = new AgentTask();
    const core = { ...CORE, ...sched };
    assertEquals(schedulingImageProblems(core, "core"), []);
    const program = new Program();
    restoreScheduling(program, core, undefined);
    task.run(program);
    const [state] = readThreads(Int32Array.of(task.pid));
    assertEquals(dumpScheduling(state.scheduling), sched);
    assertEquals(schedulingProblems(state.scheduling, task.pid), []);
  });
}

Deno.test("a thread gets its processors, and without any in the image all", () => {
  using task = new AgentTask();
  const affinity = () => readThreads(Int32Array.of(task.pid))[0].affinity;
  const set = (wanted?: Uint8Array) => {
    const program = new Program();
    restoreScheduling(program, CORE, { tid: task.pid, affinity: wanted });
    task.run(program);
  };
  set();
  const all = affinity();
  assertEquals(dumpAffinity(all, all), undefined);

  const one = new Uint8Array(all.length);
  const byte = all.findIndex((bits) => bits !== 0);
  one[byte] = all[byte] & -all[byte];
  const several = all.some((bits, i) => bits !== one[i]);
  set(one);
  assertEquals(affinity(), one);
  const saved = dumpAffinity(affinity(), all);
  assertEquals(saved, several ? one.slice(0, byte + 1) : undefined);
  set(saved);
  assertEquals(affinity(), one);
  set();
  assertEquals(affinity(), all);
});

Deno.test("processors are saved only when one that is online is left out", () => {
  const all = Uint8Array.of(0xff, 0x0f, 0);
  const cases: [number[], number[] | undefined][] = [
    [[0xff, 0x0f, 0], undefined],
    [[0xff, 0xff, 0xff], undefined],
    [[0xff, 0x0f], undefined],
    [[0xfe, 0x0f, 0], [0xfe, 0x0f]],
    [[0xff], [0xff]],
    [[1, 0, 0, 0, 0], [1]],
  ];
  for (const [affinity, saved] of cases) {
    assertEquals(
      dumpAffinity(Uint8Array.from(affinity), all),
      saved && Uint8Array.from(saved),
    );
  }
});

Deno.test("a time slice and utilization bounds are saved where they are asked for", () => {
  const nothing = {
    utilization_min: undefined,
    utilization_max: undefined,
    time_slice_ns: undefined,
  };
  const saved = (other: Partial<Scheduling>) =>
    dumpSchedulingExtension({ ...PLAIN, ...other }, PLAIN);
  assertEquals(saved({}), nothing);
  assertEquals(saved({ utilMin: 0, utilMax: 0 }), nothing);
  assertEquals(saved({ policy: 1, runtime: 0n }), nothing);
  assertEquals(saved({ runtime: 100_000n }), {
    ...nothing,
    time_slice_ns: 100_000n,
  });
  assertEquals(saved({ utilMax: 512 }), {
    ...nothing,
    utilization_min: 0,
    utilization_max: 512,
  });
});

Deno.test("a thread gets the time slice it asked for", () => {
  using task = new AgentTask();
  const standard = readThreads(Int32Array.of(task.pid))[0].scheduling;
  const program = new Program();
  restoreScheduling(program, CORE, {
    tid: task.pid,
    time_slice_ns: 7_654_321n,
  });
  task.run(program);
  const [{ scheduling }] = readThreads(Int32Array.of(task.pid));
  // Kernels before 6.12 know no slices and report none.
  assertEquals(
    dumpSchedulingExtension(scheduling, standard).time_slice_ns,
    standard.runtime === 0n ? undefined : 7_654_321n,
  );
});

Deno.test("SCHED_DEADLINE and unknown policies are refused", () => {
  for (const policy of [6, 8]) {
    assertEquals(schedulingProblems({ ...PLAIN, policy }, 12).length, 1);
  }
  const bad: Partial<thread_core_entry>[] = [
    { sched_policy: 6 },
    { sched_policy: 8 },
    { sched_policy: 0x80000000 },
    { sched_nice: -21 },
    { sched_nice: 20 },
    { sched_policy: 0, sched_prio: 1 },
    { sched_policy: 1, sched_prio: 0 },
    { sched_policy: 2, sched_prio: 100 },
  ];
  for (const entry of bad) {
    assertEquals(schedulingImageProblems({ ...CORE, ...entry }, "x").length, 1);
  }
});
