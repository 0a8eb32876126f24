/**
 * The open files of a process, as the kernel itself sees them: a BPF program
 * (BPF_TRACE_ITER, task_file) that the kernel runs for each of them, and that
 * tells what readlink(2), stat(2), fdinfo and fcntl(2) would, of which each
 * takes longer. c/lib/descriptors.c takes from it what is the same as their
 * answers. Needs Linux 6.1, its types, CAP_BPF and CAP_PERFMON.
 */
import {
  add,
  addRegister,
  and,
  bpf,
  call,
  type Code,
  createMap,
  EXIT,
  HELPER,
  jumpIfAbove,
  jumpIfEqual,
  jumpIfLess,
  jumpIfNot,
  jumpTo,
  load,
  loadMap,
  loadProgram,
  move,
  set,
  shiftLeft,
  shiftRight,
  store,
  storeValue,
} from "../ffi/bpf.ts";
import {
  type FieldOffsets,
  fieldOffsets,
  findTypes,
  UnknownField,
} from "../ffi/btf.ts";
import { ENOBUFS } from "../ffi/errno.ts";
import { library } from "../ffi/library.ts";
import { addressOf, close, S_IF, stat, SyscallError } from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";

/** BPF_PROG_TYPE_TRACING, BPF_TRACE_ITER. */
const TRACING = 26;
const TRACE_ITER = 28;
/** The program takes the arguments of this function of the kernel. */
const TARGET = "bpf_iter_task_file";

/** Fields that the program reads, or goes through. */
const FIELDS = {
  task_struct: ["files"],
  files_struct: ["fdt"],
  fdtable: ["close_on_exec"],
  file: [
    ...["f_flags", "f_pos", "f_op", "f_inode", "f_path"],
    ...["f_path.mnt", "f_path.dentry", "f_owner", "private_data"],
  ],
  file_operations: ["show_fdinfo"],
  inode: [
    ...["i_ino", "i_mode", "i_uid", "i_gid", "i_nlink", "i_rdev", "i_size"],
    ...["i_blocks", "i_op", "i_flctx", "i_sb"],
  ],
  inode_operations: ["getattr"],
  super_block: ["s_dev"],
  mount: ["mnt", "mnt_id"],
  socket: ["ops", "sk", "type"],
  proto_ops: ["show_fdinfo"],
  sock_common: ["skc_family", "skc_state"],
  unix_sock: ["scm_stat.nr_fds"],
  eventfd_ctx: ["count", "flags", "id"],
  signalfd_ctx: ["sigmask"],
} as const;
/** Before Linux 6.12 `f_owner` is no pointer. */
const OWNER_INSIDE = { file: ["f_owner.pid", "f_owner.signum"] };

/** struct open_file of c/lib/descriptors.c. */
const AT = {
  file: 0,
  pos: 8,
  inode: 16,
  mount: 24,
  dentry: 32,
  ino: 40,
  size: 48,
  blocks: 56,
  getattr: 64,
  showInfo: 72,
  locks: 80,
  owner: 88,
  socketShowInfo: 96,
  closeOnExec: 104,
  fd: 112,
  flags: 116,
  mountId: 120,
  dev: 124,
  rdev: 128,
  uid: 132,
  gid: 136,
  nlink: 140,
  mode: 144,
  socketType: 148,
  socketFamily: 152,
  socketState: 156,
  inFlight: 160,
  linkLength: 164,
  /** The count of an eventfd, or the signals that a signalfd does not take. */
  count: 168,
  eventFlags: 176,
  eventId: 180,
  link: 184,
} as const;
/** Longer is no path that readlink(2) tells. */
const PATH_MAX = 4096;
const RECORD_MAX = AT.link + PATH_MAX + 8;

type Fields = Record<keyof typeof FIELDS, FieldOffsets>;

/** What the context of the program (struct bpf_iter__task_file) has where. */
const CONTEXT = { meta: 0, task: 8, fd: 16, file: 24 };
const STACK = 10;

/**
 * The program: register 6 has its context, 7 the file, 8 the value of the map,
 * where the record is made.
 *
 * @param owner where the owner is, of a kernel that has it in struct file
 */
function programFor(
  map: number,
  fields: Fields,
  owner: FieldOffsets | undefined,
): Code {
  const at = (structure: keyof Fields, field: string) =>
    fields[structure].get(field)! / 8;
  const copy = (
    to: number,
    from: number,
    structure: keyof Fields,
    field: string,
    bytes = 8,
  ) => [load(1, from, at(structure, field), bytes), store(8, to, 1, bytes)];
  /** Copies from the address in register 3. */
  const probe = (to: number, bytes: number) => [
    move(1, 8),
    add(1, to),
    set(2, bytes),
    call(HELPER.probeReadKernel),
    jumpIfNot(0, 0, "unknown"),
  ];
  /** The same from a field of what register 9 points to. */
  const probeField = (
    to: number,
    structure: keyof Fields,
    field: string,
    bytes: number,
  ) => [move(3, 9), add(3, at(structure, field)), ...probe(to, bytes)];
  /** Compares whole words: what is left of the link, C does. */
  const unlessLink = (link: string, to: string) => {
    const words = new DataView(encodeText(link).buffer);
    return Array.from({ length: Math.floor(link.length / 4) }, (_, i) => [
      load(1, 8, AT.link + 4 * i, 4),
      jumpIfNot(1, words.getInt32(4 * i, true), to),
    ]);
  };
  return [
    move(6, 1),
    load(7, 6, CONTEXT.file),
    jumpIfEqual(7, 0, "end"),
    storeValue(STACK, -4, 0, 4), // the key 0
    loadMap(1, map),
    move(2, STACK),
    add(2, -4),
    call(HELPER.lookup),
    jumpIfEqual(0, 0, "end"),
    move(8, 0),

    store(8, AT.file, 7),
    load(1, 6, CONTEXT.fd, 4),
    store(8, AT.fd, 1, 4),
    copy(AT.flags, 7, "file", "f_flags", 4),
    copy(AT.pos, 7, "file", "f_pos"),
    copy(AT.dentry, 7, "file", "f_path.dentry"),
    load(1, 7, at("file", "f_op")),
    jumpIfEqual(1, 0, "unknown"),
    copy(AT.showInfo, 1, "file_operations", "show_fdinfo"),
    owner === undefined ? copy(AT.owner, 7, "file", "f_owner") : [
      load(1, 7, owner.get("f_owner.pid")! / 8),
      store(8, AT.owner, 1),
      load(1, 7, owner.get("f_owner.signum")! / 8, 4),
      jumpIfEqual(1, 0, "no signal"),
      storeValue(8, AT.owner, 1),
      "no signal",
    ],

    load(9, 7, at("file", "f_inode")),
    store(8, AT.inode, 9),
    jumpIfEqual(9, 0, "unknown"),
    copy(AT.ino, 9, "inode", "i_ino"),
    copy(AT.size, 9, "inode", "i_size"),
    copy(AT.blocks, 9, "inode", "i_blocks"),
    copy(AT.locks, 9, "inode", "i_flctx"),
    copy(AT.rdev, 9, "inode", "i_rdev", 4),
    copy(AT.uid, 9, "inode", "i_uid", 4),
    copy(AT.gid, 9, "inode", "i_gid", 4),
    copy(AT.nlink, 9, "inode", "i_nlink", 4),
    load(1, 9, at("inode", "i_mode"), 2),
    store(8, AT.mode, 1, 4),
    load(1, 9, at("inode", "i_op")),
    jumpIfEqual(1, 0, "unknown"),
    copy(AT.getattr, 1, "inode_operations", "getattr"),
    load(1, 9, at("inode", "i_sb")),
    jumpIfEqual(1, 0, "unknown"),
    copy(AT.dev, 1, "super_block", "s_dev", 4),

    load(3, 7, at("file", "f_path.mnt")),
    store(8, AT.mount, 3),
    add(3, at("mount", "mnt_id") - at("mount", "mnt")),
    probe(AT.mountId, 4),

    // The word with the bit of the descriptor.
    load(1, 6, CONTEXT.task),
    jumpIfEqual(1, 0, "unknown"),
    load(1, 1, at("task_struct", "files")),
    jumpIfEqual(1, 0, "unknown"),
    load(1, 1, at("files_struct", "fdt")),
    jumpIfEqual(1, 0, "unknown"),
    load(3, 1, at("fdtable", "close_on_exec")),
    load(1, 6, CONTEXT.fd, 4),
    shiftRight(1, 6),
    shiftLeft(1, 3),
    addRegister(3, 1),
    probe(AT.closeOnExec, 8),

    storeValue(8, AT.socketShowInfo, 0),
    storeValue(8, AT.socketType, 0, 4),
    storeValue(8, AT.socketFamily, 0, 4),
    storeValue(8, AT.socketState, 0, 4),
    load(1, 8, AT.mode, 4),
    and(1, S_IF.MT),
    jumpIfNot(1, S_IF.SOCK, "path"),
    load(1, 8, AT.showInfo),
    jumpIfEqual(1, 0, "path"), // opened by O_PATH
    load(9, 7, at("file", "private_data")),
    probeField(AT.socketShowInfo, "socket", "ops", 8),
    load(3, 8, AT.socketShowInfo),
    add(3, at("proto_ops", "show_fdinfo")),
    probe(AT.socketShowInfo, 8),
    probeField(AT.socketType, "socket", "type", 2),
    probeField(AT.link, "socket", "sk", 8),
    load(9, 8, AT.link),
    jumpIfEqual(9, 0, "path"),
    probeField(AT.socketFamily, "sock_common", "skc_family", 2),
    probeField(AT.socketState, "sock_common", "skc_state", 1),
    probeField(AT.inFlight, "unix_sock", "scm_stat.nr_fds", 4),

    "path",
    move(1, 7),
    add(1, at("file", "f_path")),
    move(2, 8),
    add(2, AT.link),
    set(3, PATH_MAX),
    call(HELPER.dPath),
    jumpIfLess(0, 1, "unknown"),
    jumpIfAbove(0, PATH_MAX, "unknown"),
    store(8, AT.linkLength, 0, 4),
    unlessLink("anon_inode:[eventfd]", "no eventfd"),
    load(9, 7, at("file", "private_data")),
    probeField(AT.count, "eventfd_ctx", "count", 8),
    probeField(AT.eventFlags, "eventfd_ctx", "flags", 4),
    probeField(AT.eventId, "eventfd_ctx", "id", 4),
    "no eventfd",
    unlessLink("anon_inode:[signalfd]", "no signalfd"),
    load(9, 7, at("file", "private_data")),
    probeField(AT.count, "signalfd_ctx", "sigmask", 8),
    "no signalfd",
    load(3, 8, AT.linkLength, 4),
    jumpIfAbove(3, PATH_MAX, "unknown"),
    add(3, AT.link + 7),
    and(3, -8), // whole words
    jumpTo("write"),

    "unknown",
    storeValue(8, AT.linkLength, 0, 4),
    set(3, AT.link),

    "write",
    load(1, 6, CONTEXT.meta),
    load(1, 1, 0), // the file that is read
    move(2, 8),
    call(HELPER.seqWrite),
    "end",
    set(0, 0),
    EXIT,
  ];
}

/** The open files of a process at one moment; c/lib/descriptors.c reads it. */
export interface OpenFiles {
  /** Numbers of descriptors, ascending. */
  readonly fds: readonly number[];
  readonly records: Uint8Array<ArrayBuffer>;
  /** Where the record of each is. */
  readonly places: Uint32Array<ArrayBuffer>;
  /** Whether the process cannot close one meanwhile. */
  readonly standsStill: boolean;
}

/** Fewer descriptors of a process are asked for as fast. */
const WORTH_READING = 64;
/** Of so many in a tree it pays to make the program ready, which takes 6 ms. */
const WORTH_A_PROGRAM = 1000;
/** Most paths are shorter than what this leaves for them. */
const USUAL_RECORD = 256;
const MOST_RECORDS = 1 << 30;

export class OpenFileReader implements Disposable {
  readonly #program: number;
  /** The same for each process: new memory is slow. */
  #records = new Uint8Array(0);

  private constructor() {
    let owner: FieldOffsets | undefined;
    const { fields, functions } = findTypes(FIELDS, [TARGET]);
    try {
      owner = fieldOffsets(OWNER_INSIDE).file;
    } catch (error) {
      if (!(error instanceof UnknownField)) throw error;
    }
    const map = createMap(RECORD_MAX);
    try {
      this.#program = loadProgram(programFor(map, fields as Fields, owner), {
        type: TRACING,
        attachType: TRACE_ITER,
        attachTo: functions[TARGET],
      });
    } finally {
      close(map); // the program has it
    }
  }

  /** @returns undefined where the kernel does not let itself be read */
  static open(): OpenFileReader | undefined {
    try {
      return new OpenFileReader();
    } catch (error) {
      const isRefused = error instanceof SyscallError ||
        error instanceof UnknownField;
      if (isRefused) return undefined;
      throw error;
    }
  }

  /**
   * @param tid of the process, or of a thread of it
   * @param count of its descriptors
   * @returns undefined when there are more or fewer; what is returned counts
   * until the next call
   * @throws SyscallError
   */
  read(
    tid: number,
    count: number,
    standsStill: boolean,
  ): OpenFiles | undefined {
    const places = new Uint32Array(count);
    const numbers = new Uint32Array(count);
    let room = count * USUAL_RECORD + RECORD_MAX;
    for (;; room *= 4) {
      if (this.#records.length < room) this.#records = new Uint8Array(room);
      const fd = this.#open(tid);
      const found = Number(
        library("descriptors").ckpt_read_open_files(
          fd,
          this.#records,
          BigInt(this.#records.length),
          new Uint8Array(numbers.buffer),
          new Uint8Array(places.buffer),
          BigInt(count),
        ),
      );
      close(fd);
      if (found >= 0) {
        const fds = Array.from(numbers);
        const files = { fds, records: this.#records, places, standsStill };
        return found === count ? files : undefined;
      }
      if (found !== -ENOBUFS) throw new SyscallError("read", -found);
      if (room > MOST_RECORDS) return undefined;
    }
  }

  [Symbol.dispose](): void {
    close(this.#program);
  }

  /** An iterator over what a thread has open. */
  #open(tid: number): number {
    const task = Uint32Array.of(tid);
    const link = bpf("linkCreate", (attr) => {
      attr.setUint32(0, this.#program, true);
      attr.setUint32(8, TRACE_ITER, true);
      attr.setBigUint64(16, addressOf(new Uint8Array(task.buffer)), true);
      attr.setUint32(24, task.byteLength, true);
    });
    try {
      return bpf("iterCreate", (attr) => attr.setUint32(0, link, true));
    } finally {
      close(link);
    }
  }
}

/** Undefined: not decided yet; null: not to be used. */
let reader: OpenFileReader | null | undefined;
let counted = 0;

/**
 * Reads the open files of a process, where that is possible and pays. Whether
 * it does for a tree is decided while that runs: the program is made then.
 *
 * @param tid of the process, or of a thread of it
 * @returns undefined where the kernel is to be asked about each
 */
export function readOpenFiles(
  tid: number,
  standsStill: boolean,
): OpenFiles | undefined {
  if (reader === null || reader === undefined && standsStill) return undefined;
  try {
    // Since Linux 6.2: how many there are.
    const count = Number(stat(`/proc/${tid}/fd`).size);
    if (count < WORTH_READING) return undefined;
    counted += count;
    if (reader === undefined && counted >= WORTH_A_PROGRAM) {
      reader = OpenFileReader.open() ?? null;
    }
    return reader?.read(tid, count, standsStill);
  } catch (error) {
    // It may be gone, which those tell in words who ask.
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** From now on the kernel is asked: it answered otherwise than what was read. */
export function distrustOpenFiles(): void {
  reader = null;
}
