/**
 * What a file has beside its content: owner, mode, times, extended attributes
 * (ACLs are some of these), flags of the inode (ioctl_iflags(2)).
 */
import { CkptError, EXIT } from "../error.ts";
import {
  describeErrno,
  EINVAL,
  ENODATA,
  ENOTTY,
  EOPNOTSUPP,
  EPERM,
} from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  type FileStatus,
  O,
  open,
  S_IF,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import type { ckpt_xattr_entry } from "../image/schema.gen.ts";
import { remedyForDenied, type Time } from "./calls.ts";

const FS_IOC_GETFLAGS = 0x80086601;
export const FS_IOC_SETFLAGS = 0x40086602;
/** Flags of linux/fs.h that users set and others may see. */
const FS = {
  SECRM: 0x1,
  UNRM: 0x2,
  COMPR: 0x4,
  SYNC: 0x8,
  IMMUTABLE: 0x10,
  APPEND: 0x20,
  NODUMP: 0x40,
  NOATIME: 0x80,
  NOCOMP: 0x400,
  JOURNAL_DATA: 0x4000,
  NOTAIL: 0x8000,
  DIRSYNC: 0x1_0000,
  TOPDIR: 0x2_0000,
  NOCOW: 0x80_0000,
  DAX: 0x200_0000,
  PROJINHERIT: 0x2000_0000,
} as const;
/** The rest the file system sets itself. */
const KEPT_FLAGS = Object.values(FS).reduce((all, flag) => all | flag, 0);
/** These only act on a file that is empty (btrfs, ext4). */
const EARLY_FLAGS = FS.COMPR | FS.NOCOMP | FS.NOCOW | FS.DAX;
/** With these a file cannot be opened for writing, or mapped so. */
const LATE_FLAGS = FS.IMMUTABLE | FS.APPEND;

/** Of the flags of an inode, those that are saved. */
export function savedInodeFlags(flags: number): number {
  return flags & KEPT_FLAGS;
}

/** The flags of an inode that are saved; 0 where the file system has none. */
export function readInodeFlags(fd: number): number {
  try {
    return savedInodeFlags(readAllInodeFlags(fd));
  } catch (error) {
    if (!hasNoFlags(error)) throw error;
    return 0;
  }
}

/** @throws SyscallError where the file system has none */
export function readAllInodeFlags(fd: number): number {
  const flags = new Uint8Array(8);
  syscall("ioctl", BigInt(fd), BigInt(FS_IOC_GETFLAGS), addressOf(flags));
  return new DataView(flags.buffer).getUint32(0, true);
}

/** The others, of an immutable or append-only file. */
export function withoutLateFlags(flags: number): number {
  return flags & ~LATE_FLAGS;
}

/**
 * Gives an inode these of the flags that are saved, and no other of them.
 *
 * @param among which flags it is about
 */
function setInodeFlags(
  fd: number,
  wanted: number,
  among = KEPT_FLAGS,
): void {
  let now: number;
  try {
    now = readAllInodeFlags(fd);
  } catch (error) {
    if (wanted === 0 && hasNoFlags(error)) return;
    throw error;
  }
  const then = (now & ~among) | (wanted & among);
  if (now === then) return;
  const flags = new Uint8Array(BigUint64Array.of(BigInt(then)).buffer);
  syscall("ioctl", BigInt(fd), BigInt(FS_IOC_SETFLAGS), addressOf(flags));
}

const FS_IOC_FSGETXATTR = 0x801c581fn;
const FS_IOC_FSSETXATTR = 0x401c5820n;
/** struct fsxattr of linux/fs.h, and fsx_projid in it. */
const FSXATTR_BYTES = 28;
const FSX_PROJECT = 12;

/** Answers undefined where the file system knows no projects. */
function askExtended(fd: number): DataView<ArrayBuffer> | undefined {
  const answer = new Uint8Array(FSXATTR_BYTES);
  try {
    syscall("ioctl", BigInt(fd), FS_IOC_FSGETXATTR, addressOf(answer));
  } catch (error) {
    if (!hasNoFlags(error)) throw error;
    return undefined;
  }
  return new DataView(answer.buffer);
}

/** The project that an inode counts for (quotas); 0: none. */
export function readProject(fd: number): number {
  return askExtended(fd)?.getUint32(FSX_PROJECT, true) ?? 0;
}

/** Also takes one away that a new file has of its directory. */
function setProject(fd: number, project: number): void {
  const extended = askExtended(fd);
  if (extended === undefined && project === 0) return;
  const wanted = extended ?? new DataView(new ArrayBuffer(FSXATTR_BYTES));
  if (wanted.getUint32(FSX_PROJECT, true) === project) return;
  wanted.setUint32(FSX_PROJECT, project, true);
  const bytes = new Uint8Array(wanted.buffer);
  syscall("ioctl", BigInt(fd), FS_IOC_FSSETXATTR, addressOf(bytes));
}

function hasNoFlags(error: unknown): boolean {
  return isOneOf(error, ENOTTY, EOPNOTSUPP, EINVAL);
}

/**
 * Extended attributes of the file that a magic link leads to; none where the
 * file system has none.
 */
export function readXattrs(at: string): ckpt_xattr_entry[] {
  const path = terminated(encodeText(at));
  const list = answer((address, length) =>
    syscallBuffer0("listxattr", path, address, length)
  );
  if (list === undefined) return [];
  const names = decodeText(list).split("\0").filter((name) => name !== "");
  return names.flatMap((name) => {
    const value = answer((address, length) => {
      const text = terminated(encodeText(name));
      return syscallBuffer0("getxattr", path, addressOf(text), address, length);
    });
    return value === undefined ? [] : [{ name, value }];
  });
}

/** XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
const LARGEST_XATTR = 65536;

let room: Uint8Array<ArrayBuffer> | undefined;

function answer(
  ask: (address: bigint, length: bigint) => bigint,
): Uint8Array | undefined {
  try {
    // Most have none, for which no memory is needed, neither here nor there.
    if (ask(0n, 0n) === 0n) return new Uint8Array(0);
    room ??= new Uint8Array(LARGEST_XATTR);
    return room.slice(0, Number(ask(addressOf(room), BigInt(room.length))));
  } catch (error) {
    // Not supported here, or not shown to us.
    if (isOneOf(error, EOPNOTSUPP, ENODATA, EPERM)) return undefined;
    throw error;
  }
}

export interface Attributes {
  readonly uid: number;
  readonly gid: number;
  /** st_mode with the type. */
  readonly mode: number;
  readonly accessed: Time | undefined;
  readonly modified: Time | undefined;
  readonly xattrs: readonly ckpt_xattr_entry[];
  readonly inodeFlags: number;
  /** 0: none; undefined: as a new file has it. */
  readonly project?: number;
}

/** Takes the flags away that a file has of its directory; it is empty yet. */
export function setEarlyFlags(fd: number, { inodeFlags }: Attributes): void {
  setInodeFlags(fd, inodeFlags & EARLY_FLAGS);
}

/** Whether {@link setLateFlags} has anything to do. */
export function hasLateFlags({ inodeFlags }: Attributes): boolean {
  return (inodeFlags & LATE_FLAGS) !== 0;
}

/**
 * Makes a file immutable or append-only, when it has been opened and mapped.
 *
 * @param fd O_PATH
 * @param action as for {@link setAttributes}
 * @throws CkptError
 */
export function setLateFlags(
  fd: number,
  action: string,
  attributes: Attributes,
): void {
  if (!hasLateFlags(attributes)) return;
  attemptFor(
    action,
    wordsForFlags(attributes.inodeFlags),
    () =>
      withDescriptor(
        fd,
        (own) => setInodeFlags(own, attributes.inodeFlags, LATE_FLAGS),
      ),
  );
}

function wordsForFlags(inodeFlags: number): string {
  return `its inode flags 0x${inodeFlags.toString(16)}`;
}

/** One that ioctl(2) takes, for an O_PATH descriptor. */
function withDescriptor(fd: number, use: (own: number) => void): void {
  const own = open(`/proc/self/fd/${fd}`, O.RDONLY | O.NONBLOCK);
  try {
    use(own);
  } finally {
    close(own);
  }
}

function attemptFor(action: string, what: string, call: () => void): void {
  try {
    call();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, action, [{
      object: what,
      why: describeErrno(error.errno),
      remedy: remedyForDenied(error),
    }], { cause: error });
  }
}

const DEFAULT_ACL = "system.posix_acl_default";

/** Whether a new file in a directory may get an ACL or flags of it. */
export function handsDown(directory: string): boolean {
  if (readXattrs(directory).some(({ name }) => name === DEFAULT_ACL)) {
    return true;
  }
  const fd = open(encodeText(directory), O.RDONLY | O.DIRECTORY);
  try {
    return readInodeFlags(fd) !== 0;
  } finally {
    close(fd);
  }
}

/** What a new file may have of its directory, and the old one had not. */
function removeAcls(
  path: Uint8Array<ArrayBuffer>,
  xattrs: readonly ckpt_xattr_entry[],
): void {
  for (const acl of ["system.posix_acl_access", DEFAULT_ACL]) {
    if (xattrs.some(({ name }) => name === acl)) continue;
    const name = terminated(encodeText(acl));
    try {
      syscallBuffer0("removexattr", path, addressOf(name));
    } catch (error) {
      if (!isOneOf(error, ENODATA, EOPNOTSUPP)) throw error;
    }
  }
}

/**
 * Gives a file its attributes, each after what would change it again: an owner
 * clears set-user-ID bits and capabilities, a write sets the time. That it is
 * immutable or append-only comes later ({@link setLateFlags}).
 *
 * @param fd O_PATH
 * @param action what is being done, for errors: "making the deleted file /x"
 * @throws CkptError naming the attribute
 */
export function setAttributes(
  fd: number,
  action: string,
  attributes: Attributes,
): void {
  const { uid, gid, mode, xattrs, inodeFlags, project } = attributes;
  const at = `/proc/self/fd/${fd}`;
  const path = terminated(encodeText(at));
  const attempt = (what: string, call: () => void) =>
    attemptFor(action, what, call);
  attempt(
    `its owner ${uid}:${gid}`,
    () => syscallBuffer0("chown", path, BigInt(uid), BigInt(gid)),
  );
  if ((mode & S_IF.MT) !== S_IF.LNK) {
    attempt("its ACL", () => removeAcls(path, xattrs));
    attempt(
      `its mode 0${(mode & 0o7777).toString(8)}`,
      () => syscallBuffer0("chmod", path, BigInt(mode & 0o7777)),
    );
  }
  for (const { name, value } of xattrs) {
    const text = terminated(encodeText(name));
    const bytes = Uint8Array.from(value);
    attempt(`its extended attribute ${name}`, () =>
      // The fifth argument, flags, is 0.
      syscallBuffer0(
        "setxattr",
        path,
        addressOf(text),
        bytes.length === 0 ? 0n : addressOf(bytes),
        BigInt(bytes.length),
      ));
  }
  if (project !== undefined && hasInodeFlags({ mode })) {
    attempt(
      `its project ${project}`,
      () => withDescriptor(fd, (own) => setProject(own, project)),
    );
  }
  attempt("its times", () => setTimes(fd, attributes));
  if ((inodeFlags & ~EARLY_FLAGS & ~LATE_FLAGS) === 0) return;
  attempt(
    wordsForFlags(inodeFlags),
    () =>
      withDescriptor(
        fd,
        (own) => setInodeFlags(own, inodeFlags, KEPT_FLAGS & ~LATE_FLAGS),
      ),
  );
}

/** utimensat(2), of an O_PATH descriptor as well. */
export function setTimes(
  fd: number,
  wanted: Pick<Attributes, "accessed" | "modified">,
): void {
  const times = new Uint8Array(TIMES_BYTES);
  putTimes(new DataView(times.buffer), 0, wanted);
  syscallBuffer1(
    "utimensat",
    BigInt(AT_FDCWD),
    terminated(encodeText(`/proc/self/fd/${fd}`)),
    addressOf(times),
    0n,
  );
}

const UTIME_OMIT = 0x3ffffffen;

export const TIMES_BYTES = 32;

/** Writes the two times that utimensat(2) takes. */
export function putTimes(
  view: DataView,
  at: number,
  { accessed, modified }: Pick<Attributes, "accessed" | "modified">,
): void {
  for (const [i, time] of [accessed, modified].entries()) {
    view.setBigInt64(at + 16 * i, time?.seconds ?? 0n, true);
    view.setBigInt64(
      at + 16 * i + 8,
      time === undefined ? UTIME_OMIT : BigInt(time.nanoseconds),
      true,
    );
  }
}

export function isOneOf(error: unknown, ...numbers: number[]): boolean {
  return error instanceof SyscallError && numbers.includes(error.errno);
}

/** Only of these can be asked for flags without an effect of opening them. */
export function hasInodeFlags({ mode }: Pick<FileStatus, "mode">): boolean {
  const type = mode & S_IF.MT;
  return type === S_IF.REG || type === S_IF.DIR;
}
