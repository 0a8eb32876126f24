/**
 * System calls made by ckpt itself, typed. All return what the kernel returns,
 * or throw a {@link SyscallError}; nothing here waits long.
 */
import { describeErrno } from "./errno.ts";
import { library } from "./library.ts";

/** Numbers for x86-64 (arch/x86/entry/syscalls/syscall_64.tbl). */
export const NR = {
  read: 0,
  write: 1,
  close: 3,
  stat: 4,
  fstat: 5,
  lstat: 6,
  poll: 7,
  lseek: 8,
  mmap: 9,
  mprotect: 10,
  munmap: 11,
  brk: 12,
  rt_sigaction: 13,
  ioctl: 16,
  pread64: 17,
  pwrite64: 18,
  pwritev: 296,
  mremap: 25,
  madvise: 28,
  shmget: 29,
  shmat: 30,
  shmctl: 31,
  semget: 64,
  semop: 65,
  semctl: 66,
  msgget: 68,
  msgsnd: 69,
  msgrcv: 70,
  msgctl: 71,
  dup: 32,
  sendfile: 40,
  socket: 41,
  connect: 42,
  get_robust_list: 274,
  accept4: 288,
  sendto: 44,
  sendmsg: 46,
  recvfrom: 45,
  recvmsg: 47,
  shutdown: 48,
  bind: 49,
  listen: 50,
  getsockname: 51,
  getpeername: 52,
  socketpair: 53,
  setsockopt: 54,
  getsockopt: 55,
  getitimer: 36,
  setitimer: 38,
  getpid: 39,
  clone: 56,
  clone3: 435,
  vfork: 58,
  exit: 60,
  unshare: 272,
  wait4: 61,
  syncfs: 306,
  rt_sigprocmask: 14,
  tgkill: 234,
  exit_group: 231,
  setpgid: 109,
  waitid: 247,
  kill: 62,
  shmdt: 67,
  fcntl: 72,
  flock: 73,
  fsync: 74,
  fchdir: 81,
  fchmod: 91,
  fchown: 93,
  umask: 95,
  ptrace: 101,
  setuid: 105,
  getppid: 110,
  getpgid: 121,
  getsid: 124,
  setsid: 112,
  setgroups: 116,
  setresuid: 117,
  setresgid: 119,
  setfsuid: 122,
  setfsgid: 123,
  capset: 126,
  rt_sigtimedwait: 128,
  rt_sigqueueinfo: 129,
  sigaltstack: 131,
  personality: 135,
  setpriority: 141,
  modify_ldt: 154,
  prctl: 157,
  arch_prctl: 158,
  chroot: 161,
  gettid: 186,
  sched_setaffinity: 203,
  sched_getaffinity: 204,
  io_setup: 206,
  io_submit: 209,
  set_tid_address: 218,
  timer_create: 222,
  timer_settime: 223,
  timer_gettime: 224,
  timer_getoverrun: 225,
  timer_delete: 226,
  clock_gettime: 228,
  clock_nanosleep: 230,
  ioprio_set: 251,
  ioprio_get: 252,
  get_mempolicy: 239,
  openat: 257,
  newfstatat: 262,
  readlinkat: 267,
  set_robust_list: 273,
  splice: 275,
  tee: 276,
  vmsplice: 278,
  dup3: 292,
  pipe2: 293,
  prlimit64: 302,
  rt_tgsigqueueinfo: 297,
  kcmp: 312,
  sched_setattr: 314,
  sched_getattr: 315,
  seccomp: 317,
  mq_open: 240,
  mq_unlink: 241,
  mq_timedsend: 242,
  mq_timedreceive: 243,
  mq_getsetattr: 245,
  fstatfs: 138,
  memfd_create: 319,
  membarrier: 324,
  mlock2: 325,
  rseq: 334,
  pidfd_open: 434,
  close_range: 436,
  pidfd_getfd: 438,
  mlockall: 151,
  mseal: 462,
  chmod: 90,
  lchown: 94,
  mknodat: 259,
  mkdirat: 258,
  unlinkat: 263,
  linkat: 265,
  symlinkat: 266,
  ftruncate: 77,
  fallocate: 285,
  copy_file_range: 326,
  utimensat: 280,
  setxattr: 188,
  removexattr: 197,
  getdents64: 217,
  clock_getres: 229,
  io_uring_setup: 425,
  io_uring_enter: 426,
  io_uring_register: 427,
  open_tree: 428,
  move_mount: 429,
  fsopen: 430,
  fsconfig: 431,
  fsmount: 432,
  fspick: 433,
  openat2: 437,
  pivot_root: 155,
  umount2: 166,
  setns: 308,
  mount_setattr: 442,
  epoll_wait: 232,
  epoll_ctl: 233,
  timerfd_create: 283,
  timerfd_settime: 286,
  timerfd_gettime: 287,
  signalfd4: 289,
  eventfd2: 290,
  epoll_create1: 291,
  getxattr: 191,
  listxattr: 194,
  flistxattr: 196,
  renameat: 264,
  statfs: 137,
  statx: 332,
  name_to_handle_at: 303,
  open_by_handle_at: 304,
  chown: 92,
  chdir: 80,
  inotify_add_watch: 254,
  inotify_rm_watch: 255,
  inotify_init1: 294,
  fanotify_init: 300,
  fanotify_mark: 301,
  renameat2: 316,
  bpf: 321,
  sethostname: 170,
  setdomainname: 171,
} as const;

export const O = {
  RDONLY: 0,
  WRONLY: 1,
  RDWR: 2,
  ACCMODE: 3,
  CREAT: 0o100,
  EXCL: 0o200,
  NOCTTY: 0o400,
  TRUNC: 0o1000,
  APPEND: 0o2000,
  NONBLOCK: 0o4000,
  ASYNC: 0o20000,
  DIRECT: 0o40000,
  LARGEFILE: 0o100000,
  DIRECTORY: 0o200000,
  NOFOLLOW: 0o400000,
  NOATIME: 0o1000000,
  CLOEXEC: 0o2000000,
  PATH: 0o10000000,
  TMPFILE: 0o20200000,
} as const;

export const AT_FDCWD = -100;

/** A system call of ckpt's own that failed. Callers say what it was for. */
export class SyscallError extends Error {
  override readonly name = "SyscallError";
  /** @param errno positive */
  constructor(readonly call: string, readonly errno: number) {
    super(`${call}: ${describeErrno(errno)}`);
  }
}

function result(call: keyof typeof NR, value: bigint): bigint {
  if (value < 0n && value >= -4095n) {
    throw new SyscallError(call, Number(-value));
  }
  return value;
}

const encoder = new TextEncoder();

/** A path as the kernel takes it. Bytes that are no UTF-8 are kept. */
export type KernelPath = string | Uint8Array;

export function terminated(path: KernelPath): Uint8Array<ArrayBuffer> {
  const bytes = typeof path === "string" ? encoder.encode(path) : path;
  const out = new Uint8Array(bytes.length + 1);
  out.set(bytes);
  return out;
}

const PATH_MAX = 4096;
const passed = new Uint8Array(PATH_MAX);

/**
 * The same in memory that is used again: for a call that is made at once. A
 * dump names a hundred paths for every process.
 */
export function passing(path: KernelPath): Uint8Array<ArrayBuffer> {
  const BYTES_PER_UNIT = 3;
  if (typeof path !== "string" || path.length * BYTES_PER_UNIT >= PATH_MAX) {
    return terminated(path);
  }
  passed[encoder.encodeInto(path, passed).written] = 0;
  return passed;
}

/** Any call with plain numbers. Throws a {@link SyscallError}. */
export function syscall(
  call: keyof typeof NR,
  a = 0n,
  b = 0n,
  c = 0n,
  d = 0n,
  e = 0n,
  f = 0n,
): bigint {
  return result(
    call,
    library("base").ckpt_syscall(BigInt(NR[call]), a, b, c, d, e, f),
  );
}

/** The same for one that often fails: negative is -errno; errors take 30 us. */
export function trySyscall(
  call: keyof typeof NR,
  a = 0n,
  b = 0n,
  c = 0n,
  d = 0n,
  e = 0n,
  f = 0n,
): number {
  return Number(
    library("base").ckpt_syscall(BigInt(NR[call]), a, b, c, d, e, f),
  );
}

/** The same, made by whoever traces tasks for ckpt: ptrace(2), wait4(2). */
export function syscallByTracer(
  call: "ptrace" | "wait4",
  a: bigint,
  b: bigint,
  c: bigint,
  d = 0n,
): bigint {
  return result(
    call,
    library("dump").tracer_syscall(BigInt(NR[call]), a, b, c, d, 0n, 0n),
  );
}

/** A call whose first argument is a buffer. */
export function syscallBuffer0(
  call: keyof typeof NR,
  buffer: Uint8Array<ArrayBuffer>,
  b = 0n,
  c = 0n,
  d = 0n,
): bigint {
  return result(
    call,
    library("base").syscall_buffer0(BigInt(NR[call]), buffer, b, c, d, 0n, 0n),
  );
}

/** A call whose second argument is a buffer. */
export function syscallBuffer1(
  call: keyof typeof NR,
  a: bigint,
  buffer: Uint8Array<ArrayBuffer>,
  c = 0n,
  d = 0n,
  e = 0n,
): bigint {
  return result(
    call,
    library("base").syscall_buffer1(BigInt(NR[call]), a, buffer, c, d, e, 0n),
  );
}

/** openat(2) with AT_FDCWD; close-on-exec always. */
export function open(path: KernelPath, flags: number, mode = 0): number {
  return Number(
    syscallBuffer1(
      "openat",
      BigInt(AT_FDCWD),
      passing(path),
      BigInt(flags | O.CLOEXEC),
      BigInt(mode),
    ),
  );
}

/** A call that may take long: made beside JavaScript, whose event loop goes on. */
export async function syscallBeside(
  call: keyof typeof NR,
  a = 0n,
  b = 0n,
  c = 0n,
  d = 0n,
): Promise<bigint> {
  return result(
    call,
    await library("waiting").syscall_beside(
      BigInt(NR[call]),
      a,
      b,
      c,
      d,
      0n,
      0n,
    ),
  );
}

export function close(fd: number): void {
  syscall("close", BigInt(fd));
}

/** pread(2) until `buffer` is full or the file ends; the bytes read. */
export function pread(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  offset: bigint,
): number {
  return transfer("pread64", fd, buffer, offset);
}

/** pwrite(2) until all of `buffer` is written or none is taken; the bytes written. */
export function pwrite(
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  offset: bigint,
): number {
  return transfer("pwrite64", fd, buffer, offset);
}

function transfer(
  call: "pread64" | "pwrite64",
  fd: number,
  buffer: Uint8Array<ArrayBuffer>,
  offset: bigint,
): number {
  let done = 0;
  while (done < buffer.length) {
    const n = Number(
      syscallBuffer1(
        call,
        BigInt(fd),
        done === 0 ? buffer : buffer.subarray(done),
        BigInt(buffer.length - done),
        offset + BigInt(done),
      ),
    );
    if (n === 0) break;
    done += n;
  }
  return done;
}

/** Memory for an answer of the kernel, to be used again and again. */
class KernelAnswer {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView;
  #address: bigint | undefined;

  constructor(length: number) {
    this.bytes = new Uint8Array(length);
    this.view = new DataView(this.bytes.buffer);
  }

  get address(): bigint {
    return this.#address ??= addressOf(this.bytes);
  }
}

/** What identifies a file, and what decides how it is saved. */
export interface FileStatus {
  dev: bigint;
  ino: bigint;
  /** st_mode with the file type. */
  mode: number;
  nlink: bigint;
  uid: number;
  gid: number;
  rdev: bigint;
  size: bigint;
  /** Bytes it takes on its file system. */
  allocated: bigint;
}

/** Unit of st_blocks. */
export const BLOCK = 512n;

/** struct stat of x86-64 (asm/stat.h). */
const answer = new KernelAnswer(144);

/** stat(2), following links; or fstat(2) of a descriptor. */
export function stat(of: KernelPath | number): FileStatus {
  if (typeof of === "number") {
    syscallBuffer1("fstat", BigInt(of), answer.bytes);
  } else {
    syscallBuffer0("stat", passing(of), answer.address);
  }
  return decodeStatus(answer.view);
}

/** lstat(2): of a link itself. */
export function lstat(path: KernelPath): FileStatus {
  syscallBuffer0("lstat", passing(path), answer.address);
  return decodeStatus(answer.view);
}

/** @param at where in `view` a struct stat is */
export function decodeStatus(view: DataView, at = 0): FileStatus {
  return {
    dev: view.getBigUint64(at, true),
    ino: view.getBigUint64(at + 8, true),
    nlink: view.getBigUint64(at + 16, true),
    mode: view.getUint32(at + 24, true),
    uid: view.getUint32(at + 28, true),
    gid: view.getUint32(at + 32, true),
    rdev: view.getBigUint64(at + 40, true),
    size: view.getBigUint64(at + 48, true),
    allocated: view.getBigUint64(at + 64, true) * BLOCK,
  };
}

const link = new KernelAnswer(PATH_MAX);

/** readlink(2): the bytes of the link, at most 4095. */
export function readLink(path: KernelPath): Uint8Array<ArrayBuffer> {
  const length = syscallBuffer1(
    "readlinkat",
    BigInt(AT_FDCWD),
    passing(path),
    link.address,
    BigInt(PATH_MAX),
  );
  return link.bytes.slice(0, Number(length));
}

/** File types in st_mode (inode(7)). */
export const S_IF = {
  MT: 0o170000,
  SOCK: 0o140000,
  LNK: 0o120000,
  REG: 0o100000,
  BLK: 0o060000,
  DIR: 0o040000,
  CHR: 0o020000,
  IFO: 0o010000,
} as const;

/** Major and minor number of a dev_t as stat(2) gives it. */
export function deviceNumbers(dev: bigint): { major: number; minor: number } {
  return {
    major: Number((dev >> 8n & 0xfffn) | (dev >> 32n & 0xfffff000n)),
    minor: Number((dev & 0xffn) | (dev >> 12n & 0xffffff00n)),
  };
}

/** Where a buffer is in ckpt's memory; valid while the caller holds it. */
export function addressOf(buffer: Uint8Array<ArrayBuffer>): bigint {
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer)));
}
