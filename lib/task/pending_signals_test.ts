import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import type { siginfo_entry } from "../image/schema.gen.ts";
import {
  pendingSignal,
  pendingSignalProblems,
  readPendingSignals,
  restoreProcessSignals,
  restoreThreadSignals,
  timerExpiry,
  withUnqueued,
} from "./pending_signals.ts";
import { AgentTask } from "./testing/agent_task.ts";

const SI_USER = 0;
const SI_KERNEL = 0x80;
const SI_QUEUE = -1;
const SI_TIMER = -2;
const SI_TKILL = -6;

function signal(number: number, code: number, fields: number[] = []) {
  const siginfo = new Uint8Array(128);
  const view = new DataView(siginfo.buffer);
  view.setInt32(0, number, true);
  view.setInt32(8, code, true);
  fields.forEach((field, i) => view.setInt32(16 + 4 * i, field, true));
  return { siginfo };
}

function queues(task: AgentTask): {
  shared: siginfo_entry[];
  own: siginfo_entry[];
} {
  const { shdPnd, sigPnd } = task.status;
  return {
    shared: readPendingSignals(task.pid, true, shdPnd),
    own: readPendingSignals(task.pid, false, sigPnd),
  };
}

Deno.test("both queues are restored with sender, code, value and order", () => {
  using task = new AgentTask();
  const shared = [
    signal(35, SI_QUEUE, [4711, 1000, -5]),
    signal(10, SI_USER, [1, 0]),
    signal(35, SI_QUEUE, [4712, 1000, -6]),
    signal(34, SI_TIMER, [3, 7, 99]),
    signal(17, 1, [77, 0, 3]), // CLD_EXITED
    signal(14, SI_KERNEL),
    signal(35, SI_USER, [5, 6]),
  ];
  const own = [
    signal(12, SI_TKILL, [8, 9]),
    signal(11, 1, [0x1000, 0]), // SEGV_MAPERR
    signal(64, SI_QUEUE, [1, 2, 3]),
    signal(64, SI_QUEUE, [1, 2, 4]),
  ];
  const program = new Program();
  restoreProcessSignals(program, shared);
  restoreThreadSignals(program, own);
  task.run(program);
  assertEquals(queues(task), { shared, own });
});

Deno.test("a queue of hundreds of signals is read whole", () => {
  using task = new AgentTask();
  const all = Array.from(
    { length: 300 },
    (_, i) => signal(34 + i % 3, SI_QUEUE, [1, 0, i]),
  );
  for (let at = 0; at < all.length; at += 100) {
    const program = new Program();
    restoreProcessSignals(program, all.slice(at, at + 100));
    task.run(program);
  }
  assertEquals(queues(task), { shared: all, own: [] });
});

Deno.test("what the kernel did not queue is sent by nobody", () => {
  const queued = [signal(35, SI_QUEUE, [1]), signal(2, SI_USER, [1])];
  const bit = (number: number) => 1n << BigInt(number - 1);
  const all = withUnqueued(
    queued.map(({ siginfo }) => siginfo),
    bit(1) | bit(2) | bit(35) | bit(64),
  );
  assertEquals(all, [...queued, signal(1, SI_USER), signal(64, SI_USER)]);
});

Deno.test("an expiry tells its timer, other signals none", () => {
  assertEquals(timerExpiry(signal(34, SI_TIMER, [3, 7]).siginfo), {
    signal: 34,
    timerId: 3,
    overrun: 7,
  });
  assertEquals(timerExpiry(signal(34, SI_QUEUE, [3, 7]).siginfo), undefined);
  assertEquals(pendingSignal(signal(34, SI_QUEUE).siginfo), {
    signal: 34,
    code: SI_QUEUE,
  });
});

Deno.test("a siginfo of another size or of no signal is refused", () => {
  const good = signal(64, SI_USER);
  assertEquals(pendingSignalProblems([good], "tc.signals_s"), []);
  const bad = [
    { siginfo: good.siginfo.subarray(0, 127) },
    { siginfo: new Uint8Array(0) },
    signal(0, SI_USER),
    signal(65, SI_USER),
    signal(-1, SI_USER),
  ];
  const problems = pendingSignalProblems([good, ...bad], "tc.signals_s");
  assertEquals(
    problems.map(({ object }) => object),
    bad.map((_, i) => `tc.signals_s.signals[${i + 1}]`),
  );
});
