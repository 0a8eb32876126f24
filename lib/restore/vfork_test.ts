import { assertEquals } from "@std/assert";
import type { Step } from "../task/births.ts";
import { SIGINFO_BYTES } from "../task/pending_signals.ts";
import type { Host } from "./plan.ts";
import type { TaskImages } from "./task_images.ts";
import { hasQueuedChildSignal, vforkProblems, withoutQueued } from "./vfork.ts";

const ROOT = 10;
const THREAD = 21;
const ALL = [0xffff_ffff, 0x1ff];
const RIGHTS = {
  ...{ uid: 0, euid: 0, suid: 0, fsuid: 0, gid: 0, egid: 0, sgid: 0, fsgid: 0 },
  ...{ secbits: 0, groups: [], cap_inh: [0, 0], cap_prm: ALL },
  ...{ cap_eff: ALL, cap_bnd: ALL },
};
const HOST = {
  credentials: {
    groups: [],
    capPrm: 0x1ff_ffff_ffffn,
    capBnd: 0x1ff_ffff_ffffn,
    lastCapability: 40,
  },
} as unknown as Host;

interface Process {
  vm_id?: number;
  ppid?: number;
  awaited?: boolean;
  parent_thread?: number;
  stopSignal?: number;
  /** Of all its threads. */
  thread?: Record<string, unknown>;
  signals?: number[];
}

function process(pid: number, given: Process = {}): TaskImages {
  const { awaited, parent_thread, stopSignal = 0, thread = {} } = given;
  const signals = (given.signals ?? []).map((signal) => {
    const siginfo = new Uint8Array(SIGINFO_BYTES);
    siginfo[0] = signal;
    return { siginfo };
  });
  const core = (tid: number) => ({
    tc: tid === pid ? { signals_s: { signals } } : undefined,
    thread_core: { creds: RIGHTS, signals_p: { signals }, ...thread },
  });
  return {
    pid,
    ids: { vm_id: given.vm_id ?? 1 },
    tree: { ppid: given.ppid ?? ROOT },
    threads: (pid === ROOT ? [ROOT, THREAD] : [pid]).map((tid) => ({
      tid,
      core: core(tid),
    })),
    extension: { awaited, parent_thread },
    stopSignal,
  } as unknown as TaskImages;
}

function problems(
  processes: readonly TaskImages[],
  by: Record<number, number> = {},
): string[] {
  const steps = processes.slice(1).map(({ pid, tree: { ppid } }): Step => ({
    kind: "fork",
    by: by[pid] ?? ppid,
    child: pid,
    role: "process",
  }));
  const births = { steps, inheriting: new Set<number>(), reasons: [] };
  return vforkProblems({ processes }, { births, host: HOST })
    .map(({ object, why }) => `${object}: ${why}`);
}

Deno.test("threads can wait in vfork for their children, each for one", () => {
  const children = [
    process(11, { awaited: true }),
    process(12, { awaited: true, parent_thread: THREAD }),
    process(13, { awaited: true, ppid: 12 }),
    process(14),
  ];
  assertEquals(problems([process(ROOT), ...children]), []);
  assertEquals(
    problems([process(ROOT), process(11, { awaited: true }), ...children]),
    [
      `process 11: thread ${ROOT} waits for it in vfork(2), which waits for ` +
      "another one already; that is not supported",
    ],
  );
});

Deno.test("what cannot be made by vfork is refused by name", () => {
  const table: [Process, Process, Record<number, number>, RegExp][] = [
    [{}, { vm_id: 2 }, {}, /and does not have its memory/],
    [{}, {}, { 11: 12 }, /but cannot be born from it/],
    [{ stopSignal: 19 }, {}, {}, /stopped by job control/],
    [{ thread: { seccomp_mode: 2 } }, {}, {}, /seccomp filters/],
    [{ thread: { creds: { ...RIGHTS, euid: 5 } } }, {}, {}, /of root/],
  ];
  for (const [root, child, by, why] of table) {
    const found = problems([
      process(ROOT, root),
      process(11, { awaited: true, ...child }),
      process(12),
    ], by);
    assertEquals(found.length, 1, `${why}`);
    assertEquals(why.test(found[0]), true, found[0]);
  }
});

Deno.test("signals that those have queued who wait are not queued again", () => {
  const signals = [10, 17];
  const images = process(ROOT, { signals });
  const counts = (waiters: number[]) => {
    const { threads } = withoutQueued(images, new Set(waiters));
    return threads.map(({ core: { tc, thread_core } }) => [
      tc?.signals_s?.signals.length,
      thread_core!.signals_p!.signals.length,
    ]);
  };
  assertEquals(counts([]), [[2, 2], [undefined, 2]]);
  assertEquals(counts([THREAD]), [[2, 2], [undefined, 0]]);
  assertEquals(counts([ROOT]), [[0, 0], [undefined, 2]]);
  assertEquals(hasQueuedChildSignal(images, new Set([ROOT])), true);
  assertEquals(hasQueuedChildSignal(images, new Set([THREAD])), false);
  assertEquals(
    hasQueuedChildSignal(process(ROOT, { signals: [10] }), new Set([ROOT])),
    false,
  );
});
