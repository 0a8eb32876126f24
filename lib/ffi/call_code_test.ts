import { assertEquals, assertThrows } from "@std/assert";
import { callResults, encodeCalls } from "./call_code.ts";

Deno.test("code is what an assembler makes of it", () => {
  const code = encodeCalls([
    { name: "prctl", args: [25, { scratch: 8 }, 0x1234, 1, 2] },
    { name: "prctl", args: [{ scratch: 4 }, 0, { scratch: 16 }] },
    {
      name: "prctl",
      args: [0, 0, 0, { scratch: 24 }, { scratch: 32 }],
    },
    { name: "close", args: [] },
    { name: "close", args: [0, 0, 0, 0, 0] },
  ], 0x198);
  const kept = "0fb7c0";
  const rbx = `48c1e310 ${kept} 4809c3`;
  assertEquals(
    hex(code),
    joined(
      // mov $25, %edi; lea 8(%rsp), %rsi; mov $0x1234, %edx; mov $1, %r10d;
      // mov $2, %r8d; mov $157, %eax; syscall
      "bf19000000 488d742408 ba34120000 41ba01000000 41b802000000",
      `b89d000000 0f05 ${rbx}`,
      // lea 4(%rsp), %rdi; xor %esi, %esi; lea 16(%rsp), %rdx
      `488d7c2404 31f6 488d542410 b89d000000 0f05 ${rbx}`,
      // xor %edi, %edi; xor %esi, %esi; xor %edx, %edx; lea 24(%rsp), %r10;
      // lea 32(%rsp), %r8
      "31ff 31f6 31d2 4c8d542418 4c8d442420",
      `b89d000000 0f05 ${rbx}`,
      `b803000000 0f05 ${rbx}`,
      // ... xor %r10d, %r10d; xor %r8d, %r8d; the fifth is kept in r12
      "31ff 31f6 31d2 4531d2 4531c0",
      `b803000000 0f05 49c1e410 ${kept} 4909c4`,
      // mov %r13, %rdi; mov %r14, %rsi; mov %r15, %rdx; mov %ebp, %eax; jmp
      "4c89ef 4c89f6 4c89fa 89e8 e998010000",
    ),
  );
});

function hex(code: Uint8Array): string {
  return Array.from(code, (byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

function joined(...parts: string[]): string {
  return parts.join("").replaceAll(" ", "");
}

Deno.test("results are found where the code has kept them", () => {
  const registers = BigUint64Array.of(
    0x0001_ffff_fff7_7fffn,
    0x0000_0000_8000_0002n,
    0n,
  );
  assertEquals(callResults(registers, 6), [1n, -1n, -9n, 32767n, -32768n, 2n]);
  assertEquals(callResults(BigUint64Array.of(5n, 0n, 0n), 1), [5n]);
  assertEquals(callResults(registers, 0), []);
});

Deno.test("more calls than results that can be kept are no code", () => {
  const calls = Array.from({ length: 13 }, () => ({
    name: "close" as const,
    args: [0],
  }));
  encodeCalls(calls.slice(1), 0);
  assertThrows(() => encodeCalls(calls, 0), Error, "13 results do not fit");
});
