/**
 * What is under way in pseudo terminals, while nobody uses them: looked up in
 * the kernel's memory, for to read it by read(2) would take it out, and what is
 * not a complete line yet nobody can read at all.
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";
import { pause } from "../ffi/pause.ts";
import {
  type HeldInput,
  N_TTY_FIELDS,
  nTtyBytes,
  readHeldInput,
} from "./line_discipline.ts";
import type { MasterState } from "./terminal.ts";
import { termiosFlags } from "./termios.ts";

/** What is on its way to one end. */
export interface Queue {
  readonly input: HeldInput;
  /** Bytes that have not come to the line discipline yet. */
  readonly arriving: Uint8Array<ArrayBuffer>;
  /** What is written to this end stands still: by VSTOP, by tcflow(3). */
  readonly stopped: boolean;
  readonly stoppedByCall: boolean;
}

export interface Queues {
  readonly slave: Queue;
  readonly master: Queue;
  /** TIOCPKT_* that the master has not read. */
  readonly packetStatus: number;
}

const WANTED = {
  file: ["private_data"],
  tty_file_private: ["tty"],
  tty_struct: [
    "link",
    "disc_data",
    "port",
    "flow.stopped",
    "flow.tco_stopped",
    "ctrl.pktstatus",
  ],
  n_tty_data: N_TTY_FIELDS,
  tty_port: ["buf.head"],
  tty_buffer: ["next", "commit", "read", "flags", "data", "size"],
} as const;

/** Bits of c_lflag (termios(3)). */
const ICANON = 2;
const EXTPROC = 0o200000;

export class TerminalQueues implements Disposable {
  readonly #kernel: KernelStructures;

  private constructor(kernel: KernelStructures) {
    this.#kernel = kernel;
  }

  /** @returns why it cannot be done here, where that is so */
  static open(): TerminalQueues | string {
    const kernel = KernelStructures.open(WANTED);
    return typeof kernel === "string" ? kernel : new TerminalQueues(kernel);
  }

  /**
   * @param fd a descriptor of ckpt's own, of the master
   * @returns undefined when it does not come to rest
   */
  read(fd: number, { termios }: MasterState): Queues | undefined {
    const { local } = termiosFlags(termios);
    const takesLines = (local & ICANON) !== 0 && (local & EXTPROC) === 0;
    const master = this.#terminalOf(fd);
    const slave = this.#pointer(master, "tty_struct", "link");
    let last: string | undefined;
    // A worker of the kernel's may still carry bytes; nobody else is there.
    for (let i = 0; i < TRIES; i++) {
      const queues = this.#look(master, slave, takesLines);
      const now = queues && marksOf(queues);
      if (queues !== undefined && hasArrived(queues)) return queues;
      const atRest = queues !== undefined &&
        (isAtRest(queues) || i > TRIES / 2);
      if (atRest && now === last) return queues;
      last = now;
      if (!atRest) pause(1);
    }
    return undefined;
  }

  /** @returns undefined when something moved meanwhile */
  #look(
    master: bigint,
    slave: bigint,
    takesLines: boolean,
  ): Queues | undefined {
    try {
      // What has left a buffer is in a line discipline, and its echo on the way
      // to the master: looked at in this order, nothing is overlooked.
      const toSlave = this.#arriving(slave);
      const toMaster = this.#arriving(master);
      return {
        slave: this.#queue(slave, toSlave, takesLines),
        master: this.#queue(master, toMaster, false),
        packetStatus: this.#byte(slave, "ctrl.pktstatus"),
      };
    } catch (error) {
      if (error instanceof NoSuchMemory) return undefined;
      throw error;
    }
  }

  #terminalOf(fd: number): bigint {
    const data = this.#pointer(this.#kernel.file(fd), "file", "private_data");
    return this.#pointer(data, "tty_file_private", "tty");
  }

  #queue(
    terminal: bigint,
    arriving: Uint8Array<ArrayBuffer>,
    takesLines: boolean,
  ): Queue {
    const fields = this.#kernel.fieldsOf("n_tty_data");
    const discipline = this.#pointer(terminal, "tty_struct", "disc_data");
    return {
      input: readHeldInput(
        this.#kernel.memory.read(discipline, nTtyBytes(fields)),
        fields,
        takesLines,
      ),
      arriving,
      stopped: this.#byte(terminal, "flow.stopped") !== 0,
      stoppedByCall: this.#byte(terminal, "flow.tco_stopped") !== 0,
    };
  }

  /** The chain of buffers that come before the line discipline. */
  #arriving(terminal: bigint): Uint8Array<ArrayBuffer> {
    const at = (name: string) => this.#kernel.offset("tty_buffer", name);
    const bytes: number[] = [];
    const port = this.#pointer(terminal, "tty_struct", "port");
    let buffer = this.#pointer(port, "tty_port", "buf.head");
    for (let i = 0; buffer !== 0n && i < MOST_ARRIVING; i++) {
      const head = this.#kernel.memory.read(buffer, at("data"));
      const view = new DataView(head.buffer);
      const read = view.getUint32(at("read"), true);
      const commit = view.getUint32(at("commit"), true);
      if (commit - read > MOST_ARRIVING) throw new NoSuchMemory(buffer);
      if (commit > read) {
        const start = buffer + BigInt(at("data") + read);
        bytes.push(...this.#kernel.memory.read(start, commit - read));
      }
      buffer = view.getBigUint64(at("next"), true);
    }
    return Uint8Array.from(bytes);
  }

  #pointer(
    address: bigint,
    structure: keyof typeof WANTED,
    field: string,
  ): bigint {
    return this.#kernel.pointer(address, structure, field);
  }

  #byte(terminal: bigint, field: string): number {
    return this.#kernel.number(terminal, "tty_struct", field, 1);
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}

const TRIES = 200;
/** The kernel lets no more than 64 KiB of buffers be there (tty_buffer.c). */
const MOST_ARRIVING = 65536;

function hasArrived({ slave, master }: Queues): boolean {
  return slave.arriving.length === 0 && master.arriving.length === 0;
}

/** What has not arrived does not fit. */
function isAtRest({ slave, master }: Queues): boolean {
  return [slave, master].every(({ arriving, input }) =>
    arriving.length === 0 || input.full
  );
}

/** Different whenever bytes have moved. */
function marksOf({ slave, master, packetStatus }: Queues): string {
  return [slave, master].flatMap(({ input, arriving, stopped }) => [
    input.marks,
    arriving.length,
    stopped,
  ]).concat(packetStatus).join();
}
