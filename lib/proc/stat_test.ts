import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { parseStat } from "./stat.ts";
import { assertParsesOrRejects } from "./testing/mutations.ts";

const LEADER =
  "31675 (a) R 1 (b) S 31659 31658 1685 34816 31657 4194560 133 7 2 3 4 5 6 8 " +
  "20 -5 2 0 131639 10973184 333 18446744073709551615 94481549078528 " +
  "94481549080721 140726300469904 0 0 2048 2049 518 519 1 0 0 17 1 50 1 9 10 " +
  "11 94481549090256 94481549091104 94482017193984 140726300474098 " +
  "140726300474104 140726300474105 140726300475378 256\n";

/** A thread; its name holds a newline. */
const THREAD =
  "31677 (x\ny\\z) S 31659 31659 1685 0 -1 4194368 1 0 0 0 0 0 0 0 20 0 2 0 " +
  "131639 10973184 333 18446744073709551615 94481549078528 94481549080721 " +
  "140726300469904 0 0 0 2048 518 0 1 0 0 -1 0 0 0 0 0 0 94481549090256 " +
  "94481549091104 94482017193984 140726300474098 140726300474104 " +
  "140726300474104 140726300475378 0\n";

const KERNEL_THREAD =
  "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 25 0 0 " +
  "18446744073709551615 0 0 0 0 0 0 0 2147483647 0 1 0 0 0 0 0 0 0 0 0 0 0 0 " +
  "0 0 0 0 0\n";

Deno.test("stat gives what decides something, whatever the name holds", () => {
  assertEquals(parseStat(LEADER), {
    pid: 31675,
    comm: "a) R 1 (b",
    state: "S",
    ppid: 31659,
    pgrp: 31658,
    session: 1685,
    ttyNr: 34816,
    flags: 4194560,
    nice: -5,
    numThreads: 2,
    rss: 333,
    startCode: 94481549078528,
    endCode: 94481549080721,
    startStack: 140726300469904,
    kstkeip: 0,
    exitSignal: 17,
    rtPriority: 50,
    policy: 1,
    startData: 94481549090256,
    endData: 94481549091104,
    startBrk: 94482017193984,
    argStart: 140726300474098,
    argEnd: 140726300474104,
    envStart: 140726300474105,
    envEnd: 140726300475378,
    exitCode: 256,
  });
});

Deno.test("threads and kernel threads parse", () => {
  const thread = parseStat(THREAD);
  assertEquals(thread.comm, "x\ny\\z");
  assertEquals(thread.exitSignal, -1);
  assertEquals(thread.envEnd, 140726300475378);
  assertEquals(parseStat(KERNEL_THREAD).startStack, 0);
  assertEquals(parseStat(KERNEL_THREAD).flags, 2129984);
});

Deno.test("further fields of later kernels are no error", () => {
  assertEquals(
    parseStat(LEADER.replace(" 256\n", " 256 7 8\n")),
    parseStat(LEADER),
  );
});

Deno.test("a malformed stat is an error", () => {
  const cases: [string, string][] = [
    ["", "a pid and a name"],
    ["12 a S 1", "a pid and a name"],
    [LEADER.replace(" 256\n", "\n"), "50 fields after the name, found 49"],
    [LEADER.replace(") S ", ") SS "), "a state"],
    [LEADER.replace("31675 (", "x ("), "decimal"],
    [LEADER.replace("-5", "--5"), "signed"],
    [LEADER.replace("140726300469904", "9007199254740993"), "exact"],
  ];
  for (const [text, why] of cases) {
    const error = assertThrows(() => parseStat(text), CkptError);
    assertStringIncludes(error.reasons[0].why, why);
  }
});

Deno.test("damaged stat either parses or gives a CkptError", () => {
  assertParsesOrRejects(parseStat, [LEADER, THREAD, KERNEL_THREAD]);
});
