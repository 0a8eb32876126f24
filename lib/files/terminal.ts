/**
 * Pseudo terminals that a tree makes itself (pty(7)): what the kernel tells of
 * one, and its entries in tty-info.img, one for each end.
 */
import { EIO } from "../ffi/errno.ts";
import {
  close,
  deviceNumbers,
  type FileStatus,
  O,
  readLink,
  S_IF,
  stat,
  syscall,
  syscallBuffer0,
  SyscallError,
} from "../ffi/syscall.ts";
import { decodeText } from "../ffi/text.ts";
import { type tty_info_entry, TtyType } from "../image/schema.gen.ts";
import { dumpTermios, TERMIOS2_BYTES } from "./termios.ts";
import { IOCTL, number, numberOr0, structure } from "./tty_ioctl.ts";

const MASTER = { major: 5, minor: 2 };
/** /dev/tty. */
const OWN = { major: 5, minor: 0 };
const FIRST_SLAVE_MAJOR = 136;
const LAST_SLAVE_MAJOR = 143;
const MINORS = 256;

export function isPty({ mode, rdev }: FileStatus): boolean {
  return (mode & S_IF.MT) === S_IF.CHR && endOf(rdev) !== undefined;
}

/** An end of a pseudo terminal; "own" is a slave that was opened as /dev/tty. */
export type End = "master" | "slave" | "own";

/** What a device may be; undefined: no pseudo terminal. */
function endOf(rdev: bigint): End | undefined {
  const { major, minor } = deviceNumbers(rdev);
  if (major === MASTER.major && minor === MASTER.minor) return "master";
  if (major === OWN.major && minor === OWN.minor) return "own";
  return major >= FIRST_SLAVE_MAJOR && major <= LAST_SLAVE_MAJOR
    ? "slave"
    : undefined;
}

/** The number of the pseudo terminal whose slave a device is. */
export function slaveIndex(rdev: bigint): number | undefined {
  const { major, minor } = deviceNumbers(rdev);
  return major >= FIRST_SLAVE_MAJOR && major <= LAST_SLAVE_MAJOR
    ? (major - FIRST_SLAVE_MAJOR) * MINORS + minor
    : undefined;
}

/**
 * The path of a slave: in the directory of the ptmx by which its master was
 * opened, or, where that is no part of a devpts, in pts beside it.
 *
 * @param master the path of the master
 */
export function slavePath(master: string, index: number): string {
  const directory = master.slice(0, master.lastIndexOf("/"));
  return directory === "/dev" ? `/dev/pts/${index}` : `${directory}/${index}`;
}

/** What the master alone is asked; it is that of the slave, but for packets. */
export interface MasterState {
  readonly lineDiscipline: number;
  /** struct termios2 of the kernel. */
  readonly termios: Uint8Array<ArrayBuffer>;
  /** struct termios: bits that are locked. */
  readonly lockedTermios: Uint8Array<ArrayBuffer>;
  /** struct winsize. */
  readonly windowSize: Uint8Array<ArrayBuffer>;
  readonly packets: boolean;
  readonly isLocked: boolean;
  /** The session it controls, and its foreground group; 0: none. */
  readonly session: number;
  readonly foreground: number;
  /** Slaves were open, and all of them are closed. */
  readonly isHungUp: boolean;
  /** The file that is the slave. */
  readonly slave: { readonly path: string; readonly status: FileStatus };
}

/** An open end of a pseudo terminal, or another terminal by /dev/tty. */
export interface SeenTerminal {
  readonly end: End;
  /** Undefined: the master of this slave is closed, or it is another one. */
  readonly index: number | undefined;
  /** It is a slave whose master is closed. */
  readonly isDead: boolean;
  readonly isExclusive: boolean;
  /** Bytes that can be read. */
  readonly unread: number;
  readonly master: MasterState | undefined;
}

const TERMIOS_BYTES = 36;
const WINSIZE_BYTES = 8;
const POLLHUP = 0x10;

/**
 * Asks a descriptor of ckpt's own for an end of a pseudo terminal; changes
 * nothing.
 */
export function lookAtTerminal(fd: number, status: FileStatus): SeenTerminal {
  const end = endOf(status.rdev)!;
  const nothing = { isExclusive: false, unread: 0, master: undefined };
  try {
    const index = end === "master"
      ? number(fd, IOCTL.TIOCGPTN)
      : slaveIndex(end === "own" ? ownDevice(fd) : status.rdev);
    if (index === undefined) return { ...nothing, end, index, isDead: false };
    return {
      end,
      index,
      isDead: false,
      isExclusive: number(fd, IOCTL.TIOCGEXCL) !== 0,
      unread: number(fd, IOCTL.FIONREAD),
      master: end === "master" ? lookAtMaster(fd) : undefined,
    };
  } catch (error) {
    // All that a slave answers when the master is closed.
    if (!(error instanceof SyscallError) || error.errno !== EIO) throw error;
    return { ...nothing, end, index: undefined, isDead: true };
  }
}

/** The device that /dev/tty stood for when it was opened. */
function ownDevice(fd: number): bigint {
  return BigInt(number(fd, IOCTL.TIOCGDEV) >>> 0);
}

function lookAtMaster(fd: number): MasterState {
  return {
    lineDiscipline: number(fd, IOCTL.TIOCGETD),
    termios: structure(fd, IOCTL.TCGETS2, TERMIOS2_BYTES),
    lockedTermios: structure(fd, IOCTL.TIOCGLCKTRMIOS, TERMIOS_BYTES),
    windowSize: structure(fd, IOCTL.TIOCGWINSZ, WINSIZE_BYTES),
    packets: number(fd, IOCTL.TIOCGPKT) !== 0,
    isLocked: number(fd, IOCTL.TIOCGPTLCK) !== 0,
    session: numberOr0(fd, IOCTL.TIOCGSID),
    foreground: numberOr0(fd, IOCTL.TIOCGPGRP),
    isHungUp: isHungUp(fd),
    slave: lookAtSlave(fd),
  };
}

/** Without opening it: that would change a terminal of which none is open. */
function lookAtSlave(master: number): MasterState["slave"] {
  const fd = Number(
    syscall(
      "ioctl",
      BigInt(master),
      BigInt(IOCTL.TIOCGPTPEER),
      BigInt(O.PATH | O.CLOEXEC),
    ),
  );
  try {
    const path = decodeText(readLink(`/proc/self/fd/${fd}`));
    return { path, status: stat(fd) };
  } finally {
    close(fd);
  }
}

function isHungUp(fd: number): boolean {
  const pollfd = new Int16Array(4);
  new Int32Array(pollfd.buffer)[0] = fd;
  syscallBuffer0("poll", new Uint8Array(pollfd.buffer), 1n, 0n);
  return (pollfd[3] & POLLHUP) !== 0;
}

/** An open end, with what its master told. */
export interface Terminal {
  readonly end: End;
  readonly index: number;
  readonly isExclusive: boolean;
  readonly master: MasterState;
}

/** NR_UNIX98_PTY_MAX of the kernel's include/linux/tty.h. */
export const TERMINALS = 2 ** 20;

/**
 * The number of an end in tty-info.img: CRIU's. It has but one for /dev/tty,
 * and none for slaves whose master is closed; those are above all others.
 */
export function infoId(index: number, end: End): number {
  if (end === "own") return (TERMINALS + index) * 2;
  return index * 2 + (end === "master" ? 1 : 0);
}

/** A slave whose master is closed: only that it was one of this number. */
export function dumpDeadSlave(
  index: number,
  { rdev, dev }: Pick<FileStatus, "rdev" | "dev">,
): tty_info_entry {
  return {
    id: (2 * TERMINALS + index) * 2,
    type: TtyType.UNKNOWN,
    locked: false,
    exclusive: false,
    packet_mode: false,
    sid: 0,
    pgrp: 0,
    rdev: Number(rdev),
    dev: Number(dev),
  };
}

export function dumpTerminal(
  { end, index, isExclusive, master }: Terminal,
  { rdev, dev }: Pick<FileStatus, "rdev" | "dev">,
): tty_info_entry {
  const size = new DataView(master.windowSize.buffer);
  const { uid, gid } = master.slave.status;
  if (end === "own") {
    return {
      id: infoId(index, end),
      type: TtyType.CTTY,
      locked: false,
      exclusive: isExclusive,
      packet_mode: false,
      sid: master.session,
      pgrp: master.foreground,
      rdev: Number(rdev),
      dev: Number(dev),
    };
  }
  return {
    id: infoId(index, end),
    type: TtyType.PTY,
    locked: master.isLocked,
    exclusive: isExclusive,
    packet_mode: master.packets,
    sid: master.session,
    pgrp: master.foreground,
    rdev: Number(rdev),
    dev: Number(dev),
    termios: dumpTermios(master.termios),
    termios_locked: dumpTermios(master.lockedTermios),
    winsize: {
      ws_row: size.getUint16(0, true),
      ws_col: size.getUint16(2, true),
      ws_xpixel: size.getUint16(4, true),
      ws_ypixel: size.getUint16(6, true),
    },
    pty: { index },
    uid,
    gid,
  };
}
