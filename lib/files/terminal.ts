/**
 * Pseudo terminals that a tree makes itself (pty(7)): what the kernel tells of
 * one, and its entries in tty-info.img, one for each end.
 */
import { EIO } from "../ffi/errno.ts";
import { decodeText } from "../ffi/text.ts";
import type { Argument, Program } from "../ffi/program.ts";
import {
  addressOf,
  AT_FDCWD,
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
import {
  type ckpt_terminal_entry,
  type file_entry,
  type reg_file_entry,
  type termios_entry,
  type tty_data_entry,
  type tty_info_entry,
  TtyType,
} from "../image/schema.gen.ts";

/** ioctl_tty(2). */
export const IOCTL = {
  FIONREAD: 0x541b,
  TCFLSH: 0x540b,
  TCGETS2: 0x802c542a,
  TCSETS2: 0x402c542b,
  TCXONC: 0x540a,
  TIOCEXCL: 0x540c,
  TIOCGETD: 0x5424,
  TIOCGDEV: 0x80045432,
  TIOCGEXCL: 0x80045440,
  TIOCGLCKTRMIOS: 0x5456,
  TIOCGPGRP: 0x540f,
  TIOCGPKT: 0x80045438,
  TIOCGPTLCK: 0x80045439,
  TIOCGPTPEER: 0x5441,
  TIOCGPTN: 0x80045430,
  TIOCGSID: 0x5429,
  TIOCGWINSZ: 0x5413,
  TIOCNOTTY: 0x5422,
  TIOCPKT: 0x5420,
  TIOCSCTTY: 0x540e,
  TIOCSLCKTRMIOS: 0x5457,
  TIOCSPGRP: 0x5410,
  TIOCSPTLCK: 0x40045431,
  TIOCSTI: 0x5412,
  TIOCSWINSZ: 0x5414,
} as const;

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

export function structure(
  fd: number,
  request: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  syscall("ioctl", BigInt(fd), BigInt(request), addressOf(bytes));
  return bytes;
}

/** ioctl(2) with a structure, or none. */
export function request(
  fd: number,
  number: number,
  argument?: Uint8Array<ArrayBuffer>,
): void {
  const address = argument === undefined ? 0n : addressOf(argument);
  syscall("ioctl", BigInt(fd), BigInt(number), address);
}

/** An int in memory. */
export function int(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Int32Array.of(value).buffer);
}

export function number(fd: number, request: number): number {
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

/** c_iflag, c_oflag and c_lflag. */
export function termiosFlags(
  termios: Uint8Array<ArrayBuffer>,
): { input: number; output: number; local: number } {
  const view = new DataView(termios.buffer);
  return {
    input: view.getUint32(0, true),
    output: view.getUint32(4, true),
    local: view.getUint32(12, true),
  };
}

const FLAG_BYTES = 16;
const CC_AT = FLAG_BYTES + 1;
const CC_BYTES = 19;

/** Special characters, by their places in c_cc. */
export const CC = {
  VINTR: 0,
  VQUIT: 1,
  VERASE: 2,
  VKILL: 3,
  VEOF: 4,
  VSTART: 8,
  VSTOP: 9,
  VSUSP: 10,
  VEOL: 11,
  VREPRINT: 12,
  VWERASE: 14,
  VLNEXT: 15,
  VEOL2: 16,
} as const;

/** One of c_cc. */
export function specialCharacter(
  termios: Uint8Array,
  character: number,
): number {
  return termios[CC_AT + character];
}

/** A copy of struct termios2 with other c_iflag, c_oflag, c_lflag or c_cc. */
export function changeTermios(
  termios: Uint8Array<ArrayBuffer>,
  { input, output, local, characters = {} }: {
    input?: number;
    output?: number;
    local?: number;
    characters?: Readonly<Record<number, number>>;
  },
): Uint8Array<ArrayBuffer> {
  const changed = termios.slice();
  const view = new DataView(changed.buffer);
  if (input !== undefined) view.setUint32(0, input, true);
  if (output !== undefined) view.setUint32(4, output, true);
  if (local !== undefined) view.setUint32(12, local, true);
  for (const [character, value] of Object.entries(characters)) {
    changed[CC_AT + Number(character)] = value;
  }
  return changed;
}
/** Elements of c_cc in the format, of which the first five hold bytes. */
const CC_ELEMENTS = 19;

function dumpTermios(bytes: Uint8Array<ArrayBuffer>): termios_entry {
  const view = new DataView(bytes.buffer);
  const cc = new Uint8Array(CC_ELEMENTS * 4);
  cc.set(bytes.subarray(CC_AT, CC_AT + CC_BYTES));
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
  bytes.set(cc.subarray(0, CC_BYTES), CC_AT);
  view.setUint32(36, entry.c_ispeed, true);
  view.setUint32(40, entry.c_ospeed, true);
  return bytes;
}

/** A pseudo terminal of an image whose master is open. */
export interface TerminalImage {
  readonly index: number;
  /** The path of its slave. */
  readonly path: string;
  readonly master: tty_info_entry;
  /** Undefined: it was never open. */
  readonly slave: tty_info_entry | undefined;
  /** The file that is the master, and that it is opened by. */
  readonly masterFile: file_entry;
  readonly ptmx: reg_file_entry;
  /** What was under way in it, and what CRIU does not tell. */
  readonly toSlave: Uint8Array | undefined;
  readonly toMaster: Uint8Array | undefined;
  readonly extension: ckpt_terminal_entry | undefined;
}

/** A slave of an image whose master is closed. */
export interface DeadSlave {
  /** The number that it has, and the file that led to it. */
  readonly index: number;
  readonly path: reg_file_entry;
  readonly file: file_entry;
}

/** The terminals that a restore has to make. */
export interface TerminalImages {
  readonly all: readonly TerminalImage[];
  readonly dead: readonly DeadSlave[];
  /** Ids of files that are /dev/tty, and whose session has to open it. */
  readonly own: ReadonlyMap<number, number>;
}

/** What is read of images: tty-info.img, tty-data.img, ckpt-terminals.img. */
interface TerminalEntries {
  readonly infos: readonly tty_info_entry[];
  readonly data: readonly tty_data_entry[];
  readonly extensions: readonly ckpt_terminal_entry[];
}

export function terminalsOf(
  files: ReadonlyMap<number, file_entry>,
  { infos, data, extensions }: TerminalEntries,
): TerminalImages {
  const byId = new Map(infos.map((info) => [info.id, info]));
  const bytes = new Map(data.map(({ tty_id, data }) => [tty_id, data]));
  const byIndex = new Map(extensions.map((one) => [one.index, one]));
  const infoOf = ({ tty }: file_entry) => tty && byId.get(tty.tty_info_id);
  const open = [...files.values()].filter(({ tty }) => tty !== undefined);
  const all = open.flatMap((file): TerminalImage[] => {
    const master = infoOf(file);
    const index = master?.pty?.index;
    if (
      index === undefined || master?.type !== TtyType.PTY ||
      master.id !== infoId(index, "master")
    ) return [];
    const ptmx = files.get(file.tty!.regf_id!)!.reg!;
    const slaveId = infoId(index, "slave");
    return [{
      index,
      path: slavePath(ptmx.name, index),
      master,
      slave: byId.get(slaveId),
      masterFile: file,
      ptmx,
      toSlave: bytes.get(slaveId),
      toMaster: bytes.get(master.id),
      extension: byIndex.get(index),
    }];
  });
  const sessions = new Set(all.map(({ master: { sid } }) => sid));
  return {
    all,
    dead: open.flatMap((file) => {
      const info = infoOf(file);
      return info?.type === TtyType.UNKNOWN && info.id >= 4 * TERMINALS
        ? [{
          index: info.id / 2 - 2 * TERMINALS,
          path: files.get(file.tty!.regf_id!)!.reg!,
          file,
        }]
        : [];
    }),
    own: new Map(
      open.flatMap((file) => {
        const { type, sid } = infoOf(file) ?? {};
        return type === TtyType.CTTY && sid !== undefined && sid !== 0 &&
            sessions.has(sid)
          ? [[file.id, sid]]
          : [];
      }),
    ),
  };
}

/** Files that are ends of these terminals: nobody has to give them. */
export function filesOfTerminals(
  files: Iterable<file_entry>,
  { all, dead, own }: TerminalImages,
): Set<number> {
  const infos = new Set(
    all.flatMap(({ index }) => [
      infoId(index, "master"),
      infoId(index, "slave"),
    ]),
  );
  return new Set([
    ...[...files].flatMap(({ id, tty }) =>
      tty !== undefined && infos.has(tty.tty_info_id) ? [id] : []
    ),
    ...dead.map(({ file }) => file.id),
    ...own.keys(),
  ]);
}

/**
 * Adds an ioctl(2) on a slave, which is open only for this: for who has none,
 * or a controlling terminal is not set by its number.
 */
function onSlave(
  program: Program,
  path: string,
  request: number,
  argument: Argument,
  purpose: string,
): void {
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
export function takeControl(program: Program, path: string): void {
  onSlave(program, path, IOCTL.TIOCSCTTY, 0, `taking control of ${path}`);
}

/** By a member of a session that is not its leader: the others keep theirs. */
export function giveUpControl(program: Program, path: string): void {
  onSlave(program, path, IOCTL.TIOCNOTTY, 0, `giving up ${path}`);
}

/** By a member of the session, when the group exists. */
export function setForeground(
  program: Program,
  path: string,
  group: number,
): void {
  const argument = program.reserve(4);
  program.setInt32(argument, 0, group);
  const purpose = `bringing group ${group} to the foreground of ${path}`;
  onSlave(program, path, IOCTL.TIOCSPGRP, argument, purpose);
}
