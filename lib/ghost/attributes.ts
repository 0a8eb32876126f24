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
import type { Time } from "./calls.ts";

export const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602n;
const FS_NOCOW_FL = 0x0080_0000;
/** SYNC, IMMUTABLE, APPEND, NODUMP, NOATIME, NOCOW of linux/fs.h: the rest the
 * file system sets itself, or it is about directories. */
const KEPT_FLAGS = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | FS_NOCOW_FL;

/** Of the flags of an inode, those that are saved. */
export function savedInodeFlags(flags: number): number {
  return flags & KEPT_FLAGS;
}

/** The flags of an inode that are saved; 0 where the file system has none. */
export function readInodeFlags(fd: number): number {
  const flags = new Uint8Array(8);
  try {
    syscall("ioctl", BigInt(fd), BigInt(FS_IOC_GETFLAGS), addressOf(flags));
  } catch (error) {
    if (!hasNoFlags(error)) throw error;
    return 0;
  }
  return savedInodeFlags(new DataView(flags.buffer).getUint32(0, true));
}

/** Gives an inode these of the flags that are saved, and no other of them. */
function setInodeFlags(fd: number, wanted: number): void {
  const flags = new Uint8Array(8);
  const view = new DataView(flags.buffer);
  try {
    syscall("ioctl", BigInt(fd), BigInt(FS_IOC_GETFLAGS), addressOf(flags));
  } catch (error) {
    if (wanted === 0 && hasNoFlags(error)) return;
    throw error;
  }
  const now = view.getUint32(0, true);
  if ((now & KEPT_FLAGS) === wanted) return;
  view.setUint32(0, (now & ~KEPT_FLAGS) | wanted, true);
  syscall("ioctl", BigInt(fd), FS_IOC_SETFLAGS, addressOf(flags));
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
  const list = answer((buffer) =>
    syscallBuffer0(
      "listxattr",
      path,
      addressOf(buffer),
      BigInt(buffer.length),
    )
  );
  if (list === undefined) return [];
  const names = decodeText(list).split("\0").filter((name) => name !== "");
  return names.flatMap((name) => {
    const value = answer((buffer) => {
      const text = terminated(encodeText(name));
      return syscallBuffer0(
        "getxattr",
        path,
        addressOf(text),
        addressOf(buffer),
        BigInt(buffer.length),
      );
    });
    return value === undefined ? [] : [{ name, value }];
  });
}

/** XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
const LARGEST_XATTR = 65536;

function answer(
  ask: (buffer: Uint8Array<ArrayBuffer>) => bigint,
): Uint8Array | undefined {
  const buffer = new Uint8Array(LARGEST_XATTR);
  try {
    return buffer.slice(0, Number(ask(buffer)));
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
}

/**
 * Takes the flags away that the file has of its directory. NOCOW only acts on a
 * file that is empty (btrfs).
 */
export function setEarlyFlags(fd: number, { inodeFlags }: Attributes): void {
  setInodeFlags(fd, inodeFlags & FS_NOCOW_FL);
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
 * clears set-user-ID bits and capabilities, a write sets the time, and an
 * immutable file takes nothing more.
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
  const { uid, gid, mode, xattrs, inodeFlags } = attributes;
  const at = `/proc/self/fd/${fd}`;
  const path = terminated(encodeText(at));
  const attempt = (what: string, call: () => void) => {
    try {
      call();
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(EXIT.failed, action, [{
        object: what,
        why: describeErrno(error.errno),
      }], { cause: error });
    }
  };
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
  attempt("its times", () => setTimes(fd, attributes));
  if ((inodeFlags & ~FS_NOCOW_FL) === 0) return;
  attempt(`its inode flags 0x${inodeFlags.toString(16)}`, () => {
    const own = open(encodeText(at), O.RDONLY | O.NONBLOCK);
    try {
      setInodeFlags(own, inodeFlags);
    } finally {
      close(own);
    }
  });
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
