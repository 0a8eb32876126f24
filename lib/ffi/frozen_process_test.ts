import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { listThreads, readStat, readStatus } from "../proc/read.ts";
import { FrozenProcess } from "./frozen_process.ts";
import { ChildProgram } from "./testing/child_program.ts";
import { observeState } from "./testing/observed_state.ts";

const THREADS = `
gate = threading.Lock()
gate.acquire()
for i in range(9):
    threading.Thread(target=gate.acquire, daemon=True).start()
ready()
`;

const NOT_TRACED = 0;

function states(pid: number): string[] {
  return [...listThreads(pid)].map((tid) => readStat(tid).state);
}

Deno.test("all threads are stopped, the leader first, and go on unchanged", async () => {
  await using child = await ChildProgram.start(THREADS);
  const { pid } = child;
  const before = observeState(pid);
  {
    using frozen = FrozenProcess.freeze(pid, 1000);
    assertEquals(frozen.tids[0], pid);
    assertEquals(
      [...frozen.tids].sort((a, b) => a - b),
      [...listThreads(pid)].sort((a, b) => a - b),
    );
    assertEquals(frozen.tids.length, 10);
    assertEquals(new Set(states(pid)), new Set(["t"]));
    const { tracerPid } = readStatus(pid);
    assertEquals(readStatus(tracerPid).tgid, Deno.pid);
  }
  assertEquals(observeState(pid), before);
  assert(states(pid).every((state) => state !== "t"));
});

Deno.test("thawing twice is once, and a frozen process can be frozen again after", async () => {
  await using child = await ChildProgram.start(THREADS);
  for (let i = 0; i < 3; i++) {
    using frozen = FrozenProcess.freeze(child.pid, 1000);
    frozen.thaw();
    frozen.thaw();
    assertEquals(readStatus(child.pid).tracerPid, NOT_TRACED);
  }
});

Deno.test("a failure between freezing and thawing thaws", async () => {
  await using child = await ChildProgram.start(THREADS);
  assertThrows(
    () => {
      using _frozen = FrozenProcess.freeze(child.pid, 1000);
      throw new Error("on purpose");
    },
    Error,
    "on purpose",
  );
  assertEquals(readStatus(child.pid).tracerPid, NOT_TRACED);
  assert(states(child.pid).every((state) => state !== "t"));
});

Deno.test("one thread is stopped alone", async () => {
  await using child = await ChildProgram.start(THREADS);
  const [, , thread] = [...listThreads(child.pid)];
  {
    using frozen = FrozenProcess.askThread(thread)(1000);
    assertEquals([...frozen.tids], [thread]);
    const traced = [...listThreads(child.pid)].filter((tid) =>
      readStatus(tid).tracerPid !== NOT_TRACED
    );
    assertEquals(traced, [thread]);
  }
  assertEquals(readStatus(thread).tracerPid, NOT_TRACED);
});

Deno.test("killing ends the process before it runs again", async () => {
  await using child = await ChildProgram.start(THREADS);
  const frozen = FrozenProcess.freeze(child.pid, 1000);
  frozen.kill();
  let state: string | undefined;
  try {
    ({ state } = readStat(child.pid));
  } catch (error) {
    assert(error instanceof CkptError && error.exit === EXIT.gone);
  }
  assert(state === undefined || state === "Z", state);
});

Deno.test("a process that is gone, or is traced already, is told so", async () => {
  await using child = await ChildProgram.start("ready()");
  const { pid } = child;
  {
    using _frozen = FrozenProcess.freeze(pid, 1000);
    const error = assertThrows(
      () => FrozenProcess.freeze(pid, 1000),
      CkptError,
    );
    assertEquals(error.exit, EXIT.permission);
    assert(error.reasons[0].remedy?.includes("one program at a time"));
    assertEquals(states(pid), ["t"], "the first freeze is lost");
  }
  const gone = assertThrows(
    () => FrozenProcess.freeze(99_999_999, 1000),
    CkptError,
  );
  assertEquals(gone.exit, EXIT.gone);
});
