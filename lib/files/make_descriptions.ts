/**
 * Makes the descriptions of what is not opened by a path alone, all that belong
 * together by one process: the ends of a pipe or fifo, and pidfds.
 */
import { O } from "../ffi/syscall.ts";
import { type Purpose, textOf } from "../ffi/program.ts";
import type { PipeImage } from "./pipe_images.ts";
import { DEFAULT_PIPE_SIZE } from "./pipe_contents.ts";
import { cloexecOfPair, type TableProgram } from "./table_program.ts";
import { F_SETFL, SETTABLE_FLAGS } from "./other_flags.ts";

/** An open file description that is to be made, and where. */
export interface Wanted {
  /** O_* flags. */
  readonly flags: number;
  /** Its number; of a description for others, a temporary one. */
  readonly fd: number;
  /** O_CLOEXEC or 0. */
  readonly cloexec: number;
}

export interface WantedFifo extends Wanted {
  readonly path: string;
  /** A reader that no writer has opened the fifo for. */
  readonly unconnected: boolean;
}

const F_SETPIPE_SZ = 1031;
const PAGE_SIZE = 4096;

const EMPTY: PipeImage = {
  size: undefined,
  bytes: new Uint8Array(0),
  packets: [],
  access: undefined,
};

/** pipe2(2), and its further ends opened anew. */
export function makePipe(
  table: TableProgram,
  wanted: readonly Wanted[],
  content: PipeImage = EMPTY,
  name: Purpose,
): void {
  const { program } = table;
  // An end that was opened through /proc has O_LARGEFILE.
  const end = (access: number) =>
    wanted.find(({ flags }) =>
      (flags & (O.ACCMODE | O.LARGEFILE | O.PATH)) === access
    );
  const [reader, writer] = [end(O.RDONLY), end(O.WRONLY)];
  const [first, second] = table.scratch;
  const reading = reader ?? { fd: first, cloexec: O.CLOEXEC };
  const writing = writer ?? { fd: second, cloexec: O.CLOEXEC };
  const cloexec = cloexecOfPair(reading, writing);
  // What does not fit shall fail, not wait.
  const waits = content.bytes.length === 0 &&
    [reader, writer].some((end) => end && (end.flags & O.NONBLOCK) === 0);
  const made = waits ? 0 : O.NONBLOCK;
  program.call(
    "pipe2",
    [program.reserve(8), cloexec | made],
    () => `making ${textOf(name)}`,
  );
  table.settlePair(reading, writing, cloexec);
  fill(table, writing.fd, content, name);
  if (content.access !== undefined) {
    const { uid, gid, mode } = content.access;
    program.call(
      "fchown",
      [reading.fd, uid, gid],
      () => `setting the owner of ${textOf(name)}`,
    );
    program.call(
      "fchmod",
      [reading.fd, mode],
      () => `setting the mode of ${textOf(name)}`,
    );
  }
  for (const description of wanted) {
    const { flags, fd } = description;
    if (description !== reader && description !== writer) {
      openAnew(table, description, `/proc/self/fd/${reading.fd}`, name);
    } else if (
      (flags & SETTABLE_FLAGS) !== made ||
      description === writer && content.packets.length > 0
    ) {
      program.call(
        "fcntl",
        [fd, F_SETFL, flags & SETTABLE_FLAGS],
        () => `setting the flags of descriptor ${fd} (${textOf(name)})`,
      );
    }
  }
  if (reader === undefined) table.close(first);
  if (writer === undefined) table.close(second);
}

/**
 * Opens a fifo by its paths. While both of its sides are open, no open(2) of
 * one side waits for the other.
 */
export function makeFifo(
  table: TableProgram,
  wanted: readonly WantedFifo[],
  content: PipeImage = EMPTY,
): void {
  const [both, holding] = table.scratch;
  const [{ path }] = wanted;
  table.open(
    path,
    O.RDWR | O.NONBLOCK,
    both,
    O.CLOEXEC,
    `opening the fifo ${path}`,
  );
  fill(table, both, content, path);
  const unconnected = wanted.filter(({ unconnected }) => unconnected);
  for (const description of wanted) {
    if (description.unconnected) continue;
    openAnew(table, description, description.path, description.path);
  }
  if (unconnected.length === 0) {
    table.close(both);
    return;
  }
  // They are opened when there is no writer; what is in the fifo stays as long
  // as anybody has it open.
  const purpose = `opening the fifo ${path}`;
  table.open(path, O.RDONLY | O.NONBLOCK, holding, O.CLOEXEC, purpose);
  table.close(both);
  for (const description of unconnected) {
    const { fd, flags, path } = description;
    const waiting = { ...description, flags: flags | O.NONBLOCK };
    openAnew(table, waiting, path, path);
    if (flags & O.NONBLOCK) continue;
    table.program.call(
      "fcntl",
      [fd, F_SETFL, flags & SETTABLE_FLAGS],
      `setting the flags of descriptor ${fd} (${path})`,
    );
  }
  table.close(holding);
}

function fill(
  { program }: TableProgram,
  fd: number,
  { size, bytes, packets }: PipeImage,
  name: Purpose,
): void {
  // Buffers that came by splice(2) may have held more than a page each.
  const room = Math.max(
    size ?? DEFAULT_PIPE_SIZE,
    Math.ceil(bytes.length / PAGE_SIZE) * PAGE_SIZE,
  );
  if (room !== DEFAULT_PIPE_SIZE) {
    program.call(
      "fcntl",
      [fd, F_SETPIPE_SZ, room],
      () => `setting the size of ${textOf(name)}`,
    );
  }
  if (bytes.length === 0) return;
  const content = program.bytes(bytes);
  if (packets.length > 0) {
    program.call(
      "fcntl",
      [fd, F_SETFL, O.DIRECT | O.NONBLOCK],
      () => `setting the flags of ${textOf(name)}`,
    );
  }
  let at = 0;
  for (const length of packets.length > 0 ? packets : [bytes.length]) {
    program.call(
      "write",
      [fd, program.at(content, at), length],
      () => `filling ${textOf(name)}`,
      { whole: true },
    );
    at += length;
  }
}

function openAnew(
  table: TableProgram,
  { flags, fd, cloexec }: Wanted,
  path: string,
  name: Purpose,
): void {
  const what = () => `descriptor ${fd} (${textOf(name)})`;
  // open(2) refuses packets for files with a name, fcntl(2) takes them.
  const direct = flags & O.DIRECT;
  table.open(
    path,
    flags & (O.ACCMODE | O.PATH | SETTABLE_FLAGS) & ~O.DIRECT,
    fd,
    cloexec,
    () => `opening ${what()}`,
  );
  if (direct !== 0) {
    table.program.call(
      "fcntl",
      [fd, F_SETFL, flags & SETTABLE_FLAGS],
      () => `setting the flags of ${what()}`,
    );
  }
}

const CLONE_UNTRACED = 0x00800000;
const WALL = 0x40000000;

/** Pidfds of a process that ends at once and is waited for. */
export function makeDeadPidfds(
  table: TableProgram,
  wanted: readonly Wanted[],
): void {
  const { program } = table;
  const child = program.call(
    "snapshot",
    [CLONE_UNTRACED],
    "making a process that ends",
  );
  for (const { flags, fd, cloexec } of wanted) {
    program.call(
      "pidfd_open",
      [child, flags & O.NONBLOCK],
      `opening descriptor ${fd}, a pidfd of a process that is gone`,
    );
    table.settle(fd, cloexec);
  }
  program.call("wait4", [child, 0, WALL, 0], "waiting for a process that ends");
}

/** @param pid of a process, or with O_EXCL of a thread, that exists */
export function makePidfd(
  table: TableProgram,
  { flags, fd, cloexec }: Wanted,
  pid: number,
): void {
  table.program.call(
    "pidfd_open",
    [pid, flags & (O.NONBLOCK | O.EXCL)],
    `opening descriptor ${fd}, a pidfd of task ${pid}`,
  );
  table.settle(fd, cloexec);
}
