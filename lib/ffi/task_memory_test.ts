import { assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { TaskMemory } from "./task_memory.ts";
import { ChildProgram } from "./testing/child_program.ts";

/** The address of two pages: one of a read-only area, one without memory. */
const SCRIPT = `
libc.mmap.restype = ctypes.c_void_p
area = libc.mmap(None, 8192, 3, 0x22, -1, 0)
ctypes.memmove(area, b"content", 7)
libc.mprotect(ctypes.c_void_p(area), 4096, 1)
libc.munmap(ctypes.c_void_p(area + 4096), 4096)
ready(area)
`;

Deno.test("memory is read and written whatever its protection", async () => {
  await using child = await ChildProgram.start(SCRIPT);
  const address = BigInt(child.answer as number);
  using memory = TaskMemory.open(child.pid);
  memory.write(address + 3n, Uint8Array.of(1, 2, 3));
  assertEquals(
    [...memory.read(address, 8)],
    [...new TextEncoder().encode("con"), 1, 2, 3, "t".charCodeAt(0), 0],
  );
  assertEquals(memory.readWord(address), 0x0074_0302_016e_6f63n);
});

Deno.test("an address without memory is named, and nothing half is returned", async () => {
  await using child = await ChildProgram.start(SCRIPT);
  const address = BigInt(child.answer as number);
  using memory = TaskMemory.open(child.pid);
  for (const start of [address + 4096n, address + 4090n]) {
    for (
      const access of [
        () => memory.read(start, 16),
        () => memory.write(start, new Uint8Array(16)),
      ]
    ) {
      const error = assertThrows(access, CkptError);
      assertEquals(error.exit, EXIT.failed);
      assertEquals(
        error.reasons[0].object,
        `address 0x${start.toString(16)}`,
      );
      assertEquals(error.reasons[0].why, "EIO (input/output error)");
    }
  }
});

Deno.test("the memory of a task that ended is told as gone", async () => {
  const child = await ChildProgram.start(SCRIPT);
  using memory = TaskMemory.open(child.pid);
  await child[Symbol.asyncDispose]();
  const address = BigInt(child.answer as number);
  for (
    const access of [
      () => memory.read(address, 8),
      () => memory.write(address, new Uint8Array(8)),
      () => TaskMemory.open(99_999_999),
    ]
  ) {
    assertEquals(assertThrows(access, CkptError).exit, EXIT.gone);
  }
});
