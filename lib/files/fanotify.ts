/**
 * fanotify(7): marks on files, mounts and file systems, and
 * `fanotify_file_entry`. As with inotify, the group is made by a process that
 * has it, and ckpt adds the marks last of all.
 */
import { CkptError, EXIT } from "../error.ts";
import { addressOf, AT_FDCWD, O, syscall, terminated } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import type { WatchedInode } from "../ghost/watch_targets.ts";
import {
  type ckpt_filesystem_mark_entry,
  type fanotify_file_entry,
  type fanotify_mark_entry,
  type fown_entry,
  mark_type,
} from "../image/schema.gen.ts";
import { detail, unknownDetail } from "./details.ts";
import type { Wanted } from "./make_descriptions.ts";
import type { TableProgram } from "./table_program.ts";
import { describeHandle, HANDLE_FORM, readHandle } from "./watched_handle.ts";
import { F_SETFL } from "./other_flags.ts";

export interface Fanotify {
  readonly kind: "fanotify";
  /** As given to fanotify_init(2). */
  readonly initFlags: number;
  readonly eventFlags: number;
  /** The first that was added comes first. */
  readonly marks: readonly FanotifyMark[];
}

export interface FanotifyMark {
  /** FAN_MARK_* bits that are kept with it. */
  readonly flags: number;
  readonly mask: number;
  readonly ignored: number;
  readonly on:
    | { readonly kind: "inode"; readonly inode: WatchedInode }
    | { readonly kind: "mount"; readonly mountId: number }
    | { readonly kind: "filesystem"; readonly device: number }
    /** FAN_MARK_MNTNS */
    | { readonly kind: "namespace" };
}

const LINE = new RegExp(
  "^fanotify (?:ino:([0-9a-f]+) sdev:([0-9a-f]+)|mnt_id:([0-9a-f]+)|" +
    "sdev:([0-9a-f]+)|mnt_ns:\\S+) mflags:([0-9a-f]+) mask:([0-9a-f]+) " +
    `ignored_mask:([0-9a-f]+) *${HANDLE_FORM}$`,
);

/** @param details of fdinfo (fanotify_fdinfo in fs/notify/fdinfo.c) */
export function parseFanotify(details: readonly string[]): Fanotify {
  const [flags, eventFlags] = detail(
    details,
    "fanotify flags:",
    /^([0-9a-f]+) event-flags:([0-9a-f]+)$/,
  );
  const marks = details.filter((line) =>
    line.startsWith("fanotify ") && !line.startsWith("fanotify flags:")
  );
  return {
    kind: "fanotify",
    initFlags: parseInt(flags, 16),
    eventFlags: parseInt(eventFlags, 16),
    marks: marks.map(parseMark).reverse(),
  };
}

function parseMark(line: string): FanotifyMark {
  const found = LINE.exec(line);
  if (found === null) throw unknownDetail("fanotify", line);
  const [, inode, device, mount, filesystem, flags, mask, ignored, ...handle] =
    found;
  return {
    flags: parseInt(flags, 16),
    mask: parseInt(mask, 16),
    ignored: parseInt(ignored, 16),
    on: inode !== undefined
      ? {
        kind: "inode",
        inode: {
          inode: BigInt(`0x${inode}`),
          device: parseInt(device, 16),
          handle: readHandle(handle),
        },
      }
      : mount !== undefined
      ? { kind: "mount", mountId: parseInt(mount, 16) }
      : filesystem !== undefined
      ? { kind: "filesystem", device: parseInt(filesystem, 16) }
      : { kind: "namespace" },
  };
}

/** FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS. */
const PERMISSION = 0x0017_0000;

/** Why a group cannot be saved, whatever its marks are on; undefined: it can. */
export function fanotifyRefusal({ marks }: Fanotify): string | undefined {
  if (marks.some(({ mask }) => (mask & PERMISSION) !== 0)) {
    return "it decides on what others may open or read; while the program " +
      "stood still, all of them would wait, and ckpt, too";
  }
  if (marks.some(({ on }) => on.kind === "namespace")) {
    return "it watches a mount namespace, which is not supported";
  }
  return undefined;
}

const FAN_MARK_ADD = 0x1;
const FAN_MARK_MOUNT = 0x10;
const FAN_MARK_IGNORED_MASK = 0x20;
const FAN_MARK_IGNORED_SURV_MODIFY = 0x40;
const FAN_MARK_FILESYSTEM = 0x100;
const FAN_MARK_EVICTABLE = 0x200;
const FAN_MARK_IGNORE = 0x400;

function mark(fd: number, flags: number, mask: number, path: string): void {
  const name = terminated(encodeText(path));
  syscall(
    "fanotify_mark",
    BigInt(fd),
    BigInt(flags),
    BigInt(mask),
    BigInt(AT_FDCWD),
    addressOf(name),
  );
}

/**
 * The entry, and the marks that it has no place for.
 *
 * @param paths of what is marked, in the same order; undefined: see extension
 */
export function dumpFanotify(
  id: number,
  { initFlags, eventFlags, marks }: Fanotify,
  paths: readonly (string | undefined)[],
  flags: number,
  fown: fown_entry,
): {
  entry: fanotify_file_entry;
  filesystems: ckpt_filesystem_mark_entry[];
  /** For every entry of `mark`, which of the marks it is. */
  indices: number[];
} {
  const entry: fanotify_file_entry = {
    id,
    flags,
    fown,
    faflags: initFlags,
    evflags: eventFlags,
    mark: [],
  };
  const filesystems: ckpt_filesystem_mark_entry[] = [];
  const indices: number[] = [];
  marks.forEach(({ flags: mflags, mask, ignored: ignored_mask, on }, i) => {
    const common = { mflags, mask, ignored_mask };
    switch (on.kind) {
      case "inode": {
        const { inode, device, handle } = on.inode;
        entry.mark.push({
          ...common,
          id,
          type: mark_type.INODE,
          s_dev: device,
          ie: { i_ino: inode, f_handle: describeHandle(handle, paths[i]) },
        });
        indices.push(i);
        break;
      }
      case "mount":
        entry.mark.push({
          ...common,
          id,
          type: mark_type.MOUNT,
          s_dev: 0,
          me: { mnt_id: on.mountId, path: paths[i] },
        });
        indices.push(i);
        break;
      case "filesystem":
        filesystems.push({ ...common, index: i, path: paths[i]! });
    }
  });
  return { entry, filesystems, indices };
}

const FAN_CLOEXEC = 1;

/**
 * Makes the group; {@link addMark} adds its marks. The kernel shows how it was
 * made, also where the descriptor has other flags by now.
 */
export function makeFanotify(
  table: TableProgram,
  { fd, flags, cloexec }: Wanted,
  { faflags, evflags }: Pick<fanotify_file_entry, "faflags" | "evflags">,
): void {
  const { program } = table;
  const what = `descriptor ${fd}, a fanotify group`;
  program.call("fanotify_init", [faflags, evflags], `making ${what}`);
  table.settle(fd, cloexec, (faflags & FAN_CLOEXEC) === 0 ? 0 : O.CLOEXEC);
  program.call(
    "fcntl",
    [fd, F_SETFL, flags & (O.APPEND | O.NONBLOCK | O.NOATIME)],
    `setting the flags of ${what}`,
  );
}

/** A mark to be added. */
export interface MarkToAdd
  extends Pick<fanotify_mark_entry, "mflags" | "mask" | "ignored_mask"> {
  readonly on: "inode" | "mount" | "filesystem";
}

const TYPES = {
  inode: 0,
  mount: FAN_MARK_MOUNT,
  filesystem: FAN_MARK_FILESYSTEM,
} as const;

/**
 * @param fd a descriptor of ckpt's own for the group
 * @param path leads to what the mark is on, also through a link of /proc
 */
export function addMark(
  fd: number,
  { mflags, mask, ignored_mask, on }: MarkToAdd,
  path: string,
): void {
  const type = TYPES[on] | (mflags & FAN_MARK_EVICTABLE);
  if (mask !== 0) mark(fd, FAN_MARK_ADD | type, mask, path);
  if (ignored_mask === 0) return;
  const ignore = (mflags & FAN_MARK_IGNORE) === 0
    ? FAN_MARK_IGNORED_MASK
    : FAN_MARK_IGNORE;
  const survives = mflags & FAN_MARK_IGNORED_SURV_MODIFY;
  mark(fd, FAN_MARK_ADD | type | ignore | survives, ignored_mask, path);
}

/** What the kernel would not take; undefined: nothing. */
export function fanotifyProblem(
  { mark: marks }: fanotify_file_entry,
): string | undefined {
  return marks.some(({ mask }) => (mask & PERMISSION) !== 0)
    ? "a fanotify group that decides on what others may open is not supported"
    : undefined;
}

/**
 * Makes sure that a group has the marks it is to have.
 *
 * @param details of its fdinfo
 * @throws CkptError naming the one that is another
 */
export function confirmMarks(
  details: readonly string[],
  wanted: readonly MarkToAdd[],
): void {
  const { marks } = parseFanotify(details);
  wanted.forEach((one, i) => {
    const got = marks[i];
    if (
      got?.mask === one.mask && got.ignored === one.ignored_mask &&
      got.flags === one.mflags
    ) return;
    throw new CkptError(EXIT.failed, "adding fanotify marks", [{
      object: `mark ${i}`,
      why: `the kernel made a mark with the mask ${hex(got?.mask)}, ignoring ` +
        `${hex(got?.ignored)}, of it; it was ${hex(one.mask)}, ignoring ` +
        hex(one.ignored_mask),
    }]);
  });
}

function hex(bits = 0): string {
  return `0x${bits.toString(16)}`;
}
