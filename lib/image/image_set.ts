/**
 * A directory of images, opened for reading. Opening checks that it is a
 * complete image of a kind that ckpt reads, and against the manifest where
 * there is one; each file is decoded when it is first asked for.
 */

import { sha256 } from "../ffi/sha256.ts";
import { readSmallFile, readWrittenFiles } from "../ffi/small_files.ts";
import { isKnownFeature } from "./features.ts";
import { decodeImage } from "./framing.ts";
import { imageError, type ImageProblem } from "./image_error.ts";
import {
  type Content,
  IMAGE_FILES,
  type ImageIndex,
  type ImageKind,
  imageName,
  isLegacyName,
  isService,
  parseImageName,
  PARTIAL_NAME,
} from "./kinds.ts";
import { LIMITS } from "./limits.ts";
import {
  decodeManifest,
  MACHINE,
  type Manifest,
  MANIFEST_NAME,
  type ManifestFile,
} from "./manifest.ts";
import { readAt } from "./read_at.ts";
import type { inventory_entry } from "./schema.gen.ts";

const INVENTORY_NAME = imageName("inventory");

/** The img_version of the framing of today, "1.1". */
const IMG_VERSION = 2;

/**
 * Opens a directory of images.
 * @throws CkptError with all that is wrong with it as a whole
 */
export function readImageSet(directory: string): ImageSet {
  const names = listNames(directory);
  if (!names.has(INVENTORY_NAME)) throw incomplete(directory, names);
  const bytes = new Map<string, Uint8Array>();
  const manifest = names.has(MANIFEST_NAME)
    ? checkedManifest(directory, names, bytes)
    : undefined;
  const set = new ImageSet(directory, names, bytes, manifest);
  const problems = inventoryProblems(set.inventory, names);
  if (problems.length > 0) throw imageError(directory, problems);
  return set;
}

export class ImageSet {
  readonly inventory: inventory_entry;
  readonly #contents = new Map<string, unknown>();
  /** Address spaces by their checksums: those of forked processes are the same. */
  readonly #spaces = new Map<string, unknown>();
  readonly #bytes: Map<string, Uint8Array>;

  /** Use {@link readImageSet}. */
  constructor(
    readonly directory: string,
    /** The names of all files in the directory. */
    readonly names: ReadonlySet<string>,
    bytes: Map<string, Uint8Array>,
    /** Undefined for images that CRIU made. */
    readonly manifest: Manifest | undefined,
  ) {
    this.#bytes = bytes;
    this.inventory = this.require("inventory", undefined);
  }

  /** Whether there is such a file. */
  has(kind: ImageKind, index: ImageIndex): boolean {
    return this.names.has(imageName(kind, index));
  }

  /**
   * The content of a file, or undefined when there is none.
   * @throws CkptError when it is damaged
   */
  read<K extends ImageKind>(
    kind: K,
    index: ImageIndex,
  ): Content<K> | undefined {
    const name = imageName(kind, index);
    if (!this.names.has(name)) return undefined;
    const known = this.#contents.get(name);
    if (known !== undefined) return known as Content<K>;
    const sum = kind === "mm" ? this.manifest?.files[name]?.sha256 : undefined;
    const same = this.#spaces.get(sum ?? "");
    if (same !== undefined) {
      this.#bytes.delete(name);
      this.#contents.set(name, same);
      return same as Content<K>;
    }
    const bytes = IMAGE_FILES[kind].extra === "content"
      ? readHead(this.directory, name)
      : this.#bytes.get(name) ??
        readWhole(this.directory, name, LIMITS.file_bytes);
    this.#bytes.delete(name);
    const { directory } = this;
    const content = decodeImage(kind, bytes, { directory, name });
    this.#contents.set(name, content);
    if (sum !== undefined) this.#spaces.set(sum, content);
    return content;
  }

  /**
   * The content of a file that has to be there.
   * @throws CkptError when it is missing or damaged
   */
  require<K extends ImageKind>(kind: K, index: ImageIndex): Content<K> {
    const content = this.read(kind, index);
    if (content !== undefined) return content;
    const file = imageName(kind, index);
    throw imageError(this.directory, [{ file, why: "is missing" }]);
  }

  /** The numbers of all files of a kind, ascending. */
  indices(kind: ImageKind): bigint[] {
    const list: bigint[] = [];
    for (const name of this.names) {
      const parsed = parseImageName(name);
      if (parsed?.kind === kind && parsed.index !== undefined) {
        list.push(parsed.index);
      }
    }
    return list.sort((a, b) => (a < b ? -1 : 1));
  }

  /** Where a file lies. */
  path(name: string): string {
    return `${this.directory}/${name}`;
  }

  /** The size of a file in bytes, or undefined when there is none. */
  size(name: string): number | undefined {
    if (!this.names.has(name)) return undefined;
    // Those in the manifest have just been found to be so large.
    return this.manifest?.files[name]?.size ?? sizeOf(this.directory, name);
  }
}

function listNames(directory: string): Set<string> {
  const names = new Set<string>();
  try {
    for (const { name } of Deno.readDirSync(directory)) {
      if (names.size >= LIMITS.files) {
        throw imageError(directory, [{
          file: directory,
          why: `holds more than ${LIMITS.files} files`,
        }]);
      }
      names.add(name);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw imageError(directory, [{
        file: directory,
        why: "there is no such directory",
        remedy: "name the directory of a dump: -D DIR",
      }], { cause: error });
    }
    throw readError(directory, directory, error);
  }
  return names;
}

function incomplete(directory: string, names: Set<string>) {
  const remains = names.has(PARTIAL_NAME) ||
    [...names].some((name) => parseImageName(name));
  return imageError(directory, [{
    file: directory,
    why: remains
      ? "is not an image: the dump did not complete (no inventory.img)"
      : "is not an image: there is no inventory.img",
    remedy: "name the directory of a complete dump",
  }]);
}

/** What the inventory says against restoring, and files from before its time. */
function inventoryProblems(
  inventory: inventory_entry,
  names: Set<string>,
): ImageProblem[] {
  const file = INVENTORY_NAME;
  const problems: ImageProblem[] = [];
  const { img_version } = inventory;
  if (img_version === 0 && !names.has(imageName("pstree"))) {
    problems.push({
      file,
      why: "belongs to a pre-dump, which holds memory only",
      remedy: "restore from the directory of the dump that followed it",
    });
  } else if (img_version === 1) {
    problems.push({
      file,
      entry: 0,
      field: "img_version",
      why: "is 1: the framing of version 1.0, which ckpt does not read",
      remedy: "restore it with a CRIU of that time, and dump again",
    });
  } else if (img_version !== IMG_VERSION) {
    problems.push({
      file,
      entry: 0,
      field: "img_version",
      why: `is ${img_version}, which ckpt does not know`,
      remedy: "use a newer ckpt",
    });
  }
  for (const name of inventory.plugins_entry?.plugins ?? []) {
    if (isKnownFeature(name)) continue;
    problems.push({
      file,
      entry: 0,
      field: "plugins_entry.plugins",
      why: `"${name}" is needed to restore, and ckpt does not have it`,
      remedy: name.startsWith("ckpt:")
        ? "use a newer ckpt"
        : "restore with CRIU and this plugin",
    });
  }
  for (const name of names) {
    if (isLegacyName(name)) {
      problems.push({
        file: name,
        why: "is of an old version of CRIU, which split its images differently",
        remedy: "restore it with a CRIU of that time, and dump again",
      });
    }
  }
  return problems;
}

/**
 * Reads the manifest and every file that has a checksum in it.
 * @param bytes gets what was read
 * @throws CkptError naming every file that is not as it was written
 */
function checkedManifest(
  directory: string,
  names: Set<string>,
  bytes: Map<string, Uint8Array>,
): Manifest {
  const manifest = decodeManifest(
    readWhole(directory, MANIFEST_NAME, LIMITS.manifest_bytes),
  );
  if ("why" in manifest) throw imageError(directory, [manifest]);
  if (manifest.machine !== MACHINE) {
    throw imageError(directory, [{
      file: MANIFEST_NAME,
      why: `the image was made on ${manifest.machine}, this is ${MACHINE}`,
      remedy: `restore it on a machine of type ${manifest.machine}`,
    }]);
  }
  const unchanged = readUnchanged(directory, names, bytes, manifest);
  const problems = Object.entries(manifest.files).flatMap(([name, file]) =>
    unchanged.has(name)
      ? []
      : fileProblem(directory, names, bytes, name, file) ?? []
  );
  for (const name of names) {
    const kind = parseImageName(name)?.kind;
    if (kind === undefined || isService(kind)) continue;
    if (!Object.hasOwn(manifest.files, name)) {
      problems.push({ file: name, why: "is not in the manifest" });
    }
  }
  if (problems.length > 0) throw imageError(directory, problems);
  return manifest;
}

/** What is more than that is read file by file. */
const AT_ONCE_BYTES = 64 << 20;

/**
 * Reads files that are as they were written, by one call: there are hundreds,
 * of many processes or connections.
 *
 * @param bytes gets what was read
 * @returns their names; of others, {@link fileProblem} tells what is wrong
 */
function readUnchanged(
  directory: string,
  names: Set<string>,
  bytes: Map<string, Uint8Array>,
  { files }: Manifest,
): Set<string> {
  let room = AT_ONCE_BYTES;
  const written = Object.entries(files).flatMap(([name, { size, sha256 }]) => {
    if (!names.has(name) || !Number.isSafeInteger(size) || size < 0) return [];
    if (sha256 !== undefined) {
      if (size > Math.min(room, LIMITS.file_bytes)) return [];
      room -= size;
    }
    return [{ name, size, sha256 }];
  });
  const found = readWrittenFiles(directory, written);
  const unchanged = new Set<string>();
  written.forEach(({ name }, i) => {
    const { isUnchanged, content } = found[i];
    if (!isUnchanged) return;
    unchanged.add(name);
    if (content !== undefined) bytes.set(name, content);
  });
  return unchanged;
}

function fileProblem(
  directory: string,
  names: Set<string>,
  bytes: Map<string, Uint8Array>,
  name: string,
  file: ManifestFile,
): ImageProblem | undefined {
  if (!names.has(name)) return { file: name, why: "is missing" };
  const size = sizeOf(directory, name);
  if (size !== file.size) {
    const why = `is ${size} bytes long; it was written with ${file.size}`;
    return { file: name, why };
  }
  if (file.sha256 === undefined) return undefined;
  const content = readWhole(directory, name, LIMITS.file_bytes, size);
  if (sha256(content) !== file.sha256) {
    return { file: name, why: "is damaged: its checksum does not match" };
  }
  bytes.set(name, content);
  return undefined;
}

/** @throws CkptError when it is no regular file */
function sizeOf(directory: string, name: string): number {
  try {
    const status = Deno.statSync(`${directory}/${name}`);
    if (status.isFile) return status.size;
  } catch (error) {
    throw readError(directory, name, error);
  }
  throw imageError(directory, [{ file: name, why: "is not a regular file" }]);
}

/** Reads a file whose size is checked first, so that it cannot be too much. */
function readWhole(
  directory: string,
  name: string,
  most: number,
  size = sizeOf(directory, name),
): Uint8Array {
  if (size > most) {
    throw imageError(directory, [{
      file: name,
      why: `is ${size} bytes long, more than ${most}`,
    }]);
  }
  try {
    return readSmallFile(`${directory}/${name}`).slice();
  } catch (error) {
    throw readError(directory, name, error);
  }
}

/** The beginning of a file whose content is not for JavaScript. */
function readHead(directory: string, name: string): Uint8Array {
  sizeOf(directory, name);
  try {
    using file = Deno.openSync(`${directory}/${name}`);
    return readAt(file, 0, LIMITS.ghost_head_bytes);
  } catch (error) {
    throw readError(directory, name, error);
  }
}

function readError(directory: string, file: string, error: unknown): unknown {
  if (!(error instanceof Error) || error.name === "CkptError") return error;
  return imageError(directory, [{ file, why: error.message }], {
    cause: error,
  });
}
