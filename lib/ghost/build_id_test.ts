import { assertEquals } from "@std/assert";
import { close, O, open } from "../ffi/syscall.ts";
import {
  findBuildId,
  formatBuildId,
  packBuildId,
  readBuildId,
} from "./build_id.ts";

async function readelf(path: string): Promise<string | undefined> {
  const { stdout } = await new Deno.Command("readelf", {
    args: ["-nW", path],
    env: { LC_ALL: "C" },
  }).output();
  const text = new TextDecoder().decode(stdout);
  return /Build ID: ([0-9a-f]+)/.exec(text)?.[1];
}

function read(path: string): string | undefined {
  const fd = open(path, O.RDONLY);
  try {
    return readBuildId(fd)?.toHex();
  } finally {
    close(fd);
  }
}

Deno.test("build-ids of programs and libraries are those that readelf finds", async () => {
  for (const path of ["/bin/sh", "/bin/ls", "/usr/bin/env", "/bin/gzip"]) {
    const real = Deno.realPathSync(path);
    assertEquals(read(real), await readelf(real), path);
  }
  assertEquals(read("/etc/passwd"), undefined);
});

const NONE = () => new Uint8Array();

Deno.test("notes behind the head are read, those too far away are not", () => {
  const file = Deno.readFileSync(Deno.realPathSync("/bin/ls"));
  const slice = (offset: number, length: number) =>
    file.subarray(offset, offset + length);
  const whole = findBuildId(file.subarray(0, 4096), slice)!;
  assertEquals(findBuildId(file.subarray(0, 64), slice), whole);
  assertEquals(findBuildId(file.subarray(0, 64), NONE), undefined);
});

Deno.test("damaged heads give a build-id or none, and never fail", () => {
  const file = Deno.readFileSync(Deno.realPathSync("/bin/ls"));
  const head = file.slice(0, 4096);
  let random = 1;
  const next = (limit: number) => {
    random = Math.imul(random, 1103515245) + 12345 >>> 0;
    return (random >>> 8) % limit;
  };
  for (let i = 0; i < 5000; i++) {
    const damaged = head.slice(0, i % 7 === 0 ? next(4096) : 4096);
    for (let n = 0; n < 4; n++) {
      // Most of what is read is in the first kilobyte.
      const at = next(Math.min(1024, damaged.length || 1));
      if (at < damaged.length) damaged[at] = next(256);
    }
    const id = findBuildId(damaged, NONE);
    assertEquals(id === undefined || id.length <= 512, true);
  }
});

Deno.test("a build-id fills whole words", () => {
  const id = Uint8Array.of(1, 2, 3, 4, 0xff);
  assertEquals(packBuildId(id), [0x04030201, 0xff]);
  assertEquals(formatBuildId(packBuildId(id)), "01020304ff000000");
});
