/**
 * The few system calls a test needs and Deno has no name for. The tests are the reaper of everything they start:
 * orphans come to this process, so that no pid is ever free before the tests have seen how it ended.
 */

const libc = Deno.dlopen("libc.so.6", {
  prctl: { parameters: ["i32", "u64", "u64", "u64", "u64"], result: "i32" },
  waitpid: { parameters: ["i32", "buffer", "i32"], result: "i32" },
  syscall: {
    parameters: ["i64", "i64", "i64", "i64", "i64"],
    result: "i64",
  },
});

const PR_SET_CHILD_SUBREAPER = 36;
const WNOHANG = 1;
const WALL = 0x40000000;
const SYS_KILL = 62n;

if (libc.symbols.prctl(PR_SET_CHILD_SUBREAPER, 1n, 0n, 0n, 0n) !== 0) {
  throw new Error("prctl(PR_SET_CHILD_SUBREAPER) failed");
}

/** How a child ended: `exit N` or `signal N`. */
export type Ending = `exit ${number}` | `signal ${number}`;

/** Reaps `pid` if it has ended. `"not a child"` when it is none of ours (any more). */
export function reap(pid: number): Ending | "running" | "not a child" {
  const status = new Uint32Array(1);
  const answer = libc.symbols.waitpid(pid, status, WNOHANG | WALL);
  if (answer === 0) return "running";
  if (answer !== pid) return "not a child";
  const signal = status[0] & 0x7f;
  return signal ? `signal ${signal}` : `exit ${status[0] >> 8 & 0xff}`;
}

/** Sends a signal; false when there is no such process. Works for thread-group leaders that are zombies, too. */
export function kill(pid: number, signal: number): boolean {
  return libc.symbols.syscall(SYS_KILL, BigInt(pid), BigInt(signal), 0n, 0n) ===
    0n;
}

/** The same as {@link children}, which may leave out some while others end (proc_pid_task(5)); slow. */
export function allChildren(): number[] {
  return Array.from(Deno.readDirSync("/proc"), ({ name }) => Number(name))
    .filter((pid) => pid > 0 && parentOf(pid) === Deno.pid);
}

/** Undefined when there is no such process. */
export function parentOf(pid: number): number | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    return undefined;
  }
}

/** All children of this process, zombies included. */
export function children(): number[] {
  const pids: number[] = [];
  for (const task of Deno.readDirSync("/proc/self/task")) {
    let text = "";
    try {
      text = Deno.readTextFileSync(`/proc/self/task/${task.name}/children`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    pids.push(...text.split(" ").filter((word) => word !== "").map(Number));
  }
  return pids;
}
