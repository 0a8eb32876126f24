/**
 * Processes that wait in vfork(2) for their child to execute a program or to
 * end. The kernel lets nothing but SIGKILL end that wait (wait_for_vfork_done
 * in kernel/fork.c), not even a tracer: such a process can be neither stopped
 * nor asked for its registers.
 */
import { NR } from "../ffi/syscall.ts";
import { listThreads, readStat, readSyscall } from "../proc/read.ts";

const CLONING: ReadonlySet<number> = new Set([NR.clone, NR.vfork, NR.clone3]);

/**
 * Whether a thread of a process, whose memory a child of it uses, waits so.
 *
 * @throws CkptError when one ends meanwhile
 */
export function waitsInVfork(pid: number): boolean {
  return listThreads(pid).some((tid) => {
    if (readStat(tid).state !== "D") return false;
    const call = readSyscall(tid);
    return call.kind === "inside" && CLONING.has(call.nr);
  });
}
