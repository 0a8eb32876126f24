/**
 * Where the kernel sees a page of memory that it knows by its struct page. Both
 * addresses begin at chance (KASLR), so they are found by a page of ckpt's own,
 * of which the number is told (/proc/self/pagemap) and a pipe knows the struct.
 */
import type { KernelStructures } from "./kernel_structures.ts";
import { NoSuchMemory } from "./kernel_memory.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBuffer0,
  syscallBuffer1,
} from "./syscall.ts";

export const PAGE_FIELDS = {
  file: ["private_data"],
  page: ["."],
  pipe_inode_info: ["bufs"],
  pipe_buffer: ["page"],
} as const;

const PAGE_SIZE = 4096;
/** All memory is seen from a multiple of this on (PUD_SIZE). */
const GIB = 1n << 30n;
/** More memory than a machine of x86-64 with four levels of pages can have. */
const MOST_GIB = 1 << 16;
const MARK_BYTES = 64;
const PRESENT = 1n << 63n;
const FRAME = (1n << 55n) - 1n;

export class KernelPages {
  readonly #firstStruct: bigint;
  readonly #firstByte: bigint;
  readonly #structBytes: bigint;

  /**
   * @param kernel opened with {@link PAGE_FIELDS}
   * @throws NoSuchMemory where memory is seen elsewhere
   */
  constructor(kernel: KernelStructures) {
    const room = new Uint8Array(2 * PAGE_SIZE);
    const skip = PAGE_SIZE - Number(addressOf(room) % BigInt(PAGE_SIZE));
    const page = room.subarray(skip, skip + PAGE_SIZE);
    crypto.getRandomValues(page.subarray(0, MARK_BYTES));
    const frame = frameOf(page);
    const { struct, pipe } = asPipeSees(kernel, page);
    this.#structBytes = BigInt(kernel.offset("page", "."));
    this.#firstStruct = struct - frame * this.#structBytes;
    // Both are in the memory of the kernel's, which is seen in one piece.
    let start = pipe - pipe % GIB;
    for (let i = 0; !isAt(kernel, start, frame, page); i++) {
      if (i === MOST_GIB) throw new NoSuchMemory(struct);
      start -= GIB;
    }
    this.#firstByte = start;
  }

  /** The number of a page, by the address of its struct page. */
  frame(struct: bigint): bigint {
    return (struct - this.#firstStruct) / this.#structBytes;
  }

  /** @param struct the address of a struct page */
  address(struct: bigint): bigint {
    return this.#firstByte + this.frame(struct) * BigInt(PAGE_SIZE);
  }
}

/** The number of the page that is at an address of ckpt's own. */
function frameOf(page: Uint8Array<ArrayBuffer>): bigint {
  const fd = open("/proc/self/pagemap", O.RDONLY);
  try {
    const entry = new BigUint64Array(1);
    const bytes = new Uint8Array(entry.buffer);
    const at = addressOf(page) / BigInt(PAGE_SIZE) * 8n;
    syscallBuffer1("pread64", BigInt(fd), bytes, 8n, at);
    if ((entry[0] & PRESENT) === 0n) throw new NoSuchMemory(addressOf(page));
    return entry[0] & FRAME;
  } finally {
    close(fd);
  }
}

function asPipeSees(
  kernel: KernelStructures,
  page: Uint8Array<ArrayBuffer>,
): { struct: bigint; pipe: bigint } {
  const ends = new Int32Array(2);
  syscallBuffer0("pipe2", new Uint8Array(ends.buffer), BigInt(O.CLOEXEC));
  try {
    const vector = new BigUint64Array([addressOf(page), BigInt(page.length)]);
    const bytes = new Uint8Array(vector.buffer);
    syscall("vmsplice", BigInt(ends[1]), addressOf(bytes), 1n, 0n);
    const pipe = kernel.pointer(kernel.file(ends[0]), "file", "private_data");
    const buffers = kernel.pointer(pipe, "pipe_inode_info", "bufs");
    return { struct: kernel.pointer(buffers, "pipe_buffer", "page"), pipe };
  } finally {
    ends.forEach(close);
  }
}

function isAt(
  { memory }: KernelStructures,
  start: bigint,
  frame: bigint,
  page: Uint8Array,
): boolean {
  try {
    const found = memory.read(start + frame * BigInt(PAGE_SIZE), MARK_BYTES);
    return found.every((byte, i) => byte === page[i]);
  } catch (error) {
    if (error instanceof NoSuchMemory) return false;
    throw error;
  }
}
