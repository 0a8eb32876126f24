import { assert, assertEquals } from "@std/assert";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import {
  minimalChild,
  type MinimalImage,
  minimalImage,
} from "../image/testing/minimal_image.ts";
import { listThreads, readStat } from "../proc/read.ts";
import { freePid } from "../task/testing/agent_task.ts";
import { takenIds } from "./taken_ids.ts";
import { withTree } from "./testing/tree_images.ts";

/** What is told of a tree of these processes; the first one is the root. */
function told(pids: readonly number[], threads: readonly number[] = []) {
  const [first, ...others] = pids;
  const root = minimalImage(first);
  root.pstree[0].threads.push(...threads);
  const { core } = minimalImage();
  return withTree(
    [
      root,
      ...others.map((pid) =>
        minimalChild(pid, { ppid: first, pgid: first, sid: first })
      ),
    ],
    takenIds,
    threads.map((tid) => ["core", tid, { ...core, tc: undefined }]),
  );
}

Deno.test("ids that nobody has are no reason", async () => {
  assertEquals(await told([freePid(), freePid()], [freePid()]), []);
});

Deno.test("an id of any process or thread of the tree may be taken by a process", async () => {
  await using child = await ChildProgram.start("ready()");
  for (
    const [pids, threads] of [
      [[child.pid], []],
      [[freePid(), child.pid], []],
      [[freePid()], [child.pid]],
    ]
  ) {
    const [{ object, why, remedy }, ...others] = await told(pids, threads);
    assertEquals(others, []);
    // It leads its group and session, too: the process is what matters.
    assertEquals([object, why], [
      `pid ${child.pid}`,
      'it is taken by "python3"',
    ]);
    assert(remedy?.includes("new pid namespace"));
  }
});

Deno.test("ids of sessions and groups without leader are needed, those of the outside are not", async () => {
  await using child = await ChildProgram.start("ready()");
  const [first, second] = [freePid(), freePid()];
  const root = minimalImage(first);
  const other = minimalChild(second, {
    ppid: first,
    sid: first,
    pgid: child.pid,
  });
  const objects = (images: MinimalImage[]) =>
    withTree(
      images,
      async (tree) => (await takenIds(tree)).map(({ object }) => object),
    );
  assertEquals(await objects([root, other]), [`pid ${child.pid}`]);
  other.pstree[0].sid = child.pid;
  assertEquals(await objects([root, other]), [`pid ${child.pid}`]);
  // A job of a shell: session and group of the root are not made again.
  Object.assign(root.pstree[0], { sid: child.pid, pgid: child.pid });
  assertEquals(await objects([root, other]), []);
});

Deno.test("an id may be taken by a thread", async () => {
  await using child = await ChildProgram.start(`
gate = threading.Lock()
gate.acquire()
threading.Thread(target=gate.acquire, daemon=True).start()
ready()
`);
  const thread = listThreads(child.pid).find((tid) => tid !== child.pid)!;
  const reasons = await told([thread]);
  assertEquals(reasons.map(({ why }) => why), [
    `it is taken by a thread of process ${child.pid} ("python3")`,
  ]);
});

/** Leaves a process whose leader is gone: that forks it, and ends. */
const orphaned = (change: string) => `
reading, writing = os.pipe()
gone = os.fork()
if gone == 0:
    ${change}
    left = os.fork()
    if left == 0:
        os.closerange(3, 101)
        while True:
            signal.pause()
    os.write(writing, str(left).encode())
    os._exit(0)
os.waitpid(gone, 0)
ready([gone, int(os.read(reading, 20))])
`;

Deno.test("an id may be taken as that of a group or a session, whose leader is gone", async () => {
  for (const change of ["os.setpgid(0, 0)", "os.setsid()"]) {
    await using child = await ChildProgram.start(orphaned(change));
    const [gone, orphan] = child.answer as [number, number];
    try {
      const reasons = await told([freePid(), gone]);
      // With a session goes its first group.
      assertEquals(reasons.map(({ object, why }) => [object, why]), [[
        `pid ${gone}`,
        `it is taken by process ${orphan} ("python3") as the id of its ` +
        "process group",
      ]]);
    } finally {
      Deno.kill(orphan, "SIGKILL");
    }
  }
});

Deno.test("an id may be taken as that of a session whose first group is gone, too", async () => {
  await using child = await ChildProgram.start(
    orphaned("os.setsid()").replace(
      "while True:",
      "os.setpgid(0, 0)\n        while True:",
    ),
  );
  const [gone, orphan] = child.answer as [number, number];
  try {
    while (readStat(orphan).pgrp !== orphan) {
      await new Promise((done) => setTimeout(done, 1));
    }
    assertEquals((await told([gone])).map(({ why }) => why), [
      `it is taken by process ${orphan} ("python3") as the id of its session`,
    ]);
  } finally {
    Deno.kill(orphan, "SIGKILL");
  }
});

/** A zombie that its parent takes when it gets SIGUSR1. */
const ZOMBIE = `
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
signal.signal(signal.SIGUSR1, lambda *_: os.waitpid(zombie, 0))
ready(zombie)
`;

Deno.test("a process that has ended is waited for until its parent takes it", async () => {
  await using child = await ChildProgram.start(ZOMBIE);
  const zombie = child.answer as number;
  const waiting = told([zombie]);
  const TAKEN_AFTER_MS = 100;
  const began = performance.now();
  const timer = setTimeout(
    () => Deno.kill(child.pid, "SIGUSR1"),
    TAKEN_AFTER_MS,
  );
  try {
    assertEquals(await waiting, []);
    assert(performance.now() - began >= TAKEN_AFTER_MS - 1);
  } finally {
    clearTimeout(timer);
  }
});

Deno.test("nobody waits for a process that has ended when another one is in the way", async () => {
  await using child = await ChildProgram.start(ZOMBIE);
  const zombie = child.answer as number;
  const began = performance.now();
  const reasons = await told([child.pid, zombie]);
  assert(performance.now() - began < 1000);
  assertEquals(reasons.map(({ object, why }) => [object, why]), [
    [`pid ${child.pid}`, 'it is taken by "python3"'],
    [
      `pid ${zombie}`,
      'it is taken by "python3", which has ended but whose parent did not ' +
      "take notice",
    ],
  ]);
});

Deno.test("a process that has ended and that nobody takes is told after a while", async () => {
  await using child = await ChildProgram.start(ZOMBIE);
  const [{ why }, ...others] = await told([child.answer as number]);
  assertEquals(others, []);
  assert(why.includes("which has ended but whose parent did not take notice"));
});
