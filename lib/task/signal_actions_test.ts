import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import type { sa_entry } from "../image/schema.gen.ts";
import {
  askSignalActions,
  restoreSignalActions,
  signalActionProblems,
  SIGNALS_WITH_ACTION,
} from "./signal_actions.ts";
import { AgentTask } from "./testing/agent_task.ts";

const NONE: sa_entry = { sigaction: 0n, flags: 0n, restorer: 0n, mask: 0n };
const SA_RESTORER = 0x04000000n;

Deno.test("62 signals have an action, all but SIGKILL and SIGSTOP", () => {
  assertEquals(SIGNALS_WITH_ACTION.length, 62);
  assertEquals(SIGNALS_WITH_ACTION[0], 1);
  assertEquals(SIGNALS_WITH_ACTION[61], 64);
  assertEquals(SIGNALS_WITH_ACTION.includes(9), false);
  assertEquals(SIGNALS_WITH_ACTION.includes(19), false);
});

Deno.test("a task gets and tells again every action, and has none before", () => {
  // SIGKILL (bit 8) and SIGSTOP (bit 18) are never in a mask.
  const maskable = ~(1n << 8n | 1n << 18n) & (1n << 64n) - 1n;
  const actions = SIGNALS_WITH_ACTION.map((signal): sa_entry => {
    switch (signal % 4) {
      case 0:
        return NONE;
      case 1: // ignored, or a flag without a handler
        return signal === 17
          ? { ...NONE, flags: 2n }
          : { ...NONE, sigaction: 1n };
      default:
        return {
          sigaction: 0x7f12_3456_7000n + BigInt(signal),
          // SA_SIGINFO, SA_ONSTACK, SA_RESTART, SA_NODEFER, SA_RESETHAND
          flags: SA_RESTORER |
            [4n, 0x08000000n, 0x10000000n, 0x40000000n, 0x80000000n][
              signal % 5
            ],
          restorer: 0x7f65_4321_0000n + BigInt(signal),
          mask: (0x9e37_79b9_7f4a_7c15n * BigInt(signal)) & maskable,
        };
    }
  });
  using task = new AgentTask();
  const fresh = new Program();
  const before = askSignalActions(fresh);
  assertEquals(
    before(task.run(fresh)),
    SIGNALS_WITH_ACTION.map(() => NONE),
  );
  const program = new Program();
  restoreSignalActions(program, actions);
  const after = askSignalActions(program);
  assertEquals(after(task.run(program)), actions);
});

Deno.test("an image with a wrong number of actions or 32-bit ones is refused", () => {
  const actions = SIGNALS_WITH_ACTION.map(() => NONE);
  assertEquals(signalActionProblems(actions, "core-1.img"), []);
  assertEquals(
    signalActionProblems(actions.slice(1), "core-1.img").map((r) => r.why),
    ["it holds 61 actions, not 62"],
  );
  const compat = actions.with(8, { ...NONE, compat_sigaction: true });
  assertEquals(
    signalActionProblems(compat, "core-1.img").map((r) => [r.object, r.why]),
    [[
      "core-1.img, field tc.sigactions[8]",
      "the action of signal 10 is that of a 32-bit program",
    ]],
  );
});
