/** Whether the kernel of this host is the right one for an image. */
import type { Reason } from "../error.ts";
import { close, O, open, pread } from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { PAGE_SIZE, pageCount, pageFlags } from "../image/pagemap.ts";
import { PAGE_FLAGS, VMA_STATUS } from "../image/vma_status.ts";
import { readMaps } from "../proc/read.ts";
import { pagesPath, type TaskImages } from "./task_images.ts";

/** The vdso of this kernel, and the data it comes with. */
interface Vdso {
  readonly code: Uint8Array<ArrayBuffer>;
  /** Bytes. */
  readonly dataSize: number;
}

function ownVdso(): Vdso | undefined {
  const own = readMaps(Deno.pid);
  const vdso = own.find(({ path }) => path === "[vdso]");
  if (vdso === undefined) return undefined;
  using memory = TaskMemory.open(Deno.pid);
  return {
    code: memory.read(BigInt(vdso.start), vdso.end - vdso.start),
    dataSize: own.filter(({ path }) => path.startsWith("[vvar"))
      .reduce((sum, { start, end }) => sum + end - start, 0),
  };
}

/**
 * The kernel's vdso is mapped into the restored tasks, so it has to be the one
 * that the programs saw: their code may hold return addresses into it.
 */
export function otherVdso(processes: readonly TaskImages[]): Reason[] {
  const own = ownVdso();
  return processes.flatMap((images) => {
    const why = whyOtherVdso(images, own);
    return why === undefined ? [] : [{
      object: `the vdso of process ${images.pid}`,
      why,
      remedy: "restore on the kernel the image was made on",
    }];
  });
}

function whyOtherVdso(
  images: TaskImages,
  own: Vdso | undefined,
): string | undefined {
  const { vmas } = images.mm;
  const vdso = vmas.find(({ status }) => (status & VMA_STATUS.VDSO) !== 0);
  if (vdso === undefined) return undefined;
  const vvar = vmas.find(({ status }) => (status & VMA_STATUS.VVAR) !== 0);
  if (
    own === undefined || vvar === undefined ||
    BigInt(own.code.length) !== vdso.end - vdso.start ||
    BigInt(own.dataSize) !== vvar.end - vvar.start
  ) return "this kernel lays its vdso out otherwise";
  const stored = storedPages(images, vdso.start, vdso.end);
  if (stored === undefined) return undefined;
  return equalWords(stored, own.code)
    ? undefined
    : "it is not the one of this kernel";
}

/** Whether two arrays of one length, a multiple of 4, hold the same. */
function equalWords(
  a: Uint8Array<ArrayBuffer>,
  b: Uint8Array<ArrayBuffer>,
): boolean {
  const [words, others] = [a, b].map(({ buffer }) => new Int32Array(buffer));
  for (let i = 0; i < words.length; i++) {
    if (words[i] !== others[i]) return false;
  }
  return true;
}

/** Stored content of [start, end), if it is there in one piece. */
function storedPages(
  images: TaskImages,
  start: bigint,
  end: bigint,
): Uint8Array<ArrayBuffer> | undefined {
  let offset = 0n;
  for (const entry of images.pagemap.entries) {
    if ((pageFlags(entry) & PAGE_FLAGS.PRESENT) === 0) continue;
    const length = BigInt(pageCount(entry) * PAGE_SIZE);
    if (entry.vaddr <= start && end <= entry.vaddr + length) {
      const fd = open(pagesPath(images.set, images.pagemap), O.RDONLY);
      try {
        const bytes = new Uint8Array(Number(end - start));
        pread(fd, bytes, offset + start - entry.vaddr);
        return bytes;
      } finally {
        close(fd);
      }
    }
    offset += length;
  }
  return undefined;
}
