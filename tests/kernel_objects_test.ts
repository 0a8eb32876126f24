/** Descriptors of kernel objects without a name: eventfd, timerfd, signalfd, epoll, memfd. */
import { assertEquals } from "@std/assert";
import {
  assertSuccess,
  dump,
  type Program,
  restore,
  Scope,
} from "./harness.ts";
import { ReservedHugePages } from "./huge_pages.ts";
import { survives } from "./state.ts";

survives("fd_eventfd", "eventfds");
survives("fd_timerfd", "timerfds");
survives("fd_signalfd", "signalfds");
survives("fd_epoll", "epoll instances and what they watch");
survives("fd_memfd", "memfds, open and mapped");
survives("tuns", "network devices that they serve");
survives("fd_kinds", "namespaces, devices, files of the kernel and names");
survives("fd_contents", "maps of eBPF and message queues");
survives("rings", "instances of io_uring");
survives("waits_epoll", "threads in epoll_wait");

/** Left running, then dumped and restored, twice; no pictures are compared. */
async function survivesAll(scope: Scope, program: Program): Promise<void> {
  const running = scope.path("running");
  assertSuccess(
    await scope.ckpt("dump", "-R", "-t", `${program.pid}`, "-D", running),
    "dump",
  );
  for (const images of ["first", "second"]) {
    await dump(scope, program, scope.path(images));
    await restore(scope, program, scope.path(images));
  }
  assertEquals(await program.verify(), "ok");
}

/** Threads of the kernel show as the program's, and come and go as it needs them. */
for (const name of ["ring_workers", "rings_bound"]) {
  Deno.test(`${name}: a program whose io_uring has threads of the kernel survives dumps and a restore`, async () => {
    await using scope = new Scope();
    const program = await scope.start(name);
    await survivesAll(scope, program);
  });
}

let hugePages: ReservedHugePages | undefined;
Deno.test.beforeAll(() => {
  hugePages = new ReservedHugePages(48);
});
Deno.test.afterAll(() => hugePages?.[Symbol.dispose]());

/** A network device that is there without a program. */
function tuntap(change: "add" | "del"): void {
  const args = ["tuntap", change, "dev", "ckpt-lasting", "mode", "tun"];
  new Deno.Command("ip", { args }).outputSync();
}
Deno.test.beforeAll(() => tuntap("add"));
Deno.test.afterAll(() => tuntap("del"));
survives("fd_memfd_huge", "memfds of huge pages");
survives("mem_huge", "anonymous huge pages, shared and private");

Deno.test("huge_files: files of huge pages survive a dump and a restore, twice, and with their program left running", async () => {
  await using scope = new Scope();
  const place = scope.path("huge");
  await scope.unshareMounts(`mount -t hugetlbfs none ${place}`);
  const program = await scope.start("huge_files", place);
  await survivesAll(scope, program);
});
