/** Trees in namespaces of their own, dumped and restored from outside, and the ckpts that do it killed. */
import { assert } from "@std/assert";
import { assertSuccess, Program, type Scope, sleep, until } from "./harness.ts";
import { children, kill, reap } from "./libc.ts";

const SIGKILL = 9;

export const OPTIONS = ["--tcp-established"];

export function childOf(pid: number): number | undefined {
  const children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
  return children === "" ? undefined : Number(children.split(" ")[0]);
}

/** Whether there is such a file, of so many bytes at least. */
export function isThere(path: string, bytes = 1): boolean {
  try {
    return Deno.statSync(path).size >= bytes;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Waits until a process is gone; the first of a pid namespace ends when all others in there were reaped. */
export async function gone(pid: number): Promise<void> {
  await until(`task ${pid} is gone`, () => {
    for (const child of children()) {
      if (child === pid || isInNamespace(child)) reap(child);
    }
    return kill(pid, 0) ? undefined : true;
  });
}

/** Whether it is in a pid namespace below that of the tests: it has a pid in each. */
function isInNamespace(pid: number): boolean {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    return /^NSpid:\t\d+\t\d+/m.test(status);
  } catch {
    return false; // it is gone
  }
}

export async function dump(
  scope: Scope,
  program: Program,
  images: string,
  ...options: string[]
): Promise<void> {
  assertSuccess(
    await scope.ckpt(
      "dump",
      "-t",
      `${program.pid}`,
      "-D",
      images,
      ...OPTIONS,
      ...options,
    ),
    "dump",
  );
}

/** @returns the restored program; its pid outside is another one */
export async function restore(
  scope: Scope,
  program: Program,
  images: string,
  ...options: string[]
): Promise<Program> {
  const pidfile = `${images}/restored.pid`;
  assertSuccess(
    await scope.ckpt(
      "restore",
      "-d",
      "-D",
      images,
      "--pidfile",
      pidfile,
      ...OPTIONS,
      ...options,
    ),
    "restore",
  );
  const pid = Number(Deno.readTextFileSync(pidfile));
  Deno.removeSync(pidfile);
  scope.defer(() => {
    kill(pid, SIGKILL);
    reap(pid);
  });
  return new Program(pid, program.work, program.log);
}

/** Kills a running ckpt, or the one that it has started inside. @returns whether it was still there */
async function killed(
  ckpt: Deno.ChildProcess,
  afterMs: number,
  which: Which,
): Promise<boolean> {
  await sleep(afterMs);
  let victim = ckpt.pid;
  if (which === "inner") {
    try {
      victim = childOf(ckpt.pid) ?? ckpt.pid;
    } catch {
      // it has ended by itself
    }
  }
  kill(victim, SIGKILL);
  const { signal } = await ckpt.status;
  return signal === "SIGKILL";
}

/** Waits until no process is left of those that came to this one since. */
async function onlyThese(
  known: readonly number[],
  endOthers: () => void = () => {},
): Promise<void> {
  await until("nothing is left of ckpt", () => {
    const strangers = children().filter((pid) =>
      !known.includes(pid) && reap(pid) === "running"
    );
    if (strangers.length === 0) return true;
    endOthers();
  });
}

type Which = "outer" | "inner";

/**
 * Kills ckpt at random moments of dumps that leave a program running.
 *
 * @param whole how long a dump takes, in ms
 * @param victim which of the two ckpts, by the number of the dump
 * @param check what has to hold after each
 */
export async function killDumps(
  scope: Scope,
  program: Program,
  kills: number,
  whole: number,
  victim: (i: number) => Which,
  check: () => Promise<void> = () => Promise.resolve(),
): Promise<void> {
  const known = children();
  let count = 0;
  for (let i = 0; i < kills; i++) {
    const images = scope.path(`images-${i}`);
    const ckpt = scope.spawnCkpt(
      "dump",
      "-R",
      "-t",
      `${program.pid}`,
      "-D",
      images,
      ...OPTIONS,
    );
    if (await killed(ckpt, Math.random() * whole, victim(i))) count++;
    await onlyThese(known);
    await check();
    Deno.removeSync(images, { recursive: true });
  }
  assert(count > kills / 4, `only ${count} dumps were killed`);
}

/** The same for restores, after each of which nothing is left. */
export async function killRestores(
  scope: Scope,
  images: string,
  kills: number,
  whole: number,
  victim: (i: number) => Which,
): Promise<void> {
  const known = children();
  const pidfile = `${images}/killed.pid`;
  let count = 0;
  for (let i = 0; i < kills; i++) {
    const ckpt = scope.spawnCkpt(
      "restore",
      "-d",
      "-D",
      images,
      "--pidfile",
      pidfile,
      ...OPTIONS,
    );
    if (await killed(ckpt, Math.random() * whole, victim(i))) count++;
    // A kill after the moment in which all go on leaves a whole program.
    await onlyThese(known, () => {
      if (!isThere(pidfile)) return;
      kill(Number(Deno.readTextFileSync(pidfile)), SIGKILL);
    });
    if (isThere(pidfile)) Deno.removeSync(pidfile);
  }
  assert(count > kills / 4, `only ${count} restores were killed`);
}
