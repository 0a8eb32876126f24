/** Whether there is a task with an id. */
import { ESRCH } from "./errno.ts";
import { syscall, SyscallError } from "./syscall.ts";

/**
 * kill(2), signal 0: whether a process or a thread has the id, be it a zombie
 * or one that may not be sent signals.
 */
export function taskExists(id: number): boolean {
  try {
    syscall("kill", BigInt(id), 0n);
    return true;
  } catch (error) {
    if (error instanceof SyscallError) return error.errno !== ESRCH;
    throw error;
  }
}
