/**
 * Makes the pseudo terminals of a tree before the first process exists, each
 * with the number it had. The masters are handed on; the slaves are opened by
 * their paths.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  SyscallError,
} from "../ffi/syscall.ts";
import { holderOfPath } from "../files/outside_holders.ts";
import {
  IOCTL,
  slavePath,
  structure,
  type TerminalImage,
  termiosBytes,
} from "../files/terminal.ts";
import type { MadeFile } from "../ghost/make.ts";
import type { termios_entry, winsize_entry } from "../image/schema.gen.ts";

const PTMX = "/dev/ptmx";
const F_SETFL = 4n;
/** Flags of a master that open(2) does not get. */
const SETTABLE = O.APPEND | O.NONBLOCK;

/** Numbers that somebody on this host has. */
export function takenTerminals(terminals: readonly TerminalImage[]): Reason[] {
  return terminals.flatMap(({ index }) =>
    exists(slavePath(index)) ? [takenBy(index)] : []
  );
}

function takenBy(index: number): Reason {
  const path = slavePath(index);
  const holder = holderOfPath(path);
  return {
    object: `the terminal ${path}`,
    why: holder === undefined
      ? "this number is taken on this host"
      : `this number is taken: task ${holder.pid} (${holder.name}) has it open`,
    remedy: "restore when it is free, or in a mount namespace with a new " +
      "devpts at /dev/pts (mount -t devpts -o newinstance)",
  };
}

function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

interface Made {
  readonly image: TerminalImage;
  readonly fd: number;
  /** A slave, so that the terminal does not hang up before all have theirs. */
  slave: number | undefined;
}

export class Terminals implements Disposable {
  /** The masters, by the ids of their files. */
  readonly byFile = new Map<number, MadeFile>();
  readonly #made: Made[] = [];

  private constructor() {}

  /** @throws CkptError naming the terminal */
  static make(terminals: readonly TerminalImage[]): Terminals {
    const made = new Terminals();
    try {
      if (terminals.length > 0) made.#make(terminals);
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  #make(terminals: readonly TerminalImage[]): void {
    const wanted = new Map(terminals.map((image) => [image.index, image]));
    const highest = Math.max(...wanted.keys());
    const others: number[] = [];
    try {
      // The kernel gives the lowest number that is free.
      for (let last = -1; wanted.size > 0 && last < highest;) {
        const fd = attempt(PTMX, () => open(PTMX, O.RDWR | O.NOCTTY));
        last = numberOf(fd);
        const image = wanted.get(last);
        if (image === undefined) others.push(fd);
        else {
          wanted.delete(last);
          this.#made.push({ image, fd, slave: undefined });
        }
      }
    } finally {
      for (const fd of others) close(fd);
    }
    if (wanted.size > 0) {
      throw new CkptError(
        EXIT.failed,
        "making terminals",
        [...wanted.keys()].map(takenBy),
      );
    }
    for (const made of this.#made) {
      const { image, fd } = made;
      this.byFile.set(image.masterFile.id, { fd, reopen: false });
      attempt(slavePath(image.index), () => prepare(made));
    }
  }

  /** Who controls which: the number of the terminal by the session. */
  get bySession(): ReadonlyMap<number, number> {
    return new Map(
      this.#made.flatMap(({ image: { index, master } }) =>
        master.sid === 0 ? [] : [[master.sid, index]]
      ),
    );
  }

  /** What would hinder opening them; when all who had them open have again. */
  settle(): void {
    for (const made of this.#made) {
      const { image: { index, master, slave }, fd } = made;
      attempt(slavePath(index), () => {
        if (slave?.exclusive) request(made.slave!, IOCTL.TIOCEXCL);
        if (master.exclusive) request(fd, IOCTL.TIOCEXCL);
        const { termios_locked: locked } = master;
        if (locked !== undefined && !isEmpty(locked)) {
          request(fd, IOCTL.TIOCSLCKTRMIOS, termiosBytes(locked));
        }
        if (master.locked) request(fd, IOCTL.TIOCSPTLCK, int(1));
      });
      if (made.slave !== undefined) close(made.slave);
      made.slave = undefined;
    }
  }

  [Symbol.dispose](): void {
    for (const { fd, slave } of this.#made.splice(0)) {
      if (slave !== undefined) close(slave);
      close(fd);
    }
    this.byFile.clear();
  }
}

function prepare(made: Made): void {
  const { image: { index, master, slave, masterFile }, fd } = made;
  request(fd, IOCTL.TIOCSPTLCK, int(0));
  if (slave !== undefined) {
    const { uid, gid } = slave;
    made.slave = open(slavePath(index), O.RDWR | O.NOCTTY | O.NONBLOCK);
    if (uid !== undefined && gid !== undefined) {
      Deno.chownSync(slavePath(index), uid, gid);
    }
  }
  const { termios, winsize } = master;
  if (winsize !== undefined) {
    request(fd, IOCTL.TIOCSWINSZ, windowSize(winsize));
  }
  if (termios !== undefined) {
    request(fd, IOCTL.TCSETS2, termiosBytes(termios));
  }
  if (master.packet_mode) request(fd, IOCTL.TIOCPKT, int(1));
  const flags = masterFile.tty!.flags & SETTABLE;
  if (flags !== 0) syscall("fcntl", BigInt(fd), F_SETFL, BigInt(flags));
}

function windowSize(
  { ws_row, ws_col, ws_xpixel, ws_ypixel }: winsize_entry,
): Uint8Array<ArrayBuffer> {
  const size = Uint16Array.of(ws_row, ws_col, ws_xpixel, ws_ypixel);
  return new Uint8Array(size.buffer);
}

function isEmpty(entry: termios_entry): boolean {
  return termiosBytes(entry).every((byte) => byte === 0);
}

function int(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Int32Array.of(value).buffer);
}

function request(
  fd: number,
  number: number,
  argument?: Uint8Array<ArrayBuffer>,
): void {
  const address = argument === undefined ? 0n : addressOf(argument);
  syscall("ioctl", BigInt(fd), BigInt(number), address);
}

function numberOf(fd: number): number {
  const bytes = structure(fd, IOCTL.TIOCGPTN, 4);
  return new DataView(bytes.buffer).getInt32(0, true);
}

function attempt<T>(object: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "making a terminal", [{
      object,
      why: error.message,
    }], { cause: error });
  }
}
