import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { type FileLock, parseLock, parseLocks } from "./locks.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

function parse(text: string): FileLock | undefined {
  return parseLock({ source: "test", line: 1, text });
}

const RECORD: FileLock = {
  kind: "posix",
  access: "write",
  breaking: false,
  blocked: false,
  pid: 1234,
  device: { major: 0xfd, minor: 1 },
  inode: 5678n,
  start: 5n,
  end: 14n,
};

Deno.test("every kind of lock is told by its line", () => {
  const whole = { ...RECORD, start: 0n, end: undefined };
  for (
    const [text, lock] of [
      ["1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 5 14", RECORD],
      ["1: OFDLCK ADVISORY  READ -1 fd:01:5678 5 14", {
        ...RECORD,
        kind: "ofd",
        access: "read",
        pid: -1,
      }],
      ["12: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF", {
        ...whole,
        kind: "flock",
      }],
      ["1: LEASE  ACTIVE    READ 1234 fd:01:5678 0 EOF", {
        ...whole,
        kind: "lease",
        access: "read",
      }],
      ["1: LEASE  BREAKING  UNLCK 1234 fd:01:5678 0 EOF", {
        ...whole,
        kind: "lease",
        access: "none",
        breaking: true,
      }],
      ["1: DELEG  ACTIVE    READ 1234 fd:01:5678 0 EOF", {
        ...whole,
        kind: "delegation",
        access: "read",
      }],
      ["2:  -> FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF", {
        ...whole,
        kind: "flock",
        blocked: true,
      }],
      ["2:   -> POSIX  ADVISORY  WRITE 1234 fd:01:5678 5 14", {
        ...RECORD,
        blocked: true,
      }],
    ] as const
  ) assertEquals(parse(text), lock as FileLock, text);
});

Deno.test("of all locks those that cannot be told are left out", () => {
  const known = "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF\n";
  const others = "2: NEWER  ADVISORY  WRITE 1234 fd:01:5678 0 EOF\n" +
    "3: POSIX  *NOINODE* WRITE 0 <none>:0 0 EOF\n";
  assertEquals(parseLocks(known + others).length, 1);
  assertEquals(parse(others.split("\n")[0]), undefined);
  assertEquals(parseLocks(""), []);
});

Deno.test("a line that is no lock is an error", () => {
  assertThrows(() => parse("1: POSIX ADVISORY"), CkptError, "a file lock");
});

Deno.test("damaged text is read or refused", () => {
  assertParsesOrRejects(parseLocks, [
    "1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 5 14\n" +
    "2: -> FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF\n",
  ]);
});

Deno.test("the locks of this host are readable", () => {
  parseLocks(Deno.readTextFileSync("/proc/locks"));
});
