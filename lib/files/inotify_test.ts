import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { NO_OWNER } from "./file_table.ts";
import { dumpInotify, inotifyProblem, parseInotify } from "./inotify.ts";
import { handleOf } from "./watched_handle.ts";

const LINES = [
  "inotify wd:5b ino:11 sdev:2c mask:84000fff ignored_mask:0 " +
  "fhandle-bytes:c fhandle-type:81 f_handle:490e00000000000001000000",
  "inotify wd:1 ino:f0000000 sdev:fe00001 mask:4 ignored_mask:0 ",
];

Deno.test("the watch that was added first comes first, with its handle", () => {
  assertEquals(parseInotify(LINES), {
    kind: "inotify",
    watches: [
      {
        wd: 1,
        inode: 0xf0000000n,
        device: 0xfe00001,
        mask: 4,
        handle: undefined,
      },
      {
        wd: 0x5b,
        inode: 0x11n,
        device: 0x2c,
        mask: 0x84000fff,
        handle: {
          type: 0x81,
          bytes: Uint8Array.of(0x49, 0xe, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0),
        },
      },
    ],
  });
  assertEquals(parseInotify([]).watches, []);
});

Deno.test("a line of another form is an error", () => {
  for (const wrong of ["inotify wd:x", `${LINES[0]} more`]) {
    assertThrows(() => parseInotify([wrong]), CkptError, wrong);
  }
});

Deno.test("an entry has paths, numbers and handles of 16 words", () => {
  const inotify = parseInotify(LINES);
  const entry = dumpInotify(3, inotify, [undefined, "/a"], 0o4000, NO_OWNER);
  assertEquals(
    entry.wd.map(({ wd, mask, i_ino, s_dev, f_handle: { path } }) => [
      ...[wd, mask, i_ino, s_dev, path],
    ]),
    [
      [1, 4, 0xf0000000n, 0xfe00001, undefined],
      [0x5b, 0x84000fff, 0x11n, 0x2c, "/a"],
    ],
  );
  assertEquals(entry.wd.map(({ f_handle }) => f_handle.handle.length), [
    ...[16, 16],
  ]);
  assertEquals(
    entry.wd.map(({ f_handle }) => handleOf(f_handle)),
    inotify.watches.map(({ handle }) => handle),
  );
});

Deno.test("numbers that no watch can have are problems", () => {
  const problem = (...numbers: number[]) =>
    inotifyProblem(dumpInotify(
      1,
      {
        kind: "inotify",
        watches: numbers.map((wd) => ({
          ...parseInotify(LINES).watches[0],
          wd,
        })),
      },
      [],
      0,
      NO_OWNER,
    ));
  assertEquals(problem(), undefined);
  assertEquals(problem(1, 7, 0x7fff_ffff), undefined);
  assertEquals(problem(1, 0), "0 is no watch descriptor");
  assertEquals(problem(0x8000_0000), "2147483648 is no watch descriptor");
  assertEquals(problem(3, 4, 3), "the watch descriptor 3 is there twice");
});
