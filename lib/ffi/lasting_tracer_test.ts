import { assertEquals, assertThrows } from "@std/assert";
import { CkptError } from "../error.ts";
import { listDescriptors, readStatus } from "../proc/read.ts";
import { FrozenProcess } from "./frozen_process.ts";
import { LastingTracer } from "./lasting_tracer.ts";
import { syscall } from "./syscall.ts";
import { ChildProgram } from "./testing/child_program.ts";
import { observeState } from "./testing/observed_state.ts";

const SIGKILL = 9n;

Deno.test("a lasting tracer traces in ckpt's stead until its end, and leaves nothing", async () => {
  await using child = await ChildProgram.start("ready()");
  const before = observeState(child.pid);
  const descriptors = listDescriptors(Deno.pid).length;
  for (let i = 0; i < 3; i++) {
    using tracer = LastingTracer.start();
    {
      using _frozen = FrozenProcess.freeze(child.pid, 1000);
      assertEquals(readStatus(child.pid).tracerPid, tracer.pid);
    }
    assertEquals(observeState(child.pid), before);
  }
  assertEquals(listDescriptors(Deno.pid).length, descriptors);
  using _frozen = FrozenProcess.freeze(child.pid, 1000);
  const { tracerPid } = readStatus(child.pid);
  assertEquals(readStatus(tracerPid).tgid, Deno.pid);
});

Deno.test("a lasting tracer that somebody kills is an error, and what it held goes on", async () => {
  await using child = await ChildProgram.start("ready()");
  const before = observeState(child.pid);
  using tracer = LastingTracer.start();
  const frozen = FrozenProcess.freeze(child.pid, 1000);
  syscall("kill", BigInt(tracer.pid), SIGKILL);
  frozen.thaw();
  assertThrows(
    () => FrozenProcess.freeze(child.pid, 1000),
    CkptError,
    "the process that traces for ckpt has ended",
  );
  assertEquals(observeState(child.pid), before);
});
