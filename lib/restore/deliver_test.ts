import { assert, assertEquals, assertRejects } from "@std/assert";
import { CkptError, EXIT } from "../error.ts";
import type { AgentProcess } from "../ffi/agent_process.ts";
import { Program } from "../ffi/program.ts";
import {
  type DecodedOperation,
  type DecodedProgram,
  decodeProgram,
} from "../ffi/testing/decoded_program.ts";
import {
  exists,
  runProgram,
  runToEnd,
  startAgent,
} from "../ffi/testing/agents.ts";
import type { ckpt_task_entry } from "../image/schema.gen.ts";
import { readStat } from "../proc/read.ts";
import { hasEnded } from "../proc/testing/has_ended.ts";
import type { Step } from "../task/births.ts";
import { freePid } from "../task/testing/agent_task.ts";
import { deliver, type Delivery } from "./deliver.ts";
import type { MemoryPrograms } from "./memory_program.ts";
import type { TaskImages, ZombieImage } from "./task_images.ts";

const ROOT = 10;
const SIGCHLD = 17;
const CLONE_VM = 0x100;
const CLONE_FS = 0x200;
const CLONE_FILES = 0x400;
const CLONE_SIGHAND = 0x800;
const CLONE_SYSVSEM = 0x40000;
const CLONE_IO = 0x8000_0000;

/** What was run: in which process, and which calls. */
interface Ran {
  by: number;
  program: Program;
  calls: string[];
  room?: number;
  /** The thread that ran it. */
  tid?: number;
}

interface Process {
  vm_id?: number;
  sighand_id?: number;
  files_id?: number;
  fs_id?: number;
  exit_signal?: number;
  shares?: ("shares_io_context" | "shares_semaphore_undo")[];
  threads?: number[];
  parent_thread?: number;
  awaited?: true;
}

interface Recording {
  ran: Ran[];
  /** How often signals were let in. */
  pauses: () => number;
  agents: Map<number, AgentProcess>;
  /** Memories as they began; and, negative, ended. */
  readonly begun: number[];
}

/** Delivers steps to agents that only note what they are to do. */
async function record(
  steps: readonly Step[],
  living: Record<number, Process> = {},
  zombies: readonly ZombieImage[] = [],
  statusOf: (pid: number) => number = () => 0,
): Promise<Recording> {
  const agents = new Map<number, AgentProcess>();
  const agentOf = (pid: number): AgentProcess =>
    ({ pid, adopt: agentOf }) as unknown as AgentProcess;
  agents.set(ROOT, agentOf(ROOT));
  const ran: Ran[] = [];
  const begun: number[] = [];
  let pauses = 0;
  const note = (
    { pid }: AgentProcess,
    program: Program,
    room?: number,
    tid?: number,
  ) => {
    const { operations } = decodeProgram(program);
    const calls = operations.map(({ name }) => name);
    ran.push({ by: pid, program, calls, room, tid });
  };
  const delivery: Delivery = {
    terminals: new Map(),
    agents,
    living: new Map(
      Object.entries(living).map(([pid, process]) => [
        Number(pid),
        imagesOf(process, Number(pid)),
      ]),
    ),
    zombies: new Map(zombies.map((zombie) => [zombie.pid, zombie])),
    memory: (pid) => {
      const program = new Program();
      program.call("getpid", [], `memory of ${pid}`);
      return { first: program };
    },
    run: (agent, program, room, tid) => {
      note(agent, program, room, tid);
      return Int32Array.from(births(program), ({ pid }) => pid);
    },
    rebuild: (agent, { first }) => {
      note(agent, first);
      begun.push(agent.pid);
      return () => {
        begun.push(-agent.pid);
        return Promise.resolve();
      };
    },
    runToEnd: (agent, program) => {
      note(agent, program);
      return statusOf(agent.pid);
    },
    beforeVfork: (agent, tid, child) => {
      const { pid } = agent;
      const calls = [`prepare ${child}`];
      ran.push({ by: pid, program: new Program(), calls, tid });
      return {
        choosesPid: child !== 14,
        bear: (program) => {
          note(agent, program, 1, tid);
          return Int32Array.of(child);
        },
      };
    },
    letSignalsIn: () => {
      pauses++;
      return Promise.resolve();
    },
  };
  await deliver(steps, delivery);
  return { ran, begun, pauses: () => pauses, agents };
}

function extensionOf(exit_signal: number | undefined): ckpt_task_entry {
  return { threads: [], areas: [], cgroups: [], exit_signal };
}

function imagesOf(process: Process, pid: number): TaskImages {
  return {
    threads: (process.threads ?? [pid]).map((tid) => ({ tid })),
    ids: {
      vm_id: process.vm_id ?? pid,
      sighand_id: process.sighand_id ?? pid,
      files_id: process.files_id ?? pid,
      fs_id: process.fs_id ?? pid,
    },
    extension: {
      ...extensionOf(process.exit_signal),
      parent_thread: process.parent_thread,
      awaited: process.awaited,
      ...Object.fromEntries((process.shares ?? []).map((name) => [name, true])),
    },
  } as unknown as TaskImages;
}

/** The clones of a program: struct clone_args of clone3(2). */
function births(program: Program) {
  const decoded = decodeProgram(program);
  return decoded.operations.filter(({ name }) => name === "clone")
    .map((operation) => birth(decoded, operation));
}

function birth(
  { data, dataAddress }: DecodedProgram,
  { args, purpose }: DecodedOperation,
) {
  const word = (i: number) =>
    data.getBigUint64(Number(args[0].value) + i * 8, true);
  assertEquals(args[1].value, 88n);
  // set_tid is an array of one.
  assertEquals(word(9), 1n);
  const pid = data.getInt32(Number(word(8) - dataAddress), true);
  // No memory of its own for a thread, no stack, no descriptor of it.
  assertEquals([1, 2, 3, 5, 6, 7, 10].map(word), new Array(7).fill(0n));
  return { pid, flags: Number(word(0)), signal: Number(word(4)), purpose };
}

const fork = (by: number, child: number, role = "process") =>
  ({ kind: "fork", by, child, role }) as Step;

Deno.test("steps of one process that follow each other are one program", async () => {
  const { ran, agents, pauses } = await record([
    fork(ROOT, 11),
    { kind: "setsid", by: ROOT },
    fork(ROOT, 12),
    fork(12, 13),
    { kind: "setpgid", by: 12, group: 12 },
    { kind: "setpgid", by: ROOT, group: 12 },
  ]);
  assertEquals(ran.map(({ by, calls, room }) => [by, calls.join(), room]), [
    [ROOT, "clone,setsid,clone", 2],
    [12, "clone,setpgid", 1],
    [ROOT, "setpgid", 0],
  ]);
  assertEquals([...agents.keys()], [ROOT, 11, 12, 13]);
  assertEquals(pauses(), 0);
});

Deno.test("a child is forked by the thread whose child it is, where its parent forks it", async () => {
  const dead = {
    pid: 14,
    comm: "dead",
    status: 0,
    extension: { ...extensionOf(undefined), parent_thread: 21 },
  } as ZombieImage;
  const { ran } = await record(
    [
      fork(ROOT, 11),
      fork(ROOT, 12),
      fork(ROOT, 13),
      fork(ROOT, 14),
      { kind: "setsid", by: ROOT },
      fork(11, 15),
    ],
    {
      [ROOT]: { threads: [ROOT, 21, 22] },
      11: {},
      12: { parent_thread: 22 },
      13: { parent_thread: 21 },
      15: { parent_thread: 22 },
    },
    [dead],
  );
  assertEquals(ran.map(({ by, tid, calls }) => [by, tid, calls.join()]), [
    [ROOT, ROOT, "clone"],
    [ROOT, 22, "clone"],
    [ROOT, 21, "clone,clone"],
    [ROOT, ROOT, "setsid"],
    [11, 11, "clone"],
  ]);
});

Deno.test("a thread that waits for its child in vfork makes it last, when it has all it needs", async () => {
  const { ran } = await record(
    [fork(ROOT, 11), fork(ROOT, 12), fork(ROOT, 13), fork(ROOT, 14)],
    {
      [ROOT]: { vm_id: 1, threads: [ROOT, 21] },
      12: { vm_id: 1, awaited: true },
      14: { vm_id: 1, awaited: true, parent_thread: 21 },
    },
  );
  assertEquals(ran.map(({ by, tid, calls }) => [by, tid, calls.join()]), [
    [ROOT, ROOT, "clone"],
    [ROOT, ROOT, "prepare 12"],
    [ROOT, ROOT, "clone"],
    [ROOT, ROOT, "clone"],
    [ROOT, 21, "prepare 14"],
    [ROOT, 21, "clone"],
  ]);
  // The last may not say which pid its child gets: neither where nor how many.
  const { data, operations } = decodeProgram(ran[5].program);
  const at = Number(operations[0].args[0].value);
  assertEquals([64, 72].map((i) => data.getBigUint64(at + i, true)), [0n, 0n]);
  const flags = ran.slice(0, 5).flatMap(({ program }) => births(program)).map((
    { pid, flags },
  ) => [pid, flags]);
  const VFORK = 0x4000;
  assertEquals(flags, [
    [11, 0],
    [12, CLONE_VM | VFORK],
    [13, 0],
  ]);
});

Deno.test("memory is a program of its own, after which signals are let in", async () => {
  const { ran, pauses } = await record([
    fork(ROOT, 11),
    { kind: "memory", by: ROOT },
    fork(ROOT, 12),
    { kind: "memory", by: 12 },
  ], { [ROOT]: {}, 12: {} });
  assertEquals(ran.map(({ by, calls }) => [by, calls.join()]), [
    [ROOT, "clone"],
    [ROOT, "getpid"],
    [ROOT, "clone"],
    [12, "getpid"],
  ]);
  assertEquals(ran[3].program.purpose(0), "memory of 12");
  assertEquals(pauses(), 2);
});

Deno.test("memories are rebuilt side by side, but not with one descriptor table", async () => {
  const pids = [11, 12, 13, 14];
  const { begun, pauses } = await record(
    [
      ...pids.map((pid) => fork(ROOT, pid)),
      ...pids.map((by) => ({ kind: "memory" as const, by })),
    ],
    { 11: {}, 12: { files_id: 12 }, 13: {}, 14: { files_id: 12 } },
  );
  assertEquals(begun, [11, 12, 13, -11, -12, 14, -13, -14]);
  assertEquals(pauses(), 4);
});

Deno.test("a child is born with what it shares with the one who forks it", async () => {
  const { ran } = await record(
    [11, 12, 13, 14, 15, 16, 17].map((child) => fork(ROOT, child)),
    {
      [ROOT]: { vm_id: 1, files_id: 2, fs_id: 3, sighand_id: 4 },
      11: { files_id: 2, fs_id: 3 },
      12: { files_id: 2 },
      13: { fs_id: 3 },
      // The same numbers of other kinds mean nothing.
      14: { vm_id: 4, files_id: 3, fs_id: 2, sighand_id: 1 },
      16: { vm_id: 1 },
      17: { vm_id: 1, sighand_id: 4 },
    },
  );
  assertEquals(births(ran[0].program).map(({ pid, flags }) => [pid, flags]), [
    [11, CLONE_FILES | CLONE_FS],
    [12, CLONE_FILES],
    [13, CLONE_FS],
    [14, 0],
    [15, 0],
    [16, CLONE_VM],
    [17, CLONE_VM | CLONE_SIGHAND],
  ]);
});

Deno.test("a child shares the I/O context and semaphore undos where its image says so", async () => {
  const { ran } = await record(
    [11, 12, 13].map((child) => fork(ROOT, child)),
    {
      [ROOT]: {},
      11: { shares: ["shares_io_context"] },
      12: { shares: ["shares_semaphore_undo"] },
      13: { shares: ["shares_io_context", "shares_semaphore_undo"] },
    },
  );
  assertEquals(births(ran[0].program).map(({ flags }) => flags), [
    CLONE_IO,
    CLONE_SYSVSEM,
    CLONE_IO + CLONE_SYSVSEM,
  ]);
  // The one who forks makes what is not there yet.
  assertEquals(ran[0].calls, [
    "ioprio_set",
    "clone",
    "clone",
    "ioprio_set",
    "clone",
  ]);
});

Deno.test("a child has its exit signal, a helper has none", async () => {
  const { ran } = await record(
    [fork(ROOT, 11), fork(ROOT, 12), fork(ROOT, 13), fork(ROOT, 14), {
      kind: "fork",
      by: ROOT,
      child: 15,
      role: "helper",
    }],
    { 11: {}, 12: { exit_signal: 10 }, 13: { exit_signal: 0 } },
    [{ pid: 14, comm: "", status: 0, extension: extensionOf(12) }],
  );
  assertEquals(births(ran[0].program).map(({ pid, signal }) => [pid, signal]), [
    [11, SIGCHLD],
    [12, 10],
    [13, 0],
    [14, 12],
    [15, 0],
  ]);
  assertEquals(
    births(ran[0].program).map(({ purpose }) => purpose.split(" ")[1]),
    ["task", "task", "task", "task", "helper"],
  );
});

Deno.test("a helper ends, is taken, and is no agent any more", async () => {
  const { ran, agents } = await record([
    fork(ROOT, 11, "helper"),
    fork(11, 12),
    { kind: "subreaper", by: ROOT, on: true },
    { kind: "end", by: 11 },
    { kind: "reap", by: ROOT, child: 11 },
    { kind: "subreaper", by: ROOT, on: false },
  ]);
  assertEquals(ran.map(({ by, calls }) => [by, calls.join()]), [
    [ROOT, "clone"],
    [11, "clone"],
    [ROOT, "prctl"],
    [11, "exit_group"],
    [ROOT, "wait4,prctl"],
  ]);
  assertEquals([...agents.keys()], [ROOT, 12]);
  const subreaper = [ran[2], ran[4]].map(({ program }) =>
    decodeProgram(program).operations.at(-1)!.args[1].value
  );
  assertEquals(subreaper, [1n, 0n]);
});

Deno.test("a process dies as it did, by its exit status or its signal", async () => {
  const zombie = (pid: number, status: number): ZombieImage => ({
    pid,
    comm: `name ${pid}`,
    status,
    extension: extensionOf(undefined),
  });
  const zombies = [zombie(11, 0x2a00), zombie(12, 15), zombie(13, 0x8b)];
  const deaths = zombies.flatMap(({ pid }): Step[] => [
    fork(ROOT, pid),
    { kind: "die", by: pid },
  ]);
  // No core file is written this time.
  const got = (status: number) => status & ~0x80;
  const { ran, agents } = await record(
    deaths,
    {},
    zombies,
    (pid) => got(zombies.find((zombie) => zombie.pid === pid)!.status),
  );
  const last = ran.filter(({ by }) => by !== ROOT).map(({ program }) =>
    decodeProgram(program).operations.at(-1)!
  );
  assertEquals(
    last.map(({ name, args }) => [name, args.slice(0, 3).map((a) => a.value)]),
    [
      ["exit_group", [0x2an, 0n, 0n]],
      ["tgkill", [12n, 12n, 15n]],
      ["tgkill", [13n, 13n, 11n]],
    ],
  );
  assertEquals([...agents.keys()], [ROOT]);

  const error = await assertRejects(
    () => record(deaths, {}, zombies, () => 9),
    CkptError,
  );
  assertEquals(error.exit, EXIT.failed);
  assertEquals(error.reasons[0], {
    object: "task 11",
    why: "it ended with status 0x9, not 0x2a00",
  });
  assert(error.message.includes("task 11"));
});

/** Agents that carry out the steps in truth; all end with the scope. */
class RealDelivery implements Delivery, Disposable {
  readonly terminals = new Map<number, string>();
  readonly agents = new Map<number, AgentProcess>();
  readonly living = new Map<number, TaskImages>();
  readonly zombies: ReadonlyMap<number, ZombieImage>;
  readonly root = freePid();

  constructor(zombies: readonly ZombieImage[]) {
    this.agents.set(this.root, startAgent(this.root));
    this.zombies = new Map(zombies.map((zombie) => [zombie.pid, zombie]));
  }

  memory = () => ({ first: new Program() });
  run = (agent: AgentProcess, program: Program, room: number) =>
    runProgram(agent, program, room).born;
  rebuild = (agent: AgentProcess, { first }: MemoryPrograms) => {
    runProgram(agent, first, 0);
    return () => Promise.resolve();
  };
  runToEnd = runToEnd;
  letSignalsIn = () => Promise.resolve();

  [Symbol.dispose](): void {
    for (const agent of [...this.agents.values()].reverse()) {
      agent[Symbol.dispose]();
    }
  }
}

Deno.test("real agents are born, found sessions and groups, are adopted, and die", async () => {
  const pids = Array.from({ length: 8 }, freePid);
  const [leader, member, orphan, helper, exited, killed, crashed, quiet] = pids;
  const zombie = (pid: number, status: number): ZombieImage => ({
    pid,
    comm: `z${status}`,
    status,
    extension: extensionOf(undefined),
  });
  const zombies = [
    zombie(exited, 0x0300),
    zombie(killed, 9),
    zombie(crashed, 0x8b),
    // Real-time, and the last one.
    zombie(quiet, 64),
  ];
  using delivery = new RealDelivery(zombies);
  const { root } = delivery;
  await deliver([
    ...zombies.map(({ pid }) => fork(root, pid)),
    fork(root, leader),
    { kind: "setsid", by: leader },
    fork(leader, member),
    { kind: "setpgid", by: member, group: member },
    fork(leader, helper, "helper"),
    fork(helper, orphan),
    { kind: "subreaper", by: root, on: true },
    { kind: "end", by: helper },
    { kind: "reap", by: leader, child: helper },
    { kind: "subreaper", by: root, on: false },
    ...zombies.map(({ pid }): Step => ({ kind: "die", by: pid })),
  ], delivery);
  assertEquals([...delivery.agents.keys()], [root, leader, member, orphan]);
  const { session, pgrp } = readStat(root);
  assertEquals(
    [leader, member, orphan].map((pid) => {
      const { ppid, session, pgrp } = readStat(pid);
      return [ppid, session, pgrp];
    }),
    [[root, leader, leader], [leader, leader, member], [root, leader, leader]],
  );
  assert(!exists(helper));
  for (const { pid, status, comm } of zombies) {
    const stat = readStat(pid);
    // Nothing dumps core here.
    assertEquals(
      [stat.state, stat.exitCode, stat.comm, stat.ppid, stat.session],
      ["Z", status & ~0x80, comm, root, session],
    );
    assertEquals(stat.pgrp, pgrp);
  }
});

Deno.test("when a birth fails, those that came before it end with the rest", async () => {
  const [first, second] = [freePid(), freePid()];
  {
    using delivery = new RealDelivery([]);
    const { root } = delivery;
    const error = await assertRejects(
      () =>
        deliver([
          fork(root, first),
          { kind: "setsid", by: root },
          fork(root, Deno.pid),
          fork(root, second),
        ], delivery),
      CkptError,
    );
    assertEquals(error.reasons.map(({ object }) => object), [
      `starting task ${Deno.pid}`,
    ]);
    assertEquals([...delivery.agents.keys()], [root, first]);
  }
  assert(hasEnded(first));
  assert(!exists(second));
});
