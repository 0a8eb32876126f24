import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import type { posix_timer_entry, siginfo_entry } from "../image/schema.gen.ts";
import { readTimers } from "../proc/read.ts";
import {
  countableExpiries,
  countExpiries,
  returnExpiries,
  withOverruns,
} from "./pending_expiries.ts";
import { readPendingSignals, timerExpiry } from "./pending_signals.ts";
import {
  armTimer,
  askPosixTimers,
  clockNow,
  restorePosixTimers,
  signalMask,
} from "./posix_timers.ts";
import { AgentTask } from "./testing/agent_task.ts";

const SECOND = 1_000_000_000n;
const INTERVAL = 1000n;

function timer(
  it_id: number,
  other: Partial<posix_timer_entry> = {},
): posix_timer_entry {
  return {
    it_id,
    clock_id: 0,
    si_signo: 40 + it_id,
    it_sigev_notify: 0,
    sival_ptr: 4711n,
    overrun: 0,
    isec: INTERVAL,
    insec: 0n,
    vsec: 0n,
    vnsec: 0n,
    notify_thread_id: undefined,
    ...other,
  };
}

function expiryOf(id: number, signal: number): siginfo_entry {
  const siginfo = new Uint8Array(128);
  const view = new DataView(siginfo.buffer);
  view.setInt32(0, signal, true);
  view.setInt32(8, -2, true);
  view.setInt32(16, id, true);
  return { siginfo };
}

function queues(task: AgentTask): [siginfo_entry[], siginfo_entry[]] {
  const { shdPnd, sigPnd } = task.status;
  return [
    readPendingSignals(task.pid, true, shdPnd),
    readPendingSignals(task.pid, false, sigPnd),
  ];
}

function ask(task: AgentTask): posix_timer_entry[] {
  const program = new Program();
  const read = askPosixTimers(program, readTimers(task.pid), (tid) => tid);
  return read(task.run(program)).timers;
}

/** What the task is delivered, as the program would be. */
function deliver(task: AgentTask, signal: number) {
  const program = new Program();
  const info = program.reserve(128);
  program.call(
    "rt_sigtimedwait",
    [signalMask(program, signal), info, program.words([0, 0]), 8],
    "taking the expiry",
  );
  const view = task.run(program).data(info);
  return timerExpiry(
    new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice(),
  );
}

Deno.test("expiries that wait are counted, and the process is as it was", () => {
  using task = new AgentTask();
  const timers = [
    timer(0),
    timer(1, { it_sigev_notify: 4, notify_thread_id: task.pid }),
  ];
  const setup = new Program();
  restorePosixTimers(setup, timers, {
    exactIds: false,
    pid: task.pid,
    now: clockNow,
    pending: [],
  });
  // Seven and three and a half intervals ago.
  const ago = (halves: bigint) => clockNow(0) - halves * INTERVAL * SECOND / 2n;
  armTimer(setup, timers[0], ago(15n), true);
  armTimer(setup, timers[1], ago(7n), true);
  task.run(setup);

  const [shared, own] = queues(task);
  const before = ask(task);
  assertEquals(before.map(({ overrun }) => overrun), [0, 0]);
  const countable = countableExpiries(before, shared, own, task.pid);
  assertEquals(countable, before);

  const first = new Program();
  const read = countExpiries(first, countable);
  const counted = read(task.run(first));
  assertEquals(counted.map(({ overrun }) => overrun), [7, 3]);
  assertEquals(
    withOverruns(shared, counted).map(({ siginfo }) =>
      timerExpiry(siginfo)?.overrun
    ),
    [7],
  );
  // If ckpt ended here, the expiries would be delivered all the same.
  const copies = queues(task).map((queue) =>
    queue.map(({ siginfo }) => timerExpiry(siginfo))
  );
  assertEquals(copies, [
    [{ signal: 40, timerId: 0, overrun: 7 }],
    [{ signal: 41, timerId: 1, overrun: 3 }],
  ]);

  const second = new Program();
  returnExpiries(second, counted);
  task.run(second);
  assertEquals(queues(task), [shared, own]);
  const after = ask(task);
  after.forEach((entry, i) => {
    const left = entry.vsec * SECOND + entry.vnsec;
    const was = before[i].vsec * SECOND + before[i].vnsec;
    assert(left <= was + SECOND && left > was - 60n * SECOND);
    assertEquals(entry.overrun, 0);
  });
  assertEquals(deliver(task, 40), { signal: 40, timerId: 0, overrun: 7 });
  assertEquals(deliver(task, 41), { signal: 41, timerId: 1, overrun: 3 });
  assertEquals(ask(task).map(({ overrun }) => overrun), [7, 3]);
});

Deno.test("an expiry whose timer was armed anew is left to the kernel", () => {
  using task = new AgentTask();
  const setup = new Program();
  restorePosixTimers(setup, [timer(0)], {
    exactIds: false,
    pid: task.pid,
    now: clockNow,
    pending: [],
  });
  armTimer(setup, timer(0), clockNow(0) - SECOND, true);
  armTimer(setup, timer(0), 500n * SECOND, false);
  task.run(setup);
  const [shared, own] = queues(task);
  const countable = countableExpiries(ask(task), shared, own, task.pid);
  const program = new Program();
  const read = countExpiries(program, countable);
  const counted = read(task.run(program));
  // Linux 6.13 and later drop it, older ones deliver it.
  const left = queues(task)[0].length;
  assertEquals(left, counted.length);
  const second = new Program();
  returnExpiries(second, counted);
  task.run(second);
  assertEquals(queues(task)[0].length, left);
});

Deno.test("only an expiry that is alone of its number is counted", () => {
  const one = [expiryOf(0, 40)];
  const count = (
    of: posix_timer_entry,
    shared = one,
    leaders: siginfo_entry[] = [],
  ) => countableExpiries([of], shared, leaders, 100).length;
  assertEquals(count(timer(0)), 1);
  assertEquals(count(timer(0), [...one, expiryOf(9, 41)]), 1);
  assertEquals(count(timer(0), []), 0);
  assertEquals(count(timer(0), [...one, ...one]), 0);
  assertEquals(count(timer(0), one, one), 0);
  assertEquals(count(timer(0), [expiryOf(1, 40)]), 0);
  assertEquals(count(timer(0, { overrun: 1 })), 0);
  assertEquals(count(timer(0, { isec: 0n })), 0);
  assertEquals(count(timer(0, { clock_id: -6 >>> 0 })), 0);
  assertEquals(count(timer(0, { it_sigev_notify: 1 })), 0);
  const thread = { it_sigev_notify: 4 };
  assertEquals(count(timer(0, { ...thread, notify_thread_id: 100 })), 1);
  assertEquals(count(timer(0, { ...thread, notify_thread_id: 101 })), 0);
  for (const si_signo of [9, 18, 20, 22]) {
    assertEquals(count(timer(0, { si_signo }), [expiryOf(0, si_signo)]), 0);
  }
});
