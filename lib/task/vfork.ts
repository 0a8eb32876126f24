/**
 * Processes that wait in vfork(2) for their child to execute a program or to
 * end. The kernel lets nothing but SIGKILL end that wait (wait_for_vfork_done
 * in kernel/fork.c), not even a tracer: such a thread can be neither stopped
 * nor asked for its registers.
 */
import { NR } from "../ffi/syscall.ts";
import { listThreads, readStat, readSyscall } from "../proc/read.ts";

const CLONING: ReadonlySet<number> = new Set([NR.clone, NR.vfork, NR.clone3]);

/**
 * The threads of a process, whose memory a child of it uses, that wait so.
 *
 * @throws CkptError when one ends meanwhile
 */
export function waitersInVfork(pid: number): number[] {
  return listThreads(pid).filter((tid) => {
    if (readStat(tid).state !== "D") return false;
    const call = readSyscall(tid);
    return call.kind === "inside" && CLONING.has(call.nr);
  });
}
