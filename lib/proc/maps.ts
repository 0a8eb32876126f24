/**
 * `/proc/PID/maps`, and the line that begins each record of
 * `/proc/PID/smaps` (proc_pid_maps(5); show_map_vma in fs/proc/task_mmu.c).
 */
import { unescapeNewline } from "./escape.ts";
import { malformed } from "./malformed.ts";

/** Bits of {@linkcode Mapping.prot}, as mmap(2) takes them. */
export const PROT = { read: 1, write: 2, exec: 4 } as const;

export interface Mapping {
  /**
   * First address and the address after the last. Both are multiples of the
   * page size, which keeps a Number exact over all 64 bits: also for
   * `[vsyscall]` at 0xffffffffff600000.
   */
  readonly start: number;
  readonly end: number;
  /** PROT_* bits. */
  readonly prot: number;
  /** MAP_SHARED (`s`) or MAP_PRIVATE (`p`). */
  readonly shared: boolean;
  /** Offset in the file in bytes; exact for the same reason as `start`. */
  readonly offset: number;
  /**
   * Device of the file's superblock. On btrfs and overlayfs it is not the
   * device that stat(2) gives.
   */
  readonly major: number;
  readonly minor: number;
  /**
   * Inode number; needs all 64 bits. 0n when no file is mapped, but also for
   * the System V segment with the id 0.
   */
  readonly inode: bigint;
  /**
   * A path, a name of the kernel's such as `[heap]`, `[anon:x]` or
   * `anon_inode:[perf_event]`, or "" when there is none. Names in brackets
   * are never files: a path begins with a slash. The text is kept whole,
   * with " (deleted)"; `\012` is a newline again (see `unescapeNewline` for
   * what this cannot tell apart).
   */
  readonly path: string;
  /**
   * The path ends in " (deleted)". The kernel adds this to the path of a
   * file that was unlinked, but a living file may be called so too: false is
   * certain, true is not. Only an inode comparison decides.
   */
  readonly deletedMark: boolean;
}

export const DELETED_MARK = " (deleted)";

/** Parses the whole of maps; an empty text (no memory) gives no mappings. */
export function parseMaps(text: string, source = "maps"): Mapping[] {
  const mappings: Mapping[] = [];
  let from = 0;
  for (let line = 1; from < text.length; line++) {
    let to = text.indexOf("\n", from);
    if (to < 0) to = text.length;
    mappings.push(parseMapping(text, from, to, source, line));
    from = to + 1;
  }
  return mappings;
}

/**
 * Parses one line `text[from..to)`:
 * `START-END rwxp OFFSET MAJOR:MINOR INODE   PATH`.
 */
export function parseMapping(
  text: string,
  from: number,
  to: number,
  source: string,
  line: number,
): Mapping {
  const fail = (why: string) =>
    malformed({ source, line, text: text.slice(from, to) }, why);

  const startEnd = endOfHex(text, from, to);
  const endEnd = endOfHex(text, startEnd + 1, to);
  if (
    !isPageNumber(text, from, startEnd) || text.charCodeAt(startEnd) !== DASH ||
    !isPageNumber(text, startEnd + 1, endEnd)
  ) {
    throw fail("expected a range of page-aligned addresses");
  }
  const start = hexValue(text, from, startEnd);
  const end = hexValue(text, startEnd + 1, endEnd);
  if (start >= end) throw fail("the range ends before it starts");

  let at = endEnd;
  const prot = permission(text, at + 1, LETTER_R, PROT.read) +
    permission(text, at + 2, LETTER_W, PROT.write) +
    permission(text, at + 3, LETTER_X, PROT.exec);
  const sharing = text.charCodeAt(at + 4);
  if (
    text.charCodeAt(at) !== SPACE || prot !== prot ||
    (sharing !== LETTER_S && sharing !== LETTER_P) ||
    text.charCodeAt(at + 5) !== SPACE
  ) {
    throw fail("expected permissions such as r-xp after the range");
  }

  at += 6;
  const offsetEnd = endOfHex(text, at, to);
  if (
    !isPageNumber(text, at, offsetEnd) || text.charCodeAt(offsetEnd) !== SPACE
  ) {
    throw fail("expected a page-aligned offset");
  }
  const offset = hexValue(text, at, offsetEnd);

  at = offsetEnd + 1;
  const majorEnd = endOfHex(text, at, to);
  const minorEnd = endOfHex(text, majorEnd + 1, to);
  // dev_t has 12 bits for the major and 20 for the minor number.
  if (
    majorEnd === at || majorEnd - at > 3 ||
    text.charCodeAt(majorEnd) !== COLON ||
    minorEnd <= majorEnd + 1 || minorEnd - majorEnd > 6 ||
    text.charCodeAt(minorEnd) !== SPACE
  ) {
    throw fail("expected a device such as fe:00");
  }
  const major = hexValue(text, at, majorEnd);
  const minor = hexValue(text, majorEnd + 1, minorEnd);

  at = minorEnd + 1;
  let inodeEnd = at;
  while (inodeEnd < to && isDigit(text.charCodeAt(inodeEnd))) inodeEnd++;
  if (
    inodeEnd === at || inodeEnd - at > 20 ||
    (inodeEnd < to && text.charCodeAt(inodeEnd) !== SPACE)
  ) {
    throw fail("expected an inode number");
  }
  const inode = inodeEnd === at + 1 && text.charCodeAt(at) === ZERO
    ? 0n
    : BigInt(text.slice(at, inodeEnd));

  // The name is padded to a column; no name begins with a space.
  at = inodeEnd;
  while (at < to && text.charCodeAt(at) === SPACE) at++;
  const path = at < to ? unescapeNewline(text.slice(at, to)) : "";
  return {
    start,
    end,
    prot,
    shared: sharing === LETTER_S,
    offset,
    major,
    minor,
    inode,
    path,
    deletedMark: path.endsWith(DELETED_MARK),
  };
}

const SPACE = 32;
const DASH = 45;
const ZERO = 48;
const COLON = 58;
const LETTER_P = 112;
const LETTER_R = 114;
const LETTER_S = 115;
const LETTER_W = 119;
const LETTER_X = 120;

function isDigit(code: number): boolean {
  return code >= 48 && code <= 57;
}

function endOfHex(text: string, from: number, to: number): number {
  let at = from;
  while (at < to) {
    const code = text.charCodeAt(at);
    if (!(code >= 48 && code <= 57) && !(code >= 97 && code <= 102)) break;
    at++;
  }
  return at;
}

/** At most 64 bits of which the low twelve are zero. */
function isPageNumber(text: string, from: number, to: number): boolean {
  const length = to - from;
  return length >= 3 && length <= 16 &&
    text.charCodeAt(to - 1) === ZERO && text.charCodeAt(to - 2) === ZERO &&
    text.charCodeAt(to - 3) === ZERO;
}

function hexValue(text: string, from: number, to: number): number {
  let value = 0;
  for (let at = from; at < to; at++) {
    const code = text.charCodeAt(at);
    value = value * 16 + (code <= 57 ? code - 48 : code - 87);
  }
  return value;
}

/** The bit, 0, or NaN when the letter is neither itself nor a dash. */
function permission(
  text: string,
  at: number,
  letter: number,
  bit: number,
): number {
  const code = text.charCodeAt(at);
  return code === letter ? bit : code === DASH ? 0 : NaN;
}
