/**
 * What an io_uring is, which no call tells: looked up in the kernel's memory
 * (struct io_ring_ctx in include/linux/io_uring_types.h).
 */
import { NoSuchMemory } from "../ffi/kernel_memory.ts";
import { KernelStructures } from "../ffi/kernel_structures.ts";

const WANTED = {
  file: ["private_data"],
  io_ring_ctx: [
    ...["flags", "restricted", "iowq_limits_set", "has_evfd", "clockid"],
    ...["cached_sq_head", "sq_entries", "cached_cq_tail", "cq_entries"],
    ...["file_table.data.nr", "file_table.data.nodes"],
    ...["file_alloc_start", "file_alloc_end"],
    ...["buf_table.nr", "buf_table.nodes"],
    ...["nr_req_allocated", "submit_state.free_list", "cq_overflow_list"],
    ...["io_bl_xa.xa_head", "zcrx_ctxs.xa_head", "personalities.xa_head"],
    ...["io_ev_fd", "tctx_list", "param_region.nr_pages", "napi_track_mode"],
  ],
  io_rsrc_node: ["tag", "file_ptr", "buf"],
  io_mapped_ubuf: ["ubuf", "len", "is_kbuf"],
  io_ev_fd: ["cq_ev_fd", "eventfd_async"],
  io_tctx_node: ["ctx_node", "task"],
  task_struct: ["files", "io_uring"],
  io_uring_task: ["registered_rings"],
} as const;

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
  /** What it has besides, and cannot be registered anew. */
  readonly unknown: readonly string[];
}

/** Bits of a pointer to a registered file that are no address. */
const FILE_BITS = 0x7n;
const CLOCK_MONOTONIC = 1;
/** IO_URING_NAPI_TRACKING_INACTIVE */
const NO_NAPI = 255;
const REGISTERED_RINGS = 16;
/** More than any list here has. */
const MOST = 1 << 20;

export class KernelRings implements Disposable {
  readonly #kernel: KernelStructures;

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
    const ring = this.#kernel.pointer(this.file(fd), "file", "private_data");
    const number = (field: string, length = 4) =>
      this.#kernel.number(ring, "io_ring_ctx", field, length);
    const allocated = number("nr_req_allocated");
    const files = this.#nodes(ring, "file_table.data");
    const buffers = this.#nodes(ring, "buf_table");
    const free = this.#lengthOf(
      this.#kernel.pointer(ring, "io_ring_ctx", "submit_state.free_list"),
    );
    const overflown = this.#kernel.at(ring, "io_ring_ctx", "cq_overflow_list");
    return {
      flags: number("flags"),
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
        this.#kernel.memory.pointer(overflown) !== overflown,
      unknown: this.#unknown(ring, [...files, ...buffers], buffers),
    };
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
      "threads that have registered it": this.#hasRegisteredRings(ring),
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
  #hasRegisteredRings(ring: bigint): boolean {
    const kernel = this.#kernel;
    const list = kernel.at(ring, "io_ring_ctx", "tctx_list");
    let steps = 0;
    for (
      let at = kernel.memory.pointer(list);
      at !== list;
      at = kernel.memory.pointer(at)
    ) {
      if (++steps > MOST) throw new NoSuchMemory(list);
      const node = at - BigInt(kernel.offset("io_tctx_node", "ctx_node"));
      const task = kernel.pointer(node, "io_tctx_node", "task");
      const user = kernel.pointer(task, "task_struct", "io_uring");
      if (user === 0n) continue;
      const rings = kernel.memory.read(
        kernel.at(user, "io_uring_task", "registered_rings"),
        REGISTERED_RINGS * 8,
      );
      if (rings.some((byte) => byte !== 0)) return true;
    }
    return false;
  }

  [Symbol.dispose](): void {
    this.#kernel[Symbol.dispose]();
  }
}
