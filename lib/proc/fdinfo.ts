/**
 * `/proc/PID/fdinfo/N` (proc_pid_fdinfo(5); seq_show in fs/proc/fd.c).
 */
import { lines } from "./lines.ts";
import { malformed, type Place } from "./malformed.ts";
import { decimal, decimalBigint, octal } from "./numbers.ts";

export interface FdInfo {
  /** File position; needs 64 bits for files such as /proc/PID/mem. */
  readonly pos: bigint;
  /** O_* flags of the open file, and O_CLOEXEC of the descriptor. */
  readonly flags: number;
  readonly mntId: number;
  /** Inode number as the kernel holds it; since 5.14. */
  readonly ino: bigint | undefined;
  /**
   * What follows each "lock:\t": the file locks held through this open file
   * and, for POSIX locks, by this process on the same file.
   */
  readonly locks: readonly string[];
  /** All further lines as they are: what the kind of file tells of itself. */
  readonly extra: readonly string[];
}

const LOCK_PREFIX = "lock:\t";
const SIGNED = /^-?[0-9]{1,19}$/;

/** Parses the whole of one fdinfo file. */
export function parseFdInfo(text: string, source = "fdinfo"): FdInfo {
  const all = [...lines(text, source)];
  const head = (index: number, key: string): Place => {
    const place = all[index];
    if (place === undefined || !place.text.startsWith(`${key}:\t`)) {
      throw malformed(
        place ?? { source, line: index + 1, text: "" },
        `expected "${key}:"`,
      );
    }
    return { ...place, text: place.text.slice(key.length + 2) };
  };

  const pos = head(0, "pos");
  if (!SIGNED.test(pos.text)) throw malformed(pos, "expected a file position");
  const flags = head(1, "flags");
  const mntId = head(2, "mnt_id");
  const hasIno = all[3]?.text.startsWith("ino:\t") ?? false;
  const ino = hasIno ? head(3, "ino") : undefined;

  const rest = all.slice(hasIno ? 4 : 3).map((place) => place.text);
  return {
    pos: BigInt(pos.text),
    flags: octal(flags.text, flags),
    mntId: decimal(mntId.text, mntId),
    ino: ino === undefined ? undefined : decimalBigint(ino.text, ino),
    locks: rest.filter((line) => line.startsWith(LOCK_PREFIX))
      .map((line) => line.slice(LOCK_PREFIX.length)),
    extra: rest.filter((line) => !line.startsWith(LOCK_PREFIX)),
  };
}
