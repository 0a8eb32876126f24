/**
 * Puts back what was under way in a pseudo terminal, while nobody else has it:
 * lines, bytes for its master, output that stands still, unread status.
 */
import { EAGAIN } from "../ffi/errno.ts";
import { pause } from "../ffi/pause.ts";
import { syscall, syscallBuffer1, SyscallError } from "../ffi/syscall.ts";
import type { Line } from "../files/line_discipline.ts";
import type { TerminalImage } from "../files/terminal_images.ts";
import {
  CC,
  changeTermios,
  specialCharacter,
  termiosBytes,
  termiosFlags,
} from "../files/termios.ts";
import { int, IOCTL, number, request } from "../files/tty_ioctl.ts";
import { LINE_DISCIPLINE, PIECE, pieceAt } from "../files/terminal_buffers.ts";
import {
  type SpecialCharacters,
  type Typed,
  typing,
  typingOfEchoes,
  XOFF,
  XON,
} from "../files/terminal_typing.ts";

/** Bits of c_iflag, c_oflag and c_lflag (termios(3)). */
const IXON = 0o2000;
const OPOST = 1;
const ICANON = 2;
const ECHO = 8;
const IEXTEN = 0o100000;
const EXTPROC = 0o200000;
const NEWLINE = 10;

/** TIOCPKT_* (ioctl_tty(2)). */
const STATUS = {
  flushRead: 1,
  flushWrite: 2,
  stop: 4,
  start: 8,
  noStop: 16,
  doStop: 32,
  /** Of a terminal with EXTPROC. */
  modes: 64,
};
/** Arguments of TCFLSH and TCXONC (tcflush(3), tcflow(3)). */
const TCIFLUSH = 0;
const TCOFLUSH = 1;
const TCOOFF = 0;
const TCOON = 1;

/** A terminal of ckpt's own; neither of its ends waits (O_NONBLOCK). */
interface Ends {
  readonly master: number;
  readonly slave: number;
}

/**
 * Leaves the terminal with its modes, and in packet mode if it was.
 *
 * @throws SyscallError
 */
export function fillTerminal(ends: Ends, image: TerminalImage): void {
  const { extension, master: { packet_mode }, toMaster } = image;
  const { output_stopped = 0, packet_status = 0 } = extension ?? {};
  const modes = new Modes(ends.master, termiosBytes(image.master.termios!));
  const stops = output_stopped !== 0;
  // The master is told of all that happens to modes and output from here on.
  const told = packet_mode && packet_status !== 0 && !modes.isExternal &&
    !(stops && (packet_status & STATUS.stop) === 0);
  if (told) {
    const { doStop, noStop } = STATUS;
    const flowChanges = (packet_status & (doStop | noStop)) !== 0;
    modes.setRaw(flowChanges ? !modes.flows : modes.flows);
    request(ends.master, IOCTL.TIOCPKT, int(1));
    tellMaster(ends, packet_status);
  }
  modes.setRaw(modes.flows);
  if (toMaster !== undefined) {
    const held = toMaster.subarray(0, LINE_DISCIPLINE);
    write(ends.slave, held, () => PIECE);
    if (held.length < toMaster.length) awaitBytes(ends.master, held.length);
    write(ends.slave, toMaster.subarray(held.length), pieceAt);
  }
  if (stops) stopOutput(ends, modes, (output_stopped & BY_CALL) !== 0);
  if (extension?.echoes !== undefined) {
    const typed = typingOfEchoes(extension.echoes);
    modes.setTyping(typed.characters, true);
    type(ends, typed.keys);
    modes.setTyping(typed.characters, false);
    type(ends, Uint8Array.of(typed.characters.kill));
  }
  for (const { characters, keys } of typedInto(image, modes)) {
    modes.setTyping(characters, false);
    type(ends, keys);
  }
  if (packet_mode && (packet_status & STATUS.modes) !== 0) {
    request(ends.master, IOCTL.TIOCPKT, int(1));
  }
  modes.set();
  if (packet_mode && !told) request(ends.master, IOCTL.TIOCPKT, int(1));
  if (extension?.typed !== undefined) {
    write(ends.master, extension.typed, pieceAt);
  }
  if (extension?.input_stopped !== undefined) {
    call(ends.master, IOCTL.TCXONC, TCOOFF);
  }
}

/** Bits of ckpt_terminal_entry.output_stopped. */
const BY_CALL = 2;

/** By doing what the kernel tells it of; nothing is in the terminal yet. */
function tellMaster({ slave }: Ends, status: number): void {
  if ((status & STATUS.flushRead) !== 0) call(slave, IOCTL.TCFLSH, TCIFLUSH);
  if ((status & STATUS.flushWrite) !== 0) call(slave, IOCTL.TCFLSH, TCOFLUSH);
  if ((status & STATUS.start) !== 0) {
    call(slave, IOCTL.TCXONC, TCOOFF);
    call(slave, IOCTL.TCXONC, TCOON);
  }
}

function typedInto(
  { toSlave = new Uint8Array(), extension }: TerminalImage,
  { isCanonical }: Modes,
): Typed[] {
  const lines = !isCanonical
    ? []
    : extension === undefined
    ? completeLines(toSlave)
    : extension.lines.map(({ length, ended_by_eof }) => ({
      length,
      endedByEof: ended_by_eof ?? false,
    }));
  return typing(toSlave, lines, extension?.quotes_next ?? false);
}

/** CRIU tells no lines; it could read complete ones only. */
function completeLines(bytes: Uint8Array): Line[] {
  const lines: Line[] = [];
  let length = 0;
  for (const byte of bytes) {
    length++;
    if (byte !== NEWLINE) continue;
    lines.push({ length, endedByEof: false });
    length = 0;
  }
  if (length > 0) lines.push({ length, endedByEof: true });
  return lines;
}

/** Modes of a terminal, and others that it has for a moment. */
class Modes {
  /** Its line discipline makes lines. */
  readonly isCanonical: boolean;
  /** EXTPROC: another host does the work of the line discipline. */
  readonly isExternal: boolean;
  /** ^S and ^Q stop and start output: what a master in packet mode is told. */
  readonly flows: boolean;
  /** A key has stopped output, which goes on when IXON ends. */
  isStopped = false;
  readonly #modes: Uint8Array<ArrayBuffer>;
  readonly #output: number;

  constructor(readonly master: number, modes: Uint8Array<ArrayBuffer>) {
    const { input, output, local } = termiosFlags(modes);
    this.#modes = modes;
    this.#output = output;
    this.isExternal = (local & EXTPROC) !== 0;
    this.isCanonical = (local & ICANON) !== 0 && !this.isExternal;
    this.flows = (input & IXON) !== 0 &&
      specialCharacter(modes, CC.VSTOP) === XOFF &&
      specialCharacter(modes, CC.VSTART) === XON;
  }

  set(): void {
    this.#set(this.#modes);
  }

  /** Bytes for the master go as they are. */
  setRaw(flows: boolean): void {
    this.#set(changeTermios(this.#modes, {
      input: flows ? IXON : 0,
      output: this.#output & ~OPOST,
      local: ICANON,
      characters: { ...NO_CHARACTERS, ...(flows ? FLOW : {}) },
    }));
  }

  setTyping(
    { next, eof, eol, kill }: SpecialCharacters,
    echoes: boolean,
  ): void {
    this.#set(changeTermios(this.#modes, {
      input: this.flows || this.isStopped ? IXON : 0,
      local: ICANON | IEXTEN | (echoes ? ECHO : 0),
      characters: {
        ...NO_CHARACTERS,
        ...(this.flows ? FLOW : {}),
        [CC.VLNEXT]: next,
        [CC.VEOF]: eof,
        [CC.VEOL]: eol,
        [CC.VKILL]: kill,
      },
    }));
  }

  #set(modes: Uint8Array<ArrayBuffer>): void {
    request(this.master, IOCTL.TCSETS2, modes);
  }
}

const NO_CHARACTERS = Object.fromEntries(
  Object.values(CC).map((character) => [character, 0]),
);
const FLOW: Readonly<Record<number, number>> = {
  [CC.VSTOP]: XOFF,
  [CC.VSTART]: XON,
};

function stopOutput(ends: Ends, modes: Modes, byCall: boolean): void {
  if (byCall) {
    call(ends.slave, IOCTL.TCXONC, TCOOFF);
    return;
  }
  modes.setRaw(true);
  type(ends, Uint8Array.of(XOFF));
  modes.isStopped = true;
}

/** Unlike what a master writes, it is there at once. */
function type({ slave }: Ends, keys: Uint8Array): void {
  for (const key of keys) request(slave, IOCTL.TIOCSTI, Uint8Array.of(key));
}

function call(fd: number, number: number, argument: number): void {
  syscall("ioctl", BigInt(fd), BigInt(number), BigInt(argument));
}

/** How long the kernel may take to carry bytes from one end to the other. */
const PATIENCE_MS = 10_000;

function awaitBytes(fd: number, count: number): void {
  const end = performance.now() + PATIENCE_MS;
  while (number(fd, IOCTL.FIONREAD) < count && performance.now() < end) {
    pause(0.1);
  }
}

function write(
  fd: number,
  bytes: Uint8Array,
  pieceAt: (offset: number) => number,
): void {
  const all = Uint8Array.from(bytes);
  const end = performance.now() + PATIENCE_MS;
  for (let at = 0; at < all.length;) {
    const piece = all.subarray(at, at + pieceAt(at));
    try {
      at += Number(
        syscallBuffer1("write", BigInt(fd), piece, BigInt(piece.length)),
      );
    } catch (error) {
      if (!(error instanceof SyscallError) || error.errno !== EAGAIN) {
        throw error;
      }
      if (performance.now() > end) throw error;
      pause(0.1);
    }
  }
}
