import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { Program } from "../ffi/program.ts";
import type { seccomp_entry } from "../image/schema.gen.ts";
import {
  chainOf,
  type Filter,
  isForAllThreads,
  readFilters,
  restoreSeccomp,
  SeccompTable,
} from "./seccomp.ts";
import { AgentTask } from "./testing/agent_task.ts";

const RET_ALLOW = 0x7fff0000;
const RET_USER_NOTIF = 0x7fc00000;

/** Loads a number, which makes filters differ, and returns an action. */
function filter(number: number, flags = 0, action = RET_ALLOW): Filter {
  const code = new Uint8Array(16);
  const view = new DataView(code.buffer);
  view.setUint32(4, number, true); // BPF_LD | BPF_IMM, number
  view.setUint16(8, 0x06, true); // BPF_RET | BPF_K
  view.setUint32(12, action, true);
  return { code, flags };
}

function thread(tid: number, ...filters: Filter[]) {
  return { tid, mode: filters.length > 0 ? 2 : 0, filters };
}

Deno.test("a chain is stored newest first, its thread names the oldest, prev leads to the newer", () => {
  const table = new SeccompTable();
  const [oldest, middle, newest] = [filter(1), filter(2), filter(3)];
  const [fields] = table.addProcess([thread(1, oldest, middle, newest)]);
  assertEquals(fields, { seccomp_mode: 2, seccomp_filter: 2 });
  assertEquals(table.entry.seccomp_filters, [
    { filter: newest.code, flags: 1 },
    { filter: middle.code, flags: 1, prev: 0 },
    { filter: oldest.code, flags: 1, prev: 1 },
  ]);
  assertEquals(
    chainOf(table.entry, 2).map((f) => f.filter),
    [oldest.code, middle.code, newest.code],
  );
});

Deno.test("when all chains of a process are alike only the leader has one", () => {
  const table = new SeccompTable();
  const fields = table.addProcess([1, 2, 3].map((t) => thread(t, filter(9))));
  assertEquals(fields, [{ seccomp_mode: 2, seccomp_filter: 0 }, {}, {}]);
  assertEquals(isForAllThreads(table.entry, fields[0]), true);
});

Deno.test("chains that differ are kept per thread, alike ones are stored once", () => {
  const table = new SeccompTable();
  const common = filter(1);
  const fields = table.addProcess([
    thread(1, common),
    thread(2, common, filter(2)),
    thread(3),
    thread(4, common),
    { tid: 5, mode: 1, filters: [] },
  ]);
  assertEquals(fields, [
    { seccomp_mode: 2, seccomp_filter: 0 },
    { seccomp_mode: 2, seccomp_filter: 2 },
    {},
    { seccomp_mode: 2, seccomp_filter: 0 },
    { seccomp_mode: 1 },
  ]);
  assertEquals(table.entry.seccomp_filters.length, 3);
  assertEquals(isForAllThreads(table.entry, fields[0]), false);
});

Deno.test("threads without seccomp have no fields", () => {
  const table = new SeccompTable();
  assertEquals(table.addProcess([thread(1), thread(2)]), [{}, {}]);
  assertEquals(table.entry.seccomp_filters, []);
});

const BAD: [string, seccomp_entry, number, string][] = [
  ["is not there", { seccomp_filters: [] }, 0, "only 0 filters"],
  [
    "has half an instruction",
    { seccomp_filters: [{ filter: new Uint8Array(12) }] },
    0,
    "12 bytes",
  ],
  ["is empty", { seccomp_filters: [{ filter: new Uint8Array(0) }] }, 0, "0 b"],
  [
    "is longer than the kernel takes",
    { seccomp_filters: [{ filter: new Uint8Array(4097 * 8) }] },
    0,
    "4096",
  ],
  [
    "leads back to itself",
    {
      seccomp_filters: [
        { filter: new Uint8Array(8), prev: 1 },
        { filter: new Uint8Array(8), prev: 0 },
      ],
    },
    0,
    "leads back",
  ],
  [
    "has the flag of a listener",
    { seccomp_filters: [{ filter: new Uint8Array(8), flags: 8 }] },
    0,
    "0x8",
  ],
  [
    "has a chain that is too long",
    {
      seccomp_filters: Array.from({ length: 9 }, (_, i) => ({
        filter: new Uint8Array(4096 * 8),
        ...(i < 8 ? { prev: i + 1 } : {}),
      })),
    },
    0,
    "32768",
  ],
];
for (const [what, table, index, expected] of BAD) {
  Deno.test(`a filter of an image that ${what} is refused`, () => {
    const error = assertThrows(() => chainOf(table, index), CkptError);
    assertEquals(error.exit, EXIT.image);
    assertStringIncludes(error.message, expected);
  });
}

Deno.test("an unknown mode, and filter mode without a filter, are refused", () => {
  const table = { seccomp_filters: [] };
  for (const fields of [{ seccomp_mode: 3 }, { seccomp_mode: 2 }]) {
    const error = assertThrows(
      () => restoreSeccomp(new Program(), table, fields),
      CkptError,
    );
    assertEquals(error.exit, EXIT.image);
  }
});

/** A task with these filters, and what is read back of it. */
function installed(filters: readonly Filter[], all = false): Filter[] {
  const table = new SeccompTable();
  const [fields] = table.addProcess([{ tid: 1, mode: 2, filters }]);
  const program = new Program();
  restoreSeccomp(program, table.entry, fields, all);
  using task = new AgentTask();
  task.run(program);
  assertEquals(task.status.seccomp, 2);
  assertEquals(task.status.seccompFilters, filters.length);
  return readFilters(task.pid, undefined);
}

Deno.test("the kernel has the filters in their order, with their flags", () => {
  const LOG = 2;
  const filters = [filter(1), filter(2, LOG), filter(3)];
  assertEquals(installed(filters), filters);
  assertEquals(installed(filters, true), filters);
});

Deno.test("filters of a thread whose speculation nothing restricts had SPEC_ALLOW", () => {
  const program = new Program();
  const table = new SeccompTable();
  const [fields] = table.addProcess([thread(1, filter(1))]);
  restoreSeccomp(program, table.entry, fields);
  using task = new AgentTask();
  task.run(program);
  assertEquals(readFilters(task.pid, "thread vulnerable"), [filter(1, 4)]);
  assertEquals(readFilters(task.pid, "thread force mitigated"), [filter(1)]);
});

Deno.test("a filter that asks a listener is refused when it is saved", () => {
  const error = assertThrows(
    () => installed([filter(1), filter(2, 0, RET_USER_NOTIF)]),
    CkptError,
  );
  assertEquals(error.exit, EXIT.refused);
  assertStringIncludes(error.message, "filter 1 of thread");
});

Deno.test("strict mode is restored", () => {
  const program = new Program();
  restoreSeccomp(program, { seccomp_filters: [] }, { seccomp_mode: 1 });
  using task = new AgentTask();
  task.run(program);
  assertEquals(task.status.seccomp, 1);
});
