/**
 * Decides what becomes of a file in use whose path does not lead to it any
 * more. Pure; the one place where that is decided:
 *
 *   a path that leads to it   names left   consent        fate
 *   known                     -            -              elsewhere: opened by it
 *   none                      none         -              ghost: content is saved
 *   none known                some         --link-remap   link: gets a name again
 *   none known                some         none           refused, naming the option
 *
 * That its path may be taken by another file changes nothing here. A directory
 * has one name only, whatever its link count says.
 */
import { type FileStatus, S_IF } from "../ffi/syscall.ts";
import { DELETED_MARK } from "../proc/maps.ts";

/** A file in use that opening its path would not give. */
export interface LostFile {
  /** What the link to it in /proc shows. */
  readonly link: string;
  readonly status: FileStatus;
  /** Bytes it takes on its file system. */
  readonly allocated: bigint;
  /** statfs.f_type. */
  readonly fileSystem: bigint;
  /** Whether its directory can be reached by its path on the same mount. */
  readonly mount: "reached" | "covered" | "gone";
  /** A living name that leads to it. */
  readonly otherName: string | undefined;
  /**
   * Whether its link count may be one that it has elsewhere (overlayfs), so that
   * it has no name in truth.
   */
  readonly mayHaveNoName: boolean;
  /** Whether someone in the tree can write to it. */
  readonly written: boolean;
  /** Whether no link can be made, or not one that ckpt clean could remove. */
  readonly isPrivate?: boolean;
}

export interface FateOptions {
  /** Consent to links in the file systems of the program. */
  linkRemap?: boolean;
  /** How many bytes one ghost may take on its file system. */
  ghostLimit?: bigint;
}

/** `path`: the one it had, without the kernel's mark. */
export type Fate =
  | { readonly kind: "ghost" | "link" | "elsewhere"; readonly path: string }
  | Refusal;

export interface Refusal {
  readonly kind: "refused";
  readonly why: string;
  readonly remedy?: string;
  /** The option that would make it saveable. */
  readonly option?: string;
}

export const DEFAULT_GHOST_LIMIT = 1n << 30n;

/** linux/magic.h */
export const NFS = 0x6969n;
/** Not of Linux itself: linux/magic.h of its own. */
export const AUFS = 0x61756673n;
/** File systems whose files are made by the kernel, not by who writes them. */
const OF_THE_KERNEL: ReadonlyMap<bigint, string> = new Map([
  [0x9fa0n, "proc"],
  [0x62656572n, "sysfs"],
  [0x27e0ebn, "cgroup"],
  [0x63677270n, "cgroup2"],
  [0x64626720n, "debugfs"],
  [0x74726163n, "tracefs"],
  [0x73636673n, "securityfs"],
  [0xcafe4a11n, "bpf"],
  [0x1cd1n, "devpts"],
  [0x19800202n, "mqueue"],
]);

/** @param fileSystem statfs.f_type */
export function isOfTheKernel(fileSystem: bigint): boolean {
  return OF_THE_KERNEL.has(fileSystem);
}

/** Names by which NFS keeps what was deleted while in use. */
const SILLY_NAME = /\/\.nfs[0-9a-f]{24}$/;

export function isSillyName(link: string): boolean {
  return SILLY_NAME.test(link);
}

/** Names that dumps make; they go when their images do. */
const LINK_NAME = /\/(link_remap\.\d+|unlink-at-restart-[0-9a-f]{8,}-\d+)$/;

export function isLinkName(path: string): boolean {
  return LINK_NAME.test(path);
}

/** @param stamp seconds since 1970; with it the name says what it is for */
export function linkName(number: number, stamp?: number): string {
  return stamp === undefined
    ? `link_remap.${number}`
    : `unlink-at-restart-${stamp.toString(16).padStart(8, "0")}-${number}`;
}

export function decideFate(
  file: LostFile,
  { linkRemap = false, ghostLimit = DEFAULT_GHOST_LIMIT }: FateOptions,
): Fate {
  const kernel = OF_THE_KERNEL.get(file.fileSystem);
  if (kernel !== undefined) {
    return refused(
      `its path leads nowhere any more, and ckpt cannot make files of ${kernel}`,
    );
  }
  // Mapped files are those of its branches, and which is which it alone knows.
  if (file.fileSystem === AUFS) {
    return {
      kind: "refused",
      why: "it is on AUFS, and ckpt cannot tell which of its files it is",
      remedy: "use overlayfs, which every Linux has, in its stead",
    };
  }
  if (file.otherName !== undefined) {
    return { kind: "elsewhere", path: file.otherName };
  }
  if (file.mount !== "reached") {
    return refused(
      file.mount === "gone"
        ? "its mount is not among those of ckpt (it was unmounted)"
        : "something else is mounted over its path",
    );
  }
  const path = withoutMark(file.link);
  if (namesLeft(file) <= 0n) return ghost(file, path, ghostLimit);
  if (file.isPrivate) {
    return refused(
      "its path leads to it no more, but another name does, which ckpt could " +
        "not find; no link can be made, or only where ckpt clean does not see it",
    );
  }
  if (linkRemap) return { kind: "link", path };
  // A file that overlayfs had from a lower layer keeps the link count it has
  // there; nobody who can only read it would see that it is another one.
  if (file.mayHaveNoName && !file.written) {
    return ghost(file, path, ghostLimit);
  }
  const { nlink } = file.status;
  return {
    kind: "refused",
    why: `its path leads to it no more, but ${
      nlink === 1n ? "it has another name" : `${nlink} other names do`
    }, which ckpt could not find`,
    remedy:
      "give --link-remap: ckpt links it beside the path it had; restore " +
      "opens it there, and ckpt clean removes the link",
    option: "--link-remap",
  };
}

function namesLeft({ status, fileSystem, link }: LostFile): bigint {
  if ((status.mode & S_IF.MT) === S_IF.DIR) return 0n;
  const silly = fileSystem === NFS && isSillyName(link);
  return status.nlink - (silly ? 1n : 0n);
}

/** What linking a file failed for, which has no name in truth, leads to. */
export function ghost(
  { status, allocated }: Pick<LostFile, "status" | "allocated">,
  path: string,
  limit: bigint,
): Fate {
  if ((status.mode & S_IF.MT) === S_IF.REG && allocated > limit) {
    return {
      kind: "refused",
      why: `it was deleted while in use, and its ${
        formatBytes(allocated)
      } of content are more than the limit of ${formatBytes(limit)}`,
      remedy: `give --ghost-limit ${formatLimit(allocated)}, or more`,
      option: `--ghost-limit ${formatLimit(allocated)}`,
    };
  }
  return { kind: "ghost", path };
}

function refused(why: string): Refusal {
  return { kind: "refused", why };
}

/** The path that a link shows, without the kernel's " (deleted)". */
export function withoutMark(link: string): string {
  return link.endsWith(DELETED_MARK)
    ? link.slice(0, -DELETED_MARK.length)
    : link;
}

const MIB = 1n << 20n;

/** The lowest whole number of MiB that is enough, as --ghost-limit takes it. */
function formatLimit(bytes: bigint): string {
  return `${(bytes + MIB - 1n) / MIB}M`;
}

/** "4096 bytes", "12 MiB" */
export function formatBytes(bytes: bigint): string {
  return bytes < MIB ? `${bytes} bytes` : `${formatWhole(bytes)} MiB`;
}

function formatWhole(bytes: bigint): string {
  const tenths = (bytes * 10n + MIB - 1n) / MIB;
  return tenths % 10n === 0n
    ? `${tenths / 10n}`
    : `${tenths / 10n}.${tenths % 10n}`;
}
