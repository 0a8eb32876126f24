import { assertEquals, assertThrows } from "@std/assert";
import { EEXIST, ENOENT, ENOTDIR } from "./errno.ts";
import { sha256 } from "./sha256.ts";
import {
  listNumbers,
  readSmallFile,
  readWrittenFiles,
  writeNewFile,
} from "./small_files.ts";
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

Deno.test("of many files those that have changed are found, and the others read", () => {
  const folder = Deno.makeTempDirSync();
  try {
    const names = Array.from({ length: 200 }, (_, i) => `file ${i} ä`);
    const content = (i: number) =>
      new Uint8Array(i % 3 === 0 ? 0 : i * 50).fill(i);
    const written = names.map((name, i) => {
      const bytes = content(i);
      Deno.writeFileSync(`${folder}/${name}`, bytes);
      const size = bytes.length;
      return i % 2 === 0
        ? { name, size, sha256: sha256(bytes) }
        : { name, size };
    });
    const change = (i: number, bytes: Uint8Array) =>
      Deno.writeFileSync(`${folder}/${names[i]}`, bytes);
    change(10, content(10).fill(77, 20, 21));
    change(20, new Uint8Array(1));
    change(21, new Uint8Array(1));
    // The content of one without a checksum may change.
    change(23, content(23).fill(77));
    Deno.removeSync(`${folder}/${names[31]}`);
    for (const i of [40, 41]) {
      Deno.removeSync(`${folder}/${names[i]}`);
      Deno.mkdirSync(`${folder}/${names[i]}`);
    }
    const changed = new Set([10, 20, 21, 31, 40, 41]);
    readWrittenFiles(folder, written).forEach((found, i) => {
      assertEquals(found.isUnchanged, !changed.has(i), names[i]);
      if (i % 2 === 1) assertEquals(found.content, undefined);
      else if (!changed.has(i)) assertEquals(found.content, content(i));
    });
    assertEquals(readWrittenFiles(folder, []), []);
    const gone = () => readWrittenFiles(`${folder}/gone`, written);
    assertEquals(assertThrows(gone, SyscallError).errno, ENOENT);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});
