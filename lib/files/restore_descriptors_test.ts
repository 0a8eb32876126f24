import { assert, assertEquals } from "@std/assert";
import { Program } from "../ffi/program.ts";
import { decodeProgram, textAt } from "../ffi/testing/decoded_program.ts";
import { O } from "../ffi/syscall.ts";
import {
  fd_types,
  type fdinfo_entry,
  type file_entry,
  type fown_entry,
} from "../image/schema.gen.ts";
import { seededRandom } from "../image/testing/random.ts";
import { listDescriptors, readFdInfo } from "../proc/read.ts";
import { AgentTask } from "../task/testing/agent_task.ts";
import {
  FD_CLOEXEC,
  GONE,
  lookAtDescriptors,
  TreeLook,
} from "./descriptors.ts";
import { NO_OWNER } from "./file_table.ts";
import type { PipeImage } from "./pipe_images.ts";
import { PipeReader } from "./pipe_contents.ts";
import {
  type DescriptorTable,
  emptyPrograms,
  type FileImages,
  type GivenDescriptor,
  type GivenDescriptors,
  type MadeDescriptor,
  restoreDescriptors,
  restoreDirectories,
} from "./restore_descriptors.ts";
import {
  type ModelFile,
  modelFile,
  ModelKernel,
  type ModelPipe,
  type ModelProcess,
} from "./testing/descriptor_model.ts";

const DEFAULT_PIPE_SIZE = 65536;

function named(id: number, path: string, rest: {
  flags?: number;
  pos?: bigint;
  fown?: fown_entry;
} = {}): file_entry {
  return {
    type: fd_types.REG,
    id,
    reg: {
      id,
      flags: 0,
      pos: 0n,
      fown: NO_OWNER,
      name: path,
      build_id: [],
      ...rest,
    },
  };
}

const NO_PIPES = {
  pipes: new Map<number, PipeImage>(),
  fifos: new Map<number, PipeImage>(),
  unconnected: new Set<number>(),
  external: new Set<number>(),
};

const NOTHING: PipeImage = {
  size: undefined,
  bytes: new Uint8Array(0),
  packets: [],
  access: undefined,
};

/** A random tree of processes, as images and as what is to come of them. */
class Scenario {
  readonly files = new Map<number, file_entry>();
  readonly pipes = new Map<number, PipeImage>();
  readonly fifos = new Map<number, PipeImage>();
  readonly unconnected = new Set<number>();
  readonly given = new Map<number, GivenDescriptor>();
  readonly tables: DescriptorTable[] = [];
  /** By the ids of descriptions, what each is to be. */
  readonly wanted = new Map<number, ModelFile>();
  /** What stands in for the descriptions of `given`. */
  readonly replacements = new Map<number, ModelFile>();
  readonly kernel = new ModelKernel();
  readonly #random: () => number;
  #nextId = 1;
  #base = 0;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
    this.#makeTables();
    const descriptions = 1 + this.#below(14);
    while (this.wanted.size < descriptions) this.#makeSome();
    this.#hand();
  }

  #below(n: number): number {
    return Math.floor(this.#random() * n);
  }

  #chance(p: number): boolean {
    return this.#random() < p;
  }

  #makeTables(): void {
    const count = 1 + this.#below(6);
    for (let i = 0; i < count; i++) {
      const filesId = this.#chance(0.15) && i > 0
        ? this.tables[this.#below(i)].filesId
        : 50 + i;
      const like = this.tables.find((table) => table.filesId === filesId);
      const pid = 1000 - 7 * i;
      this.tables.push({
        pid,
        filesId,
        entries: like?.entries ?? [],
        programs: emptyPrograms(),
      });
      this.kernel.start(
        pid,
        like === undefined ? undefined : this.kernel.processes.get(like.pid),
      );
    }
  }

  #owner(): fown_entry {
    return this.#chance(0.6) ? NO_OWNER : {
      uid: this.#chance(0.5) ? 0 : this.#below(9),
      euid: this.#chance(0.5) ? 0 : this.#below(9),
      signum: this.#chance(0.5) ? 0 : 1 + this.#below(64),
      pid_type: this.#below(3),
      pid: 1 + this.#below(1000),
    };
  }

  #flags(): number {
    return (this.#chance(0.2) ? O.APPEND : 0) |
      (this.#chance(0.3) ? O.NONBLOCK : 0) | (this.#chance(0.2) ? O.ASYNC : 0);
  }

  #want(id: number, file: ModelFile, fown: fown_entry): void {
    file.signal = fown.signum;
    file.owner = fown.pid === 0 ? [0, 0] : [fown.pid_type, fown.pid];
    file.ownerIds = fown.pid === 0 ? [0, 0] : [fown.uid, fown.euid];
    this.wanted.set(id, file);
  }

  #makeSome(): void {
    const choice = this.#random();
    if (choice < 0.4) this.#makeNamed();
    else if (choice < 0.65) this.#makePipe();
    else if (choice < 0.8) this.#makeFifo();
    else this.#makePidfds();
  }

  #makeNamed(): void {
    const id = this.#nextId++;
    const isPath = this.#chance(0.1);
    const access = [O.RDONLY, O.WRONLY, O.RDWR][this.#below(3)];
    const flags = isPath ? O.PATH : access | this.#flags();
    const pos = this.#chance(0.5) ? 0n : BigInt(this.#below(2 ** 40));
    const fown = this.#owner();
    const path = `/srv/${id}`;
    this.files.set(id, named(id, path, { flags, pos, fown }));
    const file = modelFile(path, flags, { pos: isPath ? 0n : pos });
    this.#want(id, file, isPath ? NO_OWNER : fown);
    if (!this.#chance(0.25)) return;
    const reopen = this.#chance(0.3);
    this.given.set(id, { fd: -1, reopen });
    const replacement = modelFile(`/dev/given/${id}`, O.RDWR);
    this.replacements.set(id, replacement);
    this.wanted.set(
      id,
      reopen ? { ...file, path: replacement.path } : replacement,
    );
  }

  #content(): PipeImage {
    const size = [undefined, DEFAULT_PIPE_SIZE, 4096, 1 << 20][this.#below(4)];
    if (this.#chance(0.3)) {
      return { size, bytes: new Uint8Array(0), packets: [], access: undefined };
    }
    const packets = this.#chance(0.3)
      ? Array.from(
        { length: size === 4096 ? 1 : 1 + this.#below(5) },
        () => 1 + this.#below(4096),
      )
      : [];
    const length = packets.length > 0
      ? packets.reduce((sum, packet) => sum + packet, 0)
      // More than the size: buffers that came by splice(2).
      : 1 + this.#below(this.#chance(0.2) ? 70_000 : 4096);
    return {
      size,
      bytes: Uint8Array.from({ length }, () => this.#below(256)),
      packets,
      access: undefined,
    };
  }

  #makePipe(): void {
    const pipe_id = this.#nextId++;
    // An empty pipe of the default size needs no entry.
    const content = this.#chance(0.2) ? NOTHING : this.#content();
    if (content !== NOTHING) this.pipes.set(pipe_id, content);
    const pipe = expectedPipe(undefined, content);
    const shapes = [
      [O.RDONLY, O.WRONLY],
      [O.WRONLY, O.RDONLY],
      [O.RDONLY],
      [O.WRONLY],
      [O.WRONLY, O.RDONLY | O.LARGEFILE, O.RDONLY],
      [O.RDWR | O.LARGEFILE],
      [O.WRONLY | O.LARGEFILE, O.WRONLY, O.RDONLY, O.RDONLY | O.LARGEFILE],
    ];
    for (const access of shapes[this.#below(shapes.length)]) {
      const id = this.#nextId++;
      const flags = access | this.#flags() | (this.#chance(0.2) ? O.DIRECT : 0);
      const fown = this.#owner();
      this.files.set(id, {
        type: fd_types.PIPE,
        id,
        pipe: { id, pipe_id, flags, fown },
      });
      this.#want(id, modelFile("", flags, { pipe }), fown);
    }
  }

  #makeFifo(): void {
    const pipe_id = this.#nextId++;
    const content = this.#content();
    const path = `/srv/fifo ${pipe_id}`;
    this.fifos.set(pipe_id, content);
    this.kernel.fifos.set(path, {
      path,
      size: DEFAULT_PIPE_SIZE,
      written: [],
    });
    const pipe = expectedPipe(path, content);
    const count = 1 + this.#below(3);
    const readersOnly = this.#chance(0.4);
    for (let i = 0; i < count; i++) {
      const id = this.#nextId++;
      const regf_id = this.#nextId++;
      const access = readersOnly
        ? O.RDONLY
        : [O.RDONLY, O.WRONLY, O.RDWR][this.#below(3)];
      const unconnected = readersOnly && this.#chance(0.5);
      if (unconnected) this.unconnected.add(id);
      const flags = access | O.LARGEFILE | this.#flags() |
        (this.#chance(0.2) ? O.DIRECT : 0);
      const fown = this.#owner();
      this.files.set(regf_id, named(regf_id, path, { flags, fown }));
      this.files.set(id, {
        type: fd_types.FIFO,
        id,
        fifo: { id, pipe_id, regf_id },
      });
      this.#want(id, modelFile(path, flags, { pipe, unconnected }), fown);
    }
  }

  #makePidfds(): void {
    const ino = this.#nextId++;
    const gone = this.#chance(0.5);
    const { pid } = this.tables[this.#below(this.tables.length)];
    const process = gone
      ? { pid: 0, alive: false, table: new Map() }
      : this.kernel.processes.get(pid)!;
    const count = gone ? 1 + this.#below(3) : 1;
    for (let i = 0; i < count; i++) {
      const id = this.#nextId++;
      const flags = O.RDWR | (this.#chance(0.3) ? O.NONBLOCK : 0) |
        (this.#chance(0.1) ? O.ASYNC : 0);
      const fown = this.#owner();
      this.files.set(id, {
        type: fd_types.PIDFD,
        id,
        pidfd: { id, ino, flags, nspid: gone ? GONE : pid, fown },
      });
      this.#want(id, modelFile("", flags, { process }), fown);
    }
  }

  /** Gives every description to some processes, each under some numbers. */
  #hand(): void {
    const distinct = this.tables.filter(({ filesId, pid }) =>
      this.tables.find((table) => table.filesId === filesId)!.pid === pid
    );
    const entries = new Map<number, fdinfo_entry[]>(
      distinct.map(({ filesId }) => [filesId, []]),
    );
    const dense = this.#chance(0.3);
    for (const [id, { type }] of this.files) {
      if (!this.wanted.has(id)) continue;
      const holders = distinct.filter(() => this.#chance(0.4));
      if (holders.length === 0) {
        holders.push(distinct[this.#below(distinct.length)]);
      }
      for (const { filesId } of holders) {
        const list = entries.get(filesId)!;
        for (let i = this.#chance(0.7) ? 1 : 3; i > 0; i--) {
          let fd = this.#below(dense ? 1 : 60);
          while (list.some((entry) => entry.fd === fd)) fd++;
          const flags = this.#chance(0.5) ? FD_CLOEXEC : 0;
          list.push({ id, type, fd, flags });
        }
      }
    }
    this.tables.forEach((table, i) => {
      const list = entries.get(table.filesId)!
        .toSorted(() => this.#random() - 0.5);
      this.tables[i] = { ...table, entries: list };
      for (const { fd } of list) this.#base = Math.max(this.#base, fd + 1);
    });
  }

  run(): void {
    const services = [...this.given].map(([id, { reopen }], i) => {
      this.given.set(id, { fd: this.#base + i, reopen });
      return [this.#base + i, this.replacements.get(id)!] as const;
    });
    const processes = this.tables.map(({ pid }) =>
      this.kernel.processes.get(pid)!
    );
    for (const { table } of processes) {
      for (const [fd, file] of services) {
        table.set(fd, { file, closeOnExec: true });
      }
    }
    const free = this.#base + services.length;
    const end = restoreDescriptors(
      this.tables,
      {
        files: this.files,
        pipes: this.pipes,
        fifos: this.fifos,
        unconnected: this.unconnected,
        external: new Set(),
      },
      this.given,
      { base: this.#base, free },
    );
    const phase = (name: "open" | "fetch" | "finish") =>
      this.tables.forEach(({ programs }, i) => {
        this.kernel.run(processes[i], programs[name]);
      });
    phase("open");
    phase("fetch");
    for (const { table } of processes) {
      for (const [fd] of services) {
        assert(table.has(fd), `descriptor ${fd} for the work was closed`);
      }
    }
    for (const { table } of processes) {
      for (const fd of table.keys()) {
        assert(fd < end, `descriptor ${fd} is not below ${end}`);
        if (fd >= this.#base) table.delete(fd);
      }
    }
    phase("finish");
    this.#compare(processes);
  }

  #compare(processes: readonly ModelProcess[]): void {
    const found = new Map<number, ModelFile>();
    this.tables.forEach(({ entries }, i) => {
      const { table } = processes[i];
      assertEquals(
        [...table.keys()].sort((a, b) => a - b),
        entries.map(({ fd }) => fd).sort((a, b) => a - b),
      );
      for (const { fd, id, flags } of entries) {
        const { file, closeOnExec } = table.get(fd)!;
        assertEquals(closeOnExec, flags === FD_CLOEXEC);
        const known = found.get(id) ?? file;
        assert(known === file, `${fd} has a description of its own`);
        found.set(id, file);
      }
    });
    assertEquals(new Set(found.values()).size, found.size, "shared by mistake");
    const pipes = new Map<ModelPipe, ModelPipe>();
    const gone = new Map<ModelProcess, ModelProcess>();
    for (const [id, file] of found) {
      const wanted = this.wanted.get(id)!;
      const plain = (file: ModelFile) => ({
        ...file,
        // A pipe opened through /proc has a path in the model of neither.
        flags: file.flags,
        pipe: file.pipe?.path,
        process: file.process?.alive,
      });
      assertEquals(plain(file), plain(wanted));
      if (wanted.pipe !== undefined) {
        const known = pipes.get(wanted.pipe) ?? file.pipe!;
        assert(known === file.pipe, "the ends of a pipe are apart");
        pipes.set(wanted.pipe, known);
        assertEquals(known.size, wanted.pipe.size);
        assertEquals(textOf(known), textOf(wanted.pipe));
      }
      if (wanted.process?.alive === false) {
        const known = gone.get(wanted.process) ?? file.process!;
        assert(known === file.process);
        gone.set(wanted.process, known);
      } else assert(wanted.process === file.process);
    }
    assertEquals(new Set(pipes.values()).size, pipes.size);
    assertEquals(new Set(gone.values()).size, gone.size);
  }
}

/** Long arrays are slow to compare. */
function textOf({ written }: ModelPipe): string[] {
  return written.map(({ bytes, packet }) => `${packet} ${bytes}`);
}

function expectedPipe(
  path: string | undefined,
  { size = DEFAULT_PIPE_SIZE, bytes, packets }: PipeImage,
): ModelPipe {
  const PAGE_SIZE = 4096;
  const written: ModelPipe["written"] = [];
  let at = 0;
  for (const length of packets) {
    written.push({ bytes: bytes.slice(at, at + length), packet: true });
    at += length;
  }
  if (packets.length === 0 && bytes.length > 0) {
    written.push({ bytes, packet: false });
  }
  const pages = Math.ceil(bytes.length / PAGE_SIZE);
  return { path, size: Math.max(size, pages * PAGE_SIZE), written };
}

Deno.test("of random trees, the graph of descriptors and descriptions is the same", () => {
  for (let seed = 0; seed < 1000; seed++) {
    try {
      new Scenario(seed).run();
    } catch (error) {
      throw new Error(`with seed ${seed}`, { cause: error });
    }
  }
});

/** Runs the phases in real tasks, and closes what is above their numbers. */
function restoreInTasks(
  tasks: readonly { task: AgentTask; entries: readonly fdinfo_entry[] }[],
  images: FileImages,
  given: GivenDescriptors = new Map(),
): void {
  const BASE = 200;
  const tables = tasks.map(({ task, entries }): DescriptorTable => ({
    pid: task.pid,
    filesId: task.pid,
    entries,
    programs: emptyPrograms(),
  }));
  for (const { programs: { open } } of tables) {
    open.call("close", [0], "closing the lifeline");
  }
  restoreDescriptors(tables, images, given, { base: BASE, free: BASE });
  for (const phase of ["open", "fetch"] as const) {
    tasks.forEach(({ task }, i) => task.run(tables[i].programs[phase]));
  }
  tasks.forEach(({ task }, i) => {
    const program = new Program();
    program.call("close_range", [BASE, 0xffff_ffff, 0], "closing the rest");
    task.run(program);
    task.run(tables[i].programs.finish);
  });
}

Deno.test("a terminal is opened anew with the flags of the image", () => {
  const tty = { id: 3, tty_info_id: 2, flags: O.WRONLY, fown: NO_OWNER };
  const files = new Map<number, file_entry>([
    [3, { type: fd_types.TTY, id: 3, tty: { ...tty, regf_id: 1 } }],
  ]);
  const terminal = modelFile("/dev/pts/1", O.RDWR);
  const programs = emptyPrograms();
  const kernel = new ModelKernel();
  const process = kernel.start(7);
  process.table.set(50, { file: terminal, closeOnExec: true });
  restoreDescriptors(
    [{
      pid: 7,
      filesId: 1,
      entries: [{ id: 3, flags: 0, type: fd_types.TTY, fd: 2 }],
      programs,
    }],
    { files, ...NO_PIPES },
    new Map([[3, { fd: 50, reopen: true }]]),
    { base: 50, free: 51 },
  );
  const [open] = decodeProgram(programs.open).operations;
  assert(
    (Number(open.args[2].value) & O.NOCTTY) !== 0,
    "it may become the controlling terminal",
  );
  kernel.run(process, programs.open);
  assertEquals([...process.table.keys()], [50, 2]);
  assertEquals(process.table.get(2)!.file, { ...terminal, flags: O.WRONLY });
});

Deno.test("files that no path leads to are opened by their descriptors, or are these", () => {
  const files = new Map([
    [1, named(1, "/a", { flags: O.RDWR | O.APPEND, pos: 5n })],
    [2, named(2, "/b", { flags: O.RDWR | O.NOFOLLOW, pos: 6n })],
    [3, named(3, "/c", { flags: O.RDWR | O.TMPFILE })],
    [4, named(4, "/d", { flags: O.RDONLY | O.DIRECTORY })],
  ]);
  const programs = emptyPrograms();
  restoreDescriptors(
    [{
      pid: 7,
      filesId: 1,
      entries: [1, 2, 3, 4].map((id) => ({
        id,
        flags: 0,
        type: fd_types.REG,
        fd: 10 + id,
      })),
      programs,
    }],
    {
      files,
      ...NO_PIPES,
      made: new Map<number, MadeDescriptor>([
        [1, { path: "/proc/self/fd/50/51", reopen: true }],
        [2, { fd: 52, reopen: false }],
        [3, { path: "/proc/self/fd/50/53", reopen: true }],
      ]),
    },
    new Map(),
    { base: 50, free: 60 },
  );
  const decoded = decodeProgram(programs.open);
  const { operations } = decoded;
  const opened = operations.filter(({ name }) => name === "openat")
    .map(({ args }): [string, number] => [
      textAt(decoded, args[1].value),
      Number(args[2].value) & ~(O.NOCTTY | O.CLOEXEC),
    ]);
  assertEquals(opened, [
    ["/proc/self/fd/50/51", O.RDWR | O.APPEND],
    ["/proc/self/fd/50/53", O.RDWR],
    ["/d", O.DIRECTORY],
  ]);
  assertEquals(
    operations.filter(({ name }) => name === "lseek")
      .map(({ args }) => args.slice(0, 2).map(({ value }) => value)),
    [[11n, 5n], [12n, 6n]],
  );
  assertEquals(
    operations.filter(({ name, args }) =>
      name === "dup3" && args[0].value === 52n
    ).map(({ args }) => args[1].value),
    [12n],
  );
});

Deno.test("a process that uses all numbers below those for the work keeps them", () => {
  const COUNT = 30;
  const programs = emptyPrograms();
  const kernel = new ModelKernel();
  const process = kernel.start(7);
  const files = new Map<number, file_entry>();
  const entries: fdinfo_entry[] = [];
  for (let fd = 0; fd < COUNT; fd++) {
    const id = fd + 1;
    files.set(id, {
      type: fd_types.PIPE,
      id,
      pipe: { id, pipe_id: 99 - fd, flags: O.RDONLY, fown: NO_OWNER },
    });
    entries.push({ id, flags: 0, type: fd_types.PIPE, fd });
  }
  restoreDescriptors(
    [{ pid: 7, filesId: 1, entries, programs }],
    { files, ...NO_PIPES },
    new Map(),
    { base: COUNT, free: COUNT },
  );
  kernel.run(process, programs.open);
  assertEquals(process.table.size, COUNT);
  assertEquals(
    new Set([...process.table.values()].map(({ file }) => file.pipe)).size,
    COUNT,
  );
});

Deno.test("a real task has exactly the wanted descriptors", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const random = seededRandom(41);
    const files = new Map<number, file_entry>();
    const flags = [
      O.RDONLY,
      O.WRONLY | O.APPEND,
      O.RDWR | O.NONBLOCK,
      O.RDWR | O.ASYNC,
      O.PATH,
      O.RDONLY | O.DIRECTORY,
      // Flags that act on open(2) only: they may not act again.
      O.RDWR | O.CREAT | O.EXCL | O.TRUNC,
    ];
    flags.forEach((flags, i) => {
      const path = `${directory}/é ${i}`;
      if (flags & O.DIRECTORY) Deno.mkdirSync(path);
      else Deno.writeTextFileSync(path, "content");
      files.set(
        i + 1,
        named(i + 1, path, {
          flags,
          pos: flags & O.DIRECTORY ? 0n : BigInt(i * 1000),
        }),
      );
    });
    for (let round = 0; round < 8; round++) {
      const fds = Array.from({ length: 40 }, (_, fd) => fd)
        .filter(() => random() < 0.4);
      const descriptors = fds.map((fd): fdinfo_entry => ({
        id: 1 + Math.floor(random() * flags.length),
        flags: random() < 0.5 ? FD_CLOEXEC : 0,
        type: fd_types.REG,
        fd,
      }));
      using task = new AgentTask();
      restoreInTasks([{ task, entries: descriptors }], { files, ...NO_PIPES });
      assertEquals([...listDescriptors(task.pid)].sort((a, b) => a - b), fds);
      for (const { fd, id, flags } of descriptors) {
        const { reg } = files.get(id)!;
        const path = Deno.readLinkSync(`/proc/${task.pid}/fd/${fd}`);
        assertEquals(path, reg!.name);
        const info = readFdInfo(task.pid, fd);
        const acting = O.CREAT | O.EXCL | O.TRUNC;
        assertEquals(
          info.flags & ~O.LARGEFILE,
          (reg!.flags & ~acting) | (flags === FD_CLOEXEC ? O.CLOEXEC : 0),
        );
        assertEquals(info.pos, (reg!.flags & O.PATH) === 0 ? reg!.pos : 0n);
      }
    }
    assertEquals(Deno.readTextFileSync(`${directory}/é 6`), "content");
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

function entriesOf(
  files: ReadonlyMap<number, file_entry>,
  numbers: Readonly<Record<number, number>>,
): fdinfo_entry[] {
  return Object.entries(numbers).map(([fd, id]) => ({
    fd: Number(fd),
    id,
    flags: Number(fd) % 2 === 0 ? FD_CLOEXEC : 0,
    type: files.get(id)!.type,
  }));
}

Deno.test("real tasks share pipes, fifos and pidfds, and find what was in them", () => {
  const directory = Deno.makeTempDirSync();
  try {
    const fifo = `${directory}/fifo`;
    new Deno.Command("mkfifo", { args: [fifo] }).outputSync();
    using first = new AgentTask();
    using second = new AgentTask();
    const files = new Map<number, file_entry>();
    const pipe = (id: number, pipe_id: number, flags: number, pid = 0) =>
      files.set(id, {
        type: fd_types.PIPE,
        id,
        pipe: {
          id,
          pipe_id,
          flags,
          fown: { ...NO_OWNER, pid, pid_type: pid && 1 },
        },
      });
    pipe(1, 71, O.RDONLY | O.ASYNC, second.pid);
    pipe(2, 71, O.WRONLY | O.DIRECT);
    pipe(3, 71, O.RDONLY | O.NONBLOCK | O.LARGEFILE);
    pipe(4, 72, O.WRONLY | O.NONBLOCK);
    pipe(5, 73, O.RDONLY);
    pipe(6, 74, O.RDONLY);
    pipe(7, 74, O.WRONLY);
    for (const [id, flags] of [[10, O.RDONLY], [11, O.WRONLY | O.NONBLOCK]]) {
      files.set(id, {
        type: fd_types.FIFO,
        id,
        fifo: { id, pipe_id: 81, regf_id: id + 10 },
      });
      files.set(id + 10, named(id + 10, fifo, { flags: flags | O.LARGEFILE }));
    }
    const pidfd = (id: number, nspid: number, flags: number) =>
      files.set(id, {
        type: fd_types.PIDFD,
        id,
        pidfd: { id, ino: 5, flags: O.RDWR | flags, nspid, fown: NO_OWNER },
      });
    const other = `${directory}/other`;
    new Deno.Command("mkfifo", { args: [other] }).outputSync();
    for (const id of [40, 41]) {
      files.set(id, {
        type: fd_types.FIFO,
        id,
        fifo: { id, pipe_id: 82, regf_id: id + 10 },
      });
      files.set(id + 10, named(id + 10, other, { flags: O.LARGEFILE }));
    }
    pidfd(30, second.pid, O.NONBLOCK);
    pidfd(31, GONE, 0);
    pidfd(32, GONE, O.NONBLOCK);
    const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i * 7);
    const full = Uint8Array.from({ length: 16384 }, (_, i) => i * 3);
    const images: FileImages = {
      files,
      pipes: new Map<number, PipeImage>([
        [71, {
          size: 1 << 18,
          bytes,
          packets: [3, 4096, 1, 900],
          access: { uid: 5, gid: 6, mode: 0o640 },
        }],
        [73, {
          size: 4096,
          bytes: bytes.subarray(0, 77),
          packets: [],
          access: undefined,
        }],
        [74, { size: 16384, bytes: full, packets: [], access: undefined }],
      ]),
      fifos: new Map<number, PipeImage>([
        [81, { size: 8192, bytes, packets: [], access: undefined }],
        [82, {
          size: 4096,
          bytes: bytes.subarray(0, 9),
          packets: [],
          access: undefined,
        }],
      ]),
      unconnected: new Set([40]),
      external: new Set(),
    };
    const tasks = ([
      [first, {
        ...{ 0: 1, 1: 1, 4: 4, 5: 5, 8: 10, 9: 30, 10: 31, 12: 6 },
        ...{ 21: 40, 22: 41 },
      }],
      [second, {
        ...{ 0: 2, 1: 1, 2: 3, 3: 10, 7: 11, 9: 31, 10: 32, 11: 30, 12: 30 },
        20: 7,
      }],
    ] as [AgentTask, Record<number, number>][]).map(([task, numbers]) => ({
      task,
      numbers,
      entries: entriesOf(files, numbers),
    }));
    restoreInTasks(tasks, images);

    const look = new TreeLook();
    const found = new Map<number, string>();
    const inodes = new Map<number, bigint>();
    for (const { task: { pid }, numbers, entries } of tasks) {
      const fds = entries.map(({ fd }) => fd);
      assertEquals([...listDescriptors(pid)], fds);
      for (const descriptor of lookAtDescriptors(pid, look)) {
        const { fd, info, sameAs, status, owner } = descriptor;
        const id = numbers[fd];
        const place = sameAs ?? { pid, fd };
        const known = found.get(id) ?? `${place.pid} ${place.fd}`;
        assertEquals(`${place.pid} ${place.fd}`, known, `descriptor ${fd}`);
        found.set(id, known);
        inodes.set(id, status.ino);
        const { pipe, pidfd } = files.get(id)!;
        const { flags } = pipe ?? pidfd ?? files.get(id + 10)!.reg!;
        const cloexec = fd % 2 === 0 ? O.CLOEXEC : 0;
        assertEquals(info.flags, flags | cloexec, `flags of ${fd}`);
        if (pipe?.pipe_id === 71) {
          const { uid, gid, mode } = status;
          assertEquals([uid, gid, mode & 0o7777], [5, 6, 0o640]);
        }
        if (id === 40 || id === 41) {
          assertEquals(descriptor.unconnected, id === 40);
        }
        if (id === 1 && sameAs === undefined) {
          assertEquals([owner.pid_type, owner.pid], [1, second.pid]);
        }
        if (pidfd !== undefined) {
          assert(info.extra.includes(`Pid:\t${pidfd.nspid}`), `${info.extra}`);
        }
      }
    }
    assertEquals(new Set(found.values()).size, found.size);
    assertEquals(inodes.get(31), inodes.get(32));
    for (const [a, b] of [[1, 2], [1, 3], [6, 7], [10, 11], [40, 41]]) {
      assertEquals(inodes.get(a), inodes.get(b), `${a} and ${b}`);
    }
    assertEquals(new Set([1, 4, 5, 6].map((id) => inodes.get(id))).size, 4);

    using reader = new PipeReader();
    const read = (task: AgentTask, fd: number, flags: number) => {
      const [{ size, bytes, packets }] = reader.readAll([
        { ends: [{ pid: task.pid, fd, flags }], link: "a pipe" },
      ]);
      return { size, bytes: [...bytes], packets };
    };
    assertEquals(read(first, 0, O.RDONLY), {
      size: 1 << 18,
      bytes: [...bytes],
      packets: [3, 4096, 1, 900],
    });
    assertEquals(read(first, 5, O.RDONLY), {
      size: 4096,
      bytes: [...bytes.subarray(0, 77)],
      packets: undefined,
    });
    assertEquals(read(first, 12, O.RDONLY).bytes, [...full]);
    assertEquals(read(second, 3, O.RDONLY), {
      size: 8192,
      bytes: [...bytes],
      packets: undefined,
    });
    assertEquals(read(first, 4, O.WRONLY).bytes, []);
    assertEquals(read(first, 21, O.RDONLY), {
      size: 4096,
      bytes: [...bytes.subarray(0, 9)],
      packets: undefined,
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});

Deno.test("a task gets its working directory, and its root directory", () => {
  const directory = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${directory}/root/inside`, { recursive: true });
    const file = (path: string) => named(1, path).reg!;
    for (const root of ["/", `${directory}/root`]) {
      for (const cwd of [`${directory}/root/inside`, directory, "/"]) {
        using task = new AgentTask();
        const before = [...listDescriptors(task.pid)];
        const program = new Program();
        restoreDirectories(program, file(cwd), file(root));
        task.run(program);
        assertEquals(Deno.readLinkSync(`/proc/${task.pid}/cwd`), cwd);
        assertEquals(Deno.readLinkSync(`/proc/${task.pid}/root`), root);
        assertEquals([...listDescriptors(task.pid)], before);
      }
    }
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
