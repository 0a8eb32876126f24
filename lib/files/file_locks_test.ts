import { assertEquals } from "@std/assert";
import type { file_lock_entry } from "../image/schema.gen.ts";
import { parseLock } from "../proc/locks.ts";
import {
  describeLock,
  dumpLocks,
  LOCK_FLAG,
  type LockingProcess,
  lockProblem,
  unsupportedLocks,
} from "./file_locks.ts";
import { excludes } from "./taken_locks.ts";

const DEVICE = "fe:00:77";

function lock(text: string) {
  return parseLock({ source: "test", line: 1, text })!;
}

/** A process with a table of its own unless another number is given. */
function process(
  pid: number,
  descriptors: Record<number, [place: string, ...locks: string[]]>,
  filesId = pid,
): LockingProcess {
  return {
    pid,
    filesId,
    descriptors: Object.entries(descriptors).map(([fd, [place, ...locks]]) => {
      const [owner, number] = place.split(" ").map(Number);
      return {
        fd: Number(fd),
        info: { locks },
        place: { pid: owner, fd: number },
      };
    }),
  };
}

function short({ flag, type, pid, fd, start, len }: file_lock_entry): string {
  return `${flag} ${type} ${pid}/${fd} ${start}+${len}`;
}

Deno.test("every lock is told once, by the process that took it", () => {
  const record = (pid: number) => `POSIX  ADVISORY  WRITE ${pid} ${DEVICE} 5 9`;
  const flock = (pid: number) => `FLOCK  ADVISORY  READ ${pid} ${DEVICE} 0 EOF`;
  const opened = `OFDLCK ADVISORY  WRITE -1 ${DEVICE} 0 EOF`;
  const lease = `LEASE  ACTIVE    READ 20 ${DEVICE} 0 EOF`;
  for (
    const [what, processes, expected] of [
      ["nothing", [process(10, { 3: ["10 3"] })], []],
      ["a descriptor and its duplicate", [
        process(10, {
          3: ["10 3", `1: ${record(10)}`],
          4: ["10 3", `1: ${record(10)}`],
        }),
      ], ["1 1 10/3 5+5"]],
      ["each its own record lock by one open file", [
        process(10, { 3: ["10 3", `1: ${record(10)}`] }),
        process(20, { 4: ["10 3", `1: ${record(20)}`] }),
      ], ["1 1 10/3 5+5", "1 1 20/4 5+5"]],
      ["a record lock of a shared table", [
        process(10, { 3: ["10 3", `1: ${record(20)}`] }, 1),
        process(20, { 3: ["10 3", `1: ${record(20)}`] }, 1),
      ], ["1 1 20/3 5+5"]],
      ["a flock that a child took", [
        process(10, { 3: ["10 3", `1: ${flock(20)}`] }),
        process(20, { 7: ["10 3", `1: ${flock(20)}`] }),
      ], ["2 0 20/7 0+0"]],
      ["a flock whose taker has ended", [
        process(10, { 3: ["10 3", `1: ${flock(30)}`] }),
        process(20, { 7: ["10 3", `1: ${flock(30)}`] }),
      ], ["2 0 10/3 0+0"]],
      ["locks of an open file, and a lease", [
        process(10, { 3: ["10 3", `1: ${opened}`, `2: ${lease}`] }),
        process(20, { 7: ["10 3", `1: ${opened}`, `2: ${lease}`] }),
      ], ["4 1 10/3 0+0", "8 0 20/7 0+0"]],
    ] as [string, LockingProcess[], string[]][]
  ) assertEquals(dumpLocks(processes).map(short), expected, what);
});

Deno.test("what cannot be saved is told", () => {
  const lease = lock(`1: LEASE  ACTIVE    WRITE 1 ${DEVICE} 0 EOF`);
  assertEquals(lockProblem(lease, 1n), undefined);
  assertEquals(
    lockProblem(lock(`1: FLOCK  ADVISORY  READ 1 ${DEVICE} 0 EOF`), 0n),
    undefined,
  );
  for (
    const [text, nlink] of [
      [`1: LEASE  BREAKING  READ 1 ${DEVICE} 0 EOF`, 1n],
      [`1: LEASE  ACTIVE    READ 1 ${DEVICE} 0 EOF`, 0n],
      [`1: DELEG  ACTIVE    READ 1 ${DEVICE} 0 EOF`, 1n],
      [`1: NEWER  ADVISORY  READ 1 ${DEVICE} 0 EOF`, 1n],
    ] as const
  ) {
    assertEquals(
      lockProblem(lock(text), nlink)?.why.startsWith("it holds a "),
      true,
      text,
    );
  }
  const entry = { pid: 1, fd: 2, start: 0n, len: 0n };
  assertEquals(
    unsupportedLocks([
      { ...entry, flag: LOCK_FLAG.lease, type: 5 },
      { ...entry, flag: LOCK_FLAG.flock, type: 0xe0 },
      { ...entry, flag: LOCK_FLAG.flock, type: 1 },
    ]).length,
    2,
  );
});

Deno.test("a lock of the host excludes one of an image where they overlap and one writes", () => {
  const range = (flag: number, type: number, start: bigint, len: bigint) => ({
    flag,
    type,
    pid: 1,
    fd: 3,
    start,
    len,
  });
  const { posix, ofd, flock, lease } = LOCK_FLAG;
  const written = `POSIX  ADVISORY  WRITE 1 ${DEVICE} 10 19`;
  const read = `OFDLCK ADVISORY  READ -1 ${DEVICE} 10 EOF`;
  for (
    const [text, entry, expected] of [
      [written, range(posix, 0, 0n, 10n), false],
      [written, range(posix, 0, 0n, 11n), true],
      [written, range(ofd, 1, 19n, 1n), true],
      [written, range(ofd, 1, 20n, 0n), false],
      [written, range(posix, 0, 0n, 0n), true],
      [written, range(flock, 1, 0n, 0n), false],
      [read, range(posix, 0, 30n, 1n), false],
      [read, range(posix, 1, 30n, 1n), true],
      [
        `FLOCK  ADVISORY  READ 1 ${DEVICE} 0 EOF`,
        range(flock, 0, 0n, 0n),
        false,
      ],
      [
        `FLOCK  ADVISORY  READ 1 ${DEVICE} 0 EOF`,
        range(flock, 1, 0n, 0n),
        true,
      ],
      [
        ` -> FLOCK  ADVISORY  WRITE 1 ${DEVICE} 0 EOF`,
        range(flock, 1, 0n, 0n),
        false,
      ],
      [
        `LEASE  ACTIVE    READ 1 ${DEVICE} 0 EOF`,
        range(lease, 0, 0n, 0n),
        false,
      ],
      [
        `LEASE  ACTIVE    READ 1 ${DEVICE} 0 EOF`,
        range(posix, 1, 0n, 0n),
        false,
      ],
    ] as const
  ) {
    const what = `${text}, ${describeLock(entry)}`;
    assertEquals(excludes(lock(`1: ${text}`), entry), expected, what);
  }
});
