/**
 * What an io_uring is, which no call tells: looked up in the kernel's memory
 * (struct io_ring_ctx in include/linux/io_uring_types.h).
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelPages, PAGE_FIELDS } from "../ffi/kernel_pages.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";

const WANTED = {
  ...PAGE_FIELDS,
  io_ring_ctx: [
    ...["flags", "restricted", "iowq_limits_set", "has_evfd", "clockid"],
    ...["cached_sq_head", "sq_entries", "cached_cq_tail", "cq_entries"],
    ...["file_table.data.nr", "file_table.data.nodes"],
    ...["file_alloc_start", "file_alloc_end"],
    ...["buf_table.nr", "buf_table.nodes"],
    ...["nr_req_allocated", "submit_state.free_list", "cq_overflow_list"],
    ...["io_bl_xa.xa_head", "zcrx_ctxs.xa_head", "personalities.xa_head"],
    ...["io_ev_fd", "tctx_list", "param_region.nr_pages", "napi_track_mode"],
    ...["submitter_task", "sq_data", "sq_creds", "sq_thread_idle"],
    ...["ring_region.pages", "ring_region.nr_pages"],
    ...["sq_region.pages", "sq_region.nr_pages", "rings"],
  ],
  io_rings: ["sq.tail", "sq_flags"],
  io_sq_data: ["thread", "sq_cpu"],
  io_rsrc_node: ["tag", "file_ptr", "buf"],
  io_mapped_ubuf: ["ubuf", "len", "is_kbuf"],
  io_ev_fd: ["cq_ev_fd", "eventfd_async"],
  io_tctx_node: ["ctx_node", "task"],
  task_struct: [
    ...["io_uring", "thread_pid", "flags", "cred", "signal", "thread_node"],
  ],
  signal_struct: ["thread_head"],
  cred: ["uid", "cap_ambient", "group_info", "user_ns"],
  group_info: ["ngroups", "gid"],
  pid: ["level", "numbers"],
  upid: [".", "nr"],
  io_uring_task: ["registered_rings"],
} as const;

/** IORING_SETUP_* */
const SQPOLL = 0x2;
const R_DISABLED = 0x40;
/** IORING_SQ_NEED_WAKEUP */
const NEED_WAKEUP = 1;
const NO_MMAP = 0x4000;

/** A buffer of the program that is registered; of none, both are 0. */
export interface RegisteredBuffer {
  readonly start: bigint;
  readonly length: number;
}

export interface Ring {
  /** IORING_SETUP_* */
  readonly flags: number;
  /** How many requests and results it holds. */
  readonly requests: number;
  readonly results: number;
  /** How many the kernel has taken and given, modulo 2^32. */
  readonly taken: number;
  readonly given: number;
  /** struct file of each registered file; 0n: none in this place. */
  readonly files: readonly bigint[];
  readonly buffers: readonly RegisteredBuffer[];
  /** The eventfd that is told of results, and whether only of later ones. */
  readonly eventfd?: { readonly context: bigint; readonly async: boolean };
  /** Requests that the kernel works on, or results that it could not give. */
  readonly isBusy: boolean;
  /** The thread that alone may use it; GONE: it has ended. */
  readonly thread?: number;
  /** Numbers of the pages of the program that it is in. */
  readonly memory?: { readonly counters: bigint[]; readonly entries: bigint[] };
  readonly poller?: Poller | typeof GONE;
  /** Threads that have registered it, and its place among theirs. */
  readonly registeredBy: readonly {
    readonly thread: number;
    readonly index: number;
  }[];
  /** What it has besides, and cannot be registered anew. */
  readonly unknown: readonly string[];
}

/** Instead of a thread. */
export const GONE = -1;

/** The thread of the kernel that takes the requests. */
export interface Poller {
  /** Its own id, by which rings have it in common. */
  readonly id: number;
  /** After which it sleeps, in ticks of the kernel's clock. */
  readonly idle: number;
  readonly cpu: number | undefined;
  /** A thread of its process that has the same credentials; GONE: none. */
  readonly credentials: number;
}

/** Bits of a pointer to a registered file that are no address. */
const FILE_BITS = 0x7n;
const CLOCK_MONOTONIC = 1;
/** IO_URING_NAPI_TRACKING_INACTIVE */
const NO_NAPI = 255;
const REGISTERED_RINGS = 16;
/** PF_IO_WORKER, include/linux/sched.h */
const IO_WORKER = 0x10;
/** More than any list here has. */
const MOST = 1 << 20;

export class KernelRings implements Disposable {
  readonly #kernel: KernelStructures;
  #pages: KernelPages | undefined;

  private constructor(kernel: KernelStructures) {
    this.#kernel = kernel;
  }

  /** @returns why it cannot be done here, where that is so */
  static open(): KernelRings | string {
    const kernel = KernelStructures.open(WANTED);
    return typeof kernel === "string" ? kernel : new KernelRings(kernel);
  }

  /** The struct file of a descriptor of ckpt's own. */
  file(fd: number): bigint {
    return this.#kernel.file(fd);
  }

  /** What an eventfd is for the kernel, by its struct file. */
  eventfdContext(file: bigint): bigint {
    return this.#kernel.pointer(file, "file", "private_data");
  }

  /**
   * @param fd a descriptor of ckpt's own for the ring
   * @throws NoSuchMemory
   */
  ring(fd: number): Ring {
    const file = this.file(fd);
    const ring = this.#kernel.pointer(file, "file", "private_data");
    const number = (field: string, length = 4) =>
      this.#kernel.number(ring, "io_ring_ctx", field, length);
    const flags = number("flags");
    const submitter = this.#kernel.pointer(
      ring,
      "io_ring_ctx",
      "submitter_task",
    );
    const allocated = number("nr_req_allocated");
    const files = this.#nodes(ring, "file_table.data");
    const buffers = this.#nodes(ring, "buf_table");
    const free = this.#lengthOf(
      this.#kernel.pointer(ring, "io_ring_ctx", "submit_state.free_list"),
    );
    const overflown = this.#kernel.at(ring, "io_ring_ctx", "cq_overflow_list");
    return {
      flags,
      requests: number("sq_entries"),
      results: number("cq_entries"),
      taken: number("cached_sq_head"),
      given: number("cached_cq_tail"),
      files: files.map((node) =>
        node === 0n
          ? node
          : this.#kernel.pointer(node, "io_rsrc_node", "file_ptr") & ~FILE_BITS
      ),
      buffers: buffers.map((node) => this.#buffer(node)),
      eventfd: this.#flag(ring, "has_evfd") ? this.#eventfd(ring) : undefined,
      isBusy: allocated !== free ||
        this.#kernel.memory.pointer(overflown) !== overflown ||
        (flags & (SQPOLL | R_DISABLED)) === SQPOLL && this.#isToPoll(ring),
      thread: submitter === 0n ? undefined : this.#idOf(submitter),
      memory: (flags & NO_MMAP) === 0 ? undefined : {
        counters: this.#frames(ring, "ring_region"),
        entries: this.#frames(ring, "sq_region"),
      },
      poller: (flags & SQPOLL) === 0 ? undefined : this.#poller(ring),
      registeredBy: this.#registrations(ring, file),
      unknown: this.#unknown(ring, [...files, ...buffers], buffers),
    };
  }

  /** The id of a task, in its own pid namespace, which is ckpt's. */
  #idOf(task: bigint): number {
    const kernel = this.#kernel;
    const pid = kernel.pointer(task, "task_struct", "thread_pid");
    if (pid === 0n) return GONE;
    const level = kernel.number(pid, "pid", "level", 4);
    const at = kernel.at(pid, "pid", "numbers") +
      BigInt(level * kernel.offset("upid", "."));
    return kernel.number(at, "upid", "nr", 4);
  }

  /** Of a region of memory (struct io_mapped_region). */
  #frames(ring: bigint, region: string): bigint[] {
    const kernel = this.#kernel;
    const count = kernel.number(ring, "io_ring_ctx", `${region}.nr_pages`, 4);
    if (count > MOST) throw new NoSuchMemory(ring);
    const list = kernel.pointer(ring, "io_ring_ctx", `${region}.pages`);
    const structs = new BigUint64Array(
      kernel.memory.read(list, count * 8).buffer,
    );
    this.#pages ??= new KernelPages(kernel);
    return [...structs].map((struct) => this.#pages!.frame(struct));
  }

  /** Whether a thread of the kernel is about to take requests. */
  #isToPoll(ring: bigint): boolean {
    const kernel = this.#kernel;
    const rings = kernel.pointer(ring, "io_ring_ctx", "rings");
    const put = kernel.number(rings, "io_rings", "sq.tail", 4);
    const taken = kernel.number(ring, "io_ring_ctx", "cached_sq_head", 4);
    const flags = kernel.number(rings, "io_rings", "sq_flags", 4);
    return put !== taken && (flags & NEED_WAKEUP) === 0;
  }

  #poller(ring: bigint): Ring["poller"] {
    const kernel = this.#kernel;
    const data = kernel.pointer(ring, "io_ring_ctx", "sq_data");
    if (data === 0n) return GONE;
    const thread = kernel.pointer(data, "io_sq_data", "thread");
    if (thread === 0n) return GONE;
    const cpu = kernel.number(data, "io_sq_data", "sq_cpu", 4) | 0;
    const wanted = kernel.pointer(ring, "io_ring_ctx", "sq_creds");
    const credentials = this.#credentials(wanted);
    const same = this.#threadsOf(thread).find((task) =>
      this.#credentials(kernel.pointer(task, "task_struct", "cred")) ===
        credentials
    );
    return {
      id: this.#idOf(thread),
      idle: kernel.number(ring, "io_ring_ctx", "sq_thread_idle", 4),
      cpu: cpu < 0 ? undefined : cpu,
      credentials: same === undefined ? GONE : this.#idOf(same),
    };
  }

  /** Ids, capabilities and groups (struct cred), as text to compare. */
  #credentials(address: bigint): string {
    const kernel = this.#kernel;
    const start = kernel.at(address, "cred", "uid");
    const end = kernel.at(address, "cred", "cap_ambient") + 8n;
    const groups = kernel.pointer(address, "cred", "group_info");
    const count = kernel.number(groups, "group_info", "ngroups", 4);
    if (count > MOST) throw new NoSuchMemory(groups);
    return [
      ...kernel.memory.read(start, Number(end - start)),
      ...kernel.memory.read(kernel.at(groups, "group_info", "gid"), count * 4),
      kernel.pointer(address, "cred", "user_ns"),
    ].join();
  }

  /** All threads of a process but those of the kernel. */
  #threadsOf(task: bigint): bigint[] {
    const kernel = this.#kernel;
    const signal = kernel.pointer(task, "task_struct", "signal");
    const list = kernel.at(signal, "signal_struct", "thread_head");
    return this.#listed(list, "task_struct", "thread_node").filter((task) =>
      (kernel.number(task, "task_struct", "flags", 4) & IO_WORKER) === 0
    );
  }

  /** The structures that are in a list (struct list_head) by a field. */
  #listed(list: bigint, structure: string, field: string): bigint[] {
    const { memory } = this.#kernel;
    const offset = BigInt(this.#kernel.offset(structure, field));
    const found: bigint[] = [];
    for (let at = memory.pointer(list); at !== list; at = memory.pointer(at)) {
      if (found.push(at - offset) > MOST) throw new NoSuchMemory(list);
    }
    return found;
  }

  #unknown(
    ring: bigint,
    nodes: readonly bigint[],
    buffers: readonly bigint[],
  ): string[] {
    const number = (field: string, length = 4) =>
      this.#kernel.number(ring, "io_ring_ctx", field, length);
    const has = (field: string) =>
      this.#kernel.pointer(ring, "io_ring_ctx", field) !== 0n;
    const found: Record<string, boolean> = {
      "restrictions": this.#flag(ring, "restricted"),
      "limits of its workers": this.#flag(ring, "iowq_limits_set"),
      "another clock": ![0, CLOCK_MONOTONIC].includes(number("clockid")),
      "groups of buffers": has("io_bl_xa.xa_head"),
      "queues of a network card": has("zcrx_ctxs.xa_head"),
      "personalities": has("personalities.xa_head"),
      "memory of its own for what is waited for":
        number("param_region.nr_pages") !== 0,
      "busy polling of the network": number("napi_track_mode", 1) !== NO_NAPI,
      "a range in which files are placed": number("file_alloc_start") !== 0 ||
        number("file_alloc_end") !== number("file_table.data.nr"),
      "tags of files or buffers": nodes.some((node) =>
        node !== 0n && this.#kernel.pointer(node, "io_rsrc_node", "tag") !== 0n
      ),
      "buffers of the kernel": buffers.some((node) =>
        node !== 0n &&
        this.#kernel.number(
            this.#kernel.pointer(node, "io_rsrc_node", "buf"),
            "io_mapped_ubuf",
            "is_kbuf",
            1,
          ) !== 0
      ),
    };
    return Object.entries(found).flatMap(([what, is]) => is ? [what] : []);
  }

  /** A bit field. */
  #flag(ring: bigint, field: string): boolean {
    const bit = this.#kernel.fieldsOf("io_ring_ctx").get(field)!;
    const byte = this.#kernel.memory.read(ring + BigInt(bit >> 3), 1)[0];
    return (byte >> (bit & 7) & 1) !== 0;
  }

  /** A table of struct io_rsrc_node. */
  #nodes(ring: bigint, table: string): bigint[] {
    const kernel = this.#kernel;
    const count = kernel.number(ring, "io_ring_ctx", `${table}.nr`, 4);
    if (count === 0) return [];
    if (count > MOST) throw new NoSuchMemory(ring);
    const nodes = kernel.pointer(ring, "io_ring_ctx", `${table}.nodes`);
    return [
      ...new BigUint64Array(kernel.memory.read(nodes, count * 8).buffer),
    ];
  }

  #buffer(node: bigint): RegisteredBuffer {
    if (node === 0n) return { start: 0n, length: 0 };
    const buffer = this.#kernel.pointer(node, "io_rsrc_node", "buf");
    return {
      start: this.#kernel.pointer(buffer, "io_mapped_ubuf", "ubuf"),
      length: this.#kernel.number(buffer, "io_mapped_ubuf", "len", 4),
    };
  }

  #eventfd(ring: bigint): Ring["eventfd"] {
    const kernel = this.#kernel;
    const registered = kernel.pointer(ring, "io_ring_ctx", "io_ev_fd");
    const async = kernel.number(registered, "io_ev_fd", "eventfd_async", 4);
    return {
      context: kernel.pointer(registered, "io_ev_fd", "cq_ev_fd"),
      async: (async & 1) !== 0,
    };
  }

  /** Of a list whose elements begin with the pointer to the next one. */
  #lengthOf(first: bigint): number {
    let length = 0;
    for (let at = first; at !== 0n; at = this.#kernel.memory.pointer(at)) {
      if (++length > MOST) throw new NoSuchMemory(first);
    }
    return length;
  }

  /** IORING_REGISTER_RING_FDS, by any thread that has used it. */
  #registrations(ring: bigint, file: bigint): Ring["registeredBy"] {
    const kernel = this.#kernel;
    const list = kernel.at(ring, "io_ring_ctx", "tctx_list");
    return this.#listed(list, "io_tctx_node", "ctx_node").flatMap((node) => {
      const task = kernel.pointer(node, "io_tctx_node", "task");
      const user = kernel.pointer(task, "task_struct", "io_uring");
      if (user === 0n) return [];
      const rings = kernel.memory.read(
        kernel.at(user, "io_uring_task", "registered_rings"),
        REGISTERED_RINGS * 8,
      );
      return [...new BigUint64Array(rings.buffer)].flatMap((one, index) =>
        one === file ? [{ thread: this.#idOf(task), index }] : []
      );
    });
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}
