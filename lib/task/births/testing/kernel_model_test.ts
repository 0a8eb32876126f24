import { assertEquals, assertThrows } from "@std/assert";
import { KernelModel, OUTSIDE } from "./kernel_model.ts";

Deno.test("a pid is in use as long as a session or group has it", () => {
  const kernel = new KernelModel(10);
  kernel.fork(10, 11);
  kernel.setsid(11);
  kernel.fork(11, 12);
  kernel.exit(11);
  kernel.reap(10, 11);
  assertThrows(() => kernel.fork(10, 11), Error, "EEXIST");
  kernel.setsid(12);
  kernel.fork(10, 11);
});

Deno.test("setsid is not for those whose pid is the id of a group", () => {
  const kernel = new KernelModel(10);
  kernel.fork(10, 11);
  kernel.setpgid(11, 11);
  assertThrows(() => kernel.setsid(11), Error, "EPERM");
  kernel.fork(11, 12);
  kernel.setpgid(11, 0);
  assertThrows(() => kernel.setsid(11), Error, "EPERM");
  kernel.exit(12);
  assertThrows(() => kernel.setsid(11), Error, "EPERM");
  kernel.reap(11, 12);
  kernel.setsid(11);
  assertThrows(() => kernel.setpgid(11, 11), Error, "EPERM");
});

Deno.test("a group is entered from its own session, while it has members", () => {
  const kernel = new KernelModel(10);
  kernel.fork(10, 11);
  kernel.fork(10, 12);
  assertThrows(() => kernel.setpgid(12, 11), Error, "EPERM");
  kernel.setpgid(11, 11);
  kernel.setpgid(12, 11);
  kernel.setsid(10);
  assertThrows(() => kernel.setpgid(12, 10), Error, "EPERM");
});

Deno.test("orphans go to the nearest ancestor that is a subreaper, or away", () => {
  const kernel = new KernelModel(10);
  for (const pid of [11, 12, 13, 14]) kernel.fork(pid - 1, pid);
  kernel.setSubreaper(11, true);
  kernel.exit(13);
  assertEquals(kernel.get(14).parent, 11);
  assertThrows(() => kernel.reap(11, 14), Error, "not ended");
  assertThrows(() => kernel.reap(11, 13), Error, "ECHILD");
  kernel.exit(14);
  kernel.exit(11);
  assertEquals(kernel.get(12).parent, OUTSIDE);
  assertEquals(kernel.get(14).parent, OUTSIDE);
  assertThrows(() => kernel.fork(14, 15), Error, "ESRCH");
});
