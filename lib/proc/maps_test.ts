import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { parseMaps, PROT } from "./maps.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const TEXT = String.raw`
55ee332ba000-55ee332bb000 r--p 00000000 fe:00 2147538                    /srv/bin/odd
55ee332bb000-55ee332bc000 r-xp 00001000 fe:00 2147538                    /srv/bin/odd
55ee4f129000-55ee4f14a000 rw-p 00000000 00:00 0                          [heap]
7fc8fd413000-7fc8fd414000 ---p 00000000 00:00 0 
7fc8fddfb000-7fc8fddfc000 rw-s 00000000 00:01 0                          /SYSV00000000 (deleted)
7fc8fddfc000-7fc8fddfd000 rw-s 00000000 00:01 1770                       /dev/zero (deleted)
7fc8fddfd000-7fc8fddfe000 r--s 00000000 00:01 1769                       /memfd:mem fd (deleted)
7fc8fde02000-7fc8fde03000 rw-s 00000000 fe:00 2147506                    /srv/d/a\012b
7fc8fde03000-7fc8fde04000 rw-p 00001000 fe:00 2147491                    /srv/d/a b
7fc8fde04000-7fc8fde06000 rw-p 00000000 00:00 0                          [anon:my heap]
7fc8fde06000-7fc8fde0a000 r--p 00000000 00:00 0                          [vvar]
7ffd65247000-7ffd65268000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`.slice(1);

Deno.test("maps of a real program gives every field", () => {
  const maps = parseMaps(TEXT);
  assertEquals(maps.map((mapping) => mapping.path), [
    "/srv/bin/odd",
    "/srv/bin/odd",
    "[heap]",
    "",
    "/SYSV00000000 (deleted)",
    "/dev/zero (deleted)",
    "/memfd:mem fd (deleted)",
    "/srv/d/a\nb",
    "/srv/d/a b",
    "[anon:my heap]",
    "[vvar]",
    "[stack]",
    "[vsyscall]",
  ]);
  assertEquals(maps[1], {
    start: 0x55ee332bb000,
    end: 0x55ee332bc000,
    prot: PROT.read | PROT.exec,
    shared: false,
    offset: 0x1000,
    major: 0xfe,
    minor: 0,
    inode: 2147538n,
    path: "/srv/bin/odd",
    deletedMark: false,
  });
  assertEquals(maps[3].prot, 0);
  assertEquals(maps[5], {
    start: 0x7fc8fddfc000,
    end: 0x7fc8fddfd000,
    prot: PROT.read | PROT.write,
    shared: true,
    offset: 0,
    major: 0,
    minor: 1,
    inode: 1770n,
    path: "/dev/zero (deleted)",
    deletedMark: true,
  });
});

Deno.test("addresses and offsets are exact over all 64 bits", () => {
  const last = parseMaps(TEXT).at(-1)!;
  assertEquals(BigInt(last.start), 0xffffffffff600000n);
  assertEquals(last.end - last.start, 0x1000);

  const [far] = parseMaps(
    "fffffffffff000-fffffffffffff000 rw-s 7ffffffffffff000 103:fffff " +
      "18446744073709551615 /far\n",
  );
  assertEquals(BigInt(far.start), 0xfffffffffff000n);
  assertEquals(BigInt(far.end), 0xfffffffffffff000n);
  assertEquals(BigInt(far.offset), 0x7ffffffffffff000n);
  assertEquals([far.major, far.minor], [0x103, 0xfffff]);
  assertEquals(far.inode, 2n ** 64n - 1n);
});

Deno.test("a name that fills the column and one of a 32-bit range parse", () => {
  const [narrow, wide] = parseMaps(
    "08048000-08049000 r-xp 00000000 08:01 12 /a\n" +
      "ffff00000000-ffff00001000 r-xp 123456789000 08:01 1234567890123456789 " +
      "/b  c \n",
  );
  assertEquals(narrow.start, 0x08048000);
  assertEquals(narrow.path, "/a");
  assertEquals(wide.path, "/b  c ");
});

Deno.test("no memory gives no mappings, a missing last newline is no error", () => {
  assertEquals(parseMaps(""), []);
  assertEquals(parseMaps(TEXT.trimEnd()), parseMaps(TEXT));
});

Deno.test("a malformed line is an error that names file and line", () => {
  const good = "1000-2000 rw-p 00000000 00:00 0 \n";
  for (
    const bad of [
      "",
      "1000",
      "1000-2000",
      "1000-2001 rw-p 00000000 00:00 0 ",
      "1234-2000 rw-p 00000000 00:00 0 ",
      "2000-1000 rw-p 00000000 00:00 0 ",
      "1000-1000 rw-p 00000000 00:00 0 ",
      "1000-2000  rw-p 00000000 00:00 0 ",
      "1000-2000 wr-p 00000000 00:00 0 ",
      "1000-2000 rw-q 00000000 00:00 0 ",
      "1000-2000 rw-p 00000010 00:00 0 ",
      "1000-2000 rw-p 00000000 00-00 0 ",
      "1000-2000 rw-p 00000000 0000:00 0 ",
      "1000-2000 rw-p 00000000 00:0000000 0 ",
      "1000-2000 rw-p 00000000 00:00 ",
      "1000-2000 rw-p 00000000 00:00 1a /x",
      "1000-2000 rw-p 00000000 00:00 123456789012345678901 /x",
      "10000000000001000-20000000000000000 rw-p 00000000 00:00 0 ",
      "100A000-2000000 rw-p 00000000 00:00 0 ",
    ]
  ) {
    const error = assertThrows(
      () => parseMaps(`${good}${bad}\n${good}`, "/proc/5/maps"),
      CkptError,
      undefined,
      JSON.stringify(bad),
    );
    assertEquals(error.exit, EXIT.failed);
    assertEquals(error.reasons[0].object, "/proc/5/maps, line 2");
    assertStringIncludes(error.reasons[0].why, JSON.stringify(bad));
  }
});

Deno.test("damaged maps either parse or give a CkptError", () => {
  assertParsesOrRejects(parseMaps, [TEXT, ...TEXT.split("\n")]);
});
