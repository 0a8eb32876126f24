import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { readStat } from "../proc/read.ts";
import { listTree } from "../task/process_tree.ts";
import {
  judgeTree,
  lookAtTree,
  surveyRunning,
  type TreeSurvey,
} from "./survey_tree.ts";

/** ckpt itself has number 1 of each kind. */
const FIRST_OBJECT = 2;

const OPTIONS = { shellJob: false, external: [] };

function survey(root: number, options = OPTIONS): TreeSurvey {
  return judgeTree(lookAtTree(listTree(root)), options);
}

function told({ reasons }: TreeSurvey): string[] {
  return reasons.map(({ object, why }) => `${object}: ${why}`);
}

Deno.test("a tree of plain programs can be saved, and is told whole", async () => {
  await using program = await ChildProgram.start(`
zombie = os.fork()
if zombie == 0:
    os._exit(3)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
stopped = child()[0]
os.kill(stopped, signal.SIGSTOP)
os.waitid(os.P_PID, stopped, os.WSTOPPED | os.WNOWAIT)
ready([zombie, stopped, *child(child)])
`);
  const { pid } = program;
  const [zombie, stopped, son, [grandson]] = program
    .answer as [number, number, number, [number, null]];
  const found = survey(pid);
  assertEquals(told(found), []);
  assertEquals(found.neededOptions, []);
  const living = [pid, stopped, son, grandson];
  assertEquals(found.processes.map(({ pid }) => pid), living);
  assertEquals(found.seen.zombies.map(({ pid }) => pid), [zombie]);
  assertEquals(
    found.seen.tree.members.map(({ pid, stat }) => [pid, stat.ppid]),
    [
      [pid, readStat(pid).ppid],
      [zombie, pid],
      [stopped, pid],
      [son, pid],
      [grandson, son],
    ],
  );
  assertEquals(
    [...found.seen.objects],
    living.map((pid, i) => {
      const number = FIRST_OBJECT + i;
      return [pid, {
        vm: number,
        files: number,
        fs: number,
        sighand: number,
        ioContext: false,
        semaphoreUndo: false,
      }];
    }),
  );
  assertEquals(surveyRunning(pid, OPTIONS)?.reasons, []);
  // Another look takes what is still the same from the one before.
  const again = lookAtTree(listTree(pid), found.seen);
  again.processes.forEach((process, i) =>
    assert(process.mappings === found.seen.processes[i].mappings)
  );
});

Deno.test("descriptors and directories can be shared with the parent", async () => {
  await using program = await ChildProgram.start(`
both = CLONE_FILES | CLONE_FS | signal.SIGCHLD
ready([
    child(lambda: child(flags=both), flags=both),
    child(flags=CLONE_FS | signal.SIGCHLD),
])
`);
  const [[son, [grandson]], [other]] = program
    .answer as [[number, [number, null]], [number, null]];
  const found = survey(program.pid);
  assertEquals(told(found), []);
  const numbers = (kind: "files" | "fs" | "vm") =>
    [program.pid, son, grandson, other].map((pid) =>
      found.seen.objects.get(pid)![kind] - FIRST_OBJECT
    );
  assertEquals(numbers("files"), [0, 0, 0, 1]);
  assertEquals(numbers("fs"), [0, 0, 0, 0]);
  assertEquals(numbers("vm"), [0, 1, 2, 3]);
});

Deno.test("what is shared with a sibling is taken, what is shared with a grandparent alone is refused", async () => {
  await using program = await ChildProgram.start(`
CLONE_PARENT = 0x8000
def brother():
    return child(flags=CLONE_FILES | CLONE_PARENT | signal.SIGCHLD)[0]
def apart():
    grandson = child(flags=CLONE_FS | signal.SIGCHLD)[0]
    assert libc.unshare(CLONE_FS) == 0
    return grandson
ready([child(brother), child(apart, CLONE_FS | signal.SIGCHLD)])
`);
  const [[son, brother], [, grandson]] = program
    .answer as [number, number][];
  const found = survey(program.pid);
  const files = (pid: number) => found.seen.objects.get(pid)!.files;
  assertEquals(files(brother), files(son));
  assertEquals(told(found), [
    `task ${grandson}: it shares its directories and umask with task ` +
    `${program.pid}, but could not be born from one that has them; ` +
    "that is not supported",
  ]);
});

Deno.test("memory can be shared with the parent", async () => {
  await using program = await ChildProgram.start(`
CLONE_VM, STACK = 0x100, 65536
stack = mmap.mmap(-1, STACK)
top = ctypes.addressof(ctypes.c_char.from_buffer(stack)) + STACK
libc.clone.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
                       ctypes.c_void_p]
ready(libc.clone(ctypes.cast(libc.pause, ctypes.c_void_p), top,
                 CLONE_VM | CLONE_FILES | signal.SIGCHLD, None))
`);
  const other = program.answer as number;
  try {
    const found = survey(program.pid);
    assertEquals(told(found), []);
    const { objects, vforks } = found.seen;
    const [own, shared] = [program.pid, other].map((pid) => objects.get(pid)!);
    assertEquals(
      [shared.vm, shared.files, shared.fs, shared.sighand],
      [own.vm, own.files, own.fs + 1, own.sighand + 1],
    );
    assertEquals(vforks.size, 0);
  } finally {
    Deno.kill(other, "SIGKILL");
  }
});

Deno.test("what the root shares with its parent is refused, with the parent to be dumped", async () => {
  await using program = await ChildProgram.start(`
def leads():
    os.setsid()
ready(child(leads, CLONE_FILES | CLONE_FS | signal.SIGCHLD)[0])
`);
  const { reasons } = survey(program.answer as number);
  assertEquals(reasons, [{
    object: `task ${program.answer}`,
    why: "it shares its descriptors, directories and umask with its parent " +
      `${program.pid}, which is not part of what is dumped`,
    remedy: `dump the parent: ckpt dump -t ${program.pid}`,
  }]);
  assertEquals(told(survey(program.pid)), []);
});

Deno.test("a session of the outside needs one option for the whole tree", async () => {
  await using program = await ChildProgram.start(
    "ready(child(child))",
    false,
  );
  const found = survey(program.pid);
  assertEquals(found.neededOptions, ["--shell-job"]);
  assertEquals(found.reasons.length, 1);
  assertEquals(
    told(survey(program.pid, { ...OPTIONS, shellJob: true })),
    [],
  );
});

Deno.test("the reasons of all processes are told at once", async () => {
  await using program = await ChildProgram.start(`
def holds():
    libc.syscall(323, 0) # userfaultfd(2)
ready([child(holds)[0], child(holds)[0]])
`);
  const [first, second] = program.answer as number[];
  const { reasons } = survey(program.pid);
  for (const pid of [first, second]) {
    assert(reasons.some(({ object }) => object.endsWith(`task ${pid}`)));
  }
});

Deno.test("an epoll may watch what the tree has open by any number, and nothing else", async () => {
  await using program = await ChildProgram.start(`
import select
ends = os.pipe()
kept = os.dup2(ends[0], 105)
def watches():
    os.setsid()
    globals()["epoll"] = select.epoll()
    epoll.register(kept, select.EPOLLIN)
    os.close(kept)
ready([child(watches)[0], kept])
`);
  const [pid, kept] = program.answer as number[];
  assertEquals(told(survey(program.pid)), []);
  const [{ why }, ...others] = survey(pid).reasons;
  assertEquals(others, []);
  assertMatch(
    why,
    new RegExp(
      `^it watches a file that was descriptor ${kept} and that no process of ` +
        `the tree has open any more, but task ${program.pid} \\(python3\\) ` +
        "outside of the program, as descriptor \\d+$",
    ),
  );
});

Deno.test("a root that is gone is told as gone, a tree that vanishes while it is seen is tried again", async () => {
  const error = assertThrows(
    () => surveyRunning(99_999_999, OPTIONS),
    CkptError,
  );
  assertEquals(error.exit, EXIT.gone);
  await using program = await ChildProgram.start("ready(child()[0])");
  const tree = listTree(program.pid);
  const gone = program.answer as number;
  Deno.kill(gone, "SIGKILL");
  while (readStat(gone).state !== "Z") {
    await new Promise((done) => setTimeout(done, 1));
  }
  // What was listed as living has no memory any more.
  assertThrows(() => lookAtTree(tree));
  assertEquals(surveyRunning(program.pid, OPTIONS)?.seen.zombies.length, 1);
});

Deno.test("a tree that no restore could make is refused", async () => {
  await using program = await ChildProgram.start("ready(child(os.setsid)[0])");
  assertEquals(surveyRunning(program.pid, OPTIONS)?.reasons, []);
  const seen = lookAtTree(listTree(program.pid));
  const [root, child] = seen.tree.members;
  // In a group of another session: no program can be like this.
  const stat = { ...child.stat, pgrp: root.pid };
  const members = [root, { ...child, stat }];
  const { reasons } = judgeTree(
    { ...seen, tree: { ...seen.tree, members } },
    OPTIONS,
  );
  assertEquals(
    new Set(reasons.map(({ object }) => object)),
    new Set([`process ${child.pid}`]),
  );
});
