/**
 * A model of processes and their descriptors, which executes the programs that
 * restore them as the kernel would (open(2), pipe(2), dup(2), fcntl(2),
 * pidfd_getfd(2)).
 */
import { assert, assertEquals } from "@std/assert";
import type { Program } from "../../ffi/program.ts";
import {
  type DecodedOperation,
  type DecodedProgram,
  decodeProgram,
  textAt,
} from "../../ffi/testing/decoded_program.ts";
import { O } from "../../ffi/syscall.ts";

/** What is behind several open file descriptions. */
export interface ModelPipe {
  /** Of a fifo. */
  readonly path: string | undefined;
  size: number;
  /** Bytes as they were written, packet by packet. */
  readonly written: { bytes: Uint8Array; packet: boolean }[];
}

/** An open file description. */
export interface ModelFile {
  readonly path: string;
  flags: number;
  pos: bigint;
  signal: number;
  /** Type and id, as F_SETOWN_EX has them. */
  owner: readonly [number, number];
  /** Real and effective user id of who set it. */
  ownerIds: readonly [number, number];
  readonly pipe?: ModelPipe;
  /** Opened for reading while there was no writer. */
  readonly unconnected?: boolean;
  /** Of a pidfd. */
  readonly process?: ModelProcess;
}

export interface ModelDescriptor {
  readonly file: ModelFile;
  readonly closeOnExec: boolean;
}

export class ModelProcess {
  readonly table: Map<number, ModelDescriptor>;
  alive = true;

  /** @param table the same for processes that share it */
  constructor(
    readonly pid: number,
    table: Map<number, ModelDescriptor> = new Map(),
  ) {
    this.table = table;
  }
}

/** Flags that F_SETFL changes (fcntl(2)). */
const SETTABLE = O.APPEND | O.ASYNC | O.DIRECT | O.NOATIME | O.NONBLOCK;
const DEFAULT_PIPE_SIZE = 65536;
const PAGE_SIZE = 4096;

export function modelFile(
  path: string,
  flags: number,
  rest: Partial<ModelFile> = {},
): ModelFile {
  return {
    path,
    flags,
    pos: 0n,
    signal: 0,
    owner: [0, 0],
    ownerIds: [0, 0],
    ...rest,
  };
}

export class ModelKernel {
  readonly processes = new Map<number, ModelProcess>();
  /** By their paths. */
  readonly fifos = new Map<string, ModelPipe>();
  #nextPid = 100_000;

  start(pid: number, like?: ModelProcess): ModelProcess {
    const process = new ModelProcess(pid, like?.table);
    this.processes.set(pid, process);
    return process;
  }

  run(process: ModelProcess, program: Program): void {
    const execution = new Execution(this, process, decodeProgram(program));
    execution.run();
  }

  /** A process that ends at once; its zombie has a pid until it is waited for. */
  startZombie(): number {
    const pid = this.#nextPid++;
    this.start(pid);
    return pid;
  }
}

class Execution {
  readonly #results: bigint[] = [];
  #ids: readonly [number, number] = [0, 0];

  constructor(
    readonly kernel: ModelKernel,
    readonly process: ModelProcess,
    readonly program: DecodedProgram,
  ) {}

  run(): void {
    for (const operation of this.program.operations) {
      const result = this.#execute(operation);
      const { settled, purpose } = operation;
      if (settled !== undefined) {
        this.#move(result, settled.fd, settled.cloexec, purpose);
      }
      this.#results.push(BigInt(settled?.fd ?? result));
    }
    assertEquals(this.#ids, [0, 0], "root's ids are not given back");
  }

  get #table(): Map<number, ModelDescriptor> {
    return this.process.table;
  }

  #get(fd: number, table = this.#table): ModelDescriptor {
    const found = table.get(fd);
    assert(found !== undefined, `descriptor ${fd} is not open`);
    return found;
  }

  #add(file: ModelFile, flags: number): number {
    let fd = 0;
    while (this.#table.has(fd)) fd++;
    this.#table.set(fd, { file, closeOnExec: (flags & O.CLOEXEC) !== 0 });
    return fd;
  }

  #execute({ name, args, purpose, whole }: DecodedOperation): number {
    const [a, b, c] = args.map(({ kind, value }) =>
      Number(kind === "result" ? this.#results[Number(value)] : value)
    );
    switch (name) {
      case "openat":
        return this.#open(textAt(this.program, BigInt(b)), c);
      case "pipe2": {
        const pipe: ModelPipe = {
          path: undefined,
          size: DEFAULT_PIPE_SIZE,
          written: [],
        };
        const kept = b & (O.NONBLOCK | O.DIRECT);
        const reading = modelFile("", O.RDONLY | kept & O.NONBLOCK, { pipe });
        const writing = modelFile("", O.WRONLY | kept, { pipe });
        this.program.data.setInt32(a, this.#add(reading, b), true);
        this.program.data.setInt32(a + 4, this.#add(writing, b), true);
        return 0;
      }
      case "dup3":
        assert(a !== b, `dup3 of ${a} to itself fails: ${purpose}`);
        assert(!this.#table.has(b), `descriptor ${b} is replaced: ${purpose}`);
        this.#table.set(b, {
          file: this.#get(a).file,
          closeOnExec: c === O.CLOEXEC,
        });
        return b;
      case "move":
        assert(a !== b || this.#get(a).closeOnExec !== (c === O.CLOEXEC));
        this.#move(a, b, c === O.CLOEXEC, purpose);
        return b;
      case "close":
        this.#get(a);
        this.#table.delete(a);
        return 0;
      case "lseek":
        assertEquals(c, 0);
        this.#get(a).file.pos = args[1].value;
        return 0;
      case "write": {
        assert(whole);
        const { file: { pipe, flags } } = this.#get(a);
        assert(pipe !== undefined && (flags & O.ACCMODE) !== O.RDONLY);
        const { buffer, byteOffset } = this.program.data;
        const bytes = new Uint8Array(buffer, byteOffset + b, c).slice();
        const packet = (flags & O.DIRECT) !== 0;
        assert(c > 0 && (!packet || c <= PAGE_SIZE));
        pipe.written.push({ bytes, packet });
        const pages = pipe.written.reduce(
          (sum, { bytes }) => sum + Math.ceil(bytes.length / PAGE_SIZE),
          0,
        );
        assert(pages * PAGE_SIZE <= pipe.size, "the pipe is full");
        return c;
      }
      case "pidfd_open": {
        const process = this.kernel.processes.get(a);
        assert(process !== undefined, `no process ${a}: ${purpose}`);
        return this.#add(
          modelFile("", O.RDWR | b, { process }),
          O.CLOEXEC,
        );
      }
      case "pidfd_getfd": {
        const { process } = this.#get(a).file;
        assert(process !== undefined);
        assert(process !== this.process, "it fetches from itself");
        return this.#add(this.#get(b, process.table).file, O.CLOEXEC);
      }
      case "snapshot":
        return this.kernel.startZombie();
      case "wait4": {
        const process = this.kernel.processes.get(a)!;
        process.alive = false;
        this.kernel.processes.delete(a);
        return a;
      }
      case "setresuid":
        this.#ids = [a, b];
        assertEquals(c, 0);
        return 0;
      case "fcntl":
        this.#fcntl(a, b, c);
        return 0;
      default:
        throw new Error(`${name} is not part of restoring descriptors`);
    }
  }

  #move(from: number, to: number, closeOnExec: boolean, purpose: string) {
    const { file } = this.#get(from);
    this.#table.delete(from);
    assert(!this.#table.has(to), `descriptor ${to} is replaced: ${purpose}`);
    this.#table.set(to, { file, closeOnExec });
  }

  #open(path: string, flags: number): number {
    // O_ASYNC does nothing in open(2).
    const kept = flags & ~(O.CLOEXEC | O.NOCTTY | O.ASYNC);
    const link = /^\/proc\/self\/fd\/(\d+)$/.exec(path);
    const behind = link === null ? undefined : this.#get(Number(link[1])).file;
    const pipe = behind === undefined
      ? this.kernel.fifos.get(path)
      : behind.pipe;
    if (pipe === undefined) {
      return this.#add(modelFile(behind?.path ?? path, kept), flags);
    }
    assert((flags & O.DIRECT) === 0, "open(2) of a fifo refuses O_DIRECT");
    const access = flags & O.ACCMODE;
    const reads = ({ flags }: ModelFile) => (flags & O.ACCMODE) !== O.WRONLY;
    const writes = ({ flags }: ModelFile) => (flags & O.ACCMODE) !== O.RDONLY;
    const unconnected = pipe.path !== undefined && access === O.RDONLY &&
      !this.#isOpen(pipe, writes);
    if (unconnected) {
      assert((flags & O.NONBLOCK) !== 0, `open(2) of ${path} waits`);
    }
    if (pipe.path !== undefined && access === O.WRONLY) {
      assert(this.#isOpen(pipe, reads), `open(2) of ${path} waits or fails`);
    }
    if (pipe.path !== undefined && !this.#isOpen(pipe, () => true)) {
      // Nothing stays in a fifo that nobody has open.
      pipe.written.length = 0;
      pipe.size = DEFAULT_PIPE_SIZE;
    }
    return this.#add(
      modelFile(pipe.path ?? "", kept | O.LARGEFILE, {
        pipe,
        ...(pipe.path === undefined ? {} : { unconnected }),
      }),
      flags,
    );
  }

  #isOpen(pipe: ModelPipe, which: (file: ModelFile) => boolean): boolean {
    return [...this.kernel.processes.values()].some(({ table }) =>
      [...table.values()].some(({ file }) => file.pipe === pipe && which(file))
    );
  }

  #fcntl(fd: number, command: number, value: number): void {
    const F = { SETFD: 2, SETFL: 4, SETSIG: 10, SETOWN_EX: 15, SETPIPE: 1031 };
    const { file } = this.#get(fd);
    switch (command) {
      case F.SETFD:
        this.#table.set(fd, { file, closeOnExec: value === 1 });
        break;
      case F.SETFL:
        file.flags = file.flags & ~SETTABLE | value & SETTABLE;
        break;
      case F.SETSIG:
        file.signal = value;
        break;
      case F.SETPIPE:
        file.pipe!.size = value;
        break;
      default: {
        assertEquals(command, F.SETOWN_EX);
        const { data } = this.program;
        file.owner = [
          data.getInt32(value, true),
          data.getInt32(value + 4, true),
        ];
        file.ownerIds = this.#ids;
      }
    }
  }
}
