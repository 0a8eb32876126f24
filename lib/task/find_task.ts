/** Where the kernel keeps what it knows of a task. */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import type { KernelStructures } from "../ffi/kernel_structures.ts";
import { close, O, open } from "../ffi/syscall.ts";

/** What {@link findTask} follows; see {@link KernelStructures.open}. */
export const WAY_TO_TASK = {
  task_struct: ["pid_links"],
  file: ["f_inode"],
  proc_inode: ["pid", "vfs_inode"],
  pid: ["tasks"],
} as const;

/**
 * The address of a task's struct task_struct, by its directory in /proc.
 *
 * @throws NoSuchMemory or SyscallError when it is gone
 */
export function findTask(kernel: KernelStructures, tid: number): bigint {
  const fd = open(`/proc/${tid}`, O.PATH | O.DIRECTORY | O.CLOEXEC);
  try {
    const inode = kernel.pointer(kernel.file(fd), "file", "f_inode");
    const entry = inode - BigInt(kernel.offset("proc_inode", "vfs_inode"));
    const pid = kernel.pointer(entry, "proc_inode", "pid");
    // Of PIDTYPE_PID, the first of the kinds.
    const link = kernel.pointer(pid, "pid", "tasks");
    if (link === 0n) throw new NoSuchMemory(pid);
    return link - BigInt(kernel.offset("task_struct", "pid_links"));
  } finally {
    close(fd);
  }
}
