import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseFdInfo } from "./fdinfo.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const LOCKED = `
pos:	5
flags:	02102002
mnt_id:	27
ino:	2147491
lock:	1: FLOCK  ADVISORY  WRITE 31675 fe:00:2147491 0 EOF
lock:	2: POSIX  ADVISORY  WRITE 31675 fe:00:2147491 10 14
`.slice(1);

const TIMERFD = `
pos:	0
flags:	02
mnt_id:	17
ino:	1038
clockid: 1
ticks: 0
settime flags: 00
it_value: (0, 0)
it_interval: (0, 0)
`.slice(1);

/** Linux 5.4 has no ino. */
const INOTIFY_5_4 = `
pos:	0
flags:	00
mnt_id:	13
inotify wd:1 ino:1a2b sdev:fe00000 mask:3c8 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:2b1a000000000000
`.slice(1);

Deno.test("fdinfo gives position, flags, mount and inode", () => {
  assertEquals(parseFdInfo(LOCKED), {
    pos: 5n,
    flags: 0o2102002,
    mntId: 27,
    ino: 2147491n,
    locks: [
      "1: FLOCK  ADVISORY  WRITE 31675 fe:00:2147491 0 EOF",
      "2: POSIX  ADVISORY  WRITE 31675 fe:00:2147491 10 14",
    ],
    extra: [],
  });
});

Deno.test("what a kind of file tells of itself is kept line by line", () => {
  assertEquals(parseFdInfo(TIMERFD).extra, [
    "clockid: 1",
    "ticks: 0",
    "settime flags: 00",
    "it_value: (0, 0)",
    "it_interval: (0, 0)",
  ]);
  const inotify = parseFdInfo(INOTIFY_5_4);
  assertEquals(inotify.ino, undefined);
  assertEquals(inotify.extra.length, 1);
  assertEquals(inotify.locks, []);
});

Deno.test("positions use all 64 bits", () => {
  const at = (pos: string) =>
    parseFdInfo(LOCKED.replace("pos:\t5", `pos:\t${pos}`)).pos;
  assertEquals(at("9223372036854775807"), 2n ** 63n - 1n);
  assertEquals(at("-4096"), -4096n);
});

Deno.test("missing and malformed lines are errors that say which", () => {
  const cases: [string, string, string][] = [
    ["", "line 1", '"pos:"'],
    ["pos:\t5\n", "line 2", '"flags:"'],
    ["pos:\t5\nflags:\t02\n", "line 3", '"mnt_id:"'],
    [LOCKED.replace("pos:\t5", "pos:\t5x"), "line 1", "position"],
    [LOCKED.replace("02102002", "0x2"), "line 2", "octal"],
    [LOCKED.replace("2147491", "-1"), "line 4", "decimal"],
  ];
  for (const [text, line, why] of cases) {
    const error = assertThrows(() => parseFdInfo(text, "f"), CkptError);
    assertEquals(error.reasons[0].object, `f, ${line}`);
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged fdinfo either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseFdInfo, [LOCKED, TIMERFD, INOTIFY_5_4]);
});
