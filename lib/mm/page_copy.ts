/**
 * Copies memory of a stopped task into a page image (c/lib/copy_task.c) and
 * describes what was stored as pagemap entries.
 */
import { nativeError } from "../ffi/cause.ts";
import { library } from "../ffi/library.ts";
import { addressOf } from "../ffi/syscall.ts";
import type { pagemap_entry } from "../image/schema.gen.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import { PAGE_FLAGS } from "../image/vma_status.ts";
import { storedPages } from "./stored_pages.ts";
import type { Vma } from "./vma.ts";

const AREA_ZERO_IS_DEFAULT = 1n;
const AREA_WHOLE = 4n;
const RANGE_GUARD = 2n;
const RANGE_INHERITED = 8n;

export interface StoredPages {
  readonly entries: pagemap_entry[];
  /** Ranges with MADV_GUARD_INSTALL, [start, end). */
  readonly guards: { start: bigint; end: bigint }[];
  /** Stored pages that are the very ones the parent has stored, ascending. */
  readonly inherited: { start: bigint; end: bigint }[];
}

/** A parent whose pages are stored already. */
export interface StoredParent {
  /** Itself or its snapshot, as it was when the child's was taken. */
  readonly source: number;
  readonly pages: StoredPages;
  /** Descriptor of its page image, to be read. */
  readonly image: number;
}

/** Progress of a copy that runs beside JavaScript; pages of 4096 bytes. */
export class PageCounters {
  readonly #words = new BigUint64Array(3);

  get buffer(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(this.#words.buffer);
  }

  /** Pages that hold something. */
  get scanned(): bigint {
    return this.#words[0];
  }

  /** Pages stored. */
  get written(): bigint {
    return this.#words[1];
  }

  /** Lets what fills memory end early. */
  cancel(): void {
    this.#words[2] = 1n;
  }
}

/** The areas whose pages go into the task's own page image. */
function areasToCopy(vmas: readonly Vma[]): BigUint64Array<ArrayBuffer> {
  const chosen = vmas.filter(({ content }) =>
    content !== "none" && content !== "object"
  );
  const words = new BigUint64Array(chosen.length * 3);
  let at = 0;
  for (const { entry, content } of chosen) {
    words[at++] = entry.start;
    words[at++] = entry.end;
    words[at++] = content === "all"
      ? AREA_WHOLE
      : content === "anonymous"
      ? AREA_ZERO_IS_DEFAULT
      : 0n;
  }
  return words;
}

/** Below this a second worker costs more than it helps. */
export const PAGES_WORTH_TWO = 2048n;

/**
 * Writes the pages of a task's private memory to `fd`, from `offset` on.
 *
 * @param parent pages that the task shares with it are told, and where the file
 * system can do that (btrfs, xfs) not written a second time but cloned
 * @param signal ends it early; its reason is thrown then
 * @throws CkptError when memory cannot be read or the image not be written
 */
export async function copyTaskPages(
  pid: number,
  vmas: readonly Vma[],
  fd: number,
  offset: bigint,
  counters: PageCounters,
  parent?: StoredParent,
  signal?: AbortSignal,
): Promise<StoredPages> {
  const action = `saving the memory of task ${pid}`;
  const areas = areasToCopy(vmas);
  const native = library("pages");
  const copy = new BigUint64Array(1);
  const pages = native.ckpt_find_task_pages(
    pid,
    new Uint8Array(areas.buffer),
    BigInt(areas.length / 3),
    fd,
    offset,
    counters.buffer,
    new Uint8Array(copy.buffer),
  );
  // A second worker reads while the first writes; more do not help, because
  // writes to one file wait for each other.
  const workers = pages < PAGES_WORTH_TWO ? 1 : 2;
  if (copy[0] === 0n) throw nativeError(pages, action);
  const cancel = () => native.ckpt_cancel_copy(copy[0]);
  if (pages >= 0n) {
    signal?.addEventListener("abort", cancel);
    // When it fails, the copy knows, and its workers do nothing.
    if (parent !== undefined && pages > 0n) {
      await findInherited(copy[0], parent);
    }
    await Promise.all(
      Array.from({ length: workers }, () => native.ckpt_copy_pieces(copy[0])),
    );
    signal?.removeEventListener("abort", cancel);
  }
  const list = new BigUint64Array(1);
  const count = native.ckpt_end_task_copy(
    copy[0],
    new Uint8Array(list.buffer),
  );
  if (count < 0n) signal?.throwIfAborted();
  return takeList(count, list[0], action);
}

async function findInherited(copy: bigint, parent: StoredParent) {
  const words = placedWords(parent.pages);
  await library("pages").ckpt_find_inherited(
    copy,
    parent.source,
    parent.image,
    new Uint8Array(words.buffer),
    BigInt(words.length / 3),
  );
}

/** struct placed of c/lib/pages.h for all that is stored. */
function placedWords({ entries }: StoredPages): BigUint64Array<ArrayBuffer> {
  const stored = storedPages(entries);
  const words = new BigUint64Array(stored.length * 3);
  stored.forEach(({ start, end, offset }, i) => {
    words.set([start, end, offset], i * 3);
  });
  return words;
}

/** A task whose memory is copied as a whole to the beginning of an image. */
export interface PageCopy {
  readonly pid: number;
  readonly vmas: readonly Vma[];
  /** Descriptor of its page image. */
  readonly fd: number;
  readonly parent?: StoredParent;
}

/** struct copy_job of c/lib/copy_task.c, in words. */
const JOB_WORDS = 4;

/**
 * The same as {@link copyTaskPages} for several small tasks, by one native call
 * beside JavaScript: to hand a call over takes as long as to copy 100 KiB.
 *
 * @returns what was stored of each
 * @throws CkptError of the first that failed
 */
export async function copySmallTasks(
  tasks: readonly PageCopy[],
  counters: PageCounters,
  signal?: AbortSignal,
): Promise<StoredPages[]> {
  const native = library("pages");
  const jobs = new BigUint64Array(tasks.length * JOB_WORDS);
  const halves = new Int32Array(jobs.buffer);
  const parents = new Map<StoredPages, BigUint64Array<ArrayBuffer>>();
  const begun: bigint[] = [];
  tasks.forEach(({ pid, vmas, fd, parent }, i) => {
    const areas = areasToCopy(vmas);
    const copy = new BigUint64Array(1);
    const found = native.ckpt_find_task_pages(
      pid,
      new Uint8Array(areas.buffer),
      BigInt(areas.length / 3),
      fd,
      0n,
      counters.buffer,
      new Uint8Array(copy.buffer),
    );
    if (copy[0] === 0n) {
      throw nativeError(found, `saving the memory of task ${pid}`);
    }
    begun.push(copy[0]);
    jobs[i * JOB_WORDS] = copy[0];
    if (parent === undefined) return;
    const words = parents.get(parent.pages) ?? placedWords(parent.pages);
    parents.set(parent.pages, words);
    halves.set([parent.source, parent.image], (i * JOB_WORDS + 1) * 2);
    jobs[i * JOB_WORDS + 2] = addressOf(new Uint8Array(words.buffer));
    jobs[i * JOB_WORDS + 3] = BigInt(words.length / 3);
  });
  const cancel = () => begun.forEach((copy) => native.ckpt_cancel_copy(copy));
  signal?.addEventListener("abort", cancel);
  await native.ckpt_copy_tasks(
    new Uint8Array(jobs.buffer),
    BigInt(tasks.length),
  );
  signal?.removeEventListener("abort", cancel);
  parents.clear(); // until here native code has read them
  const stored: StoredPages[] = [];
  let failure: unknown;
  tasks.forEach(({ pid }, i) => {
    const list = new BigUint64Array(1);
    const count = native.ckpt_end_task_copy(
      begun[i],
      new Uint8Array(list.buffer),
    );
    try {
      stored.push(takeList(count, list[0], `saving the memory of task ${pid}`));
    } catch (error) {
      failure ??= error;
    }
  });
  if (failure !== undefined) {
    signal?.throwIfAborted();
    throw failure;
  }
  return stored;
}

/** To hand one over to another thread takes longer than to copy this, bytes. */
const SMALL_OBJECT = 1n << 18n;

/**
 * Appends the content of a shared memory object to `fd`.
 *
 * @param object descriptor of the object; @param size its length in bytes
 */
export async function copyObjectPages(
  object: number,
  size: bigint,
  fd: number,
  counters: PageCounters,
): Promise<StoredPages> {
  const list = new BigUint64Array(1);
  const found = new Uint8Array(list.buffer);
  const count = size <= SMALL_OBJECT
    ? library("objects")
      .copy_small_object(object, size, fd, counters.buffer, found)
    : await library("pages")
      .ckpt_copy_object_pages(object, size, fd, counters.buffer, found);
  return takeList(count, list[0], "saving shared memory");
}

/** Reads a list of ranges that native code made, and gives it back. */
function takeList(
  count: bigint,
  list: bigint,
  action: string,
): StoredPages {
  if (count < 0n) throw nativeError(count, action);
  const entries: pagemap_entry[] = [];
  const guards: { start: bigint; end: bigint }[] = [];
  const inherited: { start: bigint; end: bigint }[] = [];
  let stored = 0n; // where the last entry ends
  if (count > 0n) {
    const pointer = Deno.UnsafePointer.create(list)!;
    const words = new BigUint64Array(
      Deno.UnsafePointerView.getArrayBuffer(pointer, Number(count) * 24),
    );
    for (let i = 0; i < words.length; i += 3) {
      const start = words[i];
      const end = words[i + 1];
      if (words[i + 2] === RANGE_GUARD) {
        guards.push({ start, end });
        continue;
      }
      if (words[i + 2] === RANGE_INHERITED) inherited.push({ start, end });
      const pages = (end - start) / BigInt(PAGE_SIZE);
      const last = entries.at(-1);
      if (last !== undefined && stored === start) {
        last.nr_pages! += pages;
      } else {
        entries.push({
          vaddr: start,
          compat_nr_pages: 0,
          flags: PAGE_FLAGS.PRESENT,
          nr_pages: pages,
        });
      }
      stored = end;
    }
  }
  library("pages").ckpt_free(list);
  return { entries, guards, inherited };
}
