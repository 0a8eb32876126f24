/**
 * Watches the files that an image depends on: image and file system are to be
 * of one moment. Two ways together: marks of fanotify(7) on each file, which
 * tell who has changed it (inotify(7) where the file system has none for it),
 * and a comparison of what stat(2) tells, which sees changes through mappings
 * and those of other hosts as well.
 */
import { EAGAIN, EINTR } from "../ffi/errno.ts";
import {
  addressOf,
  AT_FDCWD,
  close,
  type FileStatus,
  S_IF,
  stat,
  syscall,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { isSameFile, statusAt, statx } from "../ghost/calls.ts";
import { type DependedFile, isKept } from "./depended_files.ts";
import {
  FAN_EVENT,
  type FileEvent,
  handleKey,
  IN_EVENT,
  parseFanotify,
  parseInotify,
} from "./file_events.ts";

/** linux/fanotify.h */
const FAN_CLOEXEC = 0x1n;
const FAN_NONBLOCK = 0x2n;
const FAN_UNLIMITED_QUEUE = 0x10n;
const FAN_UNLIMITED_MARKS = 0x20n;
const FAN_REPORT_FID = 0x200n;
const FAN_MARK_ADD = 0x1n;
const FAN_MARK_DONT_FOLLOW = 0x4n;
const FAN_ONDIR = 0x40000000;
const IN_CLOEXEC = 0o2000000n;
const IN_NONBLOCK = 0o4000n;
const IN_DONT_FOLLOW = 0x02000000;

/** Something that happened to a file. */
export interface FileChange {
  readonly path: string;
  /** "modified by task 12 (rsync)" */
  readonly why: string;
}

interface Watched {
  /** As it was last looked at. */
  file: DependedFile;
  /** Undefined where its content does not matter. */
  modified: bigint | undefined;
}

export class FileWatch implements Disposable {
  readonly #files = new Map<string, Watched>();
  /** By handles of fanotify, and by descriptors of inotify's watches. */
  readonly #places = new Map<string | number, string>();
  #fanotify: number | undefined;
  #inotify: number | undefined;

  /** @param withFanotify false: as on a kernel that does not let us */
  constructor(withFanotify = true) {
    if (!withFanotify) return;
    try {
      this.#fanotify = Number(
        syscall(
          "fanotify_init",
          FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID | FAN_UNLIMITED_QUEUE |
            FAN_UNLIMITED_MARKS,
        ),
      );
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
    }
  }

  /** Begins to watch files, those that are watched already left out. */
  add(files: readonly DependedFile[]): void {
    for (const file of files) {
      const { at } = file;
      if (this.#files.has(at)) continue;
      if (!isKept(at)) continue;
      this.#files.set(at, { file, modified: undefined });
      if (!this.#mark(file)) this.#watch(file);
    }
  }

  /** What has happened up to now does not count. Files may be added later. */
  begin(): void {
    this.#events();
    for (const watched of this.#files.values()) note(watched);
  }

  /** @param files all that count, as they were seen standing still */
  addNow(files: readonly DependedFile[]): void {
    const before = new Set(this.#files.keys());
    this.add(files);
    for (const file of files) {
      const watched = this.#files.get(file.at);
      if (watched === undefined) continue;
      watched.file = file;
      if (!before.delete(file.at)) note(watched);
    }
    // What the tree let go of before it stood still.
    for (const at of before) this.#files.delete(at);
  }

  /** What has happened to the files since. */
  changes(): FileChange[] {
    const changes = new Map<string, FileChange>();
    for (const { at, pid, what } of this.#events()) {
      const watched = this.#files.get(at);
      if (watched === undefined || changes.has(at)) continue;
      const { path } = watched.file;
      changes.set(at, { path, why: `${what}${whoIs(pid)}` });
    }
    for (const [at, watched] of this.#files) {
      if (changes.has(at)) continue;
      const why = difference(watched);
      const { path } = watched.file;
      if (why !== undefined) changes.set(at, { path, why });
    }
    return [...changes.values()];
  }

  [Symbol.dispose](): void {
    for (const fd of [this.#fanotify, this.#inotify]) {
      if (fd !== undefined) close(fd);
    }
    this.#fanotify = this.#inotify = undefined;
  }

  /** @returns whether fanotify watches it now */
  #mark(file: DependedFile): boolean {
    const { at, isLink } = file;
    if (this.#fanotify === undefined || isLink) return false;
    const key = handleKey(at);
    if (key === undefined) return false;
    const path = terminated(encodeText(at));
    try {
      syscall(
        "fanotify_mark",
        BigInt(this.#fanotify),
        FAN_MARK_ADD | FAN_MARK_DONT_FOLLOW,
        BigInt(wanted(file, FAN_EVENT)) |
          (isDirectory(file.status) ? BigInt(FAN_ONDIR) : 0n),
        BigInt(AT_FDCWD),
        addressOf(path),
      );
    } catch (error) {
      if (error instanceof SyscallError) return false;
      throw error;
    }
    this.#places.set(key, at);
    return true;
  }

  #watch(file: DependedFile): void {
    const { at, isLink } = file;
    // Then it is only compared.
    if (isLink) return;
    try {
      this.#inotify ??= Number(
        syscall("inotify_init1", IN_CLOEXEC | IN_NONBLOCK),
      );
      const watch = syscallBuffer1(
        "inotify_add_watch",
        BigInt(this.#inotify),
        terminated(encodeText(at)),
        BigInt(wanted(file, IN_EVENT) | IN_DONT_FOLLOW),
      );
      this.#places.set(Number(watch), at);
    } catch (error) {
      // Too many watches, say: then it is only compared.
      if (!(error instanceof SyscallError)) throw error;
    }
  }

  #events(): (FileEvent & { at: string })[] {
    const all = [
      ...parts(this.#fanotify).flatMap(parseFanotify),
      ...parts(this.#inotify).flatMap(parseInotify),
    ];
    return all.flatMap((event) => {
      const at = this.#places.get(event.key);
      return at === undefined || event.pid === Deno.pid
        ? []
        : [{ ...event, at }];
    });
  }
}

const READ_BYTES = 65536;

/** All that can be read of a descriptor that does not block. */
function parts(fd: number | undefined): Uint8Array[] {
  const read: Uint8Array[] = [];
  if (fd === undefined) return read;
  for (;;) {
    const buffer = new Uint8Array(READ_BYTES);
    try {
      const length = Number(
        syscallBuffer1("read", BigInt(fd), buffer, BigInt(READ_BYTES)),
      );
      read.push(buffer.subarray(0, length));
    } catch (error) {
      if (!(error instanceof SyscallError)) throw error;
      if (error.errno === EINTR) continue;
      if (error.errno === EAGAIN) return read;
      throw error;
    }
  }
}

function isDirectory({ mode }: FileStatus): boolean {
  return (mode & S_IF.MT) === S_IF.DIR;
}

/** Of what only its place matters for, less is to be known. */
function wanted(
  { content }: DependedFile,
  bits: typeof FAN_EVENT | typeof IN_EVENT,
): number {
  const moved = bits.moveSelf | bits.deleteSelf;
  return content ? moved | bits.modify | bits.attrib : moved;
}

function note(watched: Watched): void {
  const { file: { at, content } } = watched;
  if (content) watched.modified = modifiedAt(at);
}

function modifiedAt(path: string): bigint | undefined {
  try {
    const { seconds, nanoseconds } = statx(path).modified;
    return seconds * 1_000_000_000n + BigInt(nanoseconds);
  } catch (error) {
    if (error instanceof SyscallError) return undefined;
    throw error;
  }
}

/** What stat(2) tells of the file now, that was otherwise. */
function difference({ file, modified }: Watched): string | undefined {
  const { at, isLink, status, content } = file;
  const now = isLink ? stat(at) : statusAt(at);
  if (now === undefined) return "it is not there any more";
  if (!isSameFile(now, status)) return "another file has its name";
  if (now.mode !== status.mode) return "its permissions were changed";
  if (!content) return undefined;
  return now.size !== status.size || modifiedAt(at) !== modified
    ? "it was modified"
    : undefined;
}

function whoIs(pid: number | undefined): string {
  if (pid === undefined || pid === 0) return "";
  try {
    const name = Deno.readTextFileSync(`/proc/${pid}/comm`).trim();
    return ` by task ${pid} (${name})`;
  } catch {
    return ` by task ${pid}, which has ended`;
  }
}
