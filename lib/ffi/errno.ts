/** Names and meanings of error numbers (errno(3), asm-generic/errno*.h). */

const NAMES: Record<number, readonly [name: string, meaning: string]> = {
  1: ["EPERM", "not permitted"],
  2: ["ENOENT", "no such file or directory"],
  3: ["ESRCH", "no such process"],
  4: ["EINTR", "interrupted"],
  5: ["EIO", "input/output error"],
  6: ["ENXIO", "no such device or address"],
  7: ["E2BIG", "too long"],
  8: ["ENOEXEC", "not an executable"],
  9: ["EBADF", "bad file descriptor"],
  10: ["ECHILD", "no child process"],
  11: ["EAGAIN", "a resource is exhausted, or try again"],
  12: ["ENOMEM", "out of memory"],
  13: ["EACCES", "permission denied"],
  14: ["EFAULT", "bad address"],
  16: ["EBUSY", "busy"],
  17: ["EEXIST", "exists already"],
  18: ["EXDEV", "on another file system"],
  19: ["ENODEV", "no such device"],
  20: ["ENOTDIR", "not a directory"],
  21: ["EISDIR", "is a directory"],
  22: ["EINVAL", "invalid argument"],
  23: ["ENFILE", "too many open files on this host"],
  24: ["EMFILE", "too many open files"],
  25: ["ENOTTY", "not supported by this kind of file"],
  26: ["ETXTBSY", "program file is busy"],
  27: ["EFBIG", "file too large"],
  28: ["ENOSPC", "no space left on device"],
  29: ["ESPIPE", "no seeking here"],
  30: ["EROFS", "read-only file system"],
  31: ["EMLINK", "too many links"],
  32: ["EPIPE", "broken pipe"],
  34: ["ERANGE", "out of range"],
  36: ["ENAMETOOLONG", "name too long"],
  38: ["ENOSYS", "not implemented by this kernel"],
  39: ["ENOTEMPTY", "directory not empty"],
  40: ["ELOOP", "too many symbolic links"],
  61: ["ENODATA", "no data"],
  71: ["EPROTO", "protocol error"],
  74: ["EBADMSG", "not a message of this kind"],
  75: ["EOVERFLOW", "value too large"],
  87: ["EUSERS", "too many users"],
  92: ["ENOPROTOOPT", "no such option of this protocol"],
  95: ["EOPNOTSUPP", "operation not supported"],
  105: ["ENOBUFS", "no buffer space"],
  110: ["ETIMEDOUT", "timed out"],
  116: ["ESTALE", "stale file handle"],
  98: ["EADDRINUSE", "address in use"],
  99: ["EADDRNOTAVAIL", "no such address"],
  107: ["ENOTCONN", "not connected"],
  111: ["ECONNREFUSED", "connection refused"],
  122: ["EDQUOT", "disk quota exceeded"],
  125: ["ECANCELED", "not done"],
};

export const ENOENT = 2;
export const ESRCH = 3;
export const EINTR = 4;
export const EIO = 5;
export const ECHILD = 10;
export const EAGAIN = 11;
export const EBADMSG = 74;
export const EACCES = 13;
export const EBUSY = 16;
export const EPERM = 1;
export const EEXIST = 17;
export const ENOTDIR = 20;
export const ELOOP = 40;
export const ENOTEMPTY = 39;
export const EINVAL = 22;
export const ENODATA = 61;
export const EMLINK = 31;
export const EROFS = 30;
export const ENOTTY = 25;
export const EXDEV = 18;
export const ENOSYS = 38;
export const ENODEV = 19;
export const ENXIO = 6;
export const ENOSPC = 28;
export const EDQUOT = 122;
export const EOPNOTSUPP = 95;
export const EADDRINUSE = 98;
export const EADDRNOTAVAIL = 99;
export const ENOTCONN = 107;
export const ENOPROTOOPT = 92;
export const ENOBUFS = 105;
export const ETIMEDOUT = 110;
export const ENAMETOOLONG = 36;
export const ESTALE = 116;
export const ECANCELED = 125;

/**
 * @param errno positive, or negative as a system call returns it
 * @returns "EPERM (not permitted)"
 */
export function describeErrno(errno: number): string {
  const number = Math.abs(errno);
  const known = NAMES[number];
  return known === undefined ? `errno ${number}` : `${known[0]} (${known[1]})`;
}
