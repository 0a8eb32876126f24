import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { AT_FDCWD, O } from "../ffi/syscall.ts";
import type { mm_entry, task_core_entry } from "../image/schema.gen.ts";
import {
  hasCapability,
  readLoginuid,
  readOomScoreAdj,
  readPersonality,
} from "../proc/read.ts";
import {
  askProcess,
  type DumpedProcess,
  dumpProcess,
  parseCoredumpFilter,
  type ProcessExtension,
  processProblems,
  type ProcessReadings,
  restoreDumpable,
  restoreProcess,
} from "./process_attributes.ts";
import { AgentTask } from "./testing/agent_task.ts";

function readings(pid: number): ProcessReadings {
  return {
    personality: readPersonality(pid),
    oomScoreAdj: readOomScoreAdj(pid),
    loginuid: readLoginuid(pid),
    coredumpFilter: parseCoredumpFilter(
      Deno.readTextFileSync(`/proc/${pid}/coredump_filter`),
    ),
  };
}

function dump(task: AgentTask): DumpedProcess {
  const program = new Program();
  const ask = askProcess(program);
  return dumpProcess(ask(task.run(program)), readings(task.pid));
}

const TASK = { personality: 0, sigactions: [] } as unknown as task_core_entry;
const MM = {} as mm_entry;

Deno.test("a process gets its attributes and tells them again", () => {
  using task = new AgentTask();
  const current = readings(task.pid);
  const wanted = {
    task: {
      ...TASK,
      // ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC
      personality: 0x0440000,
      oom_score_adj: current.oomScoreAdj + 5,
      child_subreaper: true,
      membarrier_registration_mask: 1 << 2 | 1 << 4,
    },
    mm: { ...MM, thp_disabled: true },
    extension: { coredump_filter: 0x1f, mdwe: 1 },
    umask: 0o27,
  };
  const program = new Program();
  restoreProcess(program, wanted, current);
  restoreDumpable(program, 0);
  task.run(program);
  const got = dump(task);
  assertEquals(got.task, {
    personality: wanted.task.personality,
    oom_score_adj: wanted.task.oom_score_adj,
    loginuid: undefined,
    child_subreaper: true,
    membarrier_registration_mask: wanted.task.membarrier_registration_mask,
  });
  assertEquals(got.mm, { dumpable: 0, thp_disabled: true });
  assertEquals(got.extension, {
    personality: wanted.task.personality,
    coredump_filter: 0x1f,
    mdwe: 1,
  });
  assertEquals(task.status.umask, 0o27);
});

Deno.test("a process with nothing special stays so", () => {
  using task = new AgentTask();
  const program = new Program();
  const current = readings(task.pid);
  restoreProcess(program, {
    task: { ...TASK, oom_score_adj: current.oomScoreAdj },
    mm: MM,
    extension: undefined,
    umask: undefined,
  }, current);
  restoreDumpable(program, undefined);
  task.run(program);
  const got = dump(task);
  assertEquals(got.extension, {});
  assertEquals(got.mm, { dumpable: 1, thp_disabled: false });
  assertEquals(got.task.child_subreaper, false);
  assertEquals(got.task.membarrier_registration_mask, undefined);
});

Deno.test("the files of /proc are found by a descriptor as well", () => {
  using task = new AgentTask();
  const program = new Program();
  const proc = program.call(
    "openat",
    [AT_FDCWD, program.text("/proc"), O.RDONLY | O.DIRECTORY, 0],
    "opening /proc",
  );
  const current = readings(task.pid);
  const extension: ProcessExtension = { coredump_filter: 0x7 };
  restoreProcess(
    program,
    {
      task: { ...TASK, oom_score_adj: current.oomScoreAdj },
      mm: MM,
      extension,
      umask: undefined,
    },
    current,
    proc,
  );
  task.run(program);
  assertEquals(readings(task.pid).coredumpFilter, 0x7);
});

Deno.test("a dumpable state only the kernel can set becomes the stricter one", () => {
  for (const [saved, restored] of [[0, 0], [1, 1], [2, 0], [7, 0]]) {
    using task = new AgentTask();
    const program = new Program();
    restoreDumpable(program, saved);
    task.run(program);
    assertEquals(dump(task).mm.dumpable, restored);
  }
});

Deno.test("lowering oom_score_adj needs CAP_SYS_RESOURCE", () => {
  const problems = (wanted: number | undefined, has: boolean) =>
    processProblems(
      { ...TASK, oom_score_adj: wanted },
      { oomScoreAdj: 100 },
      has,
      "core",
    ).length;
  assertEquals(problems(100, false), 0);
  assertEquals(problems(101, false), 0);
  assertEquals(problems(99, false), 1);
  assertEquals(problems(undefined, false), 1);
  assertEquals(problems(99, true), 0);
  assertEquals(problems(1001, true), 1);
  assertEquals(problems(-1001, true), 1);
});

Deno.test("lowering oom_score_adj works with CAP_SYS_RESOURCE", {
  ignore: !hasCapability("CAP_SYS_RESOURCE"),
}, () => {
  using task = new AgentTask();
  const current = readings(task.pid);
  const program = new Program();
  restoreProcess(program, {
    task: { ...TASK, oom_score_adj: -1000 },
    mm: MM,
    extension: undefined,
    umask: undefined,
  }, current);
  task.run(program);
  assertEquals(dump(task).task.oom_score_adj, -1000);
});
