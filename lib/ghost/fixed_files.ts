/**
 * Files that became immutable or append-only after a program had opened them
 * (chattr(1)): opened again as they were, they are not for that moment.
 */
import { CkptError, EXIT } from "../error.ts";
import { Calls } from "../ffi/calls.ts";
import { describeErrno, ECANCELED, EPERM } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  O,
  open,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { hasCapability } from "../proc/read.ts";
import {
  FS_IOC_SETFLAGS,
  readAllInodeFlags,
  withoutLateFlags,
} from "./attributes.ts";
import { extendedStatuses } from "./calls.ts";

/** A file and how it is to be opened. */
export interface WantedOpen {
  readonly path: string;
  readonly flags: number;
}

/** Those of them that cannot be opened so, as long as they have such a flag. */
export function fixedAmong<T extends WantedOpen>(all: readonly T[]): T[] {
  const written = all.filter(({ flags }) =>
    (flags & O.ACCMODE) !== O.RDONLY && (flags & O.PATH) === 0
  );
  const known = extendedStatuses(written.map(({ path }) => path));
  return written.filter((_, i) => known[i]?.status.fixed);
}

/**
 * @returns a descriptor
 * @throws CkptError when ckpt may not do that
 */
export function openFixed({ path, flags }: WantedOpen): number {
  const own = open(encodeText(path), O.RDONLY | O.NONBLOCK);
  try {
    const before = readAllInodeFlags(own);
    const [then, now] = [before, withoutLateFlags(before)].map((flags) =>
      new Uint8Array(BigUint64Array.of(BigInt(flags)).buffer)
    );
    const name = terminated(encodeText(path));
    const calls = new Calls();
    const set = (flags: Uint8Array<ArrayBuffer>, after?: number) =>
      calls.add(
        "ioctl",
        [own, FS_IOC_SETFLAGS, Number(addressOf(flags))],
        after,
      );
    const free = set(now);
    const opened = calls.add("openat", [
      AT_FDCWD,
      Number(addressOf(name)),
      flags | O.CLOEXEC,
      0,
    ], free);
    const fixed = set(then, free);
    calls.runToTheEnd(1);
    const fd = calls.result(0, opened);
    const failed = [free, opened, fixed].map((call) => calls.result(0, call))
      .find((result) => result < 0 && result !== -ECANCELED);
    if (failed === undefined) return fd;
    if (fd >= 0) close(fd);
    throw new CkptError(EXIT.failed, "opening files", [{
      object: `file ${path}`,
      why: "it is immutable or append-only by now, and for the moment in " +
        `which it is opened it has to be neither: ${describeErrno(-failed)}`,
      remedy: failed === -EPERM && !hasCapability("CAP_LINUX_IMMUTABLE")
        ? "ckpt needs the capability CAP_LINUX_IMMUTABLE"
        : `take that flag away: chattr -i -a`,
    }]);
  } finally {
    close(own);
  }
}
