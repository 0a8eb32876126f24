import { assert, assertEquals, assertThrows } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import { readStoppedThreads, type StoppedThread } from "../dump/threads.ts";
import { seededRandom } from "../image/testing/random.ts";
import { readMaps } from "../proc/read.ts";
import type { OwnCall } from "./call_code.ts";
import { FrozenProcess } from "./frozen_process.ts";
import { Program } from "./program.ts";
import {
  type Cave,
  cureSize,
  findCave,
  injectAlone,
  isInsideAgent,
  RemoteTask,
  threadCode,
} from "./remote_task.ts";
import { Snapshot } from "./snapshot.ts";
import { syscall } from "./syscall.ts";
import { TaskMemory } from "./task_memory.ts";
import { ChildProgram } from "./testing/child_program.ts";
import { observeState } from "./testing/observed_state.ts";
import { readThreads } from "./thread_state.ts";

const THREADS = `
gate = threading.Lock()
gate.acquire()
for i in range(3):
    threading.Thread(target=gate.acquire, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
ready()
`;

const ROOM = 65536;

const PR_GET_NAME = 16;
const NAME_AT = 24;
/** Every argument, and as many results as there may be. */
const CALLS: readonly OwnCall[] = [
  { name: "prctl", args: [PR_GET_NAME, { scratch: NAME_AT }] },
  { name: "close", args: [9999] },
  { name: "madvise", args: [1, 0, 0] },
  { name: "pread64", args: [0xffff_ffff, { scratch: 0 }, 1, 0] },
  ...Array.from({ length: 7 }, () => ({
    name: "prctl" as const,
    args: [0x7fff_0000, 0, 1, 2, 3],
  })),
  { name: "close", args: [0x7fff_ffff] },
];
const RESULTS = [0n, -9n, -22n, -9n, ...Array(7).fill(-22n), -9n];
const CODE = threadCode(CALLS);

/** A stopped process, and what is needed to enter it. */
interface Stopped {
  pid: number;
  threads: StoppedThread[];
  memory: TaskMemory;
  cave: Cave;
  frozen: FrozenProcess;
}

function vdsoOf(pid: number) {
  return readMaps(pid).filter(({ path }) => path === "[vdso]");
}

/** Registers and signal masks of all threads, from the kernel. */
function registersOf(frozen: FrozenProcess) {
  return readThreads(frozen.tids).map(({ tid, registers, signalMask }) => [
    tid,
    signalMask,
    ...registers,
  ]);
}

function stop<T>(pid: number, act: (stopped: Stopped) => T): T {
  using frozen = FrozenProcess.freeze(pid, 1000);
  using memory = TaskMemory.open(pid);
  const threads = readStoppedThreads(frozen.tids, memory);
  const cave = findCave(memory, vdsoOf(pid), CODE);
  return act({ pid, threads, memory, cave, frozen });
}

Deno.test("a program that runs in a task leaves no trace", async () => {
  await using child = await ChildProgram.start(THREADS);
  const { pid } = child;
  const before = observeState(pid);
  const first = stop(pid, ({ frozen }) => registersOf(frozen));
  stop(pid, ({ threads, memory, cave, frozen }) => {
    const stopped = observeState(pid);
    const vdso = memory.read(cave.code, cave.length);
    assertEquals(vdso, new Uint8Array(cave.length));
    {
      using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
      const program = new Program();
      const own = program.call("getpid", [], "asking the pid");
      const file = program.call(
        "openat",
        [-100, program.text("/dev/null"), 0, 0],
        "opening",
      );
      const path = program.reserve(64);
      program.call("close", [file], "closing");
      const size = program.call(
        "readlinkat",
        [-100, program.text("/proc/self/exe"), path, 64],
        "reading",
      );
      const outcome = remote.run(program);
      assertEquals(outcome.result(own), BigInt(pid));
      const text = new TextDecoder().decode(
        new Uint8Array(
          outcome.data(path).buffer,
          outcome.data(path).byteOffset,
          Number(outcome.result(size)),
        ),
      );
      assertEquals(text, Deno.readLinkSync(`/proc/${pid}/exe`));
      // A second program, and calls in the other threads, while inside.
      const again = new Program();
      const thread = again.call("gettid", [], "asking the thread id");
      assertEquals(remote.run(again).result(thread), BigInt(pid));
      const others = threads.slice(1);
      const scratch = remote.room + BigInt(ROOM / 2);
      const results = remote.askThreads(
        others.map(({ host }) => host),
        CODE,
        CALLS.length,
        scratch,
        64,
      );
      assertEquals(results, others.map(() => RESULTS));
      others.forEach(({ tid }, i) => {
        const at = scratch + BigInt(i * 64 + NAME_AT);
        const name = memory.read(at, 16);
        assertEquals(
          new TextDecoder().decode(name).replace(/\0.*/, ""),
          Deno.readTextFileSync(`/proc/${tid}/comm`).trimEnd(),
        );
      });
    }
    assertEquals(observeState(pid), stopped);
    assertEquals(memory.read(cave.code, cave.length), vdso);
    // As the kernel would let it go on: an interrupted call begins again.
    assertEquals(
      registersOf(frozen),
      threads.map(({ tid, host }) => [tid, host.signalMask, ...host.registers]),
    );
  });
  assertEquals(observeState(pid), before);
  await settled(pid);
  assertEquals(stop(pid, ({ frozen }) => registersOf(frozen)), first);
});

/** Until the main thread waits in pause(2) again. */
async function settled(pid: number): Promise<void> {
  while (!Deno.readTextFileSync(`/proc/${pid}/syscall`).startsWith("34 ")) {
    await new Promise((done) => setTimeout(done, 1));
  }
}

Deno.test("a signal that came meanwhile stays pending while its thread is asked", async () => {
  const SIGUSR1 = 10n;
  const pending = (tid: number) =>
    /^SigPnd:.*$/m.exec(Deno.readTextFileSync(`/proc/${tid}/status`))?.[0];
  for (const withQuietSignal of [true, false]) {
    await using child = await ChildProgram.start(THREADS);
    stop(child.pid, ({ pid, threads, memory, cave }) => {
      const [leader, ...others] = threads.map(({ host }) =>
        withQuietSignal ? host : { ...host, quietSignal: 0 }
      );
      for (const { tid } of others) {
        // Its action is the default one: to end the process.
        syscall("tgkill", BigInt(pid), BigInt(tid), SIGUSR1);
      }
      const before = others.map(({ tid }) => pending(tid));
      assert(before.every((line) => line?.endsWith("200")), `${before}`);
      using remote = RemoteTask.enter(leader, memory, cave, ROOM);
      const results = remote.askThreads(
        others,
        CODE,
        CALLS.length,
        remote.room + BigInt(ROOM / 2),
        64,
      );
      assertEquals(results, others.map(() => RESULTS));
      assertEquals(others.map(({ tid }) => pending(tid)), before);
    });
  }
});

Deno.test("random programs, entered again and again, leave no trace", async () => {
  await using child = await ChildProgram.start(THREADS);
  const { pid } = child;
  const random = seededRandom(31);
  const before = observeState(pid);
  for (let round = 0; round < 25; round++) {
    stop(pid, ({ threads, memory, cave }) => {
      using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
      const program = new Program();
      const count = Math.floor(random() * 50);
      const results = Array.from({ length: count }, () => {
        switch (Math.floor(random() * 4)) {
          case 0:
            return [program.call("getpid", [], "a"), BigInt(pid)] as const;
          case 1:
            return [
              program.call("close", [-1], "b", { mayFail: true }),
              -9n,
            ] as const;
          case 2: {
            const place = program.reserve(8);
            return [program.call("store", [place, 1, 8], "c"), 0n] as const;
          }
          default: {
            const area = program.call(
              "mmap",
              [0, 65536, 3, 0x22, -1, 0],
              "d",
            );
            program.call("store", [area, 5, 8], "e");
            return [program.call("munmap", [area, 65536], "f"), 0n] as const;
          }
        }
      });
      const outcome = remote.run(program);
      for (const [result, expected] of results) {
        assertEquals(outcome.result(result), expected);
      }
    });
    assertEquals(observeState(pid), before);
  }
});

Deno.test("a call that fails is named, and the task is as it was", async () => {
  await using child = await ChildProgram.start("ready()");
  const { pid } = child;
  const before = observeState(pid);
  stop(pid, ({ threads, memory, cave }) => {
    using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
    const program = new Program();
    program.call("close", [4000], "closing what is not open");
    program.call("exit", [1], "never reached");
    const error = assertThrows(() => remote.run(program), CkptError);
    assertEquals(error.exit, EXIT.failed);
    assertEquals(error.action, `asking task ${pid}`);
    assertEquals(error.reasons, [{
      object: "closing what is not open",
      why: "EBADF (bad file descriptor)",
    }]);
  });
  assertEquals(observeState(pid), before);
});

Deno.test("a program that does not fit the room is never written", async () => {
  await using child = await ChildProgram.start("ready()");
  stop(child.pid, ({ threads, memory, cave }) => {
    using remote = RemoteTask.enter(threads[0].host, memory, cave, 4096);
    const program = new Program();
    program.reserve(8192);
    assertThrows(() => remote.run(program), Error, "is too large");
  });
});

Deno.test("one thread makes calls without an agent", async () => {
  await using child = await ChildProgram.start(THREADS);
  const { pid } = child;
  const before = observeState(pid);
  stop(pid, ({ threads, memory, cave, frozen }) => {
    const { tid, host } = threads[1];
    const results = injectAlone(host, memory, cave, [
      { name: "gettid", args: [] },
      { name: "getpid", args: [] },
    ]);
    assertEquals(results, [BigInt(tid), BigInt(pid)]);
    assertEquals(
      memory.read(cave.code, cave.length),
      new Uint8Array(cave.length),
    );
    const [, mask, ...registers] = registersOf(frozen)[1];
    assertEquals(mask, host.signalMask);
    assertEquals(registers, [...host.registers]);
  });
  assertEquals(observeState(pid), before);
});

Deno.test("a task without unused bytes is not entered", async () => {
  await using child = await ChildProgram.start(`
area = mmap.mmap(-1, 4096, prot=7)
area.write(b"\\xcc" * 4096)
ready(ctypes.addressof(ctypes.c_char.from_buffer(area)))
`);
  const full = child.answer as number;
  stop(child.pid, ({ memory, pid }) => {
    for (const candidates of [[], [{ start: full, end: full + 4096 }]]) {
      const error = assertThrows(
        () => findCave(memory, candidates, CODE),
        CkptError,
      );
      assertEquals(error.exit, EXIT.refused);
      assertEquals(error.reasons[0].object, `task ${pid}`);
    }
    // The next one is taken instead; the last byte of code may be a zero.
    const [vdso] = vdsoOf(pid);
    const cave = findCave(
      memory,
      [{ start: full, end: full + 4096 }, vdso],
      CODE,
    );
    assertEquals(cave.leader, BigInt(vdso.end - 2 * cureSize()));
    assertEquals(cave.thread, cave.leader + BigInt(cureSize()));
  });
});

Deno.test("a cave with the cure of a ckpt that was killed is used again", async () => {
  await using child = await ChildProgram.start("ready()");
  stop(child.pid, ({ memory, cave, threads, pid }) => {
    const remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
    const left = memory.read(cave.code, cave.length);
    assert(left.some((byte) => byte !== 0), "there is no cure");
    assertEquals(findCave(memory, vdsoOf(pid), CODE), cave);
    remote.leave();
    // That of a thread alone, or of both.
    const cure = left.slice(CODE.length, CODE.length + cureSize());
    memory.write(cave.thread, cure);
    assertEquals(findCave(memory, vdsoOf(pid), CODE), cave);
    memory.write(cave.leader, cure);
    assertEquals(findCave(memory, vdsoOf(pid), CODE), cave);
    memory.write(cave.code, CODE);
    assertEquals(findCave(memory, vdsoOf(pid), CODE), cave);
    // A thread that was left there has not put itself back yet.
    const inside = (at: bigint) => isInsideAgent(memory, at, CODE);
    assert([cave.code, cave.leader, cave.thread].every(inside));
    assert(inside(cave.leader - 1n));
    assert(!inside(cave.code - 1n));
    memory.write(cave.thread, cure.toReversed());
    assertThrows(() => findCave(memory, vdsoOf(pid), CODE), CkptError);
    assert(!inside(cave.thread));
    memory.write(cave.code, new Uint8Array(cave.length));
    assert(!inside(cave.code));
  });
});

Deno.test("leaving twice is once", async () => {
  await using child = await ChildProgram.start("ready()");
  const before = observeState(child.pid);
  stop(child.pid, ({ threads, memory, cave }) => {
    using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
    remote.leave();
    remote.leave();
  });
  assertEquals(observeState(child.pid), before);
});

Deno.test("a task that is killed meanwhile is told as gone", async () => {
  await using child = await ChildProgram.start(THREADS);
  const error = assertThrows(
    () =>
      stop(child.pid, ({ threads, memory, cave, pid }) => {
        using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
        Deno.kill(pid, "SIGKILL");
        const program = new Program();
        program.call("getpid", [], "asking the pid");
        remote.run(program);
      }),
    CkptError,
  );
  assertEquals(error.exit, EXIT.gone);
});

Deno.test("a task that kills itself is told as gone", async () => {
  await using child = await ChildProgram.start(THREADS);
  const error = assertThrows(
    () =>
      stop(child.pid, ({ threads, memory, cave, pid }) => {
        using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
        const program = new Program();
        program.call("kill", [pid, 9], "ending");
        remote.run(program);
      }),
    CkptError,
  );
  assertEquals(error.exit, EXIT.gone);
});

Deno.test("a copy of a task has its memory of that moment, and ends unseen", async () => {
  await using child = await ChildProgram.start(`
area = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.write(b"before")
ready(ctypes.addressof(ctypes.c_char.from_buffer(area)))
`);
  const { pid } = child;
  const address = BigInt(child.answer as number);
  const before = observeState(pid);
  const { snapshot, cave } = stop(pid, ({ threads, memory, cave }) => {
    using remote = RemoteTask.enter(threads[0].host, memory, cave, ROOM);
    const snapshot = Snapshot.take(remote, true);
    assert(snapshot !== undefined);
    return { snapshot, cave };
  });
  assertEquals(observeState(pid), before);
  {
    using own = TaskMemory.open(pid);
    own.write(address, new TextEncoder().encode("after!"));
    using _ended = snapshot;
    using copy = TaskMemory.open(snapshot.pid);
    assertEquals(new TextDecoder().decode(copy.read(address, 6)), "before");
    assertEquals(
      copy.read(cave.code, cave.length),
      new Uint8Array(cave.length),
    );
  }
  assertEquals(observeState(pid), before);
});
