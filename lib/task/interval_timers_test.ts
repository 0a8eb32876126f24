import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import {
  askIntervalTimers,
  intervalTimerProblems,
  type IntervalTimers,
  restoreIntervalTimers,
} from "./interval_timers.ts";
import { AgentTask } from "./testing/agent_task.ts";

const OFF = { isec: 0n, iusec: 0n, vsec: 0n, vusec: 0n };

function restored(timers: IntervalTimers): IntervalTimers {
  using task = new AgentTask();
  const program = new Program();
  restoreIntervalTimers(program, timers);
  const ask = askIntervalTimers(program);
  return ask(task.run(program));
}

function isJustBelow(left: bigint, set: bigint): boolean {
  // Virtual timers are counted in clock ticks, of at most 10 ms, one of which
  // the kernel adds.
  return left <= set + 10_000n && left > set - 30_000_000n;
}

function us(seconds: bigint, microseconds: bigint): bigint {
  return seconds * 1_000_000n + microseconds;
}

Deno.test("a task gets its interval timers, with the time that was left", () => {
  const timers = {
    real: { isec: 100n, iusec: 7n, vsec: 3000n, vusec: 999_999n },
    virt: { isec: 0n, iusec: 0n, vsec: 2000n, vusec: 500_000n },
    prof: { isec: 300n, iusec: 0n, vsec: 299n, vusec: 20_000n },
  };
  const got = restored(timers);
  for (const field of ["real", "virt", "prof"] as const) {
    assertEquals(got[field].isec, timers[field].isec, field);
    assertEquals(got[field].iusec, timers[field].iusec, field);
    const left = us(got[field].vsec, got[field].vusec);
    const set = us(timers[field].vsec, timers[field].vusec);
    assert(isJustBelow(left, set), `${field}: ${left} of ${set} us left`);
  }
});

Deno.test("timers that were not armed stay so", () => {
  const timers = { real: OFF, virt: OFF, prof: OFF };
  assertEquals(restored(timers), timers);
});

Deno.test("an interval timer whose expiry is pending starts its next period", () => {
  const { real } = restored({
    real: { ...OFF, isec: 5000n, iusec: 3n },
    virt: OFF,
    prof: OFF,
  });
  assertEquals([real.isec, real.iusec], [5000n, 3n]);
  assert(isJustBelow(us(real.vsec, real.vusec), us(5000n, 3n)));
});

Deno.test("a time of a million microseconds or beyond the clock is refused", () => {
  const bad = [
    { ...OFF, iusec: 1_000_000n },
    { ...OFF, vusec: 1_000_000n },
    { ...OFF, isec: 2n ** 63n },
    { ...OFF, vsec: 2n ** 64n - 1n },
  ];
  for (const timer of bad) {
    const timers = { real: OFF, virt: timer, prof: OFF };
    const [problem, ...more] = intervalTimerProblems(timers, "tc.timers");
    assertEquals(problem.object, "tc.timers.virt");
    assertEquals(more, []);
  }
  const most = { ...OFF, vusec: 999_999n };
  assertEquals(
    intervalTimerProblems({ real: most, virt: most, prof: OFF }, "t"),
    [],
  );
});
