/**
 * Makes the pseudo terminals of a tree before the first process exists, each
 * with the number it had. The masters are handed on; the slaves are opened by
 * their paths.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { nameExists } from "../ffi/path_exists.ts";
import { close, O, open, stat, syscall, SyscallError } from "../ffi/syscall.ts";
import { holderOfPath } from "../files/outside_holders.ts";
import type {
  DeadSlave,
  TerminalImage,
  TerminalImages,
} from "../files/terminal_images.ts";
import { termiosBytes } from "../files/termios.ts";
import { int, IOCTL, number, request } from "../files/tty_ioctl.ts";
import type { MadeFile } from "../ghost/make.ts";
import type {
  reg_file_entry,
  termios_entry,
  winsize_entry,
} from "../image/schema.gen.ts";

const F_SETFL = 4n;
/** Flags of a master that open(2) does not get. */
const SETTABLE = O.APPEND | O.NONBLOCK;
/** Flags that a slave can be opened with anew. */
const OPENABLE = O.ACCMODE | O.APPEND | O.NONBLOCK;

/**
 * What leads ckpt to a file of the tree, which may have its own mounts;
 * undefined: those are only planned.
 */
type WayTo = (file: reg_file_entry) => string | undefined;

/** Numbers that somebody on this host has. */
export function takenTerminals(
  { all }: TerminalImages,
  wayTo: WayTo,
): Reason[] {
  return all.flatMap((image) => {
    const way = wayToSlave(image, wayTo);
    return way !== undefined && nameExists(way)
      ? [takenBy(image.path, way)]
      : [];
  });
}

function wayToSlave(
  { path, ptmx }: TerminalImage,
  wayTo: WayTo,
): string | undefined {
  return wayTo({ ...ptmx, name: path });
}

function takenBy(path: string, way: string): Reason {
  const holder = holderOfPath(way);
  return {
    object: `the terminal ${path}`,
    why: holder === undefined
      ? "this number is taken on this host"
      : `this number is taken: task ${holder.pid} (${holder.name}) has it open`,
    remedy: "restore when it is free, or in a mount namespace with a new " +
      "devpts at /dev/pts (mount -t devpts -o newinstance)",
  };
}

interface Made {
  readonly image: TerminalImage;
  /** What leads ckpt to the slave. */
  readonly way: string;
  readonly fd: number;
  /** A slave, so that the terminal does not hang up before all have theirs. */
  slave: number | undefined;
}

export class Terminals implements Disposable {
  /** The masters, and slaves without one, by the ids of their files. */
  readonly byFile = new Map<number, MadeFile>();
  readonly #made: Made[] = [];
  readonly #dead: number[] = [];

  private constructor() {}

  /** @throws CkptError naming the terminal */
  static async make(
    { all, dead }: TerminalImages,
    wayTo: WayTo,
  ): Promise<Terminals> {
    const made = new Terminals();
    try {
      const closed = Map.groupBy(dead, ({ path }) => wayTo(path)!);
      for (const [way, slaves] of closed) made.#makeDead(way, slaves);
      const files = Map.groupBy(all, ({ ptmx }) => wayTo(ptmx)!);
      for (const [ptmx, images] of files) {
        await made.#make(
          ptmx,
          images.map((image) => ({ image, way: wayToSlave(image, wayTo)! })),
        );
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** All slaves of one; a terminal keeps its number as long as one is open. */
  #makeDead(way: string, slaves: readonly DeadSlave[]): void {
    const directory = way.slice(0, way.lastIndexOf("/"));
    attempt(slaves[0].path.name, () => {
      const others: number[] = [];
      try {
        const last = () => numberOf(others[others.length - 1]);
        do others.push(openMaster(`${directory}/ptmx`)); while (
          last() < slaves[0].index
        );
        // Where the number is taken, another will do: nobody can ask for it.
        const made = `${directory}/${last()}`;
        request(others[others.length - 1], IOCTL.TIOCSPTLCK, int(0));
        for (const { file } of slaves) {
          const fd = open(made, file.tty!.flags & OPENABLE | O.NOCTTY);
          this.#dead.push(fd);
          this.byFile.set(file.id, { fd, reopen: false });
        }
      } finally {
        for (const fd of others) close(fd);
      }
    });
  }

  async #make(
    ptmx: string,
    terminals: readonly Omit<Made, "fd" | "slave">[],
  ): Promise<void> {
    const wanted = new Map(terminals.map((one) => [one.image.index, one]));
    const highest = Math.max(...wanted.keys());
    const others: number[] = [];
    const made: Made[] = [];
    try {
      // The kernel gives the lowest number that is free.
      for (let last = -1; wanted.size > 0 && last < highest;) {
        const fd = attempt(
          terminals[0].image.ptmx.name,
          () => openMaster(ptmx),
        );
        last = numberOf(fd);
        const one = wanted.get(last);
        if (one === undefined) others.push(fd);
        else {
          wanted.delete(last);
          made.push({ ...one, fd, slave: undefined });
        }
      }
    } finally {
      this.#made.push(...made);
      for (const fd of others) close(fd);
    }
    if (wanted.size > 0) {
      throw new CkptError(
        EXIT.failed,
        "making terminals",
        [...wanted.values()].map(({ image, way }) => takenBy(image.path, way)),
      );
    }
    const filled = made.some(({ image }) => hasContents(image));
    const contents = filled
      ? await import("./terminal_contents.ts")
      : undefined;
    for (const one of made) {
      const { image, fd } = one;
      this.byFile.set(image.masterFile.id, { fd, reopen: false });
      attempt(image.path, () => prepare(one, contents));
    }
  }

  /** Who controls which: the path of the terminal by the session. */
  get bySession(): ReadonlyMap<number, string> {
    return new Map(
      this.#made.flatMap(({ image: { path, master } }) =>
        master.sid === 0 ? [] : [[master.sid, path]]
      ),
    );
  }

  /** What would hinder opening them; when all who had them open have again. */
  settle(): void {
    for (const made of this.#made) {
      const { image: { path, master, slave }, fd } = made;
      attempt(path, () => {
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
    for (const fd of this.#dead.splice(0)) close(fd);
    this.byFile.clear();
  }
}

/** Whether something was under way in it. */
function hasContents(
  { toSlave, toMaster, extension }: TerminalImage,
): boolean {
  const { lines = [], quotes_next, typed, echoes } = extension ?? {};
  const { packet_status, output_stopped, input_stopped } = extension ?? {};
  return lines.length > 0 ||
    (toSlave ?? toMaster ?? quotes_next ?? typed ?? echoes ?? packet_status ??
        output_stopped ?? input_stopped) !== undefined;
}

function openMaster(path: string): number {
  return open(path, O.RDWR | O.NOCTTY | O.NONBLOCK);
}

function prepare(
  made: Made,
  contents: typeof import("./terminal_contents.ts") | undefined,
): void {
  const { image, way, fd } = made;
  const { master, slave, masterFile, extension } = image;
  request(fd, IOCTL.TIOCSPTLCK, int(0));
  const fill = contents !== undefined && hasContents(image);
  if (slave !== undefined || fill) {
    made.slave = open(way, O.RDWR | O.NOCTTY | O.NONBLOCK);
  }
  const { uid, gid } = slave ?? master;
  if (uid !== undefined && gid !== undefined) own(way, uid, gid);
  if (extension?.mode !== undefined) Deno.chmodSync(way, extension.mode);
  const { termios, winsize, packet_mode } = master;
  if (winsize !== undefined) {
    request(fd, IOCTL.TIOCSWINSZ, windowSize(winsize));
  }
  if (fill && termios !== undefined) {
    contents.fillTerminal({ master: fd, slave: made.slave! }, image);
  } else {
    if (termios !== undefined) {
      request(fd, IOCTL.TCSETS2, termiosBytes(termios));
    }
    if (packet_mode) request(fd, IOCTL.TIOCPKT, int(1));
  }
  const flags = masterFile.tty!.flags & SETTABLE;
  syscall("fcntl", BigInt(fd), F_SETFL, BigInt(flags));
}

function own(path: string, uid: number, gid: number): void {
  const { uid: hasUid, gid: hasGid } = stat(path);
  if (uid !== hasUid || gid !== hasGid) Deno.chownSync(path, uid, gid);
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

function numberOf(master: number): number {
  return number(master, IOCTL.TIOCGPTN);
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
