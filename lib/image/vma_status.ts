/** The bits of vma_entry.status, and what they say about an area's pages. */

import type { vma_entry } from "./schema.gen.ts";

export const VMA_STATUS = {
  /** Takes part in a restore; without it the entry only informs. */
  REGULAR: 0x1,
  STACK: 0x2,
  VSYSCALL: 0x4,
  VDSO: 0x8,
  HEAP: 0x20,
  FILE_PRIVATE: 0x40,
  FILE_SHARED: 0x80,
  ANON_SHARED: 0x100,
  ANON_PRIVATE: 0x200,
  SYSVIPC: 0x400,
  /** Rings of the packet socket that `shmid` names; alone, unlike CRIU's. */
  SOCKET: 0x800,
  VVAR: 0x1000,
  AIORING: 0x2000,
  /** With FILE_PRIVATE or FILE_SHARED: shmid names a memfd. */
  MEMFD: 0x4000,
  /** A shadow stack. */
  SHSTK: 0x8000,
  /** No area, but pages with MADV_GUARD_INSTALL; behind all areas. */
  GUARD: 0x10000,
  UPROBES: 0x20000,
  EXT_PLUGIN: 0x8000000,
  /** ckpt's own: of an io_uring, whose file `shmid` names. */
  IO_URING: 0x10000000,
} as const;

/** What is filled when descriptors are in their places. */
const RINGS = VMA_STATUS.AIORING | VMA_STATUS.IO_URING;
const PRIVATE = VMA_STATUS.ANON_PRIVATE | VMA_STATUS.FILE_PRIVATE;

/** Whether pages of the area may be in the pagemap of the task. */
export function isPrivate({ status }: vma_entry): boolean {
  if (status & (VMA_STATUS.SHSTK | RINGS)) return true;
  return (status & VMA_STATUS.REGULAR) !== 0 && (status & PRIVATE) !== 0;
}

/** Whether the entry stands for an area that a restore makes. */
export function isArea({ status }: vma_entry): boolean {
  if (status & (VMA_STATUS.GUARD | VMA_STATUS.VSYSCALL)) return false;
  return (status & (VMA_STATUS.REGULAR | VMA_STATUS.SOCKET | RINGS)) !== 0;
}

/** The bits of pagemap_entry.flags. */
export const PAGE_FLAGS = {
  /** The pages are in the parent directory. */
  PARENT: 1,
  /** The pages may be filled after the start. */
  LAZY: 2,
  /** The pages are in this directory's page file. */
  PRESENT: 4,
} as const;
