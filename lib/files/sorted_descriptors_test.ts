import { assertEquals, assertStrictEquals } from "@std/assert";
import { sorted } from "./sorted_descriptors.ts";

Deno.test("descriptors are sorted by what they are, each description once", () => {
  const seen = (link: string, mode: number, sameAs?: object) => ({
    link,
    status: { mode },
    sameAs,
  });
  const all = [
    seen("socket:[5]", 0o140777),
    seen("/a socket that is only named", 0o140777),
    seen("pipe:[6]", 0o10600),
    seen("/fifo", 0o10600),
    seen("/dev/pts/1", 0o20620),
    seen("/file", 0o100644),
    seen("/file", 0o100644, { pid: 1, fd: 5 }),
    seen("/proc/12/stat", 0),
    seen("anon_inode:[eventfd]", 0o600),
    seen("mnt:[4026531841]", 0o100444),
  ];
  const numbers = Object.fromEntries(
    Object.entries(sorted(all)).map(([kind, some]) => [
      kind,
      (some as typeof all).map((one) => all.indexOf(one)),
    ]),
  );
  assertEquals(numbers, {
    sockets: [0, 1],
    pipes: [2, 3],
    devices: [4],
    named: [1, 3, 4, 5, 7],
    unnamed: [8, 9],
  });
  assertStrictEquals(sorted(all), sorted(all));
});
