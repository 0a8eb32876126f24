/**
 * Saves what the paths of files in use do not lead to: the content of those
 * without a name, a new link to those with an unknown one. While the tree
 * stands still, so that it is that of one moment.
 */
import { CkptError, EXIT } from "../error.ts";
import { EMLINK, ENOENT, EOPNOTSUPP, EPERM, EROFS } from "../ffi/errno.ts";
import {
  addressOf,
  close,
  O,
  open,
  pwrite,
  S_IF,
  syscallBuffer1,
  SyscallError,
  terminated,
} from "../ffi/syscall.ts";
import { decodeText, encodeText } from "../ffi/text.ts";
import { encodeImage } from "../image/framing.ts";
import type { ImageWriter } from "../image/image_writer.ts";
import { imageName } from "../image/kinds.ts";
import type {
  ckpt_ghost_entry,
  ghost_file_entry,
} from "../image/schema.gen.ts";
import { hasCapability } from "../proc/read.ts";
import type { Report } from "../report.ts";
import {
  hasInodeFlags,
  isOneOf,
  readInodeFlags,
  readProject,
  readXattrs,
} from "./attributes.ts";
import { fileSystemType, remedyForDenied, statusAt, statx } from "./calls.ts";
import {
  BLOCK,
  type ChunkedContent,
  copyRanges,
  dataSegments,
  mayShareBlocks,
  saveInChunks,
  type Segment,
  unwrittenSegments,
} from "./content.ts";
import {
  decideFate,
  DEFAULT_GHOST_LIMIT,
  type Fate,
  type FateOptions,
  formatBytes,
  ghost,
} from "./fate.ts";
import { FileMap } from "./file_map.ts";
import type { FilesInUse, LostFileInUse, UsedPath } from "./files_in_use.ts";
import {
  addExtension,
  belowMicroseconds,
  ghostEntry,
  SMALLEST_WITH_CHUNKS,
} from "./ghost_entry.ts";
import type { DumpLinks, ToLink } from "./links.ts";
import { isSmallFile, type NumberedFile, SmallFiles } from "./save_small.ts";

/** How the image says where a file is. */
export interface Place {
  /** The path for its entry in files.img. */
  readonly path: string;
  /** What is opened in its stead; undefined: the path leads to it. */
  readonly remap?:
    | { readonly ghost: number }
    | { readonly link: string };
}

/** Where files are that were looked at; the others are at their paths. */
export class SavedFiles {
  readonly places = new FileMap<Place>();
  /** What CRIU's images have no field for, by the number of the ghost. */
  readonly ghosts: ckpt_ghost_entry[] = [];
  /**
   * Fulfilled when the contents are copied, which happens beside what else is to
   * be done. They must not change until then.
   */
  copied: Promise<unknown> = Promise.resolve();
  /** Fulfilled when {@link ghosts} is complete. */
  described: Promise<unknown> = Promise.resolve();
  #small: SmallFiles | undefined;
  #written: Promise<void> = Promise.resolve();

  placeOf({ link, status }: UsedPath): Place {
    return this.places.get(status, link) ?? { path: link };
  }

  /** @param described fulfilled when `small` has been read */
  begin(small: SmallFiles, described: Promise<unknown>): void {
    this.#small = small;
    this.described = described;
  }

  /**
   * Begins to write what was only read until now: when the program goes on, if
   * it shall.
   */
  finish(): void {
    this.#written = this.described.then(() => this.#small?.write());
    this.#written.catch(() => {});
  }

  /** When all images are written, after {@link finish}; nothing else is to do. */
  async written(): Promise<void> {
    this.#small?.hurry();
    await this.#written;
  }

  /** When no small file is read or written any more; never throws. */
  async settle(): Promise<void> {
    await this.#small?.[Symbol.asyncDispose]();
  }
}

/**
 * @param small which has begun, if it expects any
 * @param links gets the links that are made
 * @throws CkptError when a file cannot be saved after all, naming it; those
 * that {@link decideFate} refuses are left out
 */
export function saveLostFiles(
  files: FilesInUse,
  options: FateOptions,
  small: SmallFiles,
  writer: ImageWriter,
  links: DumpLinks,
  report: Report,
): SavedFiles {
  const saved = new SavedFiles();
  const ghosts = new FileMap<number>();
  let count = small.expectedCount;
  const more: NumberedFile[] = [];
  const large: NumberedFile[] = [];
  const fates = files.lost.map((file) => ({
    file,
    fate: decideFate(file, options),
  }));
  const linked = linkFiles(fates, links, report);
  for (const { file, fate } of fates) {
    const { status, link } = file;
    if (fate.kind === "refused") continue;
    const { path } = fate;
    if (fate.kind === "elsewhere") {
      saved.places.set(status, { path }, link);
      continue;
    }
    if (fate.kind === "link") {
      const name = linked.get(status);
      if (name !== undefined) {
        saved.places.set(status, { path, remap: { link: name } }, link);
        continue;
      }
      refuseTooLarge(file, path, options);
    }
    let id = (isSmallFile(file) ? small.take(file) : undefined) ??
      ghosts.get(status);
    if (id === undefined) {
      id = ++count;
      ghosts.set(status, id);
      (isSmallFile(file) ? more : large).push({ id, file });
      report.log(
        4,
        () => `saving ${describe(file)}, ${formatBytes(file.allocated)}`,
      );
    }
    saved.places.set(status, { path, remap: { ghost: id } }, link);
  }
  const save = (some: readonly NumberedFile[]) =>
    some.flatMap(({ id, file }) => saveGhost(id, file, writer, saved) ?? []);
  const copying = copyAll(save(large), report);
  noteParents(large, ghosts, saved.ghosts);
  // The others of them have holes, attributes, ...
  const reading = small.read(more, saved.ghosts).then(save);
  saved.begin(small, reading);
  saved.copied = Promise.all([
    copying,
    reading.then((copies) => copyAll(copies, report)),
  ]);
  // Who waits for it is told.
  saved.copied.catch(() => {});
  return saved;
}

/** Of a file that was to be linked and cannot be. */
function refuseTooLarge(
  file: LostFileInUse,
  path: string,
  { ghostLimit = DEFAULT_GHOST_LIMIT }: FateOptions,
): void {
  const fate = ghost(file, path, ghostLimit);
  if (fate.kind !== "refused") return;
  throw new CkptError(EXIT.refused, "saving deleted files", [{
    object: describe(file),
    ...fate,
  }]);
}

/** Which directories are in others of these. */
function noteParents(
  files: readonly NumberedFile[],
  ghosts: FileMap<number>,
  extensions: ckpt_ghost_entry[],
): void {
  for (const { id, file: { at, status } } of files) {
    if ((status.mode & S_IF.MT) !== S_IF.DIR) continue;
    const above = statusAt(`${at}/..`);
    const parent = above && ghosts.get(above);
    if (parent === undefined) continue;
    const known = extensions.find(({ ghost_id }) => ghost_id === id);
    if (known !== undefined) known.parent = parent;
    else extensions.push({ ghost_id: id, xattrs: [], allocated: [], parent });
  }
}

/** "descriptor 5 (/tmp/x (deleted)) of task 12" */
export function describe(
  { link, holder, task }: Pick<LostFileInUse, "link" | "holder" | "task">,
): string {
  return `${holder} (${link}) of task ${task}`;
}

/** The names that files get; those that get none are left out. */
function linkFiles(
  fates: readonly { file: LostFileInUse; fate: Fate }[],
  links: DumpLinks,
  report: Report,
): FileMap<string> {
  const wanted = new FileMap<ToLink & { file: LostFileInUse }>();
  for (const { file, fate } of fates) {
    if (fate.kind !== "link") continue;
    const { at, status, way } = file;
    if (wanted.get(status) !== undefined) continue;
    wanted.set(status, { at, path: fate.path, status, way, file });
  }
  const linked = new FileMap<string>();
  if (wanted.size === 0) return linked;
  const all = wanted.values();
  const done = links.add(all);
  for (const [i, { file }] of all.entries()) {
    const link = done[i];
    if (typeof link === "string") linked.set(file.status, link);
    else judgeFailure(file, link, report);
  }
  return linked;
}

/** The file system knows no links, or the file has no name left; or throws. */
function judgeFailure(
  file: LostFileInUse,
  error: SyscallError,
  report: Report,
): void {
  if (error.errno === ENOENT && file.mayHaveNoName) return;
  const capable = hasCapability("CAP_FOWNER") &&
    hasCapability("CAP_DAC_OVERRIDE");
  if (isOneOf(error, EPERM, EOPNOTSUPP) && capable) {
    report.log(
      2,
      `${describe(file)}: it cannot be linked (${error.message}), so its ` +
        "content is saved; later writes will not reach its other names",
    );
    return;
  }
  const exit = capable ? EXIT.failed : EXIT.permission;
  throw new CkptError(exit, "linking deleted files", [{
    object: describe(file),
    why: error.message,
    remedy: capable
      ? remedyFor(error)
      : "ckpt needs the capabilities CAP_FOWNER and CAP_DAC_OVERRIDE",
  }], { cause: error });
}

function remedyFor(error: SyscallError): string | undefined {
  if (isOneOf(error, EMLINK)) return "remove one of its other names";
  if (!isOneOf(error, EROFS)) return undefined;
  return "mount its file system for writing while ckpt dumps, and restores";
}

/** Content that is still to be copied. */
interface Copy {
  readonly file: LostFileInUse;
  readonly image: string;
  readonly content: ChunkedContent;
  /** Whether it is in chunks, else in one piece. */
  readonly chunks: boolean;
  /** Is told what was allocated and not written. */
  readonly note: (unwritten: readonly Segment[]) => void;
}

async function copyAll(copies: readonly Copy[], report: Report): Promise<void> {
  for (const { file, image, content, chunks, note } of copies) {
    const fds: number[] = [];
    try {
      fds.push(open(encodeText(file.at), O.RDONLY | O.NOATIME));
      fds.push(open(encodeText(image), O.WRONLY));
      const step = `saving ${file.link} (bytes)`;
      const { size, position: to, allocated } = content;
      let needed = Math.ceil(size / BLOCK) * BLOCK;
      if (chunks) {
        needed = await saveInChunks(fds[0], fds[1], content, step, report);
      } else {
        const whole = { from: 0, to, length: size };
        await copyRanges(fds[0], fds[1], [whole], step, report);
      }
      note(unwrittenOf(fds[0], size, allocated, needed));
    } catch (error) {
      throw notSaved(file, error);
    } finally {
      for (const fd of fds) close(fd);
    }
  }
}

/**
 * What takes space and was not written, if the file takes more than its data
 * need; else it may be what the file system keeps about it.
 *
 * @param needed bytes of blocks
 */
function unwrittenOf(
  fd: number,
  size: number,
  allocated: number,
  needed: number,
): Segment[] {
  return allocated > needed
    ? unwrittenSegments(fd, size, BigInt(allocated))
    : [];
}

function notSaved(file: LostFileInUse, error: unknown): unknown {
  if (!(error instanceof SyscallError)) return error;
  return new CkptError(EXIT.failed, "saving deleted files", [{
    object: describe(file),
    why: error.message,
    remedy: remedyForDenied(error),
  }], { cause: error });
}

/** @returns what of it is still to be copied */
function saveGhost(
  id: number,
  file: LostFileInUse,
  writer: ImageWriter,
  saved: SavedFiles,
): Copy | undefined {
  const { at, status } = file;
  const times = statx(at);
  const type = status.mode & S_IF.MT;
  const xattrs = readXattrs(at);
  const regular = type === S_IF.REG;
  const content = hasInodeFlags(status)
    ? open(encodeText(at), O.RDONLY | O.NOATIME | O.NONBLOCK)
    : undefined;
  try {
    const size = Number(status.size);
    const chunks = regular && (size >= SMALLEST_WITH_CHUNKS ||
      !isWhole(dataSegments(content!, size), size));
    const special = type === S_IF.CHR || type === S_IF.BLK;
    const entry: ghost_file_entry = {
      ...ghostEntry(status, times),
      rdev: special ? Number(BigInt.asUintN(32, status.rdev)) : undefined,
      chunks: chunks || undefined,
      size: chunks ? status.size : undefined,
      symlnk_target: type === S_IF.LNK ? targetOf(at) : undefined,
    };
    const path = writer.createRaw(imageName("ghost-file", id));
    const isAligned = mayShareBlocks(fileSystemType(path), file.fileSystem);
    const head = encodeImage("ghost-file", entry);
    const image = open(encodeText(path), O.WRONLY);
    try {
      pwrite(image, Uint8Array.from(head), 0n);
    } finally {
      close(image);
    }
    const extension = {
      ghost_id: id,
      xattrs,
      inode_flags: content === undefined
        ? undefined
        : readInodeFlags(content) || undefined,
      project: content === undefined
        ? undefined
        : readProject(content) || undefined,
      ...belowMicroseconds(times),
    };
    const note = (unwritten: readonly Segment[]) =>
      addExtension(saved.ghosts, {
        ...extension,
        allocated: unwritten.map(({ offset, length }) => ({
          start: BigInt(offset),
          end: BigInt(offset + length),
        })),
      });
    const allocated = Number(times.allocated);
    if (!regular || size === 0) {
      note(regular ? unwrittenOf(content!, size, allocated, 0) : []);
      return undefined;
    }
    const position = head.length;
    return {
      file,
      image: path,
      content: { size, allocated, position, isAligned },
      chunks,
      note,
    };
  } catch (error) {
    throw notSaved(file, error);
  } finally {
    if (content !== undefined) close(content);
  }
}

function isWhole(segments: readonly Segment[], size: number): boolean {
  if (size === 0) return true;
  const [first] = segments;
  return first?.offset === 0 && first.length === size;
}

const PATH_MAX = 4096;

/** What a symbolic link says that only a magic link leads to. */
function targetOf(at: string): string {
  const fd = open(encodeText(at), O.PATH);
  try {
    const buffer = new Uint8Array(PATH_MAX);
    const length = syscallBuffer1(
      "readlinkat",
      BigInt(fd),
      terminated(""),
      addressOf(buffer),
      BigInt(PATH_MAX),
    );
    return decodeText(buffer.subarray(0, Number(length)));
  } finally {
    close(fd);
  }
}
