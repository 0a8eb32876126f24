/**
 * Makes the memfds of a tree before the first process exists: each once, with
 * its content. The processes open it anew (/proc/self/fd), with the flags each
 * had.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { describeErrno, EINVAL } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import {
  F_SEAL,
  hugePageFlags,
  memfdProblem,
  PERMISSIONS,
  sealSteps,
} from "../files/memfd.ts";
import type { MadeFile } from "../ghost/make.ts";
import { PAGE_SIZE } from "../image/pagemap.ts";
import type { memfd_inode_entry } from "../image/schema.gen.ts";
import type { PageCounters } from "../mm/page_copy.ts";
import { MAP } from "../mm/vma.ts";
import { PROT } from "../proc/maps.ts";
import { fill, placedPages } from "./shared_memory.ts";
import { type MemfdImage, pagesPath, type TreeImages } from "./task_images.ts";

const MFD = {
  cloexec: 0x1,
  allowSealing: 0x2,
  noexecSeal: 0x8,
  exec: 0x10,
} as const;
const EXECUTABLE = 0o111;
const F_ADD_SEALS = 1033n;

/** What cannot be made again. */
export function memfdProblems(memfds: readonly MemfdImage[]): Reason[] {
  return memfds.flatMap(({ entry }) => {
    const why = memfdProblem(entry);
    return why === undefined ? [] : [{ object: nameOf(entry), why }];
  });
}

function nameOf({ name }: memfd_inode_entry): string {
  return `memfd "${name}"`;
}

export class Memfds implements Disposable {
  /** What stands for each, by the ids of its files. */
  readonly byFile = new Map<number, MadeFile>();
  readonly #sealLater: { fd: number; entry: memfd_inode_entry }[] = [];
  readonly #fds: number[] = [];

  private constructor() {}

  /**
   * @param counters `written` counts the pages that are in place
   * @param signal ends it early; its reason is thrown then
   * @throws CkptError naming the memfd
   */
  static async make(
    { set, memfds }: Pick<TreeImages, "set" | "memfds">,
    counters: PageCounters,
    signal?: AbortSignal,
  ): Promise<Memfds> {
    const made = new Memfds();
    try {
      for (const { entry, files, pagemap } of memfds) {
        signal?.throwIfAborted();
        const fd = attempt(entry, () => create(entry));
        made.#fds.push(fd);
        for (const id of files) made.byFile.set(id, { fd, reopen: true });
        attempt(entry, () => setAttributes(fd, entry));
        if (pagemap !== undefined) {
          const path = pagesPath(set, pagemap);
          const parts = placedPages(pagemap.entries, wholePages(entry.size));
          await fillMemfd(fd, entry, path, parts, counters, signal);
        }
        attempt(entry, () => seal(fd, sealSteps(entry.seals)?.filled));
        made.#sealLater.push({ fd, entry });
      }
      return made;
    } catch (error) {
      made[Symbol.dispose]();
      throw error;
    }
  }

  /** Sets the seals that would hinder mapping; when all have mapped them. */
  seal(): void {
    for (const { fd, entry } of this.#sealLater) {
      attempt(entry, () => seal(fd, sealSteps(entry.seals)?.mapped));
    }
  }

  [Symbol.dispose](): void {
    for (const fd of this.#fds.splice(0)) close(fd);
    this.byFile.clear();
  }
}

function attempt<T>(entry: memfd_inode_entry, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    throw new CkptError(EXIT.failed, "making a memfd", [{
      object: nameOf(entry),
      why: `${error.call}: ${describeErrno(error.errno)}`,
    }], { cause: error });
  }
}

function create(entry: memfd_inode_entry): number {
  const { name, seals, mode = EXECUTABLE } = entry;
  const bytes = terminated(encodeText(name));
  const call = (flags: number) =>
    Number(syscall("memfd_create", addressOf(bytes), BigInt(flags)));
  const flags = MFD.cloexec | hugePageFlags(entry) |
    (sealSteps(seals) === undefined ? 0 : MFD.allowSealing);
  const noexec = (seals & F_SEAL.exec) !== 0 && (mode & EXECUTABLE) === 0;
  try {
    return call(flags | (noexec ? MFD.noexecSeal : MFD.exec));
  } catch (error) {
    // Before Linux 6.3 none of the two is known, and all are executable.
    const old = error instanceof SyscallError && error.errno === EINVAL;
    if (!old || noexec) throw error;
    return call(flags);
  }
}

function setAttributes(
  fd: number,
  { uid, gid, mode, size }: memfd_inode_entry,
): void {
  syscall("fchown", BigInt(fd), BigInt(uid), BigInt(gid));
  if (mode !== undefined) {
    syscall("fchmod", BigInt(fd), BigInt(mode & PERMISSIONS));
  }
  syscall("ftruncate", BigInt(fd), size);
}

function wholePages(size: bigint): bigint {
  const page = BigInt(PAGE_SIZE);
  return (size + page - 1n) / page * page;
}

/** By a mapping: what is behind the end, in the last page, comes, too. */
async function fillMemfd(
  fd: number,
  entry: memfd_inode_entry,
  path: string,
  parts: readonly bigint[],
  counters: PageCounters,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (parts.length === 0) return;
  const length = wholePages(entry.size);
  const start = attempt(entry, () =>
    syscall(
      "mmap",
      0n,
      length,
      BigInt(PROT.read | PROT.write),
      // Of huge pages there have to be as many as it has.
      BigInt(hugePageFlags(entry) ? MAP.shared : MAP.shared | MAP.noreserve),
      BigInt(fd),
    ));
  try {
    const image = attempt(entry, () => open(path, O.RDONLY));
    try {
      const action = `filling the ${nameOf(entry)}`;
      await fill(start, parts, image, counters, signal, action);
    } finally {
      close(image);
    }
  } finally {
    syscall("munmap", start, length);
  }
}

function seal(fd: number, seals = 0): void {
  if (seals !== 0) syscall("fcntl", BigInt(fd), F_ADD_SEALS, BigInt(seals));
}
