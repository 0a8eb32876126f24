import { assert, assertEquals, assertThrows } from "@std/assert";
import { listThreads, readStat } from "../proc/read.ts";
import { openPidfd } from "./pidfd.ts";
import { close, syscall, SyscallError } from "./syscall.ts";
import { ChildProgram } from "./testing/child_program.ts";

Deno.test("a process is opened by any of its threads", async () => {
  await using child = await ChildProgram.start(`
for i in range(2):
    threading.Thread(target=signal.pause, daemon=True).start()
ready()
`);
  const tids = listThreads(child.pid);
  assertEquals(tids.length, 3);
  for (const tid of tids) {
    const pidfd = openPidfd(tid);
    const own = Number(syscall("pidfd_getfd", BigInt(pidfd), 2n));
    assert(own > pidfd);
    close(own);
    close(pidfd);
  }
  assertThrows(() => openPidfd(99_999_999), SyscallError);
});

Deno.test("the descriptors of a process are found by a thread that has not ended", async () => {
  await using child = await ChildProgram.start(`
pid = os.fork()
if pid == 0:
    libc.prctl(1, 9)
    os.close(report)
    threading.Thread(target=signal.pause, daemon=True).start()
    libc.syscall(60, 0)
ready(pid)
`);
  const pid = child.answer as number;
  while (readStat(pid).state !== "Z") {
    await new Promise((done) => setTimeout(done, 1));
  }
  const taken = (tid: number) => {
    const pidfd = openPidfd(tid);
    try {
      return Number(syscall("pidfd_getfd", BigInt(pidfd), 2n));
    } finally {
      close(pidfd);
    }
  };
  assertThrows(() => taken(pid), SyscallError);
  close(taken(listThreads(pid)[1]));
});
