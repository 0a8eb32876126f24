import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { readAuxv, readMaps, readStat } from "../proc/read.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import { askHeapEnd, describeMemory, restoreMemoryMap } from "./memory_map.ts";

/** The kernel keeps the program file for this descriptor. */
const SAME_PROGRAM = 0xffff_ffffn;

function describe(
  pid: number,
  heapEnd: bigint,
  auxv: readonly (readonly [bigint, bigint])[],
) {
  return describeMemory(readStat(pid), heapEnd, auxv, 9, [], 1, false);
}

Deno.test("a task gets another description of its memory, and tells it again", () => {
  using task = new AgentTask();
  const ask = new Program();
  const before = askHeapEnd(ask);
  const heap = before(task.run(ask));
  const mm = describe(task.pid, heap, readAuxv(task.pid));
  assertEquals(mm.mm_start_brk <= mm.mm_brk, true);
  // In the stack, which is where such things are.
  const place = task.scratch;
  const wanted = {
    ...mm,
    mm_start_code: place,
    mm_end_code: place + 0x11n,
    mm_start_data: place + 0x20n,
    mm_end_data: place + 0x33n,
    mm_start_brk: 0x10_0000_0000n,
    mm_brk: 0x10_0000_1230n,
    mm_start_stack: place + 0x100n,
    mm_arg_start: place + 0x200n,
    mm_arg_end: place + 0x20fn,
    mm_env_start: place + 0x210n,
    mm_env_end: place + 0x222n,
    mm_saved_auxv: [6n, 4096n, 3n, place + 64n, 33n, 0x7fff_1234_0000n],
  };
  const program = new Program();
  restoreMemoryMap(program, wanted, SAME_PROGRAM);
  const after = askHeapEnd(program);
  const end = after(task.run(program));
  const stat = readStat(task.pid);
  assertEquals(
    describeMemory(stat, end, readAuxv(task.pid), 9, [], 1, false),
    wanted,
  );
});

Deno.test("the program file is the one whose descriptor is given", () => {
  using task = new AgentTask();
  const ask = new Program();
  const heap = askHeapEnd(ask);
  const mm = describe(task.pid, heap(task.run(ask)), readAuxv(task.pid));
  const own = readMaps(task.pid).filter(({ path }) => path.startsWith("/"));
  assert(own.length > 0, "the agent's own file is mapped");
  const program = new Program();
  const exe = program.call(
    "openat",
    [-100, program.text("/bin/sh"), 0, 0],
    "opening",
  );
  restoreMemoryMap(program, mm, exe);
  // Not while the old program file is mapped: the agent runs in it.
  let failed = "";
  try {
    task.run(program);
  } catch (error) {
    failed = (error as Error).message;
  }
  assertEquals(
    failed,
    `restoring task ${task.pid}: describing the address space ` +
      "(PR_SET_MM_MAP): EBUSY (busy)",
  );
});

Deno.test("the auxiliary vector is saved without its end, and never longer than CRIU reads", () => {
  const stat = readStat(Deno.pid);
  const saved = (auxv: [bigint, bigint][]) =>
    describeMemory(stat, 0n, auxv, 1, [], 1, true).mm_saved_auxv;
  assertEquals(saved([[6n, 4096n], [3n, 64n], [0n, 0n]]), [6n, 4096n, 3n, 64n]);
  const long = Array.from({ length: 30 }, (_, i): [bigint, bigint] => [
    BigInt(i + 1),
    7n,
  ]);
  assertEquals(saved(long).length, 44);
});

Deno.test("the description has what /proc tells", () => {
  const stat = readStat(Deno.pid);
  const mm = describeMemory(stat, 0x1234n, [], 9, [], 2, true);
  assertEquals(mm.mm_start_code, BigInt(stat.startCode));
  assertEquals(mm.mm_end_data, BigInt(stat.endData));
  assertEquals(mm.mm_env_end, BigInt(stat.envEnd));
  assertEquals(mm.mm_brk, 0x1234n);
  assertEquals(
    [mm.exe_file_id, mm.dumpable, mm.thp_disabled, mm.aios],
    [9, 2, true, []],
  );
});
