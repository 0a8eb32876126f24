import { assertEquals } from "@std/assert";
import type { Program } from "../ffi/program.ts";
import { decodeProgram } from "../ffi/testing/decoded_program.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { Step } from "../task/births.ts";
import { SIGINFO_BYTES } from "../task/pending_signals.ts";
import type { Host } from "./plan.ts";
import type { TaskImages, TreeImages } from "./task_images.ts";
import {
  handOver,
  hasQueuedChildSignal,
  vforkProblems,
  withoutQueued,
} from "./vfork.ts";

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
  hasRing?: boolean;
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
    set: { read: () => given.hasRing ? [{ pid }] : undefined },
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
  const images = {
    processes,
    tree: processes.map(({ pid, tree }) => ({ ...tree, pid })),
    locks: [],
    sockets: { unix: new Map() },
  } as unknown as TreeImages;
  return vforkProblems(images, { births, host: HOST })
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
    [{ hasRing: true }, {}, {}, /io_uring/],
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

Deno.test("descriptors that are handed over get their numbers and flags", () => {
  const BASE = 2000;
  const CHANNEL = BASE + 5;
  const random = seededRandom(5);
  for (let round = 0; round < 60; round++) {
    const most = [3, 20, 700][round % 3];
    const fds = new Set(
      Array.from({ length: most }, () => Math.floor(random() * most * 2)),
    );
    if (round === 0) fds.clear();
    const descriptors = [...fds].map((fd) => ({
      fd,
      flags: random() < 0.5 ? 1 : 0,
    })) as unknown as TaskImages["descriptors"];
    // What the receiver has: numbers, what they lead to, whether exec closes.
    const table = new Map<number, { file: number; closes: number }>(
      [0, 1, 5].map((fd) => [fd, { file: -1, closes: 0 }]),
    );
    for (const { send, receive } of handOver({ descriptors }, BASE, CHANNEL)) {
      const sent = sentBy(send, CHANNEL);
      for (const { name, args } of decodeProgram(receive).operations) {
        const [a, b, c] = args.map(({ value }) => Number(value));
        if (name === "close_range") {
          for (const fd of table.keys()) {
            if (fd >= a && fd <= b) table.delete(fd);
          }
        } else if (name === "recvmsg") {
          assertEquals(a, CHANNEL + 1);
          for (const file of sent) {
            table.set(lowestFree(table), { file, closes: 0 });
          }
        } else if (name === "dup3") {
          table.set(b, { ...table.get(a)!, closes: c === 0 ? 0 : 1 });
        } else if (name === "fcntl") {
          table.get(a)!.closes = c;
        } else {
          assertEquals(name, "close");
          assertEquals(table.delete(a), true);
        }
      }
    }
    assertEquals(
      [...table].toSorted(([a], [b]) => a - b),
      descriptors.toSorted((a, b) => a.fd - b.fd).map(({ fd, flags }) => [
        fd,
        { file: fd, closes: flags },
      ]),
    );
  }
});

function lowestFree(table: ReadonlyMap<number, unknown>): number {
  let fd = 0;
  while (table.has(fd)) fd++;
  return fd;
}

/** The descriptors in the messages of a program. */
function sentBy(program: Program, channel: number): number[] {
  const { data, dataAddress, operations } = decodeProgram(program);
  return operations.flatMap(({ name, args }) => {
    assertEquals([name, args[0].value], ["sendmsg", BigInt(channel)]);
    const header = Number(args[1].value);
    const pointer = data.getBigUint64(header + 32, true);
    const control = Number(pointer - dataAddress);
    const count = (Number(data.getBigUint64(control, true)) - 16) / 4;
    return Array.from(
      { length: count },
      (_, i) => data.getInt32(control + 16 + 4 * i, true),
    );
  });
}
