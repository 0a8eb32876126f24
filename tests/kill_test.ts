/**
 * ckpt killed with SIGKILL at random moments: of a dump, after which the program goes on as if nothing had been, and
 * of a restore, after which nothing of it is left and the images restore.
 */
import { assert, assertEquals } from "@std/assert";
import {
  assertSuccess,
  dump,
  Files,
  LONG,
  type Program,
  restore,
  Scope,
  sleep,
  until,
} from "./harness.ts";
import { children, kill, reap } from "./libc.ts";
import { startIn } from "./mounts.ts";
import { difference, type Observation, observeTree } from "./observe.ts";

/** What is dumped and restored: what it is called, its arguments, and how often ckpt is killed. */
const SUBJECTS: readonly {
  what: string;
  args: string[];
  /** Makes the mounts of a namespace of its own. */
  mounts?: string;
  processes: number;
  dumps: number;
  restores: number;
}[] = [
  {
    what: "a program",
    args: [],
    processes: 1,
    dumps: LONG ? 1000 : 200,
    restores: LONG ? 500 : 100,
  },
  {
    what: "a tree of three processes",
    args: ["2"],
    processes: 3,
    dumps: LONG ? 500 : 60,
    restores: LONG ? 250 : 40,
  },
  {
    what: "a tree whose first threads have ended",
    args: ["1", "leaderless"],
    processes: 2,
    dumps: LONG ? 250 : 30,
    restores: LONG ? 250 : 30,
  },
  {
    what: "a program with seccomp filters that forbid what ckpt does in it",
    args: ["0", "filters"],
    processes: 1,
    dumps: LONG ? 1000 : 100,
    restores: LONG ? 250 : 10,
  },
  {
    what: "a program in a mount namespace of its own",
    args: [],
    mounts:
      "mount -t tmpfs x /mnt; mkdir /mnt/a; mount --bind /mnt/a /mnt/a; mount --make-shared /mnt/a",
    processes: 1,
    dumps: LONG ? 500 : 15,
    restores: LONG ? 250 : 20,
  },
  {
    what: "a program under syscall user dispatch",
    args: ["0", "dispatch"],
    processes: 1,
    dumps: LONG ? 500 : 40,
    restores: LONG ? 250 : 10,
  },
];
const SIGKILL = 9;

/** What each thread of each process of `busy` has counted; the file is laid out in busy.c. */
const KINDS = 9;
const PAGE_SIZE = 4096;
function rounds(program: Program): bigint[] {
  const bytes = Deno.readFileSync(`${program.work}/progress`);
  const found: bigint[] = [];
  for (let at = 0; at < bytes.length; at += PAGE_SIZE) {
    found.push(...new BigUint64Array(bytes.buffer, at, KINDS));
  }
  return found;
}

/** Waits until every thread has counted on; fails when the program has ended. */
async function countsOn(program: Program, when: string): Promise<void> {
  const before = rounds(program);
  await until(`every thread counts on ${when}`, () => {
    const ending = program.poll();
    if (ending !== undefined) {
      throw new Error(`${ending} ${when}: ${program.result()}`);
    }
    return rounds(program).every((count, i) => count > before[i])
      ? true
      : undefined;
  });
}

/**
 * A killed dump may leave the zombie of the copy that it read the memory from: no signal tells of it and no
 * ordinary wait(2) sees it; the next dump takes it.
 */
function isDeadCopy(pid: number): boolean {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const NO_EXIT_SIGNAL = "0";
    return fields[0] === "Z" && fields[38 - 3] === NO_EXIT_SIGNAL;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return true;
    throw error;
  }
}

function withoutDeadCopies(pids: string): string {
  return pids.split(" ").filter((pid) => pid === "" || !isDeadCopy(Number(pid)))
    .join(" ");
}

/** What must stay the same of a busy program: it runs, so positions, call and pending signals move. */
function lasting(pid: number): Observation {
  // a copy that a killed dump has left as a zombie is none of the tree's own processes
  const seen = observeTree(pid, (pid) => !isDeadCopy(pid));
  for (const [name, lines] of seen) {
    if (/\/(syscall)$/.test(name)) seen.delete(name);
    if (name.endsWith("/children")) {
      seen.set(name, lines.map(withoutDeadCopies));
    }
    if (/(^|\/)fd\//.test(name)) {
      seen.set(name, lines.filter((line) => !line.startsWith("pos:")));
    }
    if (name.endsWith("status")) {
      seen.set(
        name,
        lines.filter((line) => !/^(SigQ|SigPnd|ShdPnd):/.test(line)),
      );
    }
    if (/stat$/.test(name)) {
      // field 31: pending signals
      seen.set(name, lines.filter((line) => !line.startsWith("field 31:")));
    }
  }
  return seen;
}

/** Reaps orphans that came to this process; those that are left. */
function strangers(known: readonly number[]): number[] {
  for (;;) {
    const found = children().filter((pid) => !known.includes(pid));
    const left = found.filter((pid) => reap(pid) === "running");
    // children of one that ended just now have come since
    if (left.length === found.length) return left;
  }
}

/** How long ckpt is inside of a program at most, about. */
const INSIDE_MS = 4;

/** Waits, without giving the processor away, until a program is traced or its dump has ended, and a random moment more. */
function awaitTracer(pid: number, dumping: Deno.ChildProcess): void {
  const status = (pid: number) => Deno.readTextFileSync(`/proc/${pid}/status`);
  const NOT_TRACED = /^TracerPid:\t0$/m;
  const ENDED = /^State:\t[ZX]/m;
  while (NOT_TRACED.test(status(pid)) && !ENDED.test(status(dumping.pid)));
  const moment = performance.now() + Math.random() * INSIDE_MS;
  while (performance.now() < moment);
}

async function median(measure: () => Promise<void>): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 3; i++) {
    const start = performance.now();
    await measure();
    times.push(performance.now() - start);
  }
  return times.sort((a, b) => a - b)[1];
}

for (
  const { what, args, mounts: script, processes, dumps, restores } of SUBJECTS
) {
  const start = (scope: Scope) =>
    script === undefined
      ? scope.start("busy", ...args)
      : startIn(scope, script, "busy", ...args);

  Deno.test(`${what} goes on unharmed when ckpt is killed at ${dumps} moments of its dump`, async () => {
    await using scope = new Scope();
    const program = await start(scope);
    assertEquals(program.tree().length, processes);
    const before = lasting(program.pid);
    const mounts = Deno.readTextFileSync("/proc/self/mountinfo");
    const known = children();
    let count = 0;
    const freshDirectory = () => scope.path(`images-${count++}`);
    const whole = await median(async () =>
      assertSuccess(
        await scope.ckpt(
          "dump",
          "-R",
          "-t",
          `${program.pid}`,
          "-D",
          freshDirectory(),
        ),
        "dump",
      )
    );
    let killed = 0;
    for (let i = 0; i < dumps; i++) {
      const images = freshDirectory();
      // every second one while ckpt is inside of the program, which it is for a small part of the time only
      const aimed = i % 2 === 1;
      const delay = Math.random() * whole * 1.05;
      const when = aimed
        ? "after a kill while it was traced"
        : `after a kill at ${delay.toFixed(2)} of ${whole.toFixed(2)} ms`;
      const dumping = scope.spawnCkpt(
        "dump",
        "-R",
        "-t",
        `${program.pid}`,
        "-D",
        images,
      );
      if (aimed) awaitTracer(program.pid, dumping);
      else await sleep(delay);
      kill(dumping.pid, SIGKILL);
      if ((await dumping.status).signal === "SIGKILL") killed++;
      // the agent may need a moment to see that its tracer is gone and to cure
      let left: string[] = [];
      await until(
        `the program is as before ${when}: ${left.join("\n")}`,
        () => {
          left = difference(before, lasting(program.pid));
          return left.length === 0 && strangers(known).length === 0
            ? true
            : undefined;
        },
      ).catch(() => {
        assertEquals(left, [], when);
        assertEquals(strangers(known), [], `processes of ckpt left ${when}`);
      });
      await countsOn(program, when);
      Deno.removeSync(images, { recursive: true });
    }
    assert(killed > dumps / 4, `only ${killed} of ${dumps} dumps were killed`);
    assertEquals(Deno.readTextFileSync("/proc/self/mountinfo"), mounts);
    // What killed ones have left in its memory is no hindrance.
    const images = freshDirectory();
    await dump(scope, program, images);
    await restore(scope, program, images);
    await countsOn(program, "after a dump and a restore");
    assertEquals(await program.verify(), "ok");
  });

  Deno.test(`nothing of ${what} is left when ckpt is killed at ${restores} moments of a restore, and the images restore`, async () => {
    await using scope = new Scope();
    const program = await start(scope);
    const images = scope.path("images");
    const pids = program.tree();
    await dump(scope, program, images);
    // each restored program writes its file: the next one must find it as the images expect it
    const files = new Files(program.work);
    const mounts = Deno.readTextFileSync("/proc/self/mountinfo");
    const known = children();
    const whole = await median(async () => {
      files.putBack();
      await restore(scope, program, images);
      await program.kill();
    });
    let killed = 0;
    for (let i = 0; i < restores; i++) {
      const delay = Math.random() * whole * 1.05;
      const when = `after a kill at ${delay.toFixed(2)} of ${
        whole.toFixed(2)
      } ms`;
      files.putBack();
      const start = rounds(program);
      const restoring = scope.spawnCkpt("restore", "-d", "-D", images);
      await sleep(delay);
      kill(restoring.pid, SIGKILL);
      if ((await restoring.status).signal === "SIGKILL") killed++;
      // a kill after the moment in which all resume leaves a whole program, which counts on; any other leaves nothing
      program.restored();
      await until(`nothing is left, or all of it runs, ${when}`, () => {
        if (strangers(known).length === 0) return true;
        return rounds(program).every((count, i) => count > start[i])
          ? true
          : undefined;
      });
      await program.kill();
      assertEquals(strangers(known), [], when);
      assertEquals(pids.filter((pid) => kill(pid, 0)), [], `in use ${when}`);
    }
    assert(
      killed > restores / 4,
      `only ${killed} of ${restores} restores were killed`,
    );
    assertEquals(Deno.readTextFileSync("/proc/self/mountinfo"), mounts);
    files.putBack();
    await restore(scope, program, images);
    await countsOn(program, "after the last restore");
    assertEquals(await program.verify(), "ok");
  });
}
