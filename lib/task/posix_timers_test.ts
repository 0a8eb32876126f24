import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import type { posix_timer_entry, siginfo_entry } from "../image/schema.gen.ts";
import { readTimers } from "../proc/read.ts";
import type { PosixTimer } from "../proc/timers.ts";
import { readPendingSignals, timerExpiry } from "./pending_signals.ts";
import {
  askPosixTimers,
  canCreateTimersById,
  clockNow,
  posixTimerProblems,
  restorePosixTimers,
  signalMask,
  timersThatCannotBeSaved,
} from "./posix_timers.ts";
import { AgentTask } from "./testing/agent_task.ts";

const SIGEV_NONE = 1;
const SIGEV_THREAD_ID = 4;
const SIGNAL = 40;
const SECOND = 1_000_000_000n;
/** Longer than any of these tests may take. */
const PATIENCE = 60n * SECOND;

function timer(
  it_id: number,
  other: Partial<posix_timer_entry> = {},
): posix_timer_entry {
  return {
    it_id,
    clock_id: 1,
    si_signo: SIGNAL,
    it_sigev_notify: 0,
    sival_ptr: BigInt(it_id) + 0x1234_0000_0000n,
    overrun: 0,
    isec: 0n,
    insec: 0n,
    vsec: 0n,
    vnsec: 0n,
    notify_thread_id: undefined,
    ...other,
  };
}

function expiryOf(id: number, overrun: number, signal = SIGNAL): siginfo_entry {
  const siginfo = new Uint8Array(128);
  const view = new DataView(siginfo.buffer);
  view.setInt32(0, signal, true);
  view.setInt32(8, -2, true);
  view.setInt32(16, id, true);
  view.setInt32(20, overrun, true);
  return { siginfo };
}

function restore(
  task: AgentTask,
  timers: readonly posix_timer_entry[],
  { exactIds = canCreateTimersById(), pending = [] as siginfo_entry[] } = {},
): siginfo_entry[] {
  const program = new Program();
  const restored = restorePosixTimers(program, timers, {
    exactIds,
    pid: task.pid,
    now: clockNow,
    pending: [pending],
  });
  assertEquals(restored.wrongIds(task.run(program)), []);
  return restored.pending[0];
}

function ask(task: AgentTask): posix_timer_entry[] {
  const program = new Program();
  const read = askPosixTimers(program, readTimers(task.pid), (tid) => tid);
  const { timers, reasons } = read(task.run(program));
  assertEquals(reasons, []);
  return timers;
}

function left({ vsec, vnsec }: posix_timer_entry): bigint {
  return vsec * SECOND + vnsec;
}

/** Compares all but the time left, which may have run on a little. */
function assertSame(
  got: readonly posix_timer_entry[],
  wanted: readonly posix_timer_entry[],
): void {
  const still = (entry: posix_timer_entry) => ({
    ...entry,
    vsec: 0n,
    vnsec: 0n,
  });
  assertEquals(got.map(still), wanted.map(still));
  got.forEach((entry, i) => {
    const [now, then] = [left(entry), left(wanted[i])];
    assert(
      then === 0n ? now === 0n : now <= then && now > then - PATIENCE,
      `timer ${entry.it_id}: ${now} of ${then} ns left`,
    );
  });
}

function assorted(pid: number): posix_timer_entry[] {
  const armed = { isec: 1000n, insec: 7n, vsec: 900n, vnsec: 5n };
  return [
    timer(0, armed),
    timer(3, { ...armed, clock_id: 0, si_signo: 14 }),
    timer(4, { ...armed, clock_id: 7, isec: 0n, insec: 0n }),
    timer(9, { clock_id: 11 }),
    timer(10, { ...armed, it_sigev_notify: SIGEV_NONE }),
    timer(11, {
      ...armed,
      it_sigev_notify: SIGEV_THREAD_ID,
      notify_thread_id: pid,
    }),
    // CPU time of the process and of the thread, as the kernel names them.
    timer(20, { ...armed, clock_id: -6 >>> 0 }),
    timer(21, { ...armed, clock_id: -2 >>> 0 }),
    timer(22, { clock_id: -2 >>> 0, it_sigev_notify: SIGEV_NONE }),
  ];
}

for (const exactIds of canCreateTimersById() ? [true, false] : [false]) {
  const how = exactIds ? "wanted ids" : "counting ids";
  Deno.test(`a task gets its timers again, by ${how}`, () => {
    using task = new AgentTask();
    const timers = assorted(task.pid);
    restore(task, timers, { exactIds });
    assertSame(ask(task), timers);
  });
}

Deno.test("ids far apart are had at once from a kernel that can", {
  ignore: !canCreateTimersById(),
}, () => {
  using task = new AgentTask();
  const timers = [timer(5), timer(0x7fff_fff0)];
  restore(task, timers);
  assertSame(ask(task), timers);
});

for (
  const [name, interval, value] of [
    ["long", 1000n * SECOND, 600n * SECOND],
    ["of a second", SECOND, SECOND / 2n],
    ["of a second, about to expire", SECOND, 1n],
  ] as const
) {
  Deno.test(`the overrun of the last expiry is told again: an interval ${name}`, () => {
    using task = new AgentTask();
    const timers = [3, 4].map((id) =>
      timer(id, {
        clock_id: 0,
        overrun: 7 + id,
        isec: interval / SECOND,
        vsec: value / SECOND,
        vnsec: value % SECOND,
      })
    );
    restore(task, timers);
    const got = ask(task);
    assertEquals(got.map(({ overrun }) => overrun), [10, 11]);
    assertEquals(got.map(({ isec }) => isec), timers.map(({ isec }) => isec));
    for (const entry of got) assert(left(entry) <= interval);
  });
}

Deno.test("a pending expiry goes on counting its overruns", () => {
  using task = new AgentTask();
  const interval = { isec: 1000n, vsec: 500n, clock_id: 0 };
  const timers = [timer(2, interval), timer(5, { ...interval, si_signo: 41 })];
  const other = expiryOf(99, 0, 45);
  const rest = restore(task, timers, {
    pending: [expiryOf(2, 7), other, expiryOf(5, 0, 41)],
  });
  assertEquals(rest, [other]);

  const queued = readPendingSignals(task.pid, true, task.status.shdPnd);
  assertEquals(
    queued.map(({ siginfo }) => timerExpiry(siginfo)?.timerId),
    [2, 5],
  );
  const program = new Program();
  const info = program.reserve(128);
  program.call(
    "rt_sigtimedwait",
    [signalMask(program, SIGNAL), info, program.words([0, 0]), 8],
    "taking the expiry",
  );
  const outcome = task.run(program);
  const siginfo = new Uint8Array(128);
  for (let i = 0; i < 128; i++) siginfo[i] = outcome.data(info).getUint8(i);
  assertEquals(timerExpiry(siginfo), {
    signal: SIGNAL,
    timerId: 2,
    overrun: 7,
  });
  const [first, second] = ask(task);
  assertEquals([first.overrun, second.overrun], [7, 0]);
  for (const entry of [first, second]) {
    assert(
      left(entry) <= 500n * SECOND && left(entry) > 500n * SECOND - PATIENCE,
    );
  }
});

Deno.test("an expiry among others of its number is queued like them", () => {
  using task = new AgentTask();
  const pending = [expiryOf(2, 7), expiryOf(2, 0)];
  const rest = restore(task, [timer(2, { isec: 1000n, vsec: 500n })], {
    pending,
  });
  assertEquals(rest, pending);
  assertEquals(task.status.shdPnd, 0n);
});

Deno.test("a timer on the CPU clock of the leader is not taken for another thread's", () => {
  using task = new AgentTask();
  restore(task, [timer(1, { clock_id: -2 >>> 0, vsec: 100n })]);
  const timers = readTimers(task.pid);
  const program = new Program();
  const read = askPosixTimers(program, timers, (tid) => tid);
  const { timers: [{ vsec, vnsec }], reasons } = read(task.run(program));
  assertEquals(reasons, []);
  assert(vsec * SECOND + vnsec < 100n * SECOND);
});

Deno.test("a timer whose thread has ended notifies nobody", () => {
  using task = new AgentTask();
  restore(task, [timer(1)]);
  const [own] = readTimers(task.pid);
  const program = new Program();
  const orphan: PosixTimer = {
    ...own,
    toThread: true,
    target: 0,
    sigevNotify: SIGEV_THREAD_ID,
  };
  const read = askPosixTimers(program, [orphan], () => -1);
  const [entry] = read(task.run(program)).timers;
  assertEquals(entry.it_sigev_notify, SIGEV_NONE);
  assertEquals(entry.notify_thread_id, undefined);
});

Deno.test("timers on clocks of other processes and of devices are refused", () => {
  const owner = { pid: 100, tids: [100, 101] };
  const cpu = (pid: number, kind: number) => ((~pid) << 3) | kind;
  const [SCHED, PER_THREAD, DEVICE] = [2, 4, 3];
  const clocks: [number, string | undefined][] = [
    [1, undefined],
    [cpu(0, SCHED), undefined],
    [cpu(0, SCHED | PER_THREAD), undefined],
    [cpu(100, SCHED), undefined],
    [cpu(101, SCHED | PER_THREAD), undefined],
    [
      cpu(101, SCHED),
      "its clock is the CPU time of task 101, which is another process",
    ],
    [
      cpu(7, SCHED | PER_THREAD),
      "its clock is the CPU time of task 7, which is another process",
    ],
    [cpu(5, DEVICE), "its clock is that of a device"],
    [5, "clock 5 is not known"],
  ];
  for (const [clockId, why] of clocks) {
    const reasons = timersThatCannotBeSaved([{
      id: 1,
      signal: 14,
      value: 0n,
      notify: "signal",
      toThread: false,
      sigevNotify: 0,
      target: 100,
      clockId,
    }], owner);
    assertEquals(reasons.map((reason) => reason.why), why ? [why] : []);
  }
});

Deno.test("timers of an image that no kernel would take are refused", () => {
  const owner = { pid: 100, tids: [100, 101] };
  const problems = (timers: posix_timer_entry[], exactIds = true) =>
    posixTimerProblems(timers, owner, exactIds, "tc").length;
  assertEquals(problems(assorted(100)), 0);
  assertEquals(problems([timer(30_000)]), 0);
  const bad: posix_timer_entry[][] = [
    [timer(1), timer(1)],
    [timer(0x8000_0000)],
    [timer(1, { insec: SECOND })],
    [timer(1, { vnsec: SECOND })],
    [timer(1, { vsec: 2n ** 63n })],
    [timer(1, { si_signo: 0 })],
    [timer(1, { si_signo: 65 })],
    [timer(1, { it_sigev_notify: 3 })],
    [timer(1, { it_sigev_notify: 4 })],
    [timer(1, { it_sigev_notify: 4, notify_thread_id: 7 })],
    [timer(1, { clock_id: 5 })],
  ];
  for (const timers of bad) assertEquals(problems(timers), 1);
  assertEquals(problems([timer(30_000)], false), 1);
});
