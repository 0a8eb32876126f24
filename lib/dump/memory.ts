/**
 * Getting the memory into the page image. A program that is to go on is copied
 * by fork first and goes on at once; the rest is read while it is stopped.
 */
import { addressOf, close, O, open, syscall } from "../ffi/syscall.ts";
import {
  copySmallTasks,
  copyTaskPages,
  type PageCounters,
  type StoredPages,
  type StoredParent,
} from "../mm/page_copy.ts";
import { PAGE_SIZE, pageCount } from "../image/pagemap.ts";
import { isRingArea } from "../mm/ring_areas.ts";
import { isPrivateHuge, type Vma } from "../mm/vma.ts";

const MADV_DONTFORK = 10n;
const MADV_WIPEONFORK = 18n;

/** Areas that a copy made by fork does not have, or has empty, or shares. */
function isLeftOutOfFork({ entry }: Vma): boolean {
  if (isRingArea(entry)) return true;
  const advice = entry.madv ?? 0n;
  return ((advice >> MADV_DONTFORK | advice >> MADV_WIPEONFORK) & 1n) !== 0n;
}

/**
 * Whether a copy by fork could be the end of a program: who writes into huge
 * pages that two have needs a further one, and is killed where there is none.
 */
export function diesOfCopy({ entry }: Vma): boolean {
  return isPrivateHuge(entry);
}

/** Pages that had to be read while the process stood still, for each area. */
export class EarlyPages implements Disposable {
  readonly #areas = new Map<bigint, { pages: StoredPages; offset: bigint }>();
  #fd: number | undefined;
  #length = 0n;

  /** Copies what {@link isLeftOutOfFork} into memory of ckpt's own. */
  static async read(
    pid: number,
    vmas: readonly Vma[],
    counters: PageCounters,
  ): Promise<EarlyPages> {
    const early = new EarlyPages();
    const name = new TextEncoder().encode("ckpt-pages\0");
    for (const vma of vmas) {
      if (!isLeftOutOfFork(vma) || vma.content === "none") continue;
      early.#fd ??= Number(memfd(name));
      const pages = await copyTaskPages(
        pid,
        [vma],
        early.#fd,
        early.#length,
        counters,
      );
      early.#areas.set(vma.entry.start, { pages, offset: early.#length });
      early.#length += lengthOf(pages);
    }
    return early;
  }

  /** Whether no area had to be read. */
  get isEmpty(): boolean {
    return this.#areas.size === 0;
  }

  /** Whether an area is among them. */
  has({ entry }: Vma): boolean {
    return this.#areas.has(entry.start);
  }

  /** Writes the pages of one area to the page image, from `at` on. */
  append({ entry }: Vma, out: number, at: bigint): StoredPages {
    const { pages, offset } = this.#areas.get(entry.start)!;
    let left = lengthOf(pages);
    syscall("lseek", BigInt(this.#fd!), offset, 0n);
    syscall("lseek", BigInt(out), at, 0n);
    while (left > 0n) {
      left -= syscall("sendfile", BigInt(out), BigInt(this.#fd!), 0n, left);
    }
    return pages;
  }

  [Symbol.dispose](): void {
    if (this.#fd !== undefined) close(this.#fd);
  }
}

function memfd(name: Uint8Array<ArrayBuffer>): bigint {
  const MFD_CLOEXEC = 1n;
  return syscall("memfd_create", addressOf(name), MFD_CLOEXEC);
}

function lengthOf({ entries }: StoredPages): bigint {
  return entries.reduce(
    (sum, entry) => sum + BigInt(pageCount(entry) * PAGE_SIZE),
    0n,
  );
}

/** A process whose page image is written, for those of its children. */
export interface SavedParent {
  /** What its pages were read from: itself, still stopped, or its snapshot. */
  readonly source: number;
  readonly pages: StoredPages;
  /** Its page image. */
  readonly path: string;
}

/**
 * Writes the page image of a process in the order of its areas.
 *
 * @param source the process, stopped, or a snapshot of it
 * @param signal ends it early; its reason is thrown then
 * @param parent its parent in the tree, which it may share pages with
 */
export async function savePages(
  source: number,
  vmas: readonly Vma[],
  early: EarlyPages | undefined,
  path: string,
  counters: PageCounters,
  signal: AbortSignal,
  parent?: SavedParent,
): Promise<StoredPages> {
  const all: StoredPages = { entries: [], guards: [], inherited: [] };
  let offset = 0n;
  const add = (stored: StoredPages) => {
    for (const entry of stored.entries) all.entries.push(entry);
    for (const guard of stored.guards) all.guards.push(guard);
    for (const range of stored.inherited) all.inherited.push(range);
    offset += lengthOf(stored);
  };
  const out = open(path, O.WRONLY);
  const stored: StoredParent | undefined = parent && {
    source: parent.source,
    pages: parent.pages,
    image: open(parent.path, O.RDONLY),
  };
  const copy = async (vmas: readonly Vma[]) =>
    add(
      await copyTaskPages(source, vmas, out, offset, counters, stored, signal),
    );
  try {
    let run: Vma[] = [];
    for (const vma of vmas) {
      if (early?.has(vma)) {
        await copy(run);
        run = [];
        add(early.append(vma, out, offset));
      } else {
        run.push(vma);
      }
    }
    await copy(run);
  } finally {
    close(out);
    if (stored !== undefined) close(stored.image);
  }
  return all;
}

/** A process whose page image is to be written. */
export interface UnsavedProcess {
  readonly source: number;
  readonly vmas: readonly Vma[];
  readonly path: string;
  readonly parent?: SavedParent;
}

/**
 * Writes the page images of several processes with little memory, of which
 * nothing had to be read early; as {@link savePages} does for one.
 */
export async function saveSmallProcesses(
  processes: readonly UnsavedProcess[],
  counters: PageCounters,
  signal: AbortSignal,
): Promise<StoredPages[]> {
  const fds: number[] = [];
  const opened = (path: string, flags: number) => {
    const fd = open(path, flags);
    fds.push(fd);
    return fd;
  };
  const parents = new Map<SavedParent, StoredParent>();
  const storedParent = (parent: SavedParent): StoredParent => {
    const known = parents.get(parent) ?? {
      source: parent.source,
      pages: parent.pages,
      image: opened(parent.path, O.RDONLY),
    };
    parents.set(parent, known);
    return known;
  };
  try {
    return await copySmallTasks(
      processes.map(({ source, vmas, path, parent }) => ({
        pid: source,
        vmas,
        fd: opened(path, O.WRONLY),
        parent: parent && storedParent(parent),
      })),
      counters,
      signal,
    );
  } finally {
    for (const fd of fds) close(fd);
  }
}
