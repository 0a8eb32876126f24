import { assertEquals, assertThrows } from "@std/assert";
import { SyscallError } from "../ffi/syscall.ts";
import { ChildProgram } from "../ffi/testing/child_program.ts";
import { seededRandom } from "../image/testing/random.ts";
import { KCMP, ObjectNumbers, sharesOptional } from "./shared_objects.ts";

Deno.test("threads share their objects, processes do not", async () => {
  await using child = await ChildProgram.start(`
gate = threading.Lock()
gate.acquire()
threads = []
started = threading.Semaphore(0)
def wait():
    threads.append(threading.get_native_id())
    started.release()
    gate.acquire()
for i in range(3):
    threading.Thread(target=wait, daemon=True).start()
    started.acquire()
ready(threads)
`);
  const tids = [child.pid, ...child.answer as number[]];
  for (const type of Object.values(KCMP)) {
    const numbers = new ObjectNumbers(type, 7);
    assertEquals(tids.map((tid) => numbers.of(tid)), [7, 7, 7, 7]);
    assertEquals(numbers.of(Deno.pid), 8);
    // Asked again, in another order.
    assertEquals([Deno.pid, ...tids].map((tid) => numbers.of(tid)), [
      8,
      7,
      7,
      7,
      7,
    ]);
  }
});

Deno.test("equal numbers mean the same object, whatever the order", async () => {
  // Of each of 12 children, none to three others share the descriptors.
  await using child = await ChildProgram.start(`
def family(others):
    return lambda: [child(flags=CLONE_FILES | signal.SIGCHLD)[0]
                    for i in range(others)]
ready([child(family(i % 4)) for i in range(12)])
`);
  const groups = (child.answer as [number, number[]][]).map((
    [pid, others],
  ) => [pid, ...others]);
  const pids = groups.flat();
  assertEquals(new Set(pids).size, 12 + 18);
  const groupOf = new Map(
    groups.flatMap((group, i) => group.map((pid) => [pid, i])),
  );
  const random = seededRandom(1);
  for (let round = 0; round < 10; round++) {
    const shuffled = pids.map((pid) => [random(), pid])
      .sort(([a], [b]) => a - b).map(([_, pid]) => pid);
    const files = new ObjectNumbers(KCMP.files, 2);
    const memory = new ObjectNumbers(KCMP.vm, 2);
    const expected = new Map<number, number>();
    shuffled.forEach((pid, i) => {
      const group = groupOf.get(pid)!;
      expected.set(group, expected.get(group) ?? 2 + expected.size);
      assertEquals(files.of(pid), expected.get(group));
      assertEquals(memory.of(pid), 2 + i);
    });
  }
});

Deno.test("lists of semaphore undos are shared or not, those who have none share nothing", async () => {
  await using child = await ChildProgram.start(`
CLONE_SYSVSEM, IPC_PRIVATE, IPC_RMID, SEM_UNDO = 0x40000, 0, 0, 0x1000
class Operation(ctypes.Structure):
    _fields_ = [("number", ctypes.c_ushort), ("change", ctypes.c_short),
                ("flags", ctypes.c_short)]
def undo():
    semaphores = libc.semget(IPC_PRIVATE, 1, 0o600)
    assert libc.semop(semaphores, ctypes.byref(Operation(0, 1, SEM_UNDO)), 1) == 0
    libc.semctl(semaphores, 0, IPC_RMID)
none = [child()[0], child()[0]]
undo()
shares = child(flags=CLONE_SYSVSEM | signal.SIGCHLD)[0]
own = child(undo)[0]
ready([none, shares, own])
`);
  const [none, shares, own] = child.answer as [number[], number, number];
  const undos = (a: number, b: number) => sharesOptional("sysvsem", a, b);
  assertEquals(undos(shares, child.pid), true);
  assertEquals(undos(child.pid, shares), true);
  assertEquals(undos(own, child.pid), false);
  assertEquals(undos(none[0], child.pid), false);
  assertEquals(undos(none[0], none[1]), false);
  assertEquals(sharesOptional("io", none[0], none[1]), false);
});

Deno.test("a process that is gone is told", () => {
  const numbers = new ObjectNumbers(KCMP.files, 2);
  numbers.of(Deno.pid);
  assertThrows(() => numbers.of(99_999_999), SyscallError, "ESRCH");
});
