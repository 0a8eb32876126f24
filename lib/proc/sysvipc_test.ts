import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import {
  readSysvQueues,
  readSysvSegments,
  readSysvSemaphores,
} from "./read.ts";
import {
  parseSysvQueues,
  parseSysvSegments,
  parseSysvSemaphores,
  SHM_MODE,
} from "./sysvipc.ts";

const HEAD =
  "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n";
const ROW =
  " 202374880      32775   640                 82043  6036  6037      4     1     2     3     4 1795187374 1795187375 1795187376                 86016                     0\n";

Deno.test("a segment is told with its key, permissions, owner and time", () => {
  assertEquals(parseSysvSegments(HEAD + ROW), [{
    key: 0xc0ffee0,
    id: 32775,
    mode: 0o640,
    size: 82043n,
    creatorPid: 6036,
    attached: 4,
    uid: 1,
    gid: 2,
    cuid: 3,
    cgid: 4,
    changed: 1795187376n,
  }]);
});

Deno.test("keys above 2^31, sizes above 2^53 and fields that touch no blank are read", () => {
  const row = ROW.replace(" 202374880", "-559038737")
    .replace("82043", "18446744073709551615").replace("  640", "3777");
  const [segment] = parseSysvSegments(HEAD + row);
  assertEquals(segment.key, 0xdeadbeef);
  assertEquals(segment.size, 2n ** 64n - 1n);
  assertEquals(segment.mode & SHM_MODE.dest, SHM_MODE.dest);
  assertEquals(segment.mode & SHM_MODE.locked, SHM_MODE.locked);
});

Deno.test("no segments are none", () => {
  assertEquals(parseSysvSegments(HEAD), []);
});

for (
  const [what, text] of [
    ["no head line", ""],
    ["another column", HEAD.replace("nattch", "attach") + ROW],
    ["a field too few", HEAD + ROW.replace(" 82043", "")],
    ["a key that is no number", HEAD + ROW.replace("202374880", "0xc0ffee")],
    ["permissions that are not octal", HEAD + ROW.replace(" 640", " 680")],
  ]
) {
  Deno.test(`${what} is an error`, () => {
    assertThrows(() => parseSysvSegments(text), CkptError);
  });
}

Deno.test("a message queue and a set of semaphores are told with their key, permissions, owner and size", () => {
  const ids = { uid: 1, gid: 2, cuid: 3, cgid: 4 };
  assertEquals(
    parseSysvQueues(
      "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n" +
        "-559038737          2   640        5005          2    11     0     1     2     3     4 1795187374          0 1795187373\n",
    ),
    [{ key: 0xdeadbeef, id: 2, mode: 0o640, messages: 2, ...ids }],
  );
  assertEquals(
    parseSysvSemaphores(
      "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n" +
        "         0      32769   600          3     1     2     3     4          0 1795187373\n",
    ),
    [{ key: 0, id: 32769, mode: 0o600, count: 3, ...ids }],
  );
});

Deno.test("the queues and semaphores of this kernel can be read", () => {
  for (const { id } of [...readSysvQueues(), ...readSysvSemaphores()]) {
    assertEquals(id >= 0, true);
  }
});

Deno.test("the segments of this kernel can be read", () => {
  for (const { id, attached } of readSysvSegments()) {
    assertEquals([id >= 0, attached >= 0], [true, true]);
  }
});
