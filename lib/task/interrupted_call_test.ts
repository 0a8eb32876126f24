import { assertEquals, assertStrictEquals } from "@std/assert";
import { FrozenProcess } from "../ffi/frozen_process.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { readThreads } from "../ffi/thread_state.ts";
import {
  CODE_LENGTH,
  type HandlerToCome,
  handlerToCome,
  resumedCall,
} from "./interrupted_call.ts";
import { NO_CALL, REGISTER, REGISTER_COUNT } from "./registers.ts";

const RIP = 0x40_1002n;
const NO_BYTES = [0x90, 0x90, 0x90, 0x90, 0x90];
const SYSCALL = [0x0f, 0x05];
const INT80 = [0xcd, 0x80];

function stoppedIn(
  call: bigint,
  rax: bigint,
  args: Partial<Record<keyof typeof REGISTER, bigint>> = {},
): BigUint64Array<ArrayBuffer> {
  const registers = new BigUint64Array(REGISTER_COUNT).fill(0x77n);
  registers[REGISTER.rip] = RIP;
  registers[REGISTER.origRax] = call;
  registers[REGISTER.rax] = rax;
  for (const [name, value] of Object.entries(args)) {
    registers[REGISTER[name as keyof typeof REGISTER]] = value;
  }
  return registers;
}

function resumed(
  registers: BigUint64Array<ArrayBuffer>,
  handler: HandlerToCome = "none",
  code: number[] = [...NO_BYTES, ...SYSCALL],
) {
  const before = registers.slice();
  const { image, cureRip, cureRax, unknown } = resumedCall(
    registers,
    handler,
    () => Uint8Array.from(code),
  );
  assertEquals(registers, before, "what was given must stay");
  return {
    image: [image[REGISTER.rip], BigInt.asIntN(64, image[REGISTER.rax])],
    inCall: image[REGISTER.origRax] !== NO_CALL,
    cure: [cureRip, cureRax],
    unknown,
  };
}

const AGAIN = RIP - 2n;
const SELECT = 23n;
const EPOLL_WAIT = 232n;

for (const error of [-512n, -513n, -514n]) {
  Deno.test(`a call that ended with ${error} begins again in the image; here the kernel restarts it`, () => {
    assertEquals(resumed(stoppedIn(SELECT, error)), {
      image: [AGAIN, SELECT],
      inCall: false,
      cure: [AGAIN, SELECT],
      unknown: false,
    });
  });
}

const HANDLERS: [bigint, HandlerToCome, "again" | "ends"][] = [
  [-512n, "restarts", "again"],
  [-512n, "interrupts", "ends"],
  [-513n, "restarts", "again"],
  [-513n, "interrupts", "again"],
  [-514n, "restarts", "ends"],
  [-514n, "interrupts", "ends"],
  [-516n, "restarts", "ends"],
  [-516n, "interrupts", "ends"],
];
for (const [error, handler, outcome] of HANDLERS) {
  Deno.test(`with a handler to come that ${handler} calls, ${error} means: the call ${outcome}`, () => {
    assertEquals(
      resumed(stoppedIn(SELECT, error), handler).image,
      outcome === "again" ? [AGAIN, SELECT] : [RIP, -4n],
    );
  });
}

Deno.test("a call with a timeout begins again; the cure lets the kernel go on with it", () => {
  const POLL = 7n;
  assertEquals(resumed(stoppedIn(POLL, -516n)), {
    image: [AGAIN, POLL],
    inCall: false,
    cure: [AGAIN, 219n],
    unknown: false,
  });
});

Deno.test("a thread outside of calls, or in one that is done, is left alone, and its code is not read", () => {
  for (
    const registers of [
      stoppedIn(-1n, -512n),
      stoppedIn(-1n, -4n),
      stoppedIn(SELECT, 0n),
      stoppedIn(SELECT, -11n),
      stoppedIn(SELECT, -511n),
      stoppedIn(SELECT, -517n),
    ]
  ) {
    const result = resumedCall(registers, "none", () => {
      throw new Error("read");
    });
    assertStrictEquals(result.image, registers);
    assertEquals(result.cureRip, RIP);
    assertEquals(result.cureRax, registers[REGISTER.rax]);
  }
});

Deno.test("a call made by int 0x80 has the numbers of 32-bit programs", () => {
  const code = [...NO_BYTES, ...INT80];
  // 232 is another call there, and 0 is restart_syscall.
  assertEquals(
    resumed(stoppedIn(EPOLL_WAIT, -4n), "none", code).image,
    [RIP, -4n],
  );
  assertEquals(
    resumed(stoppedIn(168n, -516n), "none", code).cure,
    [AGAIN, 0n],
  );
});

const PLACE = 0x7fff_1234_5670n;
const LOADED: [string, number[], bigint][] = [
  ["mov $7,%eax", [0xb8, 7, 0, 0, 0], 7n],
  ["mov $230,%eax", [0xb8, 230, 0, 0, 0], 230n],
  [
    "mov $202,%eax; mov %rbx,%rdi",
    [0xb8, 202, 0, 0, 0, 0x48, 0x89, 0xdf],
    202n,
  ],
];
for (const [text, code, call] of LOADED) {
  Deno.test(`a call interrupted twice is known by ${text}`, () => {
    const result = resumed(
      stoppedIn(219n, -516n),
      "none",
      [...NO_BYTES, ...code, ...SYSCALL],
    );
    assertEquals(result.image, [AGAIN, call]);
    assertEquals(result.cure, [AGAIN, 219n]);
    assertEquals(result.unknown, false);
  });
}

type Arguments = [rdi: bigint, rsi: bigint, rdx: bigint, r10: bigint];
const KNOWN_BY_ARGUMENTS: [string, Arguments, bigint][] = [
  ["poll", [PLACE, 3n, 5000n, 0n], 7n],
  ["poll without end", [PLACE, 3n, 0xffff_ffffn, 0n], 7n],
  ["poll of nothing", [0n, 0n, 5000n, 0n], 7n],
  ["nanosleep", [PLACE, 0n, 0n, 0n], 35n],
  ["nanosleep with rest", [PLACE, PLACE, 0n, 0n], 35n],
  ["clock_nanosleep", [1n, 0n, PLACE, PLACE], 230n],
  ["clock_nanosleep of clock 0", [0n, 0n, PLACE, 0n], 230n],
  ["a futex", [PLACE, 128n, 2n, PLACE], 202n],
  ["a futex with bits", [PLACE, 137n, 0n, PLACE], 202n],
];
for (const [what, [rdi, rsi, rdx, r10], call] of KNOWN_BY_ARGUMENTS) {
  Deno.test(`${what}, interrupted twice, is known by its arguments`, () => {
    const registers = stoppedIn(219n, -516n, { rdi, rsi, rdx, r10 });
    assertEquals(resumed(registers).image, [AGAIN, call]);
  });
}

Deno.test("a constant for another register is not taken for the number of a call", () => {
  const MOV_202_TO_R8D = [0x41, 0xb8, 202, 0, 0, 0];
  const registers = stoppedIn(219n, -516n, { rdi: PLACE, rsi: 3n, rdx: 50n });
  const { image } = resumed(registers, "none", [
    ...NO_BYTES,
    ...MOV_202_TO_R8D,
    ...SYSCALL,
  ]);
  assertEquals(image, [AGAIN, 7n]);
});

const USR1 = 1n << 9n;
const ALRM = 1n << 13n;
const SEGV = 1n << 10n;
const TO_COME: [string, bigint, bigint, bigint, HandlerToCome][] = [
  ["nothing", 0n, 0n, 0n, "none"],
  ["a blocked signal", USR1, USR1, USR1, "none"],
  [
    "a signal that is blocked for the thread only",
    ALRM,
    USR1,
    ALRM,
    "restarts",
  ],
  ["a signal without handler", 1n << 16n, 1n, 0n, "none"],
  ["a signal of the process", 0n, ALRM, 0n, "interrupts"],
  [
    "the thread's own signal before the process's",
    ALRM,
    USR1,
    0n,
    "interrupts",
  ],
  ["the lowest number first", USR1 | ALRM, 0n, 0n, "restarts"],
  ["a fault first of all", USR1 | SEGV, 0n, 0n, "interrupts"],
];
for (const [what, pending, shared, blocked, expected] of TO_COME) {
  Deno.test(`the handler to come: ${what}`, () => {
    const handlers: Record<number, bigint> = {
      10: 0x1000_0000n, // SIGUSR1, SA_RESTART
      11: 0n,
      14: 0n,
    };
    const action = (signal: number) =>
      signal in handlers
        ? { handler: PLACE, flags: handlers[signal] }
        : { handler: signal === 17 ? 1n : 0n, flags: 0x1000_0000n };
    assertEquals(handlerToCome({ pending, shared, blocked }, action), expected);
  });
}

Deno.test("a call interrupted twice that nothing tells ends with EINTR, and that is said", () => {
  const registers = stoppedIn(219n, -516n, { rdx: 0n });
  const { image, unknown } = resumed(registers);
  assertEquals([image, unknown], [[RIP, -4n], true]);
});

Deno.test("sleep(1), stopped twice, is known as the sleep it is, and sleeps on", async () => {
  const child = new Deno.Command("sleep", { args: ["1000"] }).spawn();
  try {
    const CLOCK_NANOSLEEP = 230n;
    for (const expected of [CLOCK_NANOSLEEP, 219n]) {
      while (callOf(child.pid) !== expected) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      using frozen = FrozenProcess.freeze(child.pid, 0);
      using memory = TaskMemory.open(child.pid);
      const [state] = readThreads(frozen.tids);
      const rip = state.registers[REGISTER.rip];
      assertEquals(state.registers[REGISTER.origRax], expected);
      const { image } = resumedCall(
        state.registers,
        "none",
        () => memory.read(rip - BigInt(CODE_LENGTH), CODE_LENGTH),
      );
      assertEquals(image[REGISTER.rip], rip - 2n);
      assertEquals(image[REGISTER.rax], CLOCK_NANOSLEEP);
    }
    while (callOf(child.pid) !== 219n) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
});

/** The call a task waits in; -1n for none (proc_pid_syscall(5)). */
function callOf(pid: number): bigint {
  const [number] = Deno.readTextFileSync(`/proc/${pid}/syscall`).split(" ");
  return number.trim() === "running" ? -1n : BigInt(number);
}
