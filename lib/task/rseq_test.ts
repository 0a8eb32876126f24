import { assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { readThreads } from "../ffi/thread_state.ts";
import {
  afterCriticalSection,
  criticalSectionPointer,
  restoreRseq,
  rseqEntry,
} from "./rseq.ts";
import { AgentTask } from "./testing/agent_task.ts";

const START = 0x1000n;
const LENGTH = 0x20n;
const ABORT = 0x2000n;

function section(flags = 0): Uint8Array {
  const words = new BigUint64Array([
    BigInt(flags) << 32n,
    START,
    LENGTH,
    ABORT,
  ]);
  return new Uint8Array(words.buffer);
}

const CASES: [what: string, ip: bigint, after: bigint][] = [
  ["in front of the section", START - 1n, START - 1n],
  ["at its beginning", START, ABORT],
  ["at its last byte", START + LENGTH - 1n, ABORT],
  ["behind it", START + LENGTH, START + LENGTH],
  ["at the abort handler", ABORT, ABORT],
  ["at 0", 0n, 0n],
];
for (const [what, ip, after] of CASES) {
  Deno.test(`a thread ${what} goes on at 0x${after.toString(16)}`, () => {
    assertEquals(afterCriticalSection(ip, section()), {
      ip: after,
      stays: false,
    });
  });
}

Deno.test("a section that is not to be restarted for signals is not left", () => {
  assertEquals(afterCriticalSection(START, section(2)), {
    ip: START,
    stays: true,
  });
});

Deno.test("the section's address is the second word of the area", () => {
  const area = new Uint8Array(new BigUint64Array([1n, 0x1234n]).buffer);
  assertEquals(criticalSectionPointer(area), 0x1234n);
});

Deno.test("a thread without registration has no entry", () => {
  const none = { pointer: 0n, size: 0, signature: 0, flags: 0 };
  assertEquals(rseqEntry(none), undefined);
  const program = new Program();
  restoreRseq(program, {
    rseq_abi_pointer: 0n,
    rseq_abi_size: 0,
    signature: 0,
  });
  assertEquals(program.operationCount, 0);
});

Deno.test("the kernel has the registration again, with its size and signature", () => {
  using task = new AgentTask();
  const entry = {
    rseq_abi_pointer: task.scratch,
    rseq_abi_size: 32,
    signature: 0x53053053,
    rseq_cs_pointer: undefined,
  };
  const program = new Program();
  restoreRseq(program, entry);
  task.run(program);
  const [state] = readThreads(Int32Array.of(task.pid));
  assertEquals(rseqEntry(state.rseq), entry);
});
