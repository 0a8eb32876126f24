import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { O } from "../ffi/syscall.ts";
import { fd_types } from "../image/schema.gen.ts";
import { readFdInfo } from "../proc/read.ts";
import { clockNow } from "../task/posix_timers.ts";
import { NO_OWNER } from "./file_table.ts";
import { withRestored } from "./testing/restored_task.ts";
import {
  dumpTimerfd,
  parseTimerfd,
  type Timerfd,
  timerfdProblem,
  waitsForRead,
} from "./timerfd.ts";

const SECOND = 1_000_000_000n;
const ABSOLUTE = 1;
const CANCEL_ON_SET = 2;

const IDLE: Timerfd = {
  kind: "timerfd",
  clock: 1,
  ticks: 0n,
  settimeFlags: 0,
  left: 0n,
  interval: 0n,
};

Deno.test("a timerfd is read from what fdinfo tells", () => {
  const lines = [
    "clockid: 0",
    "ticks: 18446744073709551615",
    "settime flags: 03",
    "it_value: (99, 516859853)",
    "it_interval: (0, 5)",
  ];
  assertEquals(parseTimerfd(lines), {
    kind: "timerfd",
    clock: 0,
    ticks: 2n ** 64n - 1n,
    settimeFlags: 3,
    left: 99_516_859_853n,
    interval: 5n,
  });
  for (const { length } of lines.map((_, i) => ({ length: i }))) {
    assertThrows(() => parseTimerfd(lines.slice(0, length)), CkptError);
  }
});

Deno.test("only one that has expired and repeats waits for a read", () => {
  const cases: [Partial<Timerfd>, boolean][] = [
    [{}, false],
    [{ ticks: 1n }, false],
    [{ ticks: 1n, interval: 5n }, true],
    [{ ticks: 1n, interval: 5n, left: 2n }, false],
    [{ interval: 5n }, false],
  ];
  for (const [part, waits] of cases) {
    assertEquals(waitsForRead({ ...IDLE, ...part }), waits);
  }
});

Deno.test("what timerfd_settime would not take is a problem", () => {
  const entry = dumpTimerfd(1, IDLE, O.RDWR, NO_OWNER);
  assertEquals(timerfdProblem(entry), undefined);
  for (
    const part of [
      { clockid: 2 },
      { clockid: 11 },
      { vnsec: SECOND },
      { insec: SECOND },
      { vsec: 2n ** 63n / SECOND + 1n },
      { isec: 2n ** 64n - 1n },
      { settime_flags: 4 },
    ]
  ) {
    assertEquals(typeof timerfdProblem({ ...entry, ...part }), "string");
  }
});

Deno.test("timerfds are restored with clock, time left, expiries and flags", () => {
  const timers: Timerfd[] = [0, 1, 7, 8, 9].flatMap((clock) =>
    [
      {},
      { left: 1000n * SECOND },
      { left: 1000n * SECOND, interval: 7n * SECOND + 5n, ticks: 3n },
      { left: 1000n * SECOND, settimeFlags: ABSOLUTE },
      { ticks: 1n, settimeFlags: ABSOLUTE },
      { interval: 3n * SECOND },
      ...(clock === 0
        ? [{
          left: 500n * SECOND,
          settimeFlags: ABSOLUTE | CANCEL_ON_SET,
        }]
        : []),
    ].map((part) => ({ ...IDLE, clock, ...part }))
  );
  const files = timers.map((timer, i) => ({
    type: fd_types.TIMERFD,
    id: i + 1,
    tfd: dumpTimerfd(
      i + 1,
      timer,
      i % 2 ? O.RDWR | O.NONBLOCK : O.RDWR,
      NO_OWNER,
    ),
  }));
  withRestored(
    files,
    [Object.fromEntries(files.map(({ id }) => [id + 2, id]))],
    ([pid]) => {
      timers.forEach((timer, i) => {
        const info = readFdInfo(pid, i + 3);
        const { left, ...rest } = parseTimerfd(info.extra);
        const { left: wanted, ...expected } = timer;
        assertEquals(rest, expected);
        assert(
          left <= wanted && left > wanted - 20n * SECOND || left === wanted,
          `${left} ns are left, not ${wanted}`,
        );
        assertEquals(info.flags, files[i].tfd.flags);
      });
    },
    { now: clockNow },
  );
});

Deno.test("one that waited for a read goes on with a whole interval", () => {
  const timer = { ...IDLE, ticks: 4n, interval: 100n * SECOND };
  const tfd = dumpTimerfd(1, timer, O.RDWR, NO_OWNER);
  withRestored(
    [{ type: fd_types.TIMERFD, id: 1, tfd }],
    [{ 5: 1 }],
    ([pid]) => {
      const { left, ticks } = parseTimerfd(readFdInfo(pid, 5).extra);
      assertEquals(ticks, 4n);
      assert(
        left > 80n * SECOND && left <= 100n * SECOND,
        `${left} ns are left`,
      );
    },
  );
});

Deno.test("a timer that two processes have is set once", () => {
  const tfd = dumpTimerfd(1, { ...IDLE, ticks: 2n }, O.RDWR, NO_OWNER);
  withRestored(
    [{ type: fd_types.TIMERFD, id: 1, tfd }],
    [{ 5: 1 }, { 6: 1 }],
    ([one, two]) => {
      assertEquals(parseTimerfd(readFdInfo(one, 5).extra).ticks, 2n);
      assertEquals(parseTimerfd(readFdInfo(two, 6).extra).ticks, 2n);
    },
  );
});
