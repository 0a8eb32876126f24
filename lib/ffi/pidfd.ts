/** Descriptors of processes for ckpt itself (pidfd_open(2)). */
import { Calls, Slots } from "./calls.ts";
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

/**
 * The same for many at once.
 *
 * @throws SyscallError when one is closed; then none is left open
 */
export function getDescriptors(
  pidfd: number,
  fds: readonly number[],
): number[] {
  const numbers = Slots.of(fds);
  const calls = new Calls();
  const got = calls.add("pidfd_getfd", [pidfd, { loaded: numbers }, 0]);
  calls.run(fds.length);
  const results = fds.map((_, i) => calls.result(i, got));
  const failed = results.find((result) => result < 0);
  if (failed === undefined) return results;
  closeAll(results.filter((result) => result >= 0));
  throw new SyscallError("pidfd_getfd", -failed);
}

/** Closes descriptors of ckpt's own. */
export function closeAll(fds: readonly number[]): void {
  const numbers = Slots.of(fds);
  const calls = new Calls();
  calls.add("close", [{ loaded: numbers }]);
  calls.run(fds.length);
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
