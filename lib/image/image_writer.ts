/**
 * Writes a directory of images so that it holds either a complete image or
 * none. Without an inventory it holds none, and that is made in a hidden
 * subdirectory, and moved up when all else is complete and safely on disk. So is
 * everything where an earlier image, or what is left of one, is to be replaced.
 */

import { CkptError, EXIT } from "../error.ts";
import { Calls, Texts } from "../ffi/calls.ts";
import { EACCES, EDQUOT, ENOSPC, EPERM } from "../ffi/errno.ts";
import { nameExists } from "../ffi/path_exists.ts";
import { sha256 } from "../ffi/sha256.ts";
import { writeNewFile } from "../ffi/small_files.ts";
import {
  addressOf,
  close,
  O,
  open,
  syscall,
  syscallBeside,
  SyscallError,
} from "../ffi/syscall.ts";
import { encodeImage } from "./framing.ts";
import { makeImagesDirectory } from "./images_directory.ts";
import {
  type Content,
  type ImageIndex,
  type ImageKind,
  imageName,
  isLegacyName,
  isRawName,
  parseImageName,
  PARTIAL_NAME,
} from "./kinds.ts";
import {
  encodeManifest,
  MANIFEST_NAME,
  type ManifestFile,
  newManifest,
} from "./manifest.ts";
import { FieldError } from "./message.ts";
import type { inventory_entry } from "./schema.gen.ts";

const INVENTORY_NAME = imageName("inventory");

/** statfs.f_type of what is gone with the host anyway: tmpfs, ramfs. */
const IN_MEMORY: ReadonlySet<bigint> = new Set([0x1021994n, 0x858458f6n]);
/** Files that are brought to disk at the same time. */
const SYNC_AT_ONCE = 16;
/** From here on it is faster to bring the whole file system to disk, once. */
const FILES_WORTH_SYNCFS = 64;

export interface ImageWriterOptions {
  /** Whether another image in the directory may be replaced. */
  replace: boolean;
}

export class ImageWriter implements Disposable {
  readonly #partial: string;
  readonly #lock: Deno.FsFile;
  readonly #createdDirectory: boolean;
  /** Where all files are made but the inventory. */
  readonly #place: string;
  /** Files with framing: bytes, and checksums for the manifest. */
  readonly #framed = new Map<
    string,
    { size: number; sha256: string }
  >();
  /** Files without, and their sizes where they are known already. */
  readonly #raw = new Map<string, number | undefined>();
  #parent: string | undefined;
  #moved: string[] = [];
  #state: "open" | "committed" | "aborted" = "open";

  private constructor(
    readonly directory: string,
    lock: Deno.FsFile,
    createdDirectory: boolean,
  ) {
    this.#partial = `${directory}/${PARTIAL_NAME}`;
    this.#lock = lock;
    this.#createdDirectory = createdDirectory;
    this.#place = imagesIn(directory).length > 0 ? this.#partial : directory;
  }

  /**
   * Opens a directory, and makes it if there is none.
   * @throws CkptError when it holds another image and `replace` was not asked
   * for, when another dump writes to it, or when it cannot be written
   */
  static open(directory: string, options: ImageWriterOptions): ImageWriter {
    return doing(directory, directory, () => {
      const created = makeImagesDirectory(directory);
      if (!options.replace && nameExists(`${directory}/${INVENTORY_NAME}`)) {
        throw new CkptError(EXIT.usage, action(directory), [{
          object: directory,
          why: "holds another image",
          remedy: "name another directory, or replace it with --replace",
        }]);
      }
      const lock = lockPartial(directory);
      return new ImageWriter(directory, lock, created);
    });
  }

  /**
   * Writes an image file.
   * @param index the number in the name, for the kinds that have one
   * @throws CkptError when it cannot be written, or a value does not fit
   */
  write<K extends ImageKind>(
    kind: K,
    index: ImageIndex,
    content: Content<K>,
  ): void {
    const name = imageName(kind, index);
    let bytes: Uint8Array;
    try {
      bytes = encodeImage(kind, content);
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      throw new CkptError(EXIT.failed, action(this.directory), [{
        object: name,
        why: error.message,
      }], { cause: error });
    }
    this.#writeFile(name, bytes);
    this.#framed.set(name, { size: bytes.length, sha256: sha256(bytes) });
  }

  /**
   * Registers a file that someone else fills, such as the pages written by
   * native code, and makes it empty with mode 0600.
   * @returns its path until the commit
   */
  createRaw(name: string): string {
    this.#raw.set(name, undefined);
    this.#writeFile(name, new Uint8Array());
    return this.#pathOf(name);
  }

  /** The directory where files are until the commit. */
  get unfinished(): string {
    return this.#place;
  }

  #pathOf(name: string): string {
    return `${name === INVENTORY_NAME ? this.#partial : this.#place}/${name}`;
  }

  /**
   * Registers a file of `size` bytes that someone else makes in the directory
   * {@link unfinished}.
   */
  adoptRaw(name: string, size: number): void {
    this.#raw.set(name, size);
  }

  /**
   * Says in which directory the pages are that this image leaves out.
   * @param path relative to the directory of images
   */
  linkParent(path: string): void {
    this.#parent = path;
  }

  #writeFile(name: string, bytes: Uint8Array): void {
    this.#mustBeOpen();
    doing(this.directory, name, () => {
      writeNewFile(this.#pathOf(name), bytes);
    });
  }

  #mustBeOpen(): void {
    if (this.#state !== "open") {
      throw new Error(`the image in ${this.directory} is ${this.#state}`);
    }
  }

  /**
   * Completes the image: manifest, everything to disk, then the inventory
   * under its name. Only now an image that was there before goes away.
   * @param ckptVersion goes into the manifest
   * @param adopted fulfilled when the files are there that others make
   * @param confirm has the last word, when all is on disk; it may throw
   * @returns how many bytes all files have together
   * @throws CkptError; `abort` is then still to be called
   */
  async commit(
    inventory: inventory_entry,
    ckptVersion: string,
    adopted?: Promise<void>,
    confirm?: () => void,
  ): Promise<number> {
    adopted?.catch(() => {}); // what fails before is told
    this.write("inventory", undefined, inventory);
    const names = [...this.#framed.keys(), ...this.#raw.keys()];
    const bytes = await this.#writeManifest(names, ckptVersion);
    names.push(MANIFEST_NAME);
    await adopted;
    await this.#syncAll(names);
    confirm?.();
    doing(this.directory, this.directory, () => this.#switchOver(names));
    this.#state = "committed";
    this.#lock.close();
    return bytes;
  }

  #writeManifest(names: string[], version: string): number {
    const manifest = newManifest(version);
    let total = 0;
    for (const name of names.toSorted()) {
      const framed = this.#framed.get(name);
      const entry: ManifestFile = framed === undefined
        ? {
          size: this.#raw.get(name) ??
            Deno.statSync(this.#pathOf(name)).size,
        }
        : { size: framed.size, sha256: framed.sha256 };
      manifest.files[name] = entry;
      total += entry.size;
    }
    const bytes = encodeManifest(manifest);
    this.#writeFile(MANIFEST_NAME, bytes);
    return total + bytes.length;
  }

  async #syncAll(names: string[]): Promise<void> {
    if (isInMemory(this.#partial)) return;
    if (names.length >= FILES_WORTH_SYNCFS) {
      const directory = open(this.#partial, O.RDONLY | O.DIRECTORY);
      try {
        await syscallBeside("syncfs", BigInt(directory));
      } catch (error) {
        throw writeError(this.directory, this.directory, error);
      } finally {
        close(directory);
      }
      return;
    }
    const queue = names.values();
    const worker = async () => {
      for (const name of queue) {
        let fd: number | undefined;
        try {
          fd = open(this.#pathOf(name), O.RDONLY);
          await syscallBeside("fsync", BigInt(fd));
        } catch (error) {
          throw writeError(this.directory, name, error);
        } finally {
          if (fd !== undefined) close(fd);
        }
      }
    };
    const workers = Array.from({ length: SYNC_AT_ONCE }, worker);
    const results = await Promise.allSettled(workers);
    for (const result of results) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  /** The moment of change. The old inventory goes first, the new comes last. */
  #switchOver(names: string[]): void {
    const isReplaced = this.#place !== this.directory;
    if (isReplaced) removeOldImage(this.directory);
    if (this.#parent !== undefined) {
      Deno.symlinkSync(this.#parent, `${this.directory}/parent`);
      this.#moved.push("parent");
    }
    if (isReplaced) {
      this.#moveUp(names.filter((name) => name !== INVENTORY_NAME));
    }
    syncDirectory(this.directory);
    this.#moveUp([INVENTORY_NAME]);
    Deno.removeSync(this.#partial);
    syncDirectory(this.directory);
  }

  #moveUp(names: readonly string[]): void {
    const directories = [this.#partial, this.directory].map((path) =>
      open(path, O.PATH | O.DIRECTORY)
    );
    try {
      const texts = new Texts(names);
      const name = { loaded: texts.pointers };
      const calls = new Calls();
      const moved = calls.add("renameat", [
        directories[0],
        name,
        directories[1],
        name,
      ]);
      calls.run(names.length);
      for (const [i, name] of names.entries()) {
        if (calls.result(i, moved) === 0) this.#moved.push(name);
      }
      const failed = names.findIndex((_, i) => calls.result(i, moved) !== 0);
      if (failed >= 0) {
        throw new SyscallError("renameat", -calls.result(failed, moved));
      }
    } finally {
      for (const directory of directories) close(directory);
    }
  }

  /**
   * Removes exactly what was written. Does nothing after a commit or a second
   * time; never throws, so that it does not hide the error that led to it.
   */
  abort(): void {
    if (this.#state !== "open") return;
    this.#state = "aborted";
    // The inventory was moved last, so it is to go first.
    for (const name of this.#moved.reverse()) {
      removeQuietly(`${this.directory}/${name}`);
    }
    if (this.#place === this.directory) {
      for (const path of imagesIn(this.directory)) removeQuietly(path);
    }
    removeQuietly(this.#partial);
    this.#lock.close();
    if (this.#createdDirectory) {
      try {
        Deno.removeSync(this.directory);
      } catch {
        // Others have put something in it.
      }
    }
  }

  /** Aborts unless the image was committed. */
  [Symbol.dispose](): void {
    this.abort();
  }
}

function action(directory: string): string {
  return `writing the images to ${directory}`;
}

function writeError(directory: string, object: string, error: unknown) {
  if (error instanceof CkptError) return error;
  const why = error instanceof Error ? error.message : String(error);
  const errno = error instanceof SyscallError ? error.errno : 0;
  const denied = error instanceof Deno.errors.PermissionDenied ||
    errno === EACCES || errno === EPERM;
  const exit = denied ? EXIT.permission : EXIT.failed;
  const { code } = error as { code?: string };
  const full = code === "ENOSPC" || code === "EDQUOT" ||
    errno === ENOSPC || errno === EDQUOT;
  const remedy = "make room, or name a directory on another file system";
  const reason = full ? { object, why, remedy } : { object, why };
  return new CkptError(exit, action(directory), [reason], { cause: error });
}

function doing<T>(directory: string, object: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    throw writeError(directory, object, error);
  }
}

/**
 * Makes the hidden subdirectory, empty, and holds a flock(2) on it, which ends
 * with this process however that ends. What a killed dump left is removed.
 */
function lockPartial(directory: string): Deno.FsFile {
  const partial = `${directory}/${PARTIAL_NAME}`;
  makeImagesDirectory(partial);
  const lock = Deno.openSync(partial);
  if (!lock.tryLockSync(true)) {
    lock.close();
    throw new CkptError(EXIT.failed, action(directory), [{
      object: directory,
      why: "another dump is writing to it",
      remedy: "wait for it, or name another directory",
    }]);
  }
  for (const { name } of Deno.readDirSync(partial)) {
    Deno.removeSync(`${partial}/${name}`, { recursive: true });
  }
  return lock;
}

/** Removes a former image, or what is left of one; logs and the like stay. */
function removeOldImage(directory: string): void {
  removeIfThere(`${directory}/${INVENTORY_NAME}`);
  syncDirectory(directory);
  for (const path of imagesIn(directory)) Deno.removeSync(path);
}

/** The paths of all that is part of an image, or what is left of one. */
function imagesIn(directory: string): string[] {
  return [...Deno.readDirSync(directory)]
    .flatMap(({ name }) => belongsToImage(name) ? `${directory}/${name}` : []);
}

function belongsToImage(name: string): boolean {
  return name === "parent" || name === MANIFEST_NAME || isRawName(name) ||
    isLegacyName(name) || parseImageName(name) !== undefined;
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

function removeQuietly(path: string): void {
  try {
    Deno.removeSync(path, { recursive: true });
  } catch {
    // It is gone already, or the file system is; the first error counts.
  }
}

function syncDirectory(directory: string): void {
  using file = Deno.openSync(directory);
  file.syncSync();
}

/** Whether there is no disk that files of a directory could be brought to. */
function isInMemory(directory: string): boolean {
  const STATFS_WORDS = 15;
  const answer = new BigUint64Array(STATFS_WORDS);
  const fd = open(directory, O.PATH);
  try {
    syscall("fstatfs", BigInt(fd), addressOf(new Uint8Array(answer.buffer)));
  } finally {
    close(fd);
  }
  return IN_MEMORY.has(answer[0]);
}
