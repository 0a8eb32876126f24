/**
 * Makes the objects of shared anonymous memory before the first process
 * exists: each once, with its content, so that every process of the tree that
 * had mapped it maps the same one again.
 */
import { CkptError, EXIT } from "../error.ts";
import { nativeError } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { close, O, open, syscall, SyscallError } from "../ffi/syscall.ts";
import { describeErrno } from "../ffi/errno.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import { storedPages } from "../mm/stored_pages.ts";
import { MAP } from "../mm/vma.ts";
import { PROT } from "../proc/maps.ts";
import {
  pagesPath,
  type SharedObject,
  type TreeImages,
} from "./task_images.ts";

export class SharedMemoryObjects implements Disposable {
  readonly #fds = new Map<bigint, number>();

  private constructor() {}

  /** Descriptors of the objects, open for reading and writing, by their id. */
  get fds(): ReadonlyMap<bigint, number> {
    return this.#fds;
  }

  /**
   * @param counters `written` counts the pages that are in place
   * @param signal ends it early; its reason is thrown then
   * @throws CkptError naming the object
   */
  static async make(
    { set, shared }: Pick<TreeImages, "set" | "shared">,
    counters: PageCounters,
    signal?: AbortSignal,
  ): Promise<SharedMemoryObjects> {
    const objects = new SharedMemoryObjects();
    try {
      for (const object of shared) {
        const path = pagesPath(set, object.pagemap);
        objects.#fds.set(
          object.id,
          await makeObject(object, path, counters, signal),
        );
      }
    } catch (error) {
      objects[Symbol.dispose]();
      throw error;
    }
    return objects;
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.values()) close(fd);
    this.#fds.clear();
  }
}

const ANONYMOUS = BigInt.asUintN(64, -1n);

/**
 * A mapping makes the object; /proc/self/map_files gives a descriptor, by which
 * it is known as /dev/zero in every process. Pages that are not stored are
 * never touched, so that they take no memory.
 */
async function makeObject(
  { id, size: bytes, huge, pagemap }: SharedObject,
  path: string,
  counters: PageCounters,
  signal: AbortSignal | undefined,
): Promise<number> {
  const action = `making the shared memory ${id}`;
  const attempt = <T>(what: string, call: () => T): T => {
    try {
      return call();
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      throw new CkptError(EXIT.failed, action, [{
        object: what,
        why: describeErrno(error.errno),
      }], { cause: error });
    }
  };
  signal?.throwIfAborted();
  const page = BigInt(PAGE_SIZE);
  const size = (bytes + page - 1n) / page * page;
  const start = attempt(`${size} bytes of shared memory`, () =>
    syscall(
      "mmap",
      0n,
      size,
      BigInt(PROT.read | PROT.write),
      // Of huge pages there have to be as many as it has.
      BigInt(MAP.shared | MAP.anonymous | (huge || MAP.noreserve)),
      ANONYMOUS,
    ));
  try {
    const link = `/proc/self/map_files/${start.toString(16)}-${
      (start + size).toString(16)
    }`;
    const object = attempt(link, () => open(link, O.RDWR));
    try {
      const image = attempt(path, () => open(path, O.RDONLY));
      try {
        const parts = placedPages(pagemap.entries, size);
        await fill(start, parts, image, counters, signal, action);
      } finally {
        close(image);
      }
    } catch (error) {
      close(object);
      throw error;
    }
    return object;
  } finally {
    syscall("munmap", start, size);
  }
}

/** Of an object only what an area shows is there; the rest has no place. */
export function placedPages(
  pages: SharedObject["pagemap"]["entries"],
  size: bigint,
): bigint[] {
  return storedPages(pages).filter(({ start }) => start < size).flatMap(
    ({ start, end, offset }) => [start, end < size ? end : size, offset],
  );
}

/** To hand one over to another thread takes longer than to fill this, bytes. */
const SMALL_MEMORY = 1n << 18n;

/** @param parts start, end and place in the image of each range of pages */
export async function fill(
  memory: bigint,
  parts: readonly bigint[],
  image: number,
  counters: PageCounters,
  signal: AbortSignal | undefined,
  action: string,
): Promise<void> {
  if (parts.length === 0) return;
  const words = BigUint64Array.from(parts);
  const last = parts.length - 3;
  if (parts[last + 1] - parts[0] <= SMALL_MEMORY) {
    const result = library("fillingNow").fill_small_memory(
      image,
      memory,
      new Uint8Array(words.buffer),
      BigInt(parts.length / 3),
      counters.buffer,
    );
    if (result < 0n) throw nativeError(result, action);
    return;
  }
  const cancel = () => counters.cancel();
  signal?.addEventListener("abort", cancel);
  const result = await library("filling").ckpt_fill_memory(
    image,
    memory,
    new Uint8Array(words.buffer),
    BigInt(parts.length / 3),
    counters.buffer,
  );
  signal?.removeEventListener("abort", cancel);
  if (result < 0n) {
    signal?.throwIfAborted();
    throw nativeError(result, action);
  }
}
