/** Descriptors of processes for ckpt itself (pidfd_open(2)). */
import { EINVAL, ENOENT } from "./errno.ts";
import { close, syscall, SyscallError } from "./syscall.ts";

/** Linux 6.9. */
const PIDFD_THREAD = 0x80n;

/**
 * Opens a thread of a process. A leader is opened as its process, which older
 * kernels can do, too; the descriptors of one that has ended are gone, those of
 * its other threads are not.
 *
 * @throws SyscallError when it is gone
 */
export function openPidfd(tid: number): number {
  try {
    return Number(syscall("pidfd_open", BigInt(tid)));
  } catch (error) {
    // Not a leader: EINVAL before Linux 6.15.
    const other = error instanceof SyscallError &&
      (error.errno === ENOENT || error.errno === EINVAL);
    if (!other) throw error;
    return Number(syscall("pidfd_open", BigInt(tid), PIDFD_THREAD));
  }
}

/**
 * A descriptor of ckpt's own for what another process has open
 * (pidfd_getfd(2)).
 *
 * @param pidfd of the process; @param fd its number there
 */
export function getDescriptor(pidfd: number, fd: number): number {
  return Number(syscall("pidfd_getfd", BigInt(pidfd), BigInt(fd)));
}

/** The same for a single one: @param tid of a thread of the process */
export function getDescriptorOf(tid: number, fd: number): number {
  const pidfd = openPidfd(tid);
  try {
    return getDescriptor(pidfd, fd);
  } finally {
    close(pidfd);
  }
}
