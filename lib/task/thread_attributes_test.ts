import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { Program } from "../ffi/program.ts";
import { readComm, readTimerslackNs } from "../proc/read.ts";
import {
  askThread,
  dumpThreadExtension,
  readIoPriority,
  restoreParentDeathSignal,
  restoreRobustList,
  restoreThreadExtension,
  restoreThreadName,
  restoreTidAddress,
  syscallUserDispatch,
  THREAD_QUESTIONS,
  threadAttributeProblems,
} from "./thread_attributes.ts";
import { readThreads } from "../ffi/thread_state.ts";
import { AgentTask } from "./testing/agent_task.ts";

const CORE = { futex_rla: 0n, futex_rla_len: 0 };

Deno.test("a thread gets its attributes and tells them again", () => {
  using task = new AgentTask();
  const program = new Program();
  restoreTidAddress(program, 0x7000_1234_5670n);
  restoreRobustList(program, {
    futex_rla: 0x7000_4444_0000n,
    futex_rla_len: 24,
  });
  restoreParentDeathSignal(program, { ...CORE, pdeath_sig: 12 });
  const ask = askThread(program);
  const answers = ask(task.run(program));
  assertEquals(answers.tidAddress, 0x7000_1234_5670n);
  assertEquals(answers.parentDeathSignal, 12);
  const [state] = readThreads(Int32Array.of(task.pid));
  assertEquals(state.robustList, 0x7000_4444_0000n);
  assertEquals(state.robustLength, 24);
});

Deno.test("a thread gets a name of any 15 bytes", () => {
  using task = new AgentTask();
  for (const name of ["", "worker", "a name with (\n)", "\udcff\udc80-bytes"]) {
    const program = new Program();
    restoreThreadName(program, name);
    task.run(program);
    assertEquals(readComm(task.pid), name);
  }
  const program = new Program();
  restoreThreadName(program, "longer than fifteen");
  task.run(program);
  assertEquals(readComm(task.pid), "longer than fif");
});

Deno.test("what CRIU's format cannot hold is saved and restored", () => {
  const read = (task: AgentTask) => {
    const program = new Program();
    const ask = askThread(program);
    return dumpThreadExtension(ask(task.run(program)), {
      tid: 1,
      timerSlackNs: readTimerslackNs(task.pid),
      ioPriority: readIoPriority(task.pid),
      taskFlags: 0,
    });
  };
  using task = new AgentTask();
  const wanted = {
    tid: 1,
    timer_slack_ns: 123_456n,
    io_priority: 2 << 13 | 7,
    tsc_mode: 2,
    machine_check_kill: 1,
  };
  const program = new Program();
  restoreThreadExtension(program, wanted);
  task.run(program);
  assertEquals(read(task), wanted);

  const defaults = new Program();
  restoreThreadExtension(defaults, { tid: 1, tsc_mode: 1 });
  task.run(defaults);
  assertEquals(read(task), { tid: 1 });
});

Deno.test("a thread that flushes I/O is known by its flags", () => {
  using task = new AgentTask();
  const program = new Program();
  const ask = askThread(program);
  const answers = ask(task.run(program));
  const flusher = (taskFlags: number) =>
    dumpThreadExtension(answers, {
      tid: 1,
      timerSlackNs: 0n,
      ioPriority: 0,
      taskFlags,
    }).io_flusher;
  assertEquals(flusher(0x0018_0000), true);
  assertEquals(flusher(0x7fff_ffff), true);
  assertEquals(flusher(0x0008_0000), undefined);
  assertEquals(flusher(0x0040_0040), undefined);
});

Deno.test("speculation controls are saved where they can be set and differ", () => {
  using task = new AgentTask();
  const program = new Program();
  const ask = askThread(program);
  const answers = ask(task.run(program));
  const saved = (...speculation: (number | undefined)[]) =>
    dumpThreadExtension({ ...answers, speculation }, {
      tid: 1,
      timerSlackNs: 0n,
      ioPriority: 0,
      taskFlags: 0,
    });
  assertEquals(saved(undefined, undefined, undefined), { tid: 1 });
  assertEquals(saved(2, 4, 8), { tid: 1 });
  assertEquals(saved(3, 3, 5), { tid: 1 });
  assertEquals(saved(5, 9, 3), {
    tid: 1,
    speculation_store_bypass: 4,
    speculation_indirect_branch: 8,
    speculation_l1d_flush: 2,
  });
});

Deno.test("single calls ask the same as a program", () => {
  using task = new AgentTask();
  const { calls, scratchLength, read } = THREAD_QUESTIONS;
  const program = new Program();
  restoreTidAddress(program, 0x7000_1234_5670n);
  const scratch = program.reserve(scratchLength);
  const results = calls.map(({ name, args }) =>
    program.call(
      name,
      args.map((argument) =>
        typeof argument === "object"
          ? program.at(scratch, argument.scratch)
          : argument
      ),
      "asking",
      { mayFail: true },
    )
  );
  const outcome = task.run(program);
  const single = read(
    results.map((result) => outcome.result(result)),
    outcome.data(scratch),
  );
  const whole = new Program();
  const ask = askThread(whole);
  assertEquals(single, ask(task.run(whole)));
  assertEquals(single.tidAddress, 0x7000_1234_5670n);
});

Deno.test("a question that fails is named", () => {
  const { calls, read } = THREAD_QUESTIONS;
  const results = calls.map(() => 0n);
  results[1] = -22n;
  const error = assertThrows(
    () => read(results, new DataView(new ArrayBuffer(48))),
    CkptError,
  );
  assertEquals(error.reasons.map(({ object, why }) => [object, why]), [[
    "the address cleared at its end",
    "EINVAL (invalid argument)",
  ]]);
});

Deno.test("system call dispatch is laid out as the kernel takes it", () => {
  assertEquals(syscallUserDispatch({ tid: 1 }), undefined);
  const config = syscallUserDispatch({
    tid: 1,
    sud_mode: 1n,
    sud_selector: 2n,
    sud_offset: 3n,
    sud_len: 4n,
  });
  assertEquals(
    new BigUint64Array(config!.buffer),
    BigUint64Array.of(1n, 2n, 3n, 4n),
  );
});

Deno.test("a parent-death signal beyond 64 is refused", () => {
  assertEquals(threadAttributeProblems({ ...CORE, pdeath_sig: 64 }, "x"), []);
  assertEquals(
    threadAttributeProblems({ ...CORE, pdeath_sig: 65 }, "x").length,
    1,
  );
});
