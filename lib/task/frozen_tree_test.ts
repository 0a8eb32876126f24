import { assertEquals, assertRejects } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { listThreads, readStat, readStatus } from "../proc/read.ts";
import { FrozenTree } from "./frozen_tree.ts";
import { listTree } from "./process_tree.ts";

const LONG_MS = 10_000;

function states(pids: readonly number[]): string[] {
  return [
    ...new Set(pids.flatMap(listThreads).map((tid) => readStat(tid).state)),
  ];
}

/** Ends what the program left below it; its own end is for its scope. */
function killChildren({ pid }: ChildProgram): void {
  for (const { pid: child, zombie } of listTree(pid).members) {
    if (child !== pid && !zombie) Deno.kill(child, "SIGKILL");
  }
}

Deno.test("all threads of all processes are stopped, parents first, and go on", async () => {
  await using program = await ChildProgram.start(`
for i in range(3):
    if os.fork() == 0:
        os.close(report)
        for i in range(2):
            threading.Thread(target=signal.pause, daemon=True).start()
            os.fork()
        signal.pause()
if os.fork() == 0:
    os._exit(0)
ready()
`);
  const living = () =>
    listTree(program.pid).members.filter(({ zombie }) => !zombie)
      .map(({ pid }) => pid);
  while (living().length < 13) await new Promise((done) => setTimeout(done, 1));
  {
    using frozen = await FrozenTree.freeze(program.pid, LONG_MS);
    const pids = frozen.processes.map(({ pid }) => pid);
    assertEquals(pids, living());
    assertEquals(pids[0], program.pid);
    assertEquals(frozen.tree.members.length, pids.length + 1, "the zombie");
    assertEquals(states(pids), ["t"]);
    for (const { pid, tids } of frozen.processes) {
      assertEquals([...tids].sort((a, b) => a - b), listThreads(pid));
    }
  }
  assertEquals(
    living().map((pid) => readStatus(pid).tracerPid),
    Array(13).fill(0),
  );
  killChildren(program);
});

Deno.test("a tree that makes and ends processes and threads all the time is stopped whole", async () => {
  await using program = await ChildProgram.start(`
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
def churn():
    for i in range(3):
        if os.fork() == 0:
            if i == 0:
                thread = threading.Thread(target=lambda: None)
                thread.start()
            os._exit(0)
for i in range(2):
    if os.fork() == 0:
        libc.prctl(1, 9)
        os.close(report)
        while True:
            churn()
ready()
`);
  for (let i = 0; i < 30; i++) {
    using frozen = await FrozenTree.freeze(program.pid, LONG_MS);
    const pids = frozen.processes.map(({ pid }) => pid);
    const now = listTree(program.pid).members;
    assertEquals(
      now.filter(({ zombie }) => !zombie).map(({ pid }) => pid),
      pids,
      "somebody ran on",
    );
    assertEquals(states(pids), ["t"]);
  }
});

Deno.test("a root that is gone is told so", async () => {
  const gone = await assertRejects(
    () => FrozenTree.freeze(99_999_999, LONG_MS),
    CkptError,
  );
  assertEquals(gone.exit, EXIT.gone);
});

Deno.test("of a process whose first thread has ended, the others are stopped", async () => {
  await using program = await ChildProgram.start(`
child = os.fork()
if child == 0:
    libc.prctl(1, 9)
    os.close(report)
    threading.Thread(target=signal.pause, daemon=True).start()
    libc.syscall(60, 0)
ready(child)
`);
  const child = program.answer as number;
  while (readStat(child).state !== "Z") {
    await new Promise((done) => setTimeout(done, 1));
  }
  const [leader, other] = listThreads(child);
  assertEquals(leader, child);
  {
    using frozen = await FrozenTree.freeze(program.pid, LONG_MS);
    assertEquals(frozen.processes.map(({ pid }) => pid), [program.pid, child]);
    assertEquals([...frozen.processes[1].tids], [other]);
    assertEquals(readStat(other).state, "t");
  }
  assertEquals(readStatus(other).tracerPid, 0);
  Deno.kill(child, "SIGKILL");
});

Deno.test("whose child a process is, of which thread, is told of a tree that stands still", async () => {
  await using program = await ChildProgram.start(`
below = []
done = threading.Event()
def parent():
    below.append(child()[0])
    below.append(threading.get_native_id())
    done.set()
    signal.pause()
first = child()[0]
threading.Thread(target=parent, daemon=True).start()
done.wait()
ready([first, *below])
`);
  const [, second, thread] = program.answer as number[];
  using frozen = await FrozenTree.freeze(program.pid, LONG_MS);
  assertEquals([...frozen.tree.parentThreads!], [[second, thread]]);
});
