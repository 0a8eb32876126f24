/** Trees in namespaces of their own, dumped and restored from outside, and the ckpts that do it killed. */
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

export async function gone(pid: number): Promise<void> {
  await until(`task ${pid} is gone`, () => {
    reap(pid);
    return kill(pid, 0) ? undefined : true;
  });
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
export async function killed(
  ckpt: Deno.ChildProcess,
  afterMs: number,
  which: "outer" | "inner",
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
export async function onlyThese(
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
