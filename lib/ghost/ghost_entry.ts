/** What an image tells of a file without a name, beside its content. */
import type { FileStatus } from "../ffi/syscall.ts";
import type {
  ckpt_ghost_entry,
  ghost_file_entry,
} from "../image/schema.gen.ts";
import type { ExtendedStatus } from "./calls.ts";

/** Below this CRIU reads the content as one piece. */
export const SMALLEST_WITH_CHUNKS = 12288;

/** Nanoseconds. */
export const MICROSECOND = 1000;

type Times = Pick<ExtendedStatus, "accessed" | "modified">;

/** What is the same for files of every type. */
export function ghostEntry(
  { uid, gid, mode, dev, ino }: FileStatus,
  { accessed, modified }: Times,
): ghost_file_entry {
  return {
    uid,
    gid,
    mode,
    dev: Number(BigInt.asUintN(32, dev)),
    ino,
    atim: timeval(accessed),
    mtim: timeval(modified),
  };
}

function timeval(
  { seconds, nanoseconds }: { seconds: bigint; nanoseconds: number },
): { tv_sec: bigint; tv_usec: bigint } {
  return {
    tv_sec: BigInt.asUintN(64, seconds),
    tv_usec: BigInt(Math.floor(nanoseconds / MICROSECOND)),
  };
}

/** The rest of the times, which CRIU's message has no field for. */
export function belowMicroseconds(
  { accessed, modified }: Times,
): Pick<ckpt_ghost_entry, "atime_ns" | "mtime_ns"> {
  return {
    atime_ns: accessed.nanoseconds % MICROSECOND || undefined,
    mtime_ns: modified.nanoseconds % MICROSECOND || undefined,
  };
}

/** Adds what CRIU's message has no field for, where there is any. */
export function addExtension(
  all: ckpt_ghost_entry[],
  extension: ckpt_ghost_entry,
): void {
  const { xattrs, allocated, inode_flags, atime_ns, mtime_ns, project } =
    extension;
  if (
    xattrs.length > 0 || allocated.length > 0 || inode_flags !== undefined ||
    atime_ns !== undefined || mtime_ns !== undefined || project !== undefined
  ) all.push(extension);
}
