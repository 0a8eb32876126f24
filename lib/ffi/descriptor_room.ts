/**
 * Room for many descriptors of ckpt's own. When its table has to grow, the
 * kernel waits for all processors, as ckpt has several threads: 10 ms each time
 * that it doubles (expand_fdtable in fs/file.c). The stub of the packed binary
 * makes room for the first thousand before there are any.
 */
import { close, O, open, trySyscall } from "./syscall.ts";

const F_DUPFD_CLOEXEC = 1030n;
/** What ckpt has open anyway. */
const OTHERS = 256;

/** @param count of descriptors that will be open at the same time */
export function makeRoomForDescriptors(count: number): void {
  const fd = open("/", O.PATH);
  const last = BigInt(OTHERS + count);
  const high = trySyscall("fcntl", BigInt(fd), F_DUPFD_CLOEXEC, last);
  // Where the limit is lower, who opens one too many is told.
  if (high >= 0) close(high);
  close(fd);
}
