import { assertEquals, assertThrows } from "@std/assert";
import {
  close,
  deviceNumbers,
  lstat,
  NR,
  O,
  open,
  pread,
  pwrite,
  readLink,
  S_IF,
  stat,
  syscall,
  SyscallError,
} from "./syscall.ts";

Deno.test("the numbers of the calls are those of the kernel's header", () => {
  const text = Deno.readTextFileSync(
    "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
  );
  const numbers = new Map(
    [...text.matchAll(/^#define __NR_(\w+) (\d+)/gm)]
      .map(([, name, number]) => [name, Number(number)]),
  );
  for (const [name, number] of Object.entries(NR)) {
    // The header may be older than a call.
    assertEquals([name, number], [name, numbers.get(name) ?? number]);
  }
  assertEquals(new Set(Object.values(NR)).size, Object.keys(NR).length);
});

Deno.test("a call that fails tells its name and error number", () => {
  const error = assertThrows(() => syscall("close", 9999n), SyscallError);
  assertEquals([error.call, error.errno], ["close", 9]);
  assertEquals(error.message, "close: EBADF (bad file descriptor)");
});

Deno.test("a path of any bytes is opened, written, read and told", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const path = new Uint8Array([
      ...new TextEncoder().encode(`${directory}/`),
      0xff,
      0xfe,
    ]);
    const fd = open(path, O.RDWR | O.CREAT, 0o640);
    try {
      pwrite(fd, Uint8Array.of(1, 2, 3), 5n);
      const buffer = new Uint8Array(10);
      assertEquals(pread(fd, buffer, 0n), 8);
      assertEquals([...buffer], [0, 0, 0, 0, 0, 1, 2, 3, 0, 0]);
      assertEquals(readLink(`/proc/self/fd/${fd}`), path);
      const status = stat(fd);
      assertEquals(status, stat(path));
      assertEquals(status.size, 8n);
      assertEquals(status.mode & S_IF.MT, S_IF.REG);
    } finally {
      close(fd);
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("status follows links, or is that of the link", () => {
  assertEquals(stat("/proc/self").mode & S_IF.MT, S_IF.DIR);
  assertEquals(lstat("/proc/self").mode & S_IF.MT, S_IF.LNK);
});

Deno.test("device numbers have 12 and 20 bits, as makedev(3) places them", () => {
  assertEquals(deviceNumbers(stat("/dev/null").rdev), { major: 1, minor: 3 });
  // makedev(0xabc, 0x12345)
  assertEquals(deviceNumbers(0x123abc45n), { major: 0xabc, minor: 0x12345 });
  // The first major and minor number beyond.
  assertEquals(deviceNumbers(0x1000_0010_0000n), {
    major: 0x1000,
    minor: 0x100,
  });
});
