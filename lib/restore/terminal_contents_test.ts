/** Random contents, put into terminals of the kernel's and looked up there: they are what they were. */
import { assertEquals } from "@std/assert";
import { close, O, open, stat } from "../ffi/syscall.ts";
import { infoId, lookAtTerminal } from "../files/terminal.ts";
import type { TerminalImage } from "../files/terminal_images.ts";
import { changeTermios } from "../files/termios.ts";
import { int, IOCTL, number, request } from "../files/tty_ioctl.ts";
import { dumpTerminal } from "../files/terminal.ts";
import { NO_OWNER } from "../files/file_table.ts";
import { TerminalQueues } from "../files/terminal_queues.ts";
import { seededRandom } from "../image/testing/random.ts";
import type { ckpt_terminal_entry } from "../image/schema.gen.ts";
import { fillTerminal } from "./terminal_contents.ts";

const ROUNDS = 60;
const ICRNL = 0o400;
const IXON = 0o2000;
const OPOST = 1;
const ONLCR = 4;
/** ISIG, ICANON, ECHO, ECHOE, ECHOK, ECHOCTL, ECHOKE and IEXTEN. */
const LINES = 1 | 2 | 8 | 0o20 | 0o40 | 0o1000 | 0o4000 | 0o100000;
/** TIOCPKT_FLUSHREAD, FLUSHWRITE, STOP, START, and NOSTOP or DOSTOP. */
const [FLUSHES, STOP, START, NO_STOP, DO_STOP] = [3, 4, 8, 16, 32];

/** A terminal of the test's own, with the file system's next number. */
class Pty implements Disposable {
  readonly master = open("/dev/ptmx", O.RDWR | O.NOCTTY | O.NONBLOCK);
  readonly index = number(this.master, IOCTL.TIOCGPTN);
  readonly slave: number;

  constructor() {
    request(this.master, IOCTL.TIOCSPTLCK, int(0));
    this.slave = open(
      `/dev/pts/${this.index}`,
      O.RDWR | O.NOCTTY | O.NONBLOCK,
    );
  }

  state() {
    return lookAtTerminal(this.master, stat(this.master)).master!;
  }

  [Symbol.dispose](): void {
    close(this.slave);
    close(this.master);
  }
}

interface Wanted {
  readonly canonical: boolean;
  readonly flows: boolean;
  readonly packets: boolean;
  readonly toSlave: Uint8Array<ArrayBuffer>;
  readonly toMaster: Uint8Array<ArrayBuffer>;
  readonly extension: ckpt_terminal_entry;
}

function wanted(next: () => number): Wanted {
  const upTo = (most: number) => Math.floor(next() * (most + 1));
  const often = () => next() < 0.5;
  // Bytes that mean something are met often.
  const keys = [3, 4, 10, 13, 15, 17, 18, 19, 21, 22, 26, 127, 255, 0];
  const bytes = (most: number) =>
    Uint8Array.from(
      { length: upTo(most) },
      () => often() ? keys[upTo(keys.length - 1)] : upTo(255),
    );
  const [canonical, flows, packets] = [often(), often(), often()];
  const toSlave: number[] = [];
  const lines: { length: number; ended_by_eof: boolean }[] = [];
  for (let i = canonical ? upTo(5) : 0; i > 0; i--) {
    const line = [...bytes(40)];
    const ended_by_eof = next() < 0.3;
    // Any byte can be one that ends lines (VEOL), but for that of no key.
    if (!ended_by_eof) line.push(often() ? 10 : 1 + upTo(254));
    lines.push({ length: line.length, ended_by_eof });
    toSlave.push(...line);
  }
  toSlave.push(...bytes(next() < 0.1 ? 3500 : 60));
  const stopped = [0, 0, 1, 2][upTo(3)];
  let status = packets ? upTo(FLUSHES) : 0;
  if (packets && often()) status |= flows ? DO_STOP : NO_STOP;
  if (packets && stopped !== 0) status |= STOP;
  else if (packets && often()) status |= START;
  return {
    canonical,
    flows: flows || stopped === 1,
    packets,
    toSlave: Uint8Array.from(toSlave),
    toMaster: bytes(next() < 0.1 ? 4000 : 60),
    extension: {
      index: 0,
      lines,
      without: [],
      quotes_next: canonical && often() || undefined,
      echoes: stopped === 0 ? undefined : bytes(30),
      output_stopped: stopped || undefined,
      packet_status: stopped === 1 ? status & ~(DO_STOP | NO_STOP) : status,
    },
  };
}

function imageOf(pty: Pty, want: Wanted): TerminalImage {
  const state = pty.state();
  const termios = changeTermios(state.termios, {
    input: ICRNL | (want.flows ? IXON : 0),
    output: OPOST | ONLCR,
    local: want.canonical ? LINES : 0,
  });
  const end = {
    end: "master" as const,
    index: pty.index,
    isExclusive: false,
    master: { ...state, termios, packets: want.packets },
  };
  return {
    index: pty.index,
    path: `/dev/pts/${pty.index}`,
    master: dumpTerminal(end, { rdev: 0n, dev: 0n }),
    slave: undefined,
    // Not looked at.
    masterFile: { type: 11, id: infoId(pty.index, "master") },
    ptmx: { id: 0, flags: 0, pos: 0n, fown: NO_OWNER, name: "", build_id: [] },
    toSlave: want.toSlave,
    toMaster: want.toMaster,
    extension: want.extension,
  };
}

Deno.test("what was under way in a terminal is under way in another", () => {
  using queues = TerminalQueues.open() as TerminalQueues;
  const next = seededRandom(7);
  for (let round = 0; round < ROUNDS; round++) {
    const want = wanted(next);
    using pty = new Pty();
    fillTerminal(pty, imageOf(pty, want));
    const found = queues.read(pty.master, pty.state())!;
    const { extension } = want;
    const { input } = found.slave;
    const what = `round ${round}`;
    assertEquals(input.bytes, want.toSlave, `${what}: for the slave`);
    assertEquals(
      input.lines.map(({ length, endedByEof }) => ({
        length,
        ended_by_eof: endedByEof,
      })),
      extension.lines,
      `${what}: lines`,
    );
    assertEquals(input.quotesNext, extension.quotes_next ?? false, what);
    assertEquals(
      input.echoes,
      extension.echoes ?? new Uint8Array(),
      `${what}: echoes`,
    );
    assertEquals(
      [...found.master.input.bytes, ...found.master.arriving],
      [...want.toMaster],
      `${what}: for the master`,
    );
    assertEquals(
      [found.slave.stopped, found.slave.stoppedByCall],
      [extension.output_stopped !== undefined, extension.output_stopped === 2],
      `${what}: stopped`,
    );
    assertEquals(pty.state().packets, want.packets, what);
    assertEquals(
      found.packetStatus,
      extension.packet_status,
      `${what}: status`,
    );
  }
});
