import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { listThreads, readStat } from "../proc/read.ts";
import { listTree } from "./process_tree.ts";

function pidsOf(tree: ReturnType<typeof listTree>): number[] {
  return tree.members.map(({ pid }) => pid);
}

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((wait) => setTimeout(wait, 1));
}

Deno.test("a process alone is a tree, and one that does not exist is gone", async () => {
  await using child = await ChildProgram.start("ready()");
  const { members, deadSnapshots } = listTree(child.pid);
  assertEquals(members, [{
    pid: child.pid,
    stat: readStat(child.pid),
    tid: child.pid,
    zombie: false,
  }]);
  assertEquals(deadSnapshots.size, 0);
  const error = assertThrows(() => listTree(99_999_999), CkptError);
  assertEquals(error.exit, EXIT.gone);
});

Deno.test("the root comes first, and every process before its children", async () => {
  await using child = await ChildProgram.start(`
def below(depth):
    return lambda: [child(below(depth - 1)) for i in range(2)] if depth else []
ready(child(below(3))[1])
`);
  type Family = [pid: number, children: Family][];
  const flatten = (family: Family): number[] =>
    family.flatMap(([pid, children]) => [pid, ...flatten(children)]);
  const below = flatten(child.answer as Family);
  assertEquals(below.length, 2 + 4 + 8);
  const pids = pidsOf(listTree(child.pid));
  // The child between is not in the answer.
  assertEquals(pids.length, 2 + below.length);
  assertEquals(pids[0], child.pid);
  // Children of one parent come in the order of their births, depth first.
  assertEquals(pids.slice(2), below);
  for (const { pid, stat } of listTree(child.pid).members.slice(1)) {
    assert(pids.indexOf(stat.ppid) < pids.indexOf(pid));
  }
});

Deno.test("those that have ended are told as zombies, a leader with threads is none", async () => {
  await using child = await ChildProgram.start(`
def leaderless():
    gate = threading.Lock()
    gate.acquire()
    threading.Thread(target=gate.acquire).start()
    def leave():
        SYS_exit = 60
        libc.syscall(SYS_exit, 0)
    signal.signal(signal.SIGUSR1, lambda *_: leave())
zombie = os.fork()
if zombie == 0:
    os._exit(42)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
killed = child()[0]
os.kill(killed, signal.SIGTERM)
os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
ready([zombie, killed, child(leaderless)[0]])
`);
  const [zombie, killed, leaderless] = child.answer as number[];
  Deno.kill(leaderless, "SIGUSR1");
  await until(() => readStat(leaderless).state === "Z");
  assertEquals(listThreads(leaderless).length, 2);
  const visited: number[] = [];
  const { members } = listTree(child.pid, (pid) => {
    visited.push(pid);
    return true;
  });
  assertEquals(
    members.map(({ pid, zombie, stat }) => [pid, zombie, stat.exitCode]),
    [
      [child.pid, false, 0],
      [zombie, true, 42 << 8],
      [killed, true, 15],
      [leaderless, false, 0],
    ],
  );
  const [, other] = listThreads(leaderless);
  assertEquals(members.at(-1)!.tid, other);
  assertEquals(visited, [child.pid, leaderless]);
});

Deno.test("a zombie that is named itself is a tree of one", async () => {
  await using child = await ChildProgram.start(`
zombie = os.fork()
if zombie == 0:
    os._exit(0)
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
ready(zombie)
`);
  const { members } = listTree(child.answer as number);
  assertEquals(members.map(({ zombie }) => zombie), [true]);
});

Deno.test("copies that a killed ckpt left are not of the tree", async () => {
  await using child = await ChildProgram.start(`
WALL, NO_SIGNAL = 0x40000000, 0
def copies():
    pids = [child(flags=NO_SIGNAL)[0] for i in range(2)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | WALL)
    return pids
ready([child(copies), child(copies)])
`);
  const families = child.answer as [number, number[]][];
  const { members, deadSnapshots } = listTree(child.pid);
  assertEquals(members.map(({ pid }) => pid), [
    child.pid,
    ...families.map(([pid]) => pid),
  ]);
  assertEquals(deadSnapshots, new Map(families));
});

Deno.test("a process that is gone when it is visited is left out, with what is below it", async () => {
  await using child = await ChildProgram.start(`
ready([child(child), child(child)])
`);
  const [[first], [second, [below]]] = child.answer as [
    number,
    [number, null],
  ][];
  const tree = listTree(child.pid, (pid) => pid !== first);
  assertEquals(pidsOf(tree), [child.pid, second, below]);
});

Deno.test("a process whose parent ends while the tree is listed is there once", async () => {
  await using child = await ChildProgram.start(`
PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG = 36, 1
libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
def stays():
    libc.prctl(PR_SET_PDEATHSIG, 0)
def between():
    return child(stays)[0]
ready([child(between), child()[0]])
`);
  const [[between, orphan], last] = child.answer as [[number, number], number];
  try {
    // Seen below its parent, which ends, and once more below the root.
    let ended = false;
    const tree = listTree(child.pid, (pid) => {
      if (pid === orphan && !ended) {
        ended = true;
        Deno.kill(between, "SIGKILL");
        while (readStat(orphan).ppid !== child.pid);
      }
      return true;
    });
    assertEquals(pidsOf(tree), [child.pid, between, orphan, last]);
    const again = listTree(child.pid);
    assertEquals(
      new Map(again.members.map(({ pid, zombie }) => [pid, zombie])),
      new Map([
        [child.pid, false],
        [between, true],
        [last, false],
        [orphan, false],
      ]),
    );
  } finally {
    Deno.kill(orphan, "SIGKILL");
  }
});
