/**
 * Whether the files of this host are those that an image was made with; before
 * any process exists.
 */
import { CkptError, EXIT, type Reason } from "../error.ts";
import { EACCES } from "../ffi/errno.ts";
import {
  close,
  type FileStatus,
  lstat,
  O,
  open,
  S_IF,
  stat,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeText } from "../ffi/text.ts";
import { packBuildId, readBuildId } from "../ghost/build_id.ts";
import { statx } from "../ghost/calls.ts";
import { missingLinks, unmakeable } from "../ghost/make.ts";
import type { CloneMount } from "../ghost/names.ts";
import {
  findDifference,
  type FoundFile,
  nanoseconds,
  type RecordedFile,
  unrecordedMethods,
  VALIDATION_METHODS,
  type ValidationMethod,
} from "../ghost/validation.ts";
import { fd_types, type reg_file_entry } from "../image/schema.gen.ts";
import type { TreeImages } from "./task_images.ts";

interface Recorded extends RecordedFile {
  readonly entry: reg_file_entry;
  /** A name that a dump gave the file: a symbolic link is the file itself. */
  readonly isLink: boolean;
}

/**
 * @param replaced ids of files for which ckpt was given a descriptor
 * @param methods what files are compared by; all that was recorded unless given
 * @param wayTo how ckpt gets at a file; undefined: it is not there yet
 * @param clone see unmakeable
 * @param isPutBack whether snapshots are in the place of their subvolumes
 * @throws CkptError when the image has nothing for one of them
 */
export async function changedFiles(
  images: Pick<TreeImages, "set" | "files" | "remaps">,
  replaced: ReadonlySet<number>,
  methods?: readonly ValidationMethod[],
  wayTo: (entry: reg_file_entry) => string | undefined = ({ name }) => name,
  clone?: CloneMount,
  isPutBack = false,
): Promise<Reason[]> {
  const { set, files, remaps } = images;
  const reasons = [
    ...missingLinks(remaps, wayTo),
    ...unmakeable(remaps, files, wayTo, clone),
  ];
  const gone = new Set(reasons.map(({ object }) => object));
  const extensions = new Map(
    (set.read("ckpt-files", undefined) ?? []).map((extension) =>
      [extension.id, extension] as const
    ),
  );
  // They are made by ckpt, or given to it.
  const terminals = new Set(
    [...files.values()].map(({ tty }) => tty?.regf_id),
  );
  const objects = new Set([
    ...(set.read("ckpt-queues", undefined) ?? []).flatMap(({ files }) => files),
    ...(set.read("ckpt-rings", undefined) ?? []).map(({ id }) => id),
  ]);
  const links = new Set(
    [...remaps.values()].map((remap) =>
      remap.kind === "link" ? remap.link.id : undefined
    ),
  );
  const recorded: Recorded[] = [];
  for (const { id, type, reg } of files.values()) {
    if (
      type !== fd_types.REG || replaced.has(id) || remaps.has(id) ||
      terminals.has(id) || objects.has(id) ||
      gone.has(objectOf(reg!))
    ) continue;
    const extension = extensions.get(id);
    recorded.push({ entry: reg!, extension, isLink: links.has(id) });
  }
  if (methods !== undefined) refuseUnrecorded(methods, recorded);
  const compared = new Set<ValidationMethod>(methods ?? VALIDATION_METHODS);
  if (compared.size > 0) compared.add("filesize");
  const subvolumes = isPutBack
    ? []
    : (set.read("ckpt-snapshots", undefined) ?? []).map(({ subvolume }) =>
      subvolume
    );
  // A program, its mappings and its descriptors are entries of their own.
  const told = new Set<string>();
  const found = new Map<string, FoundFile | SyscallError>();
  for (const one of recorded) {
    const object = objectOf(one.entry);
    if (told.has(object)) continue;
    const way = wayTo(one.entry);
    if (way === undefined) continue;
    const why = await whyChanged(one, way, found, compared);
    if (why === undefined) continue;
    told.add(object);
    const { name } = one.entry;
    const isSaved = subvolumes.some((path) => name.startsWith(`${path}/`));
    reasons.push({
      object,
      ...why,
      remedy: isSaved
        ? `give --from-snapshot: that is as it was at the dump; or ${why.remedy}`
        : why.remedy,
    });
  }
  return reasons;
}

function objectOf({ name }: reg_file_entry): string {
  return `file ${name}`;
}

function refuseUnrecorded(
  methods: readonly ValidationMethod[],
  recorded: readonly RecordedFile[],
): void {
  const unknown = unrecordedMethods(methods, recorded);
  if (unknown.length === 0) return;
  throw new CkptError(
    EXIT.refused,
    "comparing files with the image",
    unknown.map((method) => ({
      object: `--file-validation ${method}`,
      why: "the image has nothing to compare by this",
      remedy:
        `leave it out; a dump with --file-validation ${method} records it`,
    })),
  );
}

async function whyChanged(
  { entry, extension, isLink }: Recorded,
  way: string,
  found: Map<string, FoundFile | SyscallError>,
  methods: ReadonlySet<ValidationMethod>,
): Promise<Omit<Reason, "object"> | undefined> {
  const { name, flags } = entry;
  if (entry.ext) {
    return {
      why: "the program got it from outside",
      remedy: `give it: --inherit-fd fd[N]:${name}`,
    };
  }
  const follow = (flags & O.NOFOLLOW) === 0 && !isLink;
  const key = `${follow} ${way}`;
  const file = found.get(key) ?? lookAtFile(way, follow);
  found.set(key, file);
  if (file instanceof SyscallError) {
    // A file of the process itself, below /proc, comes with it.
    if (name.startsWith("/proc/")) return undefined;
    return { why: file.message, remedy: remedyFor(file) };
  }
  try {
    return await findDifference({ entry, extension }, file, methods);
  } catch (error) {
    if (!(error instanceof SyscallError)) throw error;
    return { why: error.message, remedy: remedyFor(error) };
  }
}

function remedyFor({ errno }: SyscallError): string {
  return errno === EACCES
    ? "ckpt needs the capability CAP_DAC_READ_SEARCH to get at it"
    : "put it back where it was at the dump";
}

function lookAtFile(name: string, follow: boolean): FoundFile | SyscallError {
  const path = encodeText(name);
  let status: FileStatus;
  try {
    status = follow ? stat(path) : lstat(path);
  } catch (error) {
    if (error instanceof SyscallError) return error;
    throw error;
  }
  // Others might wait when they are opened, or act.
  const regular = (status.mode & S_IF.MT) === S_IF.REG;
  let buildId: readonly number[] | undefined;
  const digests = new Map<number, Uint8Array>();
  return {
    mode: status.mode,
    size: status.size,
    device: status.rdev,
    buildId: () => buildId ??= regular ? buildIdOf(path) : [],
    modified() {
      const { seconds, nanoseconds: rest } = statx(name).modified;
      return nanoseconds(seconds, rest);
    },
    async digest(bytes) {
      let known = digests.get(bytes);
      if (known === undefined) {
        known = regular ? await digestOf(path, bytes) : new Uint8Array();
        digests.set(bytes, known);
      }
      return known;
    },
  };
}

function buildIdOf(path: Uint8Array): readonly number[] {
  const fd = open(path, O.RDONLY);
  try {
    const id = readBuildId(fd);
    return id === undefined ? [] : packBuildId(id);
  } finally {
    close(fd);
  }
}

async function digestOf(path: Uint8Array, bytes: number): Promise<Uint8Array> {
  const { digestContent } = await import("../ghost/content_digest.ts");
  const fd = open(path, O.RDONLY);
  try {
    return (await digestContent(fd, bytes)).digest;
  } finally {
    close(fd);
  }
}
