/**
 * Pseudo terminals that a tree makes itself (pty(7)): what the kernel tells of
 * one, and its entries in tty-info.img, one for each end.
 */
import { EIO } from "../ffi/errno.ts";
import type { Argument, Program } from "../ffi/program.ts";
import {
  addressOf,
  AT_FDCWD,
  deviceNumbers,
  type FileStatus,
  O,
  S_IF,
  syscall,
  syscallBuffer0,
  SyscallError,
} from "../ffi/syscall.ts";
import {
  type file_entry,
  type termios_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";

/** ioctl_tty(2). */
export const IOCTL = {
  FIONREAD: 0x541b,
  TCGETS2: 0x802c542a,
  TCSETS2: 0x402c542b,
  TIOCEXCL: 0x540c,
  TIOCGETD: 0x5424,
  TIOCGEXCL: 0x80045440,
  TIOCGLCKTRMIOS: 0x5456,
  TIOCGPGRP: 0x540f,
  TIOCGPKT: 0x80045438,
  TIOCGPTLCK: 0x80045439,
  TIOCGPTN: 0x80045430,
  TIOCGSID: 0x5429,
  TIOCGWINSZ: 0x5413,
  TIOCPKT: 0x5420,
  TIOCSCTTY: 0x540e,
  TIOCSLCKTRMIOS: 0x5457,
  TIOCSPGRP: 0x5410,
  TIOCSPTLCK: 0x40045431,
  TIOCSWINSZ: 0x5414,
} as const;

const MASTER = { major: 5, minor: 2 };
const FIRST_SLAVE_MAJOR = 136;
const LAST_SLAVE_MAJOR = 143;
const MINORS = 256;

export function isPty({ mode, rdev }: FileStatus): boolean {
  return (mode & S_IF.MT) === S_IF.CHR && endOf(rdev) !== undefined;
}

/** Which end of a pseudo terminal a device is; undefined: it is none. */
function endOf(rdev: bigint): "master" | "slave" | undefined {
  const { major, minor } = deviceNumbers(rdev);
  if (major === MASTER.major && minor === MASTER.minor) return "master";
  return major >= FIRST_SLAVE_MAJOR && major <= LAST_SLAVE_MAJOR
    ? "slave"
    : undefined;
}

/** The number of the pseudo terminal that a slave's device is. */
export function slaveIndex(rdev: bigint): number {
  const { major, minor } = deviceNumbers(rdev);
  return (major - FIRST_SLAVE_MAJOR) * MINORS + minor;
}

/** The path of a slave in the file system of the host's pseudo terminals. */
export function slavePath(index: number): string {
  return `/dev/pts/${index}`;
}

/** Paths that lead to the maker of {@link slavePath}. */
export function isHostMaster(link: string): boolean {
  return link === "/dev/ptmx" || link === "/dev/pts/ptmx";
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
}

/** An open end of a pseudo terminal. */
export interface SeenTerminal {
  readonly end: "master" | "slave";
  /** Undefined: the master of this slave is closed. */
  readonly index: number | undefined;
  readonly isExclusive: boolean;
  /** Bytes that can be read. */
  readonly unread: number;
  readonly master: MasterState | undefined;
}

/** sizeof(struct termios2), struct termios and struct winsize. */
const TERMIOS2_BYTES = 44;
const TERMIOS_BYTES = 36;
const WINSIZE_BYTES = 8;
const POLLHUP = 0x10;

/**
 * Asks a descriptor of ckpt's own for an end of a pseudo terminal; changes
 * nothing.
 */
export function lookAtTerminal(fd: number, status: FileStatus): SeenTerminal {
  const end = endOf(status.rdev)!;
  try {
    return {
      end,
      index: end === "master"
        ? number(fd, IOCTL.TIOCGPTN)
        : slaveIndex(status.rdev),
      isExclusive: number(fd, IOCTL.TIOCGEXCL) !== 0,
      unread: number(fd, IOCTL.FIONREAD),
      master: end === "master" ? lookAtMaster(fd) : undefined,
    };
  } catch (error) {
    // All that a slave answers when the master is closed.
    if (!(error instanceof SyscallError) || error.errno !== EIO) throw error;
    return {
      end,
      index: undefined,
      isExclusive: false,
      unread: 0,
      master: undefined,
    };
  }
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
  };
}

export function structure(
  fd: number,
  request: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  syscall("ioctl", BigInt(fd), BigInt(request), addressOf(bytes));
  return bytes;
}

function number(fd: number, request: number): number {
  return new DataView(structure(fd, request, 4).buffer).getInt32(0, true);
}

/** It controls no session: ENOTTY. */
function numberOr0(fd: number, request: number): number {
  try {
    return number(fd, request);
  } catch (error) {
    if (!(error instanceof SyscallError) || error.errno === EIO) throw error;
    return 0;
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
  readonly end: "master" | "slave";
  readonly index: number;
  readonly isExclusive: boolean;
  readonly master: MasterState;
}

/** CRIU's number of an end in tty-info.img. */
function infoId(index: number, end: "master" | "slave"): number {
  return index * 2 + (end === "master" ? 1 : 0);
}

/** @param slave of the file in /dev/pts */
export function dumpTerminal(
  { end, index, isExclusive, master }: Terminal,
  { rdev, dev }: Pick<FileStatus, "rdev" | "dev">,
  slave: Pick<FileStatus, "uid" | "gid">,
): tty_info_entry {
  const size = new DataView(master.windowSize.buffer);
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
    uid: slave.uid,
    gid: slave.gid,
  };
}

const FLAG_BYTES = 16;
const CC_BYTES = 19;
/** Elements of c_cc in the format, of which the first five hold bytes. */
const CC_ELEMENTS = 19;

function dumpTermios(bytes: Uint8Array<ArrayBuffer>): termios_entry {
  const view = new DataView(bytes.buffer);
  const cc = new Uint8Array(CC_ELEMENTS * 4);
  cc.set(bytes.subarray(FLAG_BYTES + 1, FLAG_BYTES + 1 + CC_BYTES));
  const [c_ispeed, c_ospeed] = bytes.length === TERMIOS2_BYTES
    ? [view.getUint32(36, true), view.getUint32(40, true)]
    : [0, 0];
  return {
    c_iflag: view.getUint32(0, true),
    c_oflag: view.getUint32(4, true),
    c_cflag: view.getUint32(8, true),
    c_lflag: view.getUint32(12, true),
    c_line: bytes[FLAG_BYTES],
    c_ispeed,
    c_ospeed,
    c_cc: [...new Uint32Array(cc.buffer)],
  };
}

/** struct termios2 of an entry; its beginning is struct termios. */
export function termiosBytes(entry: termios_entry): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(TERMIOS2_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, entry.c_iflag, true);
  view.setUint32(4, entry.c_oflag, true);
  view.setUint32(8, entry.c_cflag, true);
  view.setUint32(12, entry.c_lflag, true);
  bytes[FLAG_BYTES] = entry.c_line;
  const cc = new Uint8Array(Uint32Array.from(entry.c_cc).buffer);
  bytes.set(cc.subarray(0, CC_BYTES), FLAG_BYTES + 1);
  view.setUint32(36, entry.c_ispeed, true);
  view.setUint32(40, entry.c_ospeed, true);
  return bytes;
}

/** A pseudo terminal of an image whose master is open. */
export interface TerminalImage {
  readonly index: number;
  readonly master: tty_info_entry;
  /** Undefined: it was never open. */
  readonly slave: tty_info_entry | undefined;
  /** The file that is the master. */
  readonly masterFile: file_entry;
}

/** @param infos tty-info.img */
export function terminalsOf(
  files: Iterable<file_entry>,
  infos: readonly tty_info_entry[],
): TerminalImage[] {
  const byId = new Map(infos.map((info) => [info.id, info]));
  return [...files].flatMap((file) => {
    const master = file.tty && byId.get(file.tty.tty_info_id);
    const index = master?.pty?.index;
    if (
      index === undefined || master?.type !== TtyType.PTY ||
      master.id !== infoId(index, "master")
    ) return [];
    const slave = byId.get(infoId(index, "slave"));
    return [{ index, master, slave, masterFile: file }];
  });
}

/** Ids in tty-info.img of both ends of terminals. */
export function infosOf(terminals: readonly TerminalImage[]): Set<number> {
  return new Set(
    terminals.flatMap(({ index }) => [
      infoId(index, "master"),
      infoId(index, "slave"),
    ]),
  );
}

/**
 * Adds an ioctl(2) on a slave, which is open only for this: for who has none,
 * or a controlling terminal is not set by its number.
 */
function onSlave(
  program: Program,
  index: number,
  request: number,
  argument: Argument,
  purpose: string,
): void {
  const path = slavePath(index);
  const fd = program.call(
    "openat",
    [
      AT_FDCWD,
      program.text(path),
      O.RDWR | O.NOCTTY | O.NONBLOCK | O.CLOEXEC,
      0,
    ],
    `opening ${path}`,
  );
  program.call("ioctl", [fd, request, argument], purpose);
  program.call("close", [fd], `closing ${path}`);
}

/**
 * By the leader of a session, before it has children in it: they inherit the
 * terminal by fork(2), and cannot get it in another way.
 */
export function takeControl(program: Program, index: number): void {
  const purpose = `taking control of ${slavePath(index)}`;
  onSlave(program, index, IOCTL.TIOCSCTTY, 0, purpose);
}

/** By a member of the session, when the group exists. */
export function setForeground(
  program: Program,
  index: number,
  group: number,
): void {
  const argument = program.reserve(4);
  program.setInt32(argument, 0, group);
  const purpose = `bringing group ${group} to the foreground of ${
    slavePath(index)
  }`;
  onSlave(program, index, IOCTL.TIOCSPGRP, argument, purpose);
}
