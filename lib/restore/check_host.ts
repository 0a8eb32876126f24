/**
 * Whether the files of this host are those of the image, and its kernel the
 * right one; before any process exists.
 */
import type { Reason } from "../error.ts";
import {
  close,
  type FileStatus,
  lstat,
  O,
  open,
  pread,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { TaskMemory } from "../ffi/task_memory.ts";
import { fd_types, type reg_file_entry } from "../image/schema.gen.ts";
import { PAGE_SIZE, pageCount, pageFlags } from "../image/pagemap.ts";
import { PAGE_FLAGS, VMA_STATUS } from "../image/vma_status.ts";
import { encodeText } from "../ffi/text.ts";
import { readMaps } from "../proc/read.ts";
import { pagesPath, type TaskImages } from "./task_images.ts";

/** @param replaced ids of files for which ckpt was given a descriptor */
export function changedFiles(
  images: Pick<TaskImages, "files">,
  replaced: ReadonlySet<number>,
): Reason[] {
  const reasons: Reason[] = [];
  for (const entry of images.files.values()) {
    if (entry.type !== fd_types.REG || replaced.has(entry.id)) continue;
    const why = whyChanged(entry.reg!);
    if (why !== undefined) {
      reasons.push({ object: `file ${entry.reg!.name}`, ...why });
    }
  }
  return reasons;
}

function whyChanged(
  file: reg_file_entry,
): Omit<Reason, "object"> | undefined {
  if (file.ext) {
    return {
      why: "the program got it from outside",
      remedy: `give it: --inherit-fd fd[N]:${file.name}`,
    };
  }
  const path = encodeText(file.name);
  let found: FileStatus;
  try {
    found = (file.flags & O.NOFOLLOW) !== 0 ? lstat(path) : stat(path);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    // A file of the process itself, below /proc, comes with it.
    if (file.name.startsWith("/proc/")) return undefined;
    return { why: error.message };
  }
  if (file.mode !== undefined && found.mode !== file.mode) {
    return {
      why: `its mode is ${found.mode.toString(8)}, it was ${
        file.mode.toString(8)
      }`,
    };
  }
  if (file.size !== undefined && found.size !== file.size) {
    return {
      why: `its size is ${found.size}, it was ${file.size}: the file has ` +
        "changed since the dump",
    };
  }
  return undefined;
}

/**
 * The kernel's vdso is mapped into the restored task, so it has to be the one
 * that the program saw: its code may hold return addresses into it.
 */
export function otherVdso(images: TaskImages): Reason[] {
  const vdso = images.mm.vmas.find(({ status }) =>
    (status & VMA_STATUS.VDSO) !== 0
  );
  if (vdso === undefined) return [];
  const vvar = images.mm.vmas.find(({ status }) =>
    (status & VMA_STATUS.VVAR) !== 0
  );
  const own = readMaps(Deno.pid);
  const ownVdso = own.find(({ path }) => path === "[vdso]");
  const ownVvar = own.filter(({ path }) => path.startsWith("[vvar"));
  const object = "the vdso of the program";
  const remedy = "restore on the kernel the image was made on";
  const ownVvarSize = ownVvar.reduce(
    (sum, { start, end }) => sum + end - start,
    0,
  );
  if (
    ownVdso === undefined || vvar === undefined ||
    BigInt(ownVdso.end - ownVdso.start) !== vdso.end - vdso.start ||
    BigInt(ownVvarSize) !== vvar.end - vvar.start
  ) {
    return [{ object, why: "this kernel lays its vdso out otherwise", remedy }];
  }
  const stored = storedPages(images, vdso.start, vdso.end);
  if (stored === undefined) return [];
  using memory = TaskMemory.open(Deno.pid);
  const here = memory.read(
    BigInt(ownVdso.start),
    ownVdso.end - ownVdso.start,
  );
  if (stored.every((byte, i) => byte === here[i])) return [];
  return [{
    object,
    why: "it is not the one of this kernel",
    remedy,
  }];
}

/** Stored content of [start, end), if it is there in one piece. */
function storedPages(
  images: TaskImages,
  start: bigint,
  end: bigint,
): Uint8Array | undefined {
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
