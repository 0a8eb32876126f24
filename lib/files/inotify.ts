/**
 * inotify(7): files and directories that are watched, and
 * `inotify_file_entry`. The instance is made by a process that has it; ckpt
 * adds the watches last of all, so that nothing it does itself is told.
 */
import { CkptError, EXIT } from "../error.ts";
import { O, syscall, syscallBuffer1, terminated } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { WatchedInode } from "../ghost/watch_targets.ts";
import type {
  fown_entry,
  inotify_file_entry,
  inotify_wd_entry,
} from "../image/schema.gen.ts";
import { unknownDetail } from "./details.ts";
import type { Wanted } from "./make_descriptions.ts";
import { setOtherFlags } from "./other_flags.ts";
import type { TableProgram } from "./table_program.ts";
import { describeHandle, HANDLE_FORM, readHandle } from "./watched_handle.ts";

export interface Inotify {
  readonly kind: "inotify";
  /** The first that was added comes first. */
  readonly watches: readonly InotifyWatch[];
}

export interface InotifyWatch extends WatchedInode {
  readonly wd: number;
  /** IN_* bits, with IN_EXCL_UNLINK and IN_ONESHOT. */
  readonly mask: number;
}

const LINE = new RegExp(
  "^inotify wd:([0-9a-f]+) ino:([0-9a-f]+) sdev:([0-9a-f]+) " +
    `mask:([0-9a-f]+) ignored_mask:[0-9a-f]+ *${HANDLE_FORM}$`,
);

/** @param details of fdinfo (inotify_fdinfo in fs/notify/fdinfo.c) */
export function parseInotify(details: readonly string[]): Inotify {
  const lines = details.filter((line) => line.startsWith("inotify "));
  return {
    kind: "inotify",
    watches: lines.map((line) => {
      const found = LINE.exec(line);
      if (found === null) throw unknownDetail("inotify", line);
      const [, wd, inode, device, mask, ...handle] = found;
      return {
        wd: parseInt(wd, 16),
        mask: parseInt(mask, 16),
        inode: BigInt(`0x${inode}`),
        device: parseInt(device, 16),
        handle: readHandle(handle),
      };
    }).reverse(),
  };
}

/** @param paths of the files, in the same order; undefined: see extension */
export function dumpInotify(
  id: number,
  { watches }: Inotify,
  paths: readonly (string | undefined)[],
  flags: number,
  fown: fown_entry,
): inotify_file_entry {
  return {
    id,
    flags,
    fown,
    wd: watches.map(({ wd, mask, inode, device, handle }, i) => ({
      id,
      i_ino: inode,
      mask,
      ignored_mask: 0,
      s_dev: device,
      wd,
      f_handle: describeHandle(handle, paths[i]),
    })),
  };
}

/** What the kernel would not take; undefined: nothing. */
export function inotifyProblem(
  { wd: watches }: inotify_file_entry,
): string | undefined {
  const seen = new Set<number>();
  for (const { wd } of watches) {
    if (wd < 1 || wd > HIGHEST_WATCH) return `${wd} is no watch descriptor`;
    if (seen.has(wd)) return `the watch descriptor ${wd} is there twice`;
    seen.add(wd);
  }
  return undefined;
}

const HIGHEST_WATCH = 0x7fff_ffff;

/** Makes the instance; {@link addWatch} adds what it watches. */
export function makeInotify(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
): void {
  const what = `descriptor ${fd}, an inotify instance`;
  table.program.call(
    "inotify_init1",
    [O.CLOEXEC | (flags & O.NONBLOCK)],
    `making ${what}`,
  );
  table.settle(fd, cloexec);
  setOtherFlags(table.program, fd, flags, what);
}

/** _IOW('I', 0, __s32), linux/inotify.h */
const INOTIFY_IOC_SETNEXTWD = 0x40044900n;
/** Refuses a file that is watched already; never part of what is kept. */
const IN_MASK_CREATE = 0x1000_0000;
const IN_DONT_FOLLOW = 0x0200_0000;

/**
 * Adds a watch with the number it had.
 *
 * @param fd a descriptor of ckpt's own for the instance
 * @param path leads to its file
 * @param isMagic whether it is a link of /proc, which has to be followed
 */
export function addWatch(
  fd: number,
  { wd, mask }: Pick<inotify_wd_entry, "wd" | "mask">,
  path: string,
  isMagic: boolean,
): void {
  setNextWatch(fd, wd);
  const got = syscallBuffer1(
    "inotify_add_watch",
    BigInt(fd),
    terminated(encodeText(path)),
    BigInt((mask | IN_MASK_CREATE | (isMagic ? 0 : IN_DONT_FOLLOW)) >>> 0),
  );
  if (got === BigInt(wd)) return;
  throw new CkptError(EXIT.failed, "adding watches", [{
    object: `watch ${wd}`,
    why: `the kernel gave it the number ${got}`,
  }]);
}

/** The number that the next watch gets; a program counts on new ones. */
export function setNextWatch(fd: number, wd: number): void {
  if (wd > HIGHEST_WATCH) return;
  syscall("ioctl", BigInt(fd), INOTIFY_IOC_SETNEXTWD, BigInt(wd));
}
