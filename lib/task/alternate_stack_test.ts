import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { restoreAlternateStack } from "./alternate_stack.ts";
import { AgentTask } from "./testing/agent_task.ts";
import { askThread } from "./thread_attributes.ts";

const SS_ONSTACK = 1;
const SS_DISABLE = 2;
const SS_AUTODISARM = 0x8000_0000;

const AT = { ss_sp: 0x7000_0000_0000n, ss_size: 65536n };

for (
  const [state, flags, restored] of [
    ["a plain one", 0, 0],
    ["one the thread was on", SS_ONSTACK, 0],
    ["one that disarms itself", SS_AUTODISARM, SS_AUTODISARM],
    [
      "one that disarms itself and the thread was on",
      SS_AUTODISARM + SS_ONSTACK,
      SS_AUTODISARM,
    ],
  ] as const
) {
  Deno.test(`a thread gets its alternate stack: ${state}`, () => {
    using task = new AgentTask();
    const program = new Program();
    restoreAlternateStack(program, { ...AT, ss_flags: flags });
    const ask = askThread(program);
    assertEquals(ask(task.run(program)).alternateStack, {
      ...AT,
      ss_flags: restored,
    });
  });
}

Deno.test("a thread without an alternate stack stays without", () => {
  using task = new AgentTask();
  const program = new Program();
  restoreAlternateStack(program, { ...AT, ss_flags: SS_DISABLE });
  const ask = askThread(program);
  assertEquals(ask(task.run(program)).alternateStack, {
    ss_sp: 0n,
    ss_size: 0n,
    ss_flags: SS_DISABLE,
  });
});
