/**
 * memfd_create(2): files in memory without a place in any directory,
 * `memfd_file_entry` for each open file and `memfd_inode_entry` for each object,
 * whose content is stored as that of shared memory.
 */
import {
  addressOf,
  close,
  type FileStatus,
  S_IF,
  stat,
  syscall,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { fileSystemOf } from "../ghost/calls.ts";
import type {
  fown_entry,
  memfd_file_entry,
  memfd_inode_entry,
} from "../image/schema.gen.ts";

/** fcntl(2), F_ADD_SEALS. */
export const F_SEAL = {
  seal: 0x1,
  shrink: 0x2,
  grow: 0x4,
  write: 0x8,
  futureWrite: 0x10,
  exec: 0x20,
} as const;

/** fchmod(2). */
export const PERMISSIONS = 0o7777;

const ALL_SEALS = 0x3f;
const LARGEST_FILE = 2n ** 63n - 1n;
/** NAME_MAX without "memfd:" (mm/memfd.c). */
const LONGEST_NAME = 249;
const LINK = /^\/memfd:(.*) \(deleted\)$/s;

/** Its name, from the link to it in /proc; undefined: it is none. */
export function memfdName(link: string): string | undefined {
  return LINK.exec(link)?.[1];
}

/** The kernel has all memfds in one file system, but those of huge pages. */
let device: bigint | undefined;

/** HUGETLBFS_MAGIC of linux/magic.h */
const HUGE_PAGES = 0x958458f6n;
const PAGE_SIZE = 4096;

/** Whether it is a memfd with pages of the usual size. */
export function isPlainMemfd(
  { link, status: { dev } }: {
    readonly link: string;
    readonly status: Pick<FileStatus, "dev">;
  },
): boolean {
  return LINK.test(link) && dev === (device ??= deviceOfMemfds());
}

/**
 * Bytes of the pages of a file that is called like a memfd.
 *
 * @param path that leads to it
 * @returns undefined: it is none
 */
export function memfdPageSize(
  path: string,
  { dev }: Pick<FileStatus, "dev">,
): number | undefined {
  device ??= deviceOfMemfds();
  if (dev === device) return PAGE_SIZE;
  const { type, blockSize } = fileSystemOf(path);
  return type === HUGE_PAGES ? blockSize : undefined;
}

function deviceOfMemfds(): bigint {
  const name = terminated("ckpt");
  const MFD_CLOEXEC = 1n;
  const fd = Number(syscall("memfd_create", addressOf(name), MFD_CLOEXEC));
  try {
    return stat(fd).dev;
  } finally {
    close(fd);
  }
}

/** @param inodeId the number of the object in memfd.img */
export function dumpMemfd(
  id: number,
  inodeId: number,
  flags: number,
  pos: bigint,
  fown: fown_entry,
): memfd_file_entry {
  return { id, flags, pos, fown, inode_id: inodeId };
}

/**
 * @param id its number, also that of the shared memory with its content
 * @param name as {@link memfdName} gives it
 * @param pageSize as {@link memfdPageSize} gives it
 */
export function dumpMemfdObject(
  id: number,
  name: string,
  { uid, gid, size, mode }: FileStatus,
  seals: number,
  pageSize: number,
): memfd_inode_entry {
  return {
    name,
    uid,
    gid,
    size,
    shmid: id,
    seals,
    inode_id: BigInt(id),
    mode,
    hugetlb_flag: pageSize === PAGE_SIZE
      ? undefined
      : MFD_HUGETLB | Math.log2(pageSize) << HUGE_SHIFT,
  };
}

/** memfd_create(2): the size of pages as a power of two. */
const MFD_HUGETLB = 0x4;
const HUGE_SHIFT = 26;
const HUGE_MASK = 0x3f;

function hugePageSize(flag: number): number {
  return 2 ** (flag >>> HUGE_SHIFT & HUGE_MASK);
}

/** What memfd_create(2) is to be told for it, beside the other flags. */
export function hugePageFlags(
  { hugetlb_flag: flag }: Pick<memfd_inode_entry, "hugetlb_flag">,
): number {
  return flag === undefined ? 0 : (flag | MFD_HUGETLB) >>> 0;
}

/** What cannot be made again of an object; undefined: nothing. */
export function memfdProblem(
  { name, size, seals, mode, hugetlb_flag }: memfd_inode_entry,
): string | undefined {
  if (hugetlb_flag !== undefined) {
    const pageSize = hugePageSize(hugetlb_flag);
    if (pageSize <= PAGE_SIZE) {
      return `0x${hugetlb_flag.toString(16)} is no size of huge pages`;
    }
    if (size % BigInt(pageSize) !== 0n) {
      return `${size} bytes are no whole number of huge pages`;
    }
  }
  if (encodeText(name).length > LONGEST_NAME) {
    return "its name is longer than that of a memfd can be";
  }
  if (size > LARGEST_FILE) return `a file cannot have ${size} bytes`;
  if ((seals & ~ALL_SEALS) !== 0) {
    return `0x${seals.toString(16)} are no seals that ckpt knows`;
  }
  if (((mode ?? S_IF.REG) & ~PERMISSIONS) !== S_IF.REG) {
    return `0${mode!.toString(8)} is no mode of a regular file`;
  }
  return undefined;
}

/**
 * When each seal is set again: what the content or the mode may not be changed
 * by, when these are there; what would hinder mapping it for writing, as it is
 * mapped, and F_SEAL_SEAL, after that. (A memfd with F_SEAL_WRITE is mapped for
 * writing nowhere, and F_SEAL_EXEC may stand for all.)
 *
 * @returns undefined: it takes none, because it was made so
 */
export function sealSteps(
  seals: number,
): { filled: number; mapped: number } | undefined {
  if (seals === F_SEAL.seal) return undefined;
  const later = F_SEAL.seal |
    ((seals & F_SEAL.write) === 0 ? F_SEAL.futureWrite : 0);
  return { filled: seals & ~later, mapped: seals & later };
}
