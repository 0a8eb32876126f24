import { assertEquals, assertThrows } from "@std/assert";
import { EEXIST, ENOENT, ENOTDIR } from "./errno.ts";
import { listNumbers, readSmallFile, writeNewFile } from "./small_files.ts";
import { SyscallError } from "./syscall.ts";

Deno.test("files of any size come back as they were written", () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (const length of [0, 1, 65535, 65536, 65537, 3_000_000, 5_000_000]) {
      const bytes = new Uint8Array(length).map((_, i) => i * 7 + (i >> 9));
      const path = `${folder}/${length}`;
      writeNewFile(path, bytes);
      assertEquals(readSmallFile(path), bytes);
      assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
      assertEquals(
        assertThrows(() => writeNewFile(path, bytes), SyscallError).errno,
        EEXIST,
      );
    }
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("values below /proc/sys can be read also after a large file", () => {
  const path = Deno.makeTempFileSync();
  try {
    Deno.writeFileSync(path, new Uint8Array(5_000_000));
    assertEquals(readSmallFile(path).length, 5_000_000);
    assertEquals(readSmallFile("/proc/sys/kernel/random/uuid").length, 37);
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("only names that are numbers are listed, by value", () => {
  const folder = Deno.makeTempDirSync();
  try {
    for (const name of ["10", "self", "9", "0", "-1", "1e3", "4194304", "x"]) {
      Deno.mkdirSync(`${folder}/${name}`);
    }
    assertEquals(listNumbers(folder), [0, 9, 10, 4194304]);
    const many = Array.from({ length: 3000 }, (_, i) => 5000 + i);
    for (const number of many) Deno.mkdirSync(`${folder}/${number}`);
    assertEquals(listNumbers(folder), [0, 9, 10, ...many, 4194304]);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("what cannot be read is told by its error number", () => {
  const errno = (path: string, look: (path: string) => unknown) =>
    assertThrows(() => look(path), SyscallError).errno;
  assertEquals(errno("/proc/none", readSmallFile), ENOENT);
  assertEquals(errno("/proc/none", listNumbers), ENOENT);
  assertEquals(errno("/proc/self/stat", listNumbers), ENOTDIR);
});
