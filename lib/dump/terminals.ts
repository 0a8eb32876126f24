/**
 * What is under way in the pseudo terminals of a tree: read while it stands
 * still, and described later, as tty-data.img and ckpt-terminals.img.
 */
import type { Reason } from "../error.ts";
import { getDescriptorOf } from "../ffi/pidfd.ts";
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { close, SyscallError } from "../ffi/syscall.ts";
import {
  type Queue,
  type Queues,
  TerminalQueues,
} from "../files/terminal_queues.ts";
import { infoId } from "../files/terminal.ts";
import { termiosFlags } from "../files/termios.ts";
import { LINE_DISCIPLINE, MOST_IN_BUFFERS } from "../files/terminal_buffers.ts";
import {
  mastersAmong,
  type SeenMaster,
  seenMasters,
  type TerminalUser,
  unreadTerminals,
  withoutTheirTerminal,
} from "../files/terminals.ts";
import type {
  ckpt_terminal_entry,
  tty_data_entry,
} from "../image/schema.gen.ts";

/** What was found in terminals. */
export interface ReadTerminals {
  readonly data: tty_data_entry[];
  readonly extensions: ckpt_terminal_entry[];
  /** Whether CRIU would restore them wrongly. */
  readonly beyondCriu: boolean;
  /** Why they cannot be saved now. */
  readonly reasons: readonly Reason[];
}

export class DumpedTerminals implements Disposable {
  readonly #queues = TerminalQueues.open();

  /** @param running a first look, for nothing but to be fast later */
  constructor(running: readonly TerminalUser[]) {
    try {
      this.read(running);
    } catch (error) {
      // They close it, or what it was is gone.
      if (
        !(error instanceof SyscallError || error instanceof NoSuchMemory)
      ) throw error;
    }
  }

  /** @param processes that stand still */
  read(processes: readonly TerminalUser[]): ReadTerminals {
    const queues = this.#queues;
    const masters = seenMasters(processes);
    const without = withoutTheirTerminal(processes, mastersAmong(processes));
    const looked = masters.map((master) => ({
      master,
      queues: typeof queues === "string" ? undefined : look(queues, master),
      without: without.get(master.index)!,
    }));
    return {
      data: looked.flatMap(({ master, queues }) =>
        describeData(master, queues)
      ),
      extensions: looked.map(({ master, queues, without }) =>
        describeExtension(master, queues, without)
      ),
      beyondCriu: looked.some(({ master, queues, without }) =>
        without.length > 0 || isBeyondCriu(master, queues)
      ),
      reasons: typeof queues === "string"
        ? unreadTerminals(processes, queues)
        : looked.flatMap(({ master, queues }) => problems(master, queues)),
    };
  }

  [Symbol.dispose](): void {
    if (typeof this.#queues !== "string") this.#queues[Symbol.dispose]();
  }
}

function look(
  queues: TerminalQueues,
  { place, state }: SeenMaster,
): Queues | undefined {
  const own = getDescriptorOf(place.pid, place.fd);
  try {
    return queues.read(own, state);
  } finally {
    close(own);
  }
}

function problems(
  { state: { slave }, hadSlave }: SeenMaster,
  queues: Queues | undefined,
): Reason[] {
  const object = `the terminal ${slave.path}`;
  if (queues === undefined) {
    return [{
      object,
      why: "the kernel does not come to an end of carrying bytes through it",
    }];
  }
  const { arriving } = queues.slave;
  const toMaster = bytesToMaster(queues.master);
  if (
    arriving.length > MOST_IN_BUFFERS ||
    toMaster.length > LINE_DISCIPLINE + MOST_IN_BUFFERS
  ) {
    return [{
      object,
      why: "more bytes are under way in it than the kernel takes again",
      remedy: "dump again when some of them are read",
    }];
  }
  return hadSlave || !holdsBytes(queues) ? [] : [{
    object,
    why: "something was written to it, and nobody has opened its slave yet, " +
      "which is not supported",
    remedy: "dump again when the slave is open",
  }];
}

function holdsBytes({ slave, master }: Queues): boolean {
  return [slave, master].some(({ input, arriving }) =>
    input.bytes.length + input.lines.length + arriving.length +
        input.echoes.length > 0
  );
}

function describeData(
  { index }: SeenMaster,
  queues: Queues | undefined,
): tty_data_entry[] {
  if (queues === undefined) return [];
  const toMaster = bytesToMaster(queues.master);
  const toSlave = queues.slave.input.bytes;
  return [
    { tty_id: infoId(index, "master"), data: toMaster },
    { tty_id: infoId(index, "slave"), data: toSlave },
  ].filter(({ data }) => data.length > 0);
}

/** No line discipline changes what comes to a master. */
function bytesToMaster({ input, arriving }: Queue): Uint8Array<ArrayBuffer> {
  return Uint8Array.from([...input.bytes, ...arriving]);
}

const PERMISSIONS = 0o7777;

function describeExtension(
  { index, state: { slave } }: SeenMaster,
  queues: Queues | undefined,
  without: readonly number[],
): ckpt_terminal_entry {
  const common = {
    index,
    mode: slave.status.mode & PERMISSIONS,
    without: [...without],
  };
  if (queues === undefined) return { ...common, lines: [] };
  const { input, arriving } = queues.slave;
  return {
    ...common,
    lines: input.lines.map(({ length, endedByEof }) => ({
      length,
      ended_by_eof: endedByEof || undefined,
    })),
    quotes_next: input.quotesNext || undefined,
    typed: arriving.length > 0 ? arriving : undefined,
    echoes: input.echoes.length > 0 ? input.echoes : undefined,
    packet_status: queues.packetStatus || undefined,
    output_stopped: stops(queues.slave) || undefined,
    input_stopped: stops(queues.master) || undefined,
  };
}

/** Bits of ckpt_terminal_entry.output_stopped. */
export const STOPPED = { byKey: 1, byCall: 2 } as const;

function stops({ stopped, stoppedByCall }: Queue): number {
  if (!stopped) return 0;
  return stoppedByCall ? STOPPED.byCall : STOPPED.byKey;
}

/**
 * CRIU writes the bytes of a master by the slave and those of the slave by the
 * master: they come back as they were only where neither is changed on its way,
 * and nothing is echoed.
 */
function isBeyondCriu(
  { state }: SeenMaster,
  queues: Queues | undefined,
): boolean {
  if (queues === undefined) return false;
  const { slave, master, packetStatus } = queues;
  const { input, output, local } = termiosFlags(state.termios);
  return holdsBytes(queues) &&
      (input !== 0 || (output & OPOST) !== 0 || (local & CHANGING) !== 0) ||
    slave.arriving.length > 0 || slave.stopped || master.stopped ||
    packetStatus !== 0;
}

const OPOST = 1;
/** ISIG, ICANON, ECHO and IEXTEN of termios(3). */
const CHANGING = 1 | 2 | 8 | 0o100000;
